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

from playerstate import testing
from playerstate.interfaces import (
    IStateStore,
    StoreBusy,
    Stored,
    StoreReplaced,
    StoreUnusable,
)
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema
from playerstate.stores import browse_store, open_store
from playerstate.stores.sqlite import store as sqlite
from tests.kit.databases import (
    IDENTITY,
    PLAIN,
    DirectoryTestCase,
    connections,
    digest,
    records,
    spawned,
    state_class,
    take,
)
from tests.kit.sqlite_stores import (
    FormatTestCase,
    InUseTestCase,
    StoreTestCase,
)
from tests.kit.support import PATIENCE, Everything


class SQLiteStoreTests(testing.StoreContract, DirectoryTestCase):
    """Players in a SQLite database."""

    options = ""

    def open(self, schema: StateSchema) -> IStateStore:
        """A store over the same file each time."""
        return open_store(self.url + self.options, schema)

    def refuse(self, session_id: int) -> None:
        """See `StoreContract.refuse`; by a trigger."""
        for event in ("INSERT", "UPDATE"):
            self.sql(
                f"CREATE TRIGGER refuse_{event}_{session_id} BEFORE {event} ON player_state"
                f" WHEN NEW.session_id = {session_id}"
                " BEGIN SELECT RAISE(ABORT, 'not that one'); END"
            )

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
    many = 100_000


