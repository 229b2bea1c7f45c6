"""Leaves: a player stays in the table until the store holds the newest state.

A player may return before the leave is saved, and keeps the slot.  The Deferred of that leave still
fires, once the state at the time of the leave is saved; so does one of `Leaves.saved`, which waits
for a player's state without a leave.  A player who is offline and edited is in the table like one
who has left, but is no leave, and is not counted as one.  Reactor thread only.
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


_NO_LEAVE = -1
"""The turn of a waiter that waits for a state alone."""


class Leaves:
    """The leaves of one service, by slot.

    Args:
        table: the live table, from which players are released.
        ledger: where leaves are counted.
        save_soon: hands over the row of a slot, without waiting for the next sweep.

    Attributes:
        by_slot: players who are not online and not yet saved, and others whose commit is awaited.
    """

    def __init__(
        self, table: LiveTable, ledger: Ledger, save_soon: Callable[[int], object]
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._save_soon = save_soon
        self.by_slot: dict[int, _Unsaved] = {}
        self._dropped: dict[int, Dropped] = {}

    def leaving(self) -> int:
        """The number of players who are not online and not yet saved."""
        return sum(not unsaved.is_online for unsaved in self.by_slot.values())

    def has_left(self, slot: int) -> bool:
        """Whether this player is not online: has left and not returned, or never joined."""
        unsaved = self.by_slot.get(slot)
        return unsaved is not None and not unsaved.is_online

    def never_joined(self, slot: int) -> bool:
        """Whether this player is in the table only to be edited."""
        unsaved = self.by_slot.get(slot)
        return unsaved is not None and unsaved.never_joined

    def admitted_offline(self, slot: int) -> None:
        """A player has been admitted only to be edited, and is released once saved."""
        self.by_slot[slot] = _Unsaved(is_online=False, never_joined=True)

    def saved(self, slot: int) -> Deferred[Progress]:
        """Wait until the player's present state is committed; it is handed over soon.

        Returns:
            A Deferred that fires then, even if the player changes meanwhile.  It fails with
            `NotSaved` if the store dropped that state, the live file lost it before it was saved,
            or the service stopped before.  Cancelling it stops the waiting.
        """
        table = self._table
        if table.is_saved(slot):
            return succeed(Progress.of(table, slot))
        if (dropped := self._dropped_newest(slot)) is not None:
            return fail(not_saved([dropped]))
        if table.is_dirty(slot):
            self._save_soon(slot)
        return self.by_slot.setdefault(slot, _Unsaved()).wait_for_state(table.updated_at(slot))

    def begin(self, slot: int) -> Deferred[Progress]:
        """Release the player at this slot, once saved.

        Args:
            slot: the player's slot.

        Returns:
            See `playerstate.players.service.PlayerStateService.leave`.
        """
        table = self._table
        if (unsaved := self.by_slot.get(slot)) is None:
            progress = Progress.of(table, slot)
            if table.is_saved(slot):
                self._release(slot)
                return succeed(progress)
            if (dropped := self._dropped_newest(slot)) is not None:
                self._release(slot)
                return fail(not_saved([dropped]))
            unsaved = self.by_slot[slot] = _Unsaved()
        elif not unsaved.is_online:
            return unsaved.wait_for_leave(table.updated_at(slot))
        unsaved.is_online = False
        if table.is_dirty(slot):
            self._save_soon(slot)
        return unsaved.wait_for_leave(table.updated_at(slot))

    def returned(self, slot: int) -> None:
        """The player at this slot joined; ends the leave under way, if there is one."""
        if (unsaved := self.by_slot.get(slot)) is not None:
            unsaved.is_online, unsaved.never_joined = True, False
            unsaved.turn += 1

    def settled(self, dropped: tuple[Dropped, ...]) -> None:
        """A commit is noted in the table: release the players who are not online and are saved.

        Args:
            dropped: rows that the store does not hold and that will not be written again.
        """
        self._dropped.update((row.slot, row) for row in dropped)
        # All state is settled before the first callback, which may join, leave or stop at once.
        due: list[tuple[list[Deferred[Progress]], Progress | Failure]] = []
        for slot, unsaved in list(self.by_slot.items()):
            lost, is_saved = self._dropped_newest(slot), self._table.is_saved(slot)
            saved_at = None if lost is not None else int(self._table.saved_at[slot])
            result: Progress | Failure = Progress.of(self._table, slot)
            if lost is not None:
                result = Failure(not_saved([lost]))
            due.append((unsaved.take_past(saved_at), result))
            if is_saved and (cut_off := unsaved.take_past(None)):
                due.append((cut_off, Failure(_cut_off(self._table.session_id(slot)))))
            if not unsaved.is_online and (lost is not None or is_saved):
                self._release(slot)
                due.append((unsaved.waiters.take(), result))
            elif unsaved.is_online and not unsaved.waiters:
                del self.by_slot[slot]
        for waiters, result in due:
            tell(waiters, result)

    def end(self, why: NotSaved) -> None:
        """Nothing more is saved: every waiter fails with `why`."""
        waiting = [unsaved.waiters.take() for unsaved in self.by_slot.values()]
        self.by_slot.clear()
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
        unsaved = self.by_slot.pop(slot, None)
        self._ledger.leaves += unsaved is None or not unsaved.never_joined

    def _dropped_newest(self, slot: int) -> Dropped | None:
        """The dropped row of this player, if it is the newest; else None."""
        dropped = self._dropped.get(slot)
        if dropped is not None and dropped.updated_at == self._table.updated_at(slot):
            return dropped
        return None


def _cut_off(session_id: int) -> NotSaved:
    """The error of a caller who waited for a state that the live file lost."""
    return NotSaved(f"lost with the live file before it was saved: player {session_id}")


@attrs.define(eq=False)
class _Unsaved:
    """A player who is to be saved: because of a leave, or because a caller waits for it.

    Attributes:
        is_online: whether the player is to stay in the table once saved.
        never_joined: whether the player is in the table only to be edited.
        turn: how often the player returned.
        waiters: each with the turn whose leave it waits for, or `_NO_LEAVE`, and with the
            ``updated_at`` up to which the player is to be saved.
    """

    is_online: bool = True
    never_joined: bool = False
    turn: int = 0
    waiters: Waiters[Progress, tuple[int, int]] = attrs.field(factory=Waiters)

    def wait_for_leave(self, target: int) -> Deferred[Progress]:
        """A Deferred that fires when the player is released; after a return, see `take_past`."""
        return self.waiters.add((self.turn, target))

    def wait_for_state(self, target: int) -> Deferred[Progress]:
        """A Deferred that fires when the player is saved up to `target`, an ``updated_at``."""
        return self.waiters.add((_NO_LEAVE, target))

    def take_past(self, saved_at: int | None) -> list[Deferred[Progress]]:
        """Take out the waiters that are saved by now and wait for no leave, or for an ended one.

        Args:
            saved_at: the newest ``updated_at`` that the store holds; None takes the waiters
                whatever they wait to be saved.
        """
        return self.waiters.take_some(
            [
                waiter
                for waiter, (turn, target) in self.waiters.notes()
                if turn < self.turn and (saved_at is None or target <= saved_at)
            ]
        )
