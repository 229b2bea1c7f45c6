"""From the table to the persist thread and back: sweeps, pacing, overflow, trouble, ages."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel

from playerstate import NotSaved, PlayerState, PlayerStateService, Runtime, StoreBusy
from playerstate.interfaces import RowRefused, Stored
from playerstate.saving import outbox as outbox_module
from playerstate.saving.health import Trouble
from playerstate.saving.lane import MOST_FLIGHTS, Lane
from playerstate.testing import EPOCH, FaultyStore, MemoryReactor, SteppedService, SteppedThread
from tests.kit.players import (
    SCHEMA,
    FragileStore,
    ServiceTestCase,
    SlowStore,
    at,
    die,
    end_thread,
    move,
    stop_within,
)
from tests.kit.support import LAW


class SweepTests(ServiceTestCase):
    """When rows are handed over."""

    def interval(self, stepped: SteppedService) -> float:
        """Seconds from a sweep that happens now to the next."""
        stepped.service.flush()
        stepped.settle()
        stepped.service.flush()
        stepped.service.update(1, at(1))
        begun = stepped.reactor.seconds()
        while not stepped.service.ledger.snapshot().queue_depth:
            stepped.reactor.advance(0.01)
        return stepped.reactor.seconds() - begun

    def test_follows_save_within(self) -> None:
        """The interval is the planned part of `save_within`."""
        for save_within in (0.5, 5.0, 20.0):
            stepped = self.start(save_within=save_within)
            stepped.join(1)
            self.assertApproximates(self.interval(stepped), 0.6 * save_within, 0.011)

    def test_slow_commits(self) -> None:
        """After a slow commit the interval is shorter by twice what it took."""
        store = SlowStore()
        store.stepped = stepped = self.start(store=store)
        stepped.join(1)
        stepped.service.update(1, at(1))
        store.seconds = 0.5
        stepped.service.flush()
        stepped.settle()
        store.seconds = 0.0
        self.assertApproximates(self.interval(stepped), 3.0 - 2 * 0.5, 0.011)
        # It fades with each commit that follows.
        self.assertApproximates(self.interval(stepped), 3.0 - 2 * 0.5 * 0.9, 0.011)

    def test_slow_maintenance(self) -> None:
        """The writer's maintenance counts as part of the commit that follows it."""
        store = SlowStore()
        store.stepped = stepped = self.start(store=store)
        self.patch(store, "maintain", lambda: stepped.reactor.advance(0.5))
        for _ in range(2):
            stepped.join(1)
            stepped.service.update(1, at(1))
            stepped.service.flush()
            stepped.step()
        self.patch(store, "maintain", lambda: None)
        self.assertApproximates(self.interval(stepped), 3.0 - 2 * 0.5, 0.011)

    def test_crowded(self) -> None:
        """While the ring is more than half full, the next sweep comes after a fifth of the time."""
        stepped = self.start(queue_size=8)
        for session_id in range(1, 8):
            stepped.join(session_id)
        service = stepped.service
        for session_id in range(1, 6):
            service.update(session_id, at(1))
        stepped.reactor.advance(3.0)
        self.assertEqual(service.ledger.snapshot().queue_depth, 5)
        service.update(6, at(1))
        stepped.reactor.advance(0.59)
        self.assertEqual(service.ledger.snapshot().queue_depth, 5)
        stepped.reactor.advance(0.02)
        self.assertEqual(service.ledger.snapshot().queue_depth, 6)

    def test_half_full_is_not_crowded(self) -> None:
        """With the ring just half full, the next sweep comes at its usual time."""
        stepped = self.start(queue_size=8)
        for session_id in range(1, 6):
            stepped.join(session_id)
            stepped.service.update(session_id, at(1))
            if session_id == 4:
                stepped.reactor.advance(3.0)
        stepped.reactor.advance(2.9)
        self.assertEqual(stepped.service.ledger.snapshot().queue_depth, 4)
        stepped.reactor.advance(0.2)
        self.assertEqual(stepped.service.ledger.snapshot().queue_depth, 5)

    def test_only_what_changed(self) -> None:
        """A sweep hands over the players who changed since the last, each once."""
        stepped = self.start()
        for session_id in range(1, 6):
            stepped.join(session_id)
        for _ in range(3):
            stepped.service.update(2, at(2))
            stepped.service.update(4, at(4))
        stepped.reactor.advance(3.0)
        stepped.settle()
        stepped.reactor.advance(3.0)
        stepped.settle()
        self.assertEqual(stepped.store.writes, [2])
        self.assertEqual(stepped.service.ledger.superseded, 4)

    def test_superseded_on_the_way(self) -> None:
        """Of a player's rows that come out of the ring together, the newest alone is written."""
        stepped = self.start()
        stepped.join(1)
        for n in range(3):
            stepped.service.update(1, at(n))
            stepped.reactor.advance(3.0)
        self.assertEqual(stepped.service.ledger.snapshot().queue_depth, 3)
        self.assertEqual(stepped.service.ledger.snapshot().pending, 3)
        stepped.settle()
        books = stepped.service.ledger.snapshot()
        self.assertEqual((books.committed, books.superseded, books.pending), (1, 2, 0))
        self.assertEqual(self.stored(stepped), {1: (2.0, 0.0)})


