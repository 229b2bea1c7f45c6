"""A path to a netcode server: one connection, on a UDP port of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from playerstate.client.link import Address, Port
from playerstate.transports.netcode.client import Client as Connection
from playerstate.transports.netcode.client import State


class Path:
    """A connection, and its port, which is opened when the first datagram is sent.

    Args:
        reactor: provides ``IReactorUDP``.
        connection: a connection that has sent nothing yet.
        received: called with this path, each datagram, and its sender's address.
    """

    def __init__(
        self,
        reactor: Any,
        connection: Connection,
        received: Callable[[Path, bytes, Address], None],
    ) -> None:
        self.connection = connection
        self._reactor = reactor
        self._received = received
        self._port: Port | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether the client is connected."""
        return self.connection.state == State.CONNECTED

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended or failed."""
        return self.connection.state <= State.DISCONNECTED

    def write(self, datagram: bytes) -> None:
        """Send to the connection's present server; the token's servers may mix IPv4 and IPv6.

        Raises:
            CannotListenError: no port can be opened.
        """
        server = self.connection.server
        if self._port is not None and self._port.is_ipv6 != (":" in server[0]):
            self._port.close()
            self._port = None
        if self._port is None:
            self._port = Port(self._reactor, server[0], self._take)
        self._port.send(datagram, server)

    def close(self) -> Deferred[Any]:
        """Receive nothing more, and close the port; the Deferred fires when it is closed."""
        self._is_closed = True
        port, self._port = self._port, None
        return succeed(None) if port is None else port.close()

    def _take(self, datagram: bytes, source: Address) -> None:
        if not self._is_closed:
            self._received(self, datagram, source)
