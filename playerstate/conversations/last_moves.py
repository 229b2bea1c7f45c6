"""When each player last moved, by slot of the live table; for judges.  Reactor thread only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from playerstate.live.rows import Slots
from playerstate.live.table import LiveTable


class LastMoves:
    """When the last move of each player was applied.

    Args:
        table: the live table.
        seconds: returns the time, on a clock that never steps.
        wall_clock: returns nanoseconds since the Unix epoch.
    """

    def __init__(
        self, table: LiveTable, seconds: Callable[[], float], wall_clock: Callable[[], int]
    ) -> None:
        self._table = table
        self._seconds = seconds
        self._wall_clock = wall_clock
        self._session_ids = np.zeros(0, np.int64)
        self._at = np.zeros(0)

    def begin(self, slot: int) -> None:
        """A conversation begins at this slot; the player may have moved in one before."""
        if more := self._table.room - len(self._at):
            self._session_ids = np.append(self._session_ids, np.zeros(more, np.int64))
            self._at = np.append(self._at, np.zeros(more))
        session_id = self._table.session_id(slot)
        if self._session_ids[slot] != session_id:
            self._session_ids[slot] = session_id
            self._at[slot] = self._seconds() - self._unchanged_for(slot)

    def _unchanged_for(self, slot: int) -> float:
        """Seconds since the player last changed; 0 for one who never did."""
        updated_at = self._table.updated_at(slot)
        if updated_at <= 0:
            return 0.0
        return max(0, self._wall_clock() // 1000 - updated_at) / 1e6

    def applied(self, slots: Slots) -> None:
        """Moves of these players are applied now."""
        self._at[slots] = self._seconds()

    def seconds(self, slots: Slots) -> npt.NDArray[np.float64]:
        """Seconds since the last applied move of each of these players."""
        since: npt.NDArray[np.float64] = self._seconds() - self._at[slots]
        return since
