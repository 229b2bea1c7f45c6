"""``backup``, ``restore`` and ``migrate``."""

from __future__ import annotations

import json
import os
from contextlib import closing

from playerstate.live.file import LiveFile
from playerstate.live.leftover import read_leftover
from playerstate.stores import open_store, operate_store
from tests.kit.arguments import run
from tests.kit.databases import PLAIN, digest, state_class, take
from tests.kit.livefiles import LiveFileTestCase
from tests.kit.sqlite_stores import FormatTestCase


class BackupTests(FormatTestCase):
    """``playerstate backup``."""

    def setUp(self) -> None:
        """A database of one player."""
        super().setUp()
        self.save(PLAIN, (1, 1.0, 2.0, 5))
        self.copy = f"{self.directory}/copy.db"

    def test_beside_server(self) -> None:
        """A copy is made beside a server, and what was done is told."""
        with closing(open_store(self.url, PLAIN)) as server:
            take(server)
            result = run("backup", self.url, self.copy)
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        size = f"{os.path.getsize(self.copy):,}"
        self.assertEqual(
            result.stdout,
            f"1 player of {self.url} backed up to {self.copy}, {size} bytes, verified\n",
        )
        self.assertEqual(operate_store(f"sqlite:{self.copy}").count(), 1)

    def test_older_copy(self) -> None:
        """An older copy is replaced only where that is wanted."""
        with open(self.copy, "wb") as file:
            file.write(b"older")
        result = run("backup", self.url, self.copy)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("exists; name another file or give --force", result.stderr)
        found = json.loads(run("backup", self.url, self.copy, "--force", "--json").stdout)
        self.assertEqual(
            found,
            {
                "store": self.url,
                "file": self.copy,
                "players": 1,
                "bytes": os.path.getsize(self.copy),
            },
        )

    def test_damaged(self) -> None:
        """Where the database cannot be read there is no copy, and an older one stays."""
        run("backup", self.url, self.copy)
        before = digest(self.copy)
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (os.path.getsize(self.path) - 4096))
        result = run("backup", self.url, self.copy, "--force")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is damaged", result.stderr)
        self.assertEqual(digest(self.copy), before)
        self.assertEqual([n for n in os.listdir(self.directory) if "part" in n], [])


class RestoreTests(LiveFileTestCase):
    """``playerstate restore``, after a server was killed."""

    def setUp(self) -> None:
        """A copy of the run that was killed while player 1 was unsaved."""
        super().setUp()
        self.database = self.crash_beside_database()
        self.url = f"sqlite:{self.database}"
        self.copy = f"{self.directory}/copy.db"
        run("backup", self.url, self.copy)

    def test_restored(self) -> None:
        """The live file is set aside, unsaved as it is; nothing of it is recovered."""
        result = run("restore", self.url, self.copy, "--json")
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        found = json.loads(result.stdout)
        database, live = found["set_aside"]
        self.assertTrue(database.startswith(f"{self.database}."))
        self.assertTrue(live.startswith(f"{self.path}."))
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(read_leftover(live).unsaved, 1)
        self.assertEqual(found["players"], 0)
        told = run("restore", self.url, self.copy).stdout
        self.assertIn(f"0 players restored from {self.copy} into {self.url}; set aside: ", told)

    def test_live_file_in_use(self) -> None:
        """Where another process uses the live file nothing is restored."""
        live_file = LiveFile(self.path)
        live_file.claim(operate_store(self.url).identity())
        self.addCleanup(live_file.close, False)
        before = digest(self.database)
        result = run("restore", self.url, self.copy)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is in use by another process", result.stderr)
        self.assertEqual(digest(self.database), before)

    def test_no_copy(self) -> None:
        """What is no copy changes nothing, and makes no file."""
        before = sorted(os.listdir(self.directory))
        for copy in ("missing", self.path, self.directory):
            with self.subTest(copy):
                result = run("restore", f"sqlite:{self.directory}/new.db", copy)
                self.assertEqual(result.exit_code, 1)
                self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertEqual(sorted(os.listdir(self.directory)), before)


class MigrateTests(FormatTestCase):
    """``playerstate migrate``."""

    def setUp(self) -> None:
        """A database of another class than the default one."""
        super().setUp()
        self.save(state_class(x=1.0), (1, 5.0, 5))

    def copies(self) -> list[str]:
        """The backups beside the database."""
        return [name for name in os.listdir(self.directory) if "before" in name]

    def test_dry_run(self) -> None:
        """A dry run says what would change, beside a server too, and changes nothing."""
        with closing(open_store(self.url, state_class(x=1.0))) as server:
            take(server)
            result = run("migrate", self.url, "--dry-run")
        self.assertEqual(
            result.stdout,
            f"{self.url}: to fit PlayerState: add columns y; nothing was changed\n",
        )
        before = digest(self.path)
        found = json.loads(run("migrate", self.url, "--dry-run", "--json").stdout)
        self.assertEqual((found["changes"], found["backup"]), (["add columns y"], None))
        self.assertEqual(digest(self.path), before)
        self.assertEqual(self.copies(), [])

    def test_migrated(self) -> None:
        """A backup is made first; a second run has nothing to do, and makes none."""
        result = run("migrate", self.url)
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        (copy,) = self.copies()
        lines = result.stdout.splitlines()
        self.assertEqual(lines[1], f"{self.url}: add columns y: done")
        self.assertTrue(lines[0].startswith("backed up to ") and lines[0].endswith(copy))
        before = operate_store(f"sqlite:{self.directory}/{copy}")
        self.assertEqual(tuple(before.columns()), ("session_id", "x", "updated_at"))
        self.assertEqual(self.load(PLAIN, 1).values, (5.0, 200.0))
        again = run("migrate", self.url)
        self.assertEqual(again.stdout, f"{self.url} fits PlayerState: nothing to do\n")
        self.assertEqual(len(self.copies()), 1)

    def test_identity(self) -> None:
        """The store keeps its identity, so that a live file still belongs to it."""
        identity = operate_store(self.url).identity()
        run("migrate", self.url, "--no-backup")
        self.assertEqual(operate_store(self.url).identity(), identity)
        self.assertEqual(self.copies(), [])

    def test_backup_named(self) -> None:
        """The backup goes where it is wanted; where it cannot be made nothing changes."""
        copy = f"{self.directory}/safe.db"
        before = tuple(operate_store(self.url).columns())
        result = run("migrate", self.url, "--backup", f"{self.directory}/missing/safe.db")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(tuple(operate_store(self.url).columns()), before)
        found = json.loads(run("migrate", self.url, "--backup", copy, "--json").stdout)
        self.assertEqual(found["backup"], copy)
        self.assertEqual(run("migrate", self.url, "--backup=x", "--no-backup").exit_code, 2)

    def test_refused(self) -> None:
        """A class that does not fit is refused, with or without a dry run."""
        self.use("text.db")
        self.save(state_class(x="text"))
        for more in ((), ("--dry-run",)):
            result = run("migrate", self.url, *more)
            self.assertEqual(result.exit_code, 1)
            self.assertIn("field x is float now, but its column holds text", result.stderr)
        self.assertEqual(self.copies(), [])
