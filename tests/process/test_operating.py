"""The operator's commands in processes of their own, beside a real server and without one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from playerstate.stores import open_store
from tests.kit.databases import PLAIN, DirectoryTestCase, spawned, take
from tests.kit.processes import PATIENCE, Server

PLAYERS = 20_000


class OperatingTests(DirectoryTestCase):
    """On a database of many players."""

    def setUp(self) -> None:
        """Save them."""
        super().setUp()
        with closing(open_store(self.url, PLAIN)) as store:
            take(store)
            with closing(store.open_writer()) as writer:
                writer.write(spawned(PLAIN, range(1, PLAYERS + 1), 5))

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        """A running command that ends with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "playerstate.cli", *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def command(self, *arguments: str, **options: object) -> tuple[int, str, str]:
        """Run a command to its end; its status, and what it printed to stdout and to stderr."""
        process = self.start(*arguments, **options)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stdout, stderr

    def test_beside_server(self) -> None:
        """What looks runs beside a server; what changes names it.  After a kill it is as it was."""
        server = Server(self.directory)
        self.addCleanup(server.kill)
        for words in (("backup", self.url, "copy.db"), ("export", self.url, "players.csv")):
            status, stdout, stderr = self.command(*words, "--json")
            self.assertEqual((status, stderr, json.loads(stdout)["players"]), (0, "", PLAYERS))
        status, stdout, stderr = self.command("check", self.url, "--json")
        self.assertEqual((status, stderr), (0, ""))
        holder = json.loads(stdout)["held_by"]
        self.assertRegex(holder, r"^process \d+$")
        status, stdout, stderr = self.command("restore", self.url, "copy.db")
        self.assertEqual((status, stdout), (1, ""))
        self.assertIn(f"{self.url} is in use by {holder}; stop the server", stderr)
        server.kill()
        status, stdout, stderr = self.command("restore", self.url, "copy.db", "--json")
        self.assertEqual((status, stderr), (0, ""))
        server = Server(self.directory)
        self.addCleanup(server.kill)

    def test_by_web(self) -> None:
        """A server that runs makes the changes that it is asked for by its web endpoint."""
        with open(f"{self.directory}/tokens", "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write("alice write a-token-of-twenty-letters\n")
        listen = ("--web", "tcp:0", "--web-token-file", "tokens")
        server = Server(self.directory, *listen)
        self.addCleanup(server.kill)
        found = re.search(r"answering http on ([0-9.:]+)", "\n".join(server.lines))
        url = f"http://{found[1]}"
        by = ("--web", url, "--token-file", "tokens")
        for words, told in (
            (("set", "7", "x=5", "y=6.5"), f"player 7 at {url}: x 350.0 -> 5.0, y 200.0 -> 6.5\n"),
            (("erase", "8"), f"player 8 erased by {url}\n"),
            (("flush",), f"{url}: everything is saved\n"),
        ):
            self.assertEqual(self.command(*words, *by), (0, told, ""))
        found = self.sql("SELECT session_id, x, y FROM player_state WHERE session_id IN (7, 8)")
        self.assertEqual(found, [(7, 5.0, 6.5)])
        status, _, stderr = self.command("kick", "7", *by)
        self.assertEqual((status, stderr), (1, f"Error: {url}: player 7 is not online\n"))
        status, stdout, _ = self.command("top", "--web", url, "--interval", "0.3", "--json")
        figures = json.loads(stdout)
        self.assertEqual((status, figures["players_online"]), (0, 0))
        unknown = [name for name, value in figures.items() if value is None]
        self.assertEqual(unknown, ["commit_p50_seconds", "commit_p99_seconds"])

    def test_ctrl_c(self) -> None:
        """Ctrl-C ends a command, which leaves nothing half done."""
        Path(self.directory, "players.csv").write_text(
            "session_id,x\n" + "".join(f"{n},9\n" for n in range(1, 10 * PLAYERS))
        )
        before = self.sql("SELECT sum(x) FROM player_state")
        process = self.start("import", self.url, "players.csv")
        while not Path(f"{self.path}.lock").read_text().startswith(f"{process.pid}\n"):
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, stdout, stderr), (1, "", "\nAborted!\n"))
        self.assertEqual(self.sql("SELECT sum(x) FROM player_state"), before)

    def test_full_output(self) -> None:
        """A full disk behind stdout is an error of one line."""
        with open("/dev/full", "w", encoding="ascii") as full:
            status, _, stderr = self.command(
                "export", self.url, "-", "--format", "csv", stdout=full
            )
        self.assertEqual(status, 1)
        self.assertEqual(stderr, "Error: cannot write the output: No space left on device\n")

    def test_completion(self) -> None:
        """A shell is given what completes commands and options."""
        environment = {**os.environ, "_PLAYERSTATE_COMPLETE": "bash_complete"}
        words = {"COMP_WORDS": "playerstate res", "COMP_CWORD": "1"}
        script = "from playerstate.cli import main; main(prog_name='playerstate')"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**environment, **words},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual(done.stdout, "plain,restore\n")
