"""A look into a store."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from importlib import import_module
from typing import Any

import apsw
import attrs
import numpy as np
from rich.cells import cell_len
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema, open_store, text
from playerstate.state.layout import RowLayout
from playerstate.stores.sqlite import files as sqlite_files
from playerstate.stores.sqlite.browser import SQLiteBrowser
from tests.kit.arguments import run
from tests.kit.databases import take

WIDE = [f"f_{number}" for number in range(60)]
"""The fields of a class that no terminal has room for."""
_PLAIN: list[Any] = [-123456.789, 7, True, "A long name, of more than a column holds"]
Wide = attrs.make_class(
    "Wide",
    {
        name: attrs.field(
            default=_PLAIN[number % 4],
            type=type(_PLAIN[number % 4]),
            metadata=text(48) if number % 4 == 3 else {},
        )
        for number, name in enumerate(WIDE)
    },
    frozen=True,
)


class ShowTests(SynchronousTestCase):
    """A look into a store."""

    def store(self, players: int, state: type = PlayerState) -> str:
        """The URL of a store whose players changed one second, two seconds ago, and so on."""
        path = os.path.abspath(self.mktemp())
        url, schema = f"sqlite:{path}", StateSchema.of(state)
        store = open_store(url, schema)
        take(store)
        writer = store.open_writer()
        records = np.zeros(players, RowLayout(schema.fields).record)
        records[:] = (0, *schema.spawn, 0)
        records["session_id"] = np.arange(1, players + 1)
        if state is PlayerState:
            records["x"], records["y"] = 0.1, 0.0
        self.now = int(time.time()) * 1_000_000
        records["updated_at"] = self.now - records["session_id"] * 1_000_000
        writer.write(records)
        writer.close()
        store.close()
        return url

    def test_damaged(self) -> None:
        """A database whose pages are damaged is told of in one line."""
        url = self.store(500)
        path = url.partition(":")[2]
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
        result = run("show", url)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is damaged", result.output)
        self.assertNotIn("Traceback", result.output)

    def test_latest(self) -> None:
        """The latest hundred are shown, with how many there are."""
        lines = run("show", self.store(120)).stdout.splitlines()
        self.assertEqual(lines[0], "120 players, the latest 100 (more with --limit N or --all):")
        self.assertEqual(lines[1].split(), ["session_id", "x", "y", "updated_at", "age"])
        self.assertEqual(len(lines), 102)
        self.assertEqual([line.split()[0] for line in lines[2:4]], ["1", "2"])

    def test_all(self) -> None:
        """All are shown where all are asked for."""
        lines = run("show", self.store(120), "--all").stdout.splitlines()
        self.assertEqual((lines[0], len(lines)), ("120 players:", 122))

    def test_limit(self) -> None:
        """As many are shown as are asked for, and how many there are is said."""
        url = self.store(120)
        lines = run("show", url, "--limit", "3").stdout.splitlines()
        self.assertEqual(lines[0], "120 players, the latest 3 (more with --limit N or --all):")
        self.assertEqual([line.split()[0] for line in lines[2:]], ["1", "2", "3"])
        shown = json.loads(run("show", url, "--limit", "3", "--json").stdout)
        self.assertEqual([row["session_id"] for row in shown["rows"]], [1, 2, 3])
        both = run("show", url, "--limit", "3", "--all")
        self.assertEqual(both.stderr, "Error: --limit and --all: give one of them\n")

    def on_a_screen(self, *arguments: str) -> list[str]:
        """The lines of a command on a terminal of 80 columns and 24 lines, in which all fit."""
        self.patch(import_module("playerstate.cli.show"), "screen", lambda: (80, 24))
        lines = run("show", *arguments).stdout.splitlines()
        self.assertLessEqual(max(map(cell_len, lines)), 80)
        return lines

    def test_screen(self) -> None:
        """A terminal gets what fits it, with the prompt that follows."""
        lines = self.on_a_screen(self.store(120))
        self.assertEqual(len(lines), 23)
        self.assertIn("120 players, the latest 21 ", lines[0])

    def test_names_on_each_screen(self) -> None:
        """Of a table longer than the terminal, each screenful has the columns' names."""
        lines = self.on_a_screen(self.store(120), "--all")
        for start in range(len(lines) - 22):
            self.assertIn("session_id", " ".join(lines[start : start + 23]))
        self.assertEqual(len({line for line in lines if "session_id" in line}), 1)
        self.assertEqual(len([line for line in lines if line.rstrip().endswith(("s", "n"))]), 120)

    def test_wide(self) -> None:
        """Columns that do not fit are named, and what is there is whole."""
        lines = self.on_a_screen(self.store(50, Wide), "--limit", "9")
        shown = lines[1].split()
        self.assertEqual((shown[0], shown[-1]), ("session_id", "age"))
        self.assertEqual(shown[1:-1], WIDE[: len(shown) - 2])
        self.assertEqual(lines[2].split()[:2], ["1", "-123456.789"])
        hint = " ".join(lines[11:])
        for name in [*WIDE[len(shown) - 2 :], "updated_at"]:
            self.assertIn(f"{name},", hint.replace(".", ","))
        self.assertTrue(hint.startswith(f"{63 - len(shown)} columns do not fit: "), hint)
        self.assertIn("ID` shows one player in full, --json everything.", hint)

    def test_wide_in_full(self) -> None:
        """One player is a list of all fields."""
        lines = self.on_a_screen(self.store(50, Wide), "2")
        listed = dict(line.split(maxsplit=1) for line in lines)
        self.assertEqual(list(listed), ["session_id", *WIDE, "updated_at"])
        self.assertEqual(listed["f_0"], "-123456.789")
        self.assertEqual(listed["f_59"], "A long name, of more than a column holds")

    def test_piped_in_full(self) -> None:
        """What is no terminal gets all columns, and texts whole."""
        lines = run("show", self.store(2, Wide)).stdout.splitlines()
        self.assertEqual(lines[1].split(), ["session_id", *WIDE, "updated_at", "age"])
        self.assertIn("A long name, of more than a column holds", lines[2])

    def test_columns_of_others(self) -> None:
        """A column that somebody added, and a time beyond the calendar, are shown all the same."""
        url = self.store(2)
        with closing(apsw.Connection(url.partition(":")[2])) as connection:
            connection.execute("ALTER TABLE player_state ADD COLUMN face BLOB")
            connection.execute("UPDATE player_state SET face = x'c0ffee' WHERE session_id = 1")
            connection.execute(f"UPDATE player_state SET updated_at = {2**63 - 1}")
        self.assertIn(f"{2**63 - 1}", run("show", url, "1").stdout)
        self.assertIn("c0ffee", run("show", url).stdout)
        rows = json.loads(run("show", url, "--json").stdout)["rows"]
        self.assertEqual([row["face"] for row in rows], ["c0ffee", None])

    def test_ages(self) -> None:
        """Ages are told in the largest unit that fits, beside the date in UTC."""
        url = self.store(200_000)
        for session_id, age in ((2, "s"), (120, "2 min"), (7_200, "2 h"), (180_000, "2 d")):
            line = run("show", url, str(session_id)).stdout.splitlines()[-1]
            self.assertTrue(line.endswith(f"{age} ago"), line)
            moment = time.gmtime(self.now // 1_000_000 - session_id)
            self.assertIn(time.strftime("%Y-%m-%dT%H:%M:%SZ", moment), line)

    def test_json(self) -> None:
        """In JSON, nothing is rounded."""
        shown = json.loads(run("show", self.store(3), "2", "--json").stdout)
        row = {"session_id": 2, "x": 0.1, "y": 0.0, "updated_at": self.now - 2_000_000}
        self.assertEqual(shown, {"players": 3, "rows": [row]})

    def test_empty(self) -> None:
        """A store without players is no error."""
        result = run("show", self.store(0))
        self.assertEqual((result.exit_code, result.stdout), (0, "0 players\n"))

    def test_one_player(self) -> None:
        """One player is one player."""
        self.assertTrue(run("show", self.store(1)).stdout.startswith("1 player:\nsession_id  1\n"))

    def test_not_to_be_written(self) -> None:
        """A database that this user may only read is shown, and nothing is made beside it."""
        url = self.store(3)
        path = url.partition(":")[2]
        os.unlink(f"{path}.lock")
        os.mkdir("apart")
        os.rename(path, "apart/a?b#c %41.db")
        flags = []
        connect = sqlite_files.apsw.Connection
        self.patch(sqlite_files.os, "access", lambda path, mode: False)
        self.patch(
            sqlite_files.apsw,
            "Connection",
            lambda path, flags_=0, **named: flags.append(named["flags"]) or connect(path, **named),
        )
        with closing(SQLiteBrowser(os.path.abspath("apart/a?b#c %41.db"))) as browser:
            self.assertEqual(browser.count(), 3)
            self.assertEqual(os.listdir("apart"), ["a?b#c %41.db"])
        self.assertEqual([flag & apsw.SQLITE_OPEN_READWRITE for flag in flags], [0])

    def test_no_such_player(self) -> None:
        """A player whom the store does not hold is an error of one line."""
        result = run("show", self.store(1), "7")
        self.assertEqual(result.exit_code, 1)
        self.assertRegex(result.stderr, "^Error: sqlite:.* holds no player 7\n$")

    def test_no_store(self) -> None:
        """A file that is missing is an error of one line, and is not made."""
        path = os.path.abspath(self.mktemp())
        result = run("show", f"sqlite:{path}")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.stderr, f"Error: {path} does not exist\n")
        self.assertFalse(os.path.exists(path))