class SteppingClockTests(ServiceTestCase):
    """A reactor whose own clock, the wall clock, is set while the service runs."""

    def setUp(self) -> None:
        """A service whose reactor's clock and monotonic clock are told apart."""
        super().setUp()
        self.reactor = MemoryReactor()
        self.monotonic = 1000.0
        self.store = FaultyStore(SCHEMA)
        self.threads: list[SteppedThread] = []

        def start_thread(run: Any, name: str) -> SteppedThread:
            self.threads.append(SteppedThread(run))
            return self.threads[0]

        self.service = PlayerStateService(
            self.store,
            runtime=Runtime(
                self.reactor,
                monotonic=lambda: self.monotonic,
                wall_clock=lambda: int(self.reactor.seconds() * 1e9),
                start_thread=start_thread,
            ),
        )
        self.service.startService()
        self.service.join(1)

    def live(self, seconds: float) -> None:
        """Time passes, with the thread's beat each second, while the reactor's clock stands."""
        for _ in range(round(seconds)):
            self.monotonic += 1.0
            self.threads[0].persister._listener.beat()
            self.reactor.deliver()

    def test_set_back(self) -> None:
        """While a clock that was set back an hour catches up, sweeps and leaves go on."""
        self.reactor.advance(0.0)
        self.reactor.rightNow -= 3600.0
        self.service.update(1, at(1))
        self.live(3)
        self.threads[0].persister.step()
        self.reactor.deliver()
        self.assertEqual(len(self.store.players), 1)
        self.service.update(1, at(2))
        left = self.service.leave(1)
        self.live(1)
        self.threads[0].persister.step()
        self.reactor.deliver()
        self.successResultOf(left)

    def test_set_back_while_stopping(self) -> None:
        """The deadline of a stop holds on a clock that was set back."""
        self.service.update(1, at(1))
        self.reactor.rightNow -= 3600.0
        stopped = self.service.stopService()
        self.live(29)
        self.assertEqual(self.told("unsaved"), [])
        self.live(2)
        self.assertEqual(len(self.told("unsaved of player 1;")), 1)
        self.successResultOf(stopped)

    def test_set_forward(self) -> None:
        """A clock that is set forward a year makes nothing due too soon."""
        self.service.update(1, at(1))
        self.reactor.advance(365 * 86_400.0)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 0)
        self.monotonic += 3.0
        self.reactor.advance(3.0)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)
        self.assertAlmostEqual(self.service.ledger.snapshot().oldest_unsaved_seconds, 3.0)


