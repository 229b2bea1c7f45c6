"""Who has fallen silent: when each player was last heard, by slot of the live table.

The time for which the process itself stood still is nobody's silence: what was said meanwhile waits
in the sockets, and is read first.  Reactor thread only.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

import numpy as np

from playerstate.live.table import LiveTable

STOOD_STILL = 1.0
"""Seconds between two ticks after which the process is taken to have been stopped."""


class Silence:
    """When each conversation was last heard.

    Args:
        table: whose slots they are.
        seconds: the time, on a clock that never steps.
        timeout: seconds without a word after which a player is taken to have left.

    Attributes:
        now: when the clock last ticked; a word that comes until the next is of that time.
        last_heard: by slot, infinite where nobody is waited for.  To be set with each word to
            `now`: an array's elements are set faster than numpy's, and this is for every move.
        last_heard_at: the same, for many at once.
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
        """Have a place for each slot that the table has room for."""
        if more := self._table.room - len(self.last_heard):
            self.last_heard = self.last_heard + array("d", [math.inf]) * more
            self.last_heard_at = np.frombuffer(self.last_heard, np.float64)

    def begin(self, slot: int) -> None:
        """A player is heard here for the first time."""
        self._fit()
        self.last_heard[slot] = self._seconds()

    def end(self, slot: int) -> None:
        """No word is expected from here."""
        self.last_heard[slot] = math.inf

    def tick(self, now: float) -> None:
        """The clock goes on."""
        self._stood_still = self._is_late(now)
        if self._stood_still:
            self.last_heard_at[: self._table.high_water] += now - self.now
        self.now = now

    def _is_late(self, now: float) -> bool:
        """Whether the process stood still since the last tick, and words wait in the sockets."""
        return now - self.now > min(STOOD_STILL, self._timeout / 2)

    def idle(self) -> list[int]:
        """The slots of those who have been silent for too long."""
        if self._stood_still or self._is_late(self._seconds()):
            return []
        last_heard = self.last_heard_at[: self._table.high_water]
        slots: list[int] = np.flatnonzero(last_heard <= self.now - self._timeout).tolist()
        return slots
