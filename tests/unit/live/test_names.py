"""The names and locks of live files."""

from __future__ import annotations

import os
from pathlib import Path

from playerstate import PlayerState, PlayerStateService, open_store
from playerstate.interfaces import LiveFileUnusable, StoreUnusable
from playerstate.live import names
from playerstate.live.names import RECOVERING, check_beside
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import SteppedService
from tests.kit.livefiles import IDENTITY, LiveFileTestCase, leave_unsaved
from tests.kit.players import SCHEMA


class OursTests(LiveFileTestCase):
    """What must not be renamed, since it never was a live file."""

    def test_not_a_live_file(self) -> None:
        """Where there is another kind of file, or a pipe or directory, the start is refused."""
        for name in ("moves.live", "moves.live.recovering", "moves.live.making"):
            path = f"{self.directory}/{name}"
            for make, remove in (
                (lambda path: Path(path).write_bytes(b"a shopping list" * 1000), os.unlink),
                (os.mkfifo, os.unlink),  # which is not even opened: that would block
                (os.mkdir, os.rmdir),
            ):
                make(path)
                before = os.stat(path)
                error = self.assertRaises(StoreUnusable, self.start)
                self.assertIn(f"{path} exists and is not a live file; name another", str(error))
                self.assertEqual(self.files(), [name])
                after = os.stat(path)
                self.assertEqual((after.st_ino, after.st_size), (before.st_ino, before.st_size))
                remove(path)

    def test_names_that_cannot_be(self) -> None:
        """A name that is no UTF-8, or leaves no room for those beside it, is refused."""
        for name, why in (("\udcff", "not UTF-8"), ("j" * 240, "too long")):
            error = self.assertRaises(
                ValueError, PlayerStateService, self.store, live_file=f"{self.directory}/{name}"
            )
            self.assertIn(why, str(error))


class BesideTests(LiveFileTestCase):
    """A live file beside the database that a start does not use."""

    def test_started_without_it(self) -> None:
        """A start that would pass over unsaved players is refused, with or without a live file."""
        database = self.crash_beside_database()
        for live_file in (None, f"{self.directory}/other"):
            store = SQLiteStore(database, SCHEMA)
            service = PlayerStateService(store, live_file=live_file)
            error = self.assertRaises(StoreUnusable, service.startService)
            self.assertIn(f"the live file {self.path} holds 1 players of this store", str(error))
        os.rename(self.path, self.path + RECOVERING)
        service = PlayerStateService(SQLiteStore(database, SCHEMA))
        self.assertRaises(StoreUnusable, service.startService)
        stepped = self.start(SQLiteStore(database, SCHEMA))
        stepped.step()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())
        stepped = SteppedService(store=SQLiteStore(database, SCHEMA))  # a clean one is no matter
        self.successResultOf(stepped.stop())

    def test_left_alone(self) -> None:
        """What holds no player of this store does not keep the start from going on; unsaved players
        of another store are logged."""
        path = f"{self.directory}/players.db.live"
        os.mkdir(path)
        check_beside(path, None, IDENTITY)
        os.rmdir(path)
        Path(path).write_bytes(bytes(8192))
        check_beside(path, None, IDENTITY)
        leave_unsaved(path)
        check_beside(path, None, bytes(16))
        (line,) = self.log.having("is left alone")
        self.assertIn("holds 1 unsaved players of another store", line)
        self.assertRaises(LiveFileUnusable, check_beside, path, None, IDENTITY)

    def test_cannot_be_read(self) -> None:
        """A live file beside the store that cannot be read may hold unsaved players."""
        path = f"{self.directory}/players.db.live"
        leave_unsaved(path)

        def refused(path: str) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(names, "read_leftover", refused)
        error = self.assertRaises(LiveFileUnusable, check_beside, path, None, bytes(16))
        self.assertIn("beside the store: Permission denied; make it readable", str(error))

    def test_started_by_another_name(self) -> None:
        """A symbolic link to the database, or to its directory, is the database itself."""
        database = self.crash_beside_database()
        link = f"{self.directory}/link.db"
        os.symlink(database, link)
        store = open_store(f"sqlite:{link}", SCHEMA)
        self.assertEqual(store.path, os.path.realpath(database))
        stepped = SteppedService(store=store, live_file=f"{store.path}.live")
        stepped.step()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())
