"""What the SQLite store does beyond what every store must."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from playerstate.interfaces import (
    IStateReader,
    IStateWriter,
    IStoreBrowser,
    Records,
    RowRefused,
    StoreBusy,
    Stored,
    StoreReplaced,
    StoreUnusable,
)
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema
from playerstate.stores import browse_store, open_store
from playerstate.stores.sqlite import overwritten as sqlite_overwritten
from playerstate.stores.sqlite import store as sqlite
from playerstate.stores.sqlite import watch as sqlite_watch
from playerstate.stores.sqlite import writer as sqlite_writer
from playerstate.stores.sqlite.files import STARTUP_BUSY_MS
from playerstate.stores.sqlite.mark import Marks
from playerstate.stores.sqlite.store import SQLiteStore, SQLiteWriter
from tests.kit.databases import (
    DirectoryTestCase,
    connections,
    digest,
    records,
    spawned,
    state_class,
    take,
)
from tests.kit.support import PATIENCE, Everything

PLAIN = StateSchema.of(PlayerState)
EVERYTHING = StateSchema.of(Everything)


class StoreTestCase(DirectoryTestCase):
    """A test over a database that is closed after it."""

    def prepare(self, state: Any = PLAIN, options: str = "") -> SQLiteStore:
        """The store, prepared."""
        store = open_store(self.url + options, state)
        take(store)
        self.addCleanup(store.close)
        return store

    @contextmanager
    def reader(self, store: SQLiteStore) -> Iterator[tuple[IStateReader, apsw.Connection]]:
        """A reader, and its connection."""
        with connections() as opened:
            reader = store.open_reader()
        with closing(reader):
            (connection,) = opened
            yield reader, connection

    @contextmanager
    def writer(self, store: SQLiteStore) -> Iterator[tuple[IStateWriter, apsw.Connection]]:
        """A writer, and its connection."""
        with connections() as opened:
            writer = store.open_writer()
        with closing(writer):
            (connection,) = opened
            yield writer, connection

    def assert_closed(self, *connections: apsw.Connection) -> None:
        """These connections, one at least, are closed."""
        self.assertTrue(connections)
        for connection in connections:
            self.assertRaises(apsw.ConnectionClosedError, connection.changes)

    def stored(self) -> list[tuple[Any, ...]]:
        """What the database holds, by session id."""
        return self.sql("SELECT * FROM player_state ORDER BY session_id")

    def log_bytes(self) -> int:
        """The size of the write-ahead log; 0 where there is none."""
        log = self.path + "-wal"
        return os.path.getsize(log) if os.path.exists(log) else 0


def pause_in_a_statement(
    connection: apsw.Connection, meanwhile: Callable[[], object]
) -> threading.Event:
    """Have the next statement stop halfway until `meanwhile` was called by another thread.

    Returns:
        Set when the statement goes on.
    """
    halfway, goes_on = threading.Event(), threading.Event()

    def stop() -> bool:
        connection.set_progress_handler(None)
        halfway.set()
        goes_on.wait(PATIENCE)
        return False

    def act() -> None:
        halfway.wait(PATIENCE)
        try:
            meanwhile()
        finally:
            goes_on.set()

    connection.set_progress_handler(stop, 100)
    threading.Thread(target=act, daemon=True).start()
    return goes_on


class ConnectionTests(StoreTestCase):
    """How the two connections are set up, and that neither waits for the other."""

    def test_write_ahead_log(self) -> None:
        """The database is in WAL mode."""
        self.prepare()
        self.assertEqual(self.sql("PRAGMA journal_mode"), [("wal",)])

    def test_synchronous_full(self) -> None:
        """A commit is on disk before it is called saved, unless told otherwise."""
        with self.writer(self.prepare()) as (_, connection):
            self.assertEqual(connection.pragma("synchronous"), 2)

    def test_synchronous_normal(self) -> None:
        """An option of the URL leaves commits to the system."""
        with self.writer(self.prepare(options="?synchronous=normal")) as (_, connection):
            self.assertEqual(connection.pragma("synchronous"), 1)

    def test_reader_cannot_write(self) -> None:
        """The reader's connection takes no change."""
        insert = "INSERT INTO player_state VALUES (1, 0, 0, 1)"
        with self.reader(self.prepare()) as (_, connection):
            self.assertRaises(apsw.ReadOnlyError, connection.execute, insert)
        self.assertEqual(self.stored(), [])

    def test_no_other_connection(self) -> None:
        """A store holds one connection a reader and one a writer, and none once they are closed."""
        with connections() as opened:
            store = self.prepare()
        self.assert_closed(*opened)
        with connections() as opened, closing(store.open_reader()) as reader:
            with closing(store.open_writer()) as writer:
                writer.write(spawned(PLAIN, [1]))
                writer.maintain()
            reader.load(1)
        self.assertEqual(len(opened), 2)
        self.assert_closed(*opened)

    def test_opening_touches_nothing(self) -> None:
        """Until it is prepared, a store leaves no file and no lock."""
        open_store(self.url, PLAIN).close()
        self.assertEqual(os.listdir(self.directory), [])

    def test_writer_in_its_own_thread(self) -> None:
        """A writer opened, used and closed in its own thread does not hinder the reader in ours."""
        store = self.prepare()
        wrote, close = threading.Event(), threading.Event()
        failures: list[BaseException] = []

        def persist() -> None:
            try:
                with closing(store.open_writer()) as writer:
                    writer.write(records(PLAIN, (1, 1.0, 2.0, 3)))
                    wrote.set()
                    close.wait(PATIENCE)
                    writer.maintain()
            except BaseException as error:
                failures.append(error)
                wrote.set()

        thread = threading.Thread(target=persist)
        with self.reader(store) as (reader, _):
            self.assertIsNone(reader.load(1))
            thread.start()
            wrote.wait(PATIENCE)
            self.assertEqual(reader.load(1), Stored((1.0, 2.0), 3))
            close.set()
            thread.join(PATIENCE)
            self.assertEqual(reader.load(1), Stored((1.0, 2.0), 3))
        self.assertEqual(failures, [])

    def test_load_during_a_write(self) -> None:
        """While the writer is halfway through a batch, the reader sees what was committed."""
        store = self.prepare()
        seen: list[Any] = []
        with self.reader(store) as (reader, _), self.writer(store) as (writer, connection):
            writer.write(records(PLAIN, (1, 1.0, 1.0, 1)))
            paused = pause_in_a_statement(connection, lambda: seen.append(reader.load(1)))
            writer.write(spawned(PLAIN, np.arange(1, 8193), updated_at=2))
            self.assertTrue(paused.is_set())
            self.assertEqual(seen, [Stored((1.0, 1.0), 1)])
            self.assertEqual(reader.load(1), Stored((350.0, 200.0), 2))

    def test_load_beside_a_large_transaction(self) -> None:
        """A transaction of 100,000 rows that another holds open hides nothing committed."""
        store = self.prepare()
        with self.writer(store) as (writer, _):
            writer.write(records(PLAIN, (7, 1.0, 2.0, 3)))
        other = self.by_hand()
        other.pragma("cache_size", 10)
        other.execute(
            """
            BEGIN IMMEDIATE;
            WITH RECURSIVE ids (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM ids LIMIT 100000)
            INSERT INTO player_state SELECT id, 0, 0, 9 FROM ids WHERE true
            ON CONFLICT (session_id) DO UPDATE SET x = 0, y = 0, updated_at = 9
            """
        )
        self.assertGreater(self.log_bytes(), 0)  # most of it did not fit in the cache
        with self.reader(store) as (reader, _):
            self.assertEqual(reader.load(7), Stored((1.0, 2.0), 3))
            self.assertIsNone(reader.load(8))
            other.execute("COMMIT")
            self.assertEqual(reader.load(7), Stored((0.0, 0.0), 9))
            self.assertEqual(reader.load(8), Stored((0.0, 0.0), 9))

    def test_load_holds_nothing(self) -> None:
        """A look-up ends its read transaction, so that the log can be reset after it."""
        store = self.prepare()
        with self.reader(store) as (reader, connection), self.writer(store) as (writer, _):
            writer.write(records(PLAIN, (1, 0.0, 0.0, 1)))
            reader.load(1)
            reader.load(2)
            self.assertEqual(connection.txn_state(), apsw.SQLITE_TXN_NONE)

    def test_reader_busy(self) -> None:
        """A load while another program keeps the database to itself may be tried again."""
        store = self.prepare()
        other = self.by_hand()
        other.pragma("locking_mode", "exclusive")
        other.execute("BEGIN EXCLUSIVE")
        with self.reader(store) as (reader, _):
            self.assertRaises(StoreBusy, reader.load, 1)
            other.close()
            self.assertIsNone(reader.load(1))

    def test_open_writer_busy(self) -> None:
        """A writer opened while another program keeps the database to itself may be tried again."""
        store = self.prepare()
        other = self.by_hand()
        other.pragma("locking_mode", "exclusive")
        other.execute("BEGIN EXCLUSIVE")
        with connections() as opened:
            self.assertRaises(StoreBusy, store.open_writer)
        self.assert_closed(*opened)
        other.close()
        store.open_writer().close()

    def test_describe(self) -> None:
        """The log is told the file and how commits are made."""
        store = open_store(self.url + "?synchronous=normal", PLAIN)
        self.assertEqual(store.describe(), f"{self.url}?synchronous=normal")


