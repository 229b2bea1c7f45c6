"""Clients whose port changes: the connections that a packet from an unknown port may belong to.

A router that translates addresses may give a client another port in the middle of a connection.
The server then receives nothing from the old port, and packets from a new one, which open under the
keys of that connection and are newer than all before.  Trying keys costs time, and any sender can
provoke it, so little is tried: connections of the very address that the packet came from, which
have been silent for some time, a few for each packet, and a limited number of packets a second.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from playerstate.transports.netcode.addresses import network_of
from playerstate.transports.netcode.connections import Connection, Source
from playerstate.transports.netcode.limits import Buckets, Rate, SourceBuckets

SILENT_FOR = 1.0
"""Seconds without a good packet after which a connection may move to another port; a client sends
ten packets a second."""
TRIED = 4
"""Connections whose keys are tried on one packet."""
LOOKED_AT = 16
"""Connections examined to find those; the next packet's search continues where this one ends."""
MAX_AHEAD = 2**16
"""How far ahead the packet's number may be; no client sends more in the longest time-out."""
RATE = Rate(2_000.0, 2_000)
"""Packets tried, of all addresses: some 5 µs each, so 1 % of a core."""
SOURCE_RATE = Rate(50.0, 100)
"""Packets tried from one network."""
SOURCE_BUCKETS = 2**12
"""Buckets that networks are hashed to."""


class Roaming:
    """The connections of one server, by their clients' addresses without the port.

    Args:
        random_bytes: returns so many random bytes.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._by_host: dict[tuple[str, Any], OrderedDict[Connection, None]] = {}
        self._all = Buckets(RATE)
        self._by_source = SourceBuckets(SOURCE_RATE, SOURCE_BUCKETS, random_bytes(16))

    def add(self, connection: Connection) -> None:
        """Add a connection that began."""
        host, _, route = connection.source
        self._by_host.setdefault((host, route), OrderedDict())[connection] = None

    def remove(self, connection: Connection) -> None:
        """Remove a connection that ended."""
        host, _, route = connection.source
        connections = self._by_host[host, route]
        del connections[connection]
        if not connections:
            del self._by_host[host, route]

    def silent(self, source: Source, now: float) -> list[Connection]:
        """A few silent connections whose client may have moved to this source."""
        connections = self._by_host.get((source[0], source[2]))
        return [] if connections is None else list(_take_silent(connections, now))

    def take(self, source: Source, now: float) -> bool:
        """Charge a packet to the rate limits; return whether it may be tried."""
        return self._by_source.take(now, network_of(source[0])) and self._all.take(now)


def is_silent(connection: Connection, now: float) -> bool:
    """Whether a connection is silent for so long that its client may have moved."""
    return connection.heard_at + SILENT_FOR <= now


def may_be_next(connection: Connection, sequence: int) -> bool:
    """Whether the number can follow those received on this connection."""
    return 0 < sequence - connection.window.newest <= MAX_AHEAD


def _take_silent(connections: OrderedDict[Connection, None], now: float) -> Iterator[Connection]:
    found = 0
    for _ in range(min(len(connections), LOOKED_AT)):
        connection = next(iter(connections))
        connections.move_to_end(connection)
        if is_silent(connection, now):
            yield connection
            found += 1
            if found == TRIED:
                return
