"""The player's end of the plain transport: many players over one UDP port."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from playerstate.client import Client
from playerstate.messages import Malformed

_ID = struct.Struct("<Q")


class PlainClients(DatagramProtocol):
    """Carries the messages of many players, each behind its session id.

    Args:
        clients: the players, by session id; one may be added or taken out at any time.
        address: IP address and port of the server.
        seconds: the time, on a clock that never steps.

    Attributes:
        clients: the players.
        heard: whether the server ever said anything to one of them.
    """

    def __init__(
        self, clients: dict[int, Client], address: tuple[str, int], seconds: Callable[[], float]
    ) -> None:
        self.clients = clients
        self.heard = False
        self._server = address
        self._seconds = seconds

    def startProtocol(self) -> None:
        """The port is bound."""
        # Not connected to the server: Twisted's epoll reactor would take the ICMP error of a server
        # that is not there yet for the end of the port.
        assert self.transport is not None
        self._write = self.transport.write

    def send(self, session_id: int, message: bytes) -> None:
        """Send a player's message; what the system will not take is lost, as on the way."""
        with suppress(OSError):
            self._write(_ID.pack(session_id) + message, self._server)

    def speak(self, session_id: int, now: float) -> None:
        """Send what is due of a player."""
        for message in self.clients[session_id].due(now):
            self.send(session_id, message)

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """A datagram came in; what makes no sense is passed over."""
        if address[:2] != self._server or len(datagram) < _ID.size:
            return
        session_id = _ID.unpack_from(datagram)[0]
        client = self.clients.get(session_id)
        if client is None:
            return
        now = self._seconds()
        try:
            client.received(datagram[_ID.size :], now)
        except Malformed:
            return
        self.heard = True
        if client.wake_at <= now:
            self.speak(session_id, now)
