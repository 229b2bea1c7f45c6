"""Datagrams of strangers: fair queues, from which they are admitted by turns of their sources.

Admitting a player costs a hundred times what a move does, so a flood of such datagrams would leave
no time for the players online.  A transport passes on together the datagrams that it read together.
Each waits in the queue of its network, and there in the queue of its port.  The queues take turns,
whatever their lengths, so that a long one delays only itself; datagrams for which a queue has no
room are dropped, unread.

Networks and ports are spread over a fixed number of queues by a keyed hash, which a sender cannot
compute.  If datagrams of many sources are read together, the sources to queue are drawn at random.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

NETWORKS, PORTS = 256, 16
"""Queues of networks, and of ports in each."""
ROOM = 1_024
"""Datagrams that wait, divided among the present queues.  A queue keeps what it has when others are
added: together they hold some twelve times that, in any order of arrival."""
SOURCES_AT_ONCE = 8
"""Sources whose datagrams are queued, of those read together; the others' are dropped.  Finding a
queue costs as much as reading two datagrams."""

Source = tuple[Any, ...]
"""Where a datagram came from: an IP address, a port, and what the transport has beside them."""


class Strangers:
    """The datagrams that wait to be admitted.  Reactor thread only.

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
        """Queue datagrams that were read together, each in the queue of its source.

        Args:
            sources: the source of each.
            datagrams: at least one.

        Returns:
            How many were dropped.
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
        """Draw sources at random: an equal share of each network, or one each of some networks."""
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
        """Queue datagrams of one source; return how many there was room for."""
        network_key = hash(self._secret + network_of(source[0]).encode()) % NETWORKS
        ports = self._networks.setdefault(network_key, {})
        port_key = hash(self._secret + source[1].to_bytes(2)) % PORTS
        queue = ports.setdefault(port_key, deque())
        room = max(1, ROOM // (len(self._networks) * len(ports))) - len(queue)
        if room <= 0:
            return 0
        queue.extend((source, datagram) for datagram in islice(datagrams, room))
        return min(room, len(datagrams))

    def take(self) -> tuple[Source, bytes]:
        """Remove and return the first datagram of the queue whose turn it is.

        Raises:
            StopIteration: no datagram waits.
        """
        network_key = next(iter(self._networks))
        ports = self._networks.pop(network_key)
        port_key = next(iter(ports))
        queue = ports.pop(port_key)
        waiting = queue.popleft()
        if queue:
            ports[port_key] = queue
        if ports:
            self._networks[network_key] = ports
        return waiting


def network_of(host: str) -> str:
    """The network of a source: an IPv4 address, or the first half of an IPv6 one as written.

    By the text alone, which costs little, since it is asked for each datagram of a flood.  One
    customer commonly has a whole /64.  Addresses written with zeros left out are divided more
    finely; that only gives them more queues, shared with no other network.
    """
    if ":" not in host or "." in host:
        return host
    return ":".join(host.split(":", 4)[:4])
