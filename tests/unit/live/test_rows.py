"""How the rows lie in the buffer that a table was given, and what is read of them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from playerstate.live.table import LiveTable
from playerstate.state.layout import FIELDS_AT
from playerstate.state.schema import StateSchema
from tests.kit.players import SCHEMA
from tests.kit.support import Everything
from tests.kit.tables import SPAWN, TableMemory, TableTestCase


class RowsTests(TableTestCase):
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

    def test_padding(self) -> None:
        """Rows stay padded with zeros, and nothing else of the process gets into them."""
        schema = StateSchema.of(Everything)
        memory = TableMemory(schema, 40)
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

    def test_interrupted(self) -> None:
        """Wherever it is cut short, each row is whole: the one before, or the new one."""
        slots = self.admit(1, 2, 3)
        self.move_many(slots, 1, 10.0, 100)
        before = [self.memory.row(slot).tobytes() for slot in slots]
        memory, places = bytes(self.memory.buffer), self.table._places.copy()
        for name, done in (("_heads", [0] * 4), ("_tails", [0, 1, 2, 3])):
            column = getattr(self.table, name)
            for written, new in enumerate(done):
                setattr(self.table, name, Interrupted(column, written))
                self.assertRaises(KeyboardInterrupt, self.move_many, slots, 2, 20.0, 200)
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
