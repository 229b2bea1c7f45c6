"""The player's end of the netcode transport: one connection after the other, each by a token.

A connection that is lost takes the conversation with it: for the server the player has left.  So
the next connection, which needs a token of its own, begins with another JOIN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from playerstate.client.core import Client
from playerstate.client.line import Address, Line, Port
from playerstate.messages import Refused, RefusedReason
from playerstate.transports.netcode.client import Client as Connection
from playerstate.transports.netcode.client import State

AGAIN_AFTER = 0.5
"""Seconds from the end of a connection to the request for the next token: neither the server nor
the login service is to be rushed at by everybody who was just disconnected."""

GetToken = Callable[[], "bytes | Deferred[bytes]"]


@attrs.frozen
class Netcode:
    """netcode 1.02, for the internet.

    Attributes:
        get_token: a fresh connect token, 2,048 bytes, or a Deferred of it.  It is called for each
            connection, for a token opens one.  What it raises ends the player's game; where it is
            worth another try, that is for this function to do.
    """

    get_token: GetToken

    def line(self, client: Client, reactor: Any, seconds: Callable[[], float]) -> NetcodeLine:
        """A line with a port of its own."""
        return NetcodeLine(client, reactor, seconds, self.get_token)


class NetcodeLine(Line):
    """One player's messages, a payload each, on connections of its own.

    Args:
        client: the player's conversation.
        reactor: provides ``IReactorUDP`` and ``IReactorTime``.
        seconds: the time, on a clock that never steps.
        get_token: see `Netcode`.
    """

    def __init__(
        self, client: Client, reactor: Any, seconds: Callable[[], float], get_token: GetToken
    ) -> None:
        super().__init__(client)
        self._reactor = reactor
        self._seconds = seconds
        self._get_token = get_token
        self._connection: Connection | None = None
        self._port: Port | None = None
        self._asked: Deferred[Any] = succeed(None)
        self._again: Any = None
        self._is_open = False

    def open(self, now: float) -> None:
        """See `Line`."""
        self.trouble = None
        self._is_open = True
        self._ask_for_token()

    def turn(self, now: float) -> None:
        """Send what is due, of the conversation and of the connection under it."""
        connection = self._connection
        if connection is None:
            return
        if connection.state == State.CONNECTED:
            super().turn(now)
            if self._connection is not connection:
                return  # there is no port to be had, and all is over
        datagram = connection.due(now)
        if datagram is not None:
            self._write(datagram, connection.server)
        elif connection.state <= State.DISCONNECTED:
            self._lost(connection.state)

    def send(self, message: bytes, now: float) -> None:
        """See `Line`; between two connections everything is lost."""
        connection = self._connection
        if connection is not None and connection.state == State.CONNECTED:
            self._write(connection.send(message, now), connection.server)

    def reconnect(self, now: float) -> None:
        """See `Line`; by a connection of a fresh token, which begins with another JOIN.

        Where the end of the old one does not reach the server, that keeps the new one waiting until
        the old one has timed out there.
        """
        if self._again is None and self._connection is None:
            return  # a token is asked for already, or nothing is open
        self._disconnect(now)
        self._ask_for_token()

    def close(self, now: float) -> Deferred[Any]:
        """See `Line`; the server is told."""
        self._is_open = False
        self._asked.cancel()
        return self._disconnect(now)

    def _disconnect(self, now: float) -> Deferred[Any]:
        """End the connection and tell the server, or let go of the next one."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._connection is not None:
            for datagram in self._connection.disconnect(now):
                self._write(datagram, self._connection.server)
        return self._hang_up()

    def _ask_for_token(self) -> None:
        self._again = None
        self._asked = maybeDeferred(self._get_token)
        self._asked.addCallback(self._connect).addErrback(self._failed)

    def _connect(self, token: bytes) -> None:
        now = self._seconds()
        self._connection = Connection(token, now)
        self.turn(now)

    def _failed(self, failure: Failure) -> None:
        if self._is_open:  # else it is the end of the waiting, and nobody waits
            error = failure.value
            self.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _received(self, datagram: bytes, source: Address) -> None:
        connection = self._connection
        if connection is None:
            return
        now = self._seconds()
        was_in = connection.state == State.CONNECTED
        message = connection.receive(datagram, source, now)
        if message is not None:
            self.take(message, now)
        elif connection.state <= State.DISCONNECTED:
            self._lost(connection.state)
        elif connection.state == State.CONNECTED and not was_in:
            self.client.rejoin(now)
            self.turn(now)

    def _lost(self, state: State) -> None:
        self._hang_up()
        if state == State.DENIED:
            self.client.end(Refused(0, RefusedReason.FULL))
            self.told()
        else:
            self._again = self._reactor.callLater(AGAIN_AFTER, self._ask_for_token)

    def _hang_up(self) -> Deferred[Any]:
        self._connection = None
        port, self._port = self._port, None
        return succeed(None) if port is None else port.close()

    def _write(self, datagram: bytes, server: Address) -> None:
        """Send to this one of the token's servers, which need not be of one kind of address."""
        if self._port is not None and self._port.is_ipv6 != (":" in server[0]):
            self._port.close()
            self._port = None
        if self._port is None:
            try:
                self._port = Port(self._reactor, server[0], self._received)
            except CannotListenError as error:
                self._connection = None
                return self.fail(error)
        self._port.send(datagram, server)
