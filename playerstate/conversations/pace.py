"""How often one player is sent something unasked, and who comes first where many are due."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

TICK = 0.02
"""Seconds between two checks for messages that are due."""
SEND_EVERY = 0.1
"""The fewest seconds between two messages of the same type to one player."""
SENDS_A_SECOND = 10_000
"""One player gets one at most every ``max(SEND_EVERY, players / SENDS_A_SECOND)``."""


def period(players: int) -> float:
    """The least number of seconds between two messages of the same type to one player."""
    return max(SEND_EVERY, players / SENDS_A_SECOND)


class Turns:
    """Lets the slots that are due take turns, in the order of their numbers."""

    def __init__(self) -> None:
        self._next_slot = 0

    def take(self, due: npt.NDArray[np.intp], players: int) -> npt.NDArray[np.intp]:
        """As many of the slots that are due as one tick may serve, so that all spread evenly.

        Args:
            due: slots, in ascending order.
            players: the number of players with a conversation.
        """
        most = max(1, math.ceil(players * TICK / period(players)))
        if len(due) > most:
            first = int(np.searchsorted(due, self._next_slot))
            due = np.concatenate((due[first:], due[:first]))[:most]
            self._next_slot = int(due[-1]) + 1
        return due
