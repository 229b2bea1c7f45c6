"""The order of a stop, its deadline, and what fails on the way."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from playerstate import NotRunning, NotSaved, StoreBusy, StoreUnusable
from playerstate.interfaces import IStateReader, IStateStore, IStateWriter
from tests.kit.players import ServiceTestCase, at, end_thread
from tests.kit.watched import WatchedStore


class StopTests(ServiceTestCase):
    """The order of stopping (invariant 10)."""

    def setUp(self) -> None:
        """A service with one player saved and moved again, so that there is a writer."""
        super().setUp()
        self.store = WatchedStore()
        self.stepped = self.start(store=self.store, stop_within=5.0)
        self.service = self.stepped.service
        self.stepped.join(42)
        self.service.update(42, at(1))
        self.service.flush()
        self.stepped.settle()
        self.service.update(42, at(2))
        self.store.calls.clear()

    def end_thread(self) -> None:
        """Let the persist thread, which was told to end, end."""
        end_thread(self.stepped)

    def test_store_is_one(self) -> None:
        """The store of these tests is one."""
        verifyObject(IStateStore, self.store)
        verifyObject(IStateReader, self.store.open_reader())
        verifyObject(IStateWriter, self.store.open_writer())

    def test_order(self) -> None:
        """Save, sync and close the writer on its thread, join it, close the reader, the store."""
        stopped = self.service.stopService()
        self.waits(stopped)
        self.stepped.settle()
        self.waits(stopped)
        self.assertEqual(self.store.calls, ["write"])
        self.end_thread()
        self.successResultOf(stopped)
        calls = ["write", "sync", "close writer", "close reader", "close store"]
        self.assertEqual(self.store.calls, calls)
        self.assertTrue(self.stepped.thread.joined)
        self.assertEqual(self.store.inner.players[42].values, (2.0, 0.0))
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.told("stopped: ", LogLevel.info)), 1)

    def test_refuses_first(self) -> None:
        """From the first moment of stopping, joins and updates are refused; leaving is not."""
        stopped = self.service.stopService()
        self.failureResultOf(self.service.join(7), NotRunning)
        self.assertRaises(NotRunning, self.service.update, 42, at(3))
        left, flushed = self.service.leave(42), self.service.flush()
        self.stepped.settle()
        self.successResultOf(left)
        self.successResultOf(flushed)
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(self.store.inner.players[42].values, (2.0, 0.0))

    def test_sweeps_last(self) -> None:
        """What was applied in the moment before is swept by the stop itself."""
        self.service.stopService()
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)

    def test_small_ring(self) -> None:
        """Stopping saves more players than the ring has room for."""
        stepped = self.start(queue_size=2)
        for session_id in range(1, 20):
            stepped.join(session_id)
            stepped.service.update(session_id, at(session_id))
        self.successResultOf(stepped.stop())
        self.assertEqual(len(stepped.store.players), 19)

    def test_twice(self) -> None:
        """Who stops a second time waits for the same end; one of them may cancel."""
        first, second, third = (self.service.stopService() for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.stepped.settle()
        self.waits(second, third)
        self.end_thread()
        self.successResultOf(second)
        self.successResultOf(third)
        self.assertEqual(self.store.calls.count("close store"), 1)
        self.successResultOf(self.service.stopService())

    def test_progress_is_told(self) -> None:
        """Each second it is told how much waits, and how long that may take."""
        self.service.stopService()
        for _ in range(3):
            self.stepped.reactor.advance(1.0)
        lines = self.told("giving up in", LogLevel.info)
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[0], "stopping: 1 updates still wait for watched; giving up in 4 s")

    def test_deadline(self) -> None:
        """At the deadline the writer is interrupted, and who waits gets `NotSaved`."""
        for session_id in range(100, 130):
            self.stepped.join(session_id)
            self.service.update(session_id, at(1))
        left, flushed = self.service.leave(42), self.service.flush()
        stopped = self.service.stopService()
        self.stepped.reactor.advance(4.9)
        self.waits(left, flushed, stopped)
        self.stepped.reactor.advance(0.1)
        why = "the store did not take everything within 5.0 s"
        for waiter in (left, flushed):
            self.assertEqual(str(self.failureResultOf(waiter, NotSaved).value), why)
        self.waits(stopped)
        self.assertEqual(self.store.calls, ["interrupt"])
        names = ", ".join(map(str, [42, *range(100, 119)]))
        [line] = self.told("unsaved", LogLevel.error)
        self.assertEqual(
            line,
            f"stopped with the newest state unsaved of player {names} and 11 more; {why};"
            " they are lost",
        )
        self.end_thread()
        self.successResultOf(stopped)
        calls = ["interrupt", "close writer", "close reader", "close store"]
        self.assertEqual(self.store.calls, calls)

    def test_deadline_without_waiters(self) -> None:
        """A deadline that passes over players who are online ends the stop all the same."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(len(self.told("unsaved of player 42;")), 1)

    def test_deadline_while_failing(self) -> None:
        """The deadline holds for a store that is busy all the time."""
        self.store.inner.failures.extend(StoreBusy("locked") for _ in range(100))
        stopped = self.service.stopService()
        for _ in range(51):
            self.stepped.step()
            self.stepped.reactor.advance(0.1)
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(len(self.told("unsaved of player 42;")), 1)

    def test_waits_after_the_deadline(self) -> None:
        """Who asks when the service has given up is told so at once."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.failureResultOf(self.service.leave(42), NotRunning)
        self.failureResultOf(self.service.flush(), NotRunning)
        self.end_thread()
        self.successResultOf(stopped)

    def test_stuck_thread(self) -> None:
        """A thread that does not end holds nobody up; the store stays locked, as it may write."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.stepped.reactor.advance(0.9)
        self.waits(stopped)
        self.stepped.reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.store.calls, ["interrupt"])
        self.assertFalse(self.stepped.thread.joined)
        self.assertEqual(len(self.told("the persist thread is stuck", LogLevel.critical)), 1)
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])

    def test_stuck_while_closing(self) -> None:
        """A writer that is slow to close has 5 s for it, whatever is left of the deadline."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(4.0)
        self.stepped.settle()
        self.stepped.reactor.advance(4.9)
        self.waits(stopped)
        self.stepped.reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertNotIn("close store", self.store.calls)

    def test_slow_to_close_within_the_deadline(self) -> None:
        """What is left of the deadline is the writer's, where that is more than 5 s."""
        stepped = self.start(stop_within=30.0)
        stopped = stepped.service.stopService()
        stepped.reactor.advance(25.0)
        self.waits(stopped)
        end_thread(stepped)
        self.successResultOf(stopped)
        self.assertEqual(self.told("is stuck"), [])

    def test_ends_after_all(self) -> None:
        """A thread that was given up and still commits starts nothing anew."""
        stepped = self.start(queue_size=2, stop_within=1.0)
        for session_id in range(1, 11):
            stepped.join(session_id)
            stepped.service.update(session_id, at(session_id))
        stopped = stepped.service.stopService()
        for _ in range(3):
            stepped.reactor.advance(1.0)
        self.successResultOf(stopped)
        stepped.step()
        end_thread(stepped)
        self.assertEqual(stepped.reactor.getDelayedCalls(), [])

    def test_sync_fails(self) -> None:
        """A last sync that fails is told of; the stop ends, and the memory is not called clean."""
        closes: list[bool] = []
        self.patch(self.service._memory, "close", lambda clean: closes.append(clean))
        self.store.failing = {"sync"}
        stopped = self.service.stopService()
        self.stepped.settle()
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(StoreUnusable)), 1)
        self.assertEqual(self.store.calls[-3:], ["close writer", "close reader", "close store"])
        self.assertEqual(closes, [False])

    def test_gave_up(self) -> None:
        """Whether the last stop gave up is known; the next start forgets it."""
        self.assertFalse(self.service.gave_up)
        self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.assertTrue(self.service.gave_up)
        self.end_thread()
        self.assertTrue(self.service.gave_up)
        self.service.startService()
        self.assertFalse(self.service.gave_up)
        self.successResultOf(self.stepped.stop())
        self.assertFalse(self.service.gave_up)

    def test_closing_fails(self) -> None:
        """A store that cannot be closed is told of; the stop still ends, with all else closed."""
        self.store.failing = {"close reader", "close store", "close writer"}
        stopped = self.service.stopService()
        self.stepped.settle()
        self.end_thread()
        self.assertEqual(len(self.flushLoggedErrors(StoreUnusable)), 3)
        self.successResultOf(stopped)
        self.assertEqual(self.store.calls[-2:], ["close reader", "close store"])
