"""What tests of the service and of conversations share: a service that is told, a client."""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Sequence, Set
from typing import Any

import attrs
import numpy as np
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from playerstate import PlayerState, StateSchema
from playerstate.conversations.gateway import Gateway, Run
from playerstate.conversations.intake import BATCH_MIN
from playerstate.interfaces import IFileStore, Records, RowRefused, Stored, StoreReplaced
from playerstate.ledger import Outcome
from playerstate.live.leftover import Leftover
from playerstate.live.memory import AnonymousMemory
from playerstate.players import service as service_module
from playerstate.players.service import PlayerStateService
from playerstate.state.layout import RowLayout
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


@implementer(IFileStore)
class FragileStore(FaultyStore):
    """A store that is replaced when told, and that can never take some players.

    Attributes:
        cursed: players whose rows are refused, without a word of which they are.
        aside: what was set aside, as (session id, reason).
        successor: what has taken its place and was not gone over to as yet; None for nothing.
        reopen_failures: raised by the next tries to go over to it, one each.
        lost: what going over to it returns.
        reopened: the identity and the players online of each time that it was.
        readers: every reader opened, in order.
        writers_closed: how often the writer was closed.
    """

    path = "players.db"
    files: tuple[str, ...] = ("players.db",)
    live_path = "players.db.live"

    def __init__(self, lanes: int = 1) -> None:
        super().__init__(SCHEMA, lanes)
        self.cursed: set[int] = set()
        self.aside: list[tuple[int, str]] = []
        self.successor: dict[int, Stored] | None = None
        self.reopen_failures: deque[Exception] = deque()
        self.lost: list[int] | None = []
        self.reopened: list[tuple[bytes, frozenset[int]]] = []
        self.readers: list[FragileReader] = []
        self.writers_closed = 0

    def open_reader(self) -> Any:
        """A reader of what is there now."""
        self.readers.append(FragileReader(self.players))
        return self.readers[-1]

    def hold_reads(self) -> None:
        """From now on, the reader of now answers by Deferreds, when `answer_reads` is called."""
        self.readers[-1].held = []

    def answer_reads(self) -> None:
        """Answer the reads that are held."""
        reader = self.readers[-1]
        for session_id, answer in reader.held or []:
            answer.callback(reader.players.get(session_id))

    def write(self, records: Records) -> Any:
        """See `IStateWriter.write`."""
        if self.cursed & set(records["session_id"].tolist()):
            raise RowRefused("not this one")
        return super().write(records)

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """See `IStateWriter.quarantine`."""
        self.aside += zip(records["session_id"].tolist(), reasons, strict=True)

    def maintain(self) -> None:
        """Find out that it was replaced."""
        if self.successor is not None:
            raise StoreReplaced("players.db was removed or replaced")

    def reopen(self, identity: bytes, online: Set[int]) -> list[int] | None:
        """See `IFileStore.reopen`."""
        if self.reopen_failures:
            raise self.reopen_failures.popleft()
        assert self.successor is not None
        self.players, self.successor = self.successor, None
        self.reopened.append((identity, frozenset(online)))
        return self.lost

    def close(self) -> None:
        """The writer or the store itself; what is stored stays."""
        self.writers_closed += 1


class FragileReader:
    """A reader of the players of one time.

    Attributes:
        closed: whether it was.
    """

    def __init__(self, players: dict[int, Stored]) -> None:
        self.players = players
        self.closed = False
        self.held: list[tuple[int, Deferred[Stored | None]]] | None = None

    def load(self, session_id: int) -> Stored | Deferred[Stored | None] | None:
        """See `IStateReader.load`."""
        assert not self.closed
        if self.held is not None:
            answer: Deferred[Stored | None] = Deferred()
            self.held.append((session_id, answer))
            return answer
        return self.players.get(session_id)

    def close(self) -> None:
        """See `IStateReader.close`."""
        self.closed = True


class FoundMemory(AnonymousMemory):
    """A memory in which a process before left these players' states.

    Args:
        players: as a store would hold them.

    Attributes:
        forgotten: how often it was told that they are saved.
        closes: whether it was clean each time it was closed.
    """

    def __init__(self, players: dict[int, Stored]) -> None:
        layout = RowLayout(SCHEMA.fields)
        rows = np.zeros(len(players), layout.dtype)
        records = rows.view(layout.record)
        for record, session_id in zip(records, sorted(players), strict=True):
            stored = players[session_id]
            record["session_id"] = session_id
            record["x"], record["y"] = stored.values
            record["updated_at"] = stored.updated_at
        self.leftover: Leftover | None = Leftover(bytes(16), False, tuple(SCHEMA.fields), records)
        self.forgotten = 0
        self.closes: list[bool] = []

    def claim(self, identity: bytes) -> Any:
        """See `RowMemory.claim`."""
        return self.leftover

    def discard(self) -> None:
        """See `RowMemory.discard`."""
        self.leftover = None
        self.forgotten += 1

    def close(self, clean: bool) -> None:
        """See `RowMemory.close`."""
        self.closes.append(clean)


def leave_behind(case: SynchronousTestCase, players: dict[int, Stored]) -> FoundMemory:
    """Have the services made from now on find what a process before left."""
    memory = FoundMemory(players)
    case.patch(service_module, "AnonymousMemory", lambda: memory)
    return memory


def stop_within(service: PlayerStateService, seconds: float) -> None:
    """Give the next stop of a service that runs so many seconds."""
    service.run.options = attrs.evolve(service.run.options, stop_within=seconds)


