"""What tests of the live table share: a table of a few players, what it lies in, a sink."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.live.table import LiveTable
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema
from tests.kit.players import SCHEMA

SPAWN = SCHEMA.spawn


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


class TableMemory:
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
        self.memory = TableMemory(SCHEMA, 8)
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

    def move_many(self, slots: list[int], sequence: int, x: float, now: int) -> int:
        """One update for each of these players, by `LiveTable.apply_many`."""
        fields = np.zeros(len(slots), SCHEMA.moved.dtype)
        fields["x"] = x + np.arange(len(slots))
        sequences = np.full(len(slots), sequence, np.uint32)
        return self.table.apply_many(np.array(slots, np.intp), sequences, fields, now)
