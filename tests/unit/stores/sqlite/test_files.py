"""The files of a database: which are refused, their locks, the SQLite that opens them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing

import apsw

from playerstate.interfaces import (
    StoreUnusable,
)
from playerstate.state.default import PlayerState
from playerstate.stores import browse_store, open_store
from playerstate.stores.sqlite import store as sqlite
from playerstate.stores.sqlite.files import explained, may_be_database
from playerstate.stores.sqlite.format import (
    APPLICATION_ID,
)
from tests.kit.databases import (
    PLAIN,
    DirectoryTestCase,
    connections,
    environment,
    records,
    take,
)
from tests.kit.sqlite_stores import FormatTestCase, StoreTestCase, with_text
from tests.kit.support import PATIENCE

PROBE = """
import fcntl, sys
for path, start, length in ((sys.argv[1], 0x40000000, 512), (sys.argv[1] + "-shm", 120, 9)):
    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
            print("free")
        except BlockingIOError:
            print("held")
"""
"""Asks for all the bytes that SQLite locks, in the database and in the index of its log."""


class RefusalTests(FormatTestCase):
    """Files that SQLite cannot use, each told in one line."""

    def write_file(self, content: bytes) -> None:
        """Put this where the database would be."""
        with open(self.path, "wb") as file:
            file.write(content)

    def test_not_a_database(self) -> None:
        """A file that is no database is refused before anything is done beside it."""
        for content in (b"x", b"SQLite format 3", b"a letter to the players\n" * 1000, bytes(4096)):
            self.write_file(content)
            self.assertEqual(
                self.refusal(),
                f"{self.path} is not a SQLite database; it was left as it is: name another file",
            )
            self.assertEqual(os.listdir(self.directory), ["players.db"])

    def test_header_alone(self) -> None:
        """A file that only begins as a database does is refused."""
        self.write_file(b"SQLite format 3\0" + b"\xff" * 4080)
        self.assertIn("is not a SQLite database; it was left as it is", self.refusal())

    def test_damaged(self) -> None:
        """A damaged database is refused, with what to do."""
        self.save(with_text(16), (1, "a", 10))
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096)
        line = self.refusal(with_text(16))
        self.assertTrue(line.startswith(f"{self.path} is damaged ("), line)
        self.assertTrue(
            line.endswith(
                "); it was left as it is: put a backup in its place, or save what can be read with:"
                f" sqlite3 {self.path} .recover | sqlite3 new.db"
            ),
            line,
        )

    def test_log_that_cannot_be_opened(self) -> None:
        """Where SQLite cannot open its files, the line says of which kind they must be."""
        self.prepare()
        os.mkdir(self.path + "-wal")
        line = self.refusal()
        self.assertTrue(line.startswith(f"{self.path} cannot be opened ("), line)
        self.assertTrue(line.endswith("in a directory that this user may write"), line)

    def test_disk_at_fault(self) -> None:
        """What the disk refuses is told with what to look at."""
        for error in (apsw.FullError("database or disk is full"), apsw.IOError("disk I/O error")):
            with self.assertRaises(StoreUnusable) as caught, explained(self.path):
                raise error
            line = str(caught.exception)
            self.assertEqual(
                line,
                f"{self.path} cannot be used: {error}; check that its disk has room and is not"
                " faulty",
            )

    def test_view(self) -> None:
        """What SQLite itself cannot do is told in its words."""
        self.sql(
            f"CREATE VIEW player_state AS SELECT 1 AS session_id; PRAGMA journal_mode = wal;"
            f"PRAGMA application_id = {APPLICATION_ID}"
        )
        line = self.refusal()
        self.assertTrue(line.startswith(f"{self.path} cannot be used: "), line)

    def test_locked(self) -> None:
        """A database that another program keeps locked is refused once patience has ended."""
        self.patch(sqlite, "STARTUP_BUSY_MS", 0)
        self.prepare()
        self.by_hand().execute("BEGIN IMMEDIATE")
        with self.assertRaises(StoreUnusable) as caught:
            self.prepare()
        self.assertEqual(
            self.assert_one_line(caught.exception),
            f"{self.path} is locked by another program; end it, or name another file",
        )

    def test_patience(self) -> None:
        """A start waits 5 seconds for another program's transaction to end."""
        self.assertEqual(sqlite.STARTUP_BUSY_MS, 5000)

    def assert_no_place(self, url: str) -> str:
        """The one line for a path where no database can be."""
        with self.assertRaises(StoreUnusable) as caught:
            open_store(url, PlayerState).prepare()
        return self.assert_one_line(caught.exception)

    def test_directory(self) -> None:
        """A directory is refused, and no lock is left beside it."""
        self.assertIn(self.directory, self.assert_no_place(f"sqlite:{self.directory}"))
        self.assertNotIn(
            os.path.basename(self.directory) + ".lock", os.listdir(os.path.dirname(self.directory))
        )

    def test_missing_directory(self) -> None:
        """A path in a directory that is missing is refused, and nothing is made."""
        self.assertEqual(
            self.assert_no_place(f"sqlite:{self.directory}/missing/players.db"),
            f"cannot create {self.directory}/missing/players.db.lock: No such file or directory;"
            " the directory of a database must exist and be writable",
        )
        self.assertEqual(os.listdir(self.directory), [])

    def test_below_a_file(self) -> None:
        """A path below a file is refused, and the file stays as it is."""
        self.write_file(b"x")
        self.assertIn("Not a directory", self.assert_no_place(f"{self.url}/players.db"))
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"x")


class LocksTests(DirectoryTestCase):
    """What a running server does with its files."""

    def probe(self) -> list[str]:
        """What another process gets that asks for the files for itself alone."""
        done = subprocess.run(
            [sys.executable, "-c", PROBE, self.path],
            env=environment(),
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=True,
            text=True,
        )
        return done.stdout.split()

    def test_survive(self) -> None:
        """Nothing that is done with the files lets another process have the database."""
        store = open_store(self.url, PlayerState)
        take(store)
        with closing(store.open_writer()) as writer, closing(store.open_reader()) as reader:
            writer.write(records(PLAIN, (1, 1.0, 2.0, 200)))
            self.assertEqual(self.probe(), ["held", "held"])
            writer.maintain()
            writer.sync()
            writer.maintain()  # the file is another than at the last look
            self.assertEqual(self.probe(), ["held", "held"])
            reader.copy_to(f"{self.path}.copy")
            with closing(browse_store(self.url)) as browser:
                self.assertEqual(browser.count(), 1)
            self.assertTrue(may_be_database(self.path))
            with self.assertRaises(StoreUnusable):
                open_store(self.url, PlayerState).prepare()
            writer.quarantine(records(PLAIN, (2, 1.0, 2.0, 200)), ["cursed"])
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            self.assertEqual(self.probe(), ["held", "held"])
            self.assertIsNotNone(reader.load(1))
        store.close()

    def test_probe(self) -> None:
        """A plain close of the file is what lets go of it, so the test above can fail."""
        store = open_store(self.url, PlayerState)
        take(store)
        self.addCleanup(store.close)
        with closing(store.open_writer()) as writer:
            writer.write(records(PLAIN, (1, 1.0, 2.0, 200)))
            open(self.path, "rb").close()
            self.assertEqual(self.probe(), ["free", "held"])


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
