"""Between Twisted's UDP and the core: adds a datagram's source and its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from playerstate.transports.netcode.connections import Source
from playerstate.transports.recvmmsg import BatchProtocol

Receive = Callable[[list[bytes], list[Source], float], None]


class NetcodeProtocol(BatchProtocol):
    """Carries datagrams between one UDP port and a netcode server.

    Args:
        seconds: the time, on a clock that never steps.

    Attributes:
        receive: called with datagrams that were read together; set before the reactor reads any.
    """

    receive: Receive

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    def datagrams_received(self, datagrams: list[bytes], addresses: list[Any]) -> None:
        """See `BatchProtocol`."""
        sources: list[Source] = [
            (address[0], address[1], self if len(address) == 2 else Route(self, address[2:]))
            for address in addresses
        ]
        self.receive(datagrams, sources, self._seconds())

    def transmit(self, datagram: bytes, host: str, port: int, rest: tuple[Any, ...] = ()) -> None:
        """Send a datagram; `rest` holds what an address has beside host and port.

        Raises:
            OSError: the system does not accept it.
        """
        self._write(datagram, (host, port, *rest))


@attrs.frozen
class Route:
    """A protocol, and what an address has beside host and port; compared by value."""

    protocol: NetcodeProtocol
    rest: tuple[Any, ...]

    def transmit(self, datagram: bytes, host: str, port: int) -> None:
        """See `NetcodeProtocol.transmit`."""
        self.protocol.transmit(datagram, host, port, self.rest)
