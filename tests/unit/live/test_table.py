"""The live table: slots, changes, sweeps and what the store holds."""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import Any

import attrs
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from playerstate.live.table import LiveTable, Sweep, TableFull
from playerstate.saving.ring import Ring
from playerstate.state.default import PlayerState
from playerstate.state.layout import FIELDS_AT, RowLayout
from playerstate.state.schema import StateSchema
from tests.kit.support import LAW, Everything

SCHEMA = StateSchema.of(PlayerState)
SPAWN = SCHEMA.spawn
INT64_MAX = 2**63 - 1


class Sink:
    """Takes so many rows a push, and keeps a copy of each."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.rows: list[Any] = []
        self.pushes = 0

    def push(self, rows: Any, indices: Any) -> int:
        """Take what there is room for."""
        taken = indices[: self.room]
        self.rows.extend(rows[taken].copy())
        self.pushes += 1
        return len(taken)

    def take(self) -> list[int]:
        """The session ids of the rows pushed since the last time, in order."""
        taken = [int(row["session_id"]) for row in self.rows]
        self.rows.clear()
        return taken


def settle(table: LiveTable, *rows: Any) -> None:
    """Tell the table that these rows are committed."""
    table.settle(
        np.array([row["slot"] for row in rows], np.uint32),
        np.array([row["generation"] for row in rows], np.uint32),
        np.array([row["sequence"] for row in rows], np.uint64),
        np.array([row["updated_at"] for row in rows], np.int64),
    )


class RowMemory:
    """What a table's rows lie in, read as `playerstate.state.layout` says.

    Args:
        schema: of the table.
        capacity: of the table.

    Attributes:
        buffer: for the table.
        layout: of its rows.
        halves: both halves of each slot.
    """

    def __init__(self, schema: StateSchema, capacity: int) -> None:
        self.buffer = memoryview(bytearray(LiveTable.bytes_needed(schema, capacity)))
        self.layout = RowLayout(schema.fields)
        self.halves = np.frombuffer(self.buffer, self.layout.dtype).reshape(capacity, 2)

    def row(self, slot: int) -> Any:
        """This slot's row: of its whole halves the one with the higher version."""
        whole = [half for half in self.halves[slot] if half["version"] == half["version_again"]]
        return max(whole, key=itemgetter("version"))


class TableTestCase(SynchronousTestCase):
    """A table of eight players, on a clock that stands where it is put."""

    def setUp(self) -> None:
        """Make the table."""
        self.time = 0.0
        self.memory = RowMemory(SCHEMA, 8)
        self.table = LiveTable(SCHEMA, 8, lambda: self.time, self.memory.buffer)
        self.sink = Sink()

    def admit(self, *session_ids: int) -> list[int]:
        """The slots of new players who have begun."""
        slots = []
        for session_id in session_ids:
            slots.append(self.table.admit(session_id, SPAWN, 0))
            self.table.start_generation(slots[-1], 0)
        return slots

    def move(self, *slots: int) -> None:
        """Move these players by one update each."""
        for slot in slots:
            self.table.apply(slot, self.table.sequence(slot) + 1, (1.0, 2.0), 100)


