"""``playerstate import``: all players of a file, or none."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from playerstate.cli import checking, formats, importing
from playerstate.stores.sqlite import batches
from tests.kit.arguments import run
from tests.kit.databases import EVERYTHING, digest
from tests.kit.sqlite_stores import FormatTestCase

STATE = ("--state", "tests.kit.support:Everything")


class ImportTestCase(FormatTestCase):
    """A database of player 1, and a file to import."""

    def setUp(self) -> None:
        """Save the player."""
        super().setUp()
        self.save(EVERYTHING, (1, 1.0, 2, False, "a", 3.0, 5))

    def write(self, text: str | bytes, name: str = "players.csv") -> str:
        """The path of a file of this text."""
        path = Path(self.directory, name)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def import_(self, text: str | bytes, name: str = "players.csv", *more: str) -> Any:
        """What comes of importing a file of this text."""
        return run("import", self.url, self.write(text, name), *STATE, *more)

    def stored(self) -> list[tuple[Any, ...]]:
        """The rows of the database."""
        return self.sql("SELECT session_id, x, hp, alive, zone, angle FROM player_state")


class GoodTests(ImportTestCase):
    """Files that are imported."""

    def test_csv(self) -> None:
        """Players are saved as given; a field without a column is kept, or gets its default."""
        text = 'session_id,x,zone,alive\n1,2.5,"two\nlines",TRUE\n\n7,0.1,,0\n'
        result = self.import_(text)
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        file = f"{self.directory}/players.csv"
        self.assertEqual(result.stdout, f"2 players imported from {file} into {self.url}\n")
        self.assertEqual(
            self.stored(),
            [(1, 2.5, 2, 1, "two\nlines", 3.0), (7, 0.1, 100, 0, "", -0.25)],
        )

    def test_jsonl(self) -> None:
        """Each object may give other fields; a byte-order mark and empty lines do no harm."""
        text = '\ufeff{"session_id": 1, "hp": 9}\n\n{"session_id": 7, "alive": true, "x": 4}\n'
        found = json.loads(self.import_(text, "players.jsonl", "--json").stdout)
        self.assertEqual((found["players"], found["outdated"]), (2, 0))
        self.assertEqual(
            self.stored(), [(1, 1.0, 9, 0, "a", 3.0), (7, 4.0, 100, 1, "spawn", -0.25)]
        )

    def test_dates(self) -> None:
        """Without a date a player changed now; one that is older than the store's is left out."""
        before = time.time_ns() // 1000
        result = self.import_("session_id,updated_at,x\n1,4,9\n2,17,9\n")
        self.assertIn("1 player imported", result.stdout)
        self.assertIn("; 1 outdated: the store has a newer state of them", result.stdout)
        self.import_("session_id,x\n3,9\n")
        dates = dict(self.sql("SELECT session_id, updated_at FROM player_state"))
        self.assertEqual((dates[1], dates[2]), (5, 17))
        self.assertGreaterEqual(dates[3], before)

    def test_round_trip(self) -> None:
        """What was exported is imported into a new store, to the last bit, in both formats."""
        rows = [(n, n / 7, -(2**62) + n, n % 2 == 0, f"ö,\"'\n{n}", 5e-324 * n, n) for n in (2, 9)]
        self.save(EVERYTHING, *rows)
        before = self.sql("SELECT * FROM player_state")
        for name in ("out.csv", "out.jsonl"):
            with self.subTest(name):
                file = f"{self.directory}/{name}"
                self.assertEqual(run("export", self.url, file).exit_code, 0)
                new = f"sqlite:{file}.db"
                self.assertIn("--create makes it", run("import", new, file, *STATE).stderr)
                self.assertEqual(run("import", new, file, *STATE, "--create").exit_code, 0)
                url, self.path = self.path, f"{file}.db"
                self.assertEqual(self.sql("SELECT * FROM player_state"), before)
                self.path = url

    def test_many(self) -> None:
        """A file may have more lines than are read at a time; players need not be in order."""
        self.patch(importing, "AT_ONCE", 3)
        text = "session_id,x\n" + "".join(f"{n},{n}\n" for n in range(10, 1, -1))
        self.assertIn("9 players imported", self.import_(text).stdout)
        self.assertEqual([row[:2] for row in self.stored()][1:], [(n, n) for n in range(2, 11)])

    def test_stdin(self) -> None:
        """A file may come by a pipe, whose format is to be told."""
        read, write = os.pipe()
        with open(write, "wb") as file:
            file.write(b'{"session_id": 8}\n')
        stdin = os.fdopen(read)
        self.addCleanup(stdin.close)
        self.patch(sys, "stdin", stdin)
        schema, told = EVERYTHING, io.StringIO()
        self.patch(sys, "stdout", told)
        importing.import_players(self.url, "-", "jsonl", schema, False, False, None, False)
        self.assertIn("1 player imported from -", told.getvalue())
        self.assertIn("give --format csv or jsonl", run("import", self.url, "-").stderr)

    def test_skip_unknown(self) -> None:
        """Columns that are no fields are skipped if that is wanted."""
        text = "session_id,x,mana\n2,1,9\n"
        self.assertIn("mana = '9': must be one of the fields", self.import_(text).stderr)
        self.assertEqual(self.import_(text, "a.csv", "--skip-unknown").exit_code, 0)


