"""Which rows are dirty, since when, and what a sweep hands over."""

from __future__ import annotations

from playerstate.live.sweeping import Sweep
from playerstate.saving.ring import Ring
from tests.kit.tables import TableTestCase


class SweepTests(TableTestCase):
    """What a sweep hands over."""

    def test_dirty_rows_only(self) -> None:
        """A sweep pushes the dirty rows, whole, and makes them clean."""
        slots = self.admit(1, 2, 3, 4)
        self.move(slots[1], slots[3])
        before = [self.memory.row(slot).tobytes() for slot in (slots[1], slots[3])]
        self.assertEqual(
            self.table.sweep(self.sink), Sweep(pushed=2, left=0, full=False, oldest=0.0)
        )
        self.assertEqual([row.tobytes() for row in self.sink.rows], before)
        self.assertEqual(self.sink.take(), [2, 4])
        self.assertEqual(self.table.dirty_count(), 0)

    def test_one_gather(self) -> None:
        """A sweep pushes once, however many rows are dirty."""
        self.move(*self.admit(*range(1, 9)))
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.pushes, 1)

    def test_some_at_a_time(self) -> None:
        """A sweep that is to push so many begins where the last one ended."""
        slots = self.admit(1, 2, 3, 4, 5)
        self.move(*slots)
        sweeps = [self.table.sweep(self.sink, 2) for _ in range(4)]
        self.assertEqual(
            [(sweep.pushed, sweep.left, sweep.full) for sweep in sweeps],
            [(2, 3, False), (2, 1, False), (1, 0, False), (0, 0, False)],
        )
        self.assertEqual(self.sink.take(), [1, 2, 3, 4, 5])
        self.move(slots[1])
        self.assertEqual(self.table.oldest_dirty(), self.time)

    def test_divided(self) -> None:
        """Each part of a divided table is swept by itself, and begins where its own sweep ended."""
        self.table.divide(2, lambda session_id: session_id % 2)
        slots = self.admit(1, 2, 3, 4, 5)
        self.assertEqual([self.table.part(slot) for slot in slots], [1, 0, 1, 0, 1])
        self.move(*slots)
        self.assertEqual([self.table.dirty_count(part) for part in (0, 1, None)], [2, 3, 5])
        self.assertEqual(self.table.sweep(self.sink, 2, 1)[:3], (2, 1, False))
        self.assertEqual(self.sink.take(), [1, 3])
        self.assertEqual(self.table.sweep(self.sink, None, 0)[:3], (2, 0, False))
        self.assertEqual(self.sink.take(), [2, 4])
        self.move(slots[0])
        self.table.sweep(self.sink, None, 1)
        self.assertEqual(self.sink.take(), [5, 1])
        self.assertIsNone(self.table.oldest_dirty())

    def test_divided_slot_of_another(self) -> None:
        """A player who takes over a slot is in their own part."""
        self.table.divide(2, lambda session_id: session_id % 2)
        (slot,) = self.admit(1)
        self.table.release(slot)
        self.assertEqual(self.admit(2), [slot])
        self.assertEqual(self.table.part(slot), 0)

    def test_divided_too_late(self) -> None:
        """A table with a player in it is not divided."""
        self.admit(1)
        self.assertRaises(ValueError, self.table.divide, 2, lambda session_id: 0)

    def test_some_at_a_time_into_little_room(self) -> None:
        """Rows that did not fit are distinguished from rows beyond the limit."""
        self.move(*self.admit(1, 2, 3, 4, 5))
        self.sink.room = 1
        sweep = self.table.sweep(self.sink, 2)
        self.assertEqual((sweep.pushed, sweep.left, sweep.full), (1, 4, True))

    def test_nothing_dirty(self) -> None:
        """A sweep of a clean table does not touch the ring."""
        self.admit(1, 2)
        self.assertEqual(self.table.sweep(self.sink), Sweep(0, 0, False, None))
        self.assertEqual(self.sink.pushes, 0)

    def test_empty_table(self) -> None:
        """A table that never had a player is swept as any other."""
        self.assertEqual(self.table.sweep(self.sink), Sweep(0, 0, False, None))
        self.assertEqual(self.table.dirty_count(), 0)
        self.assertEqual(self.table.unsaved().tolist(), [])

    def test_what_does_not_fit(self) -> None:
        """Invariant 2: what does not fit stays dirty, and nothing is dropped."""
        slots = self.admit(1, 2, 3, 4, 5)
        self.move(*slots)
        self.sink.room = 2
        sweep = self.table.sweep(self.sink)
        self.assertEqual((sweep.pushed, sweep.left), (2, 3))
        self.assertEqual(self.sink.take(), [1, 2])
        self.assertEqual([self.table.is_dirty(slot) for slot in slots], [False] * 2 + [True] * 3)

    def test_what_did_not_fit_goes_first(self) -> None:
        """Invariant 2: the next sweep begins with the first row that did not fit."""
        slots = self.admit(1, 2, 3, 4, 5)
        self.move(*slots)
        self.sink.room = 3
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 2, 3])
        self.move(*slots)
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [4, 5, 1])
        self.move(*slots)
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [2, 3, 4])

    def test_sink_without_room(self) -> None:
        """Invariant 2: a sweep into a full ring pushes nothing and makes nothing clean."""
        self.move(*self.admit(1, 2))
        self.sink.room = 0
        self.assertEqual(
            self.table.sweep(self.sink), Sweep(pushed=0, left=2, full=True, oldest=None)
        )
        self.assertEqual(self.table.dirty_count(), 2)
        self.sink.room = 2
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 2])

    def test_no_player_starves(self) -> None:
        """Invariant 2: with room for one row a sweep, players who all move take turns."""
        slots = self.admit(1, 2, 3)
        self.sink.room = 1
        for _ in range(6):
            self.move(*slots)
            self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 2, 3, 1, 2, 3])

    def test_where_the_sweep_stopped_is_free(self) -> None:
        """A sweep goes on behind the row it stopped at where that one is gone."""
        slots = self.admit(1, 2, 3, 4)
        self.move(*slots)
        self.sink.room = 1
        self.table.sweep(self.sink)
        self.table.release(slots[1])
        self.move(slots[0])
        self.sink.room = 3
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 3, 4, 1])

    def test_where_the_sweep_stopped_was_the_last(self) -> None:
        """A sweep begins anew where nothing is dirty from where the last one stopped."""
        slots = self.admit(1, 2, 3)
        self.move(*slots)
        self.sink.room = 2
        self.table.sweep(self.sink)
        self.table.release(slots[2])
        self.move(slots[0], slots[1])
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 2, 1, 2])

    def test_a_sweep_that_fits_begins_anew(self) -> None:
        """After a sweep that fitted, the next begins at the first slot."""
        slots = self.admit(1, 2, 3)
        self.move(*slots)
        self.sink.room = 2
        self.table.sweep(self.sink)
        self.table.sweep(self.sink)
        self.sink.take()
        self.move(*slots)
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 2])

    def test_oldest_of_a_sweep(self) -> None:
        """A sweep says when the oldest row that it pushed was dirtied first."""
        slots = self.admit(1, 2, 3)
        for slot, time in ((2, 10.0), (1, 20.0), (0, 30.0), (2, 40.0)):
            self.time = time
            self.move(slots[slot])
        self.sink.room = 2
        self.assertEqual(self.table.sweep(self.sink).oldest, 20.0)
        self.assertEqual(self.table.oldest_dirty(), 10.0)
        self.assertEqual(self.table.sweep(self.sink).oldest, 10.0)
        self.assertIsNone(self.table.oldest_dirty())

    def test_age_begins_anew_after_a_sweep(self) -> None:
        """A row dirtied again after its sweep is as old as its first update since."""
        (slot,) = self.admit(1)
        self.time = 10.0
        self.move(slot)
        self.table.sweep(self.sink)
        self.time = 50.0
        self.move(slot)
        self.time = 60.0
        self.move(slot)
        self.assertEqual(self.table.oldest_dirty(), 50.0)

    def test_sweep_only(self) -> None:
        """A sweep of some slots pushes those of them that are dirty, and no others."""
        slots = self.admit(1, 2, 3, 4)
        self.time = 5.0
        self.move(slots[0], slots[2], slots[3])
        sweep = self.table.sweep_only(self.sink, [slots[3], slots[1], slots[0]])
        self.assertEqual(sweep, Sweep(pushed=2, left=0, full=False, oldest=5.0))
        self.assertEqual(sorted(self.sink.take()), [1, 4])
        self.assertEqual([self.table.is_dirty(slot) for slot in slots], [False, False, True, False])

    def test_sweep_only_of_nothing(self) -> None:
        """A sweep of no slots does nothing."""
        self.move(*self.admit(1))
        self.assertEqual(self.table.sweep_only(self.sink, []), Sweep(0, 0, False, None))

    def test_sweep_only_that_does_not_fit(self) -> None:
        """Invariant 2: what of some slots does not fit stays dirty for the next sweep."""
        slots = self.admit(1, 2, 3)
        self.move(*slots)
        self.sink.room = 1
        sweep = self.table.sweep_only(self.sink, slots)
        self.assertEqual((sweep.pushed, sweep.left), (1, 2))
        self.sink.room = 3
        self.table.sweep(self.sink)
        self.assertEqual(sorted(self.sink.take()), [1, 2, 3])

    def test_sweep_only_leaves_the_turn_alone(self) -> None:
        """A sweep of some slots does not move where the next sweep of all begins."""
        slots = self.admit(1, 2, 3)
        self.move(*slots)
        self.sink.room = 1
        self.table.sweep(self.sink)
        self.move(slots[0])
        self.table.sweep_only(self.sink, [slots[0]])
        self.sink.room = 3
        self.move(slots[0])
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 1, 2, 3, 1])

    def test_slot_given_twice(self) -> None:
        """A slot given twice is pushed once, or the books of invariant 7 would not balance; and
        none of it is left over if the ring has one place."""
        (slot,) = self.admit(1)
        for room in (1000, 1):
            self.move(slot)
            self.sink.room = room
            sweep = self.table.sweep_only(self.sink, [slot, slot])
            self.assertEqual((sweep.pushed, sweep.left), (1, 0))
            self.assertEqual(self.sink.take(), [1])

    def test_ring_as_sink(self) -> None:
        """A ring takes rows as they are when they are swept, whatever changes later."""
        slots = self.admit(1, 2)
        ring = Ring(2, self.memory.layout.dtype)
        self.move(*slots)
        self.table.sweep(ring)
        before = b"".join(self.memory.row(slot).tobytes() for slot in slots)
        self.table.apply(slots[0], 9, (9.0, 9.0), 10**6)
        self.assertEqual(ring.take().tobytes(), before)
