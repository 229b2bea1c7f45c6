"""What carries one player's messages, whatever the transport; and a UDP port to carry them on."""

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
"""Bytes asked of the system for what waits to be read; many players may share a port."""


class Link:
    """Carries one player's messages to a server and back.

    It is opened when the player joins and closed when the player is gone, and may be opened again
    then.  In between `turn` is to be called some 20 times a second.  What it sends may be lost.

    All times are seconds on a clock that never steps.

    Args:
        client: the player's conversation.

    Attributes:
        client: that conversation.
        notify: called when something came by itself (a datagram, a token, or that there is none)
            and the conversation may have come further.  The link has done its work then, and may be
            called.  How far it came by a call of its owner, the owner looks for when that returns.
        was_heard: whether a server ever said anything.
        trouble: what kept the player from playing on and came from no server; else None.
    """

    notify: Callable[[], object]

    def __init__(self, client: Client) -> None:
        self.client = client
        self.notify = _nobody
        self.was_heard = False
        self.trouble: Exception | None = None

    def open(self, now: float) -> None:
        """Begin; where that cannot be done, the conversation ends, and `trouble` says why."""
        raise NotImplementedError

    def send(self, message: bytes, now: float) -> None:
        """Send a message."""
        raise NotImplementedError

    def reconnect(self, now: float) -> None:
        """Go on by another way: what led to the server may be no more, as after a sleep.

        The conversation goes on where the server still has it, else the client joins again.
        Nothing where the link is not open.
        """
        raise NotImplementedError

    def close(self, now: float) -> Deferred[Any]:
        """End; the Deferred fires when no port is open any more.  Harmless if it was closed."""
        raise NotImplementedError

    def turn(self, now: float) -> None:
        """Send what is due."""
        for message in self.client.due(now):
            self.send(message, now)

    def move(self, values: tuple[Any, ...], now: float) -> None:
        """Send where the player stands now, in accepted packed values; from `join` to `leave`."""
        message = self.client.move(values, now)
        if message is not None:
            self.send(message, now)

    def take(self, message: bytes, now: float) -> None:
        """Take in what came; what makes no sense is passed over."""
        try:
            self.client.received(message, now)
        except Malformed:
            return
        self.was_heard = True
        if self.client.wake_at <= now:
            self.turn(now)

    def fail(self, trouble: Exception) -> None:
        """The player cannot play on."""
        self.trouble = trouble
        self.client.end()


def _nobody() -> None:
    """Nobody is notified."""


class Port(DatagramProtocol):
    """A UDP port with any number that is free, open as soon as this is made.

    It is not connected to the server: Twisted's epoll reactor would take the ICMP error of a server
    that is not there yet for the end of the port.

    Args:
        reactor: provides ``IReactorUDP``.
        host: an IP address of the kind that it is to reach.
        received: is called with each datagram that comes in, and its sender's address.

    Raises:
        twisted.internet.error.CannotListenError: there is none to be had.
    """

    noisy = False

    def __init__(self, reactor: Any, host: str, received: Callable[[bytes, Address], None]) -> None:
        self._received = received
        self.is_ipv6 = ":" in host
        self._port = reactor.listenUDP(0, self, "::" if self.is_ipv6 else "0.0.0.0")
        self._port.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def send(self, datagram: bytes, address: Address) -> None:
        """Send a datagram; what the system will not take is lost, as on the way."""
        with suppress(OSError):
            self._port.write(datagram, address)

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """A datagram came in."""
        self._received(datagram, address[:2])

    def close(self) -> Deferred[Any]:
        """Close it; the Deferred fires when that is done."""
        return maybeDeferred(self._port.stopListening)
