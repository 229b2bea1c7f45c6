"""When to sweep next: pure arithmetic.

An update waits at most one interval for its sweep, then for a commit that may already be running,
then for its own.  So an update is saved within ``interval + 2 * commit``, and the interval is what
`save_within` leaves after two commits, each as slow as the slowest of late.
"""

from __future__ import annotations

import attrs

SHARE = 0.6
"""The part of `save_within` that is planned for; the rest is reserve for a commit slower than any
of late."""

LEAST_SHARE = 0.05
"""The interval never falls below this part of `save_within`, however slow commits are."""

CROWDED_DIVISOR = 5
"""The interval is divided by this while the ring is more than half full."""

FORGET = 0.9
"""The time of the slowest commit is multiplied by this at each later commit."""


@attrs.define
class Pace:
    """The interval between sweeps.

    Args:
        save_within: seconds within which an applied update is to be committed.
    """

    save_within: float
    _slowest: float = attrs.field(default=0.0, init=False)

    def committed(self, seconds: float) -> None:
        """Note how long the writer was busy with a batch, in seconds."""
        self._slowest = max(seconds, self._slowest * FORGET)

    def interval(self, crowded: bool) -> float:
        """Seconds from one sweep to the next; `crowded` while the ring is more than half full."""
        planned = self.save_within * SHARE - 2 * self._slowest
        interval = max(planned, self.save_within * LEAST_SHARE)
        return interval / CROWDED_DIVISOR if crowded else interval