class PrepareTests(FormatTestCase):
    """The look that a start takes before it changes anything."""

    def look(self, state: Any) -> None:
        """Look, and let go; the bytes of the file and those beside it stay as they were."""
        before, beside = digest(self.path), sorted(os.listdir(self.directory))
        with closing(open_store(self.url, state)) as store:
            store.prepare()
            self.assertEqual(digest(self.path), before)
        self.assertEqual(digest(self.path), before)
        self.assertEqual(sorted(os.listdir(self.directory)), beside)

    def test_changes_nothing(self) -> None:
        """It changes no byte, whichever class the database is to be fitted to."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        for state in (PlayerState, Everything, state_class(x="text")):
            self.look(state)

    def test_leaves_the_mode(self) -> None:
        """A copy that SQLite made, which has no write-ahead log, is not given one yet."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        copy = os.path.join(self.directory, "copy.db")
        self.sql("VACUUM INTO ?", copy)
        self.use("copy.db")
        open(self.path + ".lock", "wb").close()
        self.look(Everything)
        self.assertEqual(self.sql("PRAGMA journal_mode"), [("delete",)])

    def test_refused_migration(self) -> None:
        """A migration that is refused after the look leaves every byte as it was."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        with closing(open_store(self.url, state_class(x="text", hp=1))) as store:
            store.prepare()
            before = digest(self.path)
            self.assertRaises(StoreUnusable, store.migrate, IDENTITY)
            self.assertEqual(digest(self.path), before)
        self.assertEqual(digest(self.path), before)

    def test_refused_migration_of_a_copy(self) -> None:
        """So does one of a copy that SQLite made, which has no write-ahead log yet."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        self.sql("VACUUM INTO ?", os.path.join(self.directory, "copy.db"))
        self.use("copy.db")
        self.refusal(state_class(x="text"))

    def test_players_of_a_crash(self) -> None:
        """What lies in the log of a server that was killed is neither lost nor passed over."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        killed = os.path.join(self.directory, "killed.db")
        with closing(apsw.Connection(self.path)) as connection:
            connection.execute("UPDATE player_state SET x = 9.0")
            connection.execute("UPDATE player_store SET identity = ?", (b"k" * 16,))
            for suffix in ("", "-wal"):
                shutil.copyfile(self.path + suffix, killed + suffix)
        self.use("killed.db")
        with closing(open_store(self.url, PlayerState)) as store:
            self.assertEqual(store.prepare(), b"k" * 16)
        self.assertEqual(self.sql("SELECT x FROM player_state"), [(9.0,)])

    def test_damaged_page(self) -> None:
        """Damage to any page is found here, not by the player who needs it, and nothing is done."""
        schema = StateSchema.of(PlayerState)
        self.save(schema, *((session_id, 0.0, 0.0, 1) for session_id in range(1, 3001)))
        pages = os.path.getsize(self.path) // 4096
        self.assertGreater(pages, 10)
        with open(self.path, "rb") as file:
            whole = file.read()
        for page in range(1, pages):
            with open(self.path, "wb") as file:
                file.write(whole[: page * 4096] + b"\xff" * 4096 + whole[(page + 1) * 4096 :])
            before = digest(self.path)
            store = open_store(self.url, PlayerState)
            with self.assertRaises(StoreUnusable) as caught:
                store.prepare()
            line = str(caught.exception)
            self.assertTrue(line.startswith(f"{self.path} is damaged ("), line)
            self.assertIn("it was left as it is: put a backup in its place, or save", line)
            self.assertIn(f"sqlite3 {self.path} .recover | sqlite3 new.db", line)
            self.assertEqual(digest(self.path), before)
        self.write_back(whole)
        self.prepare()

    def write_back(self, content: bytes) -> None:
        """Put a backup in its place."""
        with open(self.path, "wb") as file:
            file.write(content)


class ConnectionTests(StoreTestCase):
    """How the two connections are set up, and that neither waits for the other."""

    def test_write_ahead_log(self) -> None:
        """The database is in WAL mode."""
        self.prepare()
        self.assertEqual(self.sql("PRAGMA journal_mode"), [("wal",)])

    def test_synchronous(self) -> None:
        """A commit is on disk before it is reported, unless the URL leaves that to the system."""
        for options, expected in (("", 2), ("?synchronous=full", 2), ("?synchronous=normal", 1)):
            self.use(f"{len(options)}.db")
            with self.writer(self.prepare(options=options)) as (_, connection):
                self.assertEqual(connection.pragma("synchronous"), expected, options)

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

    def test_busy(self) -> None:
        """Loading and opening a writer may be retried while another program holds the database."""
        store = self.prepare()
        other = self.by_hand()
        other.pragma("locking_mode", "exclusive")
        other.execute("BEGIN EXCLUSIVE")
        with connections() as opened:
            self.assertRaises(StoreBusy, store.open_writer)
        self.assert_closed(*opened)
        with self.reader(store) as (reader, _):
            self.assertRaises(StoreBusy, reader.load, 1)
            other.close()
            self.assertIsNone(reader.load(1))
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

    def test_path_and_options(self) -> None:
        """The path goes up to the options; colons and percent signs in it mean nothing."""
        for rest, expected in (
            ("/a.db", ("/a.db", "full")),
            ("/a.db?", ("/a.db", "full")),
            ("/a.db?synchronous=full", ("/a.db", "full")),
            ("/a.db?synchronous=normal", ("/a.db", "normal")),
            ("/games/a:b%20c.db", ("/games/a:b%20c.db", "full")),
        ):
            store = open_store(f"sqlite:{rest}", PLAIN)
            self.assertEqual((store.path, store.synchronous), expected)

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

    def test_removed_by_another_first(self) -> None:
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
        """A database that was removed is created again; lost is each player who is not online."""
        for ids, suffixes, online, lost in (
            ((1, 2, 3, 4, 5), ("",), {2, 4, 6}, [1, 3, 5]),
            (range(1, 2000), ("", "-wal", "-shm"), set(range(3, 2000)), [1, 2]),
            ((), ("",), set(), []),
        ):
            with self.subTest(suffixes=suffixes, players=len(ids)):
                self.use(f"{len(ids)}.db")
                self.begin()
                if ids:
                    self.write(*ids)
                    self.saver.maintain()
                self.remove(*suffixes)
                self.assertEqual(self.go_over(online=online), lost)
                self.assertIsNone(self.loader.load(1))
                self.assert_in_use()

    def test_reopen_removed_after_a_checkpoint(self) -> None:
        """So it is where players are in the database and in its log."""
        self.write(*range(1, 2000))
        self.saver.sync()
        self.write(1, 5000, updated_at=11)
        self.remove("")
        self.assertEqual(self.go_over(online=set(range(3, 2000))), [1, 2, 5000])
        self.assert_in_use()

    def test_reopen_older_copy(self) -> None:
        """With an older copy, lost is each player who changed since or is not in it.

        A copy that is put beside the log of the database before it gets nothing from that log.
        """
        for suffixes in ((), ("-wal", "-shm")):
            with self.subTest(suffixes=suffixes):
                self.use(f"{len(suffixes)}.db")
                self.begin()
                self.write(1, 2, 3, updated_at=5)
                copy = self.copy(f"{len(suffixes)}.copy")
                self.write(2, 3, 4, 5, updated_at=10)
                self.saver.maintain()
                self.remove(*suffixes)
                os.replace(copy, self.path)
                self.assertEqual(self.go_over(online={3, 5}), [2, 4])
                self.assertEqual(self.loader.load(2).updated_at, 5)
                self.assertEqual(self.loader.load(1).updated_at, 5)
                self.assertIsNone(self.loader.load(4))
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
        """Without the log or its index no player is lost: our connections have them open."""
        for suffixes in (("-wal",), ("-shm",), ("-wal", "-shm")):
            with self.subTest(suffixes=suffixes):
                self.use(f"{''.join(suffixes)}.db")
                self.begin()
                self.write(*range(1, 2000))
                self.saver.sync()
                self.write(1, 2, updated_at=11)
                self.saver.maintain()
                self.remove(*suffixes)
                self.assertEqual(self.go_over(), [])
                self.assertEqual(self.loader.load(1).updated_at, 11)
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

    def test_reopen_does_not_wait(self) -> None:
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
