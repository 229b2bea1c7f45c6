"""Which rows are dirty, since when, and the sweep that hands them over.

Reactor thread only.  A change sets one flag byte; a sweep reads the flag bytes, one a slot, and the
dirty rows, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from playerstate.live.rows import Rows, Slots
from playerstate.state.schema import StateSchema


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


class SweptRows(Rows):
    """Rows that are swept.

    Args:
        schema: the state's schema.
        now: seconds on a clock that never steps; dates the first unsaved update of a player.
        buffer: see `Rows`.
        first_version: see `Rows`.
    """

    def __init__(
        self,
        schema: StateSchema,
        now: Callable[[], float],
        buffer: memoryview,
        first_version: int = 0,
    ) -> None:
        super().__init__(schema, buffer, first_version)
        self._now = now
        # By slot; a bytearray, which is faster to index by one slot, and a numpy view of it.
        self._dirty = bytearray()
        self._dirtied_at = np.zeros(0, np.float64)
        # When the oldest dirty row became dirty, unless that must be searched for first.
        self._oldest: float | None = None
        self._oldest_is_known = True
        self._part_of: Callable[[int], int] | None = None
        self._parts = np.zeros(0, np.uint8)
        # By part, the slot that its next sweep begins with.
        self._resume = [0]

    def _make_room(self, room: int) -> None:
        more = room - self.room
        self._dirty = self._dirty + bytes(more)
        self._dirty_flags = np.frombuffer(self._dirty, np.bool_)
        self._dirtied_at = np.append(self._dirtied_at, np.zeros(more))
        self._parts = np.append(self._parts, np.zeros(more, np.uint8))
        super()._make_room(room)

    def divide(self, parts: int, part_of: Callable[[int], int]) -> None:
        """Divide the players into parts, each of which is swept by itself.

        Args:
            parts: how many, 2 to 255.
            part_of: the part of a session id, from 0 up; always the same.

        Raises:
            ValueError: players are, or have been, in the table.
        """
        if self.high_water:
            raise ValueError("a table that has had players cannot be divided")
        self._part_of = part_of
        self._resume = [0] * parts

    def _assign_part(self, slot: int, session_id: int) -> None:
        """Note the part of the player who gets this slot."""
        if self._part_of is not None:
            self._parts[slot] = self._part_of(session_id)

    def part(self, slot: int) -> int:
        """The part of this player; 0 in a table that is not divided."""
        return int(self._parts[slot])

    def is_dirty(self, slot: int) -> bool:
        """Whether this player changed since the last sweep took the row."""
        return bool(self._dirty[slot])

    def dirty_count(self, part: int | None = None) -> int:
        """How many rows of this part, or of all, are dirty."""
        flags = self._dirty_flags[: self.high_water]
        if part is not None and self._part_of is not None:
            flags = flags & (self._parts[: self.high_water] == part)
        return int(np.count_nonzero(flags))

    def oldest_dirty(self) -> float | None:
        """When the oldest dirty row became dirty, in the table's seconds; None if all are clean."""
        if not self._oldest_is_known:
            (dirty,) = self._dirty_flags[: self.high_water].nonzero()
            self._oldest = float(self._dirtied_at[dirty].min()) if len(dirty) else None
            self._oldest_is_known = True
        return self._oldest

    def _raise_flags(self, clean: Slots) -> None:
        """Mark the rows of these clean slots dirty, as of now."""
        if len(clean):
            self._dirty_flags[clean] = True
            self._dirtied_at[clean] = dirtied_at = self._now()
            if self._oldest is None:
                self._oldest = dirtied_at

    def _lower_flag(self, slot: int) -> None:
        """Mark this row clean, although it was not swept: what it had to save is gone."""
        if self._dirty[slot]:
            self._dirty[slot] = 0
            self._oldest_is_known = False

    def sweep(self, sink: RowSink, most: int | None = None, part: int = 0) -> Sweep:
        """Push the dirty rows, in one gather; begin where the last sweep ended.

        Args:
            sink: what to push into.
            most: push this many rows at most; None for no limit.
            part: the part of a divided table to sweep.
        """
        high, resume = self.high_water, self._resume[part]
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
