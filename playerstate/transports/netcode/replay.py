"""The replay window: each numbered packet is accepted once, late ones only within the window."""

from __future__ import annotations

WINDOW = 256
"""How far below the newest number a late one is accepted (netcode 1.02, replay protection)."""
_MASK = (1 << WINDOW) - 1


class ReplayWindow:
    """The sequence numbers received from one peer on one connection.

    A number is new if it is above the newest, or within the window below it and not received
    before.  Gaps and numbers may have any size: Python's integers do not wrap.

    Attributes:
        newest: the highest number received, at first -1; any number above it is new.
    """

    __slots__ = ("_seen", "newest")

    def __init__(self) -> None:
        self.newest = -1
        # Bit n is set if newest - n was received.
        self._seen = 0

    def is_new(self, sequence: int) -> bool:
        """Whether the number may be accepted.  Nothing changes, so a forged number does no harm."""
        behind = self.newest - sequence
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def note(self, sequence: int) -> None:
        """Record a number that `is_new`, once its packet was opened."""
        ahead = sequence - self.newest
        if ahead <= 0:
            self._seen |= 1 << -ahead
        else:
            self._seen = (self._seen << ahead & _MASK | 1) if ahead < WINDOW else 1
            self.newest = sequence