class SlotTests(TableTestCase):
    """The players' slots."""

    def test_admit(self) -> None:
        """A new player has the state and the age that the store holds, clean and saved."""
        slot = self.table.admit(42, (1.0, 2.0), 99)
        self.assertEqual(self.table.slots, {42: slot})
        self.assertEqual(self.table.session_id(slot), 42)
        self.assertEqual(self.table.values(slot), (1.0, 2.0))
        self.assertEqual(self.table.updated_at(slot), 99)
        self.assertEqual(self.table.sequence(slot), 0)
        self.assertFalse(self.table.is_dirty(slot))
        self.assertTrue(self.table.is_saved(slot))

    def test_greatest_session_id(self) -> None:
        """The greatest session id is held whole."""
        slot = self.table.admit(INT64_MAX, SPAWN, INT64_MAX)
        self.assertEqual(self.table.session_id(slot), INT64_MAX)
        self.assertEqual(self.table.updated_at(slot), INT64_MAX)

    def test_every_kind_of_field(self) -> None:
        """A row holds every kind of field, and its neighbours keep theirs."""
        schema = StateSchema.of(Everything)
        table = LiveTable(schema, 3, lambda: 0.0, RowMemory(schema, 3).buffer)
        states = [
            Everything(1.5, -7, False, "a", 2.5),
            Everything(-1.5, 2**62, True, "wood of 16 bytes", 0.0),
            Everything(),
        ]
        slots = [table.admit(index + 1, schema.spawn, 0) for index in range(3)]
        for slot, state in zip(slots, states, strict=True):
            table.apply(slot, 1, schema.values(state), 5)
        self.assertEqual([schema.state(table.values(slot)) for slot in slots], states)
        self.assertEqual([table.session_id(slot) for slot in slots], [1, 2, 3])

    def test_length(self) -> None:
        """The table's length is the number of players in it."""
        self.admit(1, 2, 3)
        self.table.release(self.table.slots[2])
        self.assertEqual(len(self.table), 2)

    def test_full(self) -> None:
        """A table of so many players refuses one more, and keeps those it has."""
        slots = self.admit(*range(1, 9))
        self.assertEqual(sorted(slots), list(range(8)))
        self.assertRaises(TableFull, self.table.admit, 9, SPAWN, 0)
        self.assertNotIn(9, self.table.slots)

    def test_full_and_one_released(self) -> None:
        """A full table takes another player when one was released."""
        self.admit(*range(1, 9))
        freed = self.table.slots[4]
        self.table.release(freed)
        self.assertEqual(self.table.admit(9, SPAWN, 0), freed)
        self.assertRaises(TableFull, self.table.admit, 10, SPAWN, 0)

    def test_newest_freed_slot_first(self) -> None:
        """Freed slots are given out again, newest first, before any that was never used."""
        first, second, third = self.admit(1, 2, 3)
        self.table.release(first)
        self.table.release(third)
        self.assertEqual(self.admit(4, 5, 6), [third, first, third + 1])
        self.assertEqual(second, 1)
        self.assertEqual(self.table.high_water, 4)

    def test_release(self) -> None:
        """A released player is no longer in the table, and the slot is free."""
        (slot,) = self.admit(1)
        self.table.release(slot)
        self.assertEqual(self.table.slots, {})
        self.assertEqual(self.table.session_id(slot), 0)

    def test_release_of_a_dirty_player(self) -> None:
        """A player released while dirty is not swept, counted or unsaved."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.release(slot)
        self.assertEqual(self.table.sweep(self.sink), Sweep(0, 0, False, None))
        self.assertEqual(self.table.dirty_count(), 0)
        self.assertIsNone(self.table.oldest_dirty())
        self.assertEqual(self.table.unsaved().tolist(), [])

    def test_slot_of_another_before(self) -> None:
        """Nothing of the player who had the slot before is left in it."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        settle(self.table, *self.sink.rows)
        self.table.release(slot)
        self.assertEqual(self.table.admit(2, (7.0, 8.0), 3), slot)
        self.assertEqual(self.table.values(slot), (7.0, 8.0))
        self.assertEqual(self.table.updated_at(slot), 3)
        self.assertEqual(self.table.sequence(slot), 0)
        self.assertTrue(self.table.is_saved(slot))
        self.assertFalse(self.table.is_dirty(slot))


