"""A game that changes its players, as a process, and a client written from the wire format."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.kit.processes import PATIENCE, Server

GAME = """
import signal
import sys

import attrs
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from playerstate import PlayerStateService, open_store, server_owned
from playerstate.conversations.gateway import Gateway
from playerstate.transports.plain import PlainService


@attrs.frozen
class Fighter:
    hp: int = attrs.field(default=100, metadata=server_owned())
    x: float = 0.0


globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
store = open_store("sqlite:game.db", Fighter)
service = PlayerStateService(store, live_file="game.live", save_within=60)
service.setServiceParent(parent := MultiService())
PlainService(Gateway(service), 0, interface="127.0.0.1").setServiceParent(parent)


def on(number, change):
    signal.signal(number, lambda *_: reactor.callFromThread(change))


on(signal.SIGUSR1, lambda: service.change(42, x=500.0))
on(signal.SIGUSR2, lambda: service.change(42, hp=service.state(42).hp - 10))
parent.startService()
reactor.run()
"""
"""Signals change player 42."""
JOIN, MOVE, PING, SEEN = 0x01, 0x02, 0x04, 0x06
WELCOME, RECEIPT, STATE = 0x81, 0x82, 0x85
BODIES = {WELCOME: "<xBIQQqd", RECEIPT: "<xII", STATE: "<xBQqd"}
JOIN_SIZE = 300


class Device:
    """A client of player 42 that answers nothing by itself."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(address)
        self._socket.settimeout(PATIENCE)
        self.close = self._socket.close
        self.nonce = 0

    def send(self, message: bytes) -> None:
        """Send a message of the conversation."""
        self._socket.send(struct.pack("<QI", 42, self.nonce) + message)

    def join(self, sequence: int = 0) -> tuple[Any, ...]:
        """Begin a conversation; what the WELCOME says."""
        self.nonce += 1
        join = struct.pack("<BBIIIQ", JOIN, 1, 0, self.nonce, sequence, 0)
        self.send(join.ljust(JOIN_SIZE, b"\0"))
        return self.next(WELCOME)

    def move(self, sequence: int, x: float) -> None:
        """Say where the player is: the server's fields are no part of it."""
        self.send(struct.pack("<BId", MOVE, sequence, x))

    def seen(self, number: int, sequence: int) -> None:
        """Answer a STATE."""
        self.send(struct.pack("<BQI", SEEN, number, sequence).ljust(26, b"\0"))

    def next(self, kind: int) -> tuple[Any, ...]:
        """What the next message of this type says."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = self._socket.recv(2048)[12:]
            if message[0] == kind:
                return struct.unpack(BODIES[kind], message)
        raise AssertionError(f"no message of type {kind:#x}")

    def applied(self, sequence: int) -> int:
        """The highest sequence that the server has applied, by the answer to a PING."""
        self.send(struct.pack("<BI59x", PING, sequence))
        return int(self.next(RECEIPT)[0])


class ChangeTests(SynchronousTestCase):
    """What the program changes reaches the player, and stays."""

    def setUp(self) -> None:
        """A directory of the test's own."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def serve(self) -> tuple[Server, Device]:
        """A server, and a client of it."""
        server = Server(self.directory, script=GAME)
        self.addCleanup(server.kill)
        device = Device(server.address)
        self.addCleanup(device.close)
        return server, device

    def test_teleport(self) -> None:
        """It reaches the client, and ten moves that were on their way do not undo it."""
        server, device = self.serve()
        device.join()
        device.move(1, 1.0)
        self.assertEqual(device.applied(1), 1)
        os.kill(server.pid, signal.SIGUSR1)
        moved, number, *fields = device.next(STATE)
        self.assertEqual((moved, fields), (1, [100, 500.0]))
        for sequence in range(2, 12):
            device.move(sequence, 2.0)
        # Its first STATE is lost, as far as the server can know.
        self.assertEqual(device.next(STATE), (1, number, 100, 500.0))
        device.seen(number, 11)
        for sequence in range(2, 12):
            device.move(sequence, 2.0)
        self.assertEqual(device.applied(11), 11)
        os.kill(server.pid, signal.SIGUSR2)
        # A change of the server's own field shows where the player is.
        moved, number, *fields = device.next(STATE)
        self.assertEqual((moved, fields), (0, [90, 500.0]))
        device.move(12, 501.0)
        self.assertEqual(device.applied(12), 12)

    def test_killed(self) -> None:
        """Neither the change nor its number is lost with the process, committed or not."""
        server, device = self.serve()
        device.join()
        device.move(1, 1.0)
        self.assertEqual(device.applied(1), 1)
        os.kill(server.pid, signal.SIGUSR2)
        device.next(STATE)
        os.kill(server.pid, signal.SIGUSR1)
        while not (told := device.next(STATE))[0]:
            pass
        server.kill()
        again, device = self.serve()
        again.wait_for("players may join")
        device.nonce = 9
        welcome = device.join(20)
        self.assertEqual((welcome[0], welcome[2], *welcome[4:]), (3, told[1], 90, 500.0))
        self.assertEqual(device.next(STATE), told)
        device.move(21, 2.0)
        device.applied(21)
        device.seen(told[1], 21)
        device.move(21, 2.0)
        device.move(22, 501.0)
        self.assertEqual(device.applied(22), 22)
        again.kill()
        last, device = self.serve()
        last.wait_for("players may join")
        welcome = device.join(30)
        self.assertEqual((welcome[0], *welcome[4:]), (1, 90, 501.0))
