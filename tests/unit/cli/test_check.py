"""``playerstate check``."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

from playerstate.stores import open_store
from tests.kit.arguments import run
from tests.kit.databases import IDENTITY, PLAIN, digest, state_class, take
from tests.kit.livefiles import LiveFileTestCase, leave_unsaved
from tests.kit.sqlite_stores import FormatTestCase


class CheckTests(FormatTestCase):
    """On a database of one player, without a server."""

    def setUp(self) -> None:
        """Save the player."""
        super().setUp()
        self.save(PLAIN, (1, 1.0, 2.0, 5))

    def check(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit status, and what was found."""
        result = run("check", self.url, "--json", *arguments)
        self.assertEqual(result.stderr, "")
        return result.exit_code, json.loads(result.stdout)

    def test_well(self) -> None:
        """Where all is well each part is told, and nothing is changed."""
        before = digest(self.path)
        result = run("check", self.url)
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        self.assertEqual(
            result.stdout.splitlines(),
            [
                f"{self.url}: 1 player, in use by no server",
                "integrity: whole",
                "schema: fits PlayerState",
                f"live file: there is no {self.path}.live",
                "quarantined rows: none",
                "all is well",
            ],
        )
        self.assertEqual(digest(self.path), before)

    def test_beside_server(self) -> None:
        """A server is named, and its live file left to it."""
        with closing(open_store(self.url, PLAIN)) as server:
            take(server)
            status, found = self.check()
        self.assertEqual((status, found["held_by"]), (0, f"process {os.getpid()}"))
        self.assertEqual(found["live_file"], {"path": f"{self.path}.live"})

    def test_damaged(self) -> None:
        """Damage is wrong, whatever else there is."""
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (os.path.getsize(self.path) - 4096))
        result = run("check", self.url)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("damaged", result.output)

    def test_index_damaged(self) -> None:
        """So is an index that does not fit its table, with the way to mend it."""
        self.patch_check(["row 1 missing from index by_x"] * 12)
        status, found = self.check()
        self.assertEqual((status, len(found["damage"]), found["ok"]), (1, 10, False))
        self.assertIn("and 2 more; restore a backup", run("check", self.url).stdout)

    def patch_check(self, damage: list[str]) -> None:
        """Have the database show this damage."""
        from playerstate.stores.sqlite import content

        self.patch(content, "find_damage", lambda connection: damage)

    def test_migration(self) -> None:
        """What the next start would change is told, and is not wrong; what it refuses is."""
        self.use("other.db")
        self.save(state_class(x=1.0))
        status, found = self.check()
        self.assertEqual((status, found["migration"]), (0, ["add columns y"]))
        self.assertIn("the next start with PlayerState would: add", run("check", self.url).stdout)
        self.use("text.db")
        self.save(state_class(x="text"))
        status, found = self.check()
        self.assertEqual(status, 1)
        self.assertIn("field x is float now", found["schema"])

    def test_quarantined(self) -> None:
        """Quarantined rows are for the operator to look into."""
        with open(f"{self.path}.refused.jsonl", "w", encoding="ascii") as file:
            file.write('{"session_id": 5}\n')
        status, found = self.check()
        self.assertEqual((status, found["quarantined"]), (1, 1))

    def test_live_file_of_another_store(self) -> None:
        """Unsaved players whom the next start would set aside are wrong."""
        leave_unsaved(f"{self.path}.live")
        self.assertNotEqual(bytes(range(16)), IDENTITY)
        status, found = self.check()
        self.assertEqual((status, found["live_file"]["to_recover"]), (1, 0))
        self.assertIn("of another store", found["wrong"][0])

    def test_live_file_damaged(self) -> None:
        """So is a live file that makes no sense."""
        leave_unsaved(f"{self.path}.live")
        os.truncate(f"{self.path}.live", 5000)
        status, found = self.check()
        self.assertEqual(status, 1)
        self.assertIn("its size is not that of", found["live_file"]["error"])


class LeftoverTests(LiveFileTestCase):
    """After a server was killed."""

    def setUp(self) -> None:
        """Kill it while player 1 was unsaved."""
        super().setUp()
        self.url = f"sqlite:{self.crash_beside_database()}"

    def found(self) -> tuple[int, dict[str, Any]]:
        """The exit status, and what was found of the live file."""
        result = run("check", self.url, "--json")
        return result.exit_code, json.loads(result.stdout)["live_file"]

    def test_to_recover(self) -> None:
        """It is said how many players the next start recovers; that is not wrong."""
        known = {"path": self.path, "players": 1}
        self.assertEqual(self.found(), (0, {**known, "clean": False, "to_recover": 1}))
        told = run("check", self.url).stdout
        self.assertIn("of 1 player in it, the next start recovers 1, the newest of ", told)

    def test_saved_already(self) -> None:
        """Players of whom the store has the newest state are not among them."""
        with open(self.path, "rb") as file:
            before = file.read()
        run("live", "apply", self.path, self.url)
        self.replace(before)
        known = {"path": self.path, "players": 1}
        self.assertEqual(self.found(), (0, {**known, "clean": False, "to_recover": 0}))
        self.assertIn("of 1 player in it, the store has all", run("check", self.url).stdout)

    def test_clean(self) -> None:
        """After a clean stop nobody is unsaved."""
        run("live", "apply", self.path, self.url)
        known = {"path": self.path, "players": 1}
        self.assertEqual(self.found(), (0, {**known, "clean": True, "to_recover": 0}))
