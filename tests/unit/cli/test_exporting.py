"""``playerstate export``."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

from playerstate.cli import done, exporting
from playerstate.interfaces import StoreUnusable
from playerstate.stores import open_store
from tests.kit.arguments import run
from tests.kit.databases import EVERYTHING, take
from tests.kit.sqlite_stores import FormatTestCase


class ExportTests(FormatTestCase):
    """On a database of two players."""

    def setUp(self) -> None:
        """Save them."""
        super().setUp()
        self.save(
            EVERYTHING, (7, 0.1, 9, False, 'a,"b"', 1.0, 100), (5, 1.5, 2**62, True, "ö", -1.0, 9)
        )
        self.file = f"{self.directory}/players.csv"

    def test_csv(self) -> None:
        """The first line names the columns; players come by session id, with exact values."""
        result = run("export", self.url, self.file)
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        self.assertEqual(result.stdout, f"2 players of {self.url} exported to {self.file}\n")
        self.assertEqual(
            Path(self.file).read_text("utf-8").splitlines(),
            [
                "session_id,x,hp,alive,zone,angle,updated_at",
                "5,1.5,4611686018427387904,true,ö,-1.0,9",
                '7,0.1,9,false,"a,""b""",1.0,100',
            ],
        )
        self.assertEqual(os.stat(self.file).st_mode & 0o777, 0o600)

    def test_jsonl(self) -> None:
        """Each line is one object, of ASCII; bytes of others' columns are in hex."""
        self.sql("ALTER TABLE player_state ADD COLUMN raw BLOB")
        self.sql("UPDATE player_state SET raw = x'00ff' WHERE session_id = 7")
        result = run("export", self.url, "-", "--format", "jsonl")
        self.assertEqual(result.exit_code, 0)
        self.assertTrue(result.stdout.isascii())
        five, seven = map(json.loads, result.stdout.splitlines())
        self.assertEqual(
            five,
            {
                "session_id": 5,
                "x": 1.5,
                "hp": 2**62,
                "alive": True,
                "zone": "ö",
                "angle": -1.0,
                "updated_at": 9,
                "raw": None,
            },
        )
        self.assertEqual(seven["raw"], "00ff")
        self.assertIn("2 players of", result.stderr)

    def test_beside_server(self) -> None:
        """A server may run on the store."""
        with closing(open_store(self.url, EVERYTHING)) as server:
            take(server)
            found = json.loads(run("export", self.url, self.file, "--json").stdout)
        known = {"store": self.url, "file": self.file, "format": "csv", "players": 2}
        self.assertEqual(found, known)

    def test_older_file(self) -> None:
        """An older file is replaced only where that is wanted, and never a device."""
        Path(self.file).write_text("older")
        result = run("export", self.url, self.file)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("exists; name another file or give --force", result.stderr)
        self.assertEqual(run("export", self.url, self.file, "--force").exit_code, 0)
        result = run("export", self.url, "/dev/null", "--format=csv", "--force")
        self.assertEqual(result.stderr, "Error: /dev/null exists; name another file\n")

    def test_cut_short(self) -> None:
        """Where it does not come to an end, there is no file, and an older one stays."""
        Path(self.file).write_text("older")
        for error in (KeyboardInterrupt(), StoreUnusable("gone"), OSError(28, "No space left")):

            def fail(file: object, columns: object, rows: object, error=error) -> None:
                raise error

            with self.subTest(error):
                self.patch(exporting, "WRITERS", {"csv": fail})
                result = run("export", self.url, self.file, "--force")
                self.assertEqual((result.exit_code, result.stdout), (1, ""))
                self.assertEqual(Path(self.file).read_text(), "older")
                self.assertEqual(list(Path(self.directory).glob("*.part")), [])

    def test_refused(self) -> None:
        """What cannot be meant is refused."""
        for arguments, why in (
            (("players.txt",), "give --format csv or jsonl"),
            (("-", "--format=csv", "--json"), "stdout has the players; name a file"),
        ):
            result = run("export", self.url, *arguments)
            self.assertEqual(result.exit_code, 2)
            self.assertIn(why, result.stderr)
        result = run("export", self.url, "missing/players.csv")
        self.assertIn("cannot write missing/players.csv: No such file", result.stderr)
        result = run("export", self.url, "a\0.csv")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(len(result.stderr.splitlines()), 1)

    def test_players(self) -> None:
        """Players are counted in words."""
        self.assertEqual(
            list(map(done.players, (0, 1, 2000))), ["0 players", "1 player", "2,000 players"]
        )
