"""Finds idle players, by the time of each player's last message, by slot of the live table.

The time for which the process itself was suspended does not count: messages sent meanwhile wait in
the sockets, and are read first.  Reactor thread only.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

import numpy as np

from playerstate.live.table import LiveTable

STOOD_STILL = 1.0
"""Seconds between two ticks above which the process counts as having been suspended."""


class Silence:
    """When the last message of each conversation came.

    Args:
        table: the live table, for its slots.
        seconds: returns the time, on a clock that never steps.
        timeout: seconds without a message after which a player is idle.

    Attributes:
        now: the time of the last tick, which dates all messages until the next.
        last_heard: by slot, infinite where no message is expected.  The callers set it to `now`
            with each message: an array's elements are set faster than numpy's, and this runs for
            every move.
        last_heard_at: the same memory as a numpy array, for many slots at once.
    """

    def __init__(self, table: LiveTable, seconds: Callable[[], float], timeout: float) -> None:
        self._table = table
        self._seconds = seconds
        self._timeout = timeout
        self._stood_still = False
        self.now = seconds()
        self.last_heard = array("d")
        self._fit()

    def _fit(self) -> None:
        """Grow the array to the table's room."""
        if more := self._table.room - len(self.last_heard):
            self.last_heard = self.last_heard + array("d", [math.inf]) * more
            self.last_heard_at = np.frombuffer(self.last_heard, np.float64)

    def begin(self, slot: int) -> None:
        """A conversation begins at this slot."""
        self._fit()
        self.last_heard[slot] = self._seconds()

    def end(self, slot: int) -> None:
        """No message is expected from this slot any more."""
        self.last_heard[slot] = math.inf

    def tick(self, now: float) -> None:
        """Advance `now`; add the time for which the process was suspended to every slot."""
        self._stood_still = self._is_late(now)
        if self._stood_still:
            self.last_heard_at[: self._table.high_water] += now - self.now
        self.now = now

    def _is_late(self, now: float) -> bool:
        """Whether the process was suspended since the last tick, and messages may wait unread."""
        return now - self.now > min(STOOD_STILL, self._timeout / 2)

    def idle(self) -> list[int]:
        """The slots of players who have been silent for longer than the timeout."""
        if self._stood_still or self._is_late(self._seconds()):
            return []
        last_heard = self.last_heard_at[: self._table.high_water]
        slots: list[int] = np.flatnonzero(last_heard <= self.now - self._timeout).tolist()
        return slots
