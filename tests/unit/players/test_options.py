"""The options of a service, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, PlayerStateService, open_store
from playerstate.testing import FaultyStore
from tests.kit.players import SCHEMA, FragileStore


class OptionsTests(SynchronousTestCase):
    """Each option is checked when the service is made."""

    def test_ranges(self) -> None:
        """What is out of its range is refused when the service is made, by name."""
        for name, values in {
            "save_within": (0.05, 86_401, float("nan")),
            "queue_size": (0, 1, 3, 2**25),
            "max_players": (0, 2**32),
            "stop_within": (-1,),
        }.items():
            for value in values:
                with self.assertRaisesRegex(ValueError, name):
                    PlayerStateService(FaultyStore(SCHEMA), **{name: value})

    def test_types(self) -> None:
        """A URL is no store, a path no URL; the live file may be a path."""
        self.assertRaises(TypeError, PlayerStateService, "sqlite:x.db")
        self.assertRaises(TypeError, open_store, Path("x.db"), PlayerState)
        PlayerStateService(FaultyStore(SCHEMA), live_file=Path(self.mktemp()))

    def test_live_file_in_the_place_of_the_database(self) -> None:
        """The store's own file is not to become the live file, by whatever name."""
        store = FragileStore()
        path = f"{os.path.abspath(self.mktemp())}/players.db"
        store.files = (path, f"{path}-log")
        for live_file in (*store.files, os.path.relpath(path)):
            with self.assertRaisesRegex(ValueError, "is the store's own file"):
                PlayerStateService(store, live_file=live_file)
        live_file = path
        for end in (".making", ".recovering"):
            store.files = (f"{live_file}{end}",)
            with self.assertRaisesRegex(ValueError, "is the store's own file"):
                PlayerStateService(store, live_file=live_file)
