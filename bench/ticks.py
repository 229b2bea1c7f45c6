"""A tick of 1 ms on the reactor: how late it is says how long the reactor stood still."""

from __future__ import annotations

import time
from typing import Any

TICK = 0.001


class Ticks:
    """Counts how late each tick is.  Reactor thread."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._late: list[float] = []
        self._due = 0.0
        self._call: Any = None
        self._plan()

    def _plan(self) -> None:
        self._due = time.monotonic() + TICK
        self._call = self._reactor.callLater(TICK, self._tick)

    def _tick(self) -> None:
        self._late.append(time.monotonic() - self._due)
        self._plan()

    def begin(self) -> None:
        """Count from the next tick on."""
        self._call.cancel()
        self._late = []
        self._plan()

    def end(self) -> list[float]:
        """How many seconds late each tick was since then, and the one that is due now."""
        late, self._late = self._late, []
        if (overdue := time.monotonic() - self._due) > 0:
            late.append(overdue)
        return late

    def stop(self) -> None:
        """End the ticks."""
        self._call.cancel()
