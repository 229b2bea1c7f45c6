"""For tests of embedding programs, and for our own: no threads, no sockets, no waiting.

`SteppedService` is the real service over a real ring and a real store; the test advances its clock
and steps its persist thread::

    stepped = SteppedService()
    stepped.join(42)
    stepped.service.update(42, PlayerState(1.0, 2.0))
    flushed = stepped.service.flush()
    stepped.settle()
    assert flushed.called

`StoreContract` is what a store of your own must do, as tests.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorFromThreads,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from playerstate.interfaces import IStateStore, LeftOut, Records, Stored
from playerstate.players.service import Joined, PlayerStateService
from playerstate.runtime import Runtime
from playerstate.saving.persister import Persister
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema
from playerstate.stores.contract.whole import StoreContract
from playerstate.stores.memory import MemoryStore

__all__ = [
    "EPOCH",
    "FaultyStore",
    "MemoryPort",
    "MemoryReactor",
    "SteppedService",
    "SteppedThread",
    "StoreContract",
]

Address = tuple[str, int]

EPOCH = 1_700_000_000
"""The wall clock of a `SteppedService` at second 0, in seconds since the Unix epoch."""


@implementer(IReactorFromThreads, IReactorUDP)
class MemoryReactor(Clock):
    """A `Clock` that also takes calls from threads and opens UDP ports, all in memory.

    Attributes:
        ports: the ports that are open, by number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[int, MemoryPort] = {}
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = deque()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Queue a call for the next `deliver` or `advance`; any thread."""
        self._calls.append((callable, args, kwargs))

    def callWhenRunning(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Make the call at once, since this reactor always runs."""
        callable(*args, **kwargs)

    def addSystemEventTrigger(self, *event: Any, **kwargs: Any) -> object:
        """Note nothing: this reactor never stops."""
        return object()

    def removeSystemEventTrigger(self, trigger: object) -> None:
        """Forget nothing."""

    def deliver(self) -> None:
        """Make the calls that came from threads."""
        while self._calls:
            function, args, kwargs = self._calls.popleft()
            function(*args, **kwargs)

    def advance(self, amount: float) -> None:
        """Make the calls that came from threads, then let time pass."""
        self.deliver()
        super().advance(amount)

    def listenUDP(
        self,
        port: int,
        protocol: DatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
    ) -> MemoryPort:
        """Open a port in memory; 0 takes the lowest free number from 49152 up."""
        if port == 0:
            port = next(number for number in count(49_152) if number not in self.ports)
        if port in self.ports:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        self.ports[port] = MemoryPort(self, port, protocol, interface, maxPacketSize)
        protocol.makeConnection(self.ports[port])
        return self.ports[port]


@implementer(IListeningPort, IUDPTransport)
class MemoryPort:
    """A UDP port in memory.

    Attributes:
        sent: datagrams written and not yet taken, as (datagram, address).
    """

    maxThroughput = 256 * 1024

    def __init__(
        self,
        reactor: MemoryReactor,
        number: int,
        protocol: DatagramProtocol,
        interface: str,
        max_packet_size: int,
    ) -> None:
        self._reactor = reactor
        self._number = number
        self._protocol = protocol
        self._interface = interface
        self._max_packet_size = max_packet_size
        self._open = True
        self._handle = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sent: deque[tuple[bytes, Address]] = deque()

    def receive(self, datagram: bytes, address: Address) -> None:
        """Deliver a datagram, truncated to the packet size as by a real port; lost if closed."""
        if not self._open:
            return
        self._protocol.datagramReceived(datagram[: self._max_packet_size], address)

    def receive_many(self, datagrams: list[bytes], addresses: list[Address]) -> None:
        """Deliver datagrams together to a `playerstate.transports.recvmmsg.BatchProtocol`."""
        if not self._open:
            return
        cut = [datagram[: self._max_packet_size] for datagram in datagrams]
        self._protocol.datagrams_received(cut, addresses)  # type: ignore[attr-defined]

    def take(self) -> list[tuple[bytes, Address]]:
        """The datagrams sent since the last call, as (datagram, address)."""
        taken = list(self.sent)
        self.sent.clear()
        return taken

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """See `IUDPTransport.write`."""
        assert addr is not None
        assert self._open, "the port is closed"
        self.sent.append((packet, addr))

    def startListening(self) -> None:
        """Does nothing: the port listens since it was made."""

    def connect(self, host: str, port: int) -> None:
        """Not supported."""
        raise NotImplementedError("a port in memory is not connected")

    def getHost(self) -> IPv4Address:
        """See `IUDPTransport.getHost`."""
        return IPv4Address("UDP", self._interface, self._number)

    def getHandle(self) -> socket.socket:
        """An unbound socket, for its options."""
        return self._handle

    def fileno(self) -> int:
        """That socket's file descriptor."""
        return self._handle.fileno()

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """See `IUDPTransport.setBroadcastAllowed`."""

    def getBroadcastAllowed(self) -> bool:
        """See `IUDPTransport.getBroadcastAllowed`."""
        return False

    def stopListening(self) -> Deferred[None]:
        """See `IUDPTransport.stopListening`."""
        if self._open:
            self._open = False
            del self._reactor.ports[self._number]
            self._handle.close()
            self._protocol.doStop()
        return succeed(None)


