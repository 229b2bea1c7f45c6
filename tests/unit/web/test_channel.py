"""Connections: requests of bounded size within bounded time, and as many as there is time for."""

from __future__ import annotations

from twisted.internet.task import Clock

from playerstate.web.access import Access
from playerstate.web.budget import SHARE
from playerstate.web.channel import CLOSE_WITHIN, REQUEST_WITHIN
from playerstate.web.reading import MOST_BODY_BYTES
from playerstate.web.resource import WebResource
from playerstate.web.site import MOST_CONNECTIONS, WebSite
from tests.kit.web import TOKENS, WRITE, Connection, WebTestCase, request

HEALTH = request("GET", "/health")


class BoundsTests(WebTestCase):
    """What one connection may send, and how slowly."""

    def setUp(self) -> None:
        """A server, and a connection to it."""
        super().setUp()
        self.serve()
        self.connection = self.connect()

    def head(self, *lines: str) -> bytes:
        """The head of a change, with further lines."""
        return "\r\n".join(
            ["PATCH /players/42 HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]
        ).encode()

    def test_kept(self) -> None:
        """A connection serves one request after another, also those sent together."""
        self.connection.send(HEALTH * 3)
        self.assertEqual(self.connection.take().count(b'{"alive": true}'), 3)
        self.connection.send(HEALTH)
        self.assertEqual(self.connection.answer().status, 200)
        self.assertFalse(self.connection.is_closed)

    def test_long_body(self) -> None:
        """A body beyond the bound is refused by its length, before a byte of it is read."""
        for length in (MOST_BODY_BYTES + 1, 2**30, 10**30):
            connection = self.connect()
            connection.send(self.head(f"Content-Length: {length}"))
            self.refused(connection.answer(), 413, "Content-Length", str(MOST_BODY_BYTES))
            self.assertTrue(connection.is_closed)

    def test_rest_of_a_long_body(self) -> None:
        """What is sent of it all the same is thrown away, and is no request."""
        self.connection.send(self.head("Content-Length: 1000000"))
        self.connection.take()
        for _ in range(100):
            self.connection.send(HEALTH * 10)
        self.assertEqual(self.connection.take(), b"")

    def test_chunks(self) -> None:
        """A body whose length is not told is refused."""
        self.connection.send(self.head("Transfer-Encoding: chunked"))
        self.refused(self.connection.answer(), 411, "Content-Length")
        self.assertTrue(self.connection.is_closed)

    def test_longest_body(self) -> None:
        """A body of the bound is read, whatever it is then."""
        body = b'{"x": "' + b"a" * (MOST_BODY_BYTES - 9) + b'"}'
        self.connection.send(request("PATCH", "/players/42", body, token=WRITE))
        self.assertEqual(self.connection.answer().status, 404)

    def test_not_http(self) -> None:
        """Other protocols get an error in JSON, and are closed."""
        for data in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"hello\r\n\r\n", b"GET /\r\n\r\n"):
            connection = self.connect()
            connection.send(data)
            self.refused(connection.answer(), 400, "request")
            self.assertTrue(connection.is_closed)

    def test_long_head(self) -> None:
        """A head without an end, or with too many lines, is cut off."""
        for lines in (["X: " + "a" * 9000], [f"X-{n}: a" for n in range(100)], ["X: a"] * 5000):
            connection = self.connect()
            connection.send(self.head(*lines))
            self.assertTrue(connection.is_closed)
            self.assertLess(len(connection.take()), 1000)

    def test_slow(self) -> None:
        """A client that sends byte by byte has as long as any, then its connection is closed."""
        data = self.head("X: " + "a" * 200)
        for byte in data[: int(REQUEST_WITHIN) - 1]:
            self.connection.send(bytes([byte]))
            self.stepped.reactor.advance(1.0)
        self.assertFalse(self.connection.is_closed)
        self.stepped.reactor.advance(2.0)
        self.assertTrue(self.connection.is_closed)

    def test_idle(self) -> None:
        """A connection that is kept is closed if no request follows; nothing is logged of it."""
        self.connection.send(HEALTH)
        self.stepped.reactor.advance(REQUEST_WITHIN + 1)
        self.assertTrue(self.connection.transport.disconnecting)
        self.stepped.reactor.advance(CLOSE_WITHIN + 1)
        self.assertTrue(self.connection.transport.aborted)
        self.assertEqual(self.told("imed out") + self.told("imeout"), [])

    def test_long_answer(self) -> None:
        """A request that takes long to answer is no idle connection."""
        self.joined(42)
        self.connection.send(request("PATCH", "/players/42", {"x": 1}, token=WRITE))
        self.idle(29.0)
        self.assertTrue(self.connection.channel.is_answering)
        self.advance(0.2)
        self.assertEqual(self.connection.answer().status, 200)


