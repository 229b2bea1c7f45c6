"""How players are saved: statements, refused rows, interrupts, checkpoints, syncs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import apsw
import numpy as np
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from playerstate.interfaces import (
    IStateWriter,
    RowRefused,
    StoreBusy,
    Stored,
    StoreReplaced,
)
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite import writer as sqlite_writer
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.stores.sqlite.writer import SQLiteWriter
from tests.kit.databases import (
    EVERYTHING,
    PLAIN,
    connections,
    digest,
    records,
    spawned,
    state_class,
)
from tests.kit.sqlite_stores import StoreTestCase, pause_in_a_statement
from tests.kit.support import PATIENCE


class FailureTests(StoreTestCase):
    """What a write that cannot be done leaves behind."""

    def test_busy(self) -> None:
        """While another program writes nothing is written; the same batch is saved afterwards."""
        store = self.prepare()
        batch = spawned(PLAIN, np.arange(1, 601))
        with self.writer(store) as (writer, _), self.reader(store) as (reader, _):
            other = self.by_hand()
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with self.assertRaisesRegex(StoreBusy, "locked"):
                    writer.write(batch)
            other.execute("ROLLBACK")
            self.assertIsNone(reader.load(1))
            self.assertEqual(len(writer.write(batch)), 0)
            self.assertIsNotNone(reader.load(600))

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
            before_1970 = records(PLAIN, (4, 1.0, 1001.0, -5))
            self.assertEqual(writer.write(before_1970).refused, {0: "a trigger skipped it"})
        self.assertEqual(self.stored(), [(2, 0.0, 0.0, 1), (3, 1.0, 1.0, 2)])

    def test_refused_values(self) -> None:
        """NaN, which SQLite takes as NULL, a bool of 2 and a row above its limit are refused."""
        with self.writer(self.prepare(EVERYTHING)) as (writer, connection):
            writer.write(spawned(EVERYTHING, [1]))
            for name, value, limit, reason in (
                ("x", np.nan, 1000, "NOT NULL constraint failed"),
                ("alive", 2, 1000, "CHECK constraint failed"),
                ("zone", b"a" * 16, 40, "too big"),
            ):
                with self.subTest(name=name):
                    batch = spawned(EVERYTHING, [1], updated_at=2)
                    batch[name] = value
                    connection.limit(apsw.SQLITE_LIMIT_LENGTH, limit)
                    refused = writer.write(batch).refused
                    self.assertEqual(list(refused), [0])
                    self.assertIn(reason, refused[0])

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
        """Writing goes on after a trigger has ended the transaction itself."""
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

    def test_named(self) -> None:
        """Each refused row is named with its reason, and all others are saved.

        A trigger that rolls back the transaction, or skips a row without an error, hides none.
        What it says may come from a player: it reaches log and file escaped.
        """
        every_other = [(n, -1.0 if n % 2 else 1.0, 0.0, 5) for n in range(1, 2001)]
        bad, good = (1, -1.0, 0.0, 5), (2, 1.0, 0.0, 5)
        for number, (trigger, players, expected) in enumerate(
            (
                ("ABORT, 'cursed'", every_other, dict.fromkeys(range(0, 2000, 2), "cursed")),
                ("ROLLBACK, 'cursed'", (bad, good, (3, *bad[1:])), {0: "cursed", 2: "cursed"}),
                ("IGNORE", (good, (3, *bad[1:])), {1: "a trigger skipped it"}),
                ("ABORT, 'a\x1b[2J\nb'", (bad,), {0: r"a\x1b[2J\nb"}),
            )
        ):
            with self.subTest(trigger=trigger):
                self.use(f"{number}.db")
                self.assertEqual(self.refuse(f"RAISE({trigger})", *players), expected)

    def test_together_only(self) -> None:
        """Where none is refused by itself, nothing is saved of them, and none is named."""
        with self.writer(self.prepare(PLAIN)) as (writer, connection):
            connection.execute(
                "CREATE TRIGGER curse BEFORE INSERT ON player_state WHEN NEW.x < 0"
                " BEGIN SELECT RAISE(ABORT, 'cursed'); END"
            )
            self.patch(writer._batches, "find_refused", lambda records: {})
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


class InterruptTests(StoreTestCase):
    """How a write is ended from another thread."""

    def test_running_write(self) -> None:
        """An interrupt while a statement runs ends the write, which leaves nothing.

        The same batch can be written afterwards.
        """
        store, batch = self.prepare(), spawned(PLAIN, np.arange(1, 8193), updated_at=2)
        with self.writer(store) as (writer, connection):
            writer.write(spawned(PLAIN, [1], updated_at=1))
            interrupted = pause_in_a_statement(connection, writer.interrupt)
            self.assertRaises(apsw.InterruptError, writer.write, batch)
            self.assertTrue(interrupted.is_set())
            self.assertFalse(connection.in_transaction)
            self.assertEqual(self.stored(), [(1, 350.0, 200.0, 1)])
            self.assertEqual(len(writer.write(batch)), 0)
        self.assertEqual(self.sql("SELECT count(*) FROM player_state"), [(8192,)])

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
        with closing(self.pin()):
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

    def test_amid_another_checkpoint(self) -> None:
        """While another program's checkpoint runs, maintenance leaves the log to it."""
        self.filled()
        with self.timed_writer() as writer, capturedLogs() as logs:
            self.grow(writer, 2 * sqlite_writer.CHECKPOINT_BYTES)
            before = digest(self.path)

            def maintain() -> None:
                writer.maintain()
                self.assertEqual(digest(self.path), before)

            self.amid_checkpoint(maintain)
        self.assertEqual([event for event in logs if event["log_level"] >= LogLevel.warn], [])

    def test_large_batch_is_not_a_pin(self) -> None:
        """A log that one large batch has filled, and no reader pins, causes no warning."""
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
        """What a reader keeps from being copied is synced where it is: in the log.

        A database that is named by a link has its log beside the file that the link leads to.
        """
        os.mkdir(os.path.join(self.directory, "elsewhere"))
        for is_linked in (False, True):
            self.use(f"{is_linked}.db")
            log = self.path + "-wal"
            if is_linked:
                real = self.path
                self.prepare().close()
                self.use("elsewhere/link.db")
                os.symlink(real, self.path)
            with self.subTest(is_linked=is_linked), self.writer(self.prepare()) as (writer, _):
                self.synced.clear()
                writer.write(spawned(PLAIN, [1]))
                with closing(self.pin()):
                    writer.write(spawned(PLAIN, np.arange(1, 601), updated_at=2))
                    writer.sync()
                    self.assertEqual(self.synced, [log])
                    self.assertLess(self.in_the_database(), 600)
                writer.sync()
                self.assertEqual(self.synced, [log])
                self.assertEqual(self.in_the_database(), 600)

    def test_amid_another_checkpoint(self) -> None:
        """While another program's checkpoint runs, the log is synced."""
        with self.writer(self.prepare()) as (writer, _):
            writer.write(spawned(PLAIN, [1]))
            self.amid_checkpoint(writer.sync)
        self.assertEqual(self.synced, [self.path + "-wal"])

    def test_failure(self) -> None:
        """Syncing a log fails if the disk fails, or if the log is gone."""

        def fail(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fsync", fail)
        for is_lost, error in ((False, OSError), (True, StoreReplaced)):
            self.use(f"{is_lost}.db")
            with self.subTest(is_lost=is_lost), self.writer(self.prepare()) as (writer, _):
                writer.write(spawned(PLAIN, [1]))
                self.pin()
                writer.write(spawned(PLAIN, [2]))
                if is_lost:
                    os.remove(self.path + "-wal")
                self.assertRaises(error, writer.sync)


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
