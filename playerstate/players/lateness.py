"""How late the reactor thread is: a call that is due ten times a second, and when it is made.

What keeps the reactor thread busy delays every move by as much.  Reactor thread only.
"""

from __future__ import annotations

from playerstate.clock import SteadyClock
from playerstate.figures import Histogram

LOOK_EVERY = 0.1
"""Seconds between two calls."""


class Lateness:
    """Observes how late each call is made.

    Args:
        clock: of a run; the calls end with it.
        observed: takes the seconds of each delay.
    """

    def __init__(self, clock: SteadyClock, observed: Histogram) -> None:
        self._clock = clock
        self._observed = observed
        self._plan()

    def _plan(self) -> None:
        self._due = self._clock.seconds() + LOOK_EVERY
        self._clock.callLater(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._observed.observe(self._clock.seconds() - self._due)
        self._plan()
