"""A server with both transports, and players, on one reactor in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState
from playerstate.client import Netcode, Plain, PlayerClient
from playerstate.conversations.gateway import Gateway
from playerstate.testing import EPOCH, MemoryPort, SteppedService
from playerstate.tokens import connect_token
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.connections import Connection
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.plain import PlainService

HOST = "127.0.0.1"
PLAIN, NETCODE = 7777, 40_000
KEY, PROTOCOL_ID = bytes(range(32)), 7
HERE, THERE = PlayerState(1.0, 2.0), PlayerState(3.0, 4.0)
STEP = 1 / 64
"""Seconds of one step of time; a power of two, so that times add up without rounding."""


class Game:
    """A server on its ports, and a network that carries what is sent at each step of time.

    Args:
        state: the state class.
        slots: of netcode.
        options: of the service.

    Attributes:
        stepped: the service.
        netcode: the netcode transport.
        gateway: the conversations.
        is_cut: whether the network loses everything.
        cut_ports: players' ports whose datagrams it loses, both ways.
        translated: players' ports that the server sees as others, as behind a router.
        tokens: how many tokens were made.
        jitter: of the players over netcode.
    """

    def __init__(self, state: type = PlayerState, slots: int = 4, **options: Any) -> None:
        self.state = state
        self.stepped = SteppedService(state, **options)
        self.reactor = self.stepped.reactor
        self.is_cut = False
        self.cut_ports: set[int] = set()
        self.translated: dict[int, int] = {}
        self.tokens = 0
        self.jitter: Callable[[], float] = lambda: 0.0
        self._ports: dict[int, MemoryPort] = {}
        self._random = random.Random(1)
        self.gateway = Gateway(self.stepped.service, jitter=lambda: 0.0)
        PlainService(self.gateway, PLAIN, reactor=self.reactor).startService()
        self.netcode = NetcodeService(
            self.gateway,
            NetcodeSettings(KEY, PROTOCOL_ID, frozenset((Address.of(HOST, NETCODE),)), slots=slots),
            [(NETCODE, HOST)],
            reactor=self.reactor,
            wall_clock=self.wall_clock,
            random_bytes=self._random.randbytes,
            sleep=deferLater,
        )
        self.netcode.startService()
        self.pass_time(40.0)  # from here on tokens are taken

    def wall_clock(self) -> float:
        """Seconds since the Unix epoch."""
        return EPOCH + self.reactor.seconds()

    def token(self, session_id: int = 42) -> bytes:
        """A fresh connect token."""
        self.tokens += 1
        return connect_token(
            session_id,
            key=KEY,
            protocol_id=PROTOCOL_ID,
            addresses=[f"{HOST}:{NETCODE}"],
            wall_clock=self.wall_clock,
            random_bytes=self._random.randbytes,
        )

    def player(self, way: Any, **options: Any) -> PlayerClient:
        """A player who has not joined yet."""
        options.setdefault("draw_nonce", itertools.count(1).__next__)
        return PlayerClient(self.reactor, self.state, way, seconds=self.reactor.seconds, **options)

    def plain(self, session_id: int = 42, **options: Any) -> PlayerClient:
        """A player over plain UDP."""
        return self.player(Plain((HOST, PLAIN), session_id), **options)

    def encrypted(self, session_id: int = 42, **options: Any) -> PlayerClient:
        """A player over netcode."""
        way = Netcode(lambda: self.token(session_id), self.jitter)
        return self.player(way, **options)

    def players_ports(self) -> list[int]:
        """The ports that are open and not the server's."""
        return [number for number in self.reactor.ports if number not in (PLAIN, NETCODE)]

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what is due to be saved is."""
        for _ in range(round(seconds / STEP)):
            self.reactor.advance(STEP)
            self.stepped.settle()
            self.carry()

    def disconnect(self, connection: Connection) -> None:
        """The server ends a connection at once."""
        self.netcode._run.server.disconnect(connection, self.reactor.seconds())
        self.netcode._run.transmit()

    def carry(self) -> None:
        """Bring what was sent where it goes, and what is answered to that."""
        while under_way := self._take():
            back = {seen: number for number, seen in self.translated.items()}
            for datagram, (host, sender), to in under_way:
                number = back.get(to, to)
                if self.is_cut or self.cut_ports & {sender, number}:
                    continue
                if number in self.reactor.ports:
                    source = (host, self.translated.get(sender, sender))
                    self.reactor.ports[number].receive(datagram, source)

    def _take(self) -> list[tuple[bytes, tuple[str, int], int]]:
        """What was sent: the datagram, from where, to which port.

        A port's last words are on their way when it is closed.
        """
        ports = {**self._ports, **self.reactor.ports}
        self._ports = dict(self.reactor.ports)
        return [
            (datagram, (HOST, number), address[1])
            for number, port in ports.items()
            for datagram, address in port.take()
        ]

    def close(self) -> None:
        """Close the ports."""
        for port in list(self.reactor.ports.values()):
            port.stopListening()


class PlayingTestCase(SynchronousTestCase):
    """Tests with a game."""

    def game(self, **options: Any) -> Game:
        """A game that ends with the test."""
        game = Game(**options)
        self.addCleanup(game.close)
        return game

    def joined(self, game: Game, make: Any, **options: Any) -> PlayerClient:
        """A player, made by one of the methods of `Game`, who has joined."""
        player: PlayerClient = make(game, **options)
        joining = player.join()
        game.pass_time(1.0)
        self.successResultOf(joining)
        return player
