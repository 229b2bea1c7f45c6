"""Leaves: a player stays in the table until the store holds the newest state.

A player may return before the leave is saved, and keeps the slot.  The Deferred of that leave still
fires, once the state at the time of the leave is saved.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from playerstate.ledger import Ledger
from playerstate.live.table import LiveTable
from playerstate.saving.commit import Dropped, NotSaved, not_saved
from playerstate.waiters import Waiters, tell


@attrs.frozen
class Progress:
    """How far a player's moves have come, by the sequences that their client gave them.

    ``update`` changes neither: without moves, both stay where the join set them.

    Attributes:
        applied: the highest sequence applied.
        saved: the highest sequence the store holds.
    """

    applied: int
    saved: int

    @classmethod
    def of(cls, table: LiveTable, slot: int) -> Progress:
        """The progress of the player at this slot."""
        return cls(table.sequence(slot), int(table.saved[slot]))


class Leaves:
    """The leaves of one service, by slot.

    Args:
        table: the live table, from which players are released.
        ledger: where leaves are counted.
        save_soon: hands over the row of a slot, without waiting for the next sweep.

    Attributes:
        by_slot: players who have left and are not yet saved.
    """

    def __init__(
        self, table: LiveTable, ledger: Ledger, save_soon: Callable[[int], object]
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._save_soon = save_soon
        self.by_slot: dict[int, _Leaver] = {}
        self._dropped: dict[int, Dropped] = {}

    def leaving(self) -> int:
        """The number of players who have left and are not yet saved."""
        return sum(not leaver.returned for leaver in self.by_slot.values())

    def has_left(self, slot: int) -> bool:
        """Whether this player has left, and did not return."""
        leaver = self.by_slot.get(slot)
        return leaver is not None and not leaver.returned

    def begin(self, slot: int) -> Deferred[Progress]:
        """Release the player at this slot, once saved.

        Args:
            slot: the player's slot.

        Returns:
            See `playerstate.players.service.PlayerStateService.leave`.
        """
        table = self._table
        if (leaver := self.by_slot.get(slot)) is None:
            progress = Progress.of(table, slot)
            if table.is_saved(slot):
                self._release(slot)
                return succeed(progress)
            if (dropped := self._dropped_newest(slot)) is not None:
                self._release(slot)
                return fail(not_saved([dropped]))
            leaver = self.by_slot[slot] = _Leaver()
        elif not leaver.returned:
            return leaver.wait(table.updated_at(slot))
        leaver.returned = False
        if table.is_dirty(slot):
            self._save_soon(slot)
        return leaver.wait(table.updated_at(slot))

    def returned(self, slot: int) -> None:
        """The player at this slot joined; ends the leave under way, if there is one."""
        if (leaver := self.by_slot.get(slot)) is not None:
            leaver.returned = True
            leaver.turn += 1

    def settled(self, dropped: tuple[Dropped, ...]) -> None:
        """A commit is noted in the table: release the players who have left and are saved.

        Args:
            dropped: rows that the store does not hold and that will not be written again.
        """
        self._dropped.update((row.slot, row) for row in dropped)
        # All state is settled before the first callback, which may join, leave or stop at once.
        due: list[tuple[list[Deferred[Progress]], Progress | Failure]] = []
        for slot, leaver in list(self.by_slot.items()):
            progress, lost = Progress.of(self._table, slot), self._dropped_newest(slot)
            if not leaver.returned and (lost is not None or self._table.is_saved(slot)):
                self._release(slot)
                del self.by_slot[slot]
                waiters = leaver.waiters.take()
            else:
                saved_at = None if lost is not None else int(self._table.saved_at[slot])
                waiters = leaver.take_past(saved_at)
                if leaver.returned and not leaver.waiters:
                    del self.by_slot[slot]
            due.append((waiters, progress if lost is None else Failure(not_saved([lost]))))
        for waiters, result in due:
            tell(waiters, result)

    def end(self, why: NotSaved) -> None:
        """Nothing more is saved: every waiter fails with `why`."""
        leavers = list(self.by_slot.values())
        self.by_slot.clear()
        waiting = [leaver.waiters.take() for leaver in leavers]
        for waiters in waiting:
            tell(waiters, Failure(why))

    def take_given_up(self) -> list[int]:
        """Return the slots of players whose newest row was dropped, and forget all dropped rows."""
        given_up = [slot for slot in self._dropped if self._dropped_newest(slot) is not None]
        self._dropped.clear()
        return given_up

    def _release(self, slot: int) -> None:
        self._table.release(slot)
        self._dropped.pop(slot, None)
        self._ledger.leaves += 1

    def _dropped_newest(self, slot: int) -> Dropped | None:
        """The dropped row of this player, if it is the newest; else None."""
        dropped = self._dropped.get(slot)
        if dropped is not None and dropped.updated_at == self._table.updated_at(slot):
            return dropped
        return None


@attrs.define(eq=False)
class _Leaver:
    """A player whose leave is not yet saved."""

    returned: bool = True
    turn: int = 0
    waiters: Waiters[Progress, tuple[int, int]] = attrs.field(factory=Waiters)

    def wait(self, target: int) -> Deferred[Progress]:
        """A Deferred that fires when the player is saved up to `target`, an ``updated_at``."""
        return self.waiters.add((self.turn, target))

    def take_past(self, saved_at: int | None) -> list[Deferred[Progress]]:
        """Take out the waiters of leaves that a return has ended and that are saved by now.

        Args:
            saved_at: the newest ``updated_at`` that the store holds; None takes the waiters of
                every ended leave.
        """
        return self.waiters.take_some(
            [
                waiter
                for waiter, (turn, target) in self.waiters.notes()
                if turn < self.turn and (saved_at is None or target <= saved_at)
            ]
        )
