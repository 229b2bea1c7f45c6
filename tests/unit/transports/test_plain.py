"""The plain transport: session ids, lengths and addresses of datagrams, and its one port."""

from __future__ import annotations

import struct
from typing import Any
from unittest import mock

from twisted.application.service import MultiService
from twisted.internet.error import CannotListenError

from playerstate import NotRunning
from playerstate.conversations.gateway import Gateway
from playerstate.transports.plain import PlainService
from tests.kit.players import RECEIPT, REFUSED, WELCOME, Client, GatewayTestCase, at

JOIN = struct.pack("<BBIIIQ", 1, 1, 0, 1, 0, 0).ljust(248, b"\0")


class DatagramTests(GatewayTestCase):
    """Datagrams and answers."""

    def setUp(self) -> None:
        """A server."""
        super().setUp()
        self.open()

    def receive(self, datagram: bytes) -> None:
        """A datagram arrives."""
        self.port.receive(datagram, ("192.0.2.1", 1001))

    def test_session_id(self) -> None:
        """A session id is from 1 to 2**63 - 1; another is malformed, and gets no answer."""
        for session_id in (0, 2**63, 2**64 - 1):
            self.receive(struct.pack("<QI", session_id, 1) + JOIN)
        self.assertEqual(self.port.take(), [])
        self.assertEqual(self.books.malformed, {"session_id": 3})
        for session_id in (1, 2**63 - 1):
            self.receive(struct.pack("<QI", session_id, 1) + JOIN)
            [(answer, _)] = self.port.take()
            self.assertEqual(answer[:13], struct.pack("<QIB", session_id, 1, 0x81))

    def test_too_short(self) -> None:
        """A datagram without a message is too short."""
        for size in range(13):
            self.receive(bytes([1] * size))
        self.assertEqual(self.books.malformed, {"too_short": 13})
        self.assertEqual(self.books.received, 13)

    def test_too_long(self) -> None:
        """A datagram longer than the longest JOIN is malformed, even if the system has cut it.

        A MOVE in so long a datagram would otherwise look whole.
        """
        self.receive(struct.pack("<QI", 42, 1) + JOIN.ljust(1200, b"\0"))
        self.assertEqual(len(self.port.take()), 1)
        for size in (1201, 1202, 60_000):
            self.receive(struct.pack("<QI", 42, 1) + JOIN.ljust(size, b"\0"))
            self.receive(struct.pack("<QIBI", 42, 1, 4, 0).ljust(12 + size, b"\0"))
        self.assertEqual(self.port.take(), [])
        self.assertEqual(self.books.malformed, {"too_long": 6})

    def test_longest_beside_one_too_long(self) -> None:
        """The longest valid datagram is read, whatever arrives with it."""
        longest = struct.pack("<QI", 42, 1) + JOIN.ljust(1200, b"\0")
        self.port.receive_many([longest, longest + b"\0"], [("192.0.2.1", 1)] * 2)
        self.assertEqual(len(self.port.take()), 1)
        self.assertEqual(self.books.malformed, {"too_long": 1})

    def test_two_players_at_one_address(self) -> None:
        """Two players at one address are identified by the session id, both ways."""
        first, second = (Client(self.port, n, ("192.0.2.1", 1)) for n in (1, 2))
        for client in (first, second):
            client.join()
            client.move(client.session_id, client.session_id)
        self.idle(0.2)
        for client in (first, second):
            heard = client.heard()
            self.assertEqual([answer[0] for answer in heard], [WELCOME, RECEIPT])
            self.assertEqual(heard[1], (RECEIPT, client.session_id, 0))
            self.assertEqual(self.service.state(client.session_id), at(client.session_id))

    def test_ipv6_address(self) -> None:
        """An answer goes to the whole address that a datagram came from."""
        client = Client(self.port, 42, ("fe80::1", 1001, 0, 2))  # type: ignore[arg-type]
        client.join()
        self.assertEqual(client.heard()[0][0], WELCOME)

    def test_unsent(self) -> None:
        """A datagram that the system does not send is counted and lost; nothing else changes."""
        client = self.joined()

        def write(packet: bytes, addr: Any = None) -> None:
            raise OSError(105, "No buffer space available")

        with mock.patch.object(self.port.getHandle().__class__, "send", create=True):
            protocol = self.port._protocol
            self.patch(protocol, "_write", write)
        client.move(1, 1.0)
        client.ping(1)
        self.idle(0.3)
        client.join(2, version=9)
        self.assertEqual(self.books.unsent, 2)
        self.assertEqual(self.service.state(42), at(1))
        self.patch(protocol, "_write", self.port.write)
        client.join(2, version=9)
        self.assertEqual(client.heard(), [(REFUSED, 2, 2)])


class PortTests(GatewayTestCase):
    """The port, from the start to the stop."""

    def test_not_started(self) -> None:
        """Before its first start the transport has no port, and says so."""
        self.open()
        service = PlainService(Gateway(self.service), 0, reactor=self.stepped.reactor)
        self.assertRaises(NotRunning, getattr, service, "port")

    def test_any_port(self) -> None:
        """Port 0 binds any free port; `port` has its number, and so does the log."""
        self.open()
        service = PlainService(Gateway(self.service), 0, reactor=self.stepped.reactor)
        service.startService()
        self.assertIn(service.port, self.stepped.reactor.ports)
        self.assertNotEqual(service.port, 7777)
        lines = self.told(f"listening on udp 127.0.0.1:{service.port}, plain")
        self.assertEqual(len(lines), 1)
        self.assertIn("4194304 requested", lines[0])
        self.successResultOf(service.stopService())

    def test_cannot_listen(self) -> None:
        """If the port cannot be bound the start fails; nothing is left, and a stop is harmless."""
        self.open()
        calls = len(self.service.clock.getDelayedCalls())
        other = PlainService(Gateway(self.service), 7777, reactor=self.stepped.reactor)
        self.assertRaises(CannotListenError, other.startService)
        self.assertFalse(other.running)
        self.assertEqual(len(self.service.clock.getDelayedCalls()), calls)
        self.successResultOf(other.stopService())

    def test_never_started(self) -> None:
        """Stopping a transport that was never started is harmless."""
        self.open()
        other = PlainService(Gateway(self.service), 7778, reactor=self.stepped.reactor)
        self.successResultOf(other.stopService())

    def test_in_a_parent(self) -> None:
        """Under one parent the service starts first, and both stop with everything saved."""
        stepped = self.start()
        self.successResultOf(stepped.stop())
        root = MultiService()
        stepped.service.setServiceParent(root)
        transport = PlainService(Gateway(stepped.service), 7777, reactor=stepped.reactor)
        transport.setServiceParent(root)
        root.startService()
        client = Client(stepped.reactor.ports[7777])
        client.join()
        client.move(1, 1.0)
        stopped = root.stopService()
        stepped.settle()
        self.assertEqual([answer[0] for answer in client.heard()][-2:], [RECEIPT, "gone"])
        stepped.thread.run()
        stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertEqual(self.stored(stepped), {42: (1.0, 0.0)})
        self.assertEqual(stepped.reactor.ports, {})
