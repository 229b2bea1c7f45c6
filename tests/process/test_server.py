"""Real servers, started and stopped as processes, with real sockets and real files."""

from __future__ import annotations

import csv
import os
import pty
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest
from contextlib import closing
from pathlib import Path

import apsw
import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.kit.processes import PATIENCE, TWIST, TWISTD, Player, Server, run_to_end

IMPATIENT = """
from playerstate import PlayerState, PlayerStateService

PlayerStateService.__init__.__kwdefaults__["stop_within"] = 0.5
"""
"""A game whose server gives up half a second after it was told to stop."""
UNLUCKY = """
import os

from playerstate import PlayerState
from playerstate.stores.sqlite.store import SQLiteWriter

sync = SQLiteWriter.sync


def unlucky(writer):
    SQLiteWriter.sync = sync
    os.unlink("players.db")
    sync(writer)


SQLiteWriter.sync = unlucky
"""
"""A game whose database is removed just before the last sync."""
OF_OURS = f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
"""Has a process find these tests, wherever the package itself is installed."""
NO_TEMPORARY_FILES = """
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 1 << 5, 1 << 12, 1 << 14, 1 << 18
CLONE_NEWNS = 1 << 17


def mount(source, target, flags):
    if libc.mount(source.encode(), target.encode(), None, flags, None):
        raise OSError(ctypes.get_errno(), f"cannot mount {target}")


if libc.unshare(CLONE_NEWNS):
    raise OSError(ctypes.get_errno(), "cannot have mounts of its own")
mount("none", "/", MS_REC | MS_PRIVATE)
here = os.getcwd()
places = [place for place in ("/tmp", "/var/tmp", "/usr/tmp") if os.path.isdir(place)]
for place in places:
    mount(place, place, MS_BIND)
mount(here, here, MS_BIND)
for place in places:
    mount("none", place, MS_REMOUNT | MS_BIND | MS_RDONLY)
os.environ["TMPDIR"] = os.environ["SQLITE_TMPDIR"] = "/tmp"
os.chdir("/proc/self")
try:
    open("/tmp/anything", "w")
except OSError:
    pass
else:
    raise AssertionError("temporary files can be made")
"""
"""Has a process in whose world nothing can be written but what lies where it was started."""
CROWD = """
import sys
from playerstate import PlayerState, StateSchema, open_store
from tests.kit.crash_live import LiveService

live = LiveService(open_store(sys.argv[1], StateSchema.of(PlayerState)))
live.join(*range(1, 9001))
for x, step in ((1.0, 1), (2.0, 6)):
    for number in range(6, 9001, step):
        live.service.update(number, PlayerState(x, float(number)))
    live.flush()
live.stop()
"""
"""Saves players who lie in so many pages that SQLite would have a file for what was there."""
TRACKS = Path(__file__).parents[3] / "shared" / "data" / "real-tracks.csv"


@attrs.frozen
class GrownState:
    """The state class of a later version of a game."""

    x: float = 0.0
    y: float = 0.0
    hp: int = 100


