"""Between Twisted's UDP and the core: whence a datagram came, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from playerstate.transports.netcode.connections import Source

Receive = Callable[[bytes, Source, float], None]


class NetcodeProtocol(DatagramProtocol):
    """Carries datagrams between one UDP port and a netcode server.

    Args:
        seconds: the time, on a clock that never steps.

    Attributes:
        receive: takes each datagram; set before the reactor can bring one.
    """

    noisy = False
    receive: Receive

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    def startProtocol(self) -> None:
        """The port is bound."""
        assert self.transport is not None
        self._write = self.transport.write

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """A datagram came in."""
        self.receive(datagram, (address[0], address[1], self), self._seconds())

    def transmit(self, datagram: bytes, host: str, port: int) -> None:
        """Send a datagram.

        Raises:
            OSError: the system will not take it.
        """
        self._write(datagram, (host, port))
