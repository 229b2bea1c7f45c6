"""What tests of the netcode core share: a server on a table, tokens, and a network between."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.client import Client, State
from playerstate.transports.netcode.connections import Connection, Source
from playerstate.transports.netcode.events import (
    Connected,
    Disconnected,
    Event,
    Replaced,
    TimedOut,
)
from playerstate.transports.netcode.limits import Rate
from playerstate.transports.netcode.packets import DISCONNECT, TO_CLIENT, Seals, read_header
from playerstate.transports.netcode.requests import make_request
from playerstate.transports.netcode.server import Server
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tokens import ConnectToken, PrivateToken

KEY = bytes(range(32))
PROTOCOL_ID = 0x1122334455667788
ADDRESS = Address.parse("203.0.113.7:40000")
EPOCH = 1_700_000_000
"""The wall clock at second 0, in seconds since the Unix epoch."""
TICK = 1 / 32
"""Seconds between two ticks; a power of two, so that times add up without rounding."""
MANY = Rate(1e6, 10**6)
"""A rate that no test reaches."""


def source(number: int = 1, port: int = 5000) -> Source:
    """A source of datagrams."""
    return (f"192.0.2.{number}", port, "port")


def make_token(
    client_id: int = 42,
    *,
    key: bytes = KEY,
    protocol_id: int = PROTOCOL_ID,
    addresses: tuple[Address, ...] = (ADDRESS,),
    private_addresses: tuple[Address, ...] | None = None,
    created_at: int = EPOCH + 10,
    lifetime: int = 30,
    timeout: int = 5,
    user_data: bytes = b"",
    seed: int = 0,
) -> ConnectToken:
    """A connect token, made from its parts alone; another seed gives other keys and another tag."""
    draw = random.Random(f"{client_id} {seed}").randbytes
    keys = draw(32), draw(32)
    private = PrivateToken(
        client_id,
        timeout,
        addresses if private_addresses is None else private_addresses,
        *keys,
        user_data.ljust(256, b"\0"),
    )
    nonce, expires_at = draw(24), created_at + lifetime
    sealed = private.seal(key, protocol_id, expires_at, nonce)
    return ConnectToken(
        protocol_id, created_at, expires_at, nonce, sealed, timeout, addresses, *keys
    )


def request_of(token: ConnectToken) -> bytes:
    """The request that a client with this token sends."""
    return make_request(token)


def opened(datagram: bytes, token: ConnectToken) -> tuple[int, int, bytes]:
    """Kind, sequence and body of a packet that a server sent to the holder of a token."""
    kind, sequence, at = read_header(datagram, TO_CLIENT)
    cipher = ChaCha20Poly1305(token.server_to_client_key)
    return kind, sequence, Seals(PROTOCOL_ID).open(cipher, datagram, sequence, at)


NAMES: dict[type[Event], str] = {
    Connected: "connected",
    Replaced: "replaced",
    Disconnected: "disconnected",
    TimedOut: "timed out",
}
"""The names of events in records."""


class Driver:
    """Drives a server: carries out its events, sends its datagrams, and records both.

    Attributes:
        server: the server.
        now: the time.
        sent: datagrams, with where they go.
        events: what happened, each a tuple that begins with a name.
    """

    server: Server
    now: float
    sent: deque[tuple[bytes, Source]]
    events: list[tuple[Any, ...]]

    def carry_out(self, events: Sequence[Event] = ()) -> None:
        """Record the events, and send what is to be sent."""
        for connection, payload in zip(*self.server.payloads(), strict=True):
            self.events.append(("received", connection.client_id, payload))
        for event in events:
            self.events.append((NAMES[type(event)], event.connection.client_id))
            if isinstance(event, Replaced):
                self.server.disconnect(event.connection, self.now)
        self.sent.extend(self.server.datagrams_to_send())

    def send(self, connection: Connection, payload: bytes) -> None:
        """Send a payload to a client."""
        self.server.send(connection, payload, self.now)
        self.carry_out()

    def disconnect(self, connection: Connection, after: float = 0.0) -> None:
        """Disconnect a client."""
        self.server.disconnect(connection, self.now, after)
        self.carry_out()

    def tick(self) -> None:
        """One tick."""
        self.carry_out(self.server.tick(self.now))

    def take_in(self, datagram: bytes, source: Source) -> None:
        """Let a datagram arrive."""
        self.carry_out(self.server.receive(datagram, source, self.now))

    def stop(self) -> None:
        """Stop the server."""
        self.server.stop(self.now)
        self.carry_out()


class Table(Driver):
    """A server whose clocks are set by the test.

    Attributes:
        now: the time; the wall clock goes with it.
        wall_step: seconds by which the wall clock was stepped.
    """

    def __init__(
        self, *, key: bytes = KEY, start: float = 0.0, seed: int = 0, **settings: Any
    ) -> None:
        self.now = start
        self.wall_step = 0.0
        settings.setdefault("slots", 4)
        settings.setdefault("protocol_id", PROTOCOL_ID)
        settings.setdefault("addresses", frozenset((ADDRESS,)))
        self.settings = NetcodeSettings(key, **settings)
        self.start(seed)

    def start(self, seed: int = 0) -> None:
        """Start a server; each call starts another one without any state."""
        self.sent, self.events = deque(), []
        self.server = Server(
            self.settings,
            now=self.now,
            wall_clock=self.wall_clock,
            random_bytes=random.Random(seed).randbytes,
        )

    def wall_clock(self) -> float:
        """Seconds since the Unix epoch."""
        return EPOCH + self.now + self.wall_step

    def receive(self, datagram: bytes, source: Source = source()) -> list[bytes]:  # noqa: B008
        """Let a datagram arrive; return what is sent to its source because of it.

        Nothing else is, but for the ten disconnects of a connection that was replaced, which may
        have been at this source.
        """
        before, events = len(self.sent), len(self.events)
        self.take_in(datagram, source)
        answers = [self.sent[n] for n in range(before, len(self.sent))]
        elsewhere = [answer for answer, to in answers if to != source]
        if any(event[0] == "replaced" for event in self.events[events:]):
            ended = elsewhere or [answer for answer, _ in answers[-10:]]
            assert [answer[0] & 0x0F for answer in ended] == [DISCONNECT] * 10
        else:
            assert not elsewhere
        return [answer for answer, to in answers if to == source]

    def why(self, datagram: bytes, source: Source = source()) -> str:  # noqa: B008
        """Let a datagram arrive that is ignored, without an answer or event; return the reason."""
        before = self.server.tally.ignored.copy()
        events = len(self.events)
        assert self.receive(datagram, source) == []
        assert len(self.events) == events
        [reason] = self.server.tally.ignored - before
        return reason

    @property
    def state(self) -> tuple[Any, ...]:
        """The server's state of clients and tokens; no ignored datagram may change it."""
        server = self.server
        handshake, history = server._handshake, server._handshake._history
        return (
            [
                (
                    *(c.client_id, c.source, c.slot, c.sequence, c.is_confirmed),
                    *(c.heard_at, c.spoke_at, c.payload_at, c.payloads_full_at),
                    *(c.window.newest, c.window._seen),
                )
                for c in server.connections
            ],
            [(source, half.tag, half.lapses_at) for source, half in handshake.half_open.items()],
            # Those that have expired go whenever the history is looked at.
            {
                tag: (history._entries[tag].source, history._entries[tag].consumed)
                for expires_at, tag in history._expiries
                if expires_at > self.wall_clock()
            },
            (
                server._outgoing._global_sequence,
                handshake._challenges._sequence,
                sorted(server._roster._free_slots),
            ),
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with its ticks."""
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.tick()

    def player(self, token: ConnectToken, source: Source = source()) -> Player:  # noqa: B008
        """A client with this token, at a source."""
        return Player(self, token, source)

    def connected(self, client_id: int = 42, number: int = 1, **token: Any) -> Player:
        """A connected client that has received the keep-alive."""
        token.setdefault("created_at", int(self.wall_clock()))
        player = self.player(make_token(client_id, **token), source(number))
        player.connect()
        return player


class Player:
    """A client of the server, over a network without loss.

    Attributes:
        client: its core.
        heard: the payloads received.
        log: everything that it sent.
    """

    def __init__(self, table: Table, token: ConnectToken, source: Source) -> None:
        self.table = table
        self.token = token
        self.source = source
        self.client = Client(token.pack(), table.now)
        self.heard: list[bytes] = []
        self.log: list[bytes] = []

    def say(self, datagram: bytes | None) -> None:
        """Send a datagram, and receive the answers."""
        if datagram is not None:
            self.log.append(datagram)
            self.table.receive(datagram, self.source)
        self.hear()

    def hear(self) -> None:
        """Receive what was sent here."""
        others: list[tuple[bytes, Source]] = []
        while self.table.sent:
            datagram, to = self.table.sent.popleft()
            if to != self.source:
                others.append((datagram, to))
                continue
            payload = self.client.receive(datagram, self.client.server, self.table.now)
            if payload is not None:
                self.heard.append(payload)
        self.table.sent.extend(others)

    def turn(self) -> None:
        """One tick: receive, and send what is due."""
        self.hear()
        self.say(self.client.due(self.table.now))

    def response(self) -> bytes:
        """The response to the challenge that came, a second later; it is not sent."""
        self.table.now += 1.0
        response = self.client.due(self.table.now)
        assert response is not None
        assert self.client.state == State.SENDING_RESPONSE
        return response

    def pass_time(self, seconds: float) -> None:
        """Let time pass for both ends."""
        for _ in range(round(seconds / TICK)):
            self.table.pass_time(TICK)
            self.turn()

    def connect(self) -> None:
        """Connect."""
        self.turn()
        self.pass_time(0.25)
        assert self.client.state == State.CONNECTED, self.client.state

    def send(self, payload: bytes) -> bytes:
        """Send a payload; return its datagram."""
        datagram = self.client.send(payload, self.table.now)
        self.say(datagram)
        return datagram

    @property
    def connection(self) -> Connection:
        """The server's end."""
        [found] = [c for c in self.table.server.connections if c.source == self.source]
        return found


class ServerTestCase(SynchronousTestCase):
    """Tests of a server that has run for a while, so that tokens made now are accepted."""

    def table(self, *, start: float = 0.0, age: float = 40.0, **settings: Any) -> Table:
        """A server of that age."""
        table = Table(start=start, **settings)
        table.now += age
        return table

    def token(self, table: Table, client_id: int = 42, **token: Any) -> ConnectToken:
        """A fresh token."""
        return make_token(client_id, created_at=int(table.wall_clock()), **token)

    def half_open(self, table: Table, client_id: int = 42, **token: Any) -> Player:
        """A player who was challenged and has not answered."""
        player = table.player(self.token(table, client_id, **token), source(client_id % 250))
        player.turn()
        assert player.client.state == State.SENDING_RESPONSE
        return player


class Link:
    """One direction of a network that loses, doubles, delays and so reorders.

    Args:
        draw: random numbers.
        deliver: is given what arrives.
        loss: the part that is lost.
    """

    def __init__(
        self, draw: random.Random, deliver: Callable[..., None], loss: float = 0.2
    ) -> None:
        self._draw = draw
        self._deliver = deliver
        self._loss = loss
        self._under_way: list[tuple[float, int, tuple[Any, ...]]] = []
        self._number = 0

    def send(self, now: float, *what: Any) -> None:
        """Send something."""
        if self._draw.random() < self._loss:
            return
        for _ in range(1 + (self._draw.random() < 0.1)):
            self._number += 1
            self._under_way.append((now + self._draw.uniform(0.01, 0.2), self._number, what))

    def deliver(self, now: float) -> None:
        """Deliver what has arrived."""
        for arrival in sorted(self._arrived(now)):
            self._deliver(*arrival[2])

    def _arrived(self, now: float) -> Iterator[tuple[float, int, tuple[Any, ...]]]:
        arrived = [each for each in self._under_way if each[0] <= now]
        self._under_way = [each for each in self._under_way if each[0] > now]
        return iter(arrived)
