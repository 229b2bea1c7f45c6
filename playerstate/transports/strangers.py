"""Datagrams of senders who are not in yet: they wait, and are taken by turns of their sources.

Letting a player in costs ten to a hundred times what a move does, so a flood of such datagrams
would leave no time for the players who are in.  A transport takes those first.  Of the others it
takes a few in each turn of the reactor; the rest wait here, in line with what came from the same
network, and in it with what came from the same port.  Each line has its turn, whatever its length,
so that a long one delays itself alone; what a line has no room for is dropped, unread.

Networks and ports are spread over a fixed number of lines, by a hash that a sender cannot compute.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Generic, TypeVar

NETWORKS, PORTS = 256, 64
"""Lines of networks, and of ports in each."""
ROOM = 1_024
"""Datagrams that wait, divided among the lines there are.  A line that was there before the others
may keep what it has: together they hold some thirty times that, however they come."""

T = TypeVar("T")


class Strangers(Generic[T]):
    """What waits to be let in.  Reactor thread only.

    Args:
        secret: random bytes.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = os.urandom(16) if secret is None else secret
        self._networks: dict[int, dict[int, deque[T]]] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def put(self, host: str, port: int, item: T) -> bool:
        """Have one wait in the line of its source; whether there was room."""
        network_key = hash(self._secret + network_of(host).encode()) % NETWORKS
        ports = self._networks.get(network_key)
        if ports is None:
            ports = self._networks[network_key] = {}
        port_key = hash(self._secret + port.to_bytes(2)) % PORTS
        line = ports.get(port_key)
        if line is None:
            line = ports[port_key] = deque()
        if len(line) >= max(1, ROOM // (len(self._networks) * len(ports))):
            return False
        line.append(item)
        return True

    def take(self) -> T:
        """The first of the line whose turn it is.

        Raises:
            StopIteration: there is none.
        """
        network_key = next(iter(self._networks))
        ports = self._networks.pop(network_key)
        port_key = next(iter(ports))
        line = ports.pop(port_key)
        item = line.popleft()
        if line:
            ports[port_key] = line
        if ports:
            self._networks[network_key] = ports
        return item


def network_of(host: str) -> str:
    """What a source is told by: an IPv4 address, or the first half of an IPv6 one as written.

    A customer is commonly given a whole /64; addresses that are written with zeros left out are
    told more finely, and share no line with others for it.
    """
    if ":" not in host or "." in host:
        return host
    return ":".join(host.split(":", 4)[:4])
