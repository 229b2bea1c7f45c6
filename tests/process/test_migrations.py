"""What docs/migrations.md says: its recipes as typed, ways back, and what a crash left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from playerstate.interfaces import StoreUnusable
from playerstate.state.schema import StateSchema, was
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import SteppedService
from tests.kit.databases import DirectoryTestCase, state_class
from tests.kit.support import PATIENCE, field, made

PAGE = Path(__file__).resolve().parents[2] / "docs/migrations.md"


def recipe(containing: str) -> str:
    """The command of the page that contains this, without its prompts."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```console\n(.*?)```", page, re.S | re.M)
    (block,) = (block for block in blocks if containing in block)
    return re.sub(r"^ *[$>] ?", "", block, flags=re.M).rstrip()


class MigrationTestCase(DirectoryTestCase):
    """Runs of a service with one class after the other, on one database."""

    def run_with(
        self, state: type, player: int | None = None, killed: bool = False, **values: Any
    ) -> Any:
        """A run in which this player, if one is named, moves so; returns where it stood at first.

        What a killed run leaves is its live file, beside a database from before its moves.
        """
        live_file = f"{self.directory}/moves.live"
        stepped = SteppedService(
            state, SQLiteStore(self.path, StateSchema.of(state), "normal"), live_file=live_file
        )
        stepped.settle()
        found = None if player is None else stepped.join(player)
        if values:
            stepped.service.update(player or 0, state(**values))
        if killed:
            shutil.copy(self.path, f"{self.path}.kept")
            shutil.copy(live_file, f"{live_file}.kept")
        self.successResultOf(stepped.stop())
        if killed:
            os.replace(f"{self.path}.kept", self.path)
            os.replace(f"{live_file}.kept", live_file)
        return found

    def stored(self, state: type, player: int = 7) -> Any:
        """Where a run with this class finds the player."""
        return self.run_with(state, player).state

    def type_in(self, command: str, fails: bool = False) -> None:
        """Run a command of the page beside the database."""
        if shutil.which("sqlite3") is None:
            self.skipTest("there is no sqlite3 shell")
        done = subprocess.run(
            command, shell=True, cwd=self.directory, timeout=PATIENCE, capture_output=True
        )
        self.assertEqual(done.returncode != 0, fails, done.stderr)


HP = state_class(x=0.0, hp=100)
HEALTH = made(x=field(float, 0.0), health=field(int, 100, was("hp")))