class ManyTests(WebTestCase):
    """Many connections, and more requests than there is time for."""

    def setUp(self) -> None:
        """A server whose requests take as long as the test says."""
        super().setUp()
        self.serve()
        self.work = Clock()
        self.takes = 0.0
        players, render = self.resource, self.resource.render

        def rendered(asked: object) -> object:
            self.work.advance(self.takes)
            return render(asked)

        self.patch(players, "render", rendered)

        def seconds() -> float:
            return self.work.seconds() + self.stepped.reactor.seconds()

        self.site = WebSite(self.resource, self.stepped.reactor, seconds)

    def test_most(self) -> None:
        """One connection too many takes the place of the one that has waited longest."""
        connections = [self.connect() for _ in range(MOST_CONNECTIONS)]
        connections.append(self.connect())
        self.assertTrue(connections[0].transport.aborted)
        self.assertFalse(any(each.is_closed for each in connections[1:]))
        self.assertEqual(len(self.site.channels), MOST_CONNECTIONS)

    def test_most_of_which_all_are_answered(self) -> None:
        """Where all others wait for an answer of ours, the new one goes."""
        self.joined(42)
        self.service.change(42, x=1.0)
        connections = [self.connect() for _ in range(MOST_CONNECTIONS)]
        for connection in connections:
            connection.send(request("POST", "/flush", token=WRITE))
        late = self.connect()
        self.assertTrue(late.transport.aborted)
        late.lose()
        self.assertFalse(any(each.is_closed for each in connections))
        self.advance(0.2)
        self.assertEqual({each.answer().status for each in connections}, {200})

    def test_lost(self) -> None:
        """A connection that is lost leaves its place."""
        for _ in range(10 * MOST_CONNECTIONS):
            connection = self.connect()
            connection.send(HEALTH)
            connection.lose()
        self.assertEqual(len(self.site.channels), 0)

    def test_overdrawn(self) -> None:
        """Beyond the budget requests wait, unread, and are answered in their turn."""
        self.takes = 0.2
        first, second, third = self.connect(), self.connect(), self.connect()
        for connection in (first, second, third):
            connection.send(HEALTH)
        self.assertTrue(first.take())
        self.assertEqual((second.take(), third.take()), (b"", b""))
        self.assertEqual(second.transport.producerState, "paused")
        self.stepped.reactor.advance(0.2 / SHARE)
        self.assertTrue(second.take())
        self.assertEqual(second.transport.producerState, "producing")
        self.assertEqual(third.take(), b"")
        self.stepped.reactor.advance(0.2 / SHARE)
        self.assertTrue(third.take())

    def test_lost_while_held(self) -> None:
        """One that goes while it waits is not answered, and holds up no other."""
        self.takes = 0.2
        connections = [self.connect() for _ in range(3)]
        for connection in connections:
            connection.send(HEALTH)
        connections[1].lose()
        self.stepped.reactor.advance(0.2 / SHARE)
        self.assertTrue(connections[2].take())

    def test_share(self) -> None:
        """However many requests there are, they take their share of the time and no more."""
        self.takes = 0.01
        answered = 0
        connections = [self.connect() for _ in range(20)]
        for connection in connections:
            connection.send(HEALTH)
        for _ in range(1000):
            self.stepped.reactor.advance(0.01)
            for connection in connections:
                if connection.take():
                    answered += 1
                    connection.send(HEALTH)
        self.assertLess(abs(answered * self.takes / (10.0 * (1 + SHARE)) - SHARE), 0.02)

    def test_end(self) -> None:
        """At the end all connections are closed, those that wait as well."""
        connections = [self.connect() for _ in range(3)]
        self.site.end()
        self.site.stopFactory()
        self.assertTrue(all(each.is_closed for each in connections))


class MountedTests(WebTestCase):
    """A resource in a connection of another program's site."""

    def test_without_audit(self) -> None:
        """Changes go to the log of the program, one line each, where no file was named."""
        self.open()
        self.joined(42)
        resource = WebResource(self.service, access=Access(tokens=TOKENS))
        self.site = WebSite(resource, self.stepped.reactor, self.stepped.reactor.seconds)
        connection = Connection(self.site)
        connection.send(request("PATCH", "/players/42", {"x": 3}, token=WRITE))
        self.advance(0.2)
        self.assertEqual(connection.answer().status, 200)
        (line,) = self.told("audit: ")
        self.assertIn('"after": {"x": 3}', line)
