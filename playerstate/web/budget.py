"""The share of the reactor thread's time that requests may take; the rest is the players'.

A budget fills up with time and is spent by work.  Work is begun only while it is not overdrawn, so
one piece of work more than there is room for is the most that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.1
"""Of the time, how much requests may take where there are more than can be answered."""
BURST = 0.05
"""Seconds of work that may be saved up, for a page and all that it loads at once."""


class Budget:
    """Seconds of work that may be done now.

    Args:
        seconds: a clock that never steps.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._left = BURST
        self._at = seconds()

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Spend the time that the body of the ``with`` takes."""
        self._fill_up()
        started = self._seconds()
        try:
            yield
        finally:
            self._left -= self._seconds() - started

    @property
    def wait(self) -> float:
        """Seconds until work may be begun; 0 for now."""
        self._fill_up()
        return max(0.0, -self._left / SHARE)

    def _fill_up(self) -> None:
        now = self._seconds()
        self._left = min(BURST, self._left + (now - self._at) * SHARE)
        self._at = now