class FaultyStore(MemoryStore):
    """A memory store that fails and stalls as the test tells it to.

    Args:
        schema, lanes: as for `MemoryStore`.

    Attributes:
        failures: exceptions that the next writes raise, one each.
        refused: reasons by session id; every write refuses these players' rows.
        fenced: session ids of players whom another server has taken over.
        held: loads not yet answered, as (session id, Deferred); None while loads are answered at
            once.
        writes: the number of rows of each write that succeeded, including those left out.
    """

    def __init__(self, schema: StateSchema, lanes: int = 1) -> None:
        super().__init__(schema, lanes)
        self.failures: deque[Exception] = deque()
        self.refused: dict[int, str] = {}
        self.fenced: set[int] = set()
        self.held: list[tuple[int, Deferred[Stored | None]]] | None = None
        self.writes: list[int] = []

    def hold_loads(self) -> None:
        """From now on, hold each load until `release_loads` is called."""
        self.held = []

    def release_loads(self) -> None:
        """Answer the held loads."""
        held, self.held = self.held or [], []
        for session_id, answer in held:
            answer.callback(super().load(session_id))

    def load(self, session_id: int) -> Stored | Deferred[Stored | None] | None:  # type: ignore[override]
        """See `IStateReader.load`."""
        if self.held is None:
            return super().load(session_id)
        answer: Deferred[Stored | None] = Deferred()
        self.held.append((session_id, answer))
        return answer

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`."""
        if self.failures:
            raise self.failures.popleft()
        session_ids = records["session_id"].tolist()
        fenced = [at for at, player in enumerate(session_ids) if player in self.fenced]
        refused = {
            at: self.refused[player]
            for at, player in enumerate(session_ids)
            if player in self.refused and player not in self.fenced
        }
        good = np.delete(np.arange(len(records)), [*fenced, *refused])
        left_out = super().write(records[good])
        self.writes.append(len(records))
        return LeftOut(good[left_out.newer], fenced, refused)


class SteppedThread:
    """Stands in for the persist thread; the test runs `Persister.run`, on its own thread."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self.joined = False

    @property
    def persister(self) -> Persister:
        """The persister whose thread this stands in for."""
        persister: Persister = self._run.__self__  # type: ignore[attr-defined]
        return persister

    def run(self) -> None:
        """Run the thread from its start to its end.

        Raises:
            RuntimeError: the persister was not told to end, so that this would never return.
        """
        if not self.persister.told_to_end:
            raise RuntimeError("the persist thread was not told to end")
        self._run()

    def join(self, timeout: float | None = None) -> None:
        """Note that the thread was joined."""
        self.joined = True


class SteppedService:
    """A started service whose clock and persist threads the test drives.

    Args:
        state: the state class.
        store: a store of that class; a `FaultyStore` by default.
        options: for `PlayerStateService`.

    Attributes:
        service: the service.
        reactor: its reactor; `MemoryReactor.advance` lets time pass.
        store: its store.
        wall_step: seconds to add to the wall clock; set it to step that clock.
    """

    def __init__(
        self, state: type = PlayerState, store: IStateStore | None = None, **options: Any
    ) -> None:
        self.reactor = MemoryReactor()
        self.store: Any = FaultyStore(StateSchema.of(state)) if store is None else store
        self.wall_step = 0.0
        self._threads: dict[Persister, SteppedThread] = {}
        self.service = PlayerStateService(
            self.store,
            runtime=Runtime(
                self.reactor,
                monotonic=self.reactor.seconds,
                wall_clock=self._wall_clock,
                start_thread=self._start_thread,
                jitter=lambda: 0.5,
            ),
            **options,
        )
        self.service.startService()

    def _wall_clock(self) -> int:
        return int((EPOCH + self.wall_step + self.reactor.seconds()) * 1e9)

    def _start_thread(self, run: Callable[[], None], name: str) -> SteppedThread:
        thread = SteppedThread(run)
        ending = any(persister.told_to_end for persister in self._threads)
        if ending and thread.persister not in self._threads:
            self._threads = {}  # those of an earlier run
        self._threads[thread.persister] = thread
        return thread

    @property
    def threads(self) -> list[SteppedThread]:
        """The persist threads, one for each lane; the last that was started of each."""
        return list(self._threads.values())

    @property
    def thread(self) -> SteppedThread:
        """The persist thread of a service with one lane."""
        (thread,) = self._threads.values()
        return thread

    def join(self, session_id: int) -> Joined:
        """Join a player, of a store that answers at once.

        Raises:
            Exception: the error with which the service refused the join.
            RuntimeError: the store has not answered; call ``service.join`` and keep its Deferred.
        """
        outcomes: list[Joined | Failure] = []
        self.service.join(session_id).addBoth(outcomes.append)
        if not outcomes:
            raise RuntimeError(
                f"player {session_id} has no answer yet: the store holds the load; call"
                " service.join instead, and keep the Deferred"
            )
        if isinstance(outcome := outcomes[0], Failure):
            outcome.raiseException()
        return outcome

    def step(self) -> float | None:
        """Run one step of each persist thread, and deliver its reports to the service.

        Returns:
            What `Persister.step` returns; the shortest wait of several lanes.
        """
        waits = [thread.persister.step() for thread in self.threads]
        self.reactor.deliver()
        return min((wait for wait in waits if wait is not None), default=None)

    def settle(self) -> None:
        """Step until no persist thread has work left, or the store fails."""
        while self.step() == 0.0:
            pass

    def stop(self) -> Deferred[None]:
        """Stop the service; its persist threads save what is left, and end.

        If the store fails, the clock advances by the time that they wait before a retry.
        """
        stopped = self.service.stopService()
        persister = self.threads[0].persister
        while not (stopped.called or persister.told_to_end):
            self.reactor.advance(self.step() or 0.0)
        if not stopped.called:
            for thread in self.threads:
                thread.run()
            self.reactor.deliver()
        return stopped
