"""A lane: its persist thread, which another follows where it dies, and its rows in flight."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel

from playerstate import NotSaved
from playerstate.interfaces import StoreBusy
from playerstate.saving.lane import Lane
from tests.kit.players import ServiceTestCase, at, die, end_thread, stop_within


class FlightTests(ServiceTestCase):
    """Rows on their way through a lane."""

    def test_memory_is_bounded(self) -> None:
        """Invariant 11: for as long as a store is away, no more waits than the ring and the table.

        Each sweep on its way is one entry; with a full ring there is no other.
        """
        stepped = self.start(queue_size=4)
        for session_id in range(1, 4):
            stepped.join(session_id)
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(2000))
        lane: Lane = stepped.service.run.outbox._lanes[0]
        for _ in range(1000):
            for session_id in range(1, 4):
                stepped.service.update(session_id, at(0))
            stepped.reactor.advance(1.0)
            stepped.step()
            self.assertLessEqual(len(lane._flights), 1 + 4)
            self.assertLessEqual(stepped.service.ledger.snapshot().pending, 4 + 4 + 3)


class ThreadDeathTests(ServiceTestCase):
    """A persist thread that dies is followed by another, which goes on where it stopped."""

    def setUp(self) -> None:
        """A service with one player who has moved, and the row handed over."""
        super().setUp()
        self.stepped = self.start(stop_within=60.0)
        self.service = self.stepped.service
        self.lane: Lane = self.service.run.outbox._lanes[0]
        self.stepped.join(1)
        self.move()
        self.addCleanup(self.flushLoggedErrors, SystemExit)

    def move(self) -> None:
        """The player moves, and the row is handed over."""
        self.service.update(1, at(self.stepped.reactor.seconds()))
        self.service.flush().addErrback(lambda failure: failure.trap(NotSaved))

    def die(self) -> float:
        """The thread dies in a write; how long it had rested before, in seconds."""
        return round(die(self.stepped, SystemExit("out")), 6)

    def test_goes_on(self) -> None:
        """The next thread commits what the one before held; the dead one is joined."""
        dead = self.stepped.thread
        flushed = self.service.flush()
        self.die()
        self.waits(flushed)
        self.assertEqual(self.service.ledger.thread_deaths, 1)
        self.assertIsNot(self.stepped.thread, dead)
        self.assertTrue(dead.joined)
        self.assertIs(self.stepped.thread.persister, dead.persister)
        self.stepped.settle()
        self.successResultOf(flushed)
        self.assertEqual(len(self.stepped.store.players), 1)
        self.assertEqual(self.service.ledger.snapshot().pending, 0)

    def test_rests(self) -> None:
        """A thread that follows a dead one rests, longer with each, here with a jitter of 3/4."""
        rests = [self.die() for _ in range(8)]
        self.assertEqual(rests, [0.0, 0.0375, 0.075, 0.15, 0.3, 0.6, 0.75, 0.75])
        self.assertEqual(self.service.ledger.thread_deaths, 8)

    def test_rests_anew_after_a_commit(self) -> None:
        """A commit sets the rest back to the first."""
        for _ in range(5):
            self.die()
        self.stepped.settle()
        self.move()
        self.die()
        self.assertEqual(self.die(), 0.075)  # the first was that of the one that committed

    def test_many_deaths(self) -> None:
        """Thousands of deaths in a row overflow nothing."""
        for _ in range(2000):
            self.lane.died(SystemExit("out"))
            self.stepped.reactor.deliver()
            self.stepped.reactor.advance(3.75)
        self.assertEqual(self.service.ledger.thread_deaths, 2000)
        self.assertEqual(len(self.stepped.service.clock.getDelayedCalls()), 4)

    def test_told_at_most_each_minute(self) -> None:
        """Deaths are logged with their trace, those of one kind once a minute."""
        for _ in range(50):
            self.die()
            self.stepped.reactor.advance(3.0)
        self.assertEqual(len(self.told("the persist thread died; what it held is kept")), 3)
        failures = self.flushLoggedErrors(SystemExit)
        self.assertEqual(len(failures), 3)
        self.assertIn("in write", failures[0].getTraceback())
        die(self.stepped, KeyboardInterrupt())
        self.assertEqual(len(self.flushLoggedErrors(KeyboardInterrupt)), 1)

    def test_degraded(self) -> None:
        """Deaths without a commit between them are trouble once they last; a commit ends it."""
        while self.stepped.reactor.seconds() <= 5.0:
            self.assertIs(self.service.trouble, None)
            self.die()
            self.stepped.reactor.advance(0.7)
        trouble = self.service.trouble
        assert trouble is not None
        self.assertEqual(trouble.why, "the persist thread died: out")
        self.stepped.reactor.advance(1.0)
        self.assertEqual(len(self.told("degraded: nothing has been saved", LogLevel.critical)), 1)
        self.stepped.settle()
        self.assertIs(self.service.trouble, None)

    def test_while_the_clock_is_set_back(self) -> None:
        """The next thread starts at once: without one, the timers are not caught up."""
        self.lane.died(SystemExit("out"))
        dead = self.stepped.thread
        self.stepped.reactor.rightNow -= 3600.0
        self.stepped.reactor.deliver()
        self.assertIsNot(self.stepped.thread, dead)

    def test_thread_that_cannot_be_started(self) -> None:
        """Where no thread can be started just then, it is tried again."""
        start_thread, attempts = self.lane._start_thread, []

        def reluctant(run: Any, name: str) -> Any:
            attempts.append(run)
            if len(attempts) <= 3:
                raise RuntimeError("can't start new thread")
            return start_thread(run, name)

        self.patch(self.lane, "_start_thread", reluctant)
        self.die()
        for _ in range(60):
            self.stepped.reactor.advance(1.0)
        self.assertEqual(len(attempts), 4)
        self.stepped.settle()
        self.assertEqual(len(self.stepped.store.players), 1)
        self.assertGreaterEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_trouble_while_none_can_be_started(self) -> None:
        """As long as none can be started that is the trouble, also where no row waits for it."""
        self.stepped.settle()
        self.stepped.reactor.advance(5.0)
        self.stepped.settle()
        self.stepped.join(43)
        start_thread = self.lane._start_thread
        for waits in (False, True):
            with self.subTest(waits=waits):
                self.patch(self.lane, "_start_thread", lambda run, name: [][0])
                if waits:
                    self.service.update(43, at(9))
                self.lane.died(SystemExit("out"))
                self.stepped.reactor.deliver()
                for _ in range(8):
                    self.stepped.reactor.advance(1.0)
                trouble = self.service.trouble
                assert trouble is not None
                self.assertIn("no persist thread can be started: list index", trouble.why)
                self.assertGreater(trouble.seconds, self.service.options.save_within)
                self.patch(self.lane, "_start_thread", start_thread)
                for _ in range(8):
                    self.stepped.reactor.advance(1.0)
                self.assertEqual(self.service.trouble is not None, waits)
                self.stepped.settle()
                self.assertIsNone(self.service.trouble)
        self.flushLoggedErrors()

    def test_while_stopping(self) -> None:
        """A thread that dies while the service stops is followed by another, which saves all."""
        stopped = self.service.stopService()
        self.die()
        self.stepped.settle()
        self.assertTrue(self.stepped.thread.persister.told_to_end)
        self.waits(stopped)
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertFalse(self.service.gave_up)
        self.assertEqual(len(self.stepped.store.players), 1)

    def test_while_closing(self) -> None:
        """One that dies after the last commit is followed by one that syncs and closes."""
        stopped = self.service.stopService()
        self.stepped.settle()
        syncs: list[None] = []

        def sync() -> None:
            syncs.append(None)
            if len(syncs) == 1:
                raise SystemExit("out")

        self.patch(self.stepped.store, "sync", sync)
        end_thread(self.stepped)
        self.waits(stopped)
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertEqual(len(syncs), 2)
        self.assertFalse(self.service.gave_up)

    def test_after_it_was_given_up(self) -> None:
        """One that dies after the deadline of a stop has no follower; the stop ends."""
        stop_within(self.service, 1.0)
        stopped = self.service.stopService()
        self.stepped.reactor.advance(1.0)
        self.assertTrue(self.service.gave_up)
        thread = self.stepped.thread
        thread.persister._listener.died(SystemExit("interrupted"))
        self.stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])
        self.assertEqual(self.told("is stuck"), [])
        self.stepped.reactor.advance(60.0)
        self.assertIs(self.stepped.thread, thread)

    def test_given_up_before_the_next(self) -> None:
        """A stop given up while no thread lives starts none, and is not held up by it."""

        def refuse(run: Any, name: str) -> Any:
            raise RuntimeError("can't start new thread")

        self.patch(self.lane, "_start_thread", refuse)
        self.die()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        thread = self.stepped.thread
        stop_within(self.service, 1.0)
        stopped = self.service.stopService()
        self.stepped.reactor.advance(1.0)
        self.assertTrue(self.service.gave_up)
        self.stepped.reactor.advance(1.0)
        self.successResultOf(stopped)
        self.assertEqual(self.told("is stuck"), [])
        self.assertTrue(thread.joined)
        self.stepped.reactor.advance(60.0)
        self.assertIs(self.stepped.thread, thread)
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])