class ChangeTests(TableTestCase):
    """What an update does."""

    def test_apply(self) -> None:
        """An update writes values, sequence and age, and makes the row dirty and unsaved."""
        (slot,) = self.admit(1)
        self.assertTrue(self.table.apply(slot, 7, (3.0, 4.0), 1000))
        self.assertEqual(self.table.values(slot), (3.0, 4.0))
        self.assertEqual(self.table.sequence(slot), 7)
        self.assertEqual(self.table.updated_at(slot), 1000)
        self.assertTrue(self.table.is_dirty(slot))
        self.assertFalse(self.table.is_saved(slot))

    def test_apply_again(self) -> None:
        """A second update before the sweep says that the row was dirty already."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.assertFalse(self.table.apply(slot, 2, (5.0, 6.0), 1000))
        self.assertEqual(self.table.values(slot), (5.0, 6.0))
        self.assertEqual(self.table.dirty_count(), 1)

    def test_apply_after_a_sweep(self) -> None:
        """The first update after the sweep finds the row clean."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        self.assertFalse(self.table.is_dirty(slot))
        self.assertTrue(self.table.apply(slot, 2, (5.0, 6.0), 1000))

    def test_apply_leaves_others_alone(self) -> None:
        """An update touches its own row and no other."""
        slots = self.admit(1, 2, 3)
        before = self.memory.halves[[slots[0], slots[2]]].tobytes()
        self.table.apply(slots[1], 2**32 - 1, (-1.0, -1.0), INT64_MAX - 1)
        self.assertEqual(self.memory.halves[[slots[0], slots[2]]].tobytes(), before)

    def test_stale(self) -> None:
        """An update not above the highest applied changes nothing."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 7, (3.0, 4.0), 1000)
        before = self.memory.row(slot).tobytes()
        for sequence in (7, 6, 0):
            self.assertIsNone(self.table.apply(slot, sequence, (5.0, 6.0), 2000))
        self.assertEqual(self.memory.row(slot).tobytes(), before)

    def test_without_a_number(self) -> None:
        """An update without a number is applied, and leaves the highest as it is."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 7, (3.0, 4.0), 1000)
        self.assertIs(self.table.apply(slot, None, (5.0, 6.0), 2000), False)
        self.assertEqual(self.table.sequence(slot), 7)
        self.assertEqual(self.table.values(slot), (5.0, 6.0))

    def test_updated_at_follows_the_wall_clock(self) -> None:
        """Invariant 5: an update bears the wall clock's time where that is later."""
        (slot,) = self.admit(1)
        for now in (100, 101, 5000):
            self.table.apply(slot, None, SPAWN, now)
            self.assertEqual(self.table.updated_at(slot), now)

    def test_updated_at_when_the_wall_clock_steps_back(self) -> None:
        """Invariant 5: where the wall clock stands or steps back, each update is 1 later."""
        slot = self.table.admit(1, SPAWN, 1000)
        for now, expected in ((1000, 1001), (999, 1002), (0, 1003), (1003, 1004), (1005, 1005)):
            self.table.apply(slot, None, SPAWN, now)
            self.assertEqual(self.table.updated_at(slot), expected)

    def test_begin(self) -> None:
        """A fresh generation is numbered from its sequence, which is saved where the state is."""
        (slot,) = self.admit(1)
        self.table.start_generation(slot, 70)
        self.assertEqual(self.table.sequence(slot), 70)
        self.assertEqual(self.table.saved[slot], 70)

    def test_begin_unsaved(self) -> None:
        """Invariant 6: the number that a generation begins with is not saved before its state."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.start_generation(slot, 70)
        self.assertEqual(self.table.sequence(slot), 70)
        self.assertEqual(self.table.saved[slot], 0)

    def test_generations_differ(self) -> None:
        """No two generations are the same, neither of one player nor of two."""
        first, second = self.admit(1, 2)
        generations = {int(self.memory.row(slot)["generation"]) for slot in (first, second)}
        self.table.start_generation(first, 0)
        generations.add(int(self.memory.row(first)["generation"]))
        self.assertEqual(len(generations), 3)
        self.assertNotIn(0, generations)

    def test_begin_keeps_the_state(self) -> None:
        """A fresh generation changes neither the state nor whether it is saved."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.start_generation(slot, 0)
        self.assertEqual(self.table.values(slot), (1.0, 2.0))
        self.assertTrue(self.table.is_dirty(slot))
        self.assertFalse(self.table.is_saved(slot))


