"""A run of the service: whole from the first, and over with the stop."""

from __future__ import annotations

from typing import Any

from playerstate import NotRunning, PlayerStateService, Runtime
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import StoreBusy
from playerstate.saving.persister import Commit
from playerstate.testing import FaultyStore, MemoryReactor, SteppedService
from tests.kit.players import SCHEMA, ServiceTestCase, at, end_thread


class LedgerTests(ServiceTestCase):
    """The books of a service, which are one for all of its runs."""

    def test_held_before_the_start(self) -> None:
        """A ledger held from before the start counts what happens after it."""
        reactor = MemoryReactor()
        service = PlayerStateService(
            FaultyStore(SCHEMA), runtime=Runtime(reactor, start_thread=_NoThread)
        )
        ledger = service.ledger
        service.startService()
        self.successResultOf(service.join(42))
        service.update(42, at(1))
        books = ledger.snapshot()
        self.assertEqual((books.joins, books.applied, books.pending), (1, 1, 1))
        self.assertEqual(books.imbalance(), [])

    def test_given_up(self) -> None:
        """What a stop gave up is abandoned: the books balance with the service stopped."""
        stepped = self.start(stop_within=1.0)
        stepped.join(42)
        stepped.service.update(42, at(1))
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(20))
        self.successResultOf(stepped.stop())
        books = stepped.service.ledger.snapshot()
        self.assertEqual((books.abandoned, books.pending, books.imbalance()), (1, 0, []))
        self.assertEqual((books.players_online, books.queue_depth), (0, 0))
        stepped.store.failures.clear()
        stepped.service.startService()
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])

    def test_late_word(self) -> None:
        """What a thread that was stuck commits after the stop is not counted a second time."""
        stepped = self.start(stop_within=1.0)
        stepped.join(42)
        stepped.service.update(42, at(1))
        stopped = stepped.service.stopService()
        listener = stepped.thread.persister._listener
        commits: list[Commit] = []
        self.patch(listener, "committed", commits.append)
        stepped.step()
        for _ in range(3):
            stepped.reactor.advance(1.0)
        self.successResultOf(stopped)
        self.assertEqual(stepped.service.ledger.abandoned, 1)
        [commit] = commits
        type(listener).committed(listener, commit)
        listener.thread_ended(True)
        stepped.reactor.deliver()
        books = stepped.service.ledger.snapshot()
        self.assertEqual((books.committed, books.abandoned, books.imbalance()), (0, 1, []))


class NotRunningTests(ServiceTestCase):
    """What is asked of a service that has stopped."""

    def check(self, service: PlayerStateService, gateway: Gateway) -> None:
        """Every call says that the service is not running."""
        for name in ("clock", "table", "run"):
            self.assertRaises(NotRunning, getattr, service, name)
        calls: list[Any] = [service.state, service.progress]
        calls += [lambda n: service.update(n, at(1))]
        for call in calls:
            self.assertRaises(NotRunning, call, 42)
        for ask in (service.join, service.leave, gateway.kick):
            self.failureResultOf(ask(42), NotRunning)
        self.failureResultOf(service.flush(), NotRunning)
        self.assertRaises(NotRunning, gateway.start)
        self.successResultOf(gateway.close())
        self.assertFalse(service.has_room(42))
        self.assertIsNone(service.trouble)
        service.guard()

    def test_before_and_after(self) -> None:
        """Before the first start, and after each stop."""
        service = PlayerStateService(FaultyStore(SCHEMA))
        self.check(service, Gateway(service))
        stepped = self.start()
        for _ in range(2):
            self.successResultOf(stepped.stop())
            self.check(stepped.service, Gateway(stepped.service))
            stepped.service.startService()

    def test_run(self) -> None:
        """A restart is another run; the one before takes nothing in."""
        stepped = self.start()
        stepped.join(42)
        before = stepped.service.run
        self.successResultOf(stepped.stop())
        stepped.service.startService()
        self.assertIsNot(stepped.service.run, before)
        self.assertRaises(NotRunning, before.update, 42, at(1))
        self.failureResultOf(before.join(42, None), NotRunning)

    def test_restart_from_the_stop(self) -> None:
        """Whoever is told of the stop may start the service again, at once."""
        stepped = self.start()
        stopped = stepped.service.stopService()
        stopped.addCallback(lambda _: stepped.service.startService())
        end_thread(stepped)
        self.successResultOf(stopped)
        self.assertEqual(stepped.join(42).restored, False)


class CompleteTests(ServiceTestCase):
    """A run has all that it will ever have."""

    def test_no_attribute_comes_later(self) -> None:
        """Neither its beginning nor its end adds an attribute to a run."""
        stepped = SteppedService()
        run = stepped.service.run
        before = set(vars(run))
        stepped.join(42)
        stepped.service.update(42, at(1))
        self.successResultOf(stepped.stop())
        self.assertEqual(set(vars(run)), before)


class _NoThread:
    """A persist thread that never runs."""

    def __init__(self, run: object, name: str) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        """It never ran."""
