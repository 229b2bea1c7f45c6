"""What goes wrong with disks, files, other programs and ourselves: brought about by real means."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate import PlayerState, StateSchema
from playerstate.interfaces import Records, StoreBusy, StoreUnusable
from playerstate.saving import in_hand
from playerstate.saving import persister as persister_module
from playerstate.saving.commit import NotSaved
from playerstate.saving.persister import Persister
from playerstate.stores.sqlite import store as sqlite
from playerstate.stores.sqlite import writer as sqlite_writer
from playerstate.stores.sqlite.store import SQLiteStore, SQLiteWriter
from playerstate.testing import FaultyStore
from tests.kit.crash_live import LiveService, LogLines
from tests.kit.crash_load import Crowd, Process
from tests.kit.support import UNMEASURED

SCHEMA = StateSchema.of(PlayerState)
SAVE_WITHIN = 0.3

HOLDER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(10_000)
connection.execute(sys.argv[2])
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
connection.close()
"""


class FaultTestCase(SynchronousTestCase):
    """A directory, services on a database in it, and the log."""

    def setUp(self) -> None:
        """An empty directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.database = f"{self.directory}/players.db"
        self.log = LogLines()
        self.log.start()
        self.addCleanup(self.log.stop)

    def live(self, store: Any = None, **options: Any) -> LiveService:
        """A service that is running, and is stopped after the test."""
        options.setdefault("stop_within", 1.0)
        if store is None:
            store = SQLiteStore(self.database, SCHEMA)
        live = LiveService(store, save_within=SAVE_WITHIN, **options)
        self.addCleanup(live.stop)
        return live

    def connect(self) -> apsw.Connection:
        """A connection of our own."""
        connection = apsw.Connection(self.database)
        self.addCleanup(connection.close)
        return connection

    def rows(self) -> dict[int, tuple[float, float]]:
        """What the database at its path holds."""
        connection = apsw.Connection(self.database)
        try:
            rows = connection.execute("SELECT session_id, x, y FROM player_state")
            return {session_id: (x, y) for session_id, x, y in rows}
        finally:
            connection.close()

    def move(self, live: LiveService, x: float, *session_ids: int) -> None:
        """Move players, which always works."""
        for session_id in session_ids:
            live.service.update(session_id, PlayerState(x, float(session_id)))
            self.assertEqual(live.service.state(session_id).x, x)

    def degraded(self, live: LiveService, *parts: str) -> None:
        """Wait until the service says that it is, and why and for how long."""
        live.until(lambda: live.service.trouble)
        trouble = live.service.trouble
        for part in parts:
            self.assertIn(part, trouble.why)
        self.assertGreater(trouble.seconds, SAVE_WITHIN)
        live.until(lambda: self.log.having("degraded: nothing has been saved for"))
        self.assertEqual(live.snapshot().degraded, live.service.trouble.why)
        self.assertGreater(live.snapshot().degraded_seconds, SAVE_WITHIN)

    def recovered(self, live: LiveService) -> None:
        """Wait until it is no longer, with everything saved and accounted for."""
        live.until(lambda: live.service.trouble is None and live.snapshot().pending == 0)
        live.until(lambda: self.log.having("no longer degraded"))
        self.assertEqual(live.snapshot().imbalance(), [])

    def mount(self, options: str) -> None:
        """A file system of its own in the directory."""
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.directory], capture_output=True
        )
        if mounted.returncode:
            raise SkipTest("a file system can only be mounted by root")
        self.addCleanup(subprocess.run, ["umount", "-l", self.directory], check=True)

    def serve(self, *options: str, **others: Any) -> Process:
        """A server in a process of its own."""
        server = Process(self.directory, *options, **others)
        self.addCleanup(server.kill)
        return server

    def crowd(self, server: Process, players: int = 8) -> Crowd:
        """Players on that server."""
        crowd = Crowd(players, random.Random(7))
        self.addCleanup(crowd.close)
        crowd.connect(server.listening())
        self.assertEqual(crowd.join(), [])
        return crowd

    def play_until(self, crowd: Crowd, condition: Callable[[], object], what: object) -> None:
        """Move on until something holds."""
        deadline = time.monotonic() + 20.0
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            crowd.play(0.02, rest=0.005)

    def refused_start(self, *options: str) -> str:
        """The one line of a server that does not start."""
        server = self.serve(*options)
        self.assertEqual(server.ended(), 1)
        self.assertNotIn("Traceback", server.output)
        (line,) = (line for line in server.output.splitlines() if "playerstate: " in line)
        return line


class RoomTests(FaultTestCase):
    """No room, for a while."""

    def test_full_disk(self) -> None:
        """While the disk is full moves go on; when there is room everything is saved."""
        self.mount("size=3m")
        server = self.serve("--save-within", "0.3", "--max-players", "1000")
        crowd = self.crowd(server)
        self.play_until(crowd, lambda: min(crowd.saved.values()) > 0, server)
        ballast = os.open(f"{self.directory}/ballast", os.O_CREAT | os.O_WRONLY)
        self.addCleanup(os.close, ballast)

        def full() -> bool:
            # The server empties its log and so makes room for itself: take that, too.
            with contextlib.suppress(OSError):
                while os.write(ballast, bytes(4096)):
                    pass
            return "degraded: nothing" in server.output

        self.play_until(crowd, full, server)
        applied, saved = dict(crowd.applied), dict(crowd.saved)
        crowd.play(0.5, rest=0.005)
        for session_id in crowd.session_ids:
            self.assertGreater(crowd.applied[session_id], applied[session_id])
            self.assertEqual(crowd.saved[session_id], saved[session_id])
        self.assertIn("full", server.output)
        os.ftruncate(ballast, 0)
        self.play_until(crowd, lambda: crowd.saved[1] > applied[1], server.output)
        self.play_until(crowd, lambda: "no longer degraded" in server.output, server.output)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.ended(), -signal.SIGTERM)
        crowd.listen()
        self.assertEqual(
            {session_id: crowd.numbers[session_id][row] for session_id, row in self.rows().items()},
            crowd.saved,
        )
        self.assertGreater(min(crowd.saved.values()), max(applied.values()) - 50)

    def test_limit_of_a_file(self) -> None:
        """A limit on the size of files (``ulimit -f``), set and taken away while it runs."""
        server = self.serve("--save-within", "0.3")
        crowd = self.crowd(server)
        self.play_until(crowd, lambda: min(crowd.saved.values()) > 0, server)
        pid = server.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
        self.play_until(crowd, lambda: "degraded: nothing" in server.output, server.output)
        applied = dict(crowd.applied)
        self.play_until(
            crowd, lambda: all(crowd.applied[i] > applied[i] for i in applied), server.output
        )
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        self.play_until(crowd, lambda: crowd.saved[1] > applied[1], server.output)
        self.play_until(crowd, lambda: "no longer degraded" in server.output, server.output)

    def test_limit_from_the_start(self) -> None:
        """A limit that leaves no room for the live file is a refusal to start; without it the
        log is emptied time and again, and the moves are saved."""
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
        server = self.serve(preexec=limit, environment=UNMEASURED)
        self.assertEqual(server.ended(), 1)
        self.assertIn("cannot make the live file", server.output)
        self.assertNotIn("Traceback", server.output)
        self.assertEqual([n for n in os.listdir(self.directory) if "live" in n], [])
        server = self.serve(
            "--save-within=0.1", "--live-file=none", preexec=limit, environment=UNMEASURED
        )
        crowd = self.crowd(server)
        self.play_until(crowd, lambda: "failed" in server.output, server.output)
        applied = dict(crowd.applied)
        self.play_until(
            crowd, lambda: all(crowd.saved[i] > applied[i] for i in applied), server.output
        )


class UnwritableTests(FaultTestCase):
    """A database that cannot be written."""

    def test_read_only_at_start(self) -> None:
        """On a read-only file system the server does not start, and says why in one line."""
        self.mount("size=4m")
        live = self.live()
        live.join(1)
        self.move(live, 1.0, 1)
        live.stop()
        remount = subprocess.run(["mount", "-o", "remount,ro", self.directory])
        self.assertEqual(remount.returncode, 0)
        server = Process(
            os.path.dirname(self.directory),
            "--store",
            f"sqlite:{self.database}",
            "--live-file=none",
        )
        self.addCleanup(server.kill)
        self.assertEqual(server.ended(), 1)
        self.assertNotIn("Traceback", server.output)
        self.assertIn("Read-only file system", server.output)

    def immutable(self, *paths: str) -> Callable[[], None]:
        """Make files immutable, even for those who have them open; returns what undoes it."""

        def undo() -> None:
            subprocess.run(["chattr", "-i", *paths], capture_output=True)

        probe = f"{self.directory}/probe"
        self.addCleanup(subprocess.run, ["chattr", "-i", probe], capture_output=True)
        self.addCleanup(undo)
        with open(probe, "wb", buffering=0) as file:
            file.write(b"0")
            try:
                done = subprocess.run(["chattr", "+i", probe], capture_output=True).returncode == 0
                if done:
                    file.write(b"1")
                    done = False
            except PermissionError:
                pass
            except FileNotFoundError:
                done = False
        if not done:
            raise SkipTest("no file can be made immutable here")
        subprocess.run(["chattr", "+i", *paths], check=True, capture_output=True)
        return undo

    def test_read_only_while_running(self) -> None:
        """Files that become unwritable are a fault until they are writable again."""
        live = self.live()
        live.join(1, 2)
        self.move(live, 1.0, 1, 2)
        live.flush()
        undo = self.immutable(self.database, f"{self.database}-wal")
        self.move(live, 2.0, 1, 2)
        self.degraded(live)
        self.move(live, 3.0, 1)
        self.assertEqual(live.result(live.service.join(3)).restored, False)
        undo()
        self.recovered(live)
        self.assertEqual(self.rows(), {1: (3.0, 1.0), 2: (2.0, 2.0)})
        self.flushLoggedErrors()


class LockTests(FaultTestCase):
    """Another program that holds the database for a while."""

    def hold(self, statement: str) -> None:
        """Another process holds the database meanwhile; moves, joins and receipts go on."""
        live = self.live()
        live.join(1, 2)
        self.move(live, 1.0, 1, 2)
        live.flush()
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, self.database, statement],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            self.assertEqual(holder.stdout.readline(), "held\n")
            self.move(live, 2.0, 1, 2)
            left = live.service.leave(2)
            self.degraded(live, "locked")
            # One who is stored and one who is new.
            self.assertEqual(live.result(live.service.join(2)).state, PlayerState(2.0, 2.0))
            self.assertEqual(live.result(live.service.join(3)).restored, False)
            self.move(live, 3.0, 1)
            self.assertNoResult(left)
            # It is told once, however often it is tried.
            live.run(0.5)
            self.assertEqual(len(self.log.having("is busy")), 1)
            holder.communicate("\n", timeout=20)
        self.recovered(live)
        live.result(left)
        self.assertEqual(self.rows(), {1: (3.0, 1.0), 2: (2.0, 2.0)})

    def test_immediate(self) -> None:
        """With a write transaction."""
        self.hold("BEGIN IMMEDIATE")

    def test_exclusive(self) -> None:
        """With an exclusive one."""
        self.hold("BEGIN EXCLUSIVE")

    def test_at_start(self) -> None:
        """A database that is held for good is a refusal to start, with one line."""
        self.patch(sqlite, "STARTUP_BUSY_MS", 100)
        self.live().stop()
        connection = self.connect()
        connection.execute("BEGIN IMMEDIATE")
        error = self.assertRaises(StoreUnusable, self.live)
        self.assertIn("is locked by another program", str(error))
        connection.execute("ROLLBACK")
        self.live()


class ReplacedTests(FaultTestCase):
    """Files that go away or become others while they are in use."""

    MANY = range(1, 601)
    HERE = range(1, 301)

    def populate(self, live: LiveService) -> None:
        """Six hundred players, of whom the second half have left by the end.

        `backup` is a copy of the first half of their scenario.
        """
        live.join(*self.MANY)
        self.move(live, 1.0, *self.MANY)
        live.flush()
        connection = self.connect()
        connection.execute(f"VACUUM INTO '{self.directory}/backup'")
        connection.close()
        self.move(live, 2.0, *self.MANY)
        for session_id in self.MANY:
            if session_id not in self.HERE:
                live.service.leave(session_id)
        live.flush()
        live.until(lambda: live.snapshot().players_online == len(self.HERE))

    def goes_on(self, live: LiveService, lost: int | None) -> None:
        """The log says what happened; who is in the game is saved again, others are named."""
        self.move(live, 3.0, 5)
        live.until(lambda: self.log.having("was removed or replaced while"), within=8.0)
        (line,) = self.log.having("was removed or replaced while")
        self.assertIn("the 300 players in the game are saved again", line)
        if lost is None:
            self.assertIn("cannot be named", line)
        elif lost:
            self.assertIn(f"{lost} others", line)
            self.assertIn("301, 302", line)
        else:
            self.assertTrue(line.endswith("none"), line)
        live.until(lambda: live.service.trouble is None and not live.snapshot().pending, within=8.0)
        self.assertEqual(live.snapshot().imbalance(), [])
        rows = self.rows()
        for session_id in self.HERE:
            x = 3.0 if session_id == 5 else 2.0
            self.assertEqual(rows[session_id], (x, float(session_id)))
        # Life goes on, over files that outlive the process.
        live.join(1000)
        self.move(live, 4.0, 1000, 6)
        self.assertEqual(live.result(live.service.leave(1000)).saved, 0)
        live.stop()
        self.assertFalse(live.service.gave_up)
        rows = self.rows()
        self.assertEqual((rows[1000][0], rows[6][0], rows[5][0]), (4.0, 4.0, 3.0))
        connection = self.connect()
        self.assertEqual(connection.pragma("integrity_check"), "ok")
        for session_id in range(301, 601):
            self.assertEqual(
                rows.get(session_id, (None,))[0], self.left_behind, f"player {session_id}"
            )

    left_behind: float | None = None
    """Where those are in the end who had left: nowhere, or where the backup has them."""

    def test_database_deleted(self) -> None:
        """The database alone is deleted, its log stays."""
        live = self.live()
        self.populate(live)
        os.unlink(self.database)
        self.goes_on(live, lost=300)

    def test_all_deleted(self) -> None:
        """The database is deleted with its log."""
        live = self.live()
        self.populate(live)
        for ending in ("", "-wal", "-shm"):
            os.unlink(self.database + ending)
        self.goes_on(live, lost=300)

    def test_replaced_by_a_copy(self) -> None:
        """A copy of earlier days takes the database's place, beside the log of today."""
        live = self.live()
        self.populate(live)
        os.replace(f"{self.directory}/backup", self.database)
        self.left_behind = 1.0
        self.goes_on(live, lost=300)

    def test_replaced_with_care(self) -> None:
        """A copy takes the database's place, and the old log is removed."""
        live = self.live()
        self.populate(live)
        for ending in ("-wal", "-shm"):
            os.unlink(self.database + ending)
        os.replace(f"{self.directory}/backup", self.database)
        self.left_behind = 1.0
        self.goes_on(live, lost=300)

    def test_log_deleted(self) -> None:
        """The write-ahead log is deleted: what it held is not lost, for it is still open."""
        live = self.live()
        self.populate(live)
        os.unlink(f"{self.database}-wal")
        self.left_behind = 2.0
        self.goes_on(live, lost=0)

    def test_log_deleted_while_idle(self) -> None:
        """It is seen within a second or so where nobody moves, too, and is no trouble after."""
        live = self.live()
        self.populate(live)
        os.unlink(f"{self.database}-wal")
        live.until(lambda: self.log.having("was removed or replaced while"), within=8.0)
        live.until(lambda: live.service.trouble is None and not live.snapshot().pending, within=8.0)
        self.assertEqual(len(self.rows()), 600)

    def elsewhere(self, *command: str) -> None:
        """Another process does this: a plain close in this one would drop SQLite's locks."""
        subprocess.run(command, check=True, timeout=60, cwd=self.directory)

    def copy_over(self, source: str) -> None:
        """Copy a file of the directory over the database, in place."""
        self.elsewhere("cp", f"{self.directory}/{source}", self.database)

    def checkpoint(self, mode: str) -> None:
        """Another program copies the log into the database."""
        script = f"import apsw; apsw.Connection('players.db').pragma('wal_checkpoint', '{mode}')"
        self.elsewhere(sys.executable, "-c", script)

    def test_overwritten_beside_an_empty_log(self) -> None:
        """A copy of earlier days is written over it in place, when all of the log was copied."""
        live = self.live()
        self.populate(live)
        self.checkpoint("TRUNCATE")
        self.copy_over("backup")
        self.left_behind = 1.0
        self.goes_on(live, lost=None)

    def test_overwritten_beside_a_copied_log(self) -> None:
        """So it is where the log holds what was copied into the database already."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        live = self.live()
        self.populate(live)
        live.run(0.2)  # what is copied over it while it copies its log may go unnoticed
        self.copy_over("backup")
        self.left_behind = 1.0
        self.goes_on(live, lost=None)

    def test_overwritten_beside_a_log(self) -> None:
        """So it is where the log holds what is in neither: it is put aside, and not mixed in."""
        live = self.live()
        self.populate(live)
        self.copy_over("backup")
        self.left_behind = 1.0
        self.goes_on(live, lost=None)
        (aside,) = (name for name in os.listdir(self.directory) if "-wal." in name)
        self.assertTrue(self.log.having(f"set aside as {self.directory}/{aside}"))

    def test_overwritten_by_its_own_past(self) -> None:
        """So is one that was copied by its bytes, so that only pages of rows are others."""
        live = self.live()
        live.join(*self.MANY)
        self.move(live, 1.0, *self.MANY)
        live.flush()
        self.checkpoint("TRUNCATE")
        self.elsewhere("cp", self.database, "raw")
        self.populate(live)
        self.checkpoint("TRUNCATE")
        self.copy_over("raw")
        self.left_behind = 1.0
        self.goes_on(live, lost=None)

    def test_overwritten_with_another_store(self) -> None:
        """The database of another game takes its place; its players stay in it."""
        store = SQLiteStore(f"{self.directory}/other", SCHEMA)
        other = LiveService(store, save_within=SAVE_WITHIN)
        self.addCleanup(other.stop)
        other.join(9001)
        self.move(other, 7.0, 9001)
        other.stop()
        live = self.live()
        self.populate(live)
        self.checkpoint("TRUNCATE")
        self.copy_over("other")
        self.goes_on(live, lost=None)
        self.assertEqual(self.rows()[9001], (7.0, 9001.0))

    def test_overwritten_with_nothing(self) -> None:
        """A database that is emptied in place is made anew."""
        for mode in ("PASSIVE", "TRUNCATE"):
            self.log.lines.clear()
            self.database = f"{self.directory}/players.db"
            live = self.live()
            self.populate(live)
            self.checkpoint(mode)
            self.elsewhere("sh", "-c", ": > players.db")
            self.goes_on(live, lost=None)
            for name in os.listdir(self.directory):
                os.unlink(f"{self.directory}/{name}")

    def test_overwritten_while_idle(self) -> None:
        """It is seen within a second or so where nobody moves, too, and is no trouble after."""
        live = self.live()
        self.populate(live)
        self.checkpoint("TRUNCATE")
        self.copy_over("backup")
        live.until(lambda: self.log.having("was removed or replaced while"), within=8.0)
        live.until(lambda: live.service.trouble is None and not live.snapshot().pending, within=8.0)
        rows = self.rows()
        self.assertEqual((len(rows), rows[300][0], rows[301][0]), (600, 2.0, 1.0))

    def test_overwritten_with_what_is_none(self) -> None:
        """Half a database, and what is none, is left alone until a whole one is copied there."""
        live = self.live()
        self.populate(live)
        self.checkpoint("TRUNCATE")
        for script, told in (
            ("head -c 10000 backup > players.db", "is damaged"),
            ("head -c 30000 /dev/zero | tr '\\0' 'x' > players.db", "is not a SQLite database"),
        ):
            self.elsewhere("sh", "-c", script)
            before = Path(self.database).read_bytes()
            self.move(live, 2.5, *self.HERE)
            live.until(lambda told=told: self.log.having(told), within=8.0)
            self.degraded(live, "was written over in place")
            self.assertIsInstance(live.failure(live.service.join(400)), StoreBusy)
            self.assertEqual(Path(self.database).read_bytes(), before)
        self.copy_over("backup")
        self.recovered(live)
        rows = self.rows()
        self.assertEqual((len(rows), rows[300][0], rows[301][0]), (600, 2.5, 1.0))
        live.stop()
        self.assertFalse(live.service.gave_up)
        self.assertEqual(self.connect().pragma("integrity_check"), "ok")

    def test_overwritten_slowly(self) -> None:
        """What is copied over it bit by bit is not taken before its end."""
        live = self.live()
        self.populate(live)
        self.checkpoint("TRUNCATE")
        script = (
            "import time; copy = open('backup', 'rb').read(); file = open('players.db', 'r+b', 0)\n"
            "for at in range(0, len(copy), 4096):\n"
            "    file.write(copy[at:at + 4096]); time.sleep(0.2)\n"
            "file.truncate()"
        )
        with subprocess.Popen([sys.executable, "-c", script], cwd=self.directory) as copying:
            live.until(lambda: copying.poll() is not None)
        self.assertEqual(self.log.having("was removed or replaced while"), [])
        self.left_behind = 1.0
        self.goes_on(live, lost=None)

    def test_overwritten_before_a_stop(self) -> None:
        """A stop that finds it out last says that not all is saved; the next start saves it."""
        patched = self.patch(persister_module, "MAX_SLEEP", 60.0)  # nobody looks before the stop
        live = self.live(live_file=f"{self.database}.live", stop_within=5.0)
        self.populate(live)
        self.checkpoint("TRUNCATE")
        self.copy_over("backup")
        live.stop()
        self.assertTrue(live.service.gave_up)
        self.assertTrue(self.log.having("stopped with the newest state unsaved"))
        patched.restore()
        again = self.live(live_file=f"{self.database}.live")
        again.until(lambda: self.log.having("players may join"))
        rows = self.rows()
        self.assertEqual((len(rows), rows[300][0], rows[301][0]), (600, 2.0, 1.0))
        again.stop()
        self.assertFalse(again.service.gave_up)
        self.assertEqual(self.connect().pragma("integrity_check"), "ok")

    def test_not_overwritten(self) -> None:
        """What other programs do to the database through SQLite, and ``touch``, is no loss."""
        live = self.live()
        self.populate(live)
        for script in (
            "touch players.db",
            "UPDATE player_state SET x = 9 WHERE session_id = 400",
            "CREATE INDEX here ON player_state (x)",
            "VACUUM",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "touch players.db",
            "DELETE FROM player_state WHERE session_id > 500",
            "VACUUM",
            "PRAGMA wal_checkpoint(PASSIVE)",
        ):
            if script.startswith("touch"):
                self.elsewhere("touch", "players.db")
            else:
                run = (
                    "import apsw, sys; c = apsw.Connection('players.db');"
                    "c.set_busy_timeout(9000); c.execute(sys.argv[1]).fetchall()"
                )
                self.elsewhere(sys.executable, "-c", run, script)
            live.run(0.1)
            self.move(live, 3.0, *self.HERE)
            live.flush()
        live.stop()
        self.assertFalse(live.service.gave_up)
        self.assertEqual(self.log.having("was removed or replaced"), [])
        rows = self.rows()
        self.assertEqual((len(rows), rows[1][0], rows[400][0], rows[500][0]), (500, 3.0, 9.0, 2.0))
        self.assertEqual(self.connect().pragma("integrity_check"), "ok")

    def test_overwritten_and_killed(self) -> None:
        """A server that has gone over to a copy, and is killed, loses no move of its players."""
        server = self.serve("--save-within", "0.3")
        crowd = self.crowd(server)
        self.play_until(crowd, lambda: min(crowd.saved.values()) > 0, server)
        self.elsewhere(
            sys.executable,
            "-c",
            "import apsw; apsw.Connection('players.db').execute(\"VACUUM INTO 'backup'\")",
        )
        saved = dict(crowd.saved)
        self.play_until(crowd, lambda: min(crowd.saved.values()) > max(saved.values()), server)
        self.checkpoint("TRUNCATE")
        self.copy_over("backup")
        self.play_until(crowd, lambda: "are saved again" in server.output, server.output)
        crowd.play(0.5, rest=0.005)
        server.kill()
        crowd.listen()
        applied = dict(crowd.applied)
        again = self.serve("--save-within", "0.3")
        again.listening()
        if not any("the store has all of the" in line for line in again.lines):
            again.wait_for("players may join")
        again.signal(signal.SIGTERM)
        self.assertEqual(again.ended(), -signal.SIGTERM, again.output)
        for session_id, row in self.rows().items():
            self.assertGreaterEqual(crowd.numbers[session_id][row], applied[session_id])
        self.assertEqual(self.connect().pragma("integrity_check"), "ok")

    def test_nobody_in_the_game(self) -> None:
        """With nobody online the service is not degraded for good."""
        live = self.live()
        live.join(1)
        self.move(live, 1.0, 1)
        live.result(live.service.leave(1))
        for ending in ("", "-wal", "-shm"):
            os.unlink(self.database + ending)
        live.until(lambda: self.log.having("was removed or replaced while"), within=8.0)
        live.run(SAVE_WITHIN + 0.2)
        self.assertIs(live.service.trouble, None)
        live.join(1)
        self.move(live, 2.0, 1)
        live.flush()
        self.assertEqual(self.rows(), {1: (2.0, 1.0)})

    def test_put_back_after_a_fault(self) -> None:
        """A good copy put in the place of one that cannot be written is noticed as well."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        live = self.live()
        self.populate(live)
        _spoil(self.database)
        self.move(live, 3.0, 5)
        self.degraded(live, "malformed")
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.database + ending)
        os.replace(f"{self.directory}/backup", self.database)
        live.until(lambda: self.log.having("was removed or replaced while"), within=8.0)
        self.recovered(live)
        rows = self.rows()
        self.assertEqual((rows[5], rows[6], rows[350]), ((3.0, 5.0), (2.0, 6.0), (1.0, 350.0)))
        self.assertEqual(live.result(live.service.join(350)).state, PlayerState(1.0, 350.0))
        self.flushLoggedErrors()

    def test_stopped_with_nothing_to_go_over_to(self) -> None:
        """Where nothing can take its place a stop gives up in time, says so, and fails."""
        live = self.live(stop_within=0.5)
        self.populate(live)
        for ending in ("", "-wal", "-shm"):
            os.unlink(self.database + ending)
        Path(self.database).write_text("a shopping list" * 100)
        live.until(lambda: self.log.having("cannot go on with"), within=8.0)
        begin = time.monotonic()
        live.stop()
        self.assertLess(time.monotonic() - begin, 4.0)
        self.assertTrue(live.service.gave_up)
        self.assertEqual(Path(self.database).read_text(), "a shopping list" * 100)
        self.assertEqual(self.log.having("is stuck"), [])