class UpsertTests(StoreTestCase):
    """How a batch becomes statements."""

    def statements(self, schema: StateSchema, batch: Records) -> list[str]:
        """The INSERTs of one batch; that they stored it is checked too."""
        store = self.prepare(schema)
        ran: list[str] = []

        def note(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
            ran.append(sql)
            return True

        with self.writer(store) as (writer, connection):
            connection.exec_trace = note
            self.assertEqual(len(writer.write(batch)), 0)
            connection.exec_trace = None
        begin = ran.index("BEGIN IMMEDIATE")
        self.assertEqual(ran[-2:], ["INSERT OR REPLACE INTO player_mark VALUES (1, ?)", "COMMIT"])
        self.assertEqual(len(self.stored()), len(batch))
        return ran[begin + 1 : -2]

    def rows(self, statements: list[str]) -> list[int]:
        """How many rows each INSERT carries."""
        return [1 + sql.count("),(") for sql in statements]

    def test_rows_a_statement(self) -> None:
        """Whole statements carry 1,536 rows; what is left over is filled up to a power of two."""
        for size, expected in (
            (1, [1]),
            (2, [2]),
            (3, [4]),
            (511, [512]),
            (513, [1024]),
            (1025, [1536]),
            (1535, [1536]),
            (1536, [1536]),
            (1537, [1536, 1]),
            (8192, [1536] * 5 + [512]),
        ):
            self.use(f"{size}.db")
            statements = self.statements(PLAIN, spawned(PLAIN, np.arange(1, size + 1)))
            self.assertEqual(self.rows(statements), expected, size)

    def test_wide_state(self) -> None:
        """A state of 100 fields is saved by statements of fewer rows, all kept prepared."""
        schema = StateSchema.of(state_class(**{f"field_{i}": float(i) for i in range(100)}))
        statements = self.statements(schema, spawned(schema, np.arange(1, 100)))
        self.assertEqual(self.rows(statements), [54, 54])
        self.assertLess(max(map(len, statements)), 16_384)

    def test_wide_texts(self) -> None:
        """Texts take longer statements, so those carry fewer rows yet."""
        schema = StateSchema.of(state_class(**{f"text_{i}": "x" for i in range(32)}))
        statements = self.statements(schema, spawned(schema, np.arange(1, 101)))
        self.assertEqual(self.rows(statements), [27, 27, 27, 27])
        self.assertLess(max(map(len, statements)), 16_384)

    def test_names_beyond_ascii(self) -> None:
        """Names are counted by their bytes, so that their statements stay prepared too."""
        schema = StateSchema.of(state_class(**{"名" * 40 + str(i): 1.0 for i in range(30)}))
        statements = self.statements(schema, spawned(schema, np.arange(1, 200)))
        self.assertLess(max(len(sql.encode()) for sql in statements), 16_384)

    def test_widest_state(self) -> None:
        """The most fields there can be, 1,024 bools, are saved a row at a time."""
        schema = StateSchema.of(state_class(**{f"flag_{i}": bool(i % 2) for i in range(1024)}))
        statements = self.statements(schema, spawned(schema, [1, 2, 3]))
        self.assertEqual(self.rows(statements), [1, 1, 1])
        self.assertEqual(self.stored()[2], (3, *(i % 2 for i in range(1024)), 1))

    def test_statements_are_kept_prepared(self) -> None:
        """Batches of whatever sizes use few texts, which SQLite parses once."""
        schema = EVERYTHING
        store = self.prepare(schema)
        with self.writer(store) as (writer, connection):
            for size in (*range(1, 9), 100, 511, 513, 1023):
                writer.write(spawned(schema, np.arange(1, size + 1)))
            parsed = connection.cache_stats()["misses"]
            for size in (3, 77, 300, 999, 2049):
                writer.write(spawned(schema, np.arange(1, size + 1)))
            stats = connection.cache_stats(include_entries=True)
            self.assertEqual(stats["misses"], parsed)
            self.assertEqual((stats["too_big"], stats["evictions"]), (0, 0))
            inserts = [e for e in stats["entries"] if e["query"].startswith("INSERT INTO")]
            self.assertLessEqual(len(inserts), 10)

    def test_names_are_quoted(self) -> None:
        """A field may be called as SQL's own words, tables and columns are, or in any script."""
        names = (
            "order",
            "select",
            "group",
            "table",
            "index",
            "default",
            "excluded",
            "player_state",
            "größe",
            "名前",
            "_hidden",
        )
        schema = StateSchema.of(state_class(**dict.fromkeys(names, 0)))
        store = self.prepare(schema)
        values = tuple(range(len(names)))
        with self.writer(store) as (writer, _), self.reader(store) as (reader, _):
            writer.write(records(schema, (1, *(0 for _ in names), 1)))
            writer.write(records(schema, (1, *values, 2)))
            self.assertEqual(reader.load(1), Stored(values, 2))
        with closing(browse_store(self.url)) as browser:
            self.assertEqual(browser.columns, ("session_id", *names, "updated_at"))
            self.assertEqual(browser.find(1), (1, *values, 2))

    def test_negative_ids(self) -> None:
        """The database itself keeps any 64 bits as a session id."""
        store = self.prepare()
        with self.writer(store) as (writer, _), self.reader(store) as (reader, _):
            writer.write(records(PLAIN, (-(2**63), 1.0, 2.0, 3)))
            self.assertEqual(reader.load(-(2**63)), Stored((1.0, 2.0), 3))


class FailureTests(StoreTestCase):
    """What a write that cannot be done leaves behind."""

    def test_busy(self) -> None:
        """While another program writes, nothing is written; the same batch goes in afterwards."""
        store = self.prepare()
        batch = spawned(PLAIN, np.arange(1, 601))
        with self.writer(store) as (writer, _), self.reader(store) as (reader, _):
            other = self.by_hand()
            other.execute("BEGIN IMMEDIATE")
            self.assertRaises(StoreBusy, writer.write, batch)
            self.assertRaises(StoreBusy, writer.write, batch)
            other.execute("ROLLBACK")
            self.assertIsNone(reader.load(1))
            self.assertEqual(len(writer.write(batch)), 0)
            self.assertIsNotNone(reader.load(600))

    def test_busy_names_the_cause(self) -> None:
        """What SQLite said is in the message."""
        with self.writer(self.prepare()) as (writer, _):
            self.by_hand().execute("BEGIN IMMEDIATE")
            with self.assertRaisesRegex(StoreBusy, "locked"):
                writer.write(spawned(PLAIN, [1]))

    def test_check(self) -> None:
        """A record against a constraint added by hand is refused, and the message names it."""
        store = self.prepare()
        self.sql(
            "DROP TABLE player_state;"
            "CREATE TABLE player_state (session_id INTEGER PRIMARY KEY, x REAL NOT NULL,"
            " y REAL NOT NULL CONSTRAINT y_in_the_map CHECK (y < 1000),"
            " updated_at INTEGER NOT NULL) STRICT"
        )
        with self.writer(store) as (writer, _):
            refused = writer.write(records(PLAIN, (1, 1.0, 1000.0, 1))).refused
            self.assertIn("y_in_the_map", refused[0])
            self.assertEqual(len(writer.write(records(PLAIN, (1, 1000.0, 1.0, 1)))), 0)
        self.assertEqual(self.stored(), [(1, 1000.0, 1.0, 1)])

    def test_passed_over(self) -> None:
        """A record that a trigger passes over without an error is refused, new or known."""
        store = self.prepare()
        with self.writer(store) as (writer, _):
            writer.write(records(PLAIN, (2, 0.0, 0.0, 1)))
            self.sql(
                "CREATE TRIGGER quiet BEFORE INSERT ON player_state WHEN new.y > 1000"
                " BEGIN SELECT RAISE(IGNORE); END"
            )
            for session_id in (1, 2):
                batch = records(PLAIN, (session_id, 1.0, 1001.0, 2), (3, 1.0, 1.0, 2))
                self.assertEqual(writer.write(batch).refused, {0: "a trigger skipped it"})
                self.assertEqual(self.stored(), [(2, 0.0, 0.0, 1), (3, 1.0, 1.0, 2)])
        self.assertEqual(self.stored(), [(2, 0.0, 0.0, 1), (3, 1.0, 1.0, 2)])

    def test_not_a_number(self) -> None:
        """NaN, which SQLite knows as NULL, is refused."""
        with self.writer(self.prepare()) as (writer, _):
            batch = spawned(PLAIN, [1])
            batch["x"] = np.nan
            self.assertEqual(list(writer.write(batch).refused), [0])

    def test_not_a_bool(self) -> None:
        """A bool column holds 0 and 1 alone."""
        with self.writer(self.prepare(EVERYTHING)) as (writer, _):
            batch = spawned(EVERYTHING, [1])
            batch["alive"] = 2
            self.assertEqual(list(writer.write(batch).refused), [0])

    def test_too_big(self) -> None:
        """A record above SQLite's own limit is refused."""
        with self.writer(self.prepare(EVERYTHING)) as (writer, connection):
            writer.write(spawned(EVERYTHING, [1]))
            connection.limit(apsw.SQLITE_LIMIT_LENGTH, 40)
            batch = spawned(EVERYTHING, [1], updated_at=2)
            batch["zone"] = b"a" * 16
            self.assertEqual(list(writer.write(batch).refused), [0])

    def test_one_of_a_thousand(self) -> None:
        """Of a record that is refused, in whichever statement, nothing is saved; all else is."""
        store = self.prepare(EVERYTHING)
        with self.writer(store) as (writer, _), self.reader(store) as (reader, _):
            writer.write(spawned(EVERYTHING, [1], updated_at=1))
            for updated_at, position in enumerate((0, 300, 999), 2):
                batch = spawned(EVERYTHING, np.arange(1, 1001), updated_at)
                batch["alive"][position] = 2
                self.assertEqual(list(writer.write(batch).refused), [position])
                found = [reader.load(number + 1) for number in (position, (position + 7) % 1000)]
                dates = [0 if stored is None else stored.updated_at for stored in found]
                self.assertEqual(dates, [updated_at - 1, updated_at])
            batch["alive"] = 1
            self.assertEqual(len(writer.write(batch)), 0)

    def test_rolled_back_by_sqlite(self) -> None:
        """Where SQLite has ended the transaction itself, the cause is told and writing goes on."""
        store = self.prepare()
        self.sql(
            "CREATE TRIGGER no_thirteen BEFORE INSERT ON player_state WHEN NEW.session_id = 13"
            " BEGIN SELECT RAISE(ROLLBACK, 'unlucky'); END"
        )
        with self.writer(store) as (writer, _):
            refused = writer.write(spawned(PLAIN, np.arange(1, 20))).refused
            self.assertEqual(refused, {12: "unlucky"})
            writer.write(spawned(PLAIN, [20]))
        self.assertEqual([row[0] for row in self.stored()], [*range(1, 13), *range(14, 21)])

    def test_anything_else(self) -> None:
        """An error of another sort comes as it is, and nothing stays written."""
        store = self.prepare()
        self.sql("ALTER TABLE player_state DROP COLUMN y")
        with self.writer(store) as (writer, connection):
            self.assertRaises(apsw.SQLError, writer.write, spawned(PLAIN, [1]))
            self.assertFalse(connection.in_transaction)
        self.assertEqual(self.stored(), [])

    def test_missing_file(self) -> None:
        """Neither end makes a database that was removed meanwhile."""
        store = self.prepare()
        os.remove(self.path)
        for open_end in (store.open_reader, store.open_writer):
            with self.assertRaises(apsw.CantOpenError):
                open_end().load(1)
        self.assertFalse(os.path.exists(self.path))


class InterruptTests(StoreTestCase):
    """How a write is ended from another thread."""

    def test_running_write(self) -> None:
        """An interrupt while a statement runs ends the write, which leaves nothing."""
        with self.writer(self.prepare()) as (writer, connection):
            writer.write(spawned(PLAIN, [1], updated_at=1))
            interrupted = pause_in_a_statement(connection, writer.interrupt)
            with self.assertRaises(apsw.InterruptError):
                writer.write(spawned(PLAIN, np.arange(1, 8193), updated_at=2))
            self.assertTrue(interrupted.is_set())
            self.assertFalse(connection.in_transaction)
        self.assertEqual(self.stored(), [(1, 350.0, 200.0, 1)])

    def test_between_two_statements(self) -> None:
        """An interrupt that comes between two statements of a write ends it too."""
        with self.writer(self.prepare()) as (writer, connection):

            def interrupt(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
                if sql.startswith("INSERT"):
                    connection.exec_trace = None
                    writer.interrupt()
                return True

            connection.exec_trace = interrupt
            with self.assertRaises(apsw.InterruptError):
                writer.write(spawned(PLAIN, np.arange(1, 8193)))
        self.assertEqual(self.stored(), [])

    def test_writing_afterwards(self) -> None:
        """The same batch can be written after it was interrupted."""
        batch = spawned(PLAIN, np.arange(1, 8193))
        with self.writer(self.prepare()) as (writer, connection):
            pause_in_a_statement(connection, writer.interrupt)
            self.assertRaises(apsw.InterruptError, writer.write, batch)
            self.assertEqual(len(writer.write(batch)), 0)
        self.assertEqual(self.sql("SELECT count(*) FROM player_state"), [(8192,)])

    def test_close_afterwards(self) -> None:
        """A writer that was interrupted closes as any other, whether a write ran or not."""
        store = self.prepare()
        writer = store.open_writer()
        writer.write(spawned(PLAIN, [1]))
        writer.interrupt()
        writer.close()
        with connections() as opened:
            writer = store.open_writer()
        pause_in_a_statement(opened[0], writer.interrupt)
        self.assertRaises(apsw.InterruptError, writer.write, spawned(PLAIN, np.arange(1, 8193)))
        writer.close()
        self.assertEqual(self.log_bytes(), 0)

    def test_while_closing(self) -> None:
        """An interrupt from another thread finds a closed writer, and does nothing."""
        with self.writer(self.prepare()) as (writer, _):
            pass
        failures: list[BaseException] = []

        def interrupt() -> None:
            try:
                writer.interrupt()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=interrupt)
        thread.start()
        thread.join(PATIENCE)
        self.assertEqual(failures, [])


class CheckpointTests(StoreTestCase):
    """The write-ahead log is copied into the database by the writer's maintenance alone.

    A page of the log is 4,096 bytes and a header.
    """

    FRAME = 4096 + 24

    def setUp(self) -> None:
        """Shrink the sizes at which something happens: one batch is up to some 40 pages."""
        super().setUp()
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 60 * self.FRAME)
        self.patch(sqlite_writer, "LOG_BYTES", 240 * self.FRAME)
        self.clock = Clock()
        self.clock.advance(1000)
        self.schema = StateSchema.of(state_class(note="n" * 32, x=1.0))
        self.updated_at = 1
        self.random = np.random.default_rng(1)

    def filled(self) -> SQLiteStore:
        """A store over a table of some 400 pages, and an empty log."""
        store = self.prepare(self.schema)
        with closing(store.open_writer()) as writer:
            writer.write(spawned(self.schema, np.arange(1, 20_001)))
        return store

    @contextmanager
    def timed_writer(self) -> Iterator[SQLiteWriter]:
        """A writer on a clock of ours."""
        with closing(
            SQLiteWriter(self.path, self.schema, "full", monotonic=self.clock.seconds)
        ) as writer:
            yield writer

    def scatter(self, writer: IStateWriter) -> None:
        """Write some 40 rows far from each other."""
        self.updated_at += 1
        ids = np.unique(self.random.integers(1, 20_001, 40))
        writer.write(spawned(self.schema, ids, self.updated_at))

    def grow(self, writer: IStateWriter, size: int, *, maintained: bool = False) -> None:
        """Write until the log has this size."""
        for _ in range(200):
            if self.log_bytes() >= size:
                return
            self.scatter(writer)
            if maintained:
                writer.maintain()
        self.fail("the log does not grow")

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Another program reads, and does not end its transaction."""
        with closing(apsw.Connection(self.path)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM player_state").fetchall()
            yield

    def test_sizes(self) -> None:
        """The log is to stay below 64 MiB, and is copied long before."""
        self.doCleanups()  # what `setUp` patched
        self.assertEqual(sqlite_writer.LOG_BYTES, 64 * 2**20)
        self.assertEqual(sqlite_writer.CHECKPOINT_BYTES, 16 * 2**20)

    def test_log_stays_small(self) -> None:
        """Over many batches of scattered rows the log never grows beyond its limit."""
        store = self.filled()
        largest = 0
        with self.timed_writer() as writer, self.reader(store) as (reader, _):
            for _ in range(100):
                self.scatter(writer)
                largest = max(largest, self.log_bytes())
                reader.load(1)
                writer.maintain()
        self.assertGreater(largest, sqlite_writer.CHECKPOINT_BYTES)
        self.assertLess(largest, sqlite_writer.LOG_BYTES)

    def test_no_log_before_the_first_commit(self) -> None:
        """Maintenance before anything was written copies nothing."""
        self.filled()
        with self.timed_writer() as writer:
            writer.maintain()
            self.assertEqual(self.log_bytes(), 0)

    def test_small_log_is_left_alone(self) -> None:
        """Below the size at which it is due, maintenance copies nothing."""
        self.filled()
        before = digest(self.path)
        with self.timed_writer() as writer:
            self.scatter(writer)
            writer.maintain()
            self.assertLess(self.log_bytes(), sqlite_writer.CHECKPOINT_BYTES)
            self.assertEqual(digest(self.path), before)

    def test_commits_copy_nothing(self) -> None:
        """However large the log, a commit copies none of it: that is for maintenance."""
        self.filled()
        before = digest(self.path)
        with self.timed_writer() as writer:
            self.grow(writer, 1100 * self.FRAME)  # SQLite's own would come at 1,000 pages
            self.assertEqual(digest(self.path), before)
            writer.maintain()
            self.assertNotEqual(digest(self.path), before)

    def test_log_is_cut_down(self) -> None:
        """A log that has grown beyond its limit is truncated to it at its next reset."""
        self.filled()
        with self.timed_writer() as writer:
            with self.pinned():
                self.grow(writer, 2 * sqlite_writer.LOG_BYTES)
            writer.maintain()
            self.scatter(writer)
            self.assertLessEqual(self.log_bytes(), sqlite_writer.LOG_BYTES)

    def test_pinned_log_is_told_of(self) -> None:
        """A reader that keeps the log from being reset is logged once; writing goes on."""
        store = self.filled()
        with self.timed_writer() as writer, self.pinned(), capturedLogs() as logs:
            self.grow(writer, 2 * sqlite_writer.LOG_BYTES, maintained=True)
        (event,) = (event for event in logs if event["log_level"] >= LogLevel.warn)
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(event["path"], self.path)
        self.assertLess(event["copied"], event["pages"])
        self.assertIn("keeps a read transaction open", event["log_format"])
        with self.reader(store) as (reader, _):
            (newest,) = self.sql("SELECT max(updated_at) FROM player_state")[0]
            self.assertEqual(newest, self.updated_at)
            self.assertIsNotNone(reader.load(1))

    def test_pinned_log_is_told_of_again(self) -> None:
        """While the reader stays, it is logged again after a minute."""
        self.filled()
        with self.timed_writer() as writer, self.pinned(), capturedLogs() as logs:
            self.grow(writer, sqlite_writer.LOG_BYTES + 40 * self.FRAME)
            for seconds in (0, 30, 29.5, 0.5, 0, 59.5, 0.5):
                self.clock.advance(seconds)
                writer.maintain()
        self.assertEqual(len([event for event in logs if "copied" in event]), 3)

    def test_large_batch_is_not_a_pin(self) -> None:
        """A log that one large batch has filled, and nobody pins, is no cause for a warning."""
        self.filled()
        self.patch(sqlite_writer, "LOG_BYTES", 100 * self.FRAME)
        with self.timed_writer() as writer, capturedLogs() as logs:
            writer.write(spawned(self.schema, np.arange(1, 20_001), updated_at=9))
            self.assertGreater(self.log_bytes(), sqlite_writer.LOG_BYTES)
            writer.maintain()
        self.assertEqual([event for event in logs if event["log_level"] >= LogLevel.warn], [])

    def test_close_leaves_no_log(self) -> None:
        """Once both ends are closed, in whichever order, the database is one file again."""
        store = self.filled()
        for first in (0, 1):
            writer, reader = store.open_writer(), store.open_reader()
            self.scatter(writer)
            reader.load(1)
            ends = (writer, reader)
            ends[first].close()
            ends[1 - first].close()
            self.assertEqual(sorted(os.listdir(self.directory)), ["players.db", "players.db.lock"])

    def test_close_empties_the_log(self) -> None:
        """The writer's end copies the log, though the reader's connection is still open."""
        store = self.filled()
        with self.reader(store) as (reader, _):
            with self.timed_writer() as writer:
                self.scatter(writer)
                reader.load(1)
                self.assertGreater(self.log_bytes(), 0)
            self.assertEqual(self.log_bytes(), 0)

    def test_close_while_pinned(self) -> None:
        """A reader that pins the log does not keep the writer from closing; nothing is lost."""
        store = self.filled()
        with self.pinned():
            with connections() as opened, self.timed_writer() as writer:
                writer.write(records(self.schema, (1, "last", 5.0, 99)))
            self.assert_closed(*opened)
        with self.reader(store) as (reader, _):
            self.assertEqual(reader.load(1), Stored(("last", 5.0), 99))


class ReplacedTests(StoreTestCase):
    """The files of the database, removed or replaced while they are in use.

    The reader has loaded a player, as that of a server has.
    """

    def setUp(self) -> None:
        """Open both ends."""
        super().setUp()
        self.begin()

    def begin(self) -> None:
        """Open both ends of the database that is in use now."""
        self.store = self.prepare()
        self.open_ends()
        self.loader.load(1)

    def open_ends(self) -> None:
        """Open both ends, to be closed after the test."""
        self.loading, self.saving = ExitStack(), ExitStack()
        self.loader = self.store.open_reader()
        self.loading.callback(self.loader.close)
        self.saver = self.store.open_writer()
        self.saving.callback(self.saver.close)
        self.addCleanup(self.loading.close)
        self.addCleanup(self.saving.close)

    def write(self, *ids: int, updated_at: int = 10) -> None:
        """Save these players."""
        self.saver.write(spawned(PLAIN, ids, updated_at))

    def copy(self, name: str = "copy.db") -> str:
        """A backup of the database as it is now, made by SQLite."""
        path = os.path.join(self.directory, name)
        self.sql("VACUUM INTO ?", path)
        return path

    def assert_replaced(self, path: str) -> None:
        """Maintenance finds that this file is not what it was, each time it looks."""
        for _ in range(2):
            with self.assertRaises(StoreReplaced) as caught:
                self.saver.maintain()
            self.assertEqual(str(caught.exception), f"{path} was removed or replaced")

    def test_untouched(self) -> None:
        """Files that are what they were are no cause for anything, before and after a commit."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 8 * 4120)
        self.saver.maintain()
        for updated_at in range(1, 50):
            self.write(*range(1, 100), updated_at=updated_at)
            self.saver.maintain()
            self.saver.maintain()

    def test_log_emptied_by_another(self) -> None:
        """A program that copies the log and empties it has replaced nothing."""
        self.write(1)
        self.saver.maintain()
        other = self.by_hand()
        other.execute("SELECT count(*) FROM player_state").fetchall()
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.assertEqual(self.log_bytes(), 0)
        self.saver.maintain()
        self.write(2)
        self.saver.maintain()

    def test_symbolic_link(self) -> None:
        """A database that is named by a link, beside which no log lies, is no cause either."""
        self.use("real.db")
        self.prepare().close()
        link = os.path.join(self.directory, "elsewhere", "link.db")
        os.mkdir(os.path.dirname(link))
        os.symlink(self.path, link)
        self.use("elsewhere/link.db")
        self.begin()
        self.write(1)
        self.saver.maintain()
        self.write(2)
        self.saver.maintain()

    def test_link_to_another(self) -> None:
        """A link that leads to another database now has replaced it."""
        copy = self.copy()
        os.symlink(self.path, os.path.join(self.directory, "link.db"))
        self.use("link.db")
        writer = SQLiteWriter(self.path, PLAIN, "full")
        self.addCleanup(writer.close)
        writer.maintain()
        os.remove(self.path)
        os.symlink(copy, self.path)
        self.assertRaises(StoreReplaced, writer.maintain)

    def test_database_removed(self) -> None:
        """A database that was removed is missed."""
        self.write(1)
        self.saver.maintain()
        os.remove(self.path)
        self.assert_replaced(self.path)

    def test_database_removed_before_a_commit(self) -> None:
        """Also where nothing was written yet."""
        os.remove(self.path)
        self.assert_replaced(self.path)

    def test_database_removed_before_a_look(self) -> None:
        """Also where maintenance never saw it whole."""
        self.write(1)
        os.remove(self.path)
        self.assert_replaced(self.path)

    def test_directory_removed(self) -> None:
        """Also with the directory that it lay in."""
        os.rename(self.directory, f"{self.directory}.moved")
        self.assert_replaced(self.path)
        os.rename(f"{self.directory}.moved", self.directory)
        self.saver.maintain()

    def test_database_replaced(self) -> None:
        """Another file of its name is not it, not even a copy of it."""
        self.write(1)
        self.saver.maintain()
        os.replace(self.copy(), self.path)
        self.assert_replaced(self.path)

    def test_database_replaced_before_a_commit(self) -> None:
        """Also where nothing was written yet."""
        os.replace(self.copy(), self.path)
        self.assert_replaced(self.path)

    def test_log_removed(self) -> None:
        """A log that was removed is missed: what is written next would be lost with it."""
        self.write(1)
        self.saver.maintain()
        os.remove(self.path + "-wal")
        self.assert_replaced(self.path + "-wal")

    def test_log_removed_before_a_look(self) -> None:
        """Also where maintenance never saw it."""
        self.write(1)
        os.remove(self.path + "-wal")
        self.assert_replaced(self.path + "-wal")

    def test_log_replaced(self) -> None:
        """Another file of its name is not it."""
        self.write(1)
        self.saver.maintain()
        shutil.copyfile(self.path + "-wal", self.path + "-copy")
        os.replace(self.path + "-copy", self.path + "-wal")
        self.assert_replaced(self.path + "-wal")

    def vanish(self, path: str, after: int) -> None:
        """From now on, the file is removed once it was looked at so often."""
        look, looks = os.stat, itertools.count(1)

        def looking(name: Any, *args: Any, **options: Any) -> os.stat_result:
            found = look(name, *args, **options)
            if name == path and next(looks) == after:
                os.remove(path)
            return found

        patched = self.patch(os, "stat", looking)
        self.addCleanup(patched.restore)

    def test_removed_between_looks(self) -> None:
        """A file that vanishes at any point of a look is missed then or at the next, in words."""
        for index, suffix in enumerate(("", "-wal", "-shm")):
            for after in (1, 2, 3):
                with self.subTest(suffix=suffix, after=after):
                    self.use(f"{index}{after}.db")
                    self.begin()
                    self.write(1)
                    self.saver.maintain()
                    self.vanish(self.path + suffix, after)
                    for _ in range(after):
                        with contextlib.suppress(StoreReplaced):
                            self.saver.maintain()
                    self.assertFalse(os.path.exists(self.path + suffix))
                    self.assert_replaced(self.path + suffix)

    def test_log_removed_amid_a_look_at_its_size(self) -> None:
        """So is a log that another program has emptied, which is looked at twice."""
        for after in (1, 2):
            self.use(f"emptied{after}.db")
            self.begin()
            self.write(1)
            self.saver.maintain()
            other = self.by_hand()
            other.execute("SELECT count(*) FROM player_state").fetchall()
            other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self.vanish(self.path + "-wal", after)
            with contextlib.suppress(StoreReplaced):
                self.saver.maintain()
            self.assertFalse(os.path.exists(self.path + "-wal"))
            self.assert_replaced(self.path + "-wal")

    def test_log_cut_short_after_another_wrote(self) -> None:
        """A log that was cut where another program's commit was is no error of the disk."""
        self.write(1)
        self.saver.maintain()
        self.by_hand().execute("CREATE TABLE notes (note TEXT)")
        os.truncate(self.path + "-wal", 0)
        self.assert_noticed("was cut short")

    def test_log_removed_before_a_sync(self) -> None:
        """A log that vanishes before it is synced by itself is missed, and no other is synced."""
        for replaced in (False, True):
            self.use(f"synced{replaced}.db")
            self.begin()
            self.write(1)
            self.saver.maintain()
            with self.pinned():
                self.write(1, updated_at=11)
                checkpoint = self.saver._checkpoint

                def checkpointing(checkpoint: Any = checkpoint, replaced: bool = replaced) -> Any:
                    found = checkpoint()
                    os.remove(self.path + "-wal")
                    if replaced:
                        Path(self.path + "-wal").touch()
                    return found

                self.patch(self.saver, "_checkpoint", checkpointing)
                with self.assertRaisesRegex(StoreReplaced, "-wal was removed or replaced"):
                    self.saver.sync()

    def test_removed_as_a_writer_is_opened(self) -> None:
        """A database that vanishes between the look and the opening was removed, not unusable."""
        self.saving.close()
        self.vanish(self.path, 1)
        with self.assertRaisesRegex(StoreReplaced, "was removed or replaced"):
            self.store.open_writer()

    def test_removed_by_somebody_faster(self) -> None:
        """Files of the old database that vanish before they are put away are no hindrance."""
        for suffix in ("-wal", "-shm"):
            self.use(f"faster{suffix}.db")
            self.begin()
            self.write(1)
            self.saver.maintain()
            self.remove("")
            self.assertRaises(StoreReplaced, self.saver.maintain)
            self.saving.close()
            self.vanish(self.path + suffix, 1)
            self.assertEqual(self.store.reopen(b"n" * 16, frozenset()), [1])
            self.loading.close()
            self.open_ends()
            self.assert_in_use()

    def test_replaced_while_it_is_rescued(self) -> None:
        """A copy put in place while ours was made, of a lost log, is not written over."""
        self.write(1, updated_at=5)
        copy = self.copy()
        self.write(2)
        self.saver.maintain()
        self.remove("-wal")
        copy_to = sqlite.SQLiteReader.copy_to

        def copying(reader: Any, path: str) -> None:
            copy_to(reader, path)
            os.replace(copy, self.path)

        self.patch(sqlite.SQLiteReader, "copy_to", copying)
        self.assertEqual(self.go_over(), [2])
        self.assertEqual(self.loader.load(1).updated_at, 5)
        self.assert_in_use()

    def test_close(self) -> None:
        """A writer whose database is gone closes, and makes no file."""
        self.write(1)
        for name in os.listdir(self.directory):
            os.remove(os.path.join(self.directory, name))
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        self.loading.close()
        self.assertEqual(os.listdir(self.directory), [])

    def go_over(
        self, online: Set[int] = frozenset(), identity: bytes = b"n" * 16
    ) -> list[int] | None:
        """What a service does once maintenance has found it: who is lost, in order, if known."""
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        lost = self.store.reopen(identity, online)
        self.loading.close()
        self.open_ends()
        return None if lost is None else sorted(lost)

    def assert_in_use(self) -> None:
        """The database that is there now takes players, shows them, and is whole."""
        self.write(99, updated_at=99)
        self.saver.maintain()
        self.saver.sync()
        self.assertEqual(self.loader.load(99), Stored((350.0, 200.0), 99))
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])
        with self.assertRaisesRegex(StoreUnusable, "is in use by process"):
            open_store(self.url, PLAIN).prepare()
        self.saving.close()
        self.loading.close()
        self.store.close()
        for suffix in ("-wal", "-shm", ".new"):
            self.assertFalse(os.path.exists(self.path + suffix), suffix)
        with closing(open_store(self.url, PLAIN)) as store:
            self.assertEqual(store.prepare(), b"n" * 16)
        self.assertIn((99, 99), self.sql("SELECT session_id, updated_at FROM player_state"))

    def remove(self, *suffixes: str) -> None:
        """Remove the database's files of these names, where they are."""
        for suffix in suffixes:
            if os.path.exists(self.path + suffix):
                os.remove(self.path + suffix)

    def test_reopen_removed(self) -> None:
        """Where the database was removed another is made, and who is not online is lost."""
        self.write(1, 2, 3, 4, 5)
        self.saver.maintain()
        self.remove("")
        self.assertEqual(self.go_over(online={2, 4, 6}), [1, 3, 5])
        self.assertIsNone(self.loader.load(1))
        self.assert_in_use()

    def test_reopen_all_removed(self) -> None:
        """So it is where all files of the database were removed."""
        self.write(*range(1, 2000))
        self.saver.maintain()
        self.remove("", "-wal", "-shm")
        self.assertEqual(self.go_over(online=set(range(3, 2000))), [1, 2])
        self.assert_in_use()

    def test_reopen_removed_after_a_checkpoint(self) -> None:
        """So it is where players are in the database and in its log."""
        self.write(*range(1, 2000))
        self.saver.sync()
        self.write(1, 5000, updated_at=11)
        self.remove("")
        self.assertEqual(self.go_over(online=set(range(3, 2000))), [1, 2, 5000])
        self.assert_in_use()

    def test_reopen_before_the_first_player(self) -> None:
        """Where nobody was saved yet nobody is lost."""
        self.remove("")
        self.assertEqual(self.go_over(), [])
        self.assert_in_use()

    def test_reopen_older_copy(self) -> None:
        """Of a copy of earlier days, lost is who has changed since or was not there."""
        self.write(1, 2, 3, updated_at=5)
        copy = self.copy()
        self.write(2, 3, 4, 5, updated_at=10)
        self.saver.maintain()
        os.replace(copy, self.path)
        self.assertEqual(self.go_over(online={3, 5}), [2, 4])
        self.assertEqual(self.loader.load(2).updated_at, 5)
        self.assertEqual(self.loader.load(1).updated_at, 5)
        self.assertIsNone(self.loader.load(4))
        self.assert_in_use()

    def test_reopen_copy_without_the_log(self) -> None:
        """A copy that lies beside the log of the one before has nothing of that log."""
        self.write(1, 2, 3, updated_at=5)
        copy = self.copy()
        self.write(2, updated_at=10)
        self.saver.maintain()
        self.remove("-wal", "-shm")
        os.replace(copy, self.path)
        self.assertEqual(self.go_over(), [2])
        self.assertEqual(self.loader.load(2).updated_at, 5)
        self.assert_in_use()

    def test_reopen_newer(self) -> None:
        """Whom the new one knows as well as the old, or better, is not lost."""
        self.write(1, 2, updated_at=5)
        copy = self.copy()
        with closing(apsw.Connection(copy)) as connection:
            connection.execute("UPDATE player_state SET updated_at = 6 WHERE session_id = 2")
        os.replace(copy, self.path)
        self.assertEqual(self.go_over(), [])
        self.assertEqual(self.loader.load(2).updated_at, 6)

    def test_reopen_without_the_log(self) -> None:
        """Where the log alone was removed nobody is lost: our ends have it open."""
        self.write(*range(1, 2000))
        self.saver.sync()
        self.write(1, 2, updated_at=11)
        self.saver.maintain()
        self.remove("-wal")
        self.assertEqual(self.go_over(), [])
        self.assertEqual(self.loader.load(1).updated_at, 11)
        self.assert_in_use()

    def test_reopen_without_log_and_index(self) -> None:
        """So it is where the log's index went with it."""
        self.write(*range(1, 2000))
        self.saver.maintain()
        self.remove("-wal", "-shm")
        self.assertEqual(self.go_over(), [])
        self.assertEqual(self.loader.load(1999).updated_at, 10)
        self.assert_in_use()

    def test_copy_is_on_disk_before_it_takes_the_name(self) -> None:
        """The whole copy that replaces a database without its log is synced before that."""
        self.write(1)
        self.saver.maintain()
        self.remove("-wal")
        done: list[str] = []
        sync, replace = os.fsync, os.replace

        def syncing(fd: int) -> None:
            done.append(f"sync {os.readlink(f'/proc/self/fd/{fd}')}")
            sync(fd)

        def replacing(source: str, target: str) -> None:
            done.append(f"replace {target}")
            replace(source, target)

        self.patch(os, "fsync", syncing)
        self.patch(os, "replace", replacing)
        self.go_over()
        path = os.path.realpath(self.path)
        self.assertEqual(done[:2], [f"sync {path}.new", f"replace {path}"])

    def test_replaced_while_it_is_opened(self) -> None:
        """Put in place the moment before or after the reader is open, another file is noticed."""
        self.write(1)
        self.saving.close()
        self.loading.close()
        copy, connect = self.copy(), sqlite.connect_existing
        for early in (True, False):
            shutil.copyfile(copy, f"{copy}.next")

            def opening(path: str, early: bool = early) -> apsw.Connection:
                if early:
                    os.replace(f"{copy}.next", path)
                connection = connect(path)
                if not early:
                    os.replace(f"{copy}.next", path)
                return connection

            patched = self.patch(sqlite, "connect_existing", opening)
            loader = self.store.open_reader()
            patched.restore()
            with self.assertRaises(StoreReplaced):
                self.store.open_writer()
            loader.close()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Another process reads, and does not end its transaction."""
        script = (
            "import apsw, sys; connection = apsw.Connection(sys.argv[1]);"
            "connection.execute('BEGIN');"
            "connection.execute('SELECT count(*) FROM player_state').fetchall();"
            "print(flush=True); input(); connection.close()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            process.stdout.readline()
            try:
                yield
            finally:
                process.communicate(b"\n", PATIENCE)

    def test_reopen_while_pinned(self) -> None:
        """All that goes well where another program reads the old one; it harms nothing later."""
        for index, (suffixes, replaced) in enumerate(
            (
                ([""], False),
                (["", "-wal"], False),
                (["", "-wal", "-shm"], False),
                ([], True),
                (["-wal", "-shm"], True),
                (["-wal"], False),
                (["-wal", "-shm"], False),
            )
        ):
            self.use(f"{index}.db")
            self.begin()
            self.write(*range(1, 2000), updated_at=5)
            copy = self.copy(f"{index}.copy")
            with self.pinned():
                self.write(*range(1, 2000), updated_at=10)
                self.saver.maintain()
                self.remove(*suffixes)
                if replaced:
                    os.replace(copy, self.path)
                gone = "" in suffixes
                all_but_one = set(range(2, 2000))
                lost = self.go_over(online=all_but_one)
                self.assertEqual(lost, [1] if gone or replaced else [], (suffixes, replaced))
                found = self.loader.load(1)
                newest = None if gone else 5 if replaced else 10
                self.assertEqual(found and found.updated_at, newest, (suffixes, replaced))
            self.assert_in_use()

    def test_reopen_names_so_many(self) -> None:
        """So many lost players are named, and no more."""
        self.assertEqual(sqlite.LOST_NAMED, 1000)
        self.patch(sqlite, "LOST_NAMED", 3)
        self.write(*range(1, 10))
        self.remove("")
        self.assertEqual(len(self.go_over(online={1})), 3)

    def test_reopen_migrates(self) -> None:
        """A database of another state class is fitted to ours."""
        self.write(1, 2)
        self.use("other.db")
        self.prepare(state_class(x=0.0, hp=3)).close()
        self.sql("INSERT INTO player_state VALUES (1, 7.5, 3, 20)")
        other = self.path
        self.use("players.db")
        os.replace(other, self.path)
        self.assertEqual(self.go_over(), [2])
        self.assertEqual(self.loader.load(1), Stored((7.5, 200.0), 20))
        self.assert_in_use()

    def refused(self) -> str:
        """The one line with which what is there now is refused; it is left as it is."""
        before = digest(self.path)
        with self.assertRaises(StoreUnusable) as caught:
            self.store.reopen(b"n" * 16, frozenset())
        self.assertEqual(digest(self.path), before)
        return self.assert_one_line(caught.exception)

    def test_reopen_waits_for_nobody(self) -> None:
        """One that another program keeps locked is refused at once: the game goes on meanwhile."""
        self.write(1, updated_at=5)
        copy = self.copy()
        self.remove("", "-wal", "-shm")
        os.replace(copy, self.path)
        waits: list[int] = []

        class Watched(apsw.Connection):
            """Notes how long it may wait."""

            def set_busy_timeout(self, milliseconds: int, /) -> None:
                """Note it."""
                waits.append(milliseconds)
                super().set_busy_timeout(milliseconds)

        self.patch(apsw, "Connection", Watched)
        with closing(self.by_hand()) as other:
            other.execute("PRAGMA journal_mode = wal")
            other.execute("BEGIN IMMEDIATE")
            self.assertIn("is locked by another program", self.refused())
            other.execute("ROLLBACK")
        self.assertEqual(set(waits), {0})
        self.assertEqual(self.go_over(), [])
        self.assert_in_use()

    def test_reopen_refuses(self) -> None:
        """What cannot be used is refused and left as it is; once it is mended all goes on."""
        self.write(1, 2, 3, updated_at=5)
        copy = self.copy()
        self.write(3, updated_at=6)
        self.use("types.db")
        self.prepare(state_class(x="text")).close()
        types = self.path
        self.use("notes.db")
        self.sql("CREATE TABLE notes (note TEXT)")
        notes = self.path
        self.use("players.db")
        self.remove("")
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        for content in (b"x", b"a letter to the players\n" * 100):
            with open(self.path, "wb") as file:
                file.write(content)
            self.assertIn("is not a SQLite database", self.refused())
        os.replace(notes, self.path)
        self.assertIn("is a database of another program", self.refused())
        os.replace(types, self.path)
        self.assertIn("field x is float now", self.refused())
        os.replace(copy, self.path)
        self.assertEqual(self.store.reopen(b"n" * 16, frozenset()), [3])

    def test_reopen_refuses_damage(self) -> None:
        """A damaged copy is refused as at the start."""
        self.write(*range(1, 2000))
        copy = self.copy()
        with open(copy, "r+b") as file:
            file.seek(os.path.getsize(copy) - 4096)
            file.write(b"\xff" * 4096)
        os.replace(copy, self.path)
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        self.assertIn("is damaged (", self.refused())

    def assert_noticed(self, what: str) -> None:
        """Maintenance says so, and again where it is asked again."""
        for _ in range(2):
            with self.assertRaisesRegex(StoreReplaced, what):
                self.saver.maintain()

    def elsewhere(self, script: str, *arguments: str) -> None:
        """Another process does this with the database."""
        subprocess.run(
            [sys.executable, "-c", f"import apsw, sys; {script}", self.path, *arguments],
            check=True,
            timeout=PATIENCE,
        )

    def test_restored_by_sqlite(self) -> None:
        """An older copy that another program restores through SQLite is noticed, and used."""
        self.write(1, 2)
        self.saver.maintain()
        copy = self.copy()
        self.write(1, 3, updated_at=11)
        self.saver.maintain()
        self.elsewhere(
            "t = apsw.Connection(sys.argv[1]); s = apsw.Connection(sys.argv[2]);"
            "b = t.backup('main', s, 'main'); b.step(); b.finish(); t.close(); s.close()",
            copy,
        )
        self.assert_noticed("restored from a copy")
        self.go_over()
        self.assertEqual(self.loader.load(1).updated_at, 10)
        self.assertIsNone(self.loader.load(3))
        self.assert_in_use()

    def test_restored_from_another_run(self) -> None:
        """So is one that holds what was committed last, by its identity."""
        self.write(1)
        copy = self.copy()
        with closing(apsw.Connection(copy)) as connection:
            connection.execute("UPDATE player_store SET identity = ?", (b"x" * 16,))
        self.saver.maintain()
        self.elsewhere(
            "t = apsw.Connection(sys.argv[1]); s = apsw.Connection(sys.argv[2]);"
            "b = t.backup('main', s, 'main'); b.step(); b.finish(); t.close(); s.close()",
            copy,
        )
        self.assert_noticed("overwritten with another database")
        self.go_over()
        self.assert_in_use()

    def test_changed_by_another(self) -> None:
        """Rows that another program changes or deletes, and its checkpoints, are its right."""
        self.write(1, 2, 3)
        self.write(4, updated_at=12)
        self.saver.maintain()
        self.elsewhere(
            "c = apsw.Connection(sys.argv[1]);"
            "c.execute('DELETE FROM player_state WHERE session_id = 1');"
            "c.execute('UPDATE player_state SET x = 1 WHERE session_id = 2');"
            "c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)"
        )
        self.saver.maintain()
        self.elsewhere(
            "c = apsw.Connection(sys.argv[1]); c.execute('SELECT 1 FROM player_state').get;"
            "c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE); c.execute('VACUUM')"
        )
        self.saver.maintain()
        self.assertIsNone(self.loader.load(1))
        self.write(5)
        self.saver.maintain()

    def test_touched(self) -> None:
        """A time of change that no commit explains is no loss: the log stays where it is."""
        self.write(1, 2)
        self.saver.maintain()
        os.utime(self.path, ns=(10**18, 10**18))
        self.saver.maintain()
        self.write(1, 2, updated_at=11)
        self.saver.maintain()
        self.assertEqual(self.loader.load(2).updated_at, 11)
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_log_cut_short(self) -> None:
        """A log that was emptied in place is noticed; the database is whole afterwards."""
        self.write(*range(1, 2000))
        self.saver.sync()
        self.write(1, 2, updated_at=11)
        self.saver.maintain()
        os.truncate(self.path + "-wal", 0)
        self.assert_noticed("was cut short")
        self.assertRaises(StoreReplaced, self.saver.sync)
        self.go_over()
        self.assert_in_use()

    def test_index_removed(self) -> None:
        """An index of the log that was removed is noticed, and nobody is lost."""
        self.write(1)
        self.saver.maintain()
        self.remove("-shm")
        self.assertEqual(self.go_over(), [])
        self.assertEqual(self.loader.load(1).updated_at, 10)
        self.assert_in_use()

    def copy_over(self, copy: str) -> None:
        """Another process copies this file over the database, in place."""
        subprocess.run(["cp", copy, self.path], check=True, timeout=PATIENCE)

    def take_overwritten(self) -> None:
        """Go over to what was written over the database in place, at the second try."""
        self.assert_noticed("was written over in place")
        self.saving.close()
        number, mode = os.stat(self.path).st_ino, os.stat(self.path).st_mode
        self.assertIn("is used once no program writes to it", self.refused())
        self.assertIsNone(self.store.reopen(b"n" * 16, frozenset()))
        self.assertNotEqual(os.stat(self.path).st_ino, number)
        self.assertEqual(os.stat(self.path).st_mode, mode)
        self.loading.close()
        self.open_ends()

    def test_overwritten(self) -> None:
        """A copy that is written over it in place is noticed, and taken into a file of its own."""
        os.chmod(self.path, 0o600)
        self.write(1, 2)
        self.saver.maintain()
        copy = self.copy()
        self.write(2, 3, updated_at=11)
        self.saver.sync()
        self.copy_over(copy)
        self.take_overwritten()
        self.assertEqual(self.loader.load(2).updated_at, 10)
        self.assertIsNone(self.loader.load(3))
        self.assert_in_use()

    def test_overwritten_before_a_commit(self) -> None:
        """Also where nothing was written yet; what was committed before is in the way of it."""
        copy = self.copy()
        self.copy_over(copy)
        self.take_overwritten()
        self.assert_in_use()

    def test_overwritten_before_a_writer(self) -> None:
        """Also where no writer was open yet, whatever is there now."""
        self.write(1)
        self.saver.sync()
        copy = self.copy()
        letter = os.path.join(self.directory, "letter")
        Path(letter).write_text("to the players\n" * 1000)
        self.write(1, updated_at=11)
        self.saving.close()
        for content in (letter, copy):
            self.copy_over(content)
            with self.assertRaisesRegex(StoreReplaced, "was written over in place"):
                self.store.open_writer()
            self.assertRaises(StoreUnusable, self.store.reopen, b"n" * 16, frozenset())
            with contextlib.suppress(StoreUnusable):
                self.store.reopen(b"n" * 16, frozenset())
        self.loading.close()
        self.open_ends()
        self.assertEqual(self.loader.load(1).updated_at, 10)
        self.assert_in_use()

    def test_write_before_a_look(self) -> None:
        """No commit comes after it, though upkeep has not looked."""
        self.write(1)
        self.saver.sync()
        copy = self.copy()
        self.write(1, updated_at=11)
        self.saver.sync()
        self.copy_over(copy)
        with self.assertRaisesRegex(StoreReplaced, "was written over in place"):
            self.write(1, updated_at=12)
        self.take_overwritten()
        self.assertEqual(self.loader.load(1).updated_at, 10)
        self.assert_in_use()

    def test_overwritten_with_what_the_log_has(self) -> None:
        """So is a copy from amid what the log holds, whose pages lie in another order."""
        self.write(*range(1, 500))
        self.saver.sync()
        self.write(*range(500, 600))
        self.saver.maintain()
        self.sql("DELETE FROM player_state WHERE session_id < 300")
        self.saver.maintain()
        self.write(1, updated_at=11)
        copy = self.copy()
        self.write(2, updated_at=11)
        self.copy_over(copy)
        self.take_overwritten()
        self.assertIsNone(self.loader.load(2))
        self.assert_in_use()

    def test_overwritten_as_the_ends_close(self) -> None:
        """Found out at the very end, the log is not copied into it; the next start takes it."""
        self.write(1)
        self.saver.sync()
        copy = self.copy()
        self.write(1, 2, updated_at=11)
        self.copy_over(copy)
        self.saving.close()
        self.loading.close()
        self.store.close()
        self.assertFalse(os.path.exists(self.path + "-wal"))
        self.assertEqual(self.sql("SELECT session_id, updated_at FROM player_state"), [(1, 10)])
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_overwritten_with_what_was_opened(self) -> None:
        """So is a copy of the file as it was at the start, byte for byte."""
        copy = os.path.join(self.directory, "raw.db")
        subprocess.run(["cp", self.path, copy], check=True, timeout=PATIENCE)
        self.write(1)
        self.elsewhere("apsw.Connection(sys.argv[1]).pragma('wal_checkpoint', 'TRUNCATE')")
        self.copy_over(copy)
        self.take_overwritten()
        self.assertIsNone(self.loader.load(1))
        self.assert_in_use()

    def test_overwritten_just_before_a_checkpoint(self) -> None:
        """So is a backup into which our own checkpoint was copied, before anybody could look."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        self.write(*range(1, 500))
        self.saver.maintain()
        self.saver.maintain()
        copy = self.copy()
        self.write(1, updated_at=11)
        checkpoint = self.saver._checkpoint

        def checkpointing() -> Any:
            self.copy_over(copy)
            return checkpoint()

        patched = self.patch(self.saver, "_checkpoint", checkpointing)
        self.saver.maintain()
        patched.restore()
        self.assert_noticed("was written over in place")

    def test_overwritten_with_itself(self) -> None:
        """A copy of what is in it is no loss."""
        copy = os.path.join(self.directory, "raw.db")
        self.write(1)
        self.saver.sync()
        subprocess.run(["cp", self.path, copy], check=True, timeout=PATIENCE)
        self.write(2)
        self.saver.maintain()
        self.copy_over(copy)
        self.saver.maintain()
        self.write(3)
        self.saver.sync()
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])
        self.assertIsNotNone(self.loader.load(2))

    def test_overwritten_again_while_it_is_taken(self) -> None:
        """What is written into it while it is being taken is waited for as well."""
        self.write(1)
        copy = self.copy()
        self.write(2)
        self.copy_over(copy)
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        self.refused()
        whole = sqlite_overwritten.copy_whole

        def copying(*arguments: Any) -> None:
            whole(*arguments)
            self.copy_over(copy)

        patched = self.patch(sqlite_overwritten, "copy_whole", copying)
        self.assertIn("is used once no program writes to it", self.refused())
        self.assertFalse(os.path.exists(self.path + ".new"))
        patched.restore()
        self.assertIsNone(self.store.reopen(b"n" * 16, frozenset()))

    def test_overwritten_while_another_reads(self) -> None:
        """Another program that has the old file and its log open does the new one no harm."""
        self.write(*range(1, 500))
        self.saver.sync()
        copy = self.copy()
        self.write(*range(1, 500), updated_at=11)
        with self.pinned():
            self.copy_over(copy)
            self.take_overwritten()
            self.write(5, updated_at=20)
            self.saver.sync()
        self.assertEqual(self.loader.load(5).updated_at, 20)
        self.assertEqual(self.loader.load(6).updated_at, 10)
        self.assert_in_use()

    def test_no_room_for_what_overwrote(self) -> None:
        """While it cannot be put into a file of its own the line says so, and it is left alone."""
        self.write(1)
        copy = self.copy()
        self.write(2)
        self.copy_over(copy)
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        self.refused()

        def full(*_: object) -> None:
            raise apsw.FullError("database or disk is full")

        patched = self.patch(sqlite_overwritten, "copy_whole", full)
        for _ in range(2):
            self.assertIn("make room", self.refused())
        patched.restore()
        self.assertIsNone(self.store.reopen(b"n" * 16, frozenset()))

    def test_checkpoints_are_no_copies(self) -> None:
        """Checkpoints of whoever, whole, in part or broken off, change the file and are ours."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        for turn in range(1, 6):
            with self.pinned():
                for updated_at in range(20 * turn, 20 * turn + 5):
                    self.write(*range(1, 200 * turn), updated_at=updated_at)
                    self.saver.maintain()
                    self.elsewhere(
                        "c = apsw.Connection(sys.argv[1]);"
                        "c.execute('UPDATE player_state SET x = x + 1');"
                        "c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)"
                    )
                    self.saver.maintain()
            self.elsewhere("apsw.Connection(sys.argv[1]).execute('VACUUM')")
            self.write(turn, updated_at=1000 * turn)
            self.saver.sync()
            self.saving.close()  # and a writer that follows another
            self.saver = self.store.open_writer()
            self.saving.callback(self.saver.close)
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_schemas_copied_in_part(self) -> None:
        """What other programs did to the schema is theirs, also where half of it is in the file."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        self.write(*range(1, 1000))
        self.saver.sync()
        at = itertools.count(20)

        def look() -> None:
            """Copy what can be copied, and look at that."""
            self.write(1, updated_at=next(at))
            for _ in range(2):
                self.saver.maintain()

        for change in ("VACUUM", "CREATE INDEX here ON player_state (x)", "VACUUM"):
            look()
            self.write(
                2, updated_at=next(at)
            )  # who pins nothing of the log keeps all from the file
            with ExitStack() as before:
                before.enter_context(self.pinned())
                self.elsewhere("c = apsw.Connection(sys.argv[1]); c.execute(sys.argv[2])", change)
                look()
                with self.pinned():
                    before.close()
                    look()
            look()
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_mark_not_in_the_file(self) -> None:
        """Others' change of the schema may be in the file before the mark that it has moved."""
        self.patch(sqlite_watch, "CHECKPOINT_PAUSES", (0.0, 0.0))
        self.write(*range(1, 100))
        self.saver.sync()
        self.write(1, updated_at=11)
        self.elsewhere(
            "apsw.Connection(sys.argv[1]).execute('CREATE INDEX here ON player_state (x)')"
        )
        self.saver.maintain()
        ((root,),) = self.sql("SELECT rootpage FROM sqlite_schema WHERE name = 'player_mark'")
        ((newest,),) = self.sql("PRAGMA schema_version")
        for version, is_ours in ((newest, True), (newest + 1, False)):
            self.elsewhere(
                "file = open(sys.argv[1], 'r+b'); file.seek(40);"
                "file.write(int(sys.argv[2]).to_bytes(4, 'big'));"
                "file.seek((int(sys.argv[3]) - 1) * 4096); file.write(bytes(4096)); file.close()",
                str(version),
                str(root),
            )
            if is_ours:
                self.saver.maintain()
                self.saver.maintain()
                self.saver.sync()
                self.saver.maintain()
                self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])
            else:
                self.assert_noticed("was written over in place")

    def test_commit_of_unknown_end(self) -> None:
        """A commit that failed, and one that succeeded and said it failed, are both no loss."""
        self.write(1)
        for query in ("ROLLBACK", "COMMIT"):
            put = Marks.put

            def failing(marks: Marks, connection: Any, put: Any = put, query: str = query) -> None:
                put(marks, connection)
                connection.execute(query)
                raise apsw.IOError("disk I/O error")

            patched = self.patch(Marks, "put", failing)
            self.assertRaises(apsw.IOError, self.write, 1, updated_at=11)
            patched.restore()
            self.saving.close()
            self.saver = self.store.open_writer()
            self.saving.callback(self.saver.close)
            self.saver.maintain()
            self.write(1, updated_at=12)
            self.saver.sync()
            self.saver.maintain()

    def test_no_file_can_be_opened(self) -> None:
        """Want of open files is a failure of the moment, and no loss."""
        self.write(1)

        def none_left(*_: object) -> None:
            raise apsw.CantOpenError("unable to open database file")

        patched = self.patch(apsw, "VFSFile", none_left)
        self.assertRaises(apsw.CantOpenError, self.saver.maintain)
        self.assertRaises(apsw.CantOpenError, self.write, 1)
        patched.restore()
        self.saver.maintain()

    def test_no_room_for_a_copy(self) -> None:
        """While a lost log cannot be made good the reader stays, which has everything."""
        self.write(*range(1, 2000))
        self.saver.maintain()
        self.remove("-wal")
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        before = digest(self.path)

        def full(reader: object, path: str) -> None:
            raise apsw.FullError("database or disk is full")

        patched = self.patch(sqlite.SQLiteReader, "copy_to", full)
        for _ in range(2):
            self.assertIn("make room", self.refused())
            self.assertEqual(self.loader.load(1999).updated_at, 10)
        self.assertEqual(digest(self.path), before)
        patched.restore()
        self.assertEqual(self.store.reopen(b"n" * 16, frozenset()), [])
        self.loading.close()
        self.open_ends()
        self.assertEqual(self.loader.load(1999).updated_at, 10)

    def test_reopen_nowhere(self) -> None:
        """Where no database can be made the line says so; once it can be, all goes on."""
        self.write(1)
        os.rename(self.directory, f"{self.directory}.moved")
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        with self.assertRaises(StoreUnusable) as caught:
            self.store.reopen(b"n" * 16, frozenset())
        self.assertIn("cannot be opened", self.assert_one_line(caught.exception))
        os.mkdir(self.directory)
        self.assertEqual(self.store.reopen(b"n" * 16, frozenset()), [1])

    def test_load_meanwhile(self) -> None:
        """While what is there cannot be used, a look-up answers or may be tried again."""
        self.write(1)
        os.remove(self.path)
        os.mkdir(self.path)
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        for _ in range(2):
            self.assertRaises(StoreUnusable, self.store.reopen, b"n" * 16, frozenset())
            with contextlib.suppress(StoreBusy):
                self.assertEqual(self.loader.load(1).updated_at, 10)
        os.rmdir(self.path)
        self.assertEqual(self.store.reopen(b"n" * 16, frozenset()), [1])


