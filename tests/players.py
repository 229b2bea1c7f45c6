"""What tests of the service and of conversations share: a service that is told, a client."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema
from playerstate.gateway import Gateway
from playerstate.testing import Address, FaultyStore, MemoryPort, SteppedService
from playerstate.transports.plain import PlainService

SCHEMA = StateSchema.of(PlayerState)


def at(x: float, y: float = 0.0) -> PlayerState:
    """A state, shortly."""
    return PlayerState(float(x), float(y))


class ServiceTestCase(SynchronousTestCase):
    """Tests of a `SteppedService`: what was logged, and books that balance at the end.

    Attributes:
        events: everything logged since the test began.
    """

    def setUp(self) -> None:
        """Listen to the log."""
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def start(self, **options: Any) -> SteppedService:
        """A started service whose books must balance when the test is over (invariant 7)."""
        stepped = SteppedService(**options)
        self.addCleanup(self.check_books, stepped)
        return stepped

    def check_books(self, stepped: SteppedService) -> None:
        """Invariant 7: every update received is accounted for."""
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])

    def told(self, text: str = "", level: LogLevel | None = None) -> list[str]:
        """The log lines with this text, of this level."""
        lines = [
            formatEvent(event) for event in self.events if level in (None, event.get("log_level"))
        ]
        return [line for line in lines if text in line]

    def stored(self, stepped: SteppedService) -> dict[int, tuple[Any, ...]]:
        """What the store holds, by session id."""
        return {key: stored.values for key, stored in stepped.store.players.items()}

    def waits(self, *deferreds: Deferred[Any]) -> None:
        """None of them has a result yet."""
        for deferred in deferreds:
            self.assertNoResult(deferred)


class SlowStore(FaultyStore):
    """A store each of whose writes takes time, while which the reactor goes on.

    Attributes:
        seconds: how long the next writes take.
        stepped: the service that writes here.
    """

    stepped: SteppedService

    def __init__(self) -> None:
        super().__init__(SCHEMA)
        self.seconds = 0.0

    def write(self, records: Any) -> Any:
        """See `IStateWriter.write`."""
        self.stepped.reactor.advance(self.seconds)
        return super().write(records)


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """A list that the result will be put into; of a failure, its exception."""
    results: list[Any] = []

    def note(result: Any) -> None:
        results.append(result.value if isinstance(result, Failure) else result)

    deferred.addBoth(note)
    return results


def end_thread(stepped: SteppedService) -> None:
    """Let the persist thread end, which was told to; otherwise it would sleep for ever."""
    persister = stepped.thread.persister
    assert persister._finishing or persister._abandoned.is_set()
    stepped.thread.run()
    stepped.reactor.deliver()


WELCOME, RECEIPT, REFUSED, GONE = "welcome", "receipt", "refused", "gone"
WELCOME_SIZE = 30


class Client:
    """A player's client for the default state, written from the wire format alone.

    Args:
        port: the server's port.
        session_id: whose client it is.
        address: where it is.
    """

    def __init__(
        self, port: MemoryPort, session_id: int = 42, address: Address = ("192.0.2.1", 1001)
    ) -> None:
        self.port = port
        self.session_id = session_id
        self.address = address

    def send(self, message: bytes) -> None:
        """A message, as a datagram of this client."""
        self.port.receive(struct.pack("<Q", self.session_id) + message, self.address)

    def join(
        self,
        nonce: int = 1,
        sequence: int = 0,
        *,
        version: int = 1,
        fingerprint: int = 0,
        size: int = WELCOME_SIZE,
    ) -> None:
        """A JOIN of so many bytes."""
        self.send(
            struct.pack("<BBIII", 0x01, version, fingerprint, nonce, sequence).ljust(size, b"\0")
        )

    def move(self, sequence: int, x: float, y: float = 0.0) -> None:
        """A MOVE."""
        self.send(struct.pack("<BIdd", 0x02, sequence, x, y))

    def leave(self, sequence: int) -> None:
        """A LEAVE."""
        self.send(struct.pack("<BI", 0x03, sequence))

    def ping(self, sequence: int) -> None:
        """A PING."""
        self.send(struct.pack("<BI", 0x04, sequence))

    def heard(self) -> list[tuple[Any, ...]]:
        """What was sent to this client since the last time, as tuples that begin with a name."""
        mine, others = [], []
        for datagram, address in self.port.take():
            if address == self.address and datagram[:8] == struct.pack("<Q", self.session_id):
                mine.append(read_answer(datagram[8:]))
            else:
                others.append((datagram, address))
        self.port.sent.extend(others)
        return mine

    def receipts(self) -> list[tuple[int, int]]:
        """The numbers of the receipts among what was heard."""
        return [answer[1:] for answer in self.heard() if answer[0] == RECEIPT]


def read_answer(message: bytes) -> tuple[Any, ...]:
    """A server's message: ``(name, ...)`` with what stands in its body."""
    kind = message[0]
    if kind == 0x81:
        return (WELCOME, *struct.unpack("<BIQdd", message[1:]))
    if kind == 0x82:
        return (RECEIPT, *struct.unpack("<II", message[1:]))
    return ({0x83: REFUSED, 0x84: GONE}[kind], *struct.unpack("<IB", message[1:]))


class GatewayTestCase(ServiceTestCase):
    """Tests that speak to the gateway through the plain transport, over a port in memory.

    Attributes:
        stepped, gateway, plain, port: made by `open`.
    """

    def open(self, *, idle_timeout: float = 30.0, jitter: float = 0.0, **options: Any) -> None:
        """Start a server; `options` are `SteppedService`'s."""
        self.stepped = self.start(**options)
        self.service = self.stepped.service
        self.gateway = Gateway(self.service, idle_timeout=idle_timeout, jitter=lambda: jitter)
        self.plain = PlainService(self.gateway, 7777, reactor=self.stepped.reactor)
        self.plain.startService()
        self.port = self.stepped.reactor.ports[7777]
        self.addCleanup(self.port.stopListening)

    def client(self, session_id: int = 42, host: int = 1) -> Client:
        """A client that has not joined."""
        return Client(self.port, session_id, (f"192.0.2.{host}", 1000 + host))

    def joined(self, session_id: int = 42, host: int = 1, sequence: int = 0) -> Client:
        """A client that has joined, with nonce 1, and heard its WELCOME."""
        client = self.client(session_id, host)
        client.join(1, sequence)
        self.assertEqual(client.heard()[0][0], WELCOME)
        return client

    def advance(self, seconds: float) -> None:
        """Let time pass in steps of 10 ms, and the persist thread work in between."""
        for _ in range(round(seconds / 0.01)):
            self.stepped.reactor.advance(0.01)
            self.stepped.settle()

    def idle(self, seconds: float) -> None:
        """Let time pass in steps of 10 ms, while the persist thread stands still."""
        for _ in range(round(seconds / 0.01)):
            self.stepped.reactor.advance(0.01)

    @property
    def books(self) -> Any:
        """The counters as they are now."""
        return self.service.ledger.snapshot()
