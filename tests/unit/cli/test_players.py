"""``set``, ``kick``, ``erase`` and ``prune`` on a store that no server uses."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from playerstate import PlayerState
from playerstate.live.leftover import read_leftover
from playerstate.stores import operate_store
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import SteppedService
from tests.kit.arguments import run
from tests.kit.databases import EVERYTHING, PLAIN
from tests.kit.livefiles import LiveFileTestCase
from tests.kit.players import SCHEMA
from tests.kit.sqlite_stores import FormatTestCase

STATE = ("--state", "tests.kit.support:Everything")


class SetTests(FormatTestCase):
    """``playerstate set STORE``."""

    def setUp(self) -> None:
        """Two players."""
        super().setUp()
        self.save(EVERYTHING, (1, 1.5, 9, True, "a", 0.5, 5), (2, 2.5, 9, True, "b", 0.5, 2**61))

    def set(self, *arguments: str) -> Any:
        """What comes of it."""
        return run("set", self.url, *arguments, *STATE)

    def test_set(self) -> None:
        """The named fields change, the others stay, and the change is told."""
        before = time.time_ns() // 1000
        result = self.set("1", "hp=7", "zone=the cellar", "alive=0")
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        self.assertEqual(
            result.stdout,
            f"player 1 of {self.url}: hp 9 -> 7, zone 'a' -> 'the cellar', alive True -> False\n",
        )
        stored = self.load(EVERYTHING, 1)
        self.assertEqual(stored.values, (1.5, 7, False, "the cellar", 0.5))
        self.assertGreaterEqual(stored.updated_at, before)

    def test_json(self) -> None:
        """Programs get the values before and after."""
        found = json.loads(self.set("1", "hp=7", "--json").stdout)
        told = {"session_id": 1, "created": False, "before": {"hp": 9}, "after": {"hp": 7}}
        self.assertEqual(found, told)

    def test_from_the_future(self) -> None:
        """A player whose last change is dated ahead of the clock is changed all the same."""
        self.assertEqual(self.set("2", "hp=7").exit_code, 0)
        self.assertEqual(self.load(EVERYTHING, 2).updated_at, 2**61 + 1)

    def test_created(self) -> None:
        """A player who is not stored is made if that is wanted, with the defaults."""
        self.assertIn("holds no player 3; --create makes one", self.set("3", "hp=7").stderr)
        self.assertEqual(self.set("3", "hp=7", "--create").exit_code, 0)
        self.assertEqual(self.load(EVERYTHING, 3).values, (1.5, 7, True, "spawn", -0.25))

    def test_refused(self) -> None:
        """A value that the field does not allow changes nothing, and the field is named."""
        cases = {
            "hp=many": "hp = 'many': must be a whole number",
            "zone=" + "z" * 17: "must be text of at most 16 bytes",
            "x=nan": "x = nan: must be a finite number",
            "mana=1": "mana = '1': must be one of the fields x, hp, alive, zone, angle; --state",
        }
        for word, why in cases.items():
            with self.subTest(word):
                result = self.set("1", "angle=3", word)
                self.assertEqual(result.exit_code, 1)
                self.assertIn(why, result.stderr)
                self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertEqual(self.load(EVERYTHING, 1).updated_at, 5)

    def test_stored_by_hand(self) -> None:
        """A player whose stored values no field can hold is left as it is."""
        self.sql("UPDATE player_state SET zone = CAST(x'ff' AS TEXT) WHERE session_id = 1")
        result = self.set("1", "hp=7")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("player 1 as stored: zone = b'\\xff'", result.stderr)

    def test_refused_by_the_store(self) -> None:
        """So does a value that the database refuses."""
        self.sql(
            "CREATE TRIGGER curse BEFORE UPDATE ON player_state BEGIN"
            " SELECT RAISE(ABORT, 'cursed'); END"
        )
        self.assertIn("refuses player 1: cursed", self.set("1", "hp=7").stderr)


class KickTests(FormatTestCase):
    """``playerstate kick STORE``."""

    def test_no_server(self) -> None:
        """Without a server nobody is in the game, which is said; an unknown player is an error."""
        self.save(PLAIN, (1, 1.0, 2.0, 5))
        result = run("kick", self.url, "1")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("player 1 is in no game", result.stdout)
        found = json.loads(run("kick", self.url, "1", "--json").stdout)
        self.assertEqual(found, {"session_id": 1, "kicked": False})
        self.assertIn("holds no player 2", run("kick", self.url, "2").stderr)


class PruneTests(FormatTestCase):
    """``playerstate prune``."""

    def test_pruned(self) -> None:
        """Only those go who have been idle for longer; a dry run counts them."""
        now, day = time.time_ns() // 1000, 86_400 * 10**6
        dates = ((1, now - 31 * day), (2, now - 29 * day), (3, now))
        self.save(PLAIN, *((who, 1.0, 2.0, date) for who, date in dates))
        dry = run("prune", self.url, "--idle-days", "30", "--dry-run", "--json")
        known = {"store": self.url, "pruned": 1}
        self.assertEqual(json.loads(dry.stdout), {**known, "players": 3, "dry_run": True})
        done = run("prune", self.url, "--idle-days", "30")
        self.assertEqual(done.stdout, f"{self.url}: 1 player idle for 30 days deleted; 2 left\n")
        self.assertEqual(list(operate_store(self.url).updated_at([1, 2, 3])), [2, 3])


class LeftoverTests(LiveFileTestCase):
    """Commands on a store whose last server was killed while player 1 was unsaved."""

    def setUp(self) -> None:
        """Kill it."""
        super().setUp()
        self.url = f"sqlite:{self.crash_beside_database()}"

    def test_unsaved(self) -> None:
        """Nothing is written that would be taken for newer: what to do first is said."""
        with open("players.jsonl", "w", encoding="ascii") as file:
            file.write('{"session_id": 1, "x": 3}\n')
        for words in (
            ("set", self.url, "1", "x=5"),
            ("prune", self.url, "--idle-days", "1"),
            ("import", self.url, "players.jsonl"),
        ):
            with self.subTest(words):
                result = run(*words)
                self.assertEqual(result.exit_code, 1)
                do = f"playerstate live apply {self.path} {self.url}"
                self.assertIn("holds 1 players whose newest state", result.stderr)
                self.assertIn(do, result.stderr)
        self.assertEqual(run("live", "apply", self.path, self.url).exit_code, 0)
        self.assertEqual(run("set", self.url, "1", "y=5").exit_code, 0)
        stepped = SteppedService(store=SQLiteStore(self.url.partition(":")[2], SCHEMA))
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 5.0))
        self.successResultOf(stepped.stop())

    def test_elsewhere(self) -> None:
        """A live file elsewhere is looked into where it is named."""
        os.rename(self.path, "elsewhere.live")
        words = ("set", self.url, "1", "x=5", "--create")
        self.assertEqual(run(*words, "--live-file", "elsewhere.live").exit_code, 1)
        self.assertEqual(run(*words).exit_code, 0)

    def test_erased(self) -> None:
        """An erased player is in no live file, set aside or not, and does not come back."""
        aside = f"{self.path}.20260301T120000.123456789"
        with open(aside, "wb") as file:
            file.write(self.content())
        with open(f"{self.path}.note", "w", encoding="ascii") as file:
            file.write("an operator's")
        result = run("erase", self.url, "1", "--json")
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        found = json.loads(result.stdout)
        self.assertEqual((found["stored"], found["quarantined"]), (0, 0))
        self.assertEqual(sorted(found["live_files"]), [self.path, aside])
        for path in (self.path, aside):
            self.assertEqual(len(read_leftover(path).records), 0)
        again = run("erase", self.url, "1")
        self.assertEqual(again.stdout, f"{self.url} has nothing of player 1\n")
        stepped = SteppedService(store=SQLiteStore(self.url.partition(":")[2], SCHEMA))
        self.assertFalse(stepped.join(1).restored)
        self.successResultOf(stepped.stop())

    def test_erased_from_the_store(self) -> None:
        """What was erased is listed."""
        run("live", "apply", self.path, self.url)
        result = run("erase", self.url, "1")
        self.assertEqual(
            result.stdout, f"player 1 erased from {self.url}: the store, {self.path}\n"
        )

    def test_live_file_in_use(self) -> None:
        """Where another process uses a live file nothing is erased."""
        run("live", "apply", self.path, self.url)
        stepped = self.start()
        result = run("erase", self.url, "1")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is in use by another process", result.stderr)
        self.assertEqual(operate_store(self.url).count(), 1)
        self.successResultOf(stepped.stop())

    def test_damaged_live_file(self) -> None:
        """Where a live file is damaged, the operator decides."""
        os.truncate(self.path, 5000)
        result = run("erase", self.url, "1")
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"{self.path} is a damaged live file", result.stderr)
