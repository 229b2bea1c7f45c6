"""A run of the service: updates, flushes, what was left before it, and its end."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from playerstate import (
    InvalidState,
    Joined,
    NotOnline,
    NotRunning,
    NotSaved,
    PlayerStateService,
    Progress,
    Runtime,
    StoreBusy,
    within,
)
from playerstate.interfaces import RowRefused, Stored
from playerstate.saving.commit import Commit
from playerstate.saving.health import Trouble
from playerstate.saving.heartbeat import REACTOR_SILENT
from playerstate.testing import FaultyStore, MemoryReactor, SteppedService
from tests.kit.players import (
    SCHEMA,
    FragileReader,
    FragileStore,
    ServiceTestCase,
    at,
    die,
    end_thread,
    leave_behind,
    outcome,
)


@attrs.frozen
class Avatar:
    """A state with a bound."""

    x: float = attrs.field(default=350.0, metadata=within(0, 4096))
    hp: int = 100


class UpdateTests(ServiceTestCase):
    """Taking updates in."""

    def test_applied(self) -> None:
        """An update is what `state` returns from then on."""
        stepped = self.start()
        stepped.join(42)
        for n in range(3):
            stepped.service.update(42, at(n, -n))
            self.assertEqual(stepped.service.state(42), at(n, -n))
        books = stepped.service.ledger.snapshot()
        self.assertEqual((books.received, books.applied, books.superseded), (3, 3, 2))
        self.assertEqual(books.pending, 1)

    def test_never_moved(self) -> None:
        """A player who never moved is not written, neither by a sweep nor by leaving."""
        stepped = self.start()
        stepped.join(42)
        stepped.reactor.advance(5)
        stepped.settle()
        self.successResultOf(stepped.service.flush())
        self.successResultOf(stepped.service.leave(42))
        self.successResultOf(stepped.stop())
        self.assertEqual(stepped.store.players, {})
        self.assertEqual(stepped.store.writes, [])

    def test_invalid(self) -> None:
        """A value outside its field is refused with the field's name and bound; nothing changes."""
        stepped = self.start(state=Avatar)
        stepped.join(42)
        stepped.service.update(42, Avatar(10.0))
        with self.assertRaises(InvalidState) as caught:
            stepped.service.update(42, Avatar(4097.0))
        self.assertEqual(caught.exception.field, "x")
        self.assertIn("from 0.0 to 4096.0", str(caught.exception))
        for wrong in (Avatar(float("nan")), Avatar(1.0, 2**63), at(1)):
            self.assertRaises(InvalidState, stepped.service.update, 42, wrong)
        self.assertEqual(stepped.service.state(42), Avatar(10.0))
        books = stepped.service.ledger.snapshot()
        self.assertEqual((books.received, books.malformed), (5, {"value": 4}))

    def test_not_online(self) -> None:
        """Who never joined or has left is not online: for updates, for looking, for leaving."""
        stepped = self.start()
        service = stepped.service
        stepped.join(1)
        service.update(1, at(1))
        service.leave(1)
        for session_id in (1, 2):
            with self.assertRaises(NotOnline) as caught:
                service.update(session_id, at(2))
            self.assertEqual(caught.exception.session_id, session_id)
            self.assertRaises(NotOnline, service.state, session_id)
        self.assertRaises(NotOnline, service.progress, 2)
        self.assertEqual(service.progress(1), Progress(0, 0))
        failure = self.failureResultOf(service.leave(2), NotOnline)
        self.assertEqual(str(failure.value), "player 2 is not online")
        self.assertEqual(service.ledger.rejected, {"not_online": 2})

    def test_not_running(self) -> None:
        """Before the start and after the stop nothing is taken in, and nobody is online."""
        stepped = self.start()
        stepped.join(42)
        stepped.stop()
        for service in (stepped.service, PlayerStateService(FaultyStore(SCHEMA))):
            self.assertRaises(NotRunning, service.update, 42, at(1))
            self.assertRaises(NotRunning, service.state, 42)
            self.assertRaises(NotRunning, service.progress, 42)
            self.failureResultOf(service.join(42), NotRunning)
            self.failureResultOf(service.leave(42), NotRunning)
            self.failureResultOf(service.flush(), NotRunning)
            self.assertEqual(service.ledger.rejected, {"stopping": 1})
            self.assertEqual(service.ledger.snapshot().imbalance(), [])
            self.successResultOf(service.stopService())

    def test_grows_over_a_stepping_wall_clock(self) -> None:
        """Invariant 5: ``updated_at`` grows with each update, whatever the wall clock does."""
        stepped = self.start()
        stepped.join(42)
        seen = [0]
        for step in (0.0, -3600.0, -3600.0, 0.0, 365 * 86_400.0, 0.0, -3600.0):
            stepped.wall_step = step
            stepped.reactor.advance(0.01)
            stepped.service.update(42, at(step))
            seen.append(stepped.join(42).updated_at)
        self.assertEqual(seen, sorted(set(seen)))
        self.assertEqual(seen[2], seen[1] + 2)
        self.successResultOf(stepped.stop())
        self.assertEqual(self.stored(stepped), {42: (-3600.0, 0.0)})

    def test_saved_over_a_stepping_wall_clock(self) -> None:
        """Invariants 4 and 5: after a year's step back, saved rows are still replaced by newer."""
        stepped = self.start()
        stepped.join(42)
        for n, step in enumerate((365 * 86_400.0, 0.0, -3600.0)):
            stepped.wall_step = step
            stepped.service.update(42, at(n))
            left = stepped.service.leave(42)
            stepped.reactor.advance(0.05)
            stepped.settle()
            self.successResultOf(left)
            self.assertEqual(stepped.join(42).state, at(n))
        self.assertEqual(stepped.service.ledger.outdated, 0)