class BadTests(ImportTestCase):
    """Files of which nothing is imported."""

    def bad(self, text: str | bytes, name: str = "players.csv") -> list[str]:
        """What is said; the database stays as it is."""
        before = digest(self.path)
        result = self.import_(text, name)
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertEqual(digest(self.path), before)
        return result.stderr.replace(f"{self.directory}/{name}", "FILE").splitlines()

    def test_csv(self) -> None:
        """Each bad line is named, with the column and what is allowed."""
        head = b"session_id,x,hp,zone,updated_at\n"
        whole = "must be a whole number from 1 to 9223372036854775807"
        cases = (
            (b"one,1,1,a,1", f"session_id = 'one': {whole}"),
            (b"0,1,1,a,1", f"session_id = '0': {whole}"),
            (b"2,much,1,a,1", "x = 'much': must be a finite number"),
            (b"2,nan,1,a,1", "x = nan: must be a finite number"),
            (b"2,1,1.0,a,1", "hp = '1.0': must be a whole number of 64 bits"),
            (b"2,1,1," + b"z" * 17 + b",1", f"zone = '{'z' * 17}': must be text of at most 16"),
            (b"2,1,1,\xff,1", "zone = '\\udcff': must be text of at most 16"),
            (b"2,1,1,a,9223372036854775807", "updated_at = '9223372036854775807': must be a"),
            (b"2,1,1", "3 cells: must be 5, as in the first line"),
            (b'2,1,1,"a"b,1', "it is not CSV: "),
        )
        for line, why in cases:
            with self.subTest(line):
                said = self.bad(head + b"9,1,1,a,1\n" + line + b"\n")
                self.assertTrue(said[0].startswith(f"FILE, line 3: {why}"), said[0])
                self.assertEqual(said[1:], ["Error: FILE: 1 line is bad; nothing was imported"])

    def test_jsonl(self) -> None:
        """The same of JSON Lines."""
        cases = (
            (b"{}", "there is no session_id"),
            (b'{"session_id": true}', "session_id = True: must be a whole number"),
            (b'{"session_id": 2.0}', "session_id = 2.0: must be a whole number"),
            (b'{"session_id": 2, "x": "1"}', "x = '1': must be a finite number"),
            (b'{"session_id": 2, "x": NaN}', "x = nan: must be a finite number"),
            (b'{"session_id": 2, "alive": 1}', "alive = 1: must be True or False"),
            (b'{"session_id": 2, "q": 1}', "q = 1: must be one of the fields x, hp, alive, zone"),
            (b"[2]", "it is not a JSON object"),
            (b"2,1", "it is not JSON: "),
            (b"\xff", "it is not JSON: "),
            (b"[" * 99_999, "it is not JSON: "),
        )
        for line, why in cases:
            with self.subTest(line[:30]):
                said = self.bad(b'{"session_id": 9}\n' + line + b"\n", "players.jsonl")
                self.assertTrue(said[0].startswith(f"FILE, line 2: {why}"), said[0])

    def test_columns(self) -> None:
        """So is a first line that does not name the columns."""
        for text, why in (
            ("x,y\n1,2\n", "the first line must name the columns, and there is no session_id"),
            ("session_id,x,x\n1,2,3\n", "column 'x' is named twice"),
            ("", "the first line must name the columns, and there is no session_id"),
            ("session_id,x\n", "there are no players"),
        ):
            with self.subTest(text):
                self.assertEqual(self.bad(text)[0], f"FILE, line 1: {why}")

    def test_too_long(self) -> None:
        """A line without an end is not read to its end."""
        self.patch(formats, "LONGEST_LINE", 100)
        self.assertIn("a line has more than 100 bytes", self.bad("x" * 200)[0])
        self.assertIn("it has more than 100 bytes", self.bad("x" * 200, "players.jsonl")[0])

    def test_twice(self) -> None:
        """A player who is in the file twice is named with both lines."""
        said = self.bad("session_id,x\n4,1\n5,1\n4,2\n")
        self.assertEqual(said[0], "FILE, line 4: player 4 is in line 2 already")

    def test_many(self) -> None:
        """The first bad lines are named, the others counted."""
        self.patch(checking, "MOST_NAMED", 2)
        said = self.bad("session_id,x\n" + "4,bad\n" * 5)
        self.assertEqual(len(said), 3)
        self.assertEqual(said[-1], "Error: FILE: 5 lines are bad; nothing was imported")

    def test_refused_by_the_store(self) -> None:
        """A row that the database refuses is named by its line, and the others are not saved."""
        self.sql(
            "CREATE TRIGGER curse BEFORE INSERT ON player_state WHEN NEW.x < 0 BEGIN"
            " SELECT RAISE(ABORT, 'cursed'); END"
        )
        said = self.bad("session_id,x\n9,1\n8,-1\n7,1\n")
        self.assertEqual(said[0], "FILE, line 3: the store refuses it: cursed")

    def test_stored_by_hand(self) -> None:
        """So is a player whose stored values no field can hold."""
        self.sql("UPDATE player_state SET zone = CAST(x'ff' AS TEXT)")
        said = self.bad("session_id,x\n9,1\n1,1\n")
        self.assertIn("FILE, line 3: as the store has the player: zone = b'\\xff'", said[0])

    def test_full_disk(self) -> None:
        """Where the disk is full nothing is saved."""
        error = batches.apsw.FullError("database or disk is full")

        def full(self: object, records: object) -> list[int]:
            raise error

        self.patch(batches.Batches, "upsert", full)
        self.assertIn("check that its disk has room", self.bad("session_id,x\n9,1\n")[0])

    def test_ctrl_c(self) -> None:
        """Ctrl-C while rows are saved leaves nothing of them."""
        find = batches.Batches.upsert

        def interrupt(self: batches.Batches, records: Any) -> list[int]:
            find(self, records)
            raise KeyboardInterrupt

        self.patch(batches.Batches, "upsert", interrupt)
        result = self.import_("session_id,x\n9,1\n")
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("Aborted!", result.stderr)
        self.assertEqual(self.stored(), [(1, 1.0, 2, 0, "a", 3.0)])

    def test_no_file(self) -> None:
        """A file that cannot be read is an error of one line."""
        for path in (f"{self.directory}/missing.csv", self.directory):
            result = run("import", self.url, path, "--format", "csv", *STATE)
            self.assertEqual(result.exit_code, 1)
            self.assertIn(f"cannot read {path}", result.stderr)
