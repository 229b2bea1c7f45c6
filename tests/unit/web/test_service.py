"""The endpoint as a service, on a port of the system."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.python.failure import Failure

from playerstate import NotRunning
from playerstate.web.audit import AuditUnusable
from playerstate.web.service import WebService
from playerstate.web.site import ACCEPTED_AT_ONCE, WebPort
from tests.kit.players import at
from tests.kit.web import WebTestCase


class Reactor:
    """A reactor that watches no socket; the test has each port read.

    Args:
        clock: its time.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def addReader(self, reader: Any) -> None:  # noqa: N802 - of Twisted
        """Watch it."""
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:  # noqa: N802 - of Twisted
        """Watch it no more."""
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:  # noqa: N802 - of Twisted
        """Watch it."""
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:  # noqa: N802 - of Twisted
        """Watch it no more."""
        self.writers.discard(writer)


class WebServiceTests(WebTestCase):
    """From the start to the stop."""

    def setUp(self) -> None:
        """A server, and an endpoint that is not started."""
        super().setUp()
        self.serve()
        self.reactor = Reactor(self.stepped.reactor)
        self.web = self.endpoint()

    def endpoint(self, port: int = 0) -> WebService:
        """An endpoint on this port."""
        return WebService(
            self.service,
            self.resource,
            port,
            reactor=self.reactor,
            seconds=self.stepped.reactor.seconds,
        )

    def start_web(self) -> WebPort:
        """Start it; return the port."""
        self.web.startService()
        self.addCleanup(self.stop_web)
        (port,) = self.reactor.readers
        return port

    def stop_web(self) -> None:
        """Stop it, with the players' service."""
        stopped = self.web.stopService()
        self.stepped.stop()
        for _ in range(3):
            self.stepped.reactor.advance(1.0)
        self.successResultOf(stopped)
        for transport in self.reactor.readers | self.reactor.writers:
            transport.connectionLost(Failure(ConnectionDone()))

    def knock(self) -> socket.socket:
        """A client that connects."""
        client = socket.create_connection(("127.0.0.1", self.web.port), timeout=5.0)
        self.addCleanup(client.close)
        return client

    def test_listens(self) -> None:
        """It listens on loopback, says where, and has begun to keep the history."""
        port = self.start_web()
        self.assertEqual(port.getHost(), IPv4Address("TCP", "127.0.0.1", self.web.port))
        self.assertEqual(len(self.told(f"answering http on 127.0.0.1:{self.web.port}")), 1)
        self.stepped.reactor.advance(1.0)
        self.assertEqual(len(self.resource._history.rows), 1)

    def test_taken(self) -> None:
        """A port that is taken is an error."""
        self.start_web()
        other = self.endpoint(self.web.port)
        self.assertRaises(CannotListenError, other.startService)
        self.assertRaises(NotRunning, lambda: other.port)

    def test_no_audit(self) -> None:
        """Where changes cannot be recorded, nothing listens."""
        self.audit.error = AuditUnusable("no room")
        self.assertRaises(AuditUnusable, self.web.startService)
        self.assertEqual(self.reactor.readers, set())

    def test_accepts_a_few(self) -> None:
        """However many connect, a few are accepted at a time, so that moves go on."""
        port = self.start_web()
        self.web._site.startFactory()
        for _ in range(3 * ACCEPTED_AT_ONCE):
            self.knock()
        for turn in range(1, 4):
            port.doRead()
            self.assertEqual(len(self.web._site.channels), turn * ACCEPTED_AT_ONCE)

    def test_overdrawn(self) -> None:
        """While the budget is overdrawn none is accepted; then all is as before."""
        port = self.start_web()
        for _ in range(2 * ACCEPTED_AT_ONCE):
            self.knock()
        with self.web._site.budget.spending():
            self.stepped.reactor.advance(0.5)
        port.doRead()
        self.assertNotIn(port, self.reactor.readers)
        self.stepped.reactor.advance(10.0)
        self.assertIn(port, self.reactor.readers)

    def test_stop(self) -> None:
        """It answers until the players' service has stopped, and is closed then."""
        port = self.start_web()
        self.knock()
        port.doRead()
        (channel,) = self.web._site.channels
        self.joined(42)
        self.service.update(42, at(1.0))
        stopped = self.web.stopService()
        self.assertIn(port, self.reactor.readers)
        self.assertNoResult(stopped)
        self.stepped.stop()
        self.stepped.reactor.advance(0.0)
        self.assertTrue(channel.transport.disconnecting)
        self.assertNotIn(port, self.reactor.readers)
        self.assertTrue(self.audit.is_closed)
        self.assertRaises(NotRunning, lambda: self.web.port)

    def test_never_started(self) -> None:
        """One that does not run has stopped."""
        self.successResultOf(self.web.stopService())
