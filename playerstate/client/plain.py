"""The client's end of the plain transport: a datagram is a session id, a nonce and a message."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError

from playerstate.arguments import check_session_id, check_whole, shown
from playerstate.client.core import Client
from playerstate.client.link import Address, Link, Port

_HEAD = struct.Struct("<QI")


def _server(given: Any) -> Address:
    """A server's address, in the form in which the system reports a datagram's sender."""
    try:
        host, port = given
        ip = str(ip_address(host if isinstance(host, str) else ""))
    except (TypeError, ValueError):
        raise ValueError(
            f"server {shown(given)} is no IP address and port, such as ('127.0.0.1', 7777); look"
            " a name up first"
        ) from None
    return ip, check_whole("port of the server", port, 1, 65_535)


@attrs.frozen
class Plain:
    """Plain UDP, for loopback and trusted networks.

    Attributes:
        server: its IP address and port.
        session_id: the player's, from 1 to 2^63 - 1.

    Raises:
        TypeError: the session id or the port is not a whole number.
        ValueError: one of them is out of range, or the host is not an IP address.
    """

    server: Address = attrs.field(converter=_server)
    session_id: int = attrs.field(converter=check_session_id)

    def link(self, client: Client, reactor: Any, seconds: Callable[[], float]) -> PlainLink:
        """A link with a port of its own."""
        return PlainLink(client, PlainPort(self.server, reactor, seconds), self.session_id)


class PlainPort:
    """A UDP port that any number of players share, open while at least one of their links is.

    Args:
        server: IP address and port.
        reactor: provides ``IReactorUDP``.
        seconds: the time, on a clock that never steps.
    """

    def __init__(self, server: Address, reactor: Any, seconds: Callable[[], float]) -> None:
        self._server = server
        self._reactor = reactor
        self._seconds = seconds
        self._links: dict[int, PlainLink] = {}
        self._port: Port | None = None

    def add(self, session_id: int, link: PlainLink) -> None:
        """Carry a player's messages from now on.

        Raises:
            twisted.internet.error.CannotListenError: no port can be opened.
        """
        if self._port is None:
            self._port = Port(self._reactor, self._server[0], self._received)
        self._links[session_id] = link

    def remove(self, session_id: int) -> Deferred[Any]:
        """Stop carrying a player's messages.

        Returns:
            A Deferred that fires when the port is closed, if this was the last player; else at
            once.
        """
        self._links.pop(session_id, None)
        port = self._port
        if self._links or port is None:
            return succeed(None)
        self._port = None
        return port.close()

    def send(self, session_id: int, nonce: int, message: bytes) -> None:
        """Send a player's message; does nothing if no port is open."""
        if self._port is not None:
            self._port.send(_HEAD.pack(session_id, nonce) + message, self._server)

    def reopen(self) -> None:
        """Replace the port by another, for all players.

        Raises:
            twisted.internet.error.CannotListenError: no port can be opened; the old one stays open.
        """
        before = self._port
        if before is not None:
            self._port = Port(self._reactor, self._server[0], self._received)
            before.close()

    def _received(self, datagram: bytes, source: Address) -> None:
        if source != self._server or len(datagram) < _HEAD.size:
            return
        session_id, nonce = _HEAD.unpack_from(datagram)
        link = self._links.get(session_id)
        if link is not None and link.client.nonce == nonce:
            link.take(datagram[_HEAD.size :], self._seconds())
            link.notify()


class PlainLink(Link):
    """Carries one player's messages, each after the session id and the nonce."""

    def __init__(self, client: Client, port: PlainPort, session_id: int) -> None:
        super().__init__(client)
        self._port = port
        self._session_id = session_id

    def open(self, now: float) -> None:
        """See `Link`."""
        self.trouble = None
        try:
            self._port.add(self._session_id, self)
        except CannotListenError as error:
            return self.fail(error)
        self.turn(now)

    def send(self, message: bytes, now: float) -> None:
        """See `Link`."""
        self._port.send(self._session_id, self.client.nonce, message)

    def reconnect(self, now: float) -> None:
        """See `Link`."""
        try:
            self._port.reopen()
        except CannotListenError as error:
            return self.fail(error)
        self.client.reconnect(now)
        self.turn(now)

    def close(self, now: float) -> Deferred[Any]:
        """See `Link`."""
        return self._port.remove(self._session_id)