class ProcessTestCase(SynchronousTestCase):
    """Runs servers in a directory of the test's own."""

    def setUp(self) -> None:
        """An empty directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.ended: list[int] = []

    def serve(self, *options: str, **kwargs: str) -> Server:
        """A running server."""
        server = Server(self.directory, *options, **kwargs)
        self.addCleanup(server.kill)
        return server

    def player(self, server: Server, session_id: int) -> Player:
        """A player with a socket of its own."""
        player = Player(server.address, session_id)
        self.addCleanup(player.close)
        return player

    def rows(self) -> dict[int, tuple[float, float]]:
        """What the database holds."""
        connection = apsw.Connection(
            f"{self.directory}/players.db", flags=apsw.SQLITE_OPEN_READONLY
        )
        try:
            return {
                i: (x, y)
                for i, x, y in connection.execute("SELECT session_id, x, y FROM player_state")
            }
        finally:
            connection.close()


class ReturningTests(ProcessTestCase):
    """A returning player stands where they left."""

    def test_after_leaving_and_a_restart(self) -> None:
        """Join at the spawn, move, leave, SIGTERM, start, join: there, bit for bit."""
        server = self.serve()
        player = self.player(server, 42)
        welcome = player.join()
        self.assertEqual((welcome.values, welcome.restored), ((350.0, 200.0), False))
        self.assertEqual(welcome.updated_at, 0)
        place = (1 / 3, -2.718281828459045e-300)
        player.move(1.0, 2.0)
        player.move(*place)
        player.leave()
        self.assertEqual(server.stop(), -signal.SIGTERM)
        again = self.player(self.serve(), 42).join()
        self.assertEqual((again.values, again.restored), (place, True))
        self.assertLess(abs(again.updated_at / 1e6 - time.time()), 60.0)

    def test_stopped_in_the_middle_of_a_walk(self) -> None:
        """SIGTERM without a LEAVE saves all the same, with a last receipt and GONE."""
        server = self.serve()
        player = self.player(server, 42)
        player.join()
        player.move(5.5, 6.25)
        player.wait_applied()
        server.stop()
        player.wait_saved()
        self.assertEqual(player.answer().reason, 4)
        self.assertEqual(self.player(self.serve(), 42).join().values, (5.5, 6.25))

    def test_interrupted_from_the_terminal(self) -> None:
        """Ctrl-C stops it as cleanly."""
        server = self.serve()
        player = self.player(server, 42)
        player.join()
        player.move(7.0, 8.0)
        player.wait_applied()
        server.stop(signal.SIGINT)
        self.assertIn("0 pending", "\n".join(server.lines))
        self.assertEqual(
            sorted(os.listdir(self.directory)),
            ["players.db", "players.db.live", "players.db.lock"],
        )
        self.assertEqual(self.rows(), {42: (7.0, 8.0)})

    def test_hangup_without_a_terminal(self) -> None:
        """SIGHUP, as of a reload by systemd, is told and changes nothing."""
        server = self.serve()
        player = self.player(server, 42)
        player.join()
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for("SIGHUP: there is nothing to reload, the server keeps running")
        player.move(7.0, 8.0)
        player.wait_applied()
        self.assertEqual(server.stop(), -signal.SIGTERM)
        self.assertEqual(self.rows(), {42: (7.0, 8.0)})

    def test_hangup_of_its_terminal(self) -> None:
        """A terminal that closes stops the server cleanly, with everything saved."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.directory)
            arguments = ["-n", "--pidfile=", "--logfile=log", "playerstate", "--listen", "udp:0"]
            os.execv(sys.executable, [sys.executable, "-c", TWISTD, *arguments])
        self.addCleanup(self.end, pid)
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"listening on udp ([\d.]+):(\d+)", self.log())):
            self.assertLess(time.monotonic(), deadline, self.log())
            time.sleep(0.05)
        player = Player((found[1], int(found[2])), 42)
        self.addCleanup(player.close)
        player.join()
        player.move(7.0, 8.0)
        player.wait_applied()
        os.close(terminal)
        player.wait_saved()
        deadline = time.monotonic() + PATIENCE
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            self.assertLess(time.monotonic(), deadline, self.log())
            time.sleep(0.05)
        self.ended.append(pid)
        self.assertEqual(os.waitstatus_to_exitcode(ended[1]), 0)
        self.assertIn("the terminal was closed (SIGHUP): stopping", self.log())
        self.assertEqual(self.rows(), {42: (7.0, 8.0)})

    def log(self) -> str:
        """What a server with a log file has written."""
        path = Path(self.directory, "log")
        return path.read_text() if path.exists() else ""

    def end(self, pid: int) -> None:
        """End a child that is not waited for yet."""
        if pid not in self.ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def test_names_its_versions(self) -> None:
        """The log says which versions run."""
        server = self.serve()
        server.stop()
        versions = r"playerstate \S.* on Python \d+\.\d+\.\d+\S*, SQLite \d+\.\d+\.\d+, Linux"
        self.assertRegex("\n".join(server.lines), versions)

    def test_twist(self) -> None:
        """It runs as `twist playerstate` as well."""
        server = self.serve(script=TWIST)
        player = self.player(server, 42)
        player.join()
        player.move(1.0, 1.0)
        player.leave()
        server.stop()
        self.assertEqual(self.rows(), {42: (1.0, 1.0)})


