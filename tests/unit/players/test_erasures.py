"""Erasures: what is deleted, in which order, and what may go wrong."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

import apsw
import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer_only

from playerstate import NotOnline, NotRunning, NotSaved, StoreBusy, StoreUnusable, text
from playerstate.interfaces import (
    Erased,
    IStateReader,
    IStateStore,
    IStateWriter,
    RowRefused,
    Stored,
)
from playerstate.stores import open_store
from playerstate.testing import FaultyStore, SteppedService
from tests.kit.databases import DirectoryTestCase
from tests.kit.players import GatewayTestCase, ServiceTestCase, at, outcome


@implementer_only(IStateStore, IStateReader, IStateWriter)
class OpaqueStore(FaultyStore):
    """A store that cannot erase."""


class ErasureTests(ServiceTestCase):
    """A service; the store knows player 42."""

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.begin()

    def begin(self, **options: Any) -> None:
        """Start another."""
        self.stepped = self.start(**options)
        self.service = self.stepped.service
        self.store = self.stepped.store
        self.store.players[42] = Stored((1.0, 2.0), 5)

    def erase(self, session_id: int = 42) -> Erased:
        """Erase a player, of a store that works."""
        erased = self.service.erase(session_id)
        self.settle()
        return self.successResultOf(erased)

    def settle(self) -> None:
        """Have everything saved that is to be saved soon."""
        self.stepped.reactor.advance(0.1)
        self.stepped.settle()

    def test_offline(self) -> None:
        """A player who is offline is deleted from the store."""
        self.assertEqual(self.erase(), Erased(stored=1, quarantined=0))
        self.assertEqual(self.store.players, {})

    def test_unknown(self) -> None:
        """A player of whom nothing is kept is no error."""
        self.assertEqual(self.erase(7), Erased(stored=0, quarantined=0))
        self.assertEqual(set(self.store.players), {42})

    def test_online(self) -> None:
        """A player who is online is taken offline; a join afterwards is that of a new player."""
        self.stepped.join(42)
        self.erase()
        self.assertRaises(NotOnline, self.service.state, 42)
        self.assertEqual(self.store.players, {})
        self.assertFalse(self.stepped.join(42).restored)

    def test_dirty(self) -> None:
        """What is not handed over yet never gets to the store."""
        self.stepped.join(42)
        self.service.update(42, at(77.0))
        seen: list[Any] = []
        write = self.store.write
        self.patch(self.store, "write", lambda rows: (seen.extend(rows["x"]), write(rows))[1])
        self.erase()
        self.assertNotIn(77.0, seen)
        self.assertEqual(self.store.players, {})

    def test_queued(self) -> None:
        """What is in the ring is not saved after the deletion, whatever comes first."""
        self.stepped.join(42)
        self.service.update(42, at(77.0))
        self.service.flush()
        self.service.update(42, at(78.0))
        self.erase()
        self.settle()
        self.service.flush()
        self.settle()
        self.assertEqual(self.store.players, {})

    def test_leaving(self) -> None:
        """A player whose leave is under way is erased once it is saved; both are answered."""
        self.stepped.join(42)
        self.service.update(42, at(77.0))
        left = self.service.leave(42)
        self.erase()
        self.successResultOf(left)
        self.assertEqual(self.store.players, {})

    def test_edited(self) -> None:
        """So is one who is being edited while offline."""
        edited = self.service.edit(42, x=9.0)
        self.erase()
        self.successResultOf(edited)
        self.assertEqual(self.store.players, {})

    def test_refused(self) -> None:
        """A row that the store can never take does not stop it."""
        self.store.refused[42] = "too long"
        self.stepped.join(42)
        self.service.update(42, at(77.0))
        outcome(self.service.flush())
        self.stepped.step()
        erased = self.service.erase(42)
        self.stepped.join(43)
        for x in range(8):
            self.service.update(43, at(x))
            outcome(self.service.flush())
            self.stepped.reactor.advance(1.0)
            self.stepped.step()
        self.successResultOf(erased)
        self.assertEqual(set(self.store.players), {43})
        self.assertEqual(len(self.flushLoggedErrors(RowRefused)), 1)

    def test_no_longer_refused(self) -> None:
        """A row that is refused is overtaken, even if nobody else plays."""
        self.stepped.join(42)
        self.service.update(42, at(77.0))
        self.service.flush()
        self.store.refused[42] = "77 is too much"
        self.stepped.step()
        self.store.refused.clear()
        self.erase()
        self.assertEqual(self.store.players, {})
        self.assertEqual(len(self.flushLoggedErrors(RowRefused)), 1)

    def test_kept_out(self) -> None:
        """Until it is done the player can neither join nor be edited, nor erased once more."""
        self.stepped.join(42)
        erased = self.service.erase(42)
        for refused in (
            self.service.join(42),
            self.service.edit(42, x=1.0),
            self.service.erase(42),
        ):
            self.assertIn("is being erased", str(self.failureResultOf(refused, StoreBusy).value))
        self.settle()
        self.successResultOf(erased)
        self.stepped.join(42)

    def test_load_under_way(self) -> None:
        """A join that waits for the store meanwhile does not come in with what it had."""
        self.store.hold_loads()
        joined = self.service.join(42)
        erased = self.service.erase(42)
        self.store.release_loads()
        self.failureResultOf(joined, StoreBusy)
        self.settle()
        self.successResultOf(erased)

    def test_other_players(self) -> None:
        """Nobody else is touched."""
        self.stepped.join(42)
        self.stepped.join(43)
        self.service.update(43, at(5.0))
        self.erase()
        self.service.flush()
        self.settle()
        self.assertEqual(self.store.players[43].values, (5.0, 0.0))
        self.assertEqual(self.service.state(43), at(5.0))

    def test_live_table(self) -> None:
        """Nothing of the player stays in the table, not even in slots the player had before."""
        for x in (71.0, 72.0, 73.0):
            self.stepped.join(42)
            self.service.update(42, at(x))
            self.service.leave(42)
            self.settle()
            self.stepped.join(40 - int(x) + 100)  # takes the slot that was left
        self.erase()
        rows = bytes(self.service.table._buffer[: self.service.table.used_bytes])
        self.assertNotIn((42).to_bytes(8, "little"), rows)

    def test_store_fails(self) -> None:
        """The store's error is the caller's; the player can be erased again."""
        failures = [OSError("no"), StoreBusy("later")]
        erase = self.store.erase

        def failing(session_id: int) -> Erased:
            if failures:
                raise failures.pop()
            return erase(session_id)

        self.patch(self.store, "erase", failing)
        for error in (StoreBusy, OSError):
            erased = self.service.erase(42)
            self.settle()
            self.failureResultOf(erased, error)
        self.assertTrue(self.erase().stored)

    def test_cannot_erase(self) -> None:
        """A store that cannot erase says so before anything changes."""
        self.begin(store=OpaqueStore(self.service.schema))
        self.stepped.join(42)
        self.failureResultOf(self.service.erase(42), StoreUnusable)
        self.service.state(42)

    def test_not_running(self) -> None:
        """Without a service that runs there is no erasure."""
        self.successResultOf(self.stepped.stop())
        self.failureResultOf(self.service.erase(42), NotRunning)

    def test_stop(self) -> None:
        """A stop meanwhile finishes it, if the store takes rows."""
        self.stepped.join(42)
        self.service.update(42, at(77.0))
        erased = self.service.erase(42)
        self.successResultOf(self.stepped.stop())
        self.successResultOf(erased)
        self.assertEqual(self.store.players, {})

    def test_given_up(self) -> None:
        """A stop that gives up fails it: nothing is known to be deleted."""
        self.begin(stop_within=0.1)
        self.store.failures.extend(StoreBusy("locked") for _ in range(100))
        self.stepped.join(42)
        self.service.update(42, at(77.0))
        erased = self.service.erase(42)
        self.successResultOf(self.stepped.stop())
        self.failureResultOf(erased, NotSaved)

    def test_bad_session_id(self) -> None:
        """A session id is checked as ever."""
        self.assertRaises(ValueError, self.service.erase, 0)
        self.assertRaises(TypeError, self.service.erase, "42")

    def test_lanes(self) -> None:
        """With several lanes, the one that saves the player deletes."""
        self.begin(store=FaultyStore(self.service.schema, lanes=4))
        for session_id in range(1, 20):
            self.store.players[session_id] = Stored((1.0, 2.0), 5)
        for session_id in range(1, 20):
            self.erase(session_id)
        self.assertEqual(set(self.store.players), {42})


class ConversationTests(GatewayTestCase):
    """The player's client."""

    def test_gone(self) -> None:
        """The client is told that it is gone, and its moves change nothing any more."""
        self.open()
        client = self.joined()
        client.move(1, 5.0)
        client.heard()
        erased = self.service.erase(42)
        self.assertEqual([answer[0] for answer in client.heard()], ["gone"])
        client.move(2, 6.0)
        self.advance(0.2)
        self.successResultOf(erased)
        self.assertEqual(self.stepped.store.players, {})


