"""What the tests of the SQLite store share: stores, their ends, and databases in use."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import apsw
import attrs

from playerstate.interfaces import (
    IStateReader,
    IStateWriter,
    Stored,
    StoreReplaced,
    StoreUnusable,
)
from playerstate.state.default import PlayerState
from playerstate.state.schema import text
from playerstate.stores import open_store
from playerstate.stores.sqlite.store import SQLiteStore
from tests.kit.databases import (
    PLAIN,
    DirectoryTestCase,
    connections,
    digest,
    records,
    spawned,
    take,
)
from tests.kit.support import PATIENCE


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

    def pin(self) -> apsw.Connection:
        """A connection amid a read transaction, which keeps the log from being reset."""
        other = self.by_hand()
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM player_state").fetchall()
        return other

    def amid_checkpoint(self, act: Callable[[], object]) -> None:
        """Do this while another program's checkpoint of the log has begun and not ended."""
        done: list[object] = []

        def act_once(tries: int) -> bool:
            done.append(act())
            return False

        with closing(self.by_hand()) as writing, closing(self.by_hand()) as copying:
            copying.execute("SELECT count(*) FROM player_state").fetchall()  # finds the log
            copying.set_busy_handler(act_once)
            writing.execute("BEGIN IMMEDIATE")
            # It has begun when it waits for the one who writes.
            with self.assertRaises(apsw.BusyError):
                copying.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
            self.assertEqual(len(done), 1)

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


class InUseTestCase(StoreTestCase):
    """A test over a database that a reader and a writer have open.

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

    def remove(self, *suffixes: str) -> None:
        """Remove the database's files of these names, where they are."""
        for suffix in suffixes:
            if os.path.exists(self.path + suffix):
                os.remove(self.path + suffix)

    def assert_replaced(self, path: str) -> None:
        """Maintenance finds that this file is not what it was, each time it looks."""
        for _ in range(2):
            with self.assertRaises(StoreReplaced) as caught:
                self.saver.maintain()
            self.assertEqual(str(caught.exception), f"{path} was removed or replaced")

    def assert_noticed(self, what: str) -> None:
        """Maintenance says so, and again where it is asked again."""
        for _ in range(2):
            with self.assertRaisesRegex(StoreReplaced, what):
                self.saver.maintain()

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

    def refused(self) -> str:
        """The one line with which what is there now is refused; it is left as it is."""
        before = digest(self.path)
        with self.assertRaises(StoreUnusable) as caught:
            self.store.reopen(b"n" * 16, frozenset())
        self.assertEqual(digest(self.path), before)
        return self.assert_one_line(caught.exception)

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

    def elsewhere(self, script: str, *arguments: str) -> None:
        """Another process does this with the database."""
        subprocess.run(
            [sys.executable, "-c", f"import apsw, sys; {script}", self.path, *arguments],
            check=True,
            timeout=PATIENCE,
        )


def with_text(size: int) -> type:
    """A state class whose one field is a text of so many bytes."""
    return attrs.make_class(
        "Made", {"name": attrs.field(default="", type=str, metadata=text(size))}, frozen=True
    )


class FormatTestCase(DirectoryTestCase):
    """A test over a database that is prepared for one state class after another."""

    def prepare(self, state: Any = PlayerState) -> None:
        """Prepare the database for this class, and let go of it."""
        with closing(open_store(self.url, state)) as store:
            take(store)

    def refusal(self, state: Any = PlayerState) -> str:
        """The one line with which the database is refused; its bytes stay as they were."""
        before = digest(self.path)
        with self.assertRaises(StoreUnusable) as caught:
            self.prepare(state)
        self.assertEqual(digest(self.path), before)
        return self.assert_one_line(caught.exception)

    def save(self, state: Any, *players: tuple[Any, ...]) -> None:
        """Prepare the database for this class, and save players."""
        store = open_store(self.url, state)
        take(store)
        with closing(store), closing(store.open_writer()) as writer:
            self.assertEqual(len(writer.write(records(store.schema, *players))), 0)

    def load(self, state: Any, session_id: int) -> Stored | None:
        """Prepare the database for this class, and load a player."""
        store = open_store(self.url, state)
        take(store)
        with closing(store), closing(store.open_reader()) as reader:
            return reader.load(session_id)

    def columns(self) -> list[tuple[str, str, int, str | None]]:
        """Name, declared type, whether it is NOT NULL, and default of each column."""
        return self.sql(
            'SELECT name, type, "notnull", dflt_value FROM pragma_table_xinfo(?)', "player_state"
        )