class LiveFileTests(ProcessTestCase):
    """The file that keeps moves beyond the death of the process."""

    def test_killed(self) -> None:
        """Moves applied and not yet saved when the process is killed are there at the next."""
        server = self.serve("--save-within", "60")
        player = self.player(server, 42)
        player.join()
        player.move(3.0, 4.0)
        player.wait_applied()
        server.kill()
        self.assertEqual(self.rows(), {})
        again = self.serve()
        again.wait_for("players may join")
        self.assertEqual(self.player(again, 42).join().values, (3.0, 4.0))
        self.assertEqual(self.rows(), {42: (3.0, 4.0)})

    def test_cut_while_players_move(self) -> None:
        """Whoever cuts the file kills nobody: players play on, and the file is made anew."""
        server = self.serve("--save-within", "60")
        players = [self.player(server, number) for number in range(1, 22)]
        for player in players:
            player.join()
        for number in (1.0, 2.0):
            for player in players:
                player.move(number, 0.0)
            for player in players:
                player.wait_applied()
            with server.idle():  # a server in the midst of its rows would die
                os.truncate(f"{self.directory}/players.db.live", 0)
            for player in players:
                player.move(number, number)
            server.wait_for("it was made anew with the 21 players")
            for player in players:
                player.wait_applied()
        server.kill()
        again = self.serve()
        again.wait_for("players may join")
        for number in range(1, 22):
            self.assertEqual(self.player(again, number).join().values, (2.0, 2.0))

    def left(self, *options: str) -> list[str]:
        """The files that a server leaves, once it has served."""
        server = self.serve(*options)
        self.player(server, 42).join()
        self.assertEqual(server.stop(), -signal.SIGTERM)
        return sorted(os.listdir(self.directory))

    def test_named(self) -> None:
        """It lies where it is told to."""
        self.assertEqual(
            self.left("--live-file", "moves"), ["moves", "players.db", "players.db.lock"]
        )

    def test_none(self) -> None:
        """There need not be one."""
        self.assertEqual(self.left("--live-file", "none"), ["players.db", "players.db.lock"])

    def test_memory_store(self) -> None:
        """A store without a file has one in the working directory."""
        self.assertEqual(self.left("--store", "memory:"), ["playerstate.live"])


class ReplacedTests(ProcessTestCase):
    """Files of the database that are removed under a running server."""

    def save_after_losing(self, name: str, lost: str) -> dict[int, tuple[float, float]]:
        """What is saved once this was removed beneath two players, one of whom has left."""
        server = self.serve("--save-within", "0.2")
        gone, player = self.player(server, 41), self.player(server, 42)
        gone.join()
        gone.move(1.0, 2.0)
        gone.leave()
        player.join()
        player.move(3.0, 4.0)
        player.wait_saved()
        Path(self.directory, name).unlink()
        line = server.wait_for(r"was removed or replaced while it was in use; the 1 players.*")[0]
        self.assertIn(f"lost: the newest state of {lost}", line)
        player.move(5.0, 6.0)
        player.wait_saved()
        self.assertEqual(server.stop(), -signal.SIGTERM)
        return self.rows()

    def test_database_removed(self) -> None:
        """Where the database was removed, who is online is saved to another."""
        self.assertEqual(self.save_after_losing("players.db", "1 others: 41"), {42: (5.0, 6.0)})

    def test_log_removed(self) -> None:
        """Where its log was removed, nobody is lost."""
        rows = self.save_after_losing("players.db-wal", "0 others: none")
        self.assertEqual(rows, {41: (1.0, 2.0), 42: (5.0, 6.0)})


