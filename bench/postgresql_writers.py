"""What else saves players to PostgreSQL; see `bench.writers` for what a writer is.

All are given the rows sorted by session id, as ours sorts them itself.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.children import END_WITHIN, ROOT
from bench.ours import SCHEMA, Flusher, Rows, live_table
from bench.rivals import find_compiler
from bench.stage import Stage
from bench.upsert import BUILD_SECONDS
from bench.writers import Writer, Written
from playerstate.stores.postgresql.store import PostgreSQLStore
from playerstate.stores.postgresql.upsert import Upsert
from playerstate.stores.postgresql.url import parse_url
from tests.kit.postgresql import PostgreSQL, programs

EXECUTEMANY = "psycopg executemany, pipeline"
COPY = "psycopg COPY and merge"
C = "C, libpq"
HEADER = Path("/usr/include/postgresql/libpq-fe.h")

_COLUMNS = 'session_id, "x", "y", updated_at'
_GUARD = (
    ' ON CONFLICT (session_id) DO UPDATE SET "x" = excluded."x", "y" = excluded."y",'
    " updated_at = excluded.updated_at WHERE excluded.updated_at >= player_state.updated_at"
)


@contextmanager
def running_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL of the benchmark's own, which syncs its commits to disk."""
    server = PostgreSQL(fsync="on")
    try:
        yield server
    finally:
        server.remove()


def lacking() -> list[str]:
    """What keeps the case, or a contender, from being run; with the remedy."""
    if programs() is None:
        return ["PostgreSQL's server is not installed: apt-get install postgresql"]
    if find_compiler() is None or not HEADER.exists():
        return ["the C program cannot be built: apt-get install gcc libpq-dev"]
    return []


def new_store(stage: Stage, server: PostgreSQL) -> PostgreSQLStore:
    """A store on a new database, prepared and migrated."""
    store = PostgreSQLStore(
        parse_url(server.url(server.make_database())), SCHEMA, reactor=stage.reactor
    )
    stage.on_reactor(store.prepare)
    stage.on_reactor(store.migrate, b"playerstate-bench"[:16])
    return store


class Ours:
    """The persist thread's step, on what was swept into its ring."""

    by_row = False

    def __init__(self, stage: Stage, server: PostgreSQL, rows: Rows) -> None:
        self._stage = stage
        self._store = new_store(stage, server)
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
        self._stage.on_reactor(self._store.close)


class _Rival:
    """A contender with a database of its own, that is given sorted tuples."""

    by_row = False

    def __init__(self, stage: Stage, server: PostgreSQL, rows: Rows) -> None:
        store = new_store(stage, server)
        database = store.describe().rpartition("/")[2]
        stage.on_reactor(store.close)
        self.conninfo = server.conninfo(database)
        self._sorted: list[tuple[int, float, float, int]] = []

    def prepare(self, rows: Rows) -> None:
        """See `Writer`."""
        self._sorted = sorted(rows.tuples())


class Executemany(_Rival):
    """psycopg's ``executemany``, which sends the rows in pipeline mode, in one transaction."""

    _SQL = f"INSERT INTO player_state ({_COLUMNS}) VALUES (%s, %s, %s, %s){_GUARD}"

    def __init__(self, stage: Stage, server: PostgreSQL, rows: Rows) -> None:
        super().__init__(stage, server, rows)
        self._connection = psycopg.connect(self.conninfo)

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        started = time.perf_counter()
        with self._connection.pipeline(), self._connection.cursor() as cursor:
            cursor.executemany(self._SQL, self._sorted)
        self._connection.commit()
        return len(rows), time.perf_counter() - started

    def close(self) -> None:
        """See `Writer`."""
        self._connection.close()


class Copy(Executemany):
    """A binary COPY into a temporary table, and a merge of that."""

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        started = time.perf_counter()
        with self._connection.cursor() as cursor:
            cursor.execute(
                "CREATE TEMPORARY TABLE given (session_id bigint, x float8, y float8,"
                " updated_at bigint) ON COMMIT DROP"
            )
            with cursor.copy("COPY given FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "float8", "float8", "int8"])
                for row in self._sorted:
                    copy.write_row(row)
            cursor.execute(f"INSERT INTO player_state ({_COLUMNS}) SELECT * FROM given{_GUARD}")
        self._connection.commit()
        return len(rows), time.perf_counter() - started


class FromC(_Rival):
    """The C program, in a process of its own."""

    def __init__(self, stage: Stage, server: PostgreSQL, rows: Rows) -> None:
        super().__init__(stage, server, rows)
        program = stage.path("upsert_pq")
        compiler = find_compiler()
        assert compiler is not None
        source = str(ROOT / "bench" / "upsert_pq.c")
        include = f"-I{HEADER.parent}"
        subprocess.run(
            [compiler, "-O2", include, "-o", program, source, "-lpq"],
            check=True,
            timeout=BUILD_SECONDS,
        )
        self._process = subprocess.Popen(
            [program, self.conninfo, str(len(rows)), Upsert(SCHEMA).prepare.sql.decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            text=True,
        )

    def flush(self, rows: Rows, seconds: float) -> Written:
        """See `Writer`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return len(rows), int(self._process.stdout.readline()) / 1e9

    def close(self) -> None:
        """See `Writer`."""
        try:
            self._process.communicate(timeout=END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def rivals(stage: Stage, server: PostgreSQL, rows: Rows) -> dict[str, Writer]:
    """The rivals that can run here."""
    writers: dict[str, Writer] = {
        EXECUTEMANY: Executemany(stage, server, rows),
        COPY: Copy(stage, server, rows),
    }
    if not lacking():
        writers[C] = FromC(stage, server, rows)
    for writer in writers.values():
        writer.prepare(rows)
        writer.flush(rows, math.inf)
    return writers
