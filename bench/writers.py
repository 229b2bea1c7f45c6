"""What else saves players to SQLite: each writes the same rows to a database of its own.

A writer's ``flush(rows, seconds)`` is called on a thread that is not the reactor's, writes as many
of the rows as it can in about so many seconds, and returns how many it wrote and in what time.
Those that write row by row would else take minutes.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import DeferredList

from bench.ours import Flusher, Row, Rows, live_table, new_database
from bench.rivals import has, missing_for_c
from bench.stage import Stage
from bench.upsert import SQL, SYNCHRONOUS, FromC, build

EXECUTEMANY = "sqlite3 executemany"
ADBAPI = "adbapi, one interaction"
C_SORTED = "C, sorted"
C_RANDOM = "C, random order"
ROWS_AT_A_TIME = 10
"""Rows that are given to another thread before they are waited for."""

Written = tuple[int, float]


class Writer(Protocol):
    """One of the contenders.

    Attributes:
        by_row: whether each row is a call of its own, so that a flush may take minutes.
    """

    by_row: bool

    def prepare(self, rows: Rows) -> None:
        """Have the rows ready as a program would have them; this is no part of a flush."""

    def flush(self, rows: Rows, seconds: float) -> Written:
        """Write the rows; how many, and in how many seconds."""

    def close(self) -> None:
        """Let go of the database."""


class Ours:
    """The persist thread's step, on what was swept into its ring."""

    by_row = False

    def __init__(self, stage: Stage, rows: Rows) -> None:
        self._store = new_database(stage.path("ours.db"), SYNCHRONOUS)
        self._flusher = Flusher.over(self._store, live_table(rows.session_ids.tolist()))

    def prepare(self, rows: Rows) -> None:
        """See `Writer`; the moves are applied, and swept into the ring."""
        self._flusher.apply(rows)

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        return len(rows), self._flusher.flush()

    def close(self) -> None:
        """See `Writer`."""
        self._flusher.close()
        self._store.close()


class _OfTuples:
    """A contender that is given tuples."""

    def prepare(self, rows: Rows) -> None:
        """See `Writer`."""
        rows.tuples()


class C(_OfTuples):
    """The C program, in a process of its own."""

    by_row = False

    def __init__(self, stage: Stage, rows: Rows, program: str, order: str) -> None:
        self._process = FromC(program, stage.path(f"c-{order}.db"), len(rows), order)

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        return len(rows), self._process.flush()

    def close(self) -> None:
        """See `Writer`."""
        self._process.close()


class Executemany(_OfTuples):
    """The standard library's ``executemany``, in one transaction."""

    by_row = False

    def __init__(self, stage: Stage, rows: Rows) -> None:
        self._connection = sqlite3.connect(_path(stage, "sqlite3.db"), check_same_thread=False)
        self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        counted = _Until(rows.tuples(), seconds)
        with self._connection:
            self._connection.executemany(SQL, counted)
        return counted.written()

    def close(self) -> None:
        """See `Writer`."""
        self._connection.close()


class Sqlitedict(_OfTuples):
    """sqlitedict, a key a player, one commit."""

    by_row = True

    def __init__(self, stage: Stage, rows: Rows) -> None:
        from sqlitedict import SqliteDict

        self._players = SqliteDict(stage.path("sqlitedict.db"), journal_mode="WAL")
        # It sets OFF by itself.
        self._players.conn.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        counted = _Until(rows.tuples(), seconds)
        for session_id, x, y, updated_at in counted:
            self._players[session_id] = x, y, updated_at
            if session_id % ROWS_AT_A_TIME == 0:
                # A look-up waits for its turn in the queue, which has no bound of its own.
                _ = session_id in self._players
        self._players.commit(blocking=True)
        return counted.written()

    def close(self) -> None:
        """See `Writer`."""
        self._players.close()