class ManyTests(TableTestCase):
    """Many players' updates at once."""

    def apply_many(self, slots: list[int], sequence: int, x: float, now: int) -> int:
        """One update for each of these."""
        fields = np.zeros(len(slots), SCHEMA.moved.dtype)
        fields["x"] = x + np.arange(len(slots))
        sequences = np.full(len(slots), sequence, np.uint32)
        return self.table.apply_many(np.array(slots, np.intp), sequences, fields, now)

    def test_same(self) -> None:
        """The rows are those that one update after the other makes."""
        slots = self.admit(1, 2, 3, 4)
        self.table.release(slots[1])
        others = RowMemory(SCHEMA, 8)
        others.buffer[:] = self.memory.buffer
        other = LiveTable(SCHEMA, 8, lambda: self.time, others.buffer)
        other._place[:] = self.table._place
        other._version = self.table._version
        chosen = [slots[3], slots[0], slots[2]]
        for sequence, now in ((1, 100), (5, 50), (2**32 - 1, 2**62)):
            self.apply_many(chosen, sequence, 7.0, now)
            for number, slot in enumerate(chosen):
                other.apply(slot, sequence, (7.0 + number, 0.0), now)
            self.assertEqual(self.memory.buffer, others.buffer)

    def test_padding(self) -> None:
        """Rows stay padded with zeros, and nothing else of the process gets into them."""
        schema = StateSchema.of(Everything)
        memory = RowMemory(schema, 40)
        table = LiveTable(schema, 40, lambda: 0.0, memory.buffer)
        slots = np.array([table.admit(n, schema.spawn, 0) for n in range(1, 41)])
        fields = np.zeros(40, schema.moved.dtype)
        for sequence in range(1, 5):
            for size in (2560, 5120, 10240):
                np.full(size, 0xAA, np.uint8)  # what the next array is made of
            table.apply_many(slots, np.full(40, sequence), fields, sequence)
        end = FIELDS_AT + schema.size
        halves = np.frombuffer(memory.buffer, np.uint8).reshape(80, memory.layout.size)
        self.assertFalse(halves[:, end:-8].any())

    def test_end_of_time(self) -> None:
        """The last ``updated_at`` there is stays, by either way."""
        slots = [self.table.admit(number, SPAWN, INT64_MAX) for number in (1, 2)]
        self.apply_many(slots, 1, 5.0, 100)
        self.table.apply(slots[0], 2, (6.0, 0.0), 100)
        for slot, x in zip(slots, (6.0, 6.0), strict=True):
            self.assertEqual(self.table.updated_at(slot), INT64_MAX)
            self.assertEqual(self.table.values(slot)[0], x)

    def test_dirty(self) -> None:
        """It says how many were dirty, and dates the others."""
        slots = self.admit(1, 2, 3)
        self.time = 5.0
        self.assertEqual(self.apply_many(slots[:2], 1, 0.0, 100), 0)
        self.time = 9.0
        self.assertEqual(self.apply_many(slots, 2, 0.0, 200), 2)
        self.assertEqual(self.table.oldest_dirty(), 5.0)
        self.assertEqual(self.table.sweep(self.sink).pushed, 3)
        self.assertIsNone(self.table.oldest_dirty())
        self.assertEqual(self.apply_many(slots, 3, 0.0, 300), 0)
        self.assertEqual(self.table.oldest_dirty(), 9.0)

    def test_none(self) -> None:
        """None is no trouble."""
        self.assertEqual(self.apply_many([], 1, 0.0, 100), 0)
        self.assertIsNone(self.table.oldest_dirty())

    def test_interrupted(self) -> None:
        """Wherever it is cut short, each row is whole: the one before, or the new one."""
        slots = self.admit(1, 2, 3)
        self.apply_many(slots, 1, 10.0, 100)
        before = [self.memory.row(slot).tobytes() for slot in slots]
        memory, places = bytes(self.memory.buffer), self.table._places.copy()
        for name, done in (("_heads", [0] * 4), ("_tails", [0, 1, 2, 3])):
            column = getattr(self.table, name)
            for written, new in enumerate(done):
                setattr(self.table, name, Interrupted(column, written))
                self.assertRaises(KeyboardInterrupt, self.apply_many, slots, 2, 20.0, 200)
                # What is not written whole does not count yet.
                self.assertEqual(self.table._places.tolist(), places.tolist())
                rows = [self.memory.row(slot) for slot in slots]
                self.assertEqual([row["sequence"] for row in rows], [2] * new + [1] * (3 - new))
                self.assertEqual([row.tobytes() for row in rows[new:]], before[new:])
                self.memory.buffer[:] = memory
                self.table._places[:] = places
            setattr(self.table, name, column)


class Interrupted:
    """A column of which so many elements are written before the process dies."""

    def __init__(self, column: Any, most: int) -> None:
        self._column = column
        self._most = most

    def __setitem__(self, places: Any, values: Any) -> None:
        self._column[places[: self._most]] = values[: self._most]
        raise KeyboardInterrupt


