"""Edits: changes to players who may be offline, each of which ends with a commit.

A player who is offline is loaded and admitted to the table, but counts as one who has left: the row
is handed over at once, and the player released once the store holds it.  Who joins meanwhile takes
the edited row over.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playerstate.interfaces import Stored
from playerstate.ledger import Ledger, Outcome
from playerstate.live.table import LiveTable
from playerstate.players.changes import Change
from playerstate.players.errors import NotRunning, UnknownPlayer
from playerstate.players.joins import Joins
from playerstate.players.leaves import Leaves


class Edits:
    """The edits of one run.

    Args:
        table: the live table.
        joins: loads and admits players who are not in the table.
        leaves: releases them once saved.
        ledger: where edits that are rejected are counted.
        apply: applies accepted values to the row of a slot, as an override or not, and counts that.
    """

    def __init__(
        self,
        table: LiveTable,
        joins: Joins,
        leaves: Leaves,
        ledger: Ledger,
        apply: Callable[[int, tuple[Any, ...], bool], object],
    ) -> None:
        self._table = table
        self._joins = joins
        self._leaves = leaves
        self._ledger = ledger
        self._apply = apply

    async def edit(self, session_id: int, change: Change, create: bool) -> None:
        """See `playerstate.players.service.PlayerStateService.edit`.

        Cancelling it cancels the load; the caller prevents that.
        """
        try:
            slot = await self._joins.reach(
                session_id, lambda stored: self._enter(session_id, stored, change, create)
            )
        except NotRunning:
            self._ledger.take_in(Outcome.STOPPING)
            raise
        except UnknownPlayer:
            self._ledger.take_in(Outcome.NOT_ONLINE)
            raise
        if slot is not None:
            await self._leaves.saved(slot)

    def _enter(
        self, session_id: int, stored: Stored | None, change: Change, create: bool
    ) -> int | None:
        """Make the change; return the slot of the changed row, or None if there is none to save."""
        slot = self._table.slots.get(session_id)
        if slot is None:
            if stored is None and not create:
                raise UnknownPlayer(session_id)
            if stored is not None and not change:
                return None
            slot = self._joins.admit(session_id, stored)
            self._table.start_generation(slot, 0)
            self._leaves.admitted_offline(slot)
        elif not change:
            return slot
        self._apply(slot, change.of_values(self._table.values(slot)), change.is_override)
        return slot
