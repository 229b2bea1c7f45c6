"""The ``playerstate`` command in a process of its own, against a real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema
from playerstate.cli import FIRST_ID
from playerstate.cli.replay import read_tracks
from playerstate.tokens import create_key
from tests.kit.arguments import run
from tests.kit.processes import PATIENCE, Server

TRACKS = Path(__file__).parents[3] / "shared" / "data" / "real-tracks.csv"


class ProcessTests(SynchronousTestCase):
    """The command in a process of its own, against a real server."""

    def setUp(self) -> None:
        """An empty directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def serve(self) -> str:
        """The address of a server that ends with the test."""
        server = Server(self.directory)
        self.addCleanup(server.kill)
        return "{}:{}".format(*server.address)

    def serve_netcode(self) -> list[str]:
        """The options for a server that listens with netcode, and ends with the test."""
        create_key(f"{self.directory}/key")
        known = ("--key-file", "key", "--protocol-id", "7")
        server = Server(self.directory, "--listen", "netcode:0", *known)
        self.addCleanup(server.kill)
        found = server.wait_for(r"listening on udp ([\d.]+:\d+), netcode")
        return ["--netcode", *known, "--to", found[1]]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A running command that ends with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "playerstate.cli", *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end; its status, and what it printed to stdout and to stderr."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stdout, stderr

    def test_simulate(self) -> None:
        """Bots come back to where they left, and the store holds them far from real players."""
        address = self.serve()
        status, stdout, stderr = self.command(
            "simulate", "--to", address, "--players", "20", "--seconds", "1", "--json"
        )
        self.assertEqual((status, stderr), (0, ""))
        found = json.loads(stdout)
        self.assertTrue(found["ok"])
        self.assertEqual((found["joined"], found["lost_moves"], found["mismatches"]), (20, 0, 0))
        shown = json.loads(run("show", f"sqlite:{self.directory}/players.db", "--json").stdout)
        self.assertEqual(
            sorted(row["session_id"] for row in shown["rows"]),
            list(range(FIRST_ID, FIRST_ID + 20)),
        )

    def test_simulate_netcode(self) -> None:
        """The same over netcode, though the server was started just now."""
        options = self.serve_netcode()
        status, stdout, stderr = self.command(
            "simulate", *options, "--players", "20", "--seconds", "1", "--json"
        )
        self.assertEqual((status, stderr), (0, ""))
        found = json.loads(stdout)
        self.assertTrue(found["ok"])
        self.assertEqual((found["joined"], found["lost_moves"], found["mismatches"]), (20, 0, 0))

    def test_simulate_teleports(self) -> None:
        """Bots on a server of their own are teleported and healed; nothing of it is left."""
        for state in ((), ("--state", "playerstate:PlayerState")):
            status, stdout, stderr = self.command(
                "simulate", "--teleport", "5", "--players", "10", "--seconds", "1", "--json", *state
            )
            self.assertEqual((status, stderr), (0, ""))
            found = json.loads(stdout)
            self.assertTrue(found["ok"])
            self.assertGreater(found["teleports"], 5)
            self.assertEqual(found["heals"] > 5, not state)
            self.assertEqual(found["changes_told"], found["teleports"] + found["heals"])
        self.assertEqual(os.listdir(self.directory), [])

    def test_simulate_undone_teleport(self) -> None:
        """Where the server lets moves undo teleports, the bot is named, and the status is 1."""
        code = (
            "from playerstate.cli import main\n"
            "from playerstate.conversations.states import States\n"
            "changed = States.changed\n"
            "States.changed = lambda *a: changed(*a[:2], False, a[3])\n"
            "main(['simulate', '--teleport', '1', '--players', '2', '--seconds', '1'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr,
            rf"^player {FIRST_ID} was teleported to x=.*, and an earlier move undid that",
        )

    def test_replay_netcode(self) -> None:
        """So can tracks be played."""
        Path(self.directory, "tracks").write_text("t,session_id,x,y\n0,1,1,1\n0.5,2,2,2\n")
        status, stdout, stderr = self.command("replay", "tracks", *self.serve_netcode(), "--json")
        self.assertEqual((status, stderr), (0, ""))
        self.assertEqual(json.loads(stdout)["saved"], 2)

    def test_not_let_in(self) -> None:
        """Where a netcode server keeps silent, one line says what may be the reason."""
        options = self.serve_netcode()
        options[options.index("7")] = "8"
        status, stdout, stderr = self.command("simulate", *options)
        self.assertEqual((status, stdout, len(stderr.splitlines())), (1, "", 1))
        self.assertIn(f"Error: no server accepts players at {options[-1]}; it must have", stderr)

    def test_replay(self) -> None:
        """Real movement, played at eight times its speed, is saved to the last row."""
        if not TRACKS.exists():
            raise unittest.SkipTest("there are no recorded tracks beside the checkout")
        address = self.serve()
        status, stdout, stderr = self.command(
            "replay", str(TRACKS), "--to", address, "--speed", "8", "--json"
        )
        self.assertEqual((status, stderr), (0, ""))
        found = json.loads(stdout)
        self.assertEqual((found["moves"], found["saved"], found["ok"]), (6358, 22, True))
        last = {move.session_id: move for move in read_tracks(TRACKS, StateSchema.of(PlayerState))}
        shown = json.loads(run("show", f"sqlite:{self.directory}/players.db", "--json").stdout)
        self.assertEqual(
            {row["session_id"]: (row["x"], row["y"]) for row in shown["rows"]},
            {session_id: move.values for session_id, move in last.items()},
        )

    def test_no_server(self) -> None:
        """Where no server answers, one line says so, and what to do."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            status, stdout, stderr = self.command("simulate", "--to", address)
        self.assertEqual((status, stdout), (1, ""))
        self.assertEqual(
            stderr,
            f"Error: no server answers at {address}; start one with 'twistd playerstate', or name"
            " another with --to\n",
        )

    def test_interrupt(self) -> None:
        """Ctrl-C ends it with a summary and status 130."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(PATIENCE)
            address = f"127.0.0.1:{server.getsockname()[1]}"
            process = self.start("simulate", "--to", address)
            server.recv(2048)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, stderr.splitlines()[0]), (130, "interrupted"))
        self.assertRegex(stdout, r"(?m)^ *players +100 *$")

    def test_fault_of_ours(self) -> None:
        """A fault in the command itself is not hidden."""
        code = (
            "from playerstate.cli import crowd, main\n"
            "crowd.Crowd.online = lambda self: 1 / 0\n"
            "crowd.Crowd.join = lambda self, ids: crowd.deferLater(self._clock, 0.0)\n"
            "main(['simulate'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertIn("ZeroDivisionError", done.stderr)