class SyncTests(StoreTestCase):
    """What is committed, brought to disk past every cache."""

    def setUp(self) -> None:
        """Note which files are synced by hand."""
        super().setUp()
        self.synced: list[str] = []
        self.patch(os, "fsync", lambda fd: self.synced.append(os.readlink(f"/proc/self/fd/{fd}")))

    def in_the_database(self) -> int:
        """How many players are in the file itself, without its log."""
        alone = os.path.join(self.directory, "alone.db")
        shutil.copyfile(self.path, alone)
        with closing(apsw.Connection(alone)) as connection:
            count: int = connection.execute("SELECT count(*) FROM player_state").get
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(alone + suffix):
                os.remove(alone + suffix)
        return count

    def test_copies_the_log(self) -> None:
        """The whole log is copied into the database, which SQLite syncs."""
        for options in ("", "?synchronous=normal"):
            with self.writer(self.prepare(options=options)) as (writer, _):
                writer.write(spawned(PLAIN, np.arange(1, 601)))
                self.assertEqual(self.in_the_database(), 0)
                writer.sync()
                self.assertEqual(self.in_the_database(), 600)
                writer.sync()
            self.assertEqual(self.synced, [])
            self.use("normal.db")

    def test_beside_a_reader(self) -> None:
        """What a reader keeps from being copied is synced where it is: in the log."""
        store = self.prepare()
        with self.writer(store) as (writer, _):
            writer.write(spawned(PLAIN, [1]))
            other = self.by_hand()
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM player_state").fetchall()
            writer.write(spawned(PLAIN, np.arange(1, 601), updated_at=2))
            writer.sync()
            self.assertEqual(self.synced, [self.path + "-wal"])
            self.assertLess(self.in_the_database(), 600)
            other.execute("COMMIT")
            writer.sync()
            self.assertEqual(self.synced, [self.path + "-wal"])
            self.assertEqual(self.in_the_database(), 600)

    def test_beside_a_reader_through_a_link(self) -> None:
        """So it is where the database is named by a link, beside which no log lies."""
        self.prepare().close()
        real = self.path
        os.mkdir(os.path.join(self.directory, "elsewhere"))
        self.use("elsewhere/link.db")
        os.symlink(real, self.path)
        with self.writer(self.prepare()) as (writer, _):
            writer.write(spawned(PLAIN, [1]))
            other = self.by_hand()
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM player_state").fetchall()
            writer.write(spawned(PLAIN, np.arange(1, 601), updated_at=2))
            writer.sync()
        self.assertEqual(self.synced, [real + "-wal"])

    def test_failure(self) -> None:
        """Where the log cannot be synced that is raised: nobody may believe it was."""

        def fail(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fsync", fail)
        with self.writer(self.prepare()) as (writer, _):
            writer.write(spawned(PLAIN, [1]))
            other = self.by_hand()
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM player_state").fetchall()
            writer.write(spawned(PLAIN, [2]))
            self.assertRaises(OSError, writer.sync)

    def test_lost_log(self) -> None:
        """Where the log is gone that is raised too."""
        with self.writer(self.prepare()) as (writer, _):
            writer.write(spawned(PLAIN, [1]))
            other = self.by_hand()
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM player_state").fetchall()
            writer.write(spawned(PLAIN, [2]))
            os.remove(self.path + "-wal")
            self.assertRaises(StoreReplaced, writer.sync)


class NamedTests(StoreTestCase):
    """Which rows of a batch are refused."""

    def refuse(self, sql: str, *players: tuple[Any, ...]) -> dict[int, str]:
        """What is said of a batch under this trigger's body; all others are saved."""
        with self.writer(self.prepare(PLAIN)) as (writer, connection):
            connection.execute(
                "CREATE TRIGGER curse BEFORE INSERT ON player_state WHEN NEW.x < 0"
                f" BEGIN SELECT {sql}; END"
            )
            batch = records(PLAIN, *players)
            left_out = writer.write(batch)
            self.assertEqual(len(left_out), len(left_out.refused))
            saved = [row[0] for row in connection.execute("SELECT session_id FROM player_state")]
            good = np.delete(batch, list(left_out.refused))
            self.assertEqual(saved, good["session_id"].tolist())
            return dict(left_out.refused)

    def test_every_other(self) -> None:
        """Each bad row is named, however many there are; without them the others are saved."""
        players = [(n, -1.0 if n % 2 else 1.0, 0.0, 5) for n in range(1, 2001)]
        found = self.refuse("RAISE(ABORT, 'cursed')", *players)
        self.assertEqual(found, dict.fromkeys(range(0, 2000, 2), "cursed"))

    def test_rolled_back(self) -> None:
        """A trigger that rolls back the whole transaction hides no other bad row."""
        players = [(1, -1.0, 0.0, 5), (2, 1.0, 0.0, 5), (3, -1.0, 0.0, 5)]
        found = self.refuse("RAISE(ROLLBACK, 'cursed')", *players)
        self.assertEqual(found, {0: "cursed", 2: "cursed"})

    def test_reason_is_shown_safely(self) -> None:
        """What a trigger says may come from a player: it reaches log and file escaped."""
        found = self.refuse("RAISE(ABORT, 'a\x1b[2J\nb')", (1, -1.0, 0.0, 5))
        self.assertEqual(found, {0: r"a\x1b[2J\nb"})

    def test_passed_over(self) -> None:
        """A row that a trigger passes over without a word is named too."""
        players = [(1, 1.0, 0.0, 5), (2, -1.0, 0.0, 5)]
        found = self.refuse("RAISE(IGNORE)", *players)
        self.assertEqual(found, {1: "a trigger skipped it"})

    def test_together_only(self) -> None:
        """Where none is refused by itself, nothing is saved of them, and none is named."""
        with self.writer(self.prepare(PLAIN)) as (writer, connection):
            connection.execute(
                "CREATE TRIGGER curse BEFORE INSERT ON player_state WHEN NEW.x < 0"
                " BEGIN SELECT RAISE(ABORT, 'cursed'); END"
            )
            self.patch(writer, "_find_refused", lambda records: {})
            batch = records(PLAIN, (1, -1.0, 0.0, 5), (2, 1.0, 0.0, 5))
            error = self.assertRaises(RowRefused, writer.write, batch)
            self.assertEqual(str(error), "cursed")
            self.assertEqual(connection.execute("SELECT count(*) FROM player_state").get, 0)

    def test_newer_and_refused(self) -> None:
        """Positions of rows that the guard left out count among all records, refused or not."""
        with self.writer(self.prepare(PLAIN)) as (writer, connection):
            writer.write(records(PLAIN, (3, 7.0, 7.0, 9)))
            connection.execute(
                "CREATE TRIGGER curse BEFORE INSERT ON player_state WHEN NEW.x < 0"
                " BEGIN SELECT RAISE(ABORT, 'cursed'); END"
            )
            batch = records(PLAIN, *((n, -1.0 if n < 3 else 1.0, 0.0, 5) for n in (1, 2, 3, 4)))
            left_out = writer.write(batch)
            self.assertEqual(left_out.newer.tolist(), [2])
            self.assertEqual(left_out.refused, {0: "cursed", 1: "cursed"})
        self.assertEqual(self.stored(), [(3, 7.0, 7.0, 9), (4, 1.0, 0.0, 5)])


class SetAsideTests(StoreTestCase):
    """Records refused for good, kept beside the database."""

    def test_file(self) -> None:
        """They go into a file named for the database, which is not there before."""
        with self.writer(self.prepare(EVERYTHING)) as (writer, _):
            self.assertFalse(os.path.exists(self.path + ".refused.jsonl"))
            batch = records(EVERYTHING, (7, 1.0, 2, False, "cave", 3.0, 4))
            writer.quarantine(batch, ["NOT NULL constraint failed: player_state.x"])
        with open(self.path + ".refused.jsonl") as file:
            entry = json.loads(file.read())
        del entry["refused_at"]
        self.assertEqual(
            entry,
            {
                "session_id": 7,
                "x": 1.0,
                "hp": 2,
                "alive": False,
                "zone": "cave",
                "angle": 3.0,
                "updated_at": 4,
                "reason": "NOT NULL constraint failed: player_state.x",
            },
        )
        self.assertEqual(self.stored(), [])


class CrashTests(StoreTestCase):
    """What is left when a server ends without closing anything."""

    def test_committed(self) -> None:
        """Every batch that `write` returned from is there at the next start, and no other."""
        store = self.prepare()
        with self.writer(store) as (writer, connection):
            for updated_at in (1, 2, 3):
                writer.write(spawned(PLAIN, np.arange(1, 1001), updated_at))
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE player_state SET updated_at = 4")
            crashed = os.path.join(self.directory, "crashed.db")
            for suffix in ("", "-wal"):
                shutil.copyfile(self.path + suffix, crashed + suffix)
            connection.execute("ROLLBACK")
        self.use("crashed.db")
        self.prepare()
        self.assertEqual(
            self.sql("SELECT count(*), min(updated_at), max(updated_at) FROM player_state"),
            [(1000, 3, 3)],
        )


class UrlTests(DirectoryTestCase):
    """What a URL may say."""

    def refusal(self, url: str) -> str:
        """The one line for a URL that cannot be read, whether to open it or to look into it."""
        with self.assertRaises(StoreUnusable) as caught:
            open_store(url, PLAIN)
        line = self.assert_one_line(caught.exception)
        with self.assertRaises(StoreUnusable) as caught:
            browse_store(url)
        self.assertEqual(str(caught.exception), line)
        return line

    def test_path(self) -> None:
        """What follows the scheme is the path, up to the options."""
        store = open_store(self.url, PLAIN)
        self.assertEqual((store.path, store.synchronous), (self.path, "full"))

    def test_path_with_a_colon(self) -> None:
        """A path may hold colons and percent signs; they mean nothing."""
        store = open_store("sqlite:/games/a:b%20c.db", PLAIN)
        self.assertEqual(store.path, "/games/a:b%20c.db")

    def test_options(self) -> None:
        """``synchronous`` is full or normal."""
        for value in ("full", "normal"):
            store = open_store(f"{self.url}?synchronous={value}", PLAIN)
            self.assertEqual((store.path, store.synchronous), (self.path, value))

    def test_question_mark_alone(self) -> None:
        """A question mark without options is as none."""
        self.assertEqual(open_store(self.url + "?", PLAIN).path, self.path)

    def test_no_path(self) -> None:
        """Without a path, or with SQLite's name for none, the line says what to write."""
        for url in ("sqlite:", "sqlite::memory:", "sqlite:?synchronous=full"):
            line = self.refusal(url)
            self.assertIn(repr(url), line)
            self.assertIn("write sqlite:PATH, or memory:", line)

    def test_unknown_option(self) -> None:
        """An option that there is not is named."""
        line = self.refusal("sqlite:a.db?sync=full&cache=9")
        self.assertEqual(
            line,
            "'sqlite:a.db?sync=full&cache=9': there is no option sync, cache, only synchronous",
        )

    def test_unknown_value(self) -> None:
        """A value that there is not is named, the empty one too."""
        for option, value in (
            ("synchronous=off", "off"),
            ("synchronous=FULL", "FULL"),
            ("synchronous=", ""),
            ("synchronous", ""),
        ):
            line = self.refusal(f"sqlite:a.db?{option}")
            self.assertIn(f"synchronous is {value!r}, must be full or normal", line)

    def test_relative_path(self) -> None:
        """A relative path is made absolute at once: a later change of directory moves nothing."""
        elsewhere = os.path.join(self.directory, "elsewhere")
        os.mkdir(elsewhere)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        store = open_store("sqlite:players.db", PLAIN)
        os.chdir(elsewhere)
        take(store)
        with closing(store.open_writer()) as writer, closing(store.open_reader()) as reader:
            writer.write(spawned(PLAIN, [1]))
            self.assertIsNotNone(reader.load(1))
        store.close()
        self.assertEqual(os.listdir(elsewhere), [])
        self.assertEqual(sorted(os.listdir(self.directory))[1:], ["players.db", "players.db.lock"])


class BrowserTests(StoreTestCase):
    """Looking into a database without its state class."""

    def fill(self) -> None:
        """A database of three players."""
        store = self.prepare(EVERYTHING)
        with closing(store.open_writer()) as writer:
            writer.write(
                records(
                    EVERYTHING,
                    (1, 1.0, 10, True, "one", 0.1, 200),
                    (2, 2.0, 20, False, "two", 0.2, 300),
                    (3, 3.0, 30, True, "three", 0.3, 200),
                )
            )
        store.close()

    @contextmanager
    def browser(self) -> Iterator[IStoreBrowser]:
        """The browser of that database."""
        with closing(browse_store(self.url)) as browser:
            yield browser

    def refusal(self) -> str:
        """The one line for a database that cannot be looked into."""
        with self.assertRaises(StoreUnusable) as caught:
            browse_store(self.url)
        return self.assert_one_line(caught.exception)

    def test_interface(self) -> None:
        """A browser provides what it says."""
        self.fill()
        with self.browser() as browser:
            self.assertTrue(verifyObject(IStoreBrowser, browser))

    def test_columns(self) -> None:
        """The columns come in the table's order, the session id first."""
        self.fill()
        with self.browser() as browser:
            self.assertEqual(
                browser.columns,
                ("session_id", "x", "hp", "alive", "zone", "angle", "updated_at"),
            )

    def test_count(self) -> None:
        """Every player counts."""
        self.fill()
        with self.browser() as browser:
            self.assertEqual(browser.count(), 3)

    def test_latest(self) -> None:
        """The latest changed come first, and those of one time by their id."""
        self.fill()
        with self.browser() as browser:
            rows = list(browser.latest(None))
            self.assertEqual([row[0] for row in rows], [2, 1, 3])
            self.assertEqual(rows[0], (2, 2.0, 20, 0, "two", 0.2, 300))

    def test_limit(self) -> None:
        """So many rows and no more, and none for 0."""
        self.fill()
        with self.browser() as browser:
            for limit, ids in ((0, []), (1, [2]), (2, [2, 1]), (9, [2, 1, 3])):
                self.assertEqual([row[0] for row in browser.latest(limit)], ids)

    def test_find(self) -> None:
        """One player's row, or None."""
        self.fill()
        with self.browser() as browser:
            self.assertEqual(browser.find(3), (3, 3.0, 30, 1, "three", 0.3, 200))
            self.assertIsNone(browser.find(4))

    def test_bytes_that_are_no_text(self) -> None:
        """What somebody put into a text by hand is shown, and hides no other player."""
        self.fill()
        self.sql("UPDATE player_state SET zone = CAST(x'61ff00' AS TEXT) WHERE session_id = 2")
        with self.browser() as browser:
            self.assertEqual(browser.find(2)[4], "a\\xff\0")
            self.assertEqual([row[4] for row in browser.latest(None)], ["a\\xff\0", "one", "three"])

    def test_no_player(self) -> None:
        """A database without players is looked into as any other."""
        self.prepare().close()
        with self.browser() as browser:
            self.assertEqual((browser.count(), [*browser.latest(None)]), (0, []))

    def test_old_columns(self) -> None:
        """The columns of fields that are gone are shown too."""
        self.fill()
        self.prepare(state_class(x=0.0, hp=0, mana=7)).close()
        with self.browser() as browser:
            self.assertEqual(
                browser.columns,
                ("session_id", "x", "hp", "alive", "zone", "angle", "updated_at", "mana"),
            )
            self.assertEqual(browser.find(1), (1, 1.0, 10, 1, "one", 0.1, 200, 7))

    def test_cannot_write(self) -> None:
        """Its connection takes no change."""
        self.fill()
        with connections() as opened, self.browser():
            (connection,) = opened
            self.assertRaises(apsw.ReadOnlyError, connection.execute, "DELETE FROM player_state")

    def test_patience(self) -> None:
        """It waits a while for who has the database locked, as a start does."""
        self.fill()
        with connections() as opened, self.browser():
            (connection,) = opened
            self.assertEqual(connection.pragma("busy_timeout"), STARTUP_BUSY_MS)

    def test_leaves_nothing(self) -> None:
        """Looking takes no lock, changes no byte and leaves no file beside the database."""
        self.fill()
        os.remove(self.path + ".lock")
        before = digest(self.path)
        with self.browser() as browser:
            browser.count()
        self.assertEqual(os.listdir(self.directory), ["players.db"])
        self.assertEqual(digest(self.path), before)

    def test_beside_a_server(self) -> None:
        """Beside a server it sees what is committed, and nothing that is not."""
        self.fill()
        store = self.prepare(EVERYTHING)
        with self.writer(store) as (writer, connection), self.reader(store) as (reader, _):
            writer.write(records(EVERYTHING, (4, 4.0, 40, True, "four", 0.4, 400)))
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM player_state")
            with self.browser() as browser:
                self.assertEqual(browser.count(), 4)
                self.assertEqual([row[0] for row in browser.latest(1)], [4])
            connection.execute("ROLLBACK")
            writer.write(records(EVERYTHING, (5, 5.0, 50, True, "five", 0.5, 500)))
            self.assertIsNotNone(reader.load(5))

    def test_missing(self) -> None:
        """A file that is missing is named, and not made."""
        self.assertEqual(self.refusal(), f"{self.path} does not exist")
        self.assertEqual(os.listdir(self.directory), [])

    def test_empty(self) -> None:
        """An empty file holds no players."""
        open(self.path, "wb").close()
        self.assertEqual(self.refusal(), f"{self.path} holds no players: it is an empty database")

    def test_of_another_program(self) -> None:
        """A database of another program is refused, and left as it is."""
        self.sql("CREATE TABLE notes (note TEXT)")
        before = digest(self.path)
        self.assertIn("is a database of another program", self.refusal())
        self.assertEqual(digest(self.path), before)

    def test_not_a_database(self) -> None:
        """A file that is no database is refused, and left as it is."""
        with open(self.path, "wb") as file:
            file.write(b"a letter to the players\n" * 100)
        before = digest(self.path)
        self.assertIn("is not a SQLite database", self.refusal())
        self.assertEqual(digest(self.path), before)
        self.assertEqual(os.listdir(self.directory), ["players.db"])

    def test_damaged(self) -> None:
        """Damage that shows only while looking is told in a line too."""
        self.fill()
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096)
        with self.browser() as browser:
            for look in (browser.count, lambda: [*browser.latest(None)], lambda: browser.find(1)):
                with self.assertRaises(StoreUnusable) as caught:
                    look()
                line = self.assert_one_line(caught.exception)
                self.assertTrue(line.startswith(f"{self.path} is damaged ("), line)

    def test_close_halfway(self) -> None:
        """A browser may be closed before its rows were all taken."""
        self.fill()
        with self.browser() as browser:
            rows = browser.latest(None)
            self.assertEqual(next(rows)[0], 2)

    def test_refusal_closes(self) -> None:
        """A database that is refused is closed at once, not when the error is forgotten."""
        open(self.path, "wb").close()
        with connections() as opened:
            self.refusal()
        self.assert_closed(*opened)

    def test_header_alone(self) -> None:
        """A file that only begins as a database does is refused too."""
        with open(self.path, "wb") as file:
            file.write(b"SQLite format 3\0" + b"\xff" * 4080)
        self.assertIn("is not a SQLite database", self.refusal())

    def test_not_a_database_however_short(self) -> None:
        """A file too short for SQLite to tell is no empty database either."""
        with open(self.path, "wb") as file:
            file.write(b"x")
        self.assertIn("is not a SQLite database", self.refusal())

    def test_directory(self) -> None:
        """A directory is refused in a line."""
        os.mkdir(self.path)
        self.assertIn("is not a SQLite database", self.refusal())


