"""``playerstate live``: looks into a live file that was set aside, and saves its players."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import apsw
from click.testing import CliRunner

from playerstate import PlayerState
from playerstate.cli import main
from playerstate.live.leftover import read_leftover
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import SteppedService
from tests.kit.livefiles import LiveFileTestCase
from tests.kit.players import SCHEMA


class LiveTests(LiveFileTestCase):
    """The command, on what a killed server left beside its database."""

    def live(self, *arguments: str) -> Any:
        """What ``playerstate live`` makes of these arguments."""
        return CliRunner().invoke(main, ["live", *arguments], prog_name="playerstate")

    def test_applied_by_a_command(self) -> None:
        """What was left can be looked into, and saved where the store has nothing newer."""
        database = self.crash_beside_database()
        url = f"sqlite:{database}"
        os.rename(self.path, f"{self.path}.aside")
        stepped = SteppedService(store=SQLiteStore(database, SCHEMA))  # a new identity
        stepped.join(2)
        stepped.service.update(2, PlayerState(2.0, 0.0))
        aside = f"{self.path}.aside"
        shown = self.live("show", aside, "--json")
        (row,) = json.loads(shown.output)["rows"]
        self.assertEqual((row["session_id"], row["x"]), (1, 1.0))
        self.assertIn("session_id=1 x=1.0", self.live("show", aside).output)
        refused = self.live("apply", aside, url)
        self.assertEqual(refused.exit_code, 1)
        self.assertIn("is in use by process", refused.output)
        self.successResultOf(stepped.stop())
        self.assertFalse(read_leftover(aside).clean)
        applied = self.live("apply", aside, url)
        self.assertIn("1 of 1 players applied, 0 outdated", applied.output)
        self.assertTrue(read_leftover(aside).clean)
        again = self.live("apply", aside, url)
        self.assertIn("0 of 1 players applied, 1 outdated", again.output)
        stepped = SteppedService(store=SQLiteStore(database, SCHEMA))
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(stepped.join(2).state, PlayerState(2.0, 0.0))
        stepped.service.update(1, PlayerState(5.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertIn("0 of 1 players applied", self.live("apply", aside, url).output)

    def test_row_that_cannot_be_applied(self) -> None:
        """Where the store can never take a row, the command names the player and the reason."""
        database = self.crash_beside_database()
        os.rename(self.path, f"{self.path}.aside")
        with contextlib.closing(apsw.Connection(database)) as connection:
            connection.execute(
                "CREATE TRIGGER curse BEFORE INSERT ON player_state BEGIN"
                " SELECT RAISE(ABORT, 'cursed'); END"
            )
        refused = self.live("apply", f"{self.path}.aside", f"sqlite:{database}")
        self.assertEqual(refused.exit_code, 1)
        self.assertIn("cannot take player 1: cursed; see to that", refused.output)
        self.assertFalse(read_leftover(f"{self.path}.aside").clean)

    def test_command_refuses(self) -> None:
        """One in use, no live file, no file, no database: one line each, and nothing changes."""
        database = self.crash_beside_database()
        missing = f"sqlite:{self.directory}/missing.db"
        for arguments, why in (
            (("apply", self.path, missing), "is no database that exists"),
            (("apply", self.path, "memory:"), "is no database that exists"),
            (("show", database), "is not a live file"),
            (("show", f"{self.directory}/missing"), "cannot read"),
        ):
            result = self.live(*arguments)
            self.assertEqual(result.exit_code, 1, arguments)
            self.assertIn(why, result.output)
            self.assertEqual(result.output.count("\n"), 1)
        self.assertFalse(os.path.exists(f"{self.directory}/missing.db"))
        self.assertFalse(read_leftover(self.path).clean)
        stepped = self.start(SQLiteStore(database, SCHEMA))
        self.assertIn("is in use by another process", self.live("show", self.path).output)
        self.successResultOf(stepped.stop())
