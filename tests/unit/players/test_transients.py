"""Transient fields: not stored, and kept beyond the death of the process."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import Any
from unittest import mock

import attrs

from playerstate import StateSchema, StoreBusy, open_store, transient
from playerstate.interfaces import LiveFileUnusable
from playerstate.players.run import LEFT_KEPT
from playerstate.stores import browse_store
from playerstate.testing import FaultyStore, SteppedService
from tests.kit.players import ServiceTestCase


@attrs.frozen
class Walker:
    """A state of which `tired` and `mood` are not stored."""

    tired: float = attrs.field(default=0.5, metadata=transient())
    x: float = 1.0
    mood: int = attrs.field(default=7, metadata=transient())
    alive: bool = True


MOVED = Walker(0.9, 2.0, 8, False)


class TransientTestCase(ServiceTestCase):
    """Services of walkers, of whom one may be killed."""

    def walk(self, **options: Any) -> SteppedService:
        """A service in which player 42 has moved."""
        stepped = self.start(state=Walker, **options)
        stepped.join(42)
        stepped.service.update(42, MOVED)
        return stepped

    def kill(self, saved: bool) -> SteppedService:
        """The service that follows one that was killed, after or before it saved its players."""
        path = self.mktemp()
        killed = self.walk(live_file=path)
        if saved:
            flushed = killed.service.flush()
            killed.settle()
            self.successResultOf(flushed)
        shutil.copy(path, f"{path}.copy")
        store = FaultyStore(StateSchema.of(Walker))
        store.players.update(killed.store.players)
        again = self.start(state=Walker, store=store, live_file=f"{path}.copy")
        again.settle()
        return again


class StoredTests(TransientTestCase):
    """What a store gets, and a player who is loaded."""

    def test_record(self) -> None:
        """The store gets the other fields alone."""
        stepped = self.walk()
        self.successResultOf(stepped.stop())
        self.assertEqual(self.stored(stepped), {42: (2.0, False)})

    def test_begins_at_the_default(self) -> None:
        """A player who is loaded begins with the defaults of transient fields."""
        stepped = self.walk()
        self.assertEqual(stepped.service.state(42), MOVED)
        left = stepped.service.leave(42)
        stepped.reactor.advance(0.1)
        stepped.settle()
        self.successResultOf(left)
        self.assertEqual(stepped.join(42).state, Walker(0.5, 2.0, 7, False))

    def test_sqlite(self) -> None:
        """SQLite has no column of them."""
        url = f"sqlite:{self.mktemp()}"
        stepped = self.walk(store=open_store(url, Walker))
        self.successResultOf(stepped.stop())
        with closing(browse_store(url)) as browser:
            self.assertEqual(browser.columns, ("session_id", "x", "alive", "updated_at"))
        again = self.start(state=Walker, store=open_store(url, Walker))
        self.assertEqual(again.join(42).state, Walker(0.5, 2.0, 7, False))
        self.successResultOf(again.stop())


class DeathTests(TransientTestCase):
    """The start after the death of the process."""

    def test_kept(self) -> None:
        """A player who joins again goes on with them, whether or not the store had the rest."""
        for saved in (False, True):
            self.assertEqual(self.kill(saved).join(42).state, MOVED, saved)

    def test_kept_once(self) -> None:
        """A player who has joined again, and left, begins anew."""
        again = self.kill(saved=True)
        again.join(42)
        self.successResultOf(again.service.leave(42))
        self.assertEqual(again.join(42).state, Walker(0.5, 2.0, 7, False))

    def test_kept_for_a_while(self) -> None:
        """A player who comes back much later begins anew."""
        for saved in (False, True):
            again = self.kill(saved)
            again.reactor.advance(LEFT_KEPT)
            self.assertEqual(again.join(42).state, Walker(0.5, 2.0, 7, False), saved)

    def test_kept_while_there_is_no_room(self) -> None:
        """A JOIN that is refused, since the live file has no room, forgets nothing."""
        again = self.kill(saved=True)
        table = again.service.table
        with mock.patch.object(table, "admit", side_effect=LiveFileUnusable("full")):
            self.failureResultOf(again.service.join(42), StoreBusy)
        self.assertEqual(again.join(42).state, MOVED)

    def test_newer_in_the_store(self) -> None:
        """A player whom another program has changed in the store since begins anew."""
        again = self.kill(saved=True)
        stored = again.store.players[42]
        again.store.players[42] = attrs.evolve(stored, updated_at=stored.updated_at + 1)
        self.assertEqual(again.join(42).state, Walker(0.5, 2.0, 7, False))
