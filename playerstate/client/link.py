"""Links, which carry one player's messages over any transport, and the UDP port they use."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import DatagramProtocol

from playerstate.client.core import Client
from playerstate.wire.messages import Malformed

Address = tuple[str, int]
"""IP address and port."""

RECEIVE_BUFFER = 2**20
"""Bytes of the receive buffer that is requested; many players may share a port."""


class Link:
    """Carries one player's messages to a server and back.

    It is opened when the player joins and closed when the player is gone, and may be opened again
    then.  In between, the owner calls `turn` some 20 times a second.  Messages may be lost.

    All times are seconds on a clock that never steps.

    Args:
        client: the player's conversation.

    Attributes:
        client: that conversation.
        notify: called after an event from outside (a datagram, a token, a failure to get one) may
            have changed the conversation's phase.  The link is in a consistent state then, and may
            be called.  It is not called for changes during the owner's own calls: the owner checks
            the phase when they return.
        was_heard: whether a message of a server ever arrived.
        trouble: the local error that ended the game, such as that no port is free; else None.
    """

    notify: Callable[[], object]

    def __init__(self, client: Client) -> None:
        self.client = client
        self.notify = _ignore
        self.was_heard = False
        self.trouble: Exception | None = None

    def open(self, now: float) -> None:
        """Open the link; if that fails, the conversation ends, and `trouble` has the error."""
        raise NotImplementedError

    def send(self, message: bytes, now: float) -> None:
        """Send a message."""
        raise NotImplementedError

    def reconnect(self, now: float) -> None:
        """Open another path to the server: the old one may be dead, as after a sleep.

        The conversation continues if the server still has it; otherwise the client joins again.
        Does nothing if the link is not open.
        """
        raise NotImplementedError

    def close(self, now: float) -> Deferred[Any]:
        """Close the link; the Deferred fires when its ports are closed.  Harmless if closed."""
        raise NotImplementedError

    def turn(self, now: float) -> None:
        """Send the messages that are due."""
        for message in self.client.due(now):
            self.send(message, now)

    def move(self, values: tuple[Any, ...], now: float) -> None:
        """Send the player's state, as accepted packed values; allowed from `join` to `leave`."""
        message = self.client.move(values, now)
        if message is not None:
            self.send(message, now)

    def take(self, message: bytes, now: float) -> None:
        """Receive a message; a malformed one is ignored."""
        try:
            self.client.received(message, now)
        except Malformed:
            return
        self.was_heard = True
        if self.client.wake_at <= now:
            self.turn(now)

    def fail(self, trouble: Exception) -> None:
        """End the game because of a local error."""
        self.trouble = trouble
        self.client.end()


def _ignore() -> None:
    """The `notify` of a link without an owner."""


class Port(DatagramProtocol):
    """A UDP port with any free number, opened by the constructor.

    The socket is not connected: if the server is not up yet, Twisted's epoll reactor would close a
    connected one on the ICMP error.

    Args:
        reactor: provides ``IReactorUDP``.
        host: an IP address; the port is of the same family, IPv4 or IPv6.
        received: called with each datagram and its sender's address.

    Raises:
        twisted.internet.error.CannotListenError: no port can be opened.
    """

    noisy = False

    def __init__(self, reactor: Any, host: str, received: Callable[[bytes, Address], None]) -> None:
        self._received = received
        self.is_ipv6 = ":" in host
        self._port = reactor.listenUDP(0, self, "::" if self.is_ipv6 else "0.0.0.0")
        self._port.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def send(self, datagram: bytes, address: Address) -> None:
        """Send a datagram; one that the system refuses is lost, as any datagram may be."""
        with suppress(OSError):
            self._port.write(datagram, address)

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """Receive a datagram."""
        self._received(datagram, address[:2])

    def close(self) -> Deferred[Any]:
        """Close the port; the Deferred fires when it is closed."""
        return maybeDeferred(self._port.stopListening)
