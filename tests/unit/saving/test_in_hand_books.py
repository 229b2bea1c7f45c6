"""Every row in hand ends once, whatever goes wrong (invariant 7)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import RowRefused, StoreBusy, StoreReplaced
from playerstate.saving.commit import Commit
from playerstate.saving.persister import Persister
from playerstate.saving.refusals import REFUSALS
from playerstate.saving.ring import Ring
from tests.kit.persisting import LAYOUT, Killed, Listener, Player, Store, players_in, rows_of
from tests.kit.support import LAW


class Accounts(Listener):
    """Accounts for every row, and rejects reports made too early or twice."""

    def __init__(self, store: Store, ring: Ring) -> None:
        super().__init__()
        self.store = store
        self.ring = ring
        self.handed: list[Player] = []
        self.in_ring: list[Player] = []
        self.settled: list[Player] = []
        self.superseded = 0
        self.on_tell: Callable[[], object] = lambda: None

    def committed(self, commit: Commit) -> None:
        """Note a commit."""
        self.on_tell()
        written = {player for players in self.store.written for player in players}
        committed = players_in(commit)
        assert written.issuperset(committed), "told of what was not written"
        dropped = [(row.session_id, row.updated_at - 1000) for row in commit.dropped]
        for player, row in zip(dropped, commit.dropped, strict=True):
            if row.outdated:
                assert player in self.store.older
            else:
                assert (player, row.why) in self.store.quarantined
        assert not self.store.older.intersection(committed)
        self.settled += committed + dropped
        assert len(set(self.settled)) == len(self.settled), "told of twice"
        self.superseded += commit.superseded
        assert commit.read <= self.ring.read
        newest = dict(self.settled_newest())
        for session_id, sequence in self.in_ring[: commit.read]:
            assert newest[session_id] >= sequence, "called settled and is not"

    def recovered(self, commit: Commit) -> None:
        """Note a recovery."""
        assert self.store.is_synced or not len(commit.slots), "told before it was on disk"
        self.committed(commit)

    def failed(self, error: Exception, rows: int) -> None:
        """Note a failure."""
        self.on_tell()
        super().failed(error, rows)

    def settled_newest(self) -> list[Player]:
        """The newest row of each player that was settled, last."""
        return sorted(self.settled)


class BooksTests(SynchronousTestCase):
    """Every row that was handed over comes out once, whatever goes wrong on the way."""

    FAULTS = (
        *(StoreBusy, OSError, ZeroDivisionError),
        *(RowRefused, StoreReplaced, Killed),
    )

    @settings(LAW, max_examples=100)
    @given(st.data())
    def test_books_balance(self, data: st.DataObject) -> None:
        """Invariant 7: each row ends as committed, dropped or superseded, and as only one."""
        store, ring = Store(), Ring(64, LAYOUT.dtype)
        store.names_bad = data.draw(st.booleans())
        accounts = Accounts(store, ring)
        number = 0

        def rows_with_a_fate(session_ids: list[int]) -> list[Player]:
            nonlocal number
            players = []
            for session_id in session_ids:
                number += 1
                player = (session_id, number)
                fate = data.draw(st.sampled_from(("good", "good", "good", "bad", "older")))
                if fate == "bad":
                    store.bad[player] = f"bad {number}"
                elif fate == "older":
                    store.older.add(player)
                players.append(player)
            accounts.handed += players
            return players

        ids = st.integers(1, 6)
        recovered = rows_with_a_fate(sorted(data.draw(st.sets(ids, max_size=4))))
        persister = Persister(
            *(ring, LAYOUT.record, store.open_writer, accounts, lambda: 0.0, lambda: 1.0),
            recovered=rows_of(*recovered) if recovered else None,
        )
        faults = deque(
            data.draw(
                st.lists(st.none() | st.sampled_from((None, None, *self.FAULTS)), max_size=60)
            )
        )

        def fault(*kinds: type[BaseException]) -> None:
            if faults and (error := faults.popleft()) is not None and error in kinds:
                raise error("as drawn")

        usual = (StoreBusy, OSError, ZeroDivisionError, Killed)
        store.on_open = lambda: fault(*usual)
        store.on_write = lambda: fault(*usual, RowRefused)
        store.on_sync = lambda: fault(*usual)
        store.on_quarantine = lambda: fault(*usual)
        store.on_maintain = lambda: fault(*usual, StoreReplaced)
        accounts.on_tell = lambda: fault(ZeroDivisionError, Killed)

        def push(players: list[Player]) -> None:
            rows = rows_of(*players)
            pushed = ring.push(rows, np.arange(len(rows)))
            self.assertEqual(pushed, len(rows))
            accounts.in_ring += players

        def step() -> float | None:
            try:
                return persister.step()
            except (Killed, ZeroDivisionError):  # the next thread goes on
                return 0.0

        for session_ids in data.draw(st.lists(st.lists(ids, max_size=5), max_size=12)):
            push(rows_with_a_fate(session_ids))
            if data.draw(st.booleans()):
                step()
            if data.draw(st.booleans()):
                persister.resume()
        faults.clear()
        persister.resume()
        for _ in range(2 * REFUSALS):
            number += 1
            accounts.handed.append((99, number))
            push([(99, number)])
            step()
        limit = iter(range(1000))
        while step() is not None:
            next(limit)
        self.assertEqual(len(accounts.settled) + accounts.superseded, len(accounts.handed))
        self.assertLessEqual(set(accounts.settled), set(accounts.handed))
        self.assertEqual(dict(accounts.settled_newest()), dict(sorted(accounts.handed)))
