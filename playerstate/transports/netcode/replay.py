"""The replay window: each numbered packet is taken in once, and late ones only for so long."""

from __future__ import annotations

WINDOW = 256
"""Numbers below the newest that may still come (netcode 1.02, replay protection)."""
_MASK = (1 << WINDOW) - 1


class ReplayWindow:
    """Which sequence numbers were taken in from one peer on one connection.

    A number is good if it is above the newest, or within the window below it and not taken in
    before.  Gaps may be of any size, and numbers of any: Python's do not wrap.

    Attributes:
        newest: the highest number taken in, at first -1; whatever is above it is new.
    """

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self.newest = -1
        # Bit n is set where newest - n was taken in.
        self._seen = 0

    def is_new(self, sequence: int) -> bool:
        """Whether the number may be taken in; nothing changes, so it can be asked of a forgery."""
        behind = self.newest - sequence
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def note(self, sequence: int) -> None:
        """Take in a number that `is_new`, once its packet has opened."""
        ahead = sequence - self.newest
        if ahead <= 0:
            self._seen |= 1 << -ahead
        else:
            self._seen = (self._seen << ahead & _MASK | 1) if ahead < WINDOW else 1
            self.newest = sequence