class OldestUnsavedTests(ServiceTestCase):
    """The age of the first uncommitted update of the player who has waited longest."""

    def setUp(self) -> None:
        """A service with two players."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.stepped.join(1)
        self.stepped.join(2)

    @property
    def age(self) -> float:
        """The gauge, to the millisecond."""
        return round(self.service.ledger.snapshot().oldest_unsaved_seconds, 3)

    def test_all_the_way(self) -> None:
        """It counts from a player's first update, in table, ring, hand, and through failures."""
        self.assertEqual(self.age, 0.0)
        self.service.update(1, at(1))
        self.stepped.reactor.advance(2.0)
        self.service.update(1, at(2))
        self.service.update(2, at(2))
        self.assertEqual(self.age, 2.0)
        self.stepped.reactor.advance(1.0)  # swept
        self.assertEqual(self.age, 3.0)
        self.service.update(1, at(3))
        self.assertEqual(self.age, 3.0)
        self.stepped.store.failures.append(StoreBusy("locked"))
        self.stepped.step()  # in hand, and failed
        self.stepped.reactor.advance(1.5)
        self.assertEqual(self.age, 4.5)
        self.stepped.step()  # commits what was swept at 3.0; the update of then is swept no more
        self.assertEqual(self.age, 1.5)
        self.stepped.reactor.advance(1.5)
        self.stepped.settle()
        self.assertEqual(self.age, 0.0)

    def test_several_sweeps_on_their_way(self) -> None:
        """Rows of several sweeps that wait are as old as the oldest of them."""
        self.service.update(1, at(1))
        self.stepped.reactor.advance(3.0)
        self.service.update(2, at(2))
        self.stepped.reactor.advance(3.0)
        self.assertEqual(self.age, 6.0)
        self.stepped.step()
        self.assertEqual(self.age, 0.0)

    def test_many_sweeps_on_their_way(self) -> None:
        """Invariant 11: what is remembered of sweeps does not grow with their number.

        Here a row that the store refuses is kept for long, and the player moves on.
        """
        self.addCleanup(self.flushLoggedErrors, RowRefused)
        self.stepped.store.failures.extend(RowRefused("never") for _ in range(200))
        for _ in range(200):
            self.service.update(1, at(1))
            self.stepped.reactor.advance(3.0)
            self.stepped.step()
        self.assertLessEqual(len(self.service.run.outbox._lanes[0]._flights), MOST_FLIGHTS)
        self.assertEqual(self.age, 600.0)
        self.assertEqual(self.service.ledger.snapshot().pending, 200)
        self.stepped.settle()
        self.assertEqual(self.age, 0.0)
        self.assertEqual(self.service.ledger.snapshot().pending, 0)

    def test_oldest_of_sweeps_followed_as_one(self) -> None:
        """Sweeps that are followed as one are as old as the oldest, first or not, among them."""
        for _ in range(MOST_FLIGHTS - 1):
            self.service.update(1, at(1))
            self.stepped.reactor.advance(3.0)
        self.stepped.store.failures.append(StoreBusy("locked"))
        self.stepped.step()  # all of those are in hand
        self.service.update(1, at(2))
        self.stepped.reactor.advance(1.0)
        self.service.update(2, at(2))
        left = self.service.leave(2)  # is handed over before the older update
        self.stepped.reactor.advance(2.0)
        for _ in range(3):
            self.service.update(1, at(3))
            self.stepped.reactor.advance(3.0)
        self.stepped.step()
        self.assertEqual(self.age, 12.0)
        self.stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.age, 0.0)

    def test_greatest_age(self) -> None:
        """The greatest age at a commit is kept, and a younger commit does not lower it."""
        for seconds in (3.0, 0.0):
            self.service.update(1, at(seconds))
            flushed = self.service.flush() if not seconds else None
            self.stepped.reactor.advance(seconds)
            self.stepped.settle()
            self.assertEqual(self.service.ledger.age_at_commit_seconds_max, 3.0)
        assert flushed is not None
        self.successResultOf(flushed)

    def test_flush_among_many_sweeps(self) -> None:
        """A flush that was asked for amid many sweeps is answered when its rows are settled."""
        self.addCleanup(self.flushLoggedErrors, RowRefused)
        self.stepped.store.failures.extend(RowRefused("never") for _ in range(100))
        for turn in range(100):
            self.service.update(1, at(1))
            self.stepped.reactor.advance(3.0)
            self.stepped.step()
            if turn == 80:
                flushed = self.service.flush()
        self.waits(flushed)
        self.service.update(2, at(2))
        self.stepped.settle()
        self.successResultOf(flushed)

    def test_committed_after_take(self) -> None:
        """A commit settles the rows it held, not those that were handed over since."""
        self.service.update(1, at(1))
        self.stepped.reactor.advance(3.0)
        self.stepped.store.failures.append(StoreBusy("locked"))
        self.stepped.step()
        self.service.update(2, at(2))
        self.stepped.reactor.advance(3.0)
        self.stepped.step()
        self.assertEqual(self.age, 3.0)
        self.assertEqual(self.service.ledger.snapshot().pending, 1)

    def test_guarded(self) -> None:
        """What the store will never take counts no longer."""
        self.stepped.store.players[1] = Stored((0.0, 0.0), (EPOCH + 86_400) * 10**6)
        self.service.update(1, at(1))
        self.stepped.reactor.advance(3.0)
        self.stepped.step()
        self.assertEqual(self.age, 0.0)


