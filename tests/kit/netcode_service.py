"""What tests of the netcode transport share: its service over ports in memory, and players."""

from __future__ import annotations

import random
import struct
from typing import Any

from twisted.internet.task import Clock, deferLater

from playerstate.conversations.gateway import Gateway
from playerstate.testing import EPOCH, MemoryPort
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.client import Client, State
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.netcode.settings import NetcodeSettings
from tests.kit.netcode import KEY, PROTOCOL_ID, make_token
from tests.kit.players import WELCOME, ServiceTestCase, read_answer

PORT = 40_000
ADDRESS = Address.parse(f"127.0.0.1:{PORT}")
KICKED, IDLE, ELSEWHERE, CLOSED = range(1, 5)
"""The reasons of a GONE."""


def join_message(nonce: int = 1) -> bytes:
    """A JOIN of the default state class."""
    return struct.pack("<BBIIIQ", 1, 1, 0, nonce, 0, 0).ljust(248, b"\0")


def move_message(sequence: int, x: float, y: float = 0.0) -> bytes:
    """A MOVE of the default state class."""
    return struct.pack("<BIdd", 2, sequence, x, y)


class NetcodePlayer:
    """A player behind a netcode client.

    Args:
        case: the test.
        session_id: the player's.
        host: the last number of its address.
        port: the server's, if not the first of the test.
        token: for `make_token`.

    Attributes:
        client: the core of its connection.
        heard: the messages received, as `read_answer` gives them, and ``("disconnected",)``.
    """

    def __init__(
        self,
        case: NetcodeServiceTestCase,
        session_id: int,
        host: int = 1,
        port: MemoryPort | None = None,
        **token: Any,
    ) -> None:
        self.case = case
        self.port = case.port if port is None else port
        self.session_id = session_id
        self.address = (f"192.0.2.{host}", 1000 + host)
        token.setdefault("created_at", int(case.wall_clock()))
        token.setdefault("addresses", (ADDRESS,))
        self.client = Client(make_token(session_id, **token).pack(), case.now)
        self.heard: list[tuple[Any, ...]] = []

    def turn(self) -> None:
        """Receive, and send what is due."""
        self.hear()
        datagram = self.client.due(self.case.now)
        if datagram is not None:
            self.port.receive(datagram, self.address)
        self.hear()

    def hear(self) -> None:
        """Receive what was sent here; keep its messages, and the end of the connection."""
        others = []
        for datagram, address in self.port.take():
            if address != self.address:
                others.append((datagram, address))
                continue
            was = self.client.state
            message = self.client.receive(datagram, self.client.server, self.case.now)
            if message is not None:
                self.heard.append(read_answer(message))
            if was == State.CONNECTED and self.client.state == State.DISCONNECTED:
                self.heard.append(("disconnected",))
        self.port.sent.extend(others)

    def connect(self) -> None:
        """Connect."""
        for _ in range(8):
            self.turn()
            self.case.advance(0.05)
        self.case.assertEqual(self.client.state, State.CONNECTED)

    def send(self, message: bytes) -> None:
        """Send a message."""
        self.port.receive(self.client.send(message, self.case.now), self.address)
        self.hear()

    def join(self, nonce: int = 1) -> None:
        """A JOIN."""
        self.send(join_message(nonce))

    def move(self, sequence: int, x: float, y: float = 0.0) -> None:
        """A MOVE."""
        self.send(move_message(sequence, x, y))

    def leave(self, sequence: int) -> None:
        """A LEAVE."""
        self.send(struct.pack("<BI31x", 3, sequence))

    def disconnect(self) -> None:
        """Disconnect."""
        for datagram in self.client.disconnect(self.case.now):
            self.port.receive(datagram, self.address)

    def names(self) -> list[str]:
        """The names of what was received since the last call."""
        heard, self.heard = self.heard, []
        return [answer[0] for answer in heard]


class NetcodeServiceTestCase(ServiceTestCase):
    """Tests that speak netcode to a gateway.

    Attributes:
        steady: the clock by which the end of a stop is waited for, if not the reactor's.
    """

    steady: Clock | None = None

    def open(
        self,
        *,
        on_connect: Any = None,
        idle_timeout: float = 30.0,
        age: float = 40.0,
        listen: tuple[tuple[int, str], ...] = ((PORT, "127.0.0.1"),),
        addresses: frozenset[Address] = frozenset(),
        **settings: Any,
    ) -> None:
        """Start a server, and let it run for a while."""
        self.stepped = self.start()
        self.service = self.stepped.service
        self.gateway = Gateway(self.service, idle_timeout=idle_timeout, jitter=lambda: 0.0)
        settings.setdefault("slots", 4)
        self.netcode = NetcodeService(
            self.gateway,
            NetcodeSettings(KEY, PROTOCOL_ID, addresses, **settings),
            listen,
            on_connect=on_connect,
            reactor=self.stepped.reactor,
            wall_clock=self.wall_clock,
            random_bytes=random.Random(1).randbytes,
            sleep=lambda _, seconds: deferLater(self.steady or self.stepped.reactor, seconds),
        )
        self.netcode.startService()
        self.port = self.stepped.reactor.ports[self.netcode.ports[0]]
        self.addCleanup(self.port.stopListening)
        self.stepped.reactor.advance(age)

    def wall_clock(self) -> float:
        """Seconds since the Unix epoch."""
        return EPOCH + self.now

    @property
    def now(self) -> float:
        """The time."""
        return self.stepped.reactor.seconds()

    def advance(self, seconds: float) -> None:
        """Let time pass in steps of 10 ms, and the persist thread work in between."""
        for _ in range(round(seconds / 0.01)):
            self.stepped.reactor.advance(0.01)
            self.stepped.settle()

    def play(self, seconds: float, *players: NetcodePlayer) -> None:
        """Let time pass for these players as well."""
        for _ in range(round(seconds / 0.05)):
            self.advance(0.05)
            for player in players:
                player.turn()

    def joined(self, session_id: int = 42, host: int = 1, **token: Any) -> NetcodePlayer:
        """A player who is in the game."""
        player = NetcodePlayer(self, session_id, host, **token)
        player.connect()
        player.join()
        self.assertEqual(player.names(), [WELCOME])
        return player

    def seen(self, player: NetcodePlayer, hertz: int) -> list[tuple[Any, ...]]:
        """What a client receives that reads once a frame and discards the frame that ends it."""
        seen: list[tuple[Any, ...]] = []
        for _ in range(hertz):
            player.hear()
            heard, player.heard = player.heard, []
            if ("disconnected",) in heard:
                return seen
            seen += heard
            self.advance(1 / hertz)
        return seen
