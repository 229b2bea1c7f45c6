"""How a command takes a store in hand, and what it says where it cannot."""

from __future__ import annotations

import os
from contextlib import closing

from playerstate.stores import open_store
from tests.kit.arguments import run
from tests.kit.databases import PLAIN, digest, state_class, take
from tests.kit.sqlite_stores import FormatTestCase

CHANGES = {
    "set": ("1", "x=5"),
    "kick": ("1",),
    "erase": ("1",),
    "import": ("players.csv",),
    "restore": ("copy.db",),
    "migrate": (),
    "prune": ("--idle-days", "1"),
}
"""Every command that changes a store, and its further arguments."""
BY_WEB = ("set", "kick", "erase")


class OperatingTests(FormatTestCase):
    """Commands on a store of one player."""

    def setUp(self) -> None:
        """Save the player, and a file to import."""
        super().setUp()
        self.save(PLAIN, (1, 1.0, 2.0, 5))
        with open(f"{self.directory}/players.csv", "w", encoding="ascii") as file:
            file.write("session_id,x,y\n1,9,9\n")
        run("backup", self.url, f"{self.directory}/copy.db")

    def arguments(self, command: str, url: str) -> list[str]:
        """What is typed."""
        return [command, url, *map(self.here, CHANGES[command])]

    def here(self, word: str) -> str:
        """An argument, with the path of a file."""
        return f"{self.directory}/{word}" if "." in word else word

    def test_in_use(self) -> None:
        """Beside a server nothing is changed: the process is named, and what to do instead."""
        with closing(open_store(self.url, PLAIN)) as server:
            take(server)
            before = digest(self.path)
            for command in CHANGES:
                with self.subTest(command):
                    result = run(*self.arguments(command, self.url))
                    self.assertEqual((result.exit_code, result.stdout), (1, ""))
                    who = f"Error: {self.url} is in use by process {os.getpid()}; "
                    self.assertTrue(result.stderr.startswith(who), result.stderr)
                    told = "--web URL --token-file FILE" in result.stderr
                    self.assertEqual(told, command in BY_WEB)
            self.assertEqual(digest(self.path), before)

    def test_not_offered(self) -> None:
        """A store that cannot be operated on is an error of one line."""
        others = {"export": ("-", "--format=csv"), "backup": ("copy",), "check": ()}
        for command, more in {**CHANGES, **others}.items():
            with self.subTest(command):
                result = run(command, "memory:", *map(self.here, more))
                self.assertEqual(result.exit_code, 1)
                self.assertIn("Error: memory:: this store offers no such command", result.stderr)
                self.assertEqual(len(result.stderr.splitlines()), 1)

    def test_no_fit(self) -> None:
        """A store of another class is not changed: what would is said."""
        self.use("other.db")
        self.save(state_class(x=1.0), (1, 1.0, 5))
        for command in ("set", "import"):
            with self.subTest(command):
                result = run(*self.arguments(command, self.url))
                self.assertEqual(result.exit_code, 1)
                self.assertIn("is not as PlayerState needs it: add columns y;", result.stderr)