class RecipeTests(MigrationTestCase):
    """Each command does what it is for, and no start in between gives anybody defaults."""

    def test_rename(self) -> None:
        """A renamed field keeps what is stored, and the older class gets it back by the recipe."""
        self.run_with(HP, 7, x=1.0, hp=57)
        self.assertEqual(self.stored(HEALTH), HEALTH(1.0, 57))
        self.type_in(recipe("RENAME COLUMN health TO hp"))
        self.assertEqual(self.stored(HP), HP(1.0, 57))

    def test_not_renamed_back(self) -> None:
        """The older class on a renamed column has defaults, as the page warns, and loses none."""
        self.run_with(HP, 7, x=1.0, hp=57)
        self.stored(HEALTH)
        self.assertEqual(self.stored(HP), HP(1.0, 100))
        self.run_with(HP, 7, x=1.0, hp=3)
        self.assertEqual(self.stored(HEALTH), HEALTH(1.0, 57))

    def test_int_to_float_and_back(self) -> None:
        """Numbers are the same in the new type, and in the old one again."""
        exact = state_class(x=0.0, hp=100.0)
        self.run_with(HP, 7, x=1.0, hp=2**53)
        convert = recipe("ADD COLUMN hp REAL")
        self.type_in(convert)
        with self.assertRaises(StoreUnusable):
            self.run_with(HP)
        self.assertEqual(self.stored(exact), exact(1.0, 2.0**53))
        self.type_in(recipe("DROP COLUMN hp_before"))
        self.run_with(exact, 8, x=2.0, hp=57.4)
        back = convert.replace("REAL NOT NULL DEFAULT 100.0", "INTEGER NOT NULL DEFAULT 100")
        self.type_in(back.replace("hp = hp_before", "hp = round(hp_before)"))
        self.assertEqual(self.stored(HP), HP(1.0, 2**53))
        self.assertEqual(self.stored(HP, 8), HP(2.0, 57))

    def test_conversion_that_fails(self) -> None:
        """Where a value does not fit the new type nothing has changed."""
        exact = state_class(x=0.0, hp=100.0)
        self.run_with(exact, 7, x=1.0, hp=1e30)
        convert = recipe("ADD COLUMN hp REAL").replace("REAL NOT NULL", "INTEGER NOT NULL")
        self.type_in(convert.replace("hp = hp_before", "hp = round(hp_before)"), fails=True)
        self.assertEqual(self.stored(exact), exact(1.0, 1e30))

    def test_shorten(self) -> None:
        """A text that has grown keeps the older class out until it is shortened."""
        old = made(zone=field(str, "spawn", {"playerstate.text": 8}))
        new = made(zone=field(str, "spawn", {"playerstate.text": 16}))
        self.run_with(new, 7, zone="a" * 8)
        self.assertEqual(self.stored(old), old("a" * 8))
        self.run_with(new, 7, zone="ä" * 5)
        with self.assertRaises(StoreUnusable):
            self.run_with(old)
        self.type_in(recipe("SET zone = 'spawn'"))
        self.assertEqual(self.stored(old), old("spawn"))


class CrashTests(MigrationTestCase):
    """What a killed run left, taken up by another class."""

    def test_other_case(self) -> None:
        """A field renamed in case only is recovered as it was, and is the same column."""
        upper = state_class(x=0.0, Hp=100)
        self.run_with(upper, 7, x=1.0, Hp=57)
        self.run_with(upper, 7, killed=True, x=2.0, Hp=3)
        self.assertEqual(self.stored(HP), HP(2.0, 3))
        names = [name for (name,) in self.sql("SELECT name FROM pragma_table_info('player_state')")]
        self.assertEqual(names, ["session_id", "x", "Hp", "updated_at"])

    def test_renamed(self) -> None:
        """A field with a new name has what was left under the old one."""
        self.run_with(HP, 7, x=1.0, hp=57)
        self.run_with(HP, 7, killed=True, x=2.0, hp=3)
        self.assertEqual(self.stored(HEALTH), HEALTH(2.0, 3))

    def test_renamed_by_hand(self) -> None:
        """A field whose column was renamed by hand is what that holds, not the default."""
        health = state_class(x=0.0, health=100)
        self.run_with(HP, 7, x=1.0, hp=57)
        self.run_with(HP, 7, killed=True, x=2.0, hp=3)
        self.type_in(recipe("RENAME COLUMN health TO hp").replace("health TO hp", "hp TO health"))
        self.assertEqual(self.stored(health), health(2.0, 57))

    def test_converted(self) -> None:
        """So is a field of another type."""
        exact = state_class(x=0.0, hp=100.0)
        self.run_with(HP, 7, x=1.0, hp=57)
        self.run_with(HP, 7, killed=True, x=2.0, hp=3)
        self.type_in(recipe("ADD COLUMN hp REAL"))
        self.assertEqual(self.stored(exact), exact(2.0, 57.0))

    def test_text_that_does_not_fit(self) -> None:
        """So is a text that is too long for today's field; others keep what was left."""
        new = made(zone=field(str, "home", {"playerstate.text": 16}))
        old = made(zone=field(str, "home", {"playerstate.text": 8}))
        self.run_with(new, 7, zone="mill")
        self.run_with(new, 7, killed=True, zone="a" * 9)
        self.assertEqual(self.stored(old), old("mill"))
        self.run_with(new, 7, killed=True, zone="field")
        self.assertEqual(self.stored(old), old("field"))