def look_after(stepped: SteppedService) -> None:
    """Let the persist thread look after the store, as it does once a second while idle."""
    stepped.thread.persister._maintain()
    stepped.reactor.deliver()
    go_over(stepped)


def go_over(stepped: SteppedService) -> None:
    """Let the persist thread go over to a store that took another's place, if it is to."""
    for thread in stepped.threads:
        if thread.persister._reopen is not None:
            thread.persister.step()
            stepped.reactor.deliver()


def die(stepped: SteppedService, error: BaseException) -> float:
    """Let the persist thread, which must have something to do, die of an error.

    Returns:
        How long it would have rested first, in seconds.
    """
    persister = stepped.thread.persister
    rest = persister._first_rest()
    assert persister._in_hand or persister._ring.depth, "it would sleep for ever"
    stepped.store.failures.append(error)
    stepped.thread._run()
    stepped.reactor.deliver()
    return rest


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


WELCOME, RECEIPT, REFUSED, GONE, STATE = "welcome", "receipt", "refused", "gone", "state"
RESTORED, OVERRIDDEN = 1, 2
JOIN_SIZE = 248


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
        self.nonce = 1
        self.secret = 0

    def framed(self, message: bytes) -> bytes:
        """The datagram with this message."""
        return struct.pack("<QI", self.session_id, self.nonce) + message

    def send(self, message: bytes) -> None:
        """A message, as a datagram of this client."""
        self.port.receive(self.framed(message), self.address)

    def join(
        self,
        nonce: int = 1,
        sequence: int = 0,
        *,
        version: int = 1,
        fingerprint: int = 0,
        size: int = JOIN_SIZE,
        secret: int = 0,
    ) -> None:
        """A JOIN of so many bytes; what follows is of its conversation."""
        self.nonce = nonce
        head = struct.pack("<BBIIIQ", 0x01, version, fingerprint, nonce, sequence, secret)
        self.send(head[:size].ljust(size, b"\0"))

    def move(self, sequence: int, x: float, y: float = 0.0) -> None:
        """A MOVE."""
        self.send(struct.pack("<BIdd", 0x02, sequence, x, y))

    def leave(self, sequence: int) -> None:
        """A LEAVE."""
        self.send(struct.pack("<BI31x", 0x03, sequence))

    def ping(self, sequence: int) -> None:
        """A PING."""
        self.send(struct.pack("<BI4x", 0x04, sequence))

    def seen(self, number: int, sequence: int) -> None:
        """A SEEN."""
        self.send(struct.pack("<BQI13x", 0x06, number, sequence))

    def heard(self) -> list[tuple[Any, ...]]:
        """What was sent to this client since the last time, as tuples that begin with a name."""
        mine, others = [], []
        for datagram, address in self.port.take():
            if address == self.address and datagram[:8] == struct.pack("<Q", self.session_id):
                if datagram[12] == 0x81:
                    self.secret = struct.unpack_from("<Q", datagram, 26)[0]
                mine.append(read_answer(datagram[12:]))
            else:
                others.append((datagram, address))
        self.port.sent.extend(others)
        return mine

    def receipts(self) -> list[tuple[int, int]]:
        """The numbers of the receipts among what was heard."""
        return [answer[1:] for answer in self.heard() if answer[0] == RECEIPT]

    def states(self) -> list[tuple[int, int, float, float]]:
        """Flags, number and fields of the STATEs among what was heard."""
        return [answer[1:] for answer in self.heard() if answer[0] == STATE]


def read_answer(message: bytes) -> tuple[Any, ...]:
    """A server's message: ``(name, ...)`` with what stands in its body."""
    kind = message[0]
    if kind == 0x81:
        return (WELCOME, *struct.unpack("<BIQ8xdd", message[1:]))
    if kind == 0x82:
        return (RECEIPT, *struct.unpack("<II", message[1:]))
    if kind == 0x85:
        return (STATE, *struct.unpack("<BQdd", message[1:]))
    return ({0x83: REFUSED, 0x84: GONE}[kind], *struct.unpack("<IB", message[1:]))


def move(
    service: PlayerStateService, session_id: int, sequence: int, values: tuple[Any, ...]
) -> bool:
    """A move of a player online, applied and counted, without a conversation.

    Returns:
        Whether it was applied; False for a stale one.
    """
    slot = service.table.slots[session_id]
    was_clean = service.table.apply(slot, sequence, values, service.run.wall_clock() // 1000 & -2)
    service.ledger.take_in(Outcome.STALE if was_clean is None else Outcome.APPLIED)
    service.ledger.superseded += was_clean is False
    return was_clean is not None


def run_of(gateway: Gateway) -> Run:
    """What a started gateway is made of."""
    assert gateway._run is not None, "the gateway is not started"
    return gateway._run


class GatewayTestCase(ServiceTestCase):
    """Tests that speak to the gateway through the plain transport, over a port in memory.

    Attributes:
        stepped, gateway, plain, port: made by `open`.
    """

    def open(
        self,
        *,
        idle_timeout: float = 30.0,
        jitter: float = 0.0,
        batch_min: int = BATCH_MIN,
        judges: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        """Start a server; `options` are `SteppedService`'s."""
        self.stepped = self.start(**options)
        self.service = self.stepped.service
        self.gateway = Gateway(
            self.service,
            idle_timeout=idle_timeout,
            judges=judges,
            jitter=lambda: jitter,
            draw_secret=itertools.count(1).__next__,
        )
        self.gateway._batch_min = batch_min
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