@attrs.frozen
class Named:
    """A player with something to find in a file."""

    x: float = 0.0
    name: str = attrs.field(default="", metadata=text(32))


class FileTests(DirectoryTestCase, ServiceTestCase):
    """SQLite, and a live file."""

    SECRET = "Ada-Lovelace-1815"

    def setUp(self) -> None:
        """Start a service of both."""
        super().setUp()
        ServiceTestCase.setUp(self)
        self.live = f"{self.directory}/live"
        self.stepped = self.begin()
        self.service = self.stepped.service

    def begin(self) -> SteppedService:
        """Start a service; it is stopped after the test."""
        stepped = self.start(store=open_store(self.url, Named), state=Named, live_file=self.live)
        self.addCleanup(stepped.stop)
        return stepped

    def settle(self) -> None:
        """Have everything saved that is to be saved soon."""
        self.stepped.reactor.advance(0.1)
        self.stepped.settle()

    def found(self) -> list[str]:
        """The files in which the secret still is."""
        names = sorted(os.listdir(self.directory))
        return [n for n in names if self.SECRET.encode() in self.content(n)]

    def content(self, name: str) -> bytes:
        """A file's content."""
        with open(f"{self.directory}/{name}", "rb") as file:
            return file.read()

    def erased(self) -> Erased:
        """Erase player 42."""
        erased: Deferred[Erased] = self.service.erase(42)
        self.settle()
        return self.successResultOf(erased)

    def test_nowhere(self) -> None:
        """No file holds anything of the player: not the database, its log or the live file."""
        for x in range(3):
            self.stepped.join(42)
            self.service.update(42, Named(float(x), self.SECRET))
            self.service.leave(42)
            self.settle()
        self.stepped.join(42)
        self.service.update(42, Named(9.0, self.SECRET))
        self.assertEqual(self.found(), ["live", "players.db-wal"])
        self.assertEqual(self.erased(), Erased(stored=1, quarantined=0))
        self.assertEqual(self.found(), [])

    def test_goes_on(self) -> None:
        """The server takes the deletion for no other database, and saves as before."""
        self.stepped.join(42)
        self.stepped.join(43)
        self.settle()
        for x in range(5):
            self.service.update(43, Named(float(x), "other"))
            self.service.flush()
            self.settle()
            self.erased()
            self.stepped.thread.persister._maintain()
            self.stepped.reactor.deliver()
        self.assertEqual(self.service.ledger.store_errors, {})
        self.assertEqual(outcome(self.service.leave(43))[0:0], [])
        self.settle()
        with closing(apsw.Connection(self.path)) as other:
            rows = list(other.execute("SELECT session_id, x FROM player_state"))
        self.assertEqual(rows, [(43, 4.0)])

    def test_quarantined(self) -> None:
        """The file of quarantined rows loses those of the player, and keeps the others."""
        path = f"{self.path}.refused.jsonl"
        with open(path, "w") as file:
            file.write('{"session_id": 42, "name": "Ada-Lovelace-1815"}\n{"session_id": 43}\n')
        self.assertEqual(self.erased(), Erased(stored=0, quarantined=1))
        with open(path) as file:
            self.assertEqual(file.read(), '{"session_id": 43}\n')

    def test_locked(self) -> None:
        """While another program writes, nothing is deleted, and the caller may try again."""
        with closing(apsw.Connection(self.path)) as other:
            other.execute("BEGIN IMMEDIATE")
            erased = self.service.erase(42)
            self.settle()
            self.failureResultOf(erased, StoreBusy)

    def test_next_start(self) -> None:
        """The next start knows nothing of the player either."""
        self.stepped.join(42)
        self.service.update(42, Named(9.0, self.SECRET))
        self.erased()
        self.successResultOf(self.stepped.stop())
        self.stepped = self.begin()
        self.assertFalse(self.stepped.join(42).restored)
