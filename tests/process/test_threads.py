"""A real reactor, a real persist thread, a real database and real sockets, where they meet."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall, deferLater

from playerstate import NotSaved, PlayerState, PlayerStateService, StoreUnusable, open_store
from playerstate.conversations.gateway import Gateway
from playerstate.testing import FaultyStore
from playerstate.transports.plain import PlainService
from tests.kit.players import GONE, RECEIPT, SCHEMA, WELCOME, at, read_answer
from tests.kit.support import PATIENCE

THREAD = "playerstate-persist"


def persist_threads() -> list[threading.Thread]:
    """The persist threads that live."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def made(url: str, **options: Any) -> PlayerStateService:
    """A service that has started, on the real reactor."""
    service = PlayerStateService(open_store(url, PlayerState), **options)
    service.startService()
    return service


async def until(holds: Any) -> None:
    """Let the reactor turn until something holds."""
    from twisted.internet import reactor

    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        await deferLater(reactor, 0.005, lambda: None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database of the test's own."""
    return f"sqlite:{tmp_path / 'players.db'}?synchronous=normal"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Every test ends its threads."""
    yield
    deadline = time.monotonic() + PATIENCE
    for thread in persist_threads():
        thread.join(deadline - time.monotonic())
    assert persist_threads() == []


@pytest_twisted.ensureDeferred
async def test_saved_and_restored(url: str) -> None:
    """What a player did is saved by flush, leave and stop, and is there at the next join."""
    service = made(url)
    assert len(persist_threads()) == 1
    joined = await service.join(42)
    assert (joined.state, joined.restored) == (PlayerState(), False)
    for n in range(100):
        service.update(42, at(n))
    await service.flush()
    assert service.ledger.snapshot().pending == 0
    service.update(42, at(100))
    await service.leave(42)
    assert (await service.join(42)).state == at(100)
    service.update(42, at(101))
    await service.stopService()
    assert persist_threads() == []
    assert service.ledger.snapshot().imbalance() == []
    again = made(url)
    joined = await again.join(42)
    assert (joined.state, joined.restored) == (at(101), True)
    await again.stopService()


@pytest_twisted.ensureDeferred
async def test_many_players_through_a_small_ring(url: str) -> None:
    """Reactor and thread pass 2,000 players through a ring of 64, and the books balance after."""
    service = made(url, queue_size=64, save_within=0.5)
    for session_id in range(1, 2001):
        await service.join(session_id)
    for turn in range(20):
        for session_id in range(1, 2001):
            service.update(session_id, at(turn, session_id))
        await until(lambda: True)
    await service.stopService()
    books = service.ledger.snapshot()
    assert books.imbalance() == []
    assert books.pending == 0
    assert books.overflows > 0
    connection = apsw.Connection(service.store.path)  # type: ignore[attr-defined]
    [(players, turns, ids)] = connection.execute(
        "SELECT count(*), sum(x = 19), sum(y = session_id) FROM player_state"
    )
    connection.close()
    assert (players, turns, ids) == (2000, 2000, 2000)


@pytest_twisted.ensureDeferred
async def test_reactor_goes_on_while_the_database_is_locked(url: str) -> None:
    """Invariant 8: another program's lock holds up the save, and nothing on the reactor."""
    service = made(url)
    await service.join(42)
    service.update(42, at(1))
    other = apsw.Connection(service.store.path)  # type: ignore[attr-defined]
    other.execute("BEGIN IMMEDIATE")
    flushed = service.flush()
    turns: list[None] = []
    ticking = LoopingCall(turns.append, None)
    ticking.start(0.005)
    await until(lambda: service.ledger.store_errors.get("StoreBusy", 0) >= 3)
    ticking.stop()
    assert len(turns) > 10
    assert not flushed.called
    service.update(42, at(2))
    assert service.state(42) == at(2)
    other.execute("ROLLBACK")
    await flushed
    other.close()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_deadline_of_a_locked_database(url: str) -> None:
    """A stop over a database that stays locked ends at its deadline, with the lock file free."""
    service = made(url, stop_within=0.2)
    await service.join(42)
    service.update(42, at(1))
    other = apsw.Connection(service.store.path)  # type: ignore[attr-defined]
    other.execute("BEGIN IMMEDIATE")
    left = service.leave(42)
    stopped = service.stopService()
    with pytest.raises(NotSaved, match=r"within 0\.2 s"):
        await left
    await stopped
    assert persist_threads() == []
    other.close()
    again = made(url)
    assert (await again.join(42)).state == PlayerState()
    await again.stopService()


class StuckStore(FaultyStore):
    """A store whose writes wait until they are let go.

    Attributes:
        entered: set when a write waits.
        let_go: lets it go on.
    """

    def __init__(self) -> None:
        super().__init__(SCHEMA)
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def write(self, records: Any) -> Any:
        """See `IStateWriter.write`."""
        self.entered.set()
        self.let_go.wait(PATIENCE)
        return super().write(records)


@pytest_twisted.ensureDeferred
async def test_thread_stuck_in_a_write() -> None:
    """A write that never ends does not hold up a stop; when it ends late, nothing breaks."""
    store = StuckStore()
    service = PlayerStateService(store, stop_within=0.1)
    service.startService()
    await service.join(42)
    service.update(42, at(1))
    flushed = service.flush()
    await until(store.entered.is_set)
    stopped = service.stopService()
    with pytest.raises(NotSaved):
        await flushed
    await stopped
    assert len(persist_threads()) == 1
    store.let_go.set()
    await until(lambda: persist_threads() == [])
    assert len(store.players) == 1


@pytest_twisted.ensureDeferred
async def test_newest_while_a_write_is_running() -> None:
    """Invariant 9: a join during the leave's write, on the other thread, gets the newest state."""
    store = StuckStore()
    service = PlayerStateService(store)
    service.startService()
    await service.join(42)
    service.update(42, at(1))
    left = service.leave(42)
    await until(store.entered.is_set)
    assert (await service.join(42)).state == at(1)
    service.update(42, at(2))
    store.let_go.set()
    await left
    assert service.state(42) == at(2)
    await service.stopService()
    assert store.players[42].values == (2.0, 0.0)


@pytest_twisted.ensureDeferred
async def test_locked_by_another_server(url: str) -> None:
    """A second server on the same database does not start; with the first stopped it does."""
    first = made(url)
    second = PlayerStateService(open_store(url, PlayerState))
    with pytest.raises(StoreUnusable, match="is in use by process"):
        second.startService()
    assert len(persist_threads()) == 1
    await first.stopService()
    second.startService()
    await second.stopService()


class Ear(DatagramProtocol):
    """A client's socket.

    Attributes:
        heard: the answers, as tuples.
    """

    def __init__(self, port: int) -> None:
        self.server = ("127.0.0.1", port)
        self.heard: list[tuple[Any, ...]] = []

    def say(self, message: bytes) -> None:
        """Send a message of player 42."""
        assert self.transport is not None
        self.transport.write(struct.pack("<QI", 42, 7) + message, self.server)

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """An answer came."""
        assert datagram[:8] == struct.pack("<Q", 42)
        self.heard.append(read_answer(datagram[12:]))


@pytest_twisted.ensureDeferred
async def test_over_real_sockets(url: str) -> None:
    """A whole conversation over loopback: JOIN, MOVE, receipts, and the last ones at the stop."""
    from twisted.internet import reactor

    service = made(url, save_within=0.2)
    transport = PlainService(Gateway(service), 0)
    transport.startService()
    ear = Ear(transport.port)
    port: Any = reactor.listenUDP(0, ear, "127.0.0.1")  # type: ignore[attr-defined]
    ear.say(struct.pack("<BBIIIQ", 1, 1, 0, 7, 0, 0).ljust(248, b"\0"))
    await until(lambda: ear.heard)
    assert ear.heard == [(WELCOME, 0, 7, 0, 350.0, 200.0)]
    for sequence in range(1, 4):
        ear.say(struct.pack("<BIdd", 2, sequence, sequence, 0.0))
    await until(lambda: (RECEIPT, 3, 3) in ear.heard)
    ear.say(struct.pack("<BIdd", 2, 4, 4.0, 0.0))
    await until(lambda: service.state(42) == at(4))
    closed: Deferred[Any] = ensureDeferred(_stop_both(transport, service))
    await closed
    await until(lambda: (GONE, 7, 4) in ear.heard)
    assert (RECEIPT, 4, 4) in ear.heard
    assert service.ledger.snapshot().imbalance() == []
    await port.stopListening()


async def _stop_both(transport: PlainService, service: PlayerStateService) -> None:
    closed = transport.stopService()
    stopped = service.stopService()
    await closed
    await stopped


@pytest_twisted.ensureDeferred
async def test_leaving_when_the_stop_comes(url: str) -> None:
    """Who was just leaving when the stop came hears the last receipt through the real port."""
    from twisted.internet import reactor

    service = made(url)
    transport = PlainService(Gateway(service), 0)
    transport.startService()
    ear = Ear(transport.port)
    port: Any = reactor.listenUDP(0, ear, "127.0.0.1")  # type: ignore[attr-defined]
    ear.say(struct.pack("<BBIIIQ", 1, 1, 0, 7, 0, 0).ljust(248, b"\0"))
    ear.say(struct.pack("<BIdd", 2, 1, 1.0, 0.0))
    ear.say(struct.pack("<BI31x", 3, 1))
    await until(lambda: (RECEIPT, 1, 0) in ear.heard)
    await _stop_both(transport, service)
    await until(lambda: (RECEIPT, 1, 1) in ear.heard)
    await port.stopListening()
