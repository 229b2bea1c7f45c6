"""The store that keeps players as long as it lives."""

from __future__ import annotations

from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import (
    StoreUnusable,
)
from playerstate.state.default import PlayerState
from playerstate.stores import browse_store, open_store
from playerstate.stores.memory import MemoryStore
from tests.kit import memory_contract


class MemoryStoreTests(memory_contract.MemoryStoreContract):
    """One lane."""


class LanesStoreTests(memory_contract.MemoryStoreContract):
    """Four lanes, over whose writers the players are divided."""

    many = 100_000
    factory = staticmethod(partial(MemoryStore, lanes=4))


class MemoryUrlTests(SynchronousTestCase):
    """What may follow ``memory:``."""

    def test_open(self) -> None:
        """``memory:`` is a new store each time."""
        store = open_store("memory:", PlayerState)
        self.assertIsInstance(store, MemoryStore)
        self.assertIsNot(store, open_store("memory:", PlayerState))
        self.assertEqual(store.describe(), "memory")

    def test_lanes(self) -> None:
        """It has one lane, or as many as the URL says."""
        for url, lanes in (("memory:", 1), ("memory:?lanes=1", 1), ("memory:?lanes=4", 4)):
            self.assertEqual(open_store(url, PlayerState).lanes, lanes, url)

    def test_trailing(self) -> None:
        """Nothing else may follow it."""
        for rest in ("x", "?lanes=0", "?lanes=04", "?lanes=100", "?lanes=4&x", "?x=4"):
            with self.assertRaisesRegex(StoreUnusable, "nothing may follow memory: but"):
                open_store(f"memory:{rest}", PlayerState)

    def test_browse(self) -> None:
        """There is nothing to look into from outside."""
        with self.assertRaisesRegex(StoreUnusable, r"exists only in its server"):
            browse_store("memory:")
