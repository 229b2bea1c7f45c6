"""What the README and the documentation say to type and to save runs as it stands.

Every block of Python and every command is run, or stands in `NOT_RUN` with the reason.  Ports and
addresses are replaced by free ones of the loopback interface, and bots walk for a moment only.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from playerstate.state.default import PlayerState
from playerstate.stores import open_store, operate_store
from tests.kit.databases import DirectoryTestCase, records, take
from tests.kit.pages import PAGES, blocks
from tests.kit.support import PATIENCE

SHOWN = {"text", "sql", "json", "ini", "dockerfile"}
"""Kinds of blocks that nobody types."""

SAVED = (
    ("README.md", "async def main", "program.py"),
    ("README.md", "Application(", "server.py"),
    ("README.md", "class Avatar", "mygame.py"),
    ("docs/embedding.md", "await service.flush()", "calls.py"),
    ("docs/embedding.md", "service.change(", "changes.py"),
    ("docs/embedding.md", "asyncioreactor", "loop.py"),
    ("docs/embedding.md", "service = PlayerStateService(store, ", "live_file.py"),
    ("docs/embedding.md", "class Avatar", "mygame.py"),
    ("docs/embedding.md", "Application(", "server.py"),
    ("docs/embedding.md", "PlayerClient(", "walk.py"),
    ("docs/embedding.md", "def frame(", "frame.py"),
    ("docs/embedding.md", "class JSONStore", "mygame/jsonstore.py"),
    ("docs/embedding.md", "StoreFactory(", "twisted/plugins/mygame_stores.py"),
    ("docs/netcode.md", "connect_token(", "login.py"),
    ("docs/netcode.md", "Application(", "server.py"),
    ("docs/testing.md", "TestCase", "test_mygame.py"),
    ("docs/testing.md", "PlainService(", "wire.py"),
    ("docs/testing.md", "StoreContract", "mystore.py"),
)
"""Each block of Python: its page, what it alone contains there, and what it is saved as."""

_INDEX = "needs a package index; tox installs the built wheel"
_LONG = "takes minutes; the benchmark has tests of its own"
_ROOT = "changes the machine, as root"
_DOCKER = "needs docker and an image from the network"
_WEB = "asks the web endpoint of a server; test_by_web has one"
NOT_RUN = {
    "python3 -m venv .venv": "an environment is what the tests run in",
    ".venv/bin/pip install .": _INDEX,
    ".venv/bin/pip install '.[test]'": _INDEX,
    ".venv/bin/pip install -e '.[dev]'": _INDEX,
    ".venv/bin/pip install -e '.[bench]'": _INDEX,
    ". .venv/bin/activate": "changes the shell that it is typed into",
    ".venv/bin/pytest -n 4": "runs these tests",
    ".venv/bin/python -m bench --list": _LONG,
    ".venv/bin/python -m bench": _LONG,
    "docker build -t mygame-players .": _DOCKER,
    "docker run --stop-timeout 45 -v players:/data"
    " -p 127.0.0.1:7777:7777/udp mygame-players": _DOCKER,
    "echo net.core.rmem_max=4194304 > /etc/sysctl.d/90-playerstate.conf": _ROOT,
    "sysctl --system": _ROOT,
    "playerstate top": _WEB,
    "playerstate set --web http://127.0.0.1:7780 --token-file token 42 x=120.5 y=80": _WEB,
    "playerstate kick --web http://127.0.0.1:7780 --token-file token 42": _WEB,
    "playerstate erase --web http://127.0.0.1:7780 --token-file token 42": _WEB,
    "playerstate flush --token-file token": _WEB,
}
TYPED = ("README.md", "docs/commands.md", "docs/netcode.md", "docs/sqlite.md")
"""Pages whose commands are typed here; `test_migrations` has those of migrations."""


def program(page: str, containing: str) -> str:
    """The one block of Python of a page that contains this."""
    (block,) = (b for b in blocks(page) if b.kind == "python" and containing in b.text)
    return block.text


def commands(page: str) -> list[str]:
    """What the page says to type, command by command."""
    typed = []
    for block in blocks(page):
        if block.kind == "console":
            for command in re.split(r"^ *[$#] ", block.text, flags=re.M)[1:]:
                typed += command.strip().split(" && ")
    return typed


class ListTests(SynchronousTestCase):
    """Nothing that a reader could copy is passed over."""

    def test_kinds(self) -> None:
        """Each block is run, or is of a kind that nobody types."""
        for page in PAGES:
            for block in blocks(page):
                known = block.kind in SHOWN | {"python", "console"} or block.kind[0] == "{"
                self.assertTrue(known, block)

    def test_programs(self) -> None:
        """Each block of Python is known, and known once."""
        known = [program(page, containing) for page, containing, _ in SAVED]
        found = [b.text for page in PAGES for b in blocks(page) if b.kind == "python"]
        self.assertEqual(sorted(known), sorted(found))

    def test_commands(self) -> None:
        """Each command is typed by a test, or listed with the reason."""
        others = {c for p in PAGES if p not in (*TYPED, "docs/migrations.md") for c in commands(p)}
        self.assertEqual(others - set(NOT_RUN), set())
        everything = {command for page in PAGES for command in commands(page)}
        self.assertEqual(set(NOT_RUN) - everything, set())


class TypedTestCase(DirectoryTestCase):
    """A reader in an empty directory, with the package installed."""

    def setUp(self) -> None:
        """The installation where the pages have it, and two free ports."""
        super().setUp()
        os.symlink(sys.prefix, f"{self.directory}/.venv")
        path = os.pathsep.join((f"{sys.prefix}/bin", os.environ["PATH"]))
        self.environment = os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        # With it, Python would not look where the page has its programs saved.
        self.environment.pop("PYTHONSAFEPATH", None)
        self.port, self.other_port = self.free_ports()
        self.server: subprocess.Popen[bytes] | None = None
        self.addCleanup(self.stop)

    def free_ports(self) -> tuple[int, int]:
        """Two ports that nobody has."""
        with (
            socket.socket(type=socket.SOCK_DGRAM) as one,
            socket.socket(type=socket.SOCK_DGRAM) as two,
        ):
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            return one.getsockname()[1], two.getsockname()[1]

    def here(self, text: str) -> str:
        """A text with ports of ours, on loopback."""
        for before, after in (
            ("7777", str(self.port)),
            ("40000", str(self.other_port)),
            ("203.0.113.7", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
        ):
            text = text.replace(before, after)
        if re.search(r"twistd -n playerstate(?!.*--listen)", text, re.S):
            text += f" --listen udp:{self.port}"
        if "playerstate simulate" in text:
            text += " --seconds 0.3 --players 5"
            text += "" if "--to " in text else f" --to 127.0.0.1:{self.port}"
        return text

    def save(self, page: str) -> None:
        """Save the page's programs as it says."""
        for of, containing, name in SAVED:
            if of == page:
                path = Path(self.directory, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.here(program(page, containing)), "utf-8")

    def type_in(self, command: str) -> str:
        """Type a command; what it printed.  One that serves goes on until the next that does."""
        if "twistd -n" in command:
            self.serve(command)
            return ""
        done = subprocess.run(
            self.here(command),
            shell=True,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            text=True,
        )
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{self.log()}")
        return done.stdout

    def serve(self, command: str) -> None:
        """Type a command that serves, and wait until it listens."""
        self.stop()
        assignments, words = re.fullmatch(r"((?:\w+=\S+ )*)(.*)", self.here(command), re.S).groups()
        with open(f"{self.directory}/server.log", "wb") as log:
            self.server = subprocess.Popen(
                f"{assignments}exec {words}",
                shell=True,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE
        while "listening on" not in self.log():
            self.assertIsNone(self.server.poll(), f"{command}\n{self.log()}")
            self.assertLess(time.monotonic(), deadline, f"{command}\n{self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        """What the server has printed."""
        path = Path(self.directory, "server.log")
        return path.read_text("utf-8") if path.exists() else ""

    def stop(self) -> None:
        """End the server, by its process id, and see that it was at ease."""
        if self.server is not None:
            self.server.terminate()
            self.server.wait(PATIENCE)
            self.server = None
            self.assertNotIn("Traceback", self.log())

    def type_page(self, page: str) -> None:
        """Type all commands of a page, one after the other."""
        for command in commands(page):
            if command not in NOT_RUN:
                self.type_in(command)


def promised(text: str) -> list[str]:
    """What a program's comments say that it prints."""
    return re.findall(r"^ *print\(.*\)(?:  |\n)# (.+)$", text, re.M)


class PageTests(TypedTestCase):
    """Page by page."""

    def run_program(self, name: str) -> str:
        """Run a saved program, and hold it to what its comments say."""
        printed = self.type_in(f"python {name}")
        for line in promised(Path(self.directory, name).read_text("utf-8")):
            self.assertIn(line + "\n", printed)
        return printed

    def test_readme(self) -> None:
        """The README, from its first command to a class of one's own."""
        self.save("README.md")
        self.type_page("README.md")
        self.stop()
        self.assertIn("from PlayerState(x=350.0", self.run_program("program.py"))
        self.assertIn("from PlayerState(x=351.0", self.run_program("program.py"))
        self.serve("twistd -ny server.py")
        self.type_in("playerstate simulate")
        self.stop()
        for name in Path(self.directory).glob("players.db*"):
            name.unlink()
        self.serve("twistd -n playerstate --state mygame:Avatar")
        self.type_in("playerstate simulate --state mygame:Avatar")

    def test_embedding(self) -> None:
        """Each program of the page, and a client of a real server."""
        self.save("docs/embedding.md")
        programs = ("calls.py", "changes.py", "loop.py", "live_file.py", "mygame.py", "frame.py")
        for name in programs:
            self.run_program(name)
        self.assertEqual(len(promised(program("docs/embedding.md", "service.flush"))), 2)
        self.assertEqual(len(promised(program("docs/embedding.md", "service.change("))), 2)
        self.assertEqual(len(promised(program("docs/embedding.md", "class Avatar"))), 1)
        Path(self.directory, "players.db").unlink(missing_ok=True)
        self.serve("PYTHONPATH=. twistd -ny server.py")
        self.type_in("PYTHONPATH=. playerstate simulate --state mygame:Avatar")
        self.serve("twistd -n playerstate --store memory:")
        self.assertIn("saved at PlayerState(x=390.0", self.run_program("walk.py"))

    def test_own_store(self) -> None:
        """The store of one's own serves, and takes its players back."""
        self.save("docs/embedding.md")
        os.rename(f"{self.directory}/mygame.py", f"{self.directory}/mygame/__init__.py")
        for _ in range(2):
            self.serve("PYTHONPATH=. twistd -n playerstate --store json:players.json")
            self.type_in("playerstate simulate")
        self.stop()
        kept = Path(self.directory, "players.json").read_text("utf-8")
        self.assertIn('"columns": {"x": "float64", "y": "float64"}', kept)
        self.assertIn('"values": {"x": ', kept)

    def test_netcode(self) -> None:
        """A key, a server, bots that log in; a login service; the server of one's own."""
        self.save("docs/netcode.md")
        self.type_page("docs/netcode.md")
        self.stop()
        self.run_program("login.py")
        os.rename(f"{self.directory}/players.db", f"{self.directory}/before.db")
        self.serve("twistd -ny server.py")

    def test_testing(self) -> None:
        """The tests that a game is to begin with pass, by either runner."""
        self.save("docs/testing.md")
        self.assertIn("2 passed", self.type_in("python -m pytest -q -p no:cacheprovider"))
        self.assertIn("Ran 2 tests", self.type_in("python -m twisted.trial test_mygame"))
        self.run_program("wire.py")
        self.assertIn("PASSED", self.type_in("python -m twisted.trial mystore"))

    def test_commands(self) -> None:
        """Each command on a store, in the order of the page, without a server."""
        self.save_player()
        self.type_page("docs/commands.md")
        with closing(operate_store(self.url).hold()) as held:
            self.assertEqual(held.count(), 1)

    def save_player(self) -> None:
        """A database of player 42, and of one who changed just now."""
        with closing(open_store(self.url, PlayerState)) as store:
            take(store)
            with closing(store.open_writer()) as writer:
                now = (43, 1.0, 2.0, time.time_ns() // 1000)
                writer.write(records(store.schema, (42, 1.0, 2.0, 5), now))

    def test_sqlite(self) -> None:
        """Looking in and backups, beside a server; each copy is whole."""
        if shutil.which("sqlite3") is None:
            self.skipTest("there is no sqlite3 shell")
        self.save_player()
        self.serve("twistd -n playerstate")
        self.type_page("docs/sqlite.md")
        self.stop()
        names = re.findall(r"'(players-.+?\.db)'", "\n".join(commands("docs/sqlite.md")))
        self.assertEqual(len(names), 2)
        for name in names:
            with closing(open_store(f"sqlite:{self.directory}/{name}", PlayerState)) as copy:
                copy.prepare()