class RecoveryTests(ServiceTestCase):
    """What a process before left is saved before anybody joins."""

    LEFT = MappingProxyType({n: Stored((float(n), float(n)), 100 * n) for n in (1, 2, 3, 4)})

    def setUp(self) -> None:
        """A store that has some of it, older, as old, and newer."""
        super().setUp()
        self.memory = leave_behind(self, dict(self.LEFT))
        self.store = FragileStore()
        self.store.players = {
            1: Stored((0.0, 0.0), 99),
            2: Stored((2.0, 2.0), 200),
            3: Stored((9.0, 9.0), 301),
        }

    def begin(self, **options: Any) -> SteppedService:
        """Start a service."""
        self.stepped = self.start(store=self.store, **options)
        self.service = self.stepped.service
        return self.stepped

    def test_counted(self) -> None:
        """What the store has already is neither counted nor written; the rest is pending first."""
        stepped = self.begin()
        books = self.service.ledger.snapshot()
        self.assertEqual((books.recovered, books.pending), (2, 2))
        self.assertEqual(books.imbalance(), [])
        stepped.settle()
        books = self.service.ledger.snapshot()
        self.assertEqual((books.recovered, books.committed, books.pending), (2, 2, 0))
        self.assertEqual(self.store.writes, [2])
        self.assertEqual(
            self.stored(stepped),
            {1: (1.0, 1.0), 2: (2.0, 2.0), 3: (9.0, 9.0), 4: (4.0, 4.0)},
        )
        self.assertEqual(self.memory.forgotten, 1)

    def test_store_has_all_of_it(self) -> None:
        """Where the store has everything there is nothing to wait for."""
        self.store.players = dict(self.LEFT)
        stepped = self.begin()
        self.assertEqual(stepped.join(1).state, at(1, 1))
        self.assertEqual((self.service.ledger.recovered, self.memory.forgotten), (0, 1))
        self.assertIs(self.service.trouble, None)

    def test_joins_wait(self) -> None:
        """Joins fail with `StoreBusy` until all is saved, and find it then."""
        stepped = self.begin()
        self.store.failures.extend(StoreBusy("locked") for _ in range(3))
        for _ in range(3):
            failure = self.failureResultOf(self.service.join(1), StoreBusy)
            self.assertEqual(str(failure.value), "what the last run left is not saved yet")
            stepped.step()
        self.assertEqual(self.memory.forgotten, 0)
        stepped.step()
        self.assertEqual(stepped.join(1), Joined(at(1, 1), True, 100))
        self.assertEqual(len(self.told("what the last run left is saved: players may join")), 1)

    def test_given_up_with_a_part_saved(self) -> None:
        """Of those who were left, a stop that gives up names who is not in the store."""
        stepped = self.begin(stop_within=2.0)
        self.store.cursed = {4}
        stepped.step()
        self.store.cursed = set()
        self.store.failures.extend(StoreBusy("locked") for _ in range(100))
        self.successResultOf(stepped.stop())
        [line] = self.told("stopped with the newest state unsaved of player")
        self.assertIn("of player 4;", line)
        self.assertEqual(self.stored(stepped)[1], (1.0, 1.0))
        self.flushLoggedErrors(RowRefused)

    def test_store_that_cannot_be_read(self) -> None:
        """What cannot be compared is written, where the store's guard compares."""
        load = FragileReader.load

        def fail(reader: FragileReader, session_id: int) -> Any:
            if session_id == 3:
                raise StoreBusy("locked")
            return load(reader, session_id)

        self.patch(FragileReader, "load", fail)
        stepped = self.begin()
        self.assertEqual(self.service.ledger.recovered, 3)
        stepped.settle()
        books = self.service.ledger.snapshot()
        self.assertEqual((books.committed, books.outdated, books.pending), (2, 1, 0))
        self.assertEqual(self.stored(stepped)[3], (9.0, 9.0))
        self.assertEqual(stepped.join(1).state, at(1, 1))

    def test_degraded(self) -> None:
        """A recovery that does not come to an end is trouble like any other."""
        stepped = self.begin()
        self.store.failures.extend(StoreBusy("locked") for _ in range(100))
        for _ in range(8):
            stepped.step()
            stepped.reactor.advance(1.0)
        self.assertEqual(self.service.trouble, Trouble("locked", 8.0))
        [line] = self.told("degraded: ", LogLevel.critical)
        self.assertTrue(line.endswith("2 updates wait"), line)
        self.assertGreater(self.service.ledger.snapshot().oldest_unsaved_seconds, 5.0)
        self.store.failures.clear()
        stepped.step()
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.service.ledger.snapshot().oldest_unsaved_seconds, 0.0)

    def test_flush_waits(self) -> None:
        """A flush waits for it as well."""
        stepped = self.begin()
        flushed = self.service.flush()
        self.waits(flushed)
        stepped.step()
        self.successResultOf(flushed)

    def test_flush_with_a_row_set_aside(self) -> None:
        """A flush fails where a row that was left can never be saved; players may join then."""
        stepped = self.begin()
        self.store.cursed = {4}
        flushed = self.service.flush()
        stepped.step()
        self.waits(flushed)
        self.failureResultOf(self.service.join(1), StoreBusy)
        stepped.step()
        stepped.step()
        self.failureResultOf(flushed, NotSaved)
        self.assertEqual(self.store.aside, [(4, "not this one")])
        self.assertEqual(stepped.join(1).state, at(1, 1))
        books = self.service.ledger.snapshot()
        self.assertEqual((books.committed, books.quarantined, books.pending), (1, 1, 0))
        self.assertEqual(len(self.flushLoggedErrors(RowRefused)), 1)

    def test_thread_dies(self) -> None:
        """The next persist thread goes on with it."""
        stepped = self.begin()
        die(stepped, SystemExit("out"))
        self.failureResultOf(self.service.join(1), StoreBusy)
        stepped.reactor.advance(0.075)
        stepped.settle()
        self.assertEqual(stepped.join(4).state, at(4, 4))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_stopped(self) -> None:
        """A stop waits until it is saved, and is clean; joins are refused as by any stop."""
        stepped = self.begin()
        self.store.failures.append(StoreBusy("locked"))
        stopped = self.service.stopService()
        self.failureResultOf(self.service.join(1), NotRunning)
        stepped.step()
        self.waits(stopped)
        self.assertEqual(self.memory.forgotten, 0)
        stepped.step()
        end_thread(stepped)
        self.successResultOf(stopped)
        self.assertEqual((self.memory.forgotten, self.memory.closes), (1, [True]))
        self.assertFalse(self.service.gave_up)

    def test_given_up(self) -> None:
        """A stop that cannot save it leaves it to the next start, which does."""
        stepped = self.begin(stop_within=2.0)
        self.store.failures.extend(StoreBusy("locked") for _ in range(100))
        self.successResultOf(stepped.stop())
        self.assertTrue(self.service.gave_up)
        self.assertEqual((self.memory.forgotten, self.memory.closes), (0, [False]))
        books = self.service.ledger.snapshot()
        self.assertEqual((books.pending, books.abandoned), (0, 2))
        [line] = self.told("stopped with the newest state unsaved of player")
        self.assertIn("of player 1, 4;", line)
        self.store.failures.clear()
        self.service.startService()
        self.assertFalse(self.service.gave_up)
        self.assertEqual(self.service.ledger.recovered, 4)
        self.failureResultOf(self.service.join(1), StoreBusy)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, at(1, 1))
        books = self.service.ledger.snapshot()
        self.assertEqual((books.committed, books.imbalance()), (2, []))

    def test_identity(self) -> None:
        """The store keeps its identity while rows of it are left, and gets a new one otherwise."""
        identities: list[bytes] = []
        self.patch(self.store, "migrate", lambda drawn: identities.append(drawn) or drawn)
        stepped = self.begin()
        self.successResultOf(stepped.stop())
        for _ in range(2):
            self.service.startService()
            self.successResultOf(stepped.stop())
        self.assertEqual(identities[0], self.store.prepare())
        self.assertEqual([len(identity) for identity in identities], [16, 16, 16])
        self.assertEqual(len(set(identities)), 3)