class TurnTests(ServiceTestCase):
    """A sweep of many rows, over several turns of the reactor."""

    def setUp(self) -> None:
        """Seven players who have moved, three rows a turn."""
        super().setUp()
        self.patch(outbox_module, "ROWS_A_TURN", 3)
        self.stepped = self.start(max_players=7, queue_size=8)
        self.service = self.stepped.service
        for session_id in range(1, 8):
            self.stepped.join(session_id)
            self.service.update(session_id, at(session_id))

    def depths(self) -> list[int]:
        """Rows in the ring after each of three turns."""
        depths = []
        for _ in range(3):
            depths.append(self.service.ledger.snapshot().queue_depth)
            self.stepped.reactor.advance(0.0)
        return depths

    def test_turns(self) -> None:
        """Each turn hands over some; nothing overflows by it, and all is saved."""
        flushed = self.service.flush()
        self.assertEqual(self.depths(), [3, 7, 7])
        self.waits(flushed)
        self.stepped.settle()
        self.successResultOf(flushed)
        self.assertEqual(self.service.ledger.overflows, 0)
        self.assertEqual(len(self.stepped.store.players), 7)

    def test_several_flushes(self) -> None:
        """Sweeps that are asked for meanwhile share the turns."""
        flushes = [self.service.flush()]
        waiting = len(self.service.clock.getDelayedCalls())
        flushes.append(self.service.flush())
        self.assertEqual(len(self.service.clock.getDelayedCalls()), waiting)
        self.assertEqual(self.depths(), [6, 7, 7])
        self.stepped.settle()
        for flushed in flushes:
            self.successResultOf(flushed)

    def test_stop(self) -> None:
        """A stop waits for all turns."""
        stopped = self.service.stopService()
        self.stepped.settle()
        self.waits(stopped)
        for _ in range(3):
            self.stepped.reactor.advance(0.0)
            self.stepped.settle()
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertEqual(len(self.stepped.store.players), 7)


class SaveWithinTests(ServiceTestCase):
    """The promise that gives `save_within` its name."""

    @settings(LAW, max_examples=25)
    @given(seed=st.integers(0, 2**32), save_within=st.sampled_from([0.5, 1.0, 5.0, 60.0]))
    def test_never_exceeded(self, seed: int, save_within: float) -> None:
        """With a store whose commits take less than a fifth of it, no update waits longer.

        Each commit takes a time of its own; while it runs, the reactor goes on, and players move.
        """
        choice = random.Random(seed)
        store = SlowStore()
        store.stepped = stepped = SteppedService(
            store=store, save_within=save_within, queue_size=64
        )
        service, tick = stepped.service, save_within / 100
        for session_id in range(1, 21):
            stepped.join(session_id)

        def play() -> None:
            stepped.reactor.callLater(tick, play)
            if choice.random() < 0.7:
                for session_id in choice.choices(range(1, 21), k=choice.randint(1, 9)):
                    service.update(session_id, at(choice.random()))
            oldest = service.ledger.snapshot().oldest_unsaved_seconds
            self.assertLessEqual(oldest, save_within)

        stepped.reactor.callLater(tick, play)
        while stepped.reactor.seconds() < 12 * save_within:
            store.seconds = choice.choice([0.0, choice.uniform(0.0, 0.19)]) * save_within
            if stepped.step() is None:
                stepped.reactor.advance(tick)
        self.assertLessEqual(service.ledger.age_at_commit_seconds_max, save_within)
        self.assertGreater(service.ledger.commits, 12)
        self.assertEqual(service.ledger.snapshot().imbalance(), [])

    def test_with_a_crowded_ring(self) -> None:
        """It holds with a ring that all who move just fill."""
        stepped = self.start(save_within=5.0, queue_size=16)
        for session_id in range(1, 17):
            stepped.join(session_id)
        for turn in range(1000):
            for session_id in range(1, 17):
                stepped.service.update(session_id, at(turn))
            stepped.reactor.advance(0.02)
            if turn % 25 == 24:
                stepped.step()
        self.assertLessEqual(stepped.service.ledger.age_at_commit_seconds_max, 5.0)