def _spoil(path: str) -> bytes:
    """Overwrite a database but for its first page and the one of its mark; return what it held.

    Every connection reads it all anew: a commit of somebody else's empties their caches.
    """
    connection = apsw.Connection(path)
    connection.set_busy_timeout(5000)
    connection.execute("UPDATE player_store SET identity = identity")
    deadline = time.monotonic() + 20.0
    while True:
        # No busy timeout is for two who copy the log at the same time.
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            break
        except apsw.BusyError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    connection.execute("UPDATE player_store SET identity = identity")
    mark = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'player_mark'").get
    connection.close()
    with open(path, "r+b") as file:
        content = file.read()
        for at in range(4096, len(content), 4096):
            if at != (mark - 1) * 4096:
                file.seek(at)
                file.write(b"\xa5" * 4096)
    return content


class CorruptTests(FaultTestCase):
    """A database that is damaged."""

    def test_while_running(self) -> None:
        """Damage met in the middle: degraded, and moves go on; mended, everything is saved."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        live = self.live()
        live.join(*range(1, 301))
        self.move(live, 1.0, *range(1, 301))
        live.flush()
        for session_id in range(201, 301):
            live.service.leave(session_id)
        live.flush()
        content = _spoil(self.database)
        self.move(live, 2.0, *range(1, 201))
        self.degraded(live, "malformed")
        self.move(live, 3.0, 7)
        self.assertIsInstance(live.failure(live.service.join(250)), StoreBusy)
        # A trace once, not at each of the many times it is tried.
        live.run(1.0)
        self.assertLessEqual(len(self.flushLoggedErrors(apsw.CorruptError)), 2)
        with open(self.database, "r+b") as file:
            file.write(content)
        self.recovered(live)
        rows = self.rows()
        self.assertEqual((len(rows), rows[7], rows[8]), (300, (3.0, 7.0), (2.0, 8.0)))
        self.assertEqual(rows[250], (1.0, 250.0))
        self.flushLoggedErrors()

    def test_at_start(self) -> None:
        """A damaged database is not started on, left as it is, and the line says how to mend it."""
        live = self.live()
        live.join(*range(1, 501))
        self.move(live, 1.0, *range(1, 501))
        live.stop()
        with open(self.database, "r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xa5" * 8192)
        before = Path(self.database).read_bytes()
        line = self.refused_start()
        self.assertIn(f"{self.database} is damaged", line)
        self.assertIn("put a backup in its place", line)
        self.assertIn(".recover", line)
        self.assertEqual(Path(self.database).read_bytes(), before)

    def test_cut_short(self) -> None:
        """A database that was cut short is damaged, too."""
        live = self.live()
        live.join(*range(1, 501))
        self.move(live, 1.0, *range(1, 501))
        live.stop()
        os.truncate(self.database, 2 * 4096 + 100)
        self.assertIn("is damaged", self.refused_start())


class RefusedRowTests(FaultTestCase):
    """A row that the database can never take."""

    def curse(self, session_id: int) -> None:
        """From now on a trigger refuses this player."""
        connection = self.connect()
        connection.execute(
            f"""
            CREATE TRIGGER cursed BEFORE UPDATE ON player_state
            WHEN new.session_id = {session_id}
            BEGIN SELECT RAISE(ABORT, 'cursed'); END
            """
        )
        connection.close()

    def settled(self, live: LiveService, *others: int) -> None:
        """Wait until nothing is pending: a row that is refused needs others that are not."""
        deadline = time.monotonic() + 20.0
        while live.snapshot().pending:
            self.assertLess(time.monotonic(), deadline, live.snapshot())
            for session_id in others:
                live.service.update(session_id, live.service.state(session_id))
            live.run(2 * SAVE_WITHIN)

    def test_set_aside(self) -> None:
        """Others are saved; the row is set aside once it was refused alone three times, and others
        were committed meanwhile; who waits for it is told."""
        live = self.live()
        everybody = range(1, 21)
        others = [session_id for session_id in everybody if session_id != 3]
        live.join(*everybody)
        self.move(live, 1.0, *everybody)
        live.flush()
        self.curse(3)
        refused = Path(f"{self.database}.refused.jsonl")
        # Nobody else moves: it may be the database that is at fault.
        self.move(live, 2.0, 3)
        live.until(lambda: live.snapshot().store_errors.get("RowRefused", 0) >= 4)
        self.assertFalse(refused.exists())
        self.assertEqual(live.snapshot().quarantined, 0)
        self.move(live, 5.0, *everybody)
        left = live.service.leave(3)
        error = live.failure(left)
        self.assertIsInstance(error, NotSaved)
        self.assertIn("cursed", str(error))
        self.assertIn("3", str(error))
        self.assertEqual(live.snapshot().quarantined, 1)
        self.assertEqual(live.snapshot().imbalance(), [])
        expected = {i: (1.0 if i == 3 else 5.0, float(i)) for i in everybody}
        self.assertEqual(self.rows(), expected)
        (line,) = refused.read_text().splitlines()
        entry = json.loads(line)
        self.assertEqual((entry["session_id"], entry["x"], entry["y"]), (3, 5.0, 3.0))
        self.assertIn("cursed", entry["reason"])
        self.assertEqual(len(self.log.having("player 3: ")), 1)
        # Everybody else goes on, and a later row of the same player is set aside in its place.
        live.join(3)
        while live.snapshot().quarantined < 2:
            self.move(live, 6.0, *others)
            self.move(live, 6.0, 3)
            live.run(0.1)
            self.assertLess(live.snapshot().received, 5000)
        (line,) = refused.read_text().splitlines()
        self.assertEqual(json.loads(line)["x"], 6.0)
        self.settled(live, *others)
        self.assertEqual(self.rows()[4], (6.0, 4.0))
        # The curse is lifted: the next move is saved.
        connection = self.connect()
        connection.execute("DROP TRIGGER cursed")
        connection.close()
        self.move(live, 7.0, 3)
        live.flush()
        self.assertEqual(self.rows()[3], (7.0, 3.0))
        self.flushLoggedErrors()

    def test_others_do_not_wait(self) -> None:
        """While one row is refused, the others are saved in time."""
        live = self.live()
        others = [session_id for session_id in range(1, 101) if session_id != 50]
        live.join(*range(1, 101))
        self.move(live, 1.0, *range(1, 101))
        live.flush()
        self.curse(50)
        for turn in range(2, 8):
            self.move(live, float(turn), *range(1, 101))
            begin = time.monotonic()
            # Nobody but the one who is refused is behind for longer than is allowed.
            live.until(lambda: live.service.table.unsaved().tolist() in ([], [50]))
            self.assertLess(time.monotonic() - begin, SAVE_WITHIN + 1.0)
        self.settled(live, *others)
        rows = self.rows()
        self.assertEqual({i for i in rows if rows[i][0] != 7.0}, {50})
        self.flushLoggedErrors()


class BugTests(FaultTestCase):
    """Faults of our own on the persist thread."""

    def test_exception(self) -> None:
        """An exception that nobody foresaw costs a try, and no row."""
        live = self.live()
        live.join(*range(1, 51))
        newest_of_each, times = in_hand.newest_of_each, []

        def broken(rows: Any) -> Any:
            times.append(len(rows))
            if len(times) <= 3:
                raise KeyError("a bug")
            return newest_of_each(rows)

        self.patch(in_hand, "newest_of_each", broken)
        self.move(live, 1.0, *range(1, 51))
        live.flush()
        self.assertGreater(len(times), 3)
        self.assertEqual(len(self.rows()), 50)
        self.assertEqual(live.snapshot().store_errors, {"KeyError": 3})
        self.assertEqual(live.snapshot().imbalance(), [])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_thread_dies(self) -> None:
        """A thread that dies in a write is followed by the next, which goes on with the same."""
        threads = set(threading.enumerate())
        live = self.live()
        live.join(*range(1, 51))
        write, deaths = SQLiteWriter.write, [SystemExit("out"), MemoryError(), GeneratorExit()]

        def deadly(writer: SQLiteWriter, records: Records) -> Any:
            if deaths:
                raise deaths.pop()
            return write(writer, records)

        self.patch(SQLiteWriter, "write", deadly)
        self.move(live, 1.0, *range(1, 51))
        flushed = live.service.flush()
        self.move(live, 2.0, 9)
        live.result(flushed)
        live.flush()
        self.assertEqual(deaths, [])
        # MemoryError is an Exception, and costs a try.
        self.assertEqual(live.snapshot().thread_deaths, 2)
        self.assertEqual((len(self.rows()), self.rows()[9]), (50, (2.0, 9.0)))
        self.assertEqual(live.snapshot().imbalance(), [])
        self.assertIs(live.service.trouble, None)
        self.assertEqual(len(set(threading.enumerate()) - threads), 1)
        self.flushLoggedErrors()

    def test_thread_dies_while_idle(self) -> None:
        """One that dies with nothing in its hands is no trouble for longer than it lasts."""
        live = self.live()
        live.join(1)
        self.move(live, 1.0, 1)
        live.flush()
        maintain, deaths = Persister._maintain, [SystemExit("out")]

        def deadly(persister: Persister) -> None:
            if deaths:
                raise deaths.pop()
            maintain(persister)

        self.patch(Persister, "_maintain", deadly)
        live.until(lambda: live.snapshot().thread_deaths == 1)
        live.run(SAVE_WITHIN + 0.5)
        self.assertIs(live.service.trouble, None)
        self.flushLoggedErrors(SystemExit)

    def test_thread_dies_while_stopping(self) -> None:
        """The next one does what is left of the stop."""
        live = self.live(stop_within=5.0)
        live.join(1)
        write, deaths = SQLiteWriter.write, [SystemExit("out")]

        def deadly(writer: SQLiteWriter, records: Records) -> Any:
            if deaths:
                raise deaths.pop()
            return write(writer, records)

        self.patch(SQLiteWriter, "write", deadly)
        self.move(live, 1.0, 1)
        live.stop()
        self.assertFalse(live.service.gave_up)
        self.assertEqual(self.rows(), {1: (1.0, 1.0)})
        self.flushLoggedErrors(SystemExit)


class StuckStore(FaultyStore):
    """A store whose writes wait for an event."""

    def __init__(self) -> None:
        super().__init__(SCHEMA)
        self.free = threading.Event()
        self.free.set()

    def write(self, records: Records) -> Any:
        """See `IStateWriter.write`."""
        self.free.wait(30.0)
        return super().write(records)


class StuckTests(FaultTestCase):
    """A write that does not come to an end."""

    def test_for_a_while(self) -> None:
        """It is told, with for how long; the reactor takes moves meanwhile, and it passes."""
        store = StuckStore()
        live = self.live(store)
        live.join(*range(1, 101))
        self.move(live, 1.0, *range(1, 101))
        live.flush()
        store.free.clear()
        self.move(live, 2.0, *range(1, 101))
        flushed = live.service.flush()
        self.degraded(live, "stuck in a write")
        before = live.service.trouble.seconds
        for turn in range(3, 13):
            self.move(live, float(turn), *range(1, 101))
            live.run(0.05)
        self.assertGreater(live.service.trouble.seconds, before + 0.4)
        live.join(1000)
        self.assertNoResult(flushed)
        store.free.set()
        live.result(flushed)
        self.recovered(live)
        self.assertEqual(store.players[100].values, (12.0, 100.0))
        self.assertEqual(len(self.log.having("degraded: nothing")), 1)

    def test_for_good(self) -> None:
        """A stop does not wait for it any longer than its deadline."""
        store = StuckStore()
        self.addCleanup(store.free.set)
        live = self.live(store, stop_within=0.3)
        live.join(1)
        store.free.clear()
        self.move(live, 2.0, 1)
        left = live.service.leave(1)
        begin = time.monotonic()
        live.stop()
        self.assertLess(time.monotonic() - begin, 3.0)
        self.assertTrue(live.service.gave_up)
        self.failureResultOf(left, NotSaved)
        self.assertEqual(len(self.log.having("unsaved of player 1;")), 1)
        self.assertEqual(len(self.log.having("is stuck in the store")), 1)
        # What it was stuck in may yet come to an end; nothing falls over that.
        store.free.set()
        live.run(0.3)
        self.assertEqual(live.snapshot().imbalance(), [])
