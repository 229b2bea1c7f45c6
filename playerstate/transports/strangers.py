"""Datagrams of senders who are not in yet: they wait, and are let in by turns of their sources.

Letting a player in costs a hundred times what a move does, so a flood of such datagrams would leave
no time for the players who are in.  A transport hands over together what came together.  It waits
here in line with what came from the same network, and in it with what came from the same port.
Each line has its turn, whatever its length, so that a long one delays itself alone; what a line has
no room for is dropped, unread.

Networks and ports are spread over a fixed number of lines, by a hash that a sender cannot compute.
Where datagrams of many sources come together, chance says whose are looked at.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

NETWORKS, PORTS = 256, 16
"""Lines of networks, and of ports in each."""
ROOM = 1_024
"""Datagrams that wait, divided among the lines there are.  A line that was there before the others
may keep what it has: together they hold some twelve times that, however they come."""
SOURCES_AT_ONCE = 8
"""Of so many sources datagrams are taken up that came together; the others' are dropped.  To find a
line costs what reading two datagrams does."""

Source = tuple[Any, ...]
"""Where a datagram came from: an IP address, a port, and what the transport has beside them."""


class Strangers:
    """What waits to be let in.  Reactor thread only.

    Args:
        secret: random bytes.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = os.urandom(16) if secret is None else secret
        self._random = random.Random(self._secret)
        self._networks: dict[int, dict[int, deque[tuple[Source, bytes]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def put(self, sources: Sequence[Source], datagrams: Sequence[bytes]) -> int:
        """Have datagrams wait that came together, each in the line of its source.

        Args:
            sources: where each came from.
            datagrams: themselves; at least one.

        Returns:
            How many there was no room for.
        """
        by_source: dict[Source, Sequence[bytes]] = {sources[0]: datagrams}
        if sources.count(sources[0]) != len(sources):
            lists: dict[Source, list[bytes]] = {}
            for source, datagram in zip(sources, datagrams, strict=True):
                lists.setdefault(source, []).append(datagram)
            by_source = dict(lists)
        chosen: Iterable[Source] = by_source
        if len(by_source) > SOURCES_AT_ONCE:
            chosen = self._draw(by_source)
        return len(datagrams) - sum(self._put(source, by_source[source]) for source in chosen)

    def _draw(self, sources: Iterable[Source]) -> list[Source]:
        """Some of the sources: one of each network, or of some by chance; then others of theirs."""
        networks: dict[str, list[Source]] = {}
        for source in sources:
            networks.setdefault(network_of(source[0]), []).append(source)
        drawn = list(networks)
        if len(drawn) > SOURCES_AT_ONCE:
            drawn = self._random.sample(drawn, SOURCES_AT_ONCE)
        each = SOURCES_AT_ONCE // len(drawn)
        return [
            source
            for network in drawn
            for source in self._random.sample(networks[network], min(each, len(networks[network])))
        ]

    def _put(self, source: Source, datagrams: Sequence[bytes]) -> int:
        """Have datagrams of one source wait; return how many there was room for."""
        network_key = hash(self._secret + network_of(source[0]).encode()) % NETWORKS
        ports = self._networks.setdefault(network_key, {})
        port_key = hash(self._secret + source[1].to_bytes(2)) % PORTS
        line = ports.setdefault(port_key, deque())
        room = max(1, ROOM // (len(self._networks) * len(ports))) - len(line)
        if room <= 0:
            return 0
        line.extend((source, datagram) for datagram in islice(datagrams, room))
        return min(room, len(datagrams))

    def take(self) -> tuple[Source, bytes]:
        """The first of the line whose turn it is.

        Raises:
            StopIteration: there is none.
        """
        network_key = next(iter(self._networks))
        ports = self._networks.pop(network_key)
        port_key = next(iter(ports))
        line = ports.pop(port_key)
        waiting = line.popleft()
        if line:
            ports[port_key] = line
        if ports:
            self._networks[network_key] = ports
        return waiting


def network_of(host: str) -> str:
    """What a source is told by: an IPv4 address, or the first half of an IPv6 one as written.

    A customer is commonly given a whole /64; addresses that are written with zeros left out are
    told more finely, and share no line with others for it.
    """
    if ":" not in host or "." in host:
        return host
    return ":".join(host.split(":", 4)[:4])