class Aiosqlite(_OfTuples):
    """aiosqlite on an event loop of its own."""

    def __init__(self, stage: Stage, rows: Rows, *, by_row: bool) -> None:
        import aiosqlite

        self.by_row = by_row
        self._loop = asyncio.new_event_loop()
        path = _path(stage, "aiosqlite.db")
        self._connection = self._loop.run_until_complete(_connected(aiosqlite.connect(path)))

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        counted = _Until(rows.tuples(), seconds)
        self._loop.run_until_complete(self._write(counted))
        return counted.written()

    async def _write(self, rows: _Until) -> None:
        if self.by_row:
            for row in rows:
                await self._connection.execute(SQL, row)
        else:
            await self._connection.executemany(SQL, rows)
        await self._connection.commit()

    def close(self) -> None:
        """See `Writer`."""
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()


async def _connected(connecting: Any) -> Any:
    connection = await connecting
    await connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
    return connection


class Adbapi(_OfTuples):
    """Twisted's connection pool, of one connection."""

    def __init__(self, stage: Stage, rows: Rows, *, by_row: bool) -> None:
        self._stage = stage
        self.by_row = by_row
        self._pool = adbapi_pool(stage.reactor, _path(stage, "adbapi.db"))

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        counted = _Until(rows.tuples(), seconds)
        return self._write_each(counted) if self.by_row else self._at_once(counted)

    def _at_once(self, rows: _Until) -> Written:
        self._stage.on_reactor(self._pool.runInteraction, upsert_each, rows)
        return rows.written()

    def _write_each(self, rows: _Until) -> Written:
        left = iter(rows)
        while some := [row for row, _ in zip(left, range(ROWS_AT_A_TIME), strict=False)]:
            self._stage.on_reactor(self._run_each, some)
        return rows.written()

    def _run_each(self, rows: list[Row]) -> DeferredList:
        return DeferredList([self._pool.runOperation(SQL, row) for row in rows], fireOnOneErrback=1)

    def close(self) -> None:
        """See `Writer`."""
        self._stage.on_reactor(self._pool.close)


def adbapi_pool(reactor: Any, path: str) -> ConnectionPool:
    """A pool over this database, with the same `SYNCHRONOUS` as all contenders."""
    return ConnectionPool(
        "sqlite3",
        path,
        cp_reactor=reactor,
        cp_min=1,
        cp_max=1,
        cp_openfun=lambda connection: connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}"),
        check_same_thread=False,
    )


def upsert_each(cursor: Any, rows: Iterable[Row]) -> None:
    """An interaction that writes all of the rows."""
    cursor.executemany(SQL, rows)


class _Until:
    """Rows, for so many seconds from the first; counts them.  With no limit, all of them."""

    def __init__(self, rows: list[Row], seconds: float) -> None:
        self._rows = rows
        self._count = len(rows)
        self._seconds = seconds
        self._started = time.perf_counter()

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows) if self._seconds == math.inf else self._cut()

    def _cut(self) -> Iterator[Row]:
        clock = time.perf_counter
        end = clock() + self._seconds
        for count, row in enumerate(self._rows, 1):
            self._count = count
            yield row
            if clock() > end:
                return

    def written(self) -> Written:
        """How many there were, and the time from the making of this until now."""
        return self._count, time.perf_counter() - self._started


def _path(stage: Stage, name: str) -> str:
    """A new database of players, as ours makes it, without a lock."""
    path = stage.path(name)
    new_database(path, SYNCHRONOUS).close()
    return path


def contenders(stage: Stage, rows: Rows) -> dict[str, Writer]:
    """The rivals that can run here."""
    writers: dict[str, Writer] = {}
    if not missing_for_c():
        program = build(stage)
        writers[C_SORTED] = C(stage, rows, program, "sorted")
        writers[C_RANDOM] = C(stage, rows, program, "random")
    writers[EXECUTEMANY] = Executemany(stage, rows)
    writers[ADBAPI] = Adbapi(stage, rows, by_row=False)
    writers["adbapi, row by row"] = Adbapi(stage, rows, by_row=True)
    if has("aiosqlite"):
        writers["aiosqlite executemany"] = Aiosqlite(stage, rows, by_row=False)
        writers["aiosqlite, row by row"] = Aiosqlite(stage, rows, by_row=True)
    if has("sqlitedict"):
        writers["sqlitedict"] = Sqlitedict(stage, rows)
    return writers
