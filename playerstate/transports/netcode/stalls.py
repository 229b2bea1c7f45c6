"""Stalls of the process: time in which the server could not have received anything."""

from __future__ import annotations

import math
from collections.abc import Iterable

from playerstate.transports.netcode.connections import Connection, HalfOpen

STALL = 0.25
"""The most seconds of silence that a client is charged with from one tick to the next."""
CATCH_UP = 0.5
"""Seconds that every client has left at least, after the process stalled: datagrams of that time
wait in the sockets, and must be read before a client can time out."""


class Stalls:
    """Tells by the times of a server's ticks for how long the process stalled."""

    def __init__(self) -> None:
        self._ticked_at = math.inf
        self._was_late = False

    def forgive(
        self, now: float, connections: Iterable[Connection], half_open: Iterable[HalfOpen]
    ) -> None:
        """Do not count the stall before this tick, if any, as silence of these clients.

        The first late tick also leaves each client time for its waiting datagrams to be read; if
        every late tick did, a busy server would never time a client out.
        """
        stood_still = now - self._ticked_at - STALL
        self._ticked_at = now
        is_first = not self._was_late
        self._was_late = stood_still > 0
        if not self._was_late:
            return
        for connection in connections:
            heard_at = connection.heard_at + stood_still
            if is_first:
                heard_at = max(heard_at, now + CATCH_UP - connection.timeout)
            connection.heard_at = min(heard_at, now)
            connection.payload_at = min(connection.payload_at + stood_still, now)
        for half in half_open:
            half.lapses_at += stood_still
