"""The client's end of the netcode transport: one connection after another, each with a token.

When a connection is lost, the conversation ends: for the server the player has left.  So the next
connection, which needs another token, begins with another JOIN.

If a server falls silent, perhaps only the old path is dead.  So another token is requested long
before the time-out, and used from another port.  The old connection is kept until the server
answers there: if a packet arrives on it before that, the attempt is dropped.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from playerstate.client.core import Client
from playerstate.client.link import Address, Link
from playerstate.client.path import Path
from playerstate.transports.netcode.client import Client as Connection
from playerstate.transports.netcode.client import State
from playerstate.wire.messages import Refused, RefusedReason

AGAIN_AFTER = 0.5
"""Seconds from the end of a connection to the request for the next token, so that clients
disconnected together do not all hit the server and the login service at once."""
SILENT_FOR = 1.5
"""Seconds without a packet of the server, which sends ten a second, after which another path is
tried; a server needs 1 to find a client whose port has changed."""
SPREAD = 1.0
"""The jitter: up to so many seconds are added to each of these waits, drawn anew with each token.
A server falls silent for all of its clients at once, and their requests must not come at once."""
AGAIN_AT_MOST = 8.0
"""The longest backoff between two token requests while the server is silent, without `SPREAD`."""
LATE = 0.5
"""Seconds between two turns above which the process counts as stalled."""

GetToken = Callable[[], "bytes | Deferred[bytes]"]


@attrs.frozen
class Netcode:
    """netcode 1.02, for the internet.

    Attributes:
        get_token: returns a fresh connect token, 2,048 bytes, or a Deferred of one.  It is called
            for each connection, since a token opens only one.  An error that it raises ends the
            player's game, unless an old connection still exists; retries are up to this function.
        jitter: returns a number from 0 to 1, to spread the token requests of many clients over
            time.
    """

    get_token: GetToken = attrs.field(validator=attrs.validators.is_callable())
    jitter: Callable[[], float] = random.random

    def link(self, client: Client, reactor: Any, seconds: Callable[[], float]) -> NetcodeLink:
        """A link with a port of its own."""
        return NetcodeLink(client, reactor, seconds, self.get_token, self.jitter)


class NetcodeLink(Link):
    """Carries one player's messages, one a payload, on connections of its own.

    Args:
        client: the player's conversation.
        reactor: provides ``IReactorUDP`` and ``IReactorTime``.
        seconds: the time, on a clock that never steps.
        get_token, jitter: see `Netcode`.
    """

    def __init__(
        self,
        client: Client,
        reactor: Any,
        seconds: Callable[[], float],
        get_token: GetToken,
        jitter: Callable[[], float],
    ) -> None:
        super().__init__(client)
        self._reactor = reactor
        self._seconds = seconds
        self._get_token = get_token
        self._jitter = jitter
        self._spread = 0.0
        self._path: Path | None = None
        self._next: Path | None = None  # only beside a path that is connected and silent
        self._asked: Deferred[Any] = succeed(None)
        self._again: Any = None
        self._again_after = AGAIN_AFTER
        self._turned_at = 0.0
        self._was_late = self._is_forced = self._is_open = False

    def open(self, now: float) -> None:
        """See `Link`."""
        self.trouble = None
        self._is_open = True
        self._is_forced = False
        self._again_after = AGAIN_AFTER
        self._turned_at = now
        self._ask_for_token()

    def reconnect(self, now: float) -> None:
        """See `Link`; requests a token at once, and drops any pending request."""
        if not self._is_open:
            return
        if self._next is not None:
            self._let_go_of_next()
        if self._path is not None and not self._path.is_connected:
            self._path.close()
            self._path = None
        self._is_forced = True
        self._ask_for_token()

    def turn(self, now: float) -> None:
        """Send the messages and the netcode packets that are due."""
        if self._is_late(now):
            return  # read what waits in the sockets first
        path = self._path
        if path is None:
            return
        if path.is_connected:
            super().turn(now)
            self._look_for_silence(now)
        for each in (path, self._next):
            if each is not None and each in (self._path, self._next):
                self._turn_path(each, now)

    def send(self, message: bytes, now: float) -> None:
        """See `Link`; between two connections, messages are lost."""
        path = self._path
        if path is not None and path.is_connected:
            self._write(path, path.connection.send(message, now))

    def close(self, now: float) -> Deferred[Any]:
        """See `Link`; sends the server disconnect packets."""
        self._is_open = False
        self._stop_asking()
        path, following = self._path, self._next
        if path is not None:
            for datagram in path.connection.disconnect(now):
                self._write(path, datagram)
        self._path = self._next = None
        return DeferredList([each.close() for each in (path, following) if each is not None])

    def _is_late(self, now: float) -> bool:
        """Whether this turn is late, and the one before was not."""
        is_late = now - self._turned_at > LATE and not self._was_late
        self._turned_at, self._was_late = now, is_late
        return is_late

    def _turn_path(self, path: Path, now: float) -> None:
        datagram = path.connection.due(now)
        if datagram is not None:
            self._write(path, datagram)
        elif path.is_over:
            self._lost(path)

    def _look_for_silence(self, now: float) -> None:
        """Try another path while the server is silent; stop that when a packet arrives."""
        path = self._path
        if path is None or self._is_forced:
            return
        silent_for = now - path.connection.heard_at
        is_idle = self._next is None and self._again is None and self._asked.called
        if is_idle and silent_for >= SILENT_FOR + self._spread:
            self._ask_for_token()
        elif not is_idle and silent_for < SILENT_FOR:
            self._stop_asking()
            self._again_after = AGAIN_AFTER
            if self._next is not None:
                self._let_go_of_next()

    def _ask_for_token(self) -> None:
        self._stop_asking()
        self._spread = SPREAD * self._jitter()
        asked = self._asked = maybeDeferred(self._get_token)
        asked.addCallback(self._connect).addErrback(self._failed, asked)
        is_at_once = True  # the owner checks the phase itself when its call returns

        def notify(_: object) -> None:
            if self._asked is asked and not is_at_once:
                self.notify()

        asked.addCallback(notify)
        is_at_once = False

    def _stop_asking(self) -> None:
        """Cancel the pending and the scheduled token request."""
        asked, self._asked = self._asked, succeed(None)
        asked.cancel()
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _ask_later(self, after: float) -> None:
        def ask() -> None:
            self._again = None
            self._ask_for_token()
            self.notify()

        self._stop_asking()
        self._again = self._reactor.callLater(after + self._spread, ask)

    def _connect(self, token: bytes) -> None:
        now = self._seconds()
        path = Path(self._reactor, Connection(token, now), self._received)
        if self._path is None:
            self._path = path
        else:
            self._next = path
        self._turn_path(path, now)

    def _failed(self, failure: Failure, asked: Deferred[Any]) -> None:
        if not self._is_open or asked is not self._asked:
            return  # this request was cancelled
        if self._path is not None:
            self._again_after = min(2 * self._again_after, AGAIN_AT_MOST)
            return self._ask_later(self._again_after)
        error = failure.value
        self.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def _received(self, path: Path, datagram: bytes, source: Address) -> None:
        self._take_in(path, datagram, source, self._seconds())
        self.notify()

    def _take_in(self, path: Path, datagram: bytes, source: Address, now: float) -> None:
        connection = path.connection
        was_in = path.is_connected
        message = connection.receive(datagram, source, now)
        if path is self._next and connection.state == State.SENDING_RESPONSE:
            self._turn_to_next(now)
        elif message is not None:
            self.take(message, now)
        elif path.is_over:
            self._lost(path)
        elif path.is_connected and not was_in:
            self._is_forced = False
            self._again_after = AGAIN_AFTER
            self.client.rejoin(now)
            self.turn(now)

    def _turn_to_next(self, now: float) -> None:
        """The server answers on the other path: switch to it, unless the old one works again.

        The old connection is dropped before the server ends it, so that the disconnect packets of
        that end do not end this player's game.
        """
        path = self._path
        assert path is not None
        if not self._is_forced and now - path.connection.heard_at < SILENT_FOR:
            return self._let_go_of_next()
        path.close()
        self._path, self._next = self._next, None

    def _let_go_of_next(self) -> None:
        assert self._next is not None
        self._next.close()
        self._next = None

    def _lost(self, path: Path) -> None:
        path.close()
        if path is self._next:
            self._next = None
            self._again_after = min(2 * self._again_after, AGAIN_AT_MOST)
            return self._ask_later(self._again_after)
        self._path, self._next = self._next, None
        if path.connection.state == State.DENIED and self._path is None:
            self.client.end(Refused(0, RefusedReason.FULL))
        elif self._path is None and self._asked.called:
            self._ask_later(AGAIN_AFTER)

    def _write(self, path: Path, datagram: bytes) -> None:
        try:
            path.write(datagram)
        except CannotListenError as error:
            for each in (self._path, self._next):
                if each is not None:
                    each.close()
            self._path = self._next = None
            self.fail(error)