class MemoryTests(TableTestCase):
    """How the rows lie in the buffer that the table was given."""

    def fields(self, half: Any) -> tuple[Any, ...]:
        """The fields of a half."""
        return SCHEMA.struct.unpack(half["fields"].tobytes())

    def test_bytes_needed(self) -> None:
        """A table needs two halves a player."""
        self.assertEqual(LiveTable.bytes_needed(SCHEMA, 1), 2 * 64)
        self.assertEqual(LiveTable.bytes_needed(SCHEMA, 1000), 1000 * 2 * 64)
        self.assertEqual(LiveTable.bytes_needed(StateSchema.of(Everything), 3), 3 * 2 * 128)

    def test_buffer(self) -> None:
        """The present half in the buffer is the player as they are, header and fields."""
        slot = self.table.admit(42, SPAWN, 7)
        self.table.start_generation(slot, 3)
        self.table.apply(slot, 4, (3.0, 4.0), 1000)
        row = self.memory.row(slot)
        self.assertEqual(row.item()[1:6], (42, slot, 1, 1000, 4))
        self.assertEqual(self.fields(row), (3.0, 4.0))

    def test_halves_in_turn(self) -> None:
        """A change leaves the half that was present as it was, and takes the other."""
        (slot,) = self.admit(1)
        for number in range(1, 6):
            before = self.memory.row(slot)
            copy = before.tobytes()
            self.table.apply(slot, number, (float(number), 0.0), number)
            self.assertEqual(before.tobytes(), copy)
            self.assertEqual(self.fields(self.memory.row(slot)), (float(number), 0.0))

    def test_versions_grow(self) -> None:
        """Each write, whichever it is, bears a version above all before, at head and tail."""
        last = 0
        first, second = self.admit(1, 2)
        writes = [
            lambda: self.move(second),
            lambda: self.move(first),
            lambda: self.table.start_generation(second, 9),
            lambda: self.table.release(first),
            lambda: self.admit(3),
        ]
        for write in writes:
            write()
            halves = self.memory.halves
            self.assertEqual(halves["version"].tolist(), halves["version_again"].tolist())
            self.assertGreater(halves["version"].max(), last)
            last = int(halves["version"].max())

    def test_never_used(self) -> None:
        """Slots that were never used stay as the buffer was."""
        self.move(*self.admit(1, 2))
        self.assertEqual(self.memory.halves[2:].tobytes(), bytes(6 * 2 * 64))

    def test_release(self) -> None:
        """A released player is gone from the buffer too: the current half has no player."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.release(slot)
        self.assertEqual(self.memory.row(slot)["session_id"], 0)

    def test_value_that_cannot_be_packed(self) -> None:
        """A write that fails leaves the player as they were."""
        (slot,) = self.admit(1)
        self.move(slot)
        before = self.memory.row(slot).tobytes()
        self.assertRaises(struct.error, self.table.apply, slot, 2, (1.0, "north"), 200)
        self.assertEqual(self.table.values(slot), (1.0, 2.0))
        self.assertEqual(self.memory.row(slot).tobytes(), before)
        self.table.apply(slot, 2, (5.0, 6.0), 300)
        self.assertEqual(self.fields(self.memory.row(slot)), (5.0, 6.0))

    def test_sequences(self) -> None:
        """The sequences of all slots are those of their present halves."""
        slots = self.admit(1, 2, 3)
        self.table.apply(slots[0], 7, SPAWN, 1)
        self.table.apply(slots[2], 8, SPAWN, 1)
        self.table.apply(slots[2], 2**32 - 1, SPAWN, 1)
        self.assertEqual(self.table.sequences().tolist(), [7, 0, 2**32 - 1])
        self.table.release(slots[2])
        self.assertEqual(self.table.sequences().tolist(), [7, 0, 0])

    def test_sequences_of_nobody(self) -> None:
        """A table that never had a player has no sequences."""
        self.assertEqual(self.table.sequences().tolist(), [])


class DirtyAllTests(TableTestCase):
    """What is saved again in a store that holds nothing."""

    def test_clean_and_changed(self) -> None:
        """Players who ever changed are dirty again, and unsaved, whether saved or restored."""
        moved, restored, spawned = (*self.admit(1), self.table.admit(2, SPAWN, 5), *self.admit(3))
        self.move(moved)
        self.table.sweep(self.sink)
        settle(self.table, *self.sink.rows)
        self.sink.take()
        self.assertEqual(self.table.unsaved().tolist(), [])
        self.assertEqual(self.table.dirty_all(), 2)
        self.assertEqual(self.table.unsaved().tolist(), [1, 2])
        self.assertFalse(self.table.is_dirty(spawned))
        self.assertTrue(self.table.is_saved(spawned))
        self.table.sweep(self.sink)
        self.assertEqual(self.sink.take(), [1, 2])
        self.assertFalse(self.table.is_dirty(restored))

    def test_dirty_before(self) -> None:
        """A player who was dirty is not counted again, and as old as before."""
        first, second = self.admit(1, 2)
        self.time = 10.0
        self.move(first)
        self.time = 20.0
        self.move(second)
        self.table.sweep_only(self.sink, [second])
        settle(self.table, *self.sink.rows)
        self.time = 30.0
        self.assertEqual(self.table.dirty_all(), 1)
        self.assertEqual(self.table.oldest_dirty(), 10.0)
        self.table.sweep_only(self.sink, [first])
        self.assertEqual(self.table.oldest_dirty(), 30.0)

    def test_on_its_way(self) -> None:
        """A row that was swept and is not yet saved comes to the new store by itself."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        self.assertEqual(self.table.dirty_all(), 0)
        self.assertFalse(self.table.is_dirty(slot))
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_saved_at_of_the_dirty(self) -> None:
        """The store holds nothing of players who were already dirty, either."""
        slot = self.table.admit(1, SPAWN, 50)
        self.move(slot)
        self.assertEqual(self.table.dirty_all(), 0)
        self.assertEqual(self.table.unsaved().tolist(), [1])
        self.assertEqual(self.table.saved_at[slot], 0)

    def test_nobody(self) -> None:
        """In an empty table, and in free slots, there is nothing to save again."""
        self.assertEqual(self.table.dirty_all(), 0)
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.release(slot)
        self.assertEqual(self.table.dirty_all(), 0)
        self.assertEqual(self.table.dirty_count(), 0)


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
        """A slot given twice is pushed once, or the books of invariant 7 would not balance."""
        (slot,) = self.admit(1)
        self.move(slot)
        sweep = self.table.sweep_only(self.sink, [slot, slot])
        self.assertEqual((sweep.pushed, sweep.left), (1, 0))
        self.assertEqual(self.sink.take(), [1])

    def test_slot_given_twice_without_room(self) -> None:
        """A slot given twice to a ring with one place is not left over."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.sink.room = 1
        sweep = self.table.sweep_only(self.sink, [slot, slot])
        self.assertEqual((sweep.pushed, sweep.left), (1, 0))

    def test_ring_as_sink(self) -> None:
        """A ring takes rows as they are when they are swept, whatever changes later."""
        slots = self.admit(1, 2)
        ring = Ring(2, self.memory.layout.dtype)
        self.move(*slots)
        self.table.sweep(ring)
        before = b"".join(self.memory.row(slot).tobytes() for slot in slots)
        self.table.apply(slots[0], 9, (9.0, 9.0), 10**6)
        self.assertEqual(ring.take().tobytes(), before)


class SettleTests(TableTestCase):
    """What the store holds."""

    def test_settle(self) -> None:
        """A commit raises ``saved`` and ``saved_at`` of its rows, and of no others."""
        slots = self.admit(1, 2)
        self.move(*slots)
        self.table.sweep(self.sink)
        settle(self.table, self.sink.rows[1])
        self.assertEqual(self.table.saved.tolist()[:2], [0, 1])
        self.assertEqual([self.table.is_saved(slot) for slot in slots], [False, True])
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_changed_since(self) -> None:
        """A row changed between its sweep and its commit is not saved by that commit."""
        (slot,) = self.admit(1)
        self.move(slot)
        self.table.sweep(self.sink)
        self.move(slot)
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved[slot], 1)
        self.assertFalse(self.table.is_saved(slot))
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_another_generation(self) -> None:
        """Invariant 6: a row of an earlier generation saves the number this one began with."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 50, (1.0, 2.0), 100)
        self.table.sweep(self.sink)
        self.table.start_generation(slot, 3)
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved[slot], 3)
        self.assertTrue(self.table.is_saved(slot))

    def test_another_generation_and_changed_since(self) -> None:
        """Invariant 6: a row of an earlier generation saves no number of this where it moved on."""
        (slot,) = self.admit(1)
        self.table.apply(slot, 50, (1.0, 2.0), 100)
        self.table.sweep(self.sink)
        self.table.start_generation(slot, 3)
        self.move(slot)
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved[slot], 0)
        self.assertFalse(self.table.is_saved(slot))
        self.assertEqual(self.table.saved_at[slot], 100)

    def test_generations_in_one_commit(self) -> None:
        """A commit of rows of this generation and of others settles each by its own."""
        slots = self.admit(1, 2, 3)
        self.move(*slots)
        self.table.sweep(self.sink)
        self.table.start_generation(slots[0], 7)
        self.table.start_generation(slots[2], 8)
        self.move(slots[2])
        settle(self.table, *self.sink.rows)
        self.assertEqual(self.table.saved.tolist()[:3], [7, 1, 0])

    def test_nothing(self) -> None:
        """A commit of no rows, where the guard left all of them out, changes nothing."""
        self.move(*self.admit(1))
        settle(self.table)
        self.assertEqual(self.table.unsaved().tolist(), [1])

    def test_unsaved_without_update(self) -> None:
        """A player who never moved is not unsaved, whether spawned or restored."""
        self.table.admit(1, SPAWN, 0)
        self.table.admit(2, SPAWN, 500)
        self.assertEqual(self.table.unsaved().tolist(), [])


