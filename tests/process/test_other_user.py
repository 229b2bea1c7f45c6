"""A server and a look as a user who may not do everything; the tests run as root, and step down."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playerstate import PlayerState, open_store
from tests.kit.processes import PATIENCE, run_to_end
from tests.process.test_server import ProcessTestCase

NOBODY = 65_534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
COMMAND = "from playerstate.cli import main; main()"


class OtherUserTestCase(ProcessTestCase):
    """Runs what it tests as nobody, in a directory that is nobody's."""

    def setUp(self) -> None:
        """Skip where this user cannot become another, or the other cannot get here."""
        super().setUp()
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can run a process as somebody else")
        if shutil.which(AS_NOBODY[0]) is None:
            raise unittest.SkipTest("setpriv, of util-linux, is not there")
        # The test's own directory may lie where root alone gets to.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        os.chmod(self.directory, 0o755)
        os.chown(self.directory, NOBODY, NOBODY)
        status, output = run_to_end(
            "/",
            self.directory,
            script="import os, sys, playerstate.tap; os.listdir(sys.argv[1])",
            by=AS_NOBODY,
        )
        if status:
            raise unittest.SkipTest(
                f"nobody cannot import the package, or get to a directory: {output[-200:]}"
            )

    def path(self, name: str) -> Path:
        """A file in the directory."""
        return Path(self.directory, name)


class RefusedStartTests(OtherUserTestCase):
    """A start that cannot be names the file that is in the way, and what to do."""

    def refused(self, *options: str) -> str:
        """The line."""
        status, output = run_to_end(
            self.directory, "-n", "--pidfile=", "playerstate", *options, by=AS_NOBODY
        )
        self.assertEqual(status, 1, output)
        self.assertNotIn("Traceback", output)
        [line] = [line for line in output.splitlines() if "playerstate: --" in line]
        return line

    @contextmanager
    def prepared(self, prepare: Callable[[], object]) -> Iterator[None]:
        """The directory as it is to be, and empty and nobody's again."""
        prepare()
        try:
            yield
        finally:
            shutil.rmtree(self.directory)
            os.mkdir(self.directory, 0o755)
            os.chown(self.directory, NOBODY, NOBODY)

    def database(self) -> None:
        """A database of nobody's."""
        store = open_store(f"sqlite:{self.path('players.db')}", PlayerState)
        store.prepare()
        store.migrate(bytes(16))
        store.close()
        for path in Path(self.directory).iterdir():
            os.chown(path, NOBODY, NOBODY)

    def test_files_of_others(self) -> None:
        """What another user left is named, be it the lock, the database or a file beside it."""
        for name, cause, remedy in (
            ("players.db.lock", "cannot open", "give the file to this user, or remove it"),
            ("players.db", "this user may not write", "run as the user who owns it"),
            ("players.db-wal", "this user may not write", "run as the user who owns it"),
            ("players.db-shm", "this user may not write", "run as the user who owns it"),
            ("players.db.live", "cannot read the live file", "a file that this user may read"),
        ):
            beside = name in ("players.db-wal", "players.db-shm")
            with self.subTest(name), self.prepared(self.database if beside else lambda: None):
                os.close(os.open(self.path(name), os.O_CREAT | os.O_WRONLY, 0o600))
                line = self.refused("--listen", "udp:0")
                self.assertIn(f"{cause} {self.directory}/{name}", line)
                self.assertIn(remedy, line)

    def test_directories(self) -> None:
        """A directory that may not be written, or is not there, is told with what it must be."""
        with self.prepared(lambda: os.chown(self.directory, 0, 0)):
            line = self.refused("--listen", "udp:0")
            self.assertIn(f"{self.directory}/players.db.lock: Permission denied", line)
            self.assertIn("must exist and be writable", line)
        line = self.refused("--listen", "udp:0", "--live-file", "nowhere/moves")
        self.assertIn("nowhere/moves", line)
        self.assertIn("its directory must exist and be writable", line)

    def test_low_port(self) -> None:
        """A port that only root may have."""
        lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
        if lowest <= 80:
            raise unittest.SkipTest("this system gives every port to every user")
        line = self.refused("--listen", "udp:80")
        self.assertIn("udp:80:interface=127.0.0.1: cannot listen there: Permission denied", line)
        self.assertIn("name a port from 1024 up", line)


class LookTests(OtherUserTestCase):
    """`playerstate show` by a user who may read alone, beside a server of another."""

    def show(self) -> tuple[int, str]:
        """Its status, and what it says of player 42."""
        return run_to_end(
            self.directory, "show", "sqlite:players.db", "42", script=COMMAND, by=AS_NOBODY
        )

    def test_beside_a_server(self) -> None:
        """It sees what lies in the log as yet, and names the file that it may not read."""
        server = self.serve("--save-within", "0.1")
        os.chown(self.directory, 0, 0)
        player = self.player(server, 42)
        player.join()
        player.move(3.25, 4.5)
        player.leave()
        for name in ("players.db", "players.db-wal", "players.db-shm"):
            os.chmod(self.path(name), 0o644)
        self.assertGreater(self.path("players.db-wal").stat().st_size, 0)
        status, output = self.show()
        self.assertEqual(status, 0, output)
        self.assertIn("3.25", output)
        for name in ("players.db", "players.db-wal", "players.db-shm"):
            with self.subTest(name):
                os.chmod(self.path(name), 0o600)
                status, output = self.show()
                self.assertEqual(status, 1)
                self.assertIn(f"this user may not read {self.directory}/{name}; give", output)
                os.chmod(self.path(name), 0o644)
        os.chmod(self.directory, 0o700)
        _, output = run_to_end(
            "/", "show", f"sqlite:{self.directory}/players.db", script=COMMAND, by=AS_NOBODY
        )
        self.assertIn("cannot be reached: Permission denied", output)


class LogTests(OtherUserTestCase):
    """``twistd --uid``, which opens its log before it changes the user."""

    def start(self) -> int:
        """Start a server as root that goes on as nobody; its process id."""
        status, output = run_to_end(
            self.directory,
            *("--logfile=log", "--pidfile=server.pid", f"--uid={NOBODY}", f"--gid={NOBODY}"),
            *("playerstate", "--listen", "udp:0"),
        )
        self.assertEqual((status, output), (0, ""))
        pid = int(self.path("server.pid").read_text())
        self.addCleanup(self.end, pid)
        self.wait_until(lambda: "listening on" in self.path("log").read_text())
        return pid

    def end(self, pid: int) -> None:
        """End it, if it is still there."""
        if self.path("server.pid").exists():
            os.kill(pid, signal.SIGTERM)
            self.wait_until(lambda: not self.path("server.pid").exists())

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Poll for something that another process does."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def test_log_of_roots(self) -> None:
        """A log that SIGUSR1 will not rotate is told of at the start."""
        self.start()
        log = self.path("log").read_text()
        self.assertIn(f"may not write {self.directory}/log or its directory", log)

    def test_log_of_its_own(self) -> None:
        """A log of the server's own user is rotated, without a word before."""
        self.path("log").touch()
        os.chown(self.path("log"), NOBODY, NOBODY)
        pid = self.start()
        self.assertNotIn("SIGUSR1", self.path("log").read_text())
        os.kill(pid, signal.SIGUSR1)
        self.wait_until(self.path("log.1").exists)
        self.end(pid)
        self.assertIn("stopped: ", self.path("log").read_text())
