"""Ours, with as little around it as the code path allows."""

from __future__ import annotations

import os
import time
from typing import Any

import attrs
import numpy as np

from playerstate import PlayerState
from playerstate.interfaces import IStateStore, IStateWriter
from playerstate.live.table import LiveTable
from playerstate.saving.commit import Commit
from playerstate.saving.persister import Persister
from playerstate.saving.ring import Ring
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.store import SQLiteStore

SCHEMA = StateSchema.of(PlayerState)
LAYOUT = RowLayout(SCHEMA.fields)
QUEUE_SIZE = 131_072
START = 1_700_000_000_000_000
"""The first ``updated_at``, microseconds since the Unix epoch."""

Row = tuple[int, float, float, int]


def live_table(session_ids: list[int]) -> LiveTable:
    """A table in which these players are online, in this order."""
    buffer = memoryview(bytearray(LiveTable.bytes_needed(SCHEMA, len(session_ids))))
    table = LiveTable(SCHEMA, len(session_ids), time.monotonic, buffer)
    for session_id in session_ids:
        table.start_generation(table.admit(session_id, SCHEMA.spawn, 0), 0)
    return table


def warm_ring(queue_size: int) -> Ring:
    """An empty ring that was full before, so that the system has given it all of its memory."""
    ring = Ring(queue_size, LAYOUT.dtype)
    ring.push(np.zeros(queue_size, LAYOUT.dtype), np.arange(queue_size))
    ring.take()
    return ring


def new_database(path: str, synchronous: str = "full") -> SQLiteStore:
    """A new database of players, ready to be written; it is locked until it is closed."""
    store = SQLiteStore(path, SCHEMA, synchronous)
    store.prepare()
    store.migrate(os.urandom(16))
    return store


class Rows:
    """The same players' changes for all contenders.

    Args:
        count: of players.

    Attributes:
        session_ids: in random order.
        x, y: where each is now, in that order.
        updated_at: of the last change of all of them.
    """

    def __init__(self, count: int) -> None:
        self._random = np.random.default_rng(1)
        self.session_ids = self._random.permutation(np.arange(1, count + 1))
        self.updated_at = START
        self.change()

    def __len__(self) -> int:
        return len(self.session_ids)

    def change(self) -> None:
        """All players move."""
        self.updated_at += 1_000_000
        self._tuples: list[Row] = []
        self.x, self.y = self._random.uniform(0.0, 4096.0, (2, len(self)))

    def tuples(self) -> list[Row]:
        """The changes, as the parameters of a statement; made once for all contenders."""
        if not self._tuples:
            columns = self.session_ids.tolist(), self.x.tolist(), self.y.tolist()
            self._tuples = [(*row, self.updated_at) for row in zip(*columns, strict=True)]
        return self._tuples


class Listener:
    """The persister's listener: a failure ends the measurement."""

    rows = 0

    def committed(self, commit: Commit) -> None:
        """Count what was committed."""
        self.rows += len(commit.slots)

    def failed(self, error: Exception, rows: int) -> None:
        """Nothing should fail here."""
        raise error

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the persister reported {name}")


@attrs.define(eq=False)
class Flusher:
    """A table, a ring and a persister on a real writer, stepped by the caller.

    Attributes:
        table, ring, persister: the parts.
    """

    table: LiveTable
    ring: Ring
    persister: Persister
    _listener: Listener
    _writer: IStateWriter

    @classmethod
    def over(cls, store: IStateStore, table: LiveTable, queue_size: int = QUEUE_SIZE) -> Flusher:
        """One that writes to this store, which is ready to be written."""
        if isinstance(store, SQLiteStore):
            store.open_reader().close()  # it begins to watch its files
        ring, listener, writer = warm_ring(queue_size), Listener(), store.open_writer()
        persister = Persister(ring, LAYOUT.record, lambda: writer, listener)
        return cls(table, ring, persister, listener, writer)

    def apply(self, rows: Rows) -> None:
        """The players' moves arrive, and are swept into the ring."""
        apply, slots, now = self.table.apply, self.table.slots, rows.updated_at
        columns = rows.session_ids.tolist(), rows.x.tolist(), rows.y.tolist()
        for session_id, x, y in zip(*columns, strict=True):
            apply(slots[session_id], None, (x, y), now)
        self.table.sweep(self.ring)

    def flush(self) -> float:
        """Commit what is in the ring; seconds that took."""
        expected = self._listener.rows + self.ring.depth
        started = time.perf_counter()
        settled = self.persister.step()
        seconds = time.perf_counter() - started
        assert settled == 0.0 and self._listener.rows == expected
        return seconds

    def close(self) -> None:
        """Let go of the writer's connection."""
        self._writer.close()


def fill(store: SQLiteStore, players: int) -> None:
    """Write players from 1 up into a new database, by its own writer."""
    store.open_reader().close()
    writer = store.open_writer()
    for first in range(1, players + 1, QUEUE_SIZE):
        rows = np.zeros(min(QUEUE_SIZE, players + 1 - first), LAYOUT.record)
        rows["session_id"] = np.arange(first, first + len(rows))
        rows["x"], rows["y"], rows["updated_at"] = 1.0, 2.0, START
        writer.write(rows)
        writer.maintain()
    writer.close()