class OverflowTests(ServiceTestCase):
    """A ring too small for all who move (invariant 2)."""

    PLAYERS = 1000

    def crowd(self, queue_size: int, players: int = PLAYERS) -> SteppedService:
        """A service whose players have all moved."""
        stepped = self.start(queue_size=queue_size)
        for session_id in range(1, players + 1):
            stepped.join(session_id)
            stepped.service.update(session_id, at(session_id))
        return stepped

    def test_nothing_is_lost(self) -> None:
        """Whatever the ring's size, all players are saved, the rest at once after each commit."""
        for queue_size in (2, 4, 256):
            stepped = self.crowd(queue_size)
            stepped.reactor.advance(3.0)
            self.assertEqual(stepped.service.ledger.overflows, 1)
            steps = 0
            while stepped.step() is not None:
                steps += 1
            self.assertEqual(steps, -(-self.PLAYERS // queue_size))
            self.assertEqual(stepped.service.ledger.overflows, steps - 1)
            self.assertEqual(
                self.stored(stepped), {n: (float(n), 0.0) for n in range(1, self.PLAYERS + 1)}
            )
            self.assertEqual(stepped.service.ledger.swept, self.PLAYERS)

    def test_what_is_left_goes_first(self) -> None:
        """The next sweep begins with the rows that did not fit, while other players move."""
        stepped = self.crowd(4, 12)
        written: list[int] = []
        write = stepped.store.write

        def note(records: Any) -> Any:
            written.extend(records["session_id"].tolist())
            for session_id in range(1, 13):
                stepped.service.update(session_id, at(0))
            return write(records)

        self.patch(stepped.store, "write", note)
        stepped.reactor.advance(3.0)
        for _ in range(6):
            stepped.step()
        self.assertEqual(written, [*range(1, 13), *range(1, 13)])

    def test_nobody_starves(self) -> None:
        """With a ring of 2 and all players moving, each is saved as often as any other."""
        stepped = self.crowd(2, 50)
        counts = dict.fromkeys(range(1, 51), 0)
        write = stepped.store.write

        def note(records: Any) -> Any:
            for session_id in records["session_id"].tolist():
                counts[session_id] += 1
            return write(records)

        self.patch(stepped.store, "write", note)
        for _ in range(100):
            for session_id in range(1, 51):
                stepped.service.update(session_id, at(0))
            stepped.reactor.advance(0.2)
            stepped.step()
        self.assertLessEqual(max(counts.values()) - min(counts.values()), 1)
        self.assertGreater(min(counts.values()), 1)

    def test_waits_for_the_commit(self) -> None:
        """What did not fit goes on at the next commit report, not at the timer."""
        stepped = self.crowd(2, 4)
        stepped.reactor.advance(3.0)
        stepped.thread.persister.step()
        self.assertEqual(stepped.service.ledger.snapshot().queue_depth, 0)
        stepped.reactor.deliver()
        self.assertEqual(stepped.service.ledger.snapshot().queue_depth, 2)

    def test_over_when_all_went_in(self) -> None:
        """Once nothing is left over, a commit is no reason to sweep before the time."""
        stepped = self.crowd(2, 4)
        stepped.reactor.advance(3.0)
        stepped.settle()
        stepped.service.update(1, at(9))
        stepped.service.flush()
        stepped.service.update(2, at(9))
        stepped.step()
        self.assertEqual(stepped.service.ledger.snapshot().queue_depth, 0)
        self.assertTrue(stepped.service.table.is_dirty(stepped.service.table.slots[2]))
        stepped.settle()

    def test_leaves_do_not_fit(self) -> None:
        """Leaves for which the ring has no room are handed over at the next commit report."""
        stepped = self.crowd(2, 6)
        leaves = [stepped.service.leave(session_id) for session_id in range(1, 7)]
        stepped.reactor.advance(0.05)
        self.assertEqual(stepped.service.ledger.overflows, 1)
        stepped.settle()
        for left in leaves:
            self.successResultOf(left)
        self.assertEqual(stepped.store.writes, [2, 2, 2])

    def test_told_at_most_every_ten_seconds(self) -> None:
        """An overflow is warned of with its numbers, and again after 10 s at the earliest."""
        stepped = self.crowd(2, 6)
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(500))
        for _ in range(140):
            stepped.reactor.advance(0.1)
            stepped.step()
        lines = self.told("the queue of", LogLevel.warn)
        self.assertEqual(len(lines), 2)
        self.assertTrue(
            lines[0].startswith(
                "the queue of 2 rows is full: 2 rows were queued, 4 wait for the next commit;"
                " 1 sweeps did not fit so far"
            ),
            lines[0],
        )
        stepped.store.failures.clear()
        stepped.settle()
        self.assertEqual(len(stepped.store.players), 6)


class TroubleTests(ServiceTestCase):
    """A store that fails: the batch stays in hand (invariant 3)."""

    def setUp(self) -> None:
        """A service with one player."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.stepped.join(1)

    def play(self, seconds: float) -> None:
        """The player moves and the persist thread tries, ten times a second."""
        for _ in range(round(seconds * 10)):
            self.service.update(1, at(self.stepped.reactor.seconds()))
            self.stepped.reactor.advance(0.1)
            self.stepped.step()

    def test_busy_for_a_while(self) -> None:
        """A store busy for 20 s is logged when it begins and when it ends; nothing is lost."""
        self.play(5.0)
        self.stepped.store.failures.extend(StoreBusy("database is locked") for _ in range(200))
        self.play(40.0)
        [begun] = self.told("is busy", LogLevel.warn)
        self.assertEqual(
            begun, "the store memory is busy: database is locked; 1 rows are kept and tried again"
        )
        [ended] = self.told("takes rows again", LogLevel.info)
        self.assertEqual(ended, "the store memory takes rows again, after 20.0 s")
        self.assertEqual(self.service.ledger.store_errors, {"StoreBusy": 200})
        self.successResultOf(self.stepped.stop())
        self.assertEqual(self.service.ledger.snapshot().pending, 0)

    def test_busy_again(self) -> None:
        """Trouble that comes again is logged again, at most every 10 s."""
        for wait in (4.0, 12.0, 4.0):
            self.stepped.store.failures.append(StoreBusy("database is locked"))
            self.play(wait)
        self.assertEqual(len(self.told("is busy")), 2)
        self.assertEqual(len(self.told("takes rows again")), 2)

    def test_other_error(self) -> None:
        """Any other error is logged with its trace; the batch is kept, and tried again."""
        self.service.update(1, at(1))
        flushed = self.service.flush()
        self.stepped.store.failures.append(OSError(28, "no space left"))
        self.assertGreater(self.stepped.step() or 0.0, 0.0)
        [failure] = self.flushLoggedErrors(OSError)
        self.assertIn("in write", failure.getTraceback())
        self.assertEqual(
            len(self.told("the store memory failed; 1 rows are kept and tried again")), 1
        )
        self.waits(flushed)
        self.stepped.step()
        self.successResultOf(flushed)
        self.assertEqual(self.service.ledger.store_errors, {"OSError": 1})

    def test_other_error_is_told_each_minute(self) -> None:
        """An error that goes on is logged once a minute, and its end once."""
        self.stepped.store.failures.extend(OSError(28, "no space left") for _ in range(700))
        self.play(75.0)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)
        self.assertEqual(len(self.told("takes rows again")), 1)
        self.assertEqual(self.service.ledger.store_errors, {"OSError": 700})

    def test_kinds_are_told_apart(self) -> None:
        """Errors of different kinds are each logged."""
        self.service.update(1, at(1))
        self.service.flush()
        self.stepped.store.failures.extend([OSError(28, "full"), RuntimeError("else")])
        for _ in range(3):
            self.stepped.step()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_maintenance_fails(self) -> None:
        """Maintenance that fails is logged and counted; what was committed is no trouble."""
        self.patch(self.stepped.store, "maintain", lambda: 1 / 0)
        self.service.update(1, at(1))
        flushed = self.service.flush()
        self.stepped.settle()
        self.successResultOf(flushed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.service.update(1, at(2))
        self.service.flush()
        self.stepped.settle()
        self.assertEqual(self.told("takes rows again"), [])
        self.assertEqual(self.service.ledger.store_errors, {"ZeroDivisionError": 2})

    def test_maintenance_that_goes_on_failing_is_no_trouble(self) -> None:
        """Rows that get into the store are no trouble, however long the maintenance fails."""

        def maintain() -> None:
            raise StoreBusy("somebody reads")

        self.patch(self.stepped.store, "maintain", maintain)
        self.play(30.0)
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.told("degraded"), [])

    def test_memory_is_bounded(self) -> None:
        """Invariant 11: for as long as a store is away, no more waits than the ring and the table.

        Each sweep on its way is one entry; with a full ring there is no other.
        """
        stepped = self.start(queue_size=4)
        for session_id in range(1, 4):
            stepped.join(session_id)
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(2000))
        outbox: Lane = stepped.service.run.outbox._lanes[0]
        for _ in range(1000):
            for session_id in range(1, 4):
                stepped.service.update(session_id, at(0))
            stepped.reactor.advance(1.0)
            stepped.step()
            self.assertLessEqual(len(outbox._flights), 1 + 4)
            self.assertLessEqual(stepped.service.ledger.snapshot().pending, 4 + 4 + 3)


class DegradedTests(ServiceTestCase):
    """Nothing has been saved for longer than allowed: it is logged, and the program can see it."""

    def setUp(self) -> None:
        """A service with one player."""
        super().setUp()
        self.store = FragileStore()
        self.stepped = self.start(store=self.store, save_within=5.0)
        self.service = self.stepped.service
        self.stepped.join(1)

    def begins(self) -> list[str]:
        """Lines that say it began."""
        return self.told("degraded: nothing has been saved for", LogLevel.critical)

    def ends(self) -> list[str]:
        """Lines that say it ended."""
        return self.told("no longer degraded: the store takes rows", LogLevel.info)

    def break_down(self) -> None:
        """An update meets a store that is busy for as long as failures are left."""
        self.store.failures.extend(StoreBusy("database is locked") for _ in range(10_000))
        self.service.update(1, at(1))
        self.service.flush().addErrback(lambda failure: failure.trap(NotSaved))
        self.stepped.step()

    def wait(self, seconds: float) -> None:
        """Time passes, the persist thread tries each second."""
        for _ in range(round(seconds)):
            self.stepped.reactor.advance(1.0)
            self.stepped.step()

    def check_gauges(self) -> None:
        """The gauges say what the service says."""
        trouble, books = self.service.trouble, self.service.ledger.snapshot()
        expected = ("", 0.0) if trouble is None else (trouble.why, trouble.seconds)
        self.assertEqual((books.degraded, books.degraded_seconds), expected)

    def test_begins_after_save_within(self) -> None:
        """It begins `save_within` after the first failure, not before, with its duration."""
        self.stepped.reactor.advance(2.0)
        self.break_down()
        self.stepped.reactor.advance(5.0)
        self.assertIs(self.service.trouble, None)
        self.check_gauges()
        self.stepped.reactor.advance(0.5)
        self.assertEqual(self.service.trouble, Trouble("database is locked", 5.5))
        self.check_gauges()
        self.wait(10.0)
        self.assertEqual(self.service.trouble, Trouble("database is locked", 15.5))
        self.check_gauges()

    def test_ends_with_the_next_commit(self) -> None:
        """The next commit ends it."""
        self.break_down()
        self.wait(20.0)
        self.assertIsNot(self.service.trouble, None)
        self.store.failures.clear()
        self.stepped.step()
        self.assertIs(self.service.trouble, None)
        self.check_gauges()

    def test_told_once(self) -> None:
        """Its start and its end are logged once each, within a second, however long it lasts."""
        self.break_down()
        self.wait(5.0)
        self.assertEqual(self.begins(), [])
        self.wait(1.0)
        line = "degraded: nothing has been saved for 6.0 s: database is locked; 1 updates wait"
        self.assertEqual(self.begins(), [line])
        self.wait(300.0)
        self.assertEqual((len(self.begins()), self.ends()), (1, []))
        self.store.failures.clear()
        self.stepped.settle()
        self.wait(1.0)
        self.assertEqual((len(self.begins()), len(self.ends())), (1, 1))
        self.wait(300.0)
        self.assertEqual((len(self.begins()), len(self.ends())), (1, 1))

    def test_again(self) -> None:
        """Trouble that comes again is logged again, and measured from its own start."""
        for _ in range(3):
            self.break_down()
            self.wait(8.0)
            self.assertEqual(self.service.trouble, Trouble("database is locked", 8.0))
            self.store.failures.clear()
            self.wait(2.0)
        self.assertEqual((len(self.begins()), len(self.ends())), (3, 3))

    def test_short_trouble(self) -> None:
        """A store that takes rows now and then is not in trouble, and not logged as such."""
        for _ in range(20):
            self.break_down()
            self.wait(4.0)
            self.store.failures.clear()
            self.wait(1.0)
        self.assertEqual((self.begins(), self.ends()), ([], []))

    def test_latest_reason(self) -> None:
        """The reason is that of the latest failure."""
        self.break_down()
        self.store.failures.clear()
        self.store.failures.extend(OSError(28, "No space left on device") for _ in range(100))
        self.wait(7.0)
        self.assertEqual(self.service.trouble, Trouble("[Errno 28] No space left on device", 7.0))
        self.flushLoggedErrors(OSError)

    def test_nobody_moves(self) -> None:
        """With nothing to save for hours there is no trouble."""
        self.wait(3600.0)
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.begins(), [])

    def test_stuck_write(self) -> None:
        """A write that does not end is logged while it lasts; its end ends the trouble."""
        write = self.store.write
        seen: list[Trouble | None] = []

        def stick(records: Any) -> Any:
            for _ in range(120):
                self.stepped.reactor.advance(0.1)
                self.check_gauges()
                seen.append(self.service.trouble)
            return write(records)

        self.patch(self.store, "write", stick)
        self.service.update(1, at(1))
        flushed = self.service.flush()
        self.stepped.thread.persister.step()
        self.assertEqual(seen[:49], [None] * 49)
        last = seen[-1]
        assert last is not None
        self.assertEqual(last.why, "the persist thread is stuck in a write")
        self.assertApproximates(last.seconds, 12.0, 1e-6)
        [line] = self.begins()
        self.assertRegex(line, r"for (5\.\d|6\.0) s: the persist thread is stuck in a write; 1 up")
        self.assertIs(self.service.trouble, None)
        self.stepped.reactor.deliver()
        self.successResultOf(flushed)
        self.wait(1.0)
        self.assertEqual(len(self.ends()), 1)

    def test_stuck_maintenance(self) -> None:
        """Maintenance that does not end is logged if rows wait for it."""
        seen: list[Trouble | None] = []

        def stick() -> None:
            self.service.update(1, at(2))
            for _ in range(120):
                self.stepped.reactor.advance(0.1)
                seen.append(self.service.trouble)

        self.patch(self.store, "maintain", stick)
        self.service.update(1, at(1))
        self.service.flush()
        self.stepped.thread.persister.step()
        last = seen[-1]
        assert last is not None
        self.assertApproximates(last.seconds, 12.0, 0.2)
        self.assertEqual(len(self.begins()), 1)

    def test_goes_on_as_ever(self) -> None:
        """Joins, updates and moves are taken meanwhile; leaves and flushes wait for the end."""
        self.break_down()
        self.wait(10.0)
        self.assertEqual(self.stepped.join(2).state, PlayerState())
        self.service.update(2, at(2))
        self.assertTrue(move(self.service, 1, 1, (3.0, 3.0)))
        left, flushed = self.service.leave(1), self.service.flush()
        self.wait(10.0)
        self.waits(left, flushed)
        self.assertEqual(self.service.ledger.snapshot().imbalance(), [])
        self.store.failures.clear()
        self.wait(5.0)
        self.successResultOf(left)
        self.successResultOf(flushed)
        self.assertEqual(self.stored(self.stepped), {1: (3.0, 3.0), 2: (2.0, 0.0)})

    def test_a_row_that_is_refused(self) -> None:
        """One row that the store refuses is trouble only as long as no other player is saved."""
        self.store.cursed = {1}
        self.break_down()
        self.store.failures.clear()
        self.wait(10.0)
        self.assertIn("not this one", self.service.trouble.why)  # type: ignore[union-attr]
        self.stepped.join(2)
        self.service.update(2, at(2))
        self.wait(4.0)
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.store.aside, [(1, "not this one")])
        self.assertEqual(len(self.flushLoggedErrors(RowRefused)), 1)

    def test_stopped(self) -> None:
        """A service that is not running is in no trouble, before the start and after the stop."""
        self.assertIs(PlayerStateService(FaultyStore(SCHEMA)).trouble, None)
        stop_within(self.service, 10.0)
        self.break_down()
        self.successResultOf(self.stepped.stop())
        self.assertTrue(self.service.gave_up)
        self.assertEqual(len(self.begins()), 1)
        self.assertIs(self.service.trouble, None)
        self.check_gauges()

    def test_while_stopping(self) -> None:
        """It is logged during a stop as well."""
        self.break_down()
        stopped = self.service.stopService()
        self.wait(10.0)
        self.assertEqual(len(self.begins()), 1)
        self.check_gauges()
        self.store.failures.clear()
        self.stepped.settle()
        self.stepped.thread.run()
        self.stepped.reactor.deliver()
        self.successResultOf(stopped)


class ThreadDeathTests(ServiceTestCase):
    """A persist thread that dies is followed by another, which goes on where it stopped."""

    def setUp(self) -> None:
        """A service with one player who has moved, and the row handed over."""
        super().setUp()
        self.stepped = self.start(stop_within=60.0)
        self.service = self.stepped.service
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
        outbox: Lane = self.service.run.outbox._lanes[0]
        for _ in range(2000):
            outbox.died(SystemExit("out"))
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
        self.service.run.outbox._lanes[0].died(SystemExit("out"))
        dead = self.stepped.thread
        self.stepped.reactor.rightNow -= 3600.0
        self.stepped.reactor.deliver()
        self.assertIsNot(self.stepped.thread, dead)

    def test_thread_that_cannot_be_started(self) -> None:
        """Where no thread can be started just then, it is tried again."""
        start_thread, attempts = self.service.run.outbox._lanes[0]._start_thread, []

        def reluctant(run: Any, name: str) -> Any:
            attempts.append(run)
            if len(attempts) <= 3:
                raise RuntimeError("can't start new thread")
            return start_thread(run, name)

        self.patch(self.service.run.outbox._lanes[0], "_start_thread", reluctant)
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
        start_thread = self.service.run.outbox._lanes[0]._start_thread
        for waits in (False, True):
            with self.subTest(waits=waits):
                self.patch(
                    self.service.run.outbox._lanes[0], "_start_thread", lambda run, name: [][0]
                )
                if waits:
                    self.service.update(43, at(9))
                self.service.run.outbox._lanes[0].died(SystemExit("out"))
                self.stepped.reactor.deliver()
                for _ in range(8):
                    self.stepped.reactor.advance(1.0)
                trouble = self.service.trouble
                assert trouble is not None
                self.assertIn("no persist thread can be started: list index", trouble.why)
                self.assertGreater(trouble.seconds, self.service.options.save_within)
                self.patch(self.service.run.outbox._lanes[0], "_start_thread", start_thread)
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

        self.patch(self.service.run.outbox._lanes[0], "_start_thread", refuse)
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
