"""The fakes for tests: they are what they stand for, as far as they go."""

from __future__ import annotations

import gc
import time
import warnings
from errno import EADDRINUSE
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorFromThreads,
    IReactorTime,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from playerstate import PlayerState, StateSchema, StoreBusy
from playerstate.interfaces import IStateReader, IStateStore, IStateWriter
from playerstate.live.leftover import read_leftover
from playerstate.players.service import ServerFull
from playerstate.testing import (
    EPOCH,
    FaultyStore,
    MemoryPort,
    MemoryReactor,
    SteppedService,
    SteppedThread,
)
from tests.kit import memory_contract
from tests.kit.databases import PLAIN, records
from tests.kit.players import SCHEMA, FragileStore, ServiceTestCase, at, die
from tests.kit.support import PATIENCE

HERE = ("127.0.0.1", 9999)


class InterfaceTests(SynchronousTestCase):
    """The fakes provide what they say."""

    def test_reactor(self) -> None:
        """The reactor provides time, calls from threads, and UDP."""
        for interface in (IReactorTime, IReactorFromThreads, IReactorUDP):
            verifyClass(interface, MemoryReactor)
            verifyObject(interface, MemoryReactor())

    def test_port(self) -> None:
        """The port is a listening port and a UDP transport."""
        port = MemoryReactor().listenUDP(0, DatagramProtocol())
        for interface in (IListeningPort, IUDPTransport):
            verifyClass(interface, MemoryPort)
            verifyObject(interface, port)
        port.startListening()
        port.setBroadcastAllowed(True)
        self.assertFalse(port.getBroadcastAllowed())
        self.assertRaises(NotImplementedError, port.connect, "127.0.0.1", 1)
        self.successResultOf(port.stopListening())

    def test_store(self) -> None:
        """The store is a store, a reader and a writer."""
        for interface in (IStateStore, IStateReader, IStateWriter):
            verifyClass(interface, FaultyStore)
            verifyObject(interface, FaultyStore(SCHEMA))
            verifyObject(interface, FragileStore())


class FaultyStoreContractTests(memory_contract.MemoryStoreContract):
    """The store for tests keeps the contract while a test asks for no fault."""

    many = 100_000

    factory = FaultyStore

    def test_left_out(self) -> None:
        """What it is told to leave out it names with the reason, beside what is older."""
        self.start()
        self.write((4, 0.0, 0.0, 10))
        self.store.refused, self.store.fenced = {2: "hp"}, {1}
        batch = records(PLAIN, *((number, 1.0, 1.0, 5) for number in (1, 2, 3, 4)))
        left_out = self.writer.write(batch)
        self.assertEqual((left_out.newer.tolist(), left_out.fenced.tolist()), ([3], [0]))
        self.assertEqual((left_out.refused, len(left_out)), ({1: "hp"}, 3))
        self.assertEqual(sorted(self.store.players), [3, 4])


class Noting(DatagramProtocol):
    """A protocol that notes what happens to it."""

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def startProtocol(self) -> None:
        """The port is open."""
        assert self.transport is not None
        self.notes.append("start")

    def stopProtocol(self) -> None:
        """The port is closed."""
        self.notes.append("stop")

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """A datagram came."""
        self.notes.append((len(datagram), address))


