"""Joins: a player still in the table is taken over there, any other is loaded from the store.

Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from playerstate.arguments import check_whole
from playerstate.interfaces import LiveFileUnusable, StoreBusy, Stored
from playerstate.ledger import Ledger
from playerstate.live.recovery import Left
from playerstate.live.table import LiveTable
from playerstate.players.errors import ServerFull
from playerstate.players.leaves import Leaves
from playerstate.players.loads import Enter, Loads
from playerstate.state.field import InvalidState
from playerstate.state.schema import StateSchema

T = TypeVar("T")


@attrs.frozen
class Joined:
    """The result of a join.

    Attributes:
        state: the player's newest state, an instance of the state class.
        restored: whether that state was ever saved or changed; False for a player who spawns.
        updated_at: when it last changed, microseconds since the Unix epoch; 0 for never.
    """

    state: Any
    restored: bool
    updated_at: int


class Joins:
    """The joins of one run.

    Args:
        schema: the players' schema.
        table: the live table, to which players are admitted.
        leaves: the leaves of the same run; notified of each player who returns.
        ledger: where joins are counted.
        load: reads a player from the store, as `IStateReader.load`.
        guard: called before the table's rows are touched.
        max_players: the most players at a time.
        left: of players who were online when the last process died.  Moves that were sent to that
            process may be in transit until `forget_left`: so its overrides count as unseen until
            then, though they may have been seen.
    """

    def __init__(
        self,
        schema: StateSchema,
        table: LiveTable,
        leaves: Leaves,
        ledger: Ledger,
        load: Callable[[int], Stored | Deferred[Stored | None] | None],
        guard: Callable[[], object],
        max_players: int,
        left: Left,
    ) -> None:
        self._schema = schema
        self._table = table
        self._leaves = leaves
        self._ledger = ledger
        self._load = load
        self._guard = guard
        self._max_players = max_players
        self._loads = Loads()
        self._left = left
        self._refusal: Exception | None = None
        self._kept_out: set[int] = set()

    def __len__(self) -> int:
        """The number of players whose load is under way."""
        return len(self._loads)

    def forget_left(self) -> None:
        """From now on, every player who is loaded begins with the default of transient fields.

        An override of the last process counts as seen: the WELCOME tells of it.
        """
        self._left.clear()

    def refuse_all(self, why: Exception) -> None:
        """Refuse every join and edit from now on; those that wait fail with `why`."""
        self._refusal = why
        self._loads.fail_all(why)

    @contextmanager
    def keeping_out(self, session_id: int) -> Iterator[None]:
        """Let no join and no edit of this player in, nor what is kept of the last process.

        Raises:
            StoreBusy: the player is kept out already.
        """
        if session_id in self._kept_out:
            raise _kept_out(session_id)
        self._kept_out.add(session_id)
        try:
            yield
        finally:
            self._left.pop(session_id, None)
            self._kept_out.remove(session_id)

    def has_room(self, session_id: int) -> bool:
        """Whether `max_players` leaves room for this player to join now."""
        return (
            len(self._table) + len(self._loads) < self._max_players
            or session_id in self._table.slots
            or session_id in self._loads
        )

    def join(self, session_id: int, sequence: int | None) -> Deferred[Joined]:
        """See `playerstate.players.service.PlayerStateService.join`; both are checked."""
        return self.reach(session_id, lambda stored: self._enter(session_id, stored, sequence))

    def reach(self, session_id: int, enter: Enter[T]) -> Deferred[T]:
        """Call `enter` once the player can be admitted: at once for one who is in the table.

        Args:
            session_id: the player's.
            enter: called with what the store holds of a player who is not in the table.

        Returns:
            A Deferred of what `enter` returns, which fails as that of a join does.
        """
        if self._refusal is not None:
            return fail(self._refusal)

        def guarded(stored: Stored | None) -> T:
            if self._refusal is not None:
                raise self._refusal  # another waiter of the same load stopped the service
            if session_id in self._kept_out:
                raise _kept_out(session_id)
            self._guard()
            return enter(stored)

        if session_id in self._kept_out:
            return fail(_kept_out(session_id))
        if session_id in self._table.slots:
            return succeed(guarded(None))
        if session_id in self._loads:
            return self._loads.wait(session_id, guarded)
        if not self.has_room(session_id):
            return fail(self._full())
        try:
            found = self._load(session_id)
            if isinstance(found, Deferred):
                return self._loads.begin(session_id, found, guarded)
            return succeed(guarded(found))
        except Exception:  # passed to the caller, who decides what to do
            return fail()

    def _full(self) -> ServerFull:
        return ServerFull(f"all {self._max_players} places are taken")

    def _enter(self, session_id: int, stored: Stored | None, sequence: int | None) -> Joined:
        table = self._table
        slot = table.slots.get(session_id)
        if slot is None:
            slot = self.admit(session_id, stored)
        else:
            self._leaves.returned(slot)
        table.start_generation(slot, table.sequence(slot) if sequence is None else sequence)
        updated_at = table.updated_at(slot)
        self._ledger.joins += 1
        self._ledger.restored += updated_at != 0
        return Joined(self._schema.state(table.values(slot)), updated_at != 0, updated_at)

    def admit(self, session_id: int, stored: Stored | None) -> int:
        """Give a player who is not in the table a slot, at the stored state or the spawn.

        Raises:
            ServerFull: `max_players` are in the table.
            StoreBusy: the live file has no room.
            InvalidState: the stored row cannot be read.
        """
        if len(self._table) >= self._max_players:
            raise self._full()
        values, updated_at, was_online = self._schema.spawn, 0, False
        if stored is not None:
            values, updated_at = self._stored(session_id, stored)
            # 0 means never stored; an imported row may carry that date, and its player was stored.
            updated_at = max(updated_at, 1)
            date, packed = self._left.get(session_id, (0, values))
            was_online = date == updated_at
            if was_online:
                values = self._schema.with_transients(values, packed)
        try:
            slot = self._table.admit(session_id, values, updated_at)
        except LiveFileUnusable as error:
            raise StoreBusy(str(error)) from error
        self._left.pop(session_id, None)
        self._table.unseen[slot] = was_online and self._table.is_overridden(slot)
        return slot

    def _stored(self, session_id: int, stored: Stored) -> tuple[tuple[Any, ...], int]:
        """The packed values and the date of a stored player.

        Both are checked, since another program may have written the row.
        """
        try:
            values = self._schema.restore(stored.values)
            try:
                return values, check_whole("updated_at", stored.updated_at, -(2**63), 2**63 - 1)
            except (TypeError, ValueError):
                allowed = "a whole number of 64 bits"
                raise InvalidState("updated_at", stored.updated_at, allowed) from None
        except InvalidState as error:
            remedy = f"player {session_id} is stored with it: correct that row, or delete it"
            raise InvalidState(error.field, error.value, f"{error.allowed}; {remedy}") from None


def _kept_out(session_id: int) -> StoreBusy:
    """The error of a join, an edit or an erasure of a player who is being erased."""
    return StoreBusy(f"player {session_id} is being erased")
