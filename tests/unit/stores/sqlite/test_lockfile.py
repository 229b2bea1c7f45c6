"""One server a database: who holds the lock, and how it is let go."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

from playerstate.interfaces import StoreUnusable
from playerstate.state.default import PlayerState
from playerstate.stores import open_store
from playerstate.stores.sqlite.lockfile import LockFile
from playerstate.stores.sqlite.store import SQLiteStore
from tests.kit.databases import DirectoryTestCase, environment, state_class, take
from tests.kit.support import PATIENCE

HOLDER = """
import sys
from playerstate.state.default import PlayerState
from playerstate.stores import open_store

store = open_store(sys.argv[1], PlayerState)
store.prepare()
print("held", flush=True)
sys.stdin.read()
"""


class LockTests(DirectoryTestCase):
    """``<database>.lock`` beside the database."""

    def setUp(self) -> None:
        """The lock's path."""
        super().setUp()
        self.lock_path = self.path + ".lock"

    def store(self, url: str | None = None) -> SQLiteStore:
        """A store that holds the database until the end of the test."""
        store = open_store(url or self.url, PlayerState)
        take(store)
        self.addCleanup(store.close)
        return store

    def refusal(self, url: str | None = None) -> str:
        """The one line of a store that finds the database in use."""
        with self.assertRaises(StoreUnusable) as caught:
            open_store(url or self.url, PlayerState).prepare()
        return self.assert_one_line(caught.exception)

    def in_use(self, process: object, path: str | None = None) -> str:
        """That line, as it is to be."""
        return (
            f"{path or self.path} is in use by process {process}; stop that server first, or name"
            " another database"
        )

    @contextlib.contextmanager
    def holder(self) -> Iterator[subprocess.Popen[bytes]]:
        """Another process that holds the database, until the end of its input."""
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, self.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        ) as process:
            try:
                self.assertEqual(process.stdout.readline(), b"held\n")
                yield process
            finally:
                process.kill()

    def open_files(self) -> set[str]:
        """What the file descriptors of this process lead to."""
        links = set()
        for fd in os.listdir("/proc/self/fd"):
            # One is of the descriptor over which the directory was read, which is closed.
            with contextlib.suppress(FileNotFoundError):
                links.add(os.readlink(f"/proc/self/fd/{fd}"))
        return links

    def test_second_process(self) -> None:
        """A database that another process serves is refused, by naming that process."""
        with self.holder() as process:
            self.assertEqual(self.refusal(), self.in_use(process.pid))

    def test_ended_process(self) -> None:
        """Once that process has ended, its database is free."""
        with self.holder() as process:
            process.communicate(timeout=PATIENCE)
            self.store()

    def test_killed_process(self) -> None:
        """The system lets go of the lock of a process that was killed."""
        with self.holder() as process:
            process.kill()
            process.wait(PATIENCE)
            self.store()

    def test_second_store(self) -> None:
        """A second store over the same database in one process is refused too."""
        self.store()
        self.assertEqual(self.refusal(), self.in_use(os.getpid()))

    def test_same_store_twice(self) -> None:
        """A store that is prepared twice finds itself."""
        store = self.store()
        self.assertRaises(StoreUnusable, store.prepare)
        store.close()
        self.store()

    def test_other_database(self) -> None:
        """Another database in the same directory is another lock."""
        self.store()
        self.store(f"{self.url}2")

    def test_symbolic_link(self) -> None:
        """All names of one database share a lock, which lies beside the file itself."""
        elsewhere = os.path.join(self.directory, "elsewhere")
        os.mkdir(elsewhere)
        alias = os.path.join(elsewhere, "alias.db")
        os.symlink(self.path, alias)
        store = self.store()
        self.assertEqual(
            self.refusal(f"sqlite:{alias}"), self.in_use(os.getpid(), os.path.realpath(alias))
        )
        store.close()
        self.store(f"sqlite:{alias}")
        self.assertEqual(self.refusal(), self.in_use(os.getpid()))
        self.assertEqual(os.listdir(elsewhere), ["alias.db"])

    def test_linked_directory(self) -> None:
        """So do names that lead through a linked directory."""
        alias = os.path.join(self.directory, "alias")
        os.symlink(self.directory, alias)
        self.store()
        path = os.path.join(alias, "players.db")
        self.assertEqual(
            self.refusal(f"sqlite:{path}"), self.in_use(os.getpid(), os.path.realpath(path))
        )

    def test_close(self) -> None:
        """A closed store has let go; the file stays, and names the last holder."""
        self.store().close()
        with open(self.lock_path) as file:
            self.assertEqual(file.read(), f"{os.getpid()}\n")
        self.store()

    def test_close_twice(self) -> None:
        """Letting go of what is not held does nothing."""
        lock = LockFile(self.path)
        lock.release()
        lock.take()
        lock.release()
        lock.release()
        self.assertNotIn(self.lock_path, self.open_files())

    def test_failed_prepare(self) -> None:
        """A store whose database is refused has let go of the lock."""
        self.sql("CREATE TABLE notes (note TEXT)")
        with self.assertRaises(StoreUnusable):
            open_store(self.url, PlayerState).prepare()
        self.assertNotIn(self.lock_path, self.open_files())
        self.sql("DROP TABLE notes")
        self.store()

    def test_failed_migration(self) -> None:
        """A store that cannot be fitted to the state class keeps the lock until it is closed."""
        self.store().close()
        store = open_store(self.url, state_class(x="text"))
        with self.assertRaises(StoreUnusable):
            take(store)
        self.assertEqual(self.refusal(), self.in_use(os.getpid()))
        store.close()
        self.assertNotIn(self.lock_path, self.open_files())
        self.store()

    def test_refused_lock_is_not_touched(self) -> None:
        """Who is refused leaves the holder's name where it is, and no file open."""
        store = self.store()
        self.refusal()
        self.assertEqual(self.refusal(), self.in_use(os.getpid()))
        store.close()
        self.assertNotIn(self.lock_path, self.open_files())

    def test_stale_content(self) -> None:
        """What a lock file held before is gone, however long it was."""
        with open(self.lock_path, "w") as file:
            file.write("99999999999999999999\nand more\n")
        self.store()
        with open(self.lock_path) as file:
            self.assertEqual(file.read(), f"{os.getpid()}\n")

    def test_nameless_holder(self) -> None:
        """A holder that has not yet written who it is, is told of as unknown."""
        with open(self.lock_path, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.assertEqual(self.refusal(), self.in_use("unknown"))

    def test_garbled_holder(self) -> None:
        """Whatever stands in a lock file, the message is a line."""
        with open(self.lock_path, "wb") as file:
            file.write(b"\xff\xfe\n")
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
            self.assertEqual(self.refusal(), self.in_use("\ufffd\ufffd"))

    def test_not_inherited(self) -> None:
        """A process that a server starts does not hold its lock."""
        lock = LockFile(self.path)
        lock.take()
        with subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        ) as process:
            process.stdout.readline()
            lock.release()
            self.store()
            process.communicate(b"\n", PATIENCE)

    def test_forked_child(self) -> None:
        """A child that outlives its parent's store does not keep the database."""
        store = self.store()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.close(writing)
                os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        try:
            self.assertIn("is in use", self.refusal())
            store.close()
            self.store()
        finally:
            os.close(writing)
            os.waitpid(child, 0)

    def test_lock_that_cannot_be_made(self) -> None:
        """Where the lock file cannot be made, the line says which and why."""
        os.mkdir(self.lock_path)
        self.assertEqual(
            self.refusal(),
            f"cannot create {self.lock_path}: Is a directory; the directory of a database must"
            " exist and be writable",
        )

    def test_file_system_without_locks(self) -> None:
        """Where the file system knows no locks, that is a line too, and no file stays open."""

        def flock(fd: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        self.patch(fcntl, "flock", flock)
        line = self.refusal()
        self.assertIn(self.lock_path, line)
        self.assertIn("No locks available", line)
        self.assertNotIn(self.lock_path, self.open_files())

    def test_full_disk(self) -> None:
        """Where the lock file cannot be written, that is a line too, and the lock is let go."""

        def write(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "write", write)
        line = self.refusal()
        self.assertIn(self.lock_path, line)
        self.assertIn("No space left on device", line)
        self.assertNotIn(self.lock_path, self.open_files())