@attrs.define
class Player:
    """What the model knows of one player."""

    slot: int
    values: tuple[float, float]
    updated_at: int
    saved_at: int
    sequence: int = 0
    saved: int = 0
    generation: int = 0
    dirtied_at: float | None = None


coordinates = st.tuples(st.floats(-10, 10), st.floats(-10, 10))


class TableMachine(RuleBasedStateMachine):
    """The table beside a dict of players, with rows on their way to the store."""

    CAPACITY = 5

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.memory = RowMemory(SCHEMA, self.CAPACITY)
        self.table = LiveTable(SCHEMA, self.CAPACITY, lambda: self.time, self.memory.buffer)
        self.sink = Sink()
        self.players: dict[int, Player] = {}
        self.generation = 0
        self.resume = 0
        self.flights: list[list[Any]] = []

    def pick(self, data: st.DataObject) -> tuple[int, Player]:
        """One of the players."""
        return data.draw(st.sampled_from(sorted(self.players.items())))

    @rule(session_id=st.integers(1, 8), values=coordinates, updated_at=st.integers(0, 50))
    def admit(self, session_id: int, values: tuple[float, float], updated_at: int) -> None:
        """Admit a player who is not in the table, or find that it is full."""
        if session_id in self.players:
            return
        if len(self.players) == self.CAPACITY:
            try:
                self.table.admit(session_id, values, updated_at)
            except TableFull:
                return
            raise AssertionError("a full table took one more")
        slot = self.table.admit(session_id, values, updated_at)
        assert slot not in {player.slot for player in self.players.values()}
        self.players[session_id] = Player(slot, values, updated_at, updated_at)
        self.start(self.players[session_id], 0)

    @precondition(lambda self: self.players)
    @rule(data=st.data(), sequence=st.integers(0, 9))
    def begin(self, data: st.DataObject, sequence: int) -> None:
        """Begin a fresh generation."""
        self.start(self.pick(data)[1], sequence)

    def start(self, player: Player, sequence: int) -> None:
        self.table.start_generation(player.slot, sequence)
        self.generation += 1
        player.generation = self.generation
        player.sequence = sequence
        player.saved = sequence if player.updated_at == player.saved_at else 0

    @precondition(lambda self: self.players)
    @rule(data=st.data(), values=coordinates, now=st.integers(0, 60), later=st.floats(0, 5))
    def apply(
        self, data: st.DataObject, values: tuple[float, float], now: int, later: float
    ) -> None:
        """Apply an update, at a wall clock that goes where it likes."""
        player = self.pick(data)[1]
        self.time += later
        was_clean = self.table.apply(player.slot, player.sequence + 1, values, now)
        assert was_clean == (player.dirtied_at is None)
        player.values = values
        player.sequence += 1
        player.updated_at = max(now, player.updated_at + 1)
        if player.dirtied_at is None:
            player.dirtied_at = self.time

    @rule(room=st.integers(0, 6))
    def sweep(self, room: int) -> None:
        """Sweep all into a sink of little room."""
        dirty = sorted(p.slot for p in self.players.values() if p.dirtied_at is not None)
        turn = [slot for slot in dirty if slot >= self.resume]
        turn += [slot for slot in dirty if slot < self.resume]
        self.sink.room = room
        self.note(self.table.sweep(self.sink), turn, room)
        self.resume = turn[room] if room < len(turn) else 0

    @precondition(lambda self: self.players)
    @rule(data=st.data(), room=st.integers(0, 6))
    def sweep_only(self, data: st.DataObject, room: int) -> None:
        """Sweep some."""
        slots = sorted(player.slot for player in self.players.values())
        chosen = data.draw(st.lists(st.sampled_from(slots), unique=True))
        dirty = {p.slot for p in self.players.values() if p.dirtied_at is not None}
        self.sink.room = room
        sweep = self.table.sweep_only(self.sink, chosen)
        pushed = [int(row["slot"]) for row in self.sink.rows]
        assert set(pushed) <= dirty.intersection(chosen)
        rest = sorted(dirty.intersection(chosen).difference(pushed))
        self.note(sweep, pushed + rest, room)

    def note(self, sweep: Sweep, turn: list[int], room: int) -> None:
        """Compare a sweep with what it should have done, and keep what it pushed."""
        owners = {player.slot: (ids, player) for ids, player in self.players.items()}
        pushed = [owners[slot] for slot in turn[:room]]
        oldest = min((player.dirtied_at for _, player in pushed), default=None)
        left = len(turn) - len(pushed)
        assert sweep == Sweep(len(pushed), left, left > 0, oldest)
        assert [row.item()[1:6] for row in self.sink.rows] == [
            (ids, player.slot, player.generation, player.updated_at, player.sequence)
            for ids, player in pushed
        ]
        fields = [SCHEMA.struct.unpack(row["fields"].tobytes()) for row in self.sink.rows]
        assert fields == [player.values for _, player in pushed]
        for _, player in pushed:
            player.dirtied_at = None
        if self.sink.rows:
            self.flights.append(list(self.sink.rows))
        self.sink.rows.clear()

    @precondition(lambda self: self.flights)
    @rule()
    def settle(self) -> None:
        """Commit the rows that were swept first."""
        rows = self.flights.pop(0)
        settle(self.table, *rows)
        for row in rows:
            player = self.players[int(row["session_id"])]
            player.saved_at = int(row["updated_at"])
            if player.generation == row["generation"]:
                player.saved = int(row["sequence"])
            elif player.saved_at == player.updated_at:
                player.saved = player.sequence

    @rule()
    def dirty_all(self) -> None:
        """Find that the store was replaced."""
        changed = [player for player in self.players.values() if player.updated_at]
        settled = [player for player in changed if player.updated_at == player.saved_at]
        clean = [player for player in settled if player.dirtied_at is None]
        assert self.table.dirty_all() == len(clean)
        for player in changed:
            player.saved_at = player.saved = 0
        for player in clean:
            player.dirtied_at = self.time

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release a player of whom nothing is on its way, as the service does."""
        away = {int(row["session_id"]) for rows in self.flights for row in rows}
        free = sorted(set(self.players) - away)
        if not free:
            return
        session_id = data.draw(st.sampled_from(free))
        self.table.release(self.players.pop(session_id).slot)

    @invariant()
    def agrees(self) -> None:
        """The table and the model know the same."""
        table = self.table
        assert len(table) == len(self.players)
        assert table.slots == {ids: player.slot for ids, player in self.players.items()}
        for session_id, player in self.players.items():
            slot = player.slot
            assert table.session_id(slot) == session_id
            assert table.values(slot) == player.values
            assert table.updated_at(slot) == player.updated_at
            assert table.sequence(slot) == player.sequence
            assert table.saved[slot] == player.saved
            assert table.saved_at[slot] == player.saved_at
            assert table.is_dirty(slot) == (player.dirtied_at is not None)
            assert table.is_saved(slot) == (player.updated_at == player.saved_at)
            assert table.sequences()[slot] == player.sequence
            row = self.memory.row(slot)
            assert row.item()[1:6] == (
                *(session_id, slot, player.generation, player.updated_at, player.sequence),
            )
            assert SCHEMA.struct.unpack(row["fields"].tobytes()) == player.values
        online = {int(self.memory.row(slot)["session_id"]) for slot in range(self.CAPACITY)} - {0}
        assert online == set(self.players)
        ages = [p.dirtied_at for p in self.players.values() if p.dirtied_at is not None]
        assert table.dirty_count() == len(ages)
        assert table.oldest_dirty() == min(ages, default=None)
        assert sorted(table.unsaved().tolist()) == sorted(
            ids for ids, player in self.players.items() if player.updated_at != player.saved_at
        )


class TableLawTests(SynchronousTestCase):
    """The table beside a model."""

    def test_table_and_model_agree(self) -> None:
        """Whatever is done in whatever order, the table knows what a dict would know."""
        run_state_machine_as_test(
            TableMachine, settings=settings(LAW, max_examples=50, stateful_step_count=40)
        )
