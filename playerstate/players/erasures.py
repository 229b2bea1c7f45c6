"""Erasures: a player is taken offline, and all that is kept of the player is deleted.

The order is what makes it safe.  First no one can bring the player in any more; then the player
leaves, which has every row that is on its way to the store committed or dropped; and only then does
the persist thread delete what the store holds, so that no older row comes after it.  Reactor thread
only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from playerstate.interfaces import Erased, IStateStore, StoreUnusable, erasable_store
from playerstate.live.table import LiveTable
from playerstate.log import PrintableLogger
from playerstate.players.errors import NotRunning
from playerstate.players.joins import Joins
from playerstate.players.leaves import Leaves
from playerstate.saving.commit import NotSaved
from playerstate.saving.outbox import Outbox

_log = PrintableLogger()


class Erasures:
    """The erasures of one run.

    Args:
        store: erases what it holds.
        table: the live table.
        joins: keeps the player out meanwhile.
        leaves: saves, or drops, what is on its way to the store.
        outbox: makes calls on the persist thread.
        apply: as `playerstate.players.run.Run._apply`.
        on_leave: called with the session id of a player who is about to be taken offline.
    """

    def __init__(
        self,
        store: IStateStore,
        table: LiveTable,
        joins: Joins,
        leaves: Leaves,
        outbox: Outbox,
        apply: Callable[[int, tuple[Any, ...], bool], object],
        on_leave: Callable[[int], None],
    ) -> None:
        self._store = store
        self._table = table
        self._joins = joins
        self._leaves = leaves
        self._outbox = outbox
        self._apply = apply
        self._on_leave = on_leave
        self._deletions: set[Deferred[Erased]] = set()

    async def erase(self, session_id: int, spawn: tuple[Any, ...]) -> Erased:
        """See `playerstate.players.service.PlayerStateService.erase`.

        Args:
            session_id: the player's.
            spawn: the packed values that take the place of those not saved yet.
        """
        store = erasable_store(self._store)
        if store is None:
            raise StoreUnusable(f"{self._store.describe()} cannot erase a player")
        with self._joins.keeping_out(session_id):
            slot = self._table.slots.get(session_id)
            if slot is not None:
                await self._release(session_id, slot, spawn)
            self._table.wipe(session_id)
            erased = await self._delete(session_id, lambda: store.erase(session_id))
        _log.info(
            "player {id} was erased from {store}", id=session_id, store=self._store.describe()
        )
        return erased

    async def _release(self, session_id: int, slot: int, spawn: tuple[Any, ...]) -> None:
        """Take the player out of the table.

        What is not saved yet is overtaken by a row without anything of the player, so that it does
        not get to the store, or only until that row does; nor is it refused again and again.
        """
        if not self._leaves.has_left(slot):
            self._on_leave(session_id)
        if not self._table.is_saved(slot):
            self._apply(slot, spawn, False)
        try:
            await self._leaves.begin(slot)
        except NotSaved:
            if session_id in self._table.slots:
                raise  # the service stopped

    def _delete(self, session_id: int, erase: Callable[[], Erased]) -> Deferred[Erased]:
        deletion: Deferred[Erased] = Deferred()
        self._deletions.add(deletion)

        def erased(outcome: Erased | Exception) -> None:
            if deletion in self._deletions:
                self._deletions.remove(deletion)
                if isinstance(outcome, Erased):
                    deletion.callback(outcome)
                else:
                    deletion.errback(outcome)

        self._outbox.between_writes(session_id, erase, erased)
        return deletion

    def end(self) -> None:
        """The run is over: what is not known to be deleted fails."""
        deletions, self._deletions = self._deletions, set()
        for deletion in deletions:
            deletion.errback(NotRunning("the service stopped before it had erased the player"))
