"""The live table: packed rows of all players online or leaving, in one buffer of fixed size.

Reactor thread only.  A player holds a *slot* from `LiveTable.admit` to `LiveTable.release`; freed
slots are reused, the last freed first, so that the part of the table in use stays short.

Each layer knows only those below it: `playerstate.live.rows` reads and writes rows,
`playerstate.live.sweeping` knows which are dirty, the table whose they are and what is saved.  They
are one object, and `LiveTable.apply` writes into all of it, because it runs for every move.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from playerstate.live.rows import HEAD, HEAD_AT, Slots
from playerstate.live.sweeping import SweptRows
from playerstate.state.schema import StateSchema

FIRST_PLACES = 16_384
"""Slots that a table has room for at first, unless its capacity is smaller.  The room doubles each
time it is used up, so slots that are never used take no memory."""

_LATEST = 2**63 - 1
"""The last possible ``updated_at``.  Only a store can bring it, and it stays."""


class TableFull(Exception):
    """Every slot is taken."""


class LiveTable(SweptRows):
    """Packed rows of `capacity` players, two halves a slot.

    Args:
        schema: the state's schema.
        capacity: the most players at a time.
        now: seconds on a clock that never steps; dates the first unsaved update of a player.
        buffer: holds the rows; `bytes_needed` bytes, zeroed.  A row written there is applied; see
            `playerstate.state.layout` for what of it outlives the process.
        reserve: called before that many bytes from the buffer's start are written, to make sure
            that they can be; where it raises, the table is unchanged.
        first_version: the version before that of the first row written; see `disown`.

    Attributes:
        slots: the slot of each player, by session id.
        saved: by slot, the highest sequence of the row's generation that the store holds.
        saved_at: by slot, the newest ``updated_at`` that the store holds.
        last_non_base: by slot, the last sequence whose state is not that of a move: an override
            came after it, or a join or a SEEN gave the sequence.
        unseen: by slot, 1 from an override until a SEEN; an override sets fields of the client's.
            Also 1 after a join, where moves sent before the override may still be in transit.
        high_water: the first slot of those that were never used.
        room: slots in the three arrays above; it grows up to `capacity`, and the arrays are
            replaced each time.
    """

    def __init__(
        self,
        schema: StateSchema,
        capacity: int,
        now: Callable[[], float],
        buffer: memoryview,
        reserve: Callable[[int], None] = lambda _: None,
        first_version: int = 0,
    ) -> None:
        super().__init__(schema, now, buffer, first_version)
        self._spawn = schema.spawn
        # The fields that a move sets, by name; empty where it sets all of them.
        self._moved = () if schema.moved.are_all else schema.moved.dtype.names
        self.slots: dict[int, int] = {}
        self.capacity = capacity
        self._reserve = reserve
        self.saved = np.zeros(0, np.uint64)
        self.saved_at = np.zeros(0, np.int64)
        self.last_non_base = array("q")
        self.unseen = bytearray()
        self._free: list[int] = []
        self._generation = 0
        self._make_room(min(capacity, FIRST_PLACES))

    def _make_room(self, room: int) -> None:
        self._reserve(2 * self._size * room)
        more = room - self.room
        self.saved = np.append(self.saved, np.zeros(more, np.uint64))
        self.saved_at = np.append(self.saved_at, np.zeros(more, np.int64))
        self.last_non_base = self.last_non_base + array("q", bytes(8 * more))
        self.unseen = self.unseen + bytes(more)
        super()._make_room(room)

    def __len__(self) -> int:
        return len(self.slots)

    def admit(self, session_id: int, values: tuple[Any, ...], updated_at: int) -> int:
        """Give a player a slot, with the state and ``updated_at`` that the store holds.

        Raises:
            TableFull: there is no slot left.
            LiveFileUnusable: there is no room for one more; the caller may try again.
            struct.error: a number cannot be packed; no slot was taken.
        """
        if self._free:
            slot = self._free.pop()
        elif self.high_water < self.capacity:
            if self.high_water == self.room:
                self._make_room(min(self.capacity, 2 * self.room))
            slot = self.high_water
            self.high_water += 1
        else:
            raise TableFull
        try:
            self._write(slot, session_id, 0, updated_at, 0, values)
        except BaseException:
            self._free.append(slot)
            raise
        self._assign_part(slot, session_id)
        self.last_non_base[slot] = 0
        self.unseen[slot] = 0
        self.saved_at[slot] = updated_at
        self.slots[session_id] = slot
        return slot

    def start_generation(self, slot: int, sequence: int) -> None:
        """Start a new generation of this player, whose sequences follow `sequence`.

        `sequence` counts as saved only if the player's present state is saved.
        """
        session_id, _, updated_at, highest = self._head(slot)
        if sequence != highest:
            self.last_non_base[slot] = sequence
        self._generation = (self._generation + 1) & 0x7FFFFFFF
        self._write(slot, session_id, self._generation, updated_at, sequence, self.values(slot))
        self.saved[slot] = sequence if self.is_saved(slot) else 0

    def release(self, slot: int) -> None:
        """Take the player out of the table; the slot is free for another."""
        del self.slots[self.session_id(slot)]
        self._write(slot, 0, 0, 0, 0, self._spawn)
        self._lower_flag(slot)
        self._free.append(slot)

    def wipe(self, session_id: int) -> None:
        """Leave nothing of a player who is not in the table in any slot that the player had."""
        (places,) = (self._session_ids[: 2 * self.high_water] == session_id).nonzero()
        self._blocks[places] = np.zeros((), self._blocks.dtype)

    def apply(
        self, slot: int, sequence: int | None, values: tuple[Any, ...], now: int
    ) -> bool | None:
        """Write a player's accepted values, unless they are stale.

        ``updated_at`` grows with each change even where the wall clock does not: to `now`, or the
        least date above the last that is even or odd as `now` is, up to 2**63 - 1.

        Args:
            slot: the player's slot.
            sequence: of this update, which is stale if that is not above the highest applied; None
                for an update without one, which leaves the highest as it is.
            values: accepted packed values: with a sequence, those of the client's fields, which
                leave the other fields as they are; without, those of all fields.
            now: the wall clock, microseconds since the Unix epoch; odd for an override, even for a
                move.

        Returns:
            Whether the row was clean before; None for a stale update, which changes nothing.
        """
        place = self._place[slot]
        session_id, slot_and_generation, last, highest = HEAD(
            self._buffer, place * self._size + HEAD_AT
        )
        if sequence is None:
            sequence = highest
            put = self._put
        elif sequence <= highest:
            return None
        else:
            put = self._put_move
        self._version = version = self._version + 1
        place ^= 1
        put(
            self._buffer,
            place * self._size,
            version,
            session_id,
            slot_and_generation,
            now if now > last else min(last + 1 + (~(last ^ now) & 1), _LATEST),
            sequence,
            values,
        )
        self._place[slot] = place
        if last == _LATEST:
            self.saved_at[slot] = 0  # the date is the same again, so only a commit shows it saved
        if self._dirty[slot]:
            return False
        self._dirty[slot] = 1
        self._dirtied_at[slot] = dirtied_at = self._now()
        if self._oldest is None:
            self._oldest = dirtied_at
        return True

    def apply_many(
        self,
        slots: Slots,
        sequences: npt.NDArray[np.unsignedinteger[Any]],
        fields: npt.NDArray[np.void],
        now: int,
    ) -> int:
        """Do what `apply` does to many players at once; all arrays are of equal length.

        Args:
            slots: of the players, each at most once.
            sequences: each above its player's highest.
            fields: accepted values of the client's fields, packed as in `MovedFields.dtype`.
            now: as in `apply`, even.

        Returns:
            How many rows were dirty before.
        """
        places = self._places[slots]
        return self._put_moved(slots, places, self._moved_rows(places, sequences, fields, now))

    def moved_rows(
        self,
        slots: Slots,
        sequences: npt.NDArray[np.unsignedinteger[Any]],
        fields: npt.NDArray[np.void],
        now: int,
    ) -> npt.NDArray[np.void]:
        """The rows that `apply_many` would write, as `playerstate.state.layout.RowLayout.named`.

        Nothing is written; `put_moved` does it.
        """
        return self._moved_rows(self._places[slots], sequences, fields, now).view(
            self._layout.named
        )

    def put_moved(
        self, slots: Slots, rows: npt.NDArray[np.void], passed: npt.NDArray[np.bool_]
    ) -> int:
        """Write those of the rows from `moved_rows` that passed; none has changed since.

        Args:
            slots: of the players, each at most once.
            rows: what `moved_rows` returned for them.
            passed: for each, whether to write it.

        Returns:
            How many of the rows written were dirty before.
        """
        if not passed.all():
            slots, rows = slots[passed], rows.view(self._blocks.dtype)[passed]
        return self._put_moved(slots, self._places[slots], rows.view(self._halves.dtype))

    def _moved_rows(
        self,
        places: npt.NDArray[np.int64],
        sequences: npt.NDArray[np.unsignedinteger[Any]],
        fields: npt.NDArray[np.void],
        now: int,
    ) -> npt.NDArray[np.void]:
        rows = self._blocks.take(places).view(self._halves.dtype)
        dates = rows["updated_at"]
        if _newest(dates) < now:  # always, but where the wall clock has stepped back
            dates.fill(now)
        else:
            dates[:] = np.maximum(np.minimum(dates | 1, _LATEST - 1) + 1, now)
        rows["sequence"] = sequences
        if self._moved:
            named = rows.view(self._layout.named)
            for name in self._moved:
                named[name] = fields[name]
        else:
            rows["fields"] = fields.view(rows["fields"].dtype)
        return rows

    def _put_moved(
        self, slots: Slots, places: npt.NDArray[np.int64], rows: npt.NDArray[np.void]
    ) -> int:
        self._write_many(slots, places, rows)
        dates = rows["updated_at"]
        if _newest(dates) == _LATEST:
            self.saved_at[slots[dates == _LATEST]] = 0
        clean = slots[~self._dirty_flags[slots]]
        self._raise_flags(clean)
        return len(slots) - len(clean)

    def is_overridden(self, slot: int) -> bool:
        """Whether the last change of the client's fields was an override.

        The date says so, and the store keeps it; a date that another program wrote may say so too.
        """
        updated_at = self.updated_at(slot)
        return updated_at > 0 and updated_at & 1 == 1

    def is_saved(self, slot: int) -> bool:
        """Whether the store holds this player's newest state."""
        # A dirty row has the same date as the saved one where there is no later date.
        return not self._dirty[slot] and self.updated_at(slot) == int(self.saved_at[slot])

    def unsaved(self) -> npt.NDArray[np.int64]:
        """The session ids of all players whose newest state the store does not hold."""
        slots = np.arange(self.high_water)
        ids = self.session_ids(slots)
        unsaved: npt.NDArray[np.int64] = ids[self.are_unsaved(slots) & (ids != 0)]
        return unsaved

    def are_unsaved(self, slots: Slots) -> npt.NDArray[np.bool_]:
        """Whether the store does not hold the newest state of each of these players."""
        changed = self._updated_at[self._places[slots]] != self.saved_at[slots]
        unsaved: npt.NDArray[np.bool_] = changed | self._dirty_flags[slots]
        return unsaved

    def settle(
        self,
        slots: Slots,
        generations: npt.NDArray[np.uint32],
        sequences: npt.NDArray[np.uint64],
        updated_at: npt.NDArray[np.int64],
    ) -> None:
        """Note what the store now holds; arrays of equal length, a slot at most once in each.

        A row of an earlier generation counts as saved too, but its sequence belongs to that
        generation.  Only if the player has not changed since does it show that the sequence with
        which the present generation started is saved.
        """
        self.saved_at[slots] = updated_at
        same = self._generations[slots] == generations
        if same.all():
            self.saved[slots] = sequences
            return
        self.saved[slots[same]] = sequences[same]
        others, updated_at = slots[~same], updated_at[~same]
        places = self._places[others]
        unchanged = self._updated_at[places] == updated_at
        self.saved[others[unchanged]] = self._sequences[places[unchanged]]

    def dirty_all(self, given_up: Collection[int] = ()) -> int:
        """Mark the row of every changed player dirty, for a store that holds none of them.

        Rows in flight are left alone: they will be written to that store anyhow, and the commit of
        a row sent twice could arrive after its slot was given to another player.

        Args:
            given_up: slots of rows that are neither saved nor in flight.

        Returns:
            How many rows were clean.
        """
        places = self._places[: self.high_water]
        updated_at = self._updated_at[places]
        changed = np.flatnonzero((self._session_ids[places] != 0) & (updated_at != 0))
        settled = updated_at == self.saved_at[: self.high_water]
        settled[list(given_up)] = True
        clean = changed[settled[changed] & ~self._dirty_flags[changed]]
        self.saved_at[changed] = 0
        self.saved[changed] = 0
        self._raise_flags(clean)
        return len(clean)

    def disown(self) -> list[int]:
        """Remove from the buffer every row that this table did not write there.

        The table keeps the session id, the generation and the current half of each slot outside the
        buffer as well; the version of a row tells whether this table wrote it.  A player whose row
        was lost gets the spawn state, clean, with the date and the sequence that are saved.

        Returns:
            The slots of the players whose rows were lost.
        """
        slots = np.fromiter(self.slots.values(), np.intp, len(self.slots))
        session_ids = np.zeros(self.high_water, np.int64)
        session_ids[slots] = np.fromiter(self.slots.keys(), np.int64, len(self.slots))
        ours = self._remove_foreign(session_ids)
        lost: list[int] = slots[~ours[slots]].tolist()
        for slot, session_id in zip(lost, session_ids[lost].tolist(), strict=True):
            self._rewrite(slot, session_id, self._spawn, int(self.saved_at[slot]))
        return lost

    def restore(self, slot: int, values: tuple[Any, ...], updated_at: int) -> None:
        """Give a player whose row `disown` removed the state that the store holds."""
        self.saved_at[slot] = updated_at
        self._rewrite(slot, self.session_id(slot), values, updated_at)

    def _rewrite(
        self, slot: int, session_id: int, values: tuple[Any, ...], updated_at: int
    ) -> None:
        """Write a row whose state and sequence are those that the store holds."""
        sequence = int(self.saved[slot])
        generation = int(self._generations[slot])
        self._write(slot, session_id, generation, updated_at, sequence, values)
        self.last_non_base[slot] = sequence
        self._lower_flag(slot)


def _newest(dates: npt.NDArray[np.int64]) -> int:
    """The newest of some dates; 0 if there are none."""
    return int(np.maximum.reduce(dates)) if len(dates) else 0
