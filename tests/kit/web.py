"""What tests of the web endpoint share: a site in memory, connections to it, and their answers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from playerstate.web.access import Access, Right, Token
from playerstate.web.channel import Channel
from playerstate.web.resource import WebResource
from playerstate.web.site import WebSite
from tests.kit.players import GatewayTestCase

READ, WRITE = "r" * 20, "w" * 20
TOKENS = (Token.of("prometheus", Right.READ, READ), Token.of("ops", Right.WRITE, WRITE))
HOST = "127.0.0.1:7780"


@attrs.frozen
class Answer:
    """One answer.

    Attributes:
        status: its status.
        headers: by name in lower case.
        body: its body, as it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)


class Transport(StringTransport):
    """The server's end of a connection, whose reading is paused and resumed."""

    aborted = False

    def abortConnection(self) -> None:  # noqa: N802 - Twisted calls it
        """Note it."""
        self.aborted = True
        super().abortConnection()


class Connection:
    """A client's end of a connection to a site in memory.

    Args:
        site: the site.

    Attributes:
        transport: the server's end.
        channel: what the site has of it.
    """

    def __init__(self, site: WebSite) -> None:
        address = IPv4Address("TCP", "192.0.2.7", 1234)
        self.channel: Channel = site.buildProtocol(address)
        self.transport = Transport(peerAddress=address)
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Bytes come in, unless the server does not read."""
        assert self.transport.producerState == "producing", "the server does not read"
        self.channel.dataReceived(data)

    def take(self) -> bytes:
        """What the server has sent since the last time."""
        sent: bytes = self.transport.value()
        self.transport.clear()
        return sent

    def answer(self) -> Answer:
        """The answer that the server has sent; complete, or the beginning of a stream."""
        head, _, body = self.take().partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        return Answer(int(first.split(" ")[1]), headers, body)

    def lose(self) -> None:
        """The client goes."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it."""
        return bool(self.transport.disconnecting or self.transport.aborted)


def request(
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str = "",
    host: str | None = HOST,
    **headers: str,
) -> bytes:
    """The bytes of a request; other headers have underscores in their names."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if host is not None:
        fields["Host"] = host
    if token:
        fields["Authorization"] = f"Bearer {token}"
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Content-Type": "application/json", "Content-Length": str(len(data)), **fields}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + data


class MemoryAudit:
    """An audit log in memory.

    Attributes:
        entries: what was recorded.
        error: raised instead; None for none.
    """

    def __init__(self) -> None:
        self.entries: list[Mapping[str, Any]] = []
        self.error: Exception | None = None
        self.is_closed = False

    def check(self) -> None:
        """See `Audit.check`."""
        if self.error is not None:
            raise self.error

    def record(self, entry: Mapping[str, Any]) -> None:
        """See `Audit.record`."""
        self.check()
        self.entries.append(entry)

    def close(self) -> None:
        """See `Audit.close`."""
        self.is_closed = True


class WebTestCase(GatewayTestCase):
    """Tests of a site in memory, over a server with its gateway.

    Attributes:
        resource, site, audit: made by `serve`.
    """

    def serve(self, *, access: Access | None = None, **options: Any) -> None:
        """Start a server with an endpoint; `options` are those of `GatewayTestCase.open`."""
        self.open(**options)
        self.audit = MemoryAudit()
        seconds = self.stepped.reactor.seconds
        self.resource = WebResource(
            self.service,
            self.gateway,
            access=access or Access(tokens=TOKENS),
            audit=self.audit,
            seconds=seconds,
        )
        self.site = WebSite(self.resource, self.stepped.reactor, seconds)

    def connect(self) -> Connection:
        """A connection."""
        return Connection(self.site)

    def ask(self, method: str, path: str, body: Any = None, **named: Any) -> Answer:
        """The answer to a request, once everything is saved that is to be saved soon."""
        connection = self.connect()
        connection.send(request(method, path, body, **named))
        if not connection.transport.value():
            self.advance(0.2)
        answer = connection.answer()
        connection.lose()
        return answer

    def change(self, method: str, path: str, body: Any = None) -> Answer:
        """The answer to a change, with a token that may write."""
        return self.ask(method, path, body, token=WRITE)

    def refused(self, answer: Answer, status: int, field: str = "", allowed: str = "") -> str:
        """The error of an answer that has this status, and names this field and what is allowed."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.json.get("field", ""), field)
        self.assertIn(allowed, answer.json.get("allowed", ""))
        return str(answer.json["error"])


def unchunked(body: bytes) -> bytes:
    """The bytes of a body that is sent in chunks, as far as it was sent."""
    found = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        found, body = found + rest[:length], rest[length + 2 :]
    return found


def frames(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """The whole frames of a feed: kind and body."""
    while stream:
        length, kind = struct.unpack_from("<IB", stream)
        yield chr(kind), stream[8 : 8 + length]
        stream = stream[8 + length :]
