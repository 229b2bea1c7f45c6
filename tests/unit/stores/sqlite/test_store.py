"""The SQLite store: its two ends, what a URL says, and reopening a replaced database."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from contextlib import closing
from typing import Any

import apsw
import numpy as np

from playerstate.interfaces import (
    IStateStore,
    StoreBusy,
    Stored,
    StoreReplaced,
    StoreUnusable,
)
from playerstate.state.schema import StateSchema
from playerstate.stores import browse_store, open_store
from playerstate.stores.sqlite import store as sqlite
from tests.kit.databases import (
    PLAIN,
    DirectoryTestCase,
    connections,
    digest,
    records,
    spawned,
    state_class,
    take,
)
from tests.kit.sqlite_stores import InUseTestCase, StoreTestCase, pause_in_a_statement
from tests.kit.store_contract import StoreContract
from tests.kit.support import PATIENCE


class SQLiteStoreTests(StoreContract, DirectoryTestCase):
    """Players in a SQLite database."""

    options = ""

    def open(self, schema: StateSchema) -> IStateStore:
        """A store over the same file each time."""
        return open_store(self.url + self.options, schema)

    def test_file(self) -> None:
        """The file is known before it is there."""
        self.assertEqual(self.open(PLAIN).path, self.path)

    def test_identity_of_a_new_store(self) -> None:
        """A store that was never given an identity has one of 16 zeros."""
        store = self.open(PLAIN)
        self.addCleanup(store.close)
        self.assertEqual(store.prepare(), bytes(16))


class SQLiteNormalTests(SQLiteStoreTests):
    """The same, with commits left to the system."""

    options = "?synchronous=normal"


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


class OptionsTests(DirectoryTestCase):
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


class ReopenTests(InUseTestCase):
    """A database that was removed or replaced, opened again."""

    def test_close(self) -> None:
        """A writer whose database is gone closes, and makes no file."""
        self.write(1)
        for name in os.listdir(self.directory):
            os.remove(os.path.join(self.directory, name))
        self.assertRaises(StoreReplaced, self.saver.maintain)
        self.saving.close()
        self.loading.close()
        self.assertEqual(os.listdir(self.directory), [])

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

    def test_index_removed(self) -> None:
        """An index of the log that was removed is noticed, and nobody is lost."""
        self.write(1)
        self.saver.maintain()
        self.remove("-shm")
        self.assertEqual(self.go_over(), [])
        self.assertEqual(self.loader.load(1).updated_at, 10)
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