class GaveUpTests(ProcessTestCase):
    """A stop that could not save everything ends the process with status 1."""

    def give_up(self, script: str, stop_signal: signal.Signals) -> int:
        """Stop a server whose database another program keeps; its exit status."""
        Path(self.directory, "impatient.py").write_text(IMPATIENT)
        options = ("--save-within", "0.1", "--state", "impatient:PlayerState")
        server = self.serve(*options, script=script)
        player = self.player(server, 42)
        player.join()
        with closing(apsw.Connection(f"{self.directory}/players.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            player.move(3.0, 4.0)
            player.wait_applied()
            status = server.stop(stop_signal)
        self.assertEqual(len([line for line in server.lines if "newest state unsaved" in line]), 1)
        self.assertNotIn("Traceback", "\n".join(server.lines))
        return status

    def test_twistd(self) -> None:
        """Under twistd, which would end by the signal; the next start saves the rest."""
        self.assertEqual(self.give_up(TWISTD, signal.SIGTERM), 1)
        again = self.serve()
        again.wait_for("players may join")
        self.assertEqual(self.player(again, 42).join().values, (3.0, 4.0))
        self.assertEqual(again.stop(), -signal.SIGTERM)
        self.assertEqual(self.rows(), {42: (3.0, 4.0)})

    def test_database_removed_before_the_last_sync(self) -> None:
        """What was saved into a database that is gone by then is not called saved."""
        Path(self.directory, "unlucky.py").write_text(UNLUCKY)
        server = self.serve("--state", "unlucky:PlayerState")
        player = self.player(server, 42)
        player.join()
        player.move(3.0, 4.0)
        player.wait_applied()
        self.assertEqual(server.stop(), 1, server.lines)
        line = next(line for line in server.lines if "was removed or replaced" in line)
        self.assertIn("lost: the newest state of 1 others: 42", line)
        self.assertEqual(self.rows(), {})
        with open(f"{self.directory}/players.db.live", "rb") as file:
            self.assertEqual(file.read(32)[28:], bytes(4))  # not clean

    def test_terminal(self) -> None:
        """By Ctrl-C too."""
        self.assertEqual(self.give_up(TWISTD, signal.SIGINT), 1)

    def test_twist(self) -> None:
        """Under twist too."""
        self.assertEqual(self.give_up(TWIST, signal.SIGTERM), 1)


class TemporaryFilesTests(ProcessTestCase):
    """Nothing is to be had but the room where the database lies."""

    def test_served_without(self) -> None:
        """A start, a migration, what is saved, and a stop need no temporary file."""
        tried = subprocess.run(
            [sys.executable, "-c", NO_TEMPORARY_FILES],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if "OSError" in tried.stderr:
            raise unittest.SkipTest("no mounts of its own: " + tried.stderr.splitlines()[-1])
        store = f"sqlite:{self.directory}/players.db"
        crowd = subprocess.run(
            [sys.executable, "-c", OF_OURS + NO_TEMPORARY_FILES + CROWD, store],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual((crowd.returncode, crowd.stderr), (0, ""))
        x_of = {number: 1.0 if number % 6 else 2.0 for number in range(6, 9001)}
        self.assertEqual(self.rows(), {n: (x, float(n)) for n, x in x_of.items()})
        options = ("--save-within", "0.1", "--store", store, "--state", f"{__name__}:GrownState")
        server = self.serve(*options, script=OF_OURS + NO_TEMPORARY_FILES + TWIST)
        with closing(Player(server.address, 42, GrownState)) as player:
            self.assertEqual(player.join().values, (2.0, 42.0, 100))
            player.move(42.0, 1.0, 99)
            player.wait_saved()
        self.assertEqual(server.stop(), -signal.SIGTERM, server.lines)
        self.assertNotIn("Traceback", "\n".join(server.lines))
        self.assertEqual(self.rows()[42], (42.0, 1.0))
        self.assertEqual(len(self.rows()), 8995)


class DaemonTests(ProcessTestCase):
    """Daemonized, as an init system of old starts it."""

    def wait_until(self, condition: object) -> None:
        """Poll for something that another process does."""
        deadline = time.monotonic() + PATIENCE
        while not condition():  # type: ignore[operator]
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def test_serves_and_ends(self) -> None:
        """It goes into the background, serves, and leaves no pid file when it is ended."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        status, output = run_to_end(self.directory, "playerstate", "--listen", f"udp:{port}")
        self.assertEqual((status, output), (0, ""))
        pidfile = Path(self.directory, "twistd.pid")
        pid = int(pidfile.read_text())
        self.addCleanup(lambda: pidfile.exists() and os.kill(pid, signal.SIGKILL))
        player = Player(("127.0.0.1", port), 42)
        self.addCleanup(player.close)
        player.join()
        player.move(3.0, 4.0)
        player.leave()
        os.kill(pid, signal.SIGTERM)
        self.wait_until(lambda: not pidfile.exists())
        self.assertEqual(self.rows(), {42: (3.0, 4.0)})

    def test_cannot_start(self) -> None:
        """What keeps it from starting is printed by the process that was started, and logged."""
        Path(self.directory, "players.db").write_text("a shopping list")
        status, output = run_to_end(self.directory, "playerstate", "--listen", "udp:0")
        self.assertEqual(status, 1)
        self.assertIn("playerstate: --store: ", output)
        log = Path(self.directory, "twistd.log")
        self.wait_until(lambda: "is not a SQLite database" in log.read_text())
        self.assertNotIn("Traceback", log.read_text())
        self.assertEqual(Path(self.directory, "players.db").read_text(), "a shopping list")
        self.assertFalse(Path(self.directory, "twistd.pid").exists())


class RefusedStartTests(ProcessTestCase):
    """What cannot be started ends at once, with one line and a status that is not 0."""

    def refused(self, *options: str) -> str:
        """The line."""
        status, output = run_to_end(
            self.directory, "-n", "--pidfile", "other.pid", "playerstate", *options
        )
        self.assertEqual(status, 1, output)
        self.assertNotIn("Traceback", output)
        lines = [line for line in output.splitlines() if "playerstate: " in line]
        self.assertEqual(len(lines), 1, output)
        self.assertFalse(Path(self.directory, "other.pid").exists())
        return lines[0]

    def test_bad_value(self) -> None:
        """A bad value."""
        self.assertIn("--queue-size 100: must be a power of two", self.refused("--queue-size=100"))

    def test_port_in_use(self) -> None:
        """A port that somebody has."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            port = other.getsockname()[1]
            line = self.refused("--listen", f"udp:{port}")
        self.assertIn(f"--listen udp:{port}:interface=127.0.0.1", line)
        self.assertIn("Address already in use", line)

    def test_address_of_another_machine(self) -> None:
        """An address that is not this machine's: the remedy is not another port."""
        line = self.refused("--listen", "udp:0:interface=192.0.2.1", "--insecure")
        self.assertIn("--listen udp:0:interface=192.0.2.1: cannot listen there: ", line)
        self.assertIn("the interface must be an address of this machine", line)

    def test_live_file_that_cannot_be(self) -> None:
        """A live file in a directory that is missing, or that is a directory: it is named."""
        os.mkdir(f"{self.directory}/moves")
        for live_file, why in (("nowhere/moves", "must exist"), ("moves", "is not a live file")):
            line = self.refused("--listen", "udp:0", "--live-file", live_file)
            self.assertIn("--live-file: ", line)
            self.assertIn(f"{self.directory}/{live_file}", line)
            self.assertIn(why, line)

    def test_database_in_use(self) -> None:
        """A database that another server holds; the line names its process."""
        server = self.serve()
        line = self.refused("--listen", "udp:0")
        self.assertIn(f"is in use by process {server.pid}", line)

    def test_missing_directory(self) -> None:
        """A directory that is not there."""
        line = self.refused("--store", "sqlite:nowhere/players.db")
        self.assertIn("nowhere/players.db", line)
        self.assertIn("must exist and be writable", line)

    def test_not_a_database(self) -> None:
        """A file that is no database is left as it is."""
        Path(self.directory, "players.db").write_text("a shopping list")
        self.assertIn("is not a SQLite database", self.refused("--listen", "udp:0"))
        self.assertEqual(Path(self.directory, "players.db").read_text(), "a shopping list")
        self.assertFalse(Path(self.directory, "players.db.lock").exists())


class LoadTests(ProcessTestCase):
    """Many players, much traffic, and a database that somebody else holds."""

    def test_join_beside_a_large_open_transaction(self) -> None:
        """While 100,000 rows are written and not committed, joins load and moves are taken."""
        server = self.serve("--save-within", "0.5")
        returning = self.player(server, 42)
        returning.join()
        returning.move(9.0, 9.5)
        returning.leave()
        writer = apsw.Connection(f"{self.directory}/players.db")
        self.addCleanup(writer.close)
        writer.execute("BEGIN IMMEDIATE")
        writer.executemany(
            "INSERT INTO player_state VALUES (?, 0, 0, 1)",
            ((session_id,) for session_id in range(1000, 101_000)),
        )
        self.assertEqual(returning.join().values, (9.0, 9.5))
        self.assertEqual(self.player(server, 1000).join().values, (350.0, 200.0))
        returning.move(10.0, 10.5)
        returning.wait_applied()
        server.wait_for("is busy")
        writer.execute("COMMIT")
        returning.wait_saved()
        server.wait_for("takes rows again")
        server.stop()
        self.assertEqual(self.rows()[42], (10.0, 10.5))
        self.assertEqual(len([line for line in server.lines if "is busy" in line]), 1)
        self.assertEqual(len([line for line in server.lines if "takes rows again" in line]), 1)

    def test_queue_of_256_and_1000_players(self) -> None:
        """More players move than the queue holds: overflows are counted, nothing is lost."""
        server = self.serve("--queue-size", "256", "--save-within", "0.5")
        player = self.player(server, 1)
        numbers = range(1, 1001)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as everybody:
            everybody.connect(server.address)
            for number in numbers:
                join = struct.pack("<QIBBIIIQ", number, 7, 1, 1, 0, 7, 0, 0) + bytes(226)
                everybody.send(join)
            for turn in range(1, 6):
                for number in numbers:
                    everybody.send(struct.pack("<QIBIdd", number, 7, 2, turn, number, turn))
                time.sleep(0.1)
            for number in numbers:
                everybody.send(struct.pack("<QIBI31x", number, 7, 3, 5))
        server.wait_for("queue of 256 rows is full")
        player.join()
        server.stop()
        rows = self.rows()
        self.assertEqual({n: rows[n] for n in numbers}, {n: (float(n), 5.0) for n in numbers})
        self.assertEqual(len([line for line in server.lines if "rows is full" in line]), 1)

    def test_noise(self) -> None:
        """100,000 random datagrams change no player and fill no log."""
        server = self.serve()
        player = self.player(server, 42)
        player.join()
        player.move(1.5, 2.5)
        player.wait_applied()
        noise = random.Random(1)
        lines = len(server.lines)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect(server.address)
            for number in range(100_000):
                datagram = noise.randbytes(noise.randrange(60))
                # Some name a real player, and some of those look like a message.
                if number % 3 == 0:
                    datagram = struct.pack("<QIB", 42, player._nonce, noise.randrange(8)) + datagram
                # A JOIN that happens to be whole would be one.
                if datagram[12:14] != b"\1\1":
                    stranger.send(datagram)
                if number % 4000 == 0:
                    player.wait_applied()
        player.wait_applied()
        server.stop()
        self.assertEqual(self.rows(), {42: (1.5, 2.5)})
        self.assertLess(len(server.lines) - lines, 20)

    @unittest.skipUnless(TRACKS.exists(), "the recorded tracks are not at hand")
    def test_real_tracks(self) -> None:
        """Recorded movement, twenty times as fast: every last position is saved, exactly."""
        server = self.serve("--save-within", "0.5")
        players: dict[int, Player] = {}
        last: dict[int, tuple[float, float]] = {}
        begin = time.monotonic()
        with TRACKS.open() as file:
            for row in csv.DictReader(file):
                session_id = int(row["session_id"])
                if session_id not in players:
                    players[session_id] = self.player(server, session_id)
                    players[session_id].join()
                time.sleep(max(0.0, begin + float(row["t"]) / 20 - time.monotonic()))
                last[session_id] = (float(row["x"]), float(row["y"]))
                players[session_id].move(*last[session_id])
        for player in players.values():
            player.wait_saved()
        self.assertEqual(self.rows(), last)
        server.stop()
