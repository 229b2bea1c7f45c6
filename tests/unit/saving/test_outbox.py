"""From the table to the persist thread and back: sweeps, pacing, overflow, ages."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel

from playerstate import StoreBusy
from playerstate.interfaces import RowRefused, Stored
from playerstate.saving import outbox as outbox_module
from playerstate.saving.lane import MOST_FLIGHTS
from playerstate.testing import EPOCH, SteppedService
from tests.kit.players import (
    ServiceTestCase,
    SlowStore,
    at,
    end_thread,
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
        for rows, delay in ((5, 0.6), (4, 3.0)):
            with self.subTest(rows=rows):
                stepped = self.start(queue_size=8)
                ledger = stepped.service.ledger
                for session_id in range(1, rows + 1):
                    stepped.join(session_id)
                    stepped.service.update(session_id, at(1))
                stepped.reactor.advance(3.0)
                self.assertEqual(ledger.snapshot().queue_depth, rows)
                stepped.join(rows + 1)
                stepped.service.update(rows + 1, at(1))
                stepped.reactor.advance(delay - 0.01)
                self.assertEqual(ledger.snapshot().queue_depth, rows)
                stepped.reactor.advance(0.02)
                self.assertEqual(ledger.snapshot().queue_depth, rows + 1)

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