class FlushTests(ServiceTestCase):
    """Saving everything now."""

    def joined(self, players: int, **options: Any) -> SteppedService:
        """A service with so many players who have moved."""
        stepped = self.start(**options)
        for session_id in range(1, players + 1):
            stepped.join(session_id)
            stepped.service.update(session_id, at(session_id))
        return stepped

    def test_fires_when_committed(self) -> None:
        """A flush fires when all that was applied before is committed, not before."""
        stepped = self.joined(3)
        flushed = stepped.service.flush()
        self.waits(flushed)
        stepped.thread.persister.step()
        self.waits(flushed)
        stepped.reactor.deliver()
        self.successResultOf(flushed)
        self.assertEqual(len(stepped.store.players), 3)

    def test_nothing_to_save(self) -> None:
        """With everything saved a flush fires at once."""
        stepped = self.start()
        self.successResultOf(stepped.service.flush())
        stepped.join(1)
        self.successResultOf(stepped.service.flush())

    def test_not_for_what_comes_after(self) -> None:
        """A flush does not wait for updates applied after it, however many they are."""
        stepped = self.joined(1)
        flushed = stepped.service.flush()
        stepped.reactor.advance(0.01)
        stepped.service.update(1, at(2))
        stepped.step()
        self.successResultOf(flushed)
        self.assertEqual(stepped.service.ledger.snapshot().pending, 1)

    def test_for_what_is_under_way(self) -> None:
        """A flush waits for rows that were handed over before it."""
        stepped = self.joined(1)
        stepped.store.failures.append(StoreBusy("locked"))
        stepped.reactor.advance(3.0)
        stepped.step()
        flushed = stepped.service.flush()
        self.waits(flushed)
        stepped.step()
        self.successResultOf(flushed)

    def test_ring_smaller_than_what_is_dirty(self) -> None:
        """A flush through a small ring fires when the last of the rows is committed."""
        stepped = self.joined(9, queue_size=2)
        flushed = stepped.service.flush()
        for _ in range(4):
            stepped.step()
            self.waits(flushed)
        stepped.step()
        self.successResultOf(flushed)
        self.assertEqual(stepped.store.writes, [2, 2, 2, 2, 1])

    def test_two(self) -> None:
        """Each of two flushes fires with what was applied before it."""
        stepped = self.joined(1)
        first = stepped.service.flush()
        stepped.thread.persister.step()  # committed, and not yet told
        stepped.reactor.rightNow += 1.0
        stepped.service.update(1, at(2))
        second = stepped.service.flush()
        stepped.reactor.deliver()
        self.successResultOf(first)
        self.waits(second)
        stepped.step()
        self.successResultOf(second)

    def test_cancelled(self) -> None:
        """A flush may be cancelled; another one still fires."""
        stepped = self.joined(1)
        first, second = stepped.service.flush(), stepped.service.flush()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        stepped.settle()
        self.successResultOf(second)

    def test_cancelled_by_another(self) -> None:
        """A flush cancelled from the callback of another fails, and nothing else does."""
        stepped = self.joined(1)
        first, second, third = (stepped.service.flush() for _ in range(3))
        cancelled = outcome(second)
        first.addCallback(lambda _: second.cancel())
        stepped.settle()
        self.successResultOf(first)
        self.assertIsInstance(cancelled[0], CancelledError)
        self.successResultOf(third)


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


class LogTests(ServiceTestCase):
    """What a run logs while it lasts."""

    def test_summary(self) -> None:
        """A summary is logged each minute."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1))
        for _ in range(2):
            stepped.reactor.advance(60.0)
            stepped.settle()
        self.assertEqual(len(self.told("1 players online;", LogLevel.info)), 2)

    def test_reactor_does_not_run(self) -> None:
        """The log says once that it does not run, and calls do not pile up in the reactor."""
        stepped = self.start(store=FaultyStore(SCHEMA, lanes=3))
        lanes = stepped.service.run.outbox._lanes
        for _ in range(30):
            for lane in lanes:
                lane.beat()
            Clock.advance(stepped.reactor, REACTOR_SILENT / 10)
        self.assertEqual(len(self.told("the reactor has not run", LogLevel.critical)), 1)
        self.assertEqual(len(stepped.reactor._calls), 1)


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
