"""One connection: requests of bounded size, within bounded time.

A client that sends a request byte by byte has as long as one that sends it at once, one that reads
no answer is cut off, and a body that is too long is refused before it is read.  Reactor thread
only.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from playerstate.web.budget import Budget
from playerstate.web.reading import MOST_BODY_BYTES
from playerstate.web.refused import Refused, bad

REQUEST_WITHIN = 30.0
"""Seconds in which a connection must have sent a whole request, from its beginning or from the end
of the answer before."""
CLOSE_WITHIN = 5
"""Seconds that a client has to read what was sent, once its time is over."""


class Owner(Protocol):
    """What holds all connections, and decides when each may go on; a site is one."""

    budget: Budget

    def opened(self, channel: Channel) -> None:
        """A connection is open."""

    def closed(self, channel: Channel) -> None:
        """A connection is closed."""

    def may_go_on(self, channel: Channel) -> bool:
        """Whether there is time for what this connection has sent; if not, it is called later."""


class WebRequest(Request):
    """A request whose body is read by the resource, which knows what it may be."""

    _parsePOSTFormSubmission = False  # noqa: N815 - of Twisted


class Channel(HTTPChannel):
    """An HTTP/1.1 connection that the site may hold up.

    Attributes:
        is_answering: whether a request was received as a whole, and is not answered yet.
    """

    requestFactory = WebRequest  # noqa: N815 - of Twisted
    abortTimeout = CLOSE_WITHIN  # noqa: N815 - of Twisted
    totalHeadersSize = 8192  # noqa: N815 - of Twisted
    maxHeaders = 64  # noqa: N815 - of Twisted
    site: Owner
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes] = []
        self._is_over = False

    @property
    def is_answering(self) -> bool:
        """Whether a request is being answered."""
        return bool(self._handlingRequest)

    def resetTimeout(self) -> None:  # noqa: N802 - of Twisted
        """Nothing: the time of a request does not begin again with each byte of it."""

    def timeoutConnection(self) -> None:  # noqa: N802 - of Twisted
        """Close the connection; not logged, since any client may have it so."""
        self._abortingCall = self.callLater(CLOSE_WITHIN, self.forceAbortClient)
        self.loseConnection()

    def forceAbortClient(self) -> None:  # noqa: N802 - of Twisted
        """Close it at once; not logged either."""
        self._abortingCall = None
        self.transport.abortConnection()

    def connectionMade(self) -> None:  # noqa: N802 - of Twisted
        """See `HTTPChannel.connectionMade`."""
        super().connectionMade()
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - of Twisted
        """See `HTTPChannel.connectionLost`."""
        self._held.clear()
        self.site.closed(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - of Twisted
        """Read what was received, now or once the site has time for it."""
        if self._is_over:
            return
        if self._held or not self.site.may_go_on(self):
            self._held.append(data)
            self.transport.pauseProducing()
            return
        self._read(data)

    def _read(self, data: bytes) -> None:
        with self.site.budget.spending():
            super().dataReceived(data)

    def go_on(self) -> None:
        """Read what was held up, and receive again."""
        data = b"".join(self._held)
        self._held.clear()
        if data and not self._is_over:
            self._read(data)
        if not (self._is_over or self._waitingForTransport):
            self.transport.resumeProducing()

    def allHeadersReceived(self) -> None:  # noqa: N802 - of Twisted
        """Refuse a body that is too long, or whose length is not told before it comes."""
        if self.length is None:
            self._answer_and_close(bad("Content-Length", "given: chunks are not accepted", 411))
        elif self.length > MOST_BODY_BYTES:
            self._answer_and_close(bad("Content-Length", f"at most {MOST_BODY_BYTES}", 413))
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:  # noqa: N802 - of Twisted
        """See `HTTPChannel.allContentReceived`."""
        if not self._is_over:
            super().allContentReceived()

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802 - of Twisted
        """See `HTTPChannel.rawDataReceived`."""
        if not self._is_over:
            super().rawDataReceived(data)

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - of Twisted
        """Answer what is not HTTP."""
        self._answer_and_close(bad("request", "HTTP/1.1 with few and short headers"))

    def _answer_and_close(self, refused: Refused) -> None:
        if self._is_over:
            return
        self._is_over = True
        body = json.dumps(refused.body).encode()
        self.transport.write(
            f"HTTP/1.1 {refused.status} Refused\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        self.loseConnection()


def peer_of(request: Any) -> str:
    """The address that a request came from."""
    return getattr(request.getClientAddress(), "host", "")
