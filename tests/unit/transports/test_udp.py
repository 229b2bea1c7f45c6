"""One UDP port over its life: it is bound again when the system closes it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any
from unittest import mock

from twisted.internet.error import CannotListenError

from playerstate.transports import udp
from tests.kit.players import GatewayTestCase

PROGRAM = """
import os, socket, sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from playerstate.conversations.gateway import Gateway
from playerstate.players.service import PlayerStateService
from playerstate.stores.memory import MemoryStore
from playerstate import PlayerState, StateSchema
from playerstate.wire.messages import Codec
from playerstate.client import Plain, PlayerClient
from playerstate.transports.plain import PlainService

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
service = PlayerStateService(MemoryStore(StateSchema.of(PlayerState)))
service.startService()
plain = PlainService(Gateway(service), 0)
plain.startService()
before = plain.port
handle = plain._port._port.getHandle()
if sys.argv[1] == "close":
    os.close(handle.fileno())
else:
    try:
        handle.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass

def look():
    if plain._port._is_open and plain._port._port.getHandle() is not handle:
        assert plain.port == before
        player = PlayerClient(reactor, PlayerState, Plain(("127.0.0.1", before), 42))
        player.join().addCallback(lambda _: reactor.stop())
    else:
        reactor.callLater(0.05, look)

look()
reactor.callLater(30, os._exit, 3)
reactor.run()
print("joined")
"""


class OpenTests(GatewayTestCase):
    """An open port: its buffer, and the datagrams that the system drops."""

    def test_buffer(self) -> None:
        """A port gets the large receive buffer, as far as the system grants it."""
        self.open()
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(plain.close)
        granted = udp._enlarge_buffer(plain)
        handle = self.port.getHandle()
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 2 * granted)

    def test_drops_are_counted_once(self) -> None:
        """No drop is counted twice; a port that is bound again begins at none."""
        self.open()
        drops = [5]
        self.patch(udp, "_kernel_drops", lambda fd: drops[0])
        for total, counted in ((5, 5), (5, 5), (7, 7)):
            drops[0] = total
            self.stepped.reactor.advance(udp.DROPS_LOOK_EVERY)
            self.assertEqual(self.books.kernel_drops, counted)
        self.port.stopListening()
        drops[0] = 2
        self.stepped.reactor.advance(udp.DROPS_LOOK_EVERY)
        self.stepped.reactor.advance(udp.DROPS_LOOK_EVERY)
        self.assertEqual(self.books.kernel_drops, 9)
        self.addCleanup(self.stepped.reactor.ports[7777].getHandle().close)

    def test_one_byte_more(self) -> None:
        """The port is opened for one byte more than is valid, so that a cut datagram is noticed."""
        self.open()
        self.assertEqual(self.port._max_packet_size, 1213)
        self.assertEqual(self.port.maxThroughput, udp.MAX_THROUGHPUT)

    def test_buffer_by_force(self) -> None:
        """A privileged process gets the buffer it requests; another gets what the system allows."""

        class Handle:
            def __init__(self, privileged: bool) -> None:
                self.privileged = privileged
                self.asked: list[tuple[int, int]] = []

            def setsockopt(self, level: int, option: int, value: int) -> None:
                self.asked.append((option, value))
                if option == udp._SO_RCVBUFFORCE and not self.privileged:
                    raise PermissionError(1, "Operation not permitted")

            def getsockopt(self, level: int, option: int) -> int:
                return 2 * 1000

        for privileged, options in ((True, [33]), (False, [33, socket.SO_RCVBUF])):
            handle: Any = Handle(privileged)
            self.assertEqual(udp._enlarge_buffer(handle), 1000)
            self.assertEqual(handle.asked, [(option, udp.RECEIVE_BUFFER) for option in options])

    def test_kernel_drops(self) -> None:
        """Datagrams that the system dropped from a full buffer are counted."""
        if not os.path.exists("/proc/net/udp"):
            self.skipTest("this system does not tell its drops")
        self.open()
        handle = self.port.getHandle()
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        handle.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(bytes(1000), handle.getsockname())
        self.assertEqual(self.books.kernel_drops, 0)
        self.stepped.reactor.advance(udp.DROPS_LOOK_EVERY)
        self.assertGreater(self.books.kernel_drops, 50)
        self.successResultOf(self.plain.stopService())

    def test_system_without_drops(self) -> None:
        """Without the system's tables no drops are counted."""
        self.open()
        with mock.patch.object(udp, "open", create=True, side_effect=FileNotFoundError):
            self.stepped.reactor.advance(udp.DROPS_LOOK_EVERY)
        self.assertEqual(self.books.kernel_drops, 0)


class LostTests(GatewayTestCase):
    """A port that the system closes."""

    def test_listens_again(self) -> None:
        """It is bound again at the same number, and the players play on; both are logged."""
        self.open()
        old = self.port
        old.stopListening()
        self.assertEqual(len(self.told("the system closed the port")), 1)
        self.stepped.reactor.advance(udp.LISTEN_AGAIN_FIRST)
        self.assertEqual(len(self.told("listening again")), 1)
        port = self.stepped.reactor.ports[7777]
        self.addCleanup(port.getHandle().close)
        self.assertIsNot(port, old)
        self.assertEqual(port.maxThroughput, udp.MAX_THROUGHPUT)

    def test_answers_meanwhile(self) -> None:
        """Answers while the port is closed are counted, and raise nothing."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        self.port.stopListening()
        before = self.books.unsent
        self.gateway.kick(client.session_id)
        self.assertEqual(self.books.unsent, before + 1)

    def test_patience(self) -> None:
        """It is bound again with retries, at growing intervals, until that succeeds."""
        self.open()
        reactor = self.stepped.reactor
        listen, tries = reactor.listenUDP, []

        def refuse(number: int, *arguments: Any) -> Any:
            tries.append(reactor.seconds())
            raise CannotListenError("127.0.0.1", number, OSError(99, "Cannot assign"))

        began = reactor.seconds()
        with mock.patch.object(reactor, "listenUDP", refuse):
            self.port.stopListening()
            for _ in range(400):
                reactor.advance(0.05)
        self.assertGreater(len(tries), 5)
        self.assertLess(len(tries), 11)
        self.assertEqual(len(self.told("cannot listen again: [Errno 99]")), len(tries))
        self.assertLess(tries[0] - began, 1.0)
        self.assertEqual(reactor.listenUDP, listen)
        for _ in range(110):
            reactor.advance(0.05)
        self.addCleanup(reactor.ports[7777].getHandle().close)

    def test_stopped_meanwhile(self) -> None:
        """A service that is stopped while its port is lost stops, and binds nothing."""
        self.open()
        self.port.stopListening()
        self.successResultOf(self.plain.stopService())
        self.stepped.reactor.advance(60.0)
        self.assertEqual(self.stepped.reactor.ports, {})

    def test_process(self) -> None:
        """A socket closed or shut down under the reactor is noticed, and players can join again."""
        for how in ("close", "shutdown"):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, how],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertIn("the system closed the port", done.stdout)
            self.assertNotIn("Traceback", done.stdout)
