"""The names and locks of live files."""

from __future__ import annotations

import os

from playerstate import PlayerState, PlayerStateService, open_store
from playerstate.interfaces import StoreUnusable
from playerstate.live.names import RECOVERING
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import SteppedService
from tests.kit.livefiles import LiveFileTestCase
from tests.kit.players import SCHEMA


class OursTests(LiveFileTestCase):
    """What must not be renamed, since it never was a live file."""

    def test_not_a_live_file(self) -> None:
        """Where there is another kind of file, or a device or directory, the start is refused."""
        for make, remove in (
            (lambda: self.replace(b"a shopping list" * 1000), os.unlink),
            (lambda: os.mkfifo(self.path), os.unlink),
            (lambda: os.mkdir(self.path), os.rmdir),
        ):
            make()
            before = os.stat(self.path)
            error = self.assertRaises(StoreUnusable, self.start)
            self.assertIn("exists and is not a live file; name another file", str(error))
            self.assertEqual(self.files(), ["moves.live"])
            after = os.stat(self.path)
            self.assertEqual((after.st_ino, after.st_size), (before.st_ino, before.st_size))
            remove(self.path)

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
