"""The live table: packed rows of all players online or leaving, in one buffer of fixed size.

Reactor thread only.  A player holds a *slot* from `LiveTable.admit` to `LiveTable.release`; freed
slots are reused, the last freed first, so that the part of the table in use stays short.  A change
writes the row and sets one flag byte; a sweep reads the flag bytes, one a slot, and the dirty rows,
and nothing else.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from playerstate.state.layout import FIELDS_AT, RowLayout
from playerstate.state.schema import StateSchema

Slots = npt.NDArray[np.intp]

FIRST_PLACES = 16_384
"""Slots that a table has room for at first, unless its capacity is smaller.  The room doubles each
time it is used up, so slots that are never used take no memory."""

_HEAD = struct.Struct("<qqqQ").unpack_from
"""Session id, slot and generation, ``updated_at``, sequence: adjacent in a half."""
_HEAD_AT = 8
_LATEST = 2**63 - 1
"""The last possible ``updated_at``.  Only a store can bring it, and it stays."""


class TableFull(Exception):
    """Every slot is taken."""


class RowSink(Protocol):
    """What a sweep pushes rows into; `playerstate.saving.ring.Ring` is one."""

    def push(self, rows: npt.NDArray[np.void], indices: Slots) -> int:
        """Take as many of ``rows[indices]`` as fit, and return how many that was."""


class Sweep(NamedTuple):
    """What one sweep did.

    Attributes:
        pushed: rows handed over, now clean.
        left: rows of the same part that are still dirty; its next sweep begins with them.
        full: whether some of the dirty rows did not fit into the sink.
        oldest: when the oldest of the pushed rows became dirty, in the table's seconds; None where
            nothing was pushed.
    """

    pushed: int
    left: int
    full: bool
    oldest: float | None


class LiveTable:
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
        last_non_base: by slot, the last sequence whose state is not that of a move: an update
            without a sequence came after it, or a join gave the sequence.
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
        self._layout = layout = RowLayout(schema.fields)
        self._spawn = schema.spawn
        self.slots: dict[int, int] = {}
        self.capacity = capacity
        self._now = now
        self._reserve = reserve
        # By slot, the index of its current half among all halves.
        self._place = array("q")
        self.saved = np.zeros(0, np.uint64)
        self.saved_at = np.zeros(0, np.int64)
        self.last_non_base = array("q")
        self._dirty = bytearray()
        self._dirtied_at = np.zeros(0, np.float64)
        # By slot, as in its row: a commit of many rows is settled without touching the rows.
        self._generations = np.zeros(0, np.uint32)
        self._part_of: Callable[[int], int] | None = None
        self._parts = np.zeros(0, np.uint8)
        # By part, the slot that its next sweep begins with.
        self._resume = [0]
        self._size = layout.size
        self._put = layout.write
        self._put_move = layout.write_move
        self._moved = () if schema.moved.are_all else schema.moved.dtype.names
        self._head_dtype = layout.head
        self._unpack_fields = layout.fields.unpack_from
        self._version = self._first_version = first_version
        self.lie_in(buffer)
        self.room = 0
        self._make_room(min(capacity, FIRST_PLACES))
        self._oldest: float | None = None
        self._oldest_is_known = True
        self._free: list[int] = []
        self._high_water = 0
        self._generation = 0

    def _make_room(self, room: int) -> None:
        """Grow the arrays to `room` slots."""
        self._reserve(2 * self._size * room)
        more = room - self.room
        # New objects, since an array that numpy has a view of cannot be resized.
        self._place = self._place + array("q", np.arange(2 * self.room, 2 * room, 2).tobytes())
        self._places = np.frombuffer(self._place, np.int64)
        self.saved = np.append(self.saved, np.zeros(more, np.uint64))
        self.saved_at = np.append(self.saved_at, np.zeros(more, np.int64))
        self.last_non_base = self.last_non_base + array("q", bytes(8 * more))
        self._dirty = self._dirty + bytes(more)
        self._dirty_flags = np.frombuffer(self._dirty, np.bool_)
        self._dirtied_at = np.append(self._dirtied_at, np.zeros(more))
        self._generations = np.append(self._generations, np.zeros(more, np.uint32))
        if self._part_of is not None:
            self._parts = np.append(self._parts, np.zeros(more, np.uint8))
        self.room = room

    def divide(self, parts: int, part_of: Callable[[int], int]) -> None:
        """Divide the players into parts, each of which is swept by itself.

        Args:
            parts: how many, 2 to 255.
            part_of: the part of a session id, from 0 up; always the same.

        Raises:
            ValueError: players are, or have been, in the table.
        """
        if self._high_water:
            raise ValueError("a table that has had players cannot be divided")
        self._part_of = part_of
        self._parts = np.zeros(self.room, np.uint8)
        self._resume = [0] * parts

    @staticmethod
    def bytes_needed(schema: StateSchema, capacity: int) -> int:
        """The size of the buffer for `capacity` players."""
        return 2 * RowLayout(schema.fields).size * capacity

    def lie_in(self, buffer: memoryview) -> None:
        """Switch to a buffer that holds the same rows as the present one, up to `used_bytes`."""
        self._buffer = buffer
        self._halves = np.frombuffer(buffer, self._layout.dtype)
        # As blocks of bytes: numpy drops the padding where it copies structured rows.
        self._blocks = self._halves.view(f"V{self._size}")
        self._heads = self._halves.view(self._layout.head)["head"]
        self._tails = self._halves["version_again"]
        self._session_ids = self._halves["session_id"]
        self._updated_at = self._halves["updated_at"]
        self._sequences = self._halves["sequence"]
        self._fields = self._halves["fields"]

    def disown(self) -> list[int]:
        """Remove from the buffer every row that this table did not write there.

        The table keeps the session id, the generation and the current half of each slot outside the
        buffer as well; the version of a row tells whether this table wrote it.  A player whose row
        was lost gets the spawn state, clean, with the date and the sequence that are saved.

        Returns:
            The slots of the players whose rows were lost.
        """
        high = self._high_water
        places = self._places[:high]
        slots = np.fromiter(self.slots.values(), np.intp, len(self.slots))
        session_ids = np.zeros(high, np.int64)
        session_ids[slots] = np.fromiter(self.slots.keys(), np.int64, len(self.slots))
        rows = self._halves[places]
        ours = (
            (rows["version"] == rows["version_again"])
            & (rows["version"] > self._first_version)
            & (rows["version"] <= self._version)
            & (rows["session_id"] == session_ids)
            & (rows["slot"] == np.arange(high))
            & (rows["generation"] == self._generations[:high])
        )
        # The other half may be foreign too, with a higher version.
        self._blocks[places ^ 1] = np.zeros((), self._blocks.dtype)
        self._blocks[places[~ours]] = np.zeros((), self._blocks.dtype)
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
        generation = int(self._generations[slot])
        sequence = int(self.saved[slot])
        self._write(slot, session_id, slot | generation << 32, updated_at, sequence, values)
        self.last_non_base[slot] = sequence
        if self._dirty[slot]:
            self._dirty[slot] = 0
            self._oldest_is_known = False

    @property
    def used_bytes(self) -> int:
        """How many bytes from the start of the buffer have ever been in use."""
        return 2 * self._size * self._high_water

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def high_water(self) -> int:
        """The first slot of those that were never used."""
        return self._high_water

    def admit(self, session_id: int, values: tuple[Any, ...], updated_at: int) -> int:
        """Give a player a slot, with the state and ``updated_at`` that the store holds.

        Raises:
            TableFull: there is no slot left.
            LiveFileUnusable: there is no room for one more; the caller may try again.
            struct.error: a number cannot be packed; no slot was taken.
        """
        if self._free:
            slot = self._free.pop()
        elif self._high_water < self.capacity:
            if self._high_water == self.room:
                self._make_room(min(self.capacity, 2 * self.room))
            slot = self._high_water
            self._high_water += 1
        else:
            raise TableFull
        try:
            self._write(slot, session_id, slot, updated_at, 0, values)
        except BaseException:
            self._free.append(slot)
            raise
        self._generations[slot] = 0
        if self._part_of is not None:
            self._parts[slot] = self._part_of(session_id)
        self.last_non_base[slot] = 0
        self.saved_at[slot] = updated_at
        self.slots[session_id] = slot
        return slot

    def start_generation(self, slot: int, sequence: int) -> None:
        """Start a new generation of this player, whose sequences follow `sequence`.

        `sequence` counts as saved only if the player's present state is saved.
        """
        if sequence != self.sequence(slot):
            self.last_non_base[slot] = sequence
        self._generation = (self._generation + 1) & 0x7FFFFFFF
        self._write(
            slot,
            self.session_id(slot),
            slot | self._generation << 32,
            self.updated_at(slot),
            sequence,
            self.values(slot),
        )
        self._generations[slot] = self._generation
        self.saved[slot] = sequence if self.is_saved(slot) else 0

    def release(self, slot: int) -> None:
        """Take the player out of the table; the slot is free for another."""
        del self.slots[self.session_id(slot)]
        self._write(slot, 0, slot, 0, 0, self.values(slot))
        if self._dirty[slot]:
            self._dirty[slot] = 0
            self._oldest_is_known = False
        self._free.append(slot)

    def apply(
        self, slot: int, sequence: int | None, values: tuple[Any, ...], now: int
    ) -> bool | None:
        """Write a player's accepted values, unless they are stale.

        ``updated_at`` grows with each change even where the wall clock does not:
        ``max(now, last + 1)``, up to 2**63 - 1.

        Args:
            slot: the player's slot.
            sequence: of this update, which is stale if that is not above the highest applied; None
                for an update without one, which leaves the highest as it is.
            values: accepted packed values: with a sequence, those of the client's fields, which
                leave the other fields as they are; without, those of all fields.
            now: the wall clock, microseconds since the Unix epoch.

        Returns:
            Whether the row was clean before; None for a stale update, which changes nothing.
        """
        place = self._place[slot]
        session_id, slot_and_generation, last, highest = _HEAD(
            self._buffer, place * self._size + _HEAD_AT
        )
        if sequence is None:
            sequence = self.last_non_base[slot] = highest
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
            now if now > last else min(last + 1, _LATEST),
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
            now: as in `apply`.

        Returns:
            How many rows were dirty before.
        """
        places = self._places[slots]
        rows = self._blocks.take(places).view(self._halves.dtype)
        rows["version"] = versions = np.arange(self._version + 1, self._version + 1 + len(slots))
        rows["updated_at"] = np.maximum(np.minimum(rows["updated_at"], _LATEST - 1) + 1, now)
        rows["sequence"] = sequences
        if self._moved:
            named = rows.view(self._layout.named)
            for name in self._moved:
                named[name] = fields[name]
        else:
            rows["fields"] = fields.view(rows["fields"].dtype)
        places ^= 1
        # The closing version goes last: a half is whole only once all of it is written.
        self._heads[places] = rows.view(self._head_dtype)["head"]
        self._tails[places] = versions
        self._version += len(slots)
        self._places[slots] = places
        self.saved_at[slots[rows["updated_at"] == _LATEST]] = 0
        clean = slots[~self._dirty_flags[slots]]
        self._raise_flags(clean)
        return len(slots) - len(clean)

    def _raise_flags(self, clean: Slots) -> None:
        """Mark the rows of these clean slots dirty, as of now."""
        if len(clean):
            self._dirty_flags[clean] = True
            self._dirtied_at[clean] = dirtied_at = self._now()
            if self._oldest is None:
                self._oldest = dirtied_at

    def _write(
        self,
        slot: int,
        session_id: int,
        slot_and_generation: int,
        updated_at: int,
        sequence: int,
        values: tuple[Any, ...],
    ) -> None:
        """Write the other half, and make it the current one."""
        self._version = version = self._version + 1
        place = self._place[slot] ^ 1
        row = (session_id, slot_and_generation, updated_at, sequence, values)
        self._put(self._buffer, place * self._size, version, *row)
        self._place[slot] = place

    def _head(self, slot: int) -> tuple[int, ...]:
        return _HEAD(self._buffer, self._place[slot] * self._size + _HEAD_AT)

    def session_id(self, slot: int) -> int:
        """The player of this slot; 0 for a free slot."""
        return self._head(slot)[0]

    def updated_at(self, slot: int) -> int:
        """When this player last changed, microseconds since the Unix epoch; 0 for never."""
        return self._head(slot)[2]

    def sequence(self, slot: int) -> int:
        """The highest sequence applied in this player's generation."""
        return self._head(slot)[3]

    def sequences(self, slots: Slots | None = None) -> npt.NDArray[np.uint64]:
        """`sequence` of each of these slots; by default of every slot below `high_water`."""
        places = self._places[: self._high_water] if slots is None else self._places[slots]
        sequences: npt.NDArray[np.uint64] = self._sequences[places]
        return sequences

    def fields(self, slots: Slots) -> list[bytes]:
        """The packed values of each of these players."""
        fields: list[bytes] = self._fields[self._places[slots]].tolist()
        return fields

    def values(self, slot: int) -> tuple[Any, ...]:
        """This player's packed values."""
        return self._unpack_fields(self._buffer, self._place[slot] * self._size + FIELDS_AT)

    def is_dirty(self, slot: int) -> bool:
        """Whether this player changed since the last sweep took the row."""
        return bool(self._dirty[slot])

    def is_saved(self, slot: int) -> bool:
        """Whether the store holds this player's newest state."""
        # A dirty row has the same date as the saved one where there is no later date.
        return not self._dirty[slot] and self.updated_at(slot) == int(self.saved_at[slot])

    def part(self, slot: int) -> int:
        """The part of this player; 0 in a table that is not divided."""
        return 0 if self._part_of is None else int(self._parts[slot])

    def dirty_count(self, part: int | None = None) -> int:
        """How many rows of this part, or of all, are dirty."""
        flags = self._dirty_flags[: self._high_water]
        if part is not None and self._part_of is not None:
            flags = flags & (self._parts[: self._high_water] == part)
        return int(np.count_nonzero(flags))

    def oldest_dirty(self) -> float | None:
        """When the oldest dirty row became dirty, in the table's seconds; None if all are clean."""
        if not self._oldest_is_known:
            (dirty,) = self._dirty_flags[: self._high_water].nonzero()
            self._oldest = float(self._dirtied_at[dirty].min()) if len(dirty) else None
            self._oldest_is_known = True
        return self._oldest

    def dirty_all(self, given_up: Collection[int] = ()) -> int:
        """Mark the row of every changed player dirty, for a store that holds none of them.

        Rows in flight are left alone: they will be written to that store anyhow, and the commit of
        a row sent twice could arrive after its slot was given to another player.

        Args:
            given_up: slots of rows that are neither saved nor in flight.

        Returns:
            How many rows were clean.
        """
        places = self._places[: self._high_water]
        updated_at = self._updated_at[places]
        changed = np.flatnonzero((self._session_ids[places] != 0) & (updated_at != 0))
        settled = updated_at == self.saved_at[: self._high_water]
        settled[list(given_up)] = True
        clean = changed[settled[changed] & ~self._dirty_flags[changed]]
        self.saved_at[changed] = 0
        self.saved[changed] = 0
        self._raise_flags(clean)
        return len(clean)

    def unsaved(self) -> npt.NDArray[np.int64]:
        """The session ids of all players whose newest state the store does not hold."""
        places = self._places[: self._high_water]
        ids = self._session_ids[places]
        unsaved: npt.NDArray[np.int64] = ids[
            (
                (self._updated_at[places] != self.saved_at[: self._high_water])
                | self._dirty_flags[: self._high_water]
            )
            & (ids != 0)
        ]
        return unsaved

    def sweep(self, sink: RowSink, most: int | None = None, part: int = 0) -> Sweep:
        """Push the dirty rows, in one gather; begin where the last sweep ended.

        Args:
            sink: what to push into.
            most: push this many rows at most; None for no limit.
            part: the part of a divided table to sweep.
        """
        high, resume = self._high_water, self._resume[part]
        flags = self._dirty_flags[:high]
        # Where every row is dirty, which is common in a busy game, there is nothing to search.
        dirty: Slots | range = range(high)
        places = self._places[:high][:most]
        divided = self._part_of is not None
        if divided or resume or self._dirty.find(0, 0, high) >= 0:
            wanted = flags & (self._parts[:high] == part) if divided else flags
            dirty = wanted.nonzero()[0]
            if resume:
                first = int(np.searchsorted(dirty, resume))
                dirty = np.concatenate((dirty[first:], dirty[:first]))
            places = self._places.take(dirty[:most])
        if not len(dirty):
            return Sweep(0, 0, False, None)
        pushed = sink.push(self._halves, places)
        left = len(dirty) - pushed
        self._resume[part] = int(dirty[pushed]) if left else 0
        if left or divided:
            taken = slice(pushed) if isinstance(dirty, range) else dirty[:pushed]
            return self._clean(taken, pushed, left, pushed < len(places))
        oldest = self.oldest_dirty()
        flags[:] = False
        self._oldest = None
        return Sweep(pushed, 0, False, oldest)

    def sweep_only(self, sink: RowSink, slots: list[int]) -> Sweep:
        """Push the dirty rows among the given slots."""
        chosen = np.unique(np.array(slots, np.intp))
        dirty = chosen[self._dirty_flags[chosen]]
        pushed = sink.push(self._halves, self._places.take(dirty)) if len(dirty) else 0
        left = len(dirty) - pushed
        return self._clean(dirty[:pushed], pushed, left, left > 0)

    def _clean(self, taken: Slots | slice, pushed: int, left: int, full: bool) -> Sweep:
        """Mark the rows of these slots clean: they were pushed, while others are still dirty."""
        self._dirty_flags[taken] = False
        oldest = float(self._dirtied_at[taken].min()) if pushed else None
        self._oldest_is_known = False
        return Sweep(pushed, left, full, oldest)

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