class VersionTests(StoreTestCase):
    """The SQLite that apsw brings."""

    def test_too_old(self) -> None:
        """One with a fault in its log is refused before anything is touched."""
        for version, fits in (("3.51.2", False), ("3.9.9", False), ("3.51.3", True), ("4.0", True)):
            self.patch(apsw, "sqlite_lib_version", lambda version=version: version)
            store = open_store(self.url, PLAIN)
            if fits:
                take(store)
                store.close()
            else:
                with self.assertRaises(StoreUnusable) as caught:
                    store.prepare()
                self.assertIn("install apsw 3.51.3", self.assert_one_line(caught.exception))
                self.assertEqual(os.listdir(self.directory), [])


class TemporaryFileTests(StoreTestCase):
    """Nothing is written but beside the database."""

    def test_every_connection(self) -> None:
        """SQLite keeps in memory what it would put into temporary files."""
        with connections() as opened:
            store = self.prepare()
            with self.reader(store), self.writer(store), closing(browse_store(self.url)):
                for connection in opened[-3:]:
                    self.assertEqual(connection.pragma("temp_store"), 2)


class LimitTests(DirectoryTestCase):
    """What the store takes for given of apsw and SQLite."""

    def test_limits(self) -> None:
        """Statements of the longest INSERT's length are kept prepared, and take its values."""
        with closing(apsw.Connection(self.path)) as connection:
            self.assertGreater(
                connection.cache_stats()["max_cacheable_bytes"], sqlite_writer.SQL_BYTES
            )
            self.assertGreaterEqual(
                connection.limit(apsw.SQLITE_LIMIT_VARIABLE_NUMBER), sqlite_writer.VARIABLES
            )
