"""Players who leave: they stay in the table until the store holds their newest state.

A leave that is not yet saved may be followed by a return, which keeps the player's place; whoever
waits for that leave is told all the same, once what it was about is saved.  Reactor thread only.
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
    """How far a player's moves have come, by the numbers that their transport gave them.

    Both stand where the join set them for a player who only ever changed by ``update``.

    Attributes:
        applied: the highest sequence applied.
        saved: the highest sequence the store holds.
    """

    applied: int
    saved: int

    @classmethod
    def of(cls, table: LiveTable, slot: int) -> Progress:
        """That of the player at this slot."""
        return cls(table.sequence(slot), int(table.saved[slot]))


class Leaves:
    """The leaves of one service, by slot.

    Args:
        table: the live table, which they are released from.
        ledger: where they are counted.
        save_soon: hands over the row of a slot, without waiting for the next sweep.

    Attributes:
        by_slot: who has left and is not yet saved.
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
        """How many players have left and are not yet saved."""
        return sum(not leaver.returned for leaver in self.by_slot.values())

    def has_left(self, slot: int) -> bool:
        """Whether this player has left, and did not return."""
        leaver = self.by_slot.get(slot)
        return leaver is not None and not leaver.returned

    def begin(self, slot: int) -> Deferred[Progress]:
        """Let the player at this slot go, once saved.

        Args:
            slot: the player's.

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
        """The player at this slot has joined again, if they had left at all."""
        if (leaver := self.by_slot.get(slot)) is not None:
            leaver.returned = True
            leaver.turn += 1

    def settled(self, dropped: tuple[Dropped, ...]) -> None:
        """A commit is noted in the table: let go of who has left and is saved.

        Args:
            dropped: rows that the store does not hold and will not be given again.
        """
        self._dropped.update((row.slot, row) for row in dropped)
        # All is in order before the first is told, who may join, leave and stop at once.
        told: list[tuple[list[Deferred[Progress]], Progress | Failure]] = []
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
            told.append((waiters, progress if lost is None else Failure(not_saved([lost]))))
        for waiters, result in told:
            tell(waiters, result)

    def end(self, why: NotSaved) -> None:
        """Nothing more is saved: all who wait get `why`."""
        leavers = list(self.by_slot.values())
        self.by_slot.clear()
        waiting = [leaver.waiters.take() for leaver in leavers]
        for waiters in waiting:
            tell(waiters, Failure(why))

    def take_given_up(self) -> list[int]:
        """Forget whose newest rows the store will not be given again, and return their slots."""
        given_up = [slot for slot in self._dropped if self._dropped_newest(slot) is not None]
        self._dropped.clear()
        return given_up

    def _release(self, slot: int) -> None:
        self._table.release(slot)
        self._dropped.pop(slot, None)
        self._ledger.leaves += 1

    def _dropped_newest(self, slot: int) -> Dropped | None:
        """Why the store does not hold this player's newest row and will not, if that is so."""
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
        """A Deferred for when what was changed up to `target` is saved."""
        return self.waiters.add((self.turn, target))

    def take_past(self, saved_at: int | None) -> list[Deferred[Progress]]:
        """Take out who waits for a leave that a return has ended, and has what it was about saved.

        Args:
            saved_at: the newest ``updated_at`` that the store holds; None takes all of those.
        """
        return self.waiters.take_some(
            [
                waiter
                for waiter, (turn, target) in self.waiters.notes()
                if turn < self.turn and (saved_at is None or target <= saved_at)
            ]
        )