class SameScriptTests(SynchronousTestCase):
    """One script played on a reactor in memory and on a real one, with the same outcome.

    Attributes:
        real: a real reactor of the test's own.
    """

    def setUp(self) -> None:
        """Make the real one."""
        self.real = SelectReactor()
        self.addCleanup(self.close_real)
        self.memory = MemoryReactor()

    def close_real(self) -> None:
        """Close the sockets by which a real reactor wakes itself."""
        for reader in list(self.real._internalReaders):
            self.real.removeReader(reader)
            reader.connectionLost(None)

    def go_on(self, reactor: Any, done: Any) -> None:
        """Let the reactor turn until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline
            if reactor is self.real:
                reactor.iterate(0.01)
            else:
                reactor.advance(0.01)

    def send(self, reactor: Any, to: Any, size: int) -> Any:
        """Send a datagram to a port; return the address it comes from."""
        if reactor is self.memory:
            to.receive(bytes(size), HERE)
            return HERE
        sender = reactor.listenUDP(0, DatagramProtocol(), "127.0.0.1")
        sender.write(bytes(size), ("127.0.0.1", to.getHost().port))
        address = ("127.0.0.1", sender.getHost().port)
        closed = sender.stopListening()
        self.go_on(reactor, lambda: closed.called)
        return address

    def test_life_of_a_port(self) -> None:
        """A port starts its protocol at once, cuts what is too long, and stops its protocol."""
        for reactor in (self.memory, self.real):
            protocol = Noting()
            port: Any = reactor.listenUDP(0, protocol, "127.0.0.1", 100)
            self.assertEqual(protocol.notes, ["start"])
            self.assertEqual(port.getHost().type, "UDP")
            self.assertEqual(port.getHost().host, "127.0.0.1")
            self.assertEqual(port.getHandle().fileno(), port.fileno())
            for size, seen in ((1, 1), (100, 100), (101, 100)):
                address = self.send(reactor, port, size)
                self.go_on(reactor, lambda notes=protocol.notes: isinstance(notes[-1], tuple))
                self.assertEqual(protocol.notes.pop(), (seen, address))
            closed: Deferred[None] = port.stopListening()
            self.go_on(reactor, lambda closed=closed: closed.called)
            self.assertEqual(protocol.notes, ["start", "stop"])
            again = port.stopListening()
            self.assertTrue(again is None or again.called)
            self.assertEqual(protocol.notes, ["start", "stop"])

    def refused(self, reactor: Any, number: int) -> tuple[Any, ...]:
        """What is said where the port cannot be opened."""
        with warnings.catch_warnings():
            # Twisted leaves the socket that it could not bind to the collector.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                reactor.listenUDP(number, DatagramProtocol(), "127.0.0.1")
            except CannotListenError as error:
                said = (error.interface, error.port, error.socketError.errno)
            gc.collect()
        return said

    def test_taken(self) -> None:
        """A port that is taken cannot be opened; once it is closed it can."""
        for reactor in (self.memory, self.real):
            port: Any = reactor.listenUDP(0, DatagramProtocol(), "127.0.0.1")
            number = port.getHost().port
            self.assertEqual(self.refused(reactor, number), ("127.0.0.1", number, EADDRINUSE))
            closed = port.stopListening()
            self.go_on(reactor, lambda closed=closed: closed.called)
            port = reactor.listenUDP(number, DatagramProtocol(), "127.0.0.1")
            closed = port.stopListening()
            self.go_on(reactor, lambda closed=closed: closed.called)

    def test_any_free_port(self) -> None:
        """Port 0 is one that is free, also after another was closed."""
        for reactor in (self.memory, self.real):
            ports: list[Any] = [reactor.listenUDP(0, DatagramProtocol()) for _ in range(3)]
            closed = ports.pop(0).stopListening()
            self.go_on(reactor, lambda closed=closed: closed.called)
            ports += [reactor.listenUDP(0, DatagramProtocol()) for _ in range(2)]
            self.assertEqual(len({port.getHost().port for port in ports}), 4)
            for port in ports:
                closed = port.stopListening()
                self.go_on(reactor, lambda closed=closed: closed.called)

    def test_closed_port(self) -> None:
        """A closed port takes nothing in, and what is written to it is an error."""
        for reactor in (self.memory, self.real):
            protocol = Noting()
            port: Any = reactor.listenUDP(0, protocol, "127.0.0.1")
            closed = port.stopListening()
            self.go_on(reactor, lambda closed=closed: closed.called)
            if reactor is self.memory:
                port.receive(b"late", HERE)
            self.assertEqual(protocol.notes, ["start", "stop"])
            self.assertRaises((AttributeError, AssertionError), port.write, b"late", HERE)

    def test_calls(self) -> None:
        """Calls from threads are made in their order, in the next turn, before timers; one a time.

        A call made from within such a call is made too.
        """
        for reactor in (self.memory, self.real):
            made: list[Any] = []
            reactor.callLater(0.0, made.append, "timer")
            reactor.callFromThread(made.append, 1)
            reactor.callFromThread(
                lambda made=made, reactor=reactor: reactor.callFromThread(made.append, 3)
            )
            reactor.callFromThread(lambda *args, made=made, **kw: made.append((args, kw)), 2, x=2)
            self.assertEqual(made, [])
            self.go_on(reactor, lambda made=made: len(made) == 4)
            self.assertEqual(made[:2], [1, ((2,), {"x": 2})])
            self.assertEqual(set(map(str, made[2:])), {"3", "timer"})

    def test_time(self) -> None:
        """Timers fire in order of their time, can be moved and cancelled, and time only grows."""
        for reactor in (self.memory, self.real):
            made: list[Any] = []
            begun = reactor.seconds()
            reactor.callLater(0.03, made.append, "late")
            moved = reactor.callLater(5.0, made.append, "moved")
            reactor.callLater(0.01, made.append, "soon")
            reactor.callLater(0.0, made.append, "never").cancel()
            moved.reset(0.02)
            self.go_on(reactor, lambda made=made: len(made) == 3)
            self.assertEqual(made, ["soon", "moved", "late"])
            self.assertGreaterEqual(reactor.seconds() - begun, 0.03 - 1e-9)


class FaultyStoreTests(SynchronousTestCase):
    """A store that fails and stalls as told."""

    def test_failures(self) -> None:
        """Each failure is raised once, in order; what is written then is noted."""
        stepped = SteppedService()
        stepped.store.failures.extend([StoreBusy("one"), StoreBusy("two")])
        stepped.join(42)
        stepped.service.update(42, at(1))
        flushed = stepped.service.flush()
        self.assertGreater(stepped.step() or 0.0, 0.0)
        self.assertGreater(stepped.step() or 0.0, 0.0)
        self.assertEqual((stepped.step(), stepped.step()), (0.0, None))
        self.successResultOf(flushed)
        self.assertEqual(stepped.store.writes, [1])

    def test_held_loads(self) -> None:
        """Loads are held until they are released, again and again."""
        store = FaultyStore(SCHEMA)
        self.assertIsNone(store.load(1))
        store.hold_loads()
        for _ in range(2):
            answer: Any = store.load(1)
            self.assertNoResult(answer)
            store.release_loads()
            self.assertIsNone(self.successResultOf(answer))
        store.release_loads()

    def test_cancelled_load(self) -> None:
        """A load that was cancelled while it was held does not disturb the release."""
        store = FaultyStore(SCHEMA)
        store.hold_loads()
        first: Any = store.load(1)
        second: Any = store.load(2)
        first.addErrback(lambda failure: None)
        first.cancel()
        store.release_loads()
        self.successResultOf(second)


class SteppedServiceTests(ServiceTestCase):
    """The service on a clock and a thread that are told."""

    def test_of_the_docstring(self) -> None:
        """What the module's docstring shows works."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, PlayerState(1.0, 2.0))
        flushed = stepped.service.flush()
        stepped.settle()
        assert flushed.called
        self.successResultOf(stepped.stop())

    def test_join_refused(self) -> None:
        """A join that the service refuses raises what it was refused with."""
        stepped = self.start(max_players=1)
        stepped.join(2**62)
        self.assertRaises(ServerFull, stepped.join, 6)
        self.assertRaises(ValueError, stepped.join, 0)

    def test_join_unanswered(self) -> None:
        """A join that waits for its store says so."""
        stepped = self.start()
        stepped.store.hold_loads()
        with self.assertRaisesRegex(RuntimeError, "player 6 has no answer yet"):
            stepped.join(6)
        stepped.store.release_loads()

    def test_options(self) -> None:
        """It takes a state class, a store, and whatever the service takes."""
        store = FaultyStore(SCHEMA)
        stepped = self.start(store=store, max_players=3)
        self.assertIs(stepped.service.store, store)
        self.assertEqual(stepped.service.options.max_players, 3)
        self.assertEqual(
            self.start(state=PlayerState).service.schema.canonical,
            StateSchema.of(PlayerState).canonical,
        )

    def test_wall_clock(self) -> None:
        """The wall clock begins at `EPOCH`, goes with the reactor, and steps when told."""
        stepped = self.start()
        stepped.join(42)
        times = []
        for seconds, step in ((0.0, 0.0), (1.5, 0.0), (0.0, 3600.0)):
            stepped.reactor.advance(seconds)
            stepped.wall_step = step
            stepped.service.update(42, at(1))
            times.append(stepped.join(42).updated_at / 1e6 - EPOCH)
        self.assertEqual(times, [0.0, 1.5, 3601.5])

    def test_settle_ends_at_a_failure(self) -> None:
        """Settling does not go on for ever with a store that fails."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1))
        stepped.service.flush()
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(2))
        stepped.settle()
        self.assertEqual(stepped.store.players, {})
        stepped.settle()
        stepped.settle()
        self.assertEqual(len(stepped.store.players), 1)

    def never_sleep(self, stepped: SteppedService) -> None:
        """Fail, instead of hanging, where the thread would sleep."""

        def wait(timeout: float | None = None) -> bool:
            raise AssertionError("the persist thread sleeps")

        self.patch(stepped.thread.persister._wake, "wait", wait)
        self.patch(stepped.thread.persister._abandoned, "wait", wait)

    def test_stop_with_a_store_that_fails(self) -> None:
        """Stopping over a store that fails now and then ends with everything saved."""
        stepped = self.start()
        self.never_sleep(stepped)
        stepped.join(42)
        stepped.service.update(42, at(1))
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(3))
        self.successResultOf(stepped.stop())
        self.assertEqual(self.stored(stepped), {42: (1.0, 0.0)})

    def test_stop_with_a_store_that_never_works(self) -> None:
        """Stopping over a store that always fails ends at the deadline."""
        stepped = self.start(stop_within=2.0)
        self.never_sleep(stepped)
        stepped.join(42)
        stepped.service.update(42, at(1))
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(10_000))
        self.successResultOf(stepped.stop())
        self.assertEqual(len(self.told("unsaved of player 42;")), 1)
        self.assertTrue(stepped.thread.joined)

    def test_stop_twice(self) -> None:
        """Stopping again is harmless."""
        stepped = self.start()
        self.successResultOf(stepped.stop())
        self.successResultOf(stepped.stop())

    def test_thread_that_died(self) -> None:
        """After a thread died, `thread` is the next one, which takes the steps from then on."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1))
        stepped.service.flush()
        dead = stepped.thread
        die(stepped, SystemExit("out"))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)
        stepped.reactor.advance(1.0)
        self.assertIsNot(stepped.thread, dead)
        self.assertTrue(dead.joined)
        stepped.settle()
        self.successResultOf(stepped.stop())
        self.assertTrue(stepped.thread.joined)
        self.assertEqual(self.stored(stepped), {42: (1.0, 0.0)})

    def test_live_file(self) -> None:
        """A live file is kept where one is named, and says after a stop that all is saved."""
        path = self.mktemp()
        stepped = self.start(live_file=path)
        stepped.join(42)
        stepped.service.update(42, at(1))
        self.assertFalse(read_leftover(path).clean)
        self.successResultOf(stepped.stop())
        self.assertTrue(read_leftover(path).clean)

    def test_thread_not_told_to_end(self) -> None:
        """Running a thread's whole life before it was told to end fails, and does not hang."""
        stepped = self.start()
        self.never_sleep(stepped)
        thread: SteppedThread = stepped.thread
        self.assertRaises(RuntimeError, thread.run)
