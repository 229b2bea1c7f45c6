"""A service with two lanes, under many orders in which its three threads can meet.

A real `PlayerStateService` runs on three real threads: the reactor's, which follows a script and
takes the calls that come from threads, and the persist threads of two lanes.
`tests.proof.interleaving` decides who makes the next access to what they share: the rings' cursors,
the persisters' events and flags, the heart's lock and fields, the reactor's queue of calls, the
store.  No time passes but where a script says so.  A run is good when

- all threads end, and the service stops: no wake-up is lost, a timeout counting for nothing;
- each lane writes its own players alone, over a writer of its own thread's that is open, one at a
  time, and closed in the end;
- whoever the live table, or a flush, calls saved is in the store, newest state and all; from when
  the reactor was told that the store was replaced, in the new one;
- a store that was found to be replaced is gone over to once, with every writer closed, and what is
  applied is in there in the end, unless the service says that it gave up, which it may only where
  the script lets it;
- the books balance, and of the beats there is one at a time with the reactor, which takes each.

Schedules are drawn, a part of ``PROOF_SCHEDULES``; where that is large, every one with up to
one preemption runs first.  See `tests.proof.test_interleaving` for what is told of one that fails,
and how to run it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from playerstate import NotSaved, PlayerStateService, Runtime
from playerstate.interfaces import (
    IFileStore,
    IStateReader,
    IStateWriter,
    LeftOut,
    Records,
    StoreReplaced,
    StoreUnusable,
)
from playerstate.players import run as run_module
from playerstate.saving import lane as lane_module
from playerstate.saving import outbox as outbox_module
from playerstate.saving.heartbeat import Heartbeat
from playerstate.saving.outbox import Outbox
from playerstate.saving.partition import Partition
from playerstate.saving.persister import Persister
from playerstate.saving.ring import Ring
from playerstate.saving.switch import Switch
from playerstate.stores.memory import MemoryStore
from playerstate.testing import EPOCH, MemoryReactor
from tests.kit.columnstore import ColumnStore, Table
from tests.kit.players import SCHEMA, at
from tests.proof.exploring import SAMPLED, explore, first_fault
from tests.proof.interleaving import (
    RATES,
    Accesses,
    Schedule,
    Troupe,
    Turns,
    WatchedEvent,
    WatchedLock,
    accesses,
    sampled,
)

THREADS = ("reactor", "lane 1", "lane 2")
REACTOR = THREADS.index("reactor")
LANES = len(THREADS) - 1
BOUND = 1
"""Preemptions up to which every schedule runs."""
ALL_ABOVE = 1500
"""Where more than so many are drawn of a scenario, every schedule up to `BOUND` runs besides."""
LONG = SAMPLED // 3 + 500
"""Schedules drawn of those that are asked for: they are long."""
RATES_LONG = (0.003, 0.01, 0.03, 0.1, 0.4)
"""How often the turn is lost, in the schedules drawn."""
MOST = 400
"""Schedules within which a fault is to be found."""

STOP_WITHIN = 20.0
TICK = 0.001
"""Seconds between two acts of a script: nothing is due, but what is later is dated later."""


_log = Logger()


class Death(BaseException):
    """Ends a persist thread that meets it."""


def players_of(lane: int, count: int) -> list[int]:
    """The first so many players of a lane."""
    lane_of = Partition(LANES).lane_of
    return [player for player in range(1, 100) if lane_of(player) == lane][:count]


def in_memory() -> MemoryStore:
    """An empty memory store."""
    return MemoryStore(SCHEMA)


def third_party() -> ColumnStore:
    """An empty store as somebody else would write one."""
    store = ColumnStore(SCHEMA, Table())
    store.migrate(bytes(16))
    return store


@attrs.frozen
class Scenario:
    """What the reactor does, and with what.

    Attributes:
        script: methods of `Play`, called in order; then the service is to stop.
        players: how many each lane has.
        make: an empty store to keep players in.
        may_give_up: whether the stop may end with something unsaved.
        deadly: calls of the store that kill the thread which makes them first.
        unusable: how often what took a store's place cannot be used at first.
        queue_size: of the service.
        protocol: whether the flags count by which lanes are held and go over.
        looks: when a writer looks whether the store is still there, besides when it writes.
        also: classes that are watched as well.
    """

    script: str
    players: int = 1
    make: Callable[[], Any] = in_memory
    may_give_up: bool = False
    deadly: frozenset[str] = frozenset()
    unusable: int = 0
    queue_size: int = 2
    protocol: bool = True
    looks: frozenset[str] = frozenset({"maintain", "sync"})
    also: tuple[type, ...] = ()

    def watched(self) -> Accesses:
        """The instructions that are steps."""
        flags = {"_finishing", "_writer"}
        if self.protocol:
            flags |= {"_replaced", "_hold", "_reopen", "_awaits_outcome"}
        watched = accesses(Ring, {"read", "write"})
        for owner, names in ((Persister, flags), (Heartbeat, {"_beat_at", "_silence_logged"})):
            for one in (owner, *(broken for broken in self.also if issubclass(broken, owner))):
                watched |= accesses(one, names)
        for code, found in (
            accesses(MemoryStore, {"players"}) | accesses(ColumnStore, {"_table"})
        ).items():
            if code.co_name == "write":
                watched[code] = found
        return watched

    def troupe(self) -> Troupe:
        """Its threads."""
        return Troupe(self.watched(), lambda turns: Play(self, turns), len(THREADS))


HELD = Scenario("move flush wait replace nudge flush wait", looks=frozenset())
"""One lane finds the store replaced, the other is told."""


class TurnsReactor(MemoryReactor):
    """A reactor that takes the calls from threads one by one, when it has its turn.

    Args:
        turns: of the threads.
        look: called after each call.

    Attributes:
        beats: those that wait; there is to be one at most.
    """

    def __init__(self, turns: Turns, look: Callable[[], None]) -> None:
        super().__init__()
        self._turns = turns
        self._look = look
        self._come = WatchedEvent(turns, "calls")
        self.beats = 0
        self.most_beats = 0

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """See `MemoryReactor.callFromThread`."""
        what = getattr(args[0] if args else callable, "__name__", "")
        self._turns.call(f"callFromThread({what})")
        self.beats += not args
        self.most_beats = max(self.beats, self.most_beats)
        super().callFromThread(callable, *args, **kwargs)
        threading.Event.set(self._come)  # the same step

    def deliver(self) -> None:
        """See `MemoryReactor.deliver`."""
        while self._calls:
            function, args, kwargs = self._calls.popleft()
            self.beats -= not args
            function(*args, **kwargs)
            self._look()

    def turn(self) -> None:
        """Wait for calls, and make them."""
        self._come.clear()
        if not self._calls:
            self._come.wait()
        self.deliver()


@implementer(IFileStore)
class WatchedStore:
    """A store over another, which is replaced when told, and sees who uses it how.

    Attributes:
        held: the store that was opened last.
        there: the one that is there; another once it was replaced.
        writers: those that are open.
        found: how often a writer found that it was replaced.
        reopened: by whom it was gone over to.
    """

    path = "players.db"
    files: tuple[str, ...] = ("players.db",)
    live_path = "players.db.live"
    lanes = LANES
    schema = SCHEMA

    def __init__(self, scenario: Scenario, turns: Turns) -> None:
        self._make = scenario.make
        self._deadly = set(scenario.deadly)
        self._unusable = scenario.unusable
        self.looks = {"write", *scenario.looks}
        self.turns = turns
        self.held = self.there = self._make()
        self.writers: list[LaneWriter] = []
        self.found = 0
        self.reopened: list[int] = []
        self.faults: list[str] = []

    def replace(self) -> None:
        """Somebody puts another in its place."""
        self.turns.call("the store is replaced")
        self.there = self._make()

    def deadly(self, what: str) -> None:
        """Raise, if this is to kill who does it, and has not yet."""
        if what in self._deadly:
            self._deadly.remove(what)
            raise Death(what)

    def prepare(self) -> bytes:
        """See `IStateStore`, as for the methods that follow."""
        identity: bytes = self.held.prepare()
        return identity

    def migrate(self, identity: bytes) -> bytes:
        """The store has its columns."""
        migrated: bytes = self.held.migrate(identity)
        return migrated

    def open_reader(self) -> IStateReader:
        """Of what is held."""
        return self.held.open_reader()

    def open_writer(self) -> IStateWriter:
        """One for the lane whose thread this is."""
        self.turns.call("store.open_writer()")
        return LaneWriter(self)

    def reopen(self, identity: bytes, online: Set[int]) -> list[int]:
        """See `IFileStore.reopen`."""
        self.turns.call("store.reopen()")
        if self.writers:
            self.faults.append("gone over to another store with a writer open")
        self.deadly("reopen")
        if self._unusable:
            self._unusable -= 1
            raise StoreUnusable("a shopping list")
        self.there.migrate(identity)
        self.held = self.there
        self.turns.call("store.reopen() returns")
        if self.writers:
            self.faults.append("a writer was opened while another store was gone over to")
        self.reopened.append(self.turns.running)
        return []

    def describe(self) -> str:
        """The store in a word."""
        return "players.db"

    def close(self) -> None:
        """Everything else is closed."""
        if self.writers:
            self.faults.append("the store is closed before a writer")


@implementer(IStateWriter)
class LaneWriter:
    """The writer of the lane on whose thread it was made."""

    def __init__(self, store: WatchedStore) -> None:
        self._store = store
        self._inner = store.held.open_writer()
        self._mine = store.held
        self._thread = store.turns.running
        if any(writer._thread == self._thread for writer in store.writers):
            store.faults.append(f"two writers of {THREADS[self._thread]}")
        store.writers.append(self)

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter`; nothing keeps the store from being replaced after a look at it."""
        self._use("write")
        self._look("write")
        for player in records["session_id"].tolist():
            if Partition(LANES).lane_of(player) != self._thread - 1:
                self._store.faults.append(f"player {player} written by {THREADS[self._thread]}")
        left_out: LeftOut = self._inner.write(records)
        self._use("written")
        return left_out

    def sync(self) -> None:
        """See `IStateWriter`."""
        self._use("sync")
        self._look("sync")

    def maintain(self) -> None:
        """See `IStateWriter`."""
        self._use("maintain")
        self._look("maintain")

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """Nothing is refused."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """See `IStateWriter`; it may be closed already."""
        self._store.turns.call("writer.interrupt()")

    def close(self) -> None:
        """See `IStateWriter`."""
        self._use("close")
        self._store.writers.remove(self)

    def _use(self, what: str) -> None:
        self._store.turns.call(f"writer.{what}()")
        if self not in self._store.writers:
            self._store.faults.append(f"{what} after close")
        elif self._store.turns.running != self._thread:
            self._store.faults.append(f"{what} by {THREADS[self._store.turns.running]}")
        if what != "close":
            self._store.deadly(f"{what} {self._thread}")

    def _look(self, what: str) -> None:
        if what in self._store.looks and self._store.there is not self._mine:
            self._store.found += 1
            raise StoreReplaced("players.db was removed or replaced")


class Life:
    """A persist thread from its start to its end, on the thread of its lane."""

    def __init__(self, turns: Turns, run: Callable[[], None], name: str) -> None:
        self.run = run
        self.ended = WatchedEvent(turns, f"end of {name}")

    def join(self, timeout: float | None = None) -> None:
        """See `PersistThread`; it is about to end."""
        self.ended.wait(timeout)


class Play:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, turns: Turns) -> None:
        self._scenario = scenario
        self._turns = turns
        self._faults: list[str] = []
        self._store = WatchedStore(scenario, turns)
        self._reactor = TurnsReactor(turns, self._look)
        self._lives: list[Life | None] = [None] * LANES
        self._begins = [WatchedEvent(turns, f"begin of {name}") for name in THREADS[1:]]
        self._heart: Heartbeat | None = None
        self._service = PlayerStateService(
            self._store,
            queue_size=scenario.queue_size,
            max_players=LANES * scenario.players,
            stop_within=STOP_WITHIN,
            runtime=Runtime(
                self._reactor,
                monotonic=self._reactor.seconds,
                wall_clock=lambda: EPOCH * 10**9,
                start_thread=self._start_thread,
                jitter=lambda: 0.5,
            ),
        )
        self._service.startService()
        self._run = self._service.run
        self._table = self._service.table
        self._waiting: list[Deferred[Any]] = []
        self._stopped: Deferred[None] | None = None
        self._x = 0.0
        self._newest: dict[int, float] = {}
        # Who had left, and was saved, when the store was found replaced: lost with the old one.
        self._gone: set[int] = set()
        self._online = [
            player for lane in range(LANES) for player in players_of(lane, scenario.players)
        ]
        for player in self._online:
            self._service.join(player)
        self.parts = (self._react, *(partial(self._persist, lane) for lane in range(LANES)))

    def _start_thread(self, run: Callable[[], None], name: str) -> Life:
        persister: Any = run.__self__  # type: ignore[attr-defined]
        lane = int(name[-1]) - 1
        life = Life(self._turns, run, name)
        if self._lives[lane] is None:
            persister._wake = WatchedEvent(self._turns, f"_wake of {lane + 1}")
            # The time to try again comes at once.
            name = f"_abandoned of {lane + 1}"
            persister._abandoned = WatchedEvent(self._turns, name, times_out=True)
            self._heart = persister._listener.beat.__self__
            self._heart._beats = WatchedLock(self._turns, "_beats")  # type: ignore[assignment]
            threading.Event.set(self._begins[lane])
        else:
            self._begins[lane].set()
        self._lives[lane] = life
        return life

    def _persist(self, lane: int) -> None:
        while True:
            self._begins[lane].wait()
            threading.Event.clear(self._begins[lane])
            if (life := self._lives[lane]) is None:
                return
            life.run()
            life.ended.set()

    def _react(self) -> None:
        for act in self._scenario.script.split():
            self._reactor.rightNow += TICK
            getattr(self, f"_{act}")()
            self._reactor.deliver()
        if self._stopped is None:
            self._stop()
        assert self._stopped is not None
        self._until(self._stopped)
        for lane in range(LANES):
            if (life := self._lives[lane]) is not None:
                life.join()  # which the service did itself, unless its time was over
            self._lives[lane] = None
            self._begins[lane].set()
        self._reactor.deliver()

    def _until(self, *deferreds: Deferred[Any]) -> None:
        while not all(deferred.called for deferred in deferreds):
            self._reactor.turn()
            if "shopping" in str(self._run.reopening._cannot_reopen):
                self._reactor.advance(1.0)

    def _move(self) -> None:
        self._x += 1
        for player in self._online:
            self._service.update(player, at(self._x))
            self._newest[player] = self._x

    def _nudge(self) -> None:
        """One moves."""
        self._x += 1
        player = self._online[0]
        self._service.update(player, at(self._x))
        self._newest[player] = self._x

    def _flush(self) -> None:
        self._expect_once(self._service.flush(), "flushed", dict(self._newest))

    def _expect_once(self, told: Deferred[Any], what: str, expected: dict[int, float]) -> None:
        """Once this has fired, these are to be saved; it may fail where the stop gave up."""
        self._waiting.append(told)
        told.addCallbacks(lambda _: self._expect_saved(what, expected), self._not_saved)

    def _not_saved(self, failure: Failure) -> None:
        failure.trap(NotSaved)
        if not self._service.gave_up:
            self._faults.append(f"not given up, and yet: {failure.value}")

    def _leave(self) -> None:
        player = self._online.pop(0)
        expected = {player: self._newest[player]}
        left = self._service.leave(player)
        self._expect_once(left, "left", expected)
        left.addCallback(lambda _: self._told or self._gone.add(player))

    def _replace(self) -> None:
        self._store.replace()

    def _turn(self) -> None:
        self._reactor.turn()

    def _wait(self) -> None:
        self._until(*self._waiting)

    def _stop(self) -> None:
        self._stopped = self._service.stopService()

    def _deadline(self) -> None:
        self._reactor.advance(STOP_WITHIN)

    @property
    def _told(self) -> bool:
        """Whether the reactor was told that the store was replaced."""
        return "StoreReplaced" in self._service.ledger.store_errors

    def _look(self) -> None:
        """See that who is called saved is."""
        table = self._table
        saved = {
            player: table.values(slot)[0]
            for player, slot in table.slots.items()
            if table.updated_at(slot) and table.is_saved(slot)
        }
        self._expect_saved("called saved", saved)

    def _expect_saved(self, what: str, expected: dict[int, float]) -> None:
        if expected and self._told and self._store.held is not self._store.there:
            self._faults.append(f"{what} where only the old store has it: {expected}")
        if wrong := self._unsaved(expected):
            self._faults.append(f"{what}, and the store holds {wrong} of {expected}")

    def _unsaved(self, expected: dict[int, float]) -> dict[int, Any]:
        lost = self._gone if self._told else set()
        held = {player: self._store.held.load(player) for player in expected.keys() - lost}
        return {
            player: stored
            for player, stored in held.items()
            if stored is None or stored.values[0] < expected[player]
        }

    def faults(self) -> list[str]:
        """What is wrong, all threads having ended."""
        service, store = self._service, self._store
        faults = [*self._faults, *store.faults, *service.ledger.snapshot().imbalance()]
        if service.gave_up and not self._scenario.may_give_up:
            faults.append("the service gave up")
        if not service.gave_up:
            self._faults.clear()
            self._expect_saved("in the end", self._newest)
            faults += self._faults
        if store.writers:
            faults.append(f"{len(store.writers)} writers left open")
        if len(store.reopened) != min(store.found, 1) and not service.gave_up:
            faults.append(f"found replaced {store.found} times, gone over by {store.reopened}")
        if self._reactor.most_beats > 1:
            faults.append(f"{self._reactor.most_beats} beats at a time")
        if self._heart is not None and self._heart._beat_at is not None:
            faults.append("a beat that the reactor never took")
        if not all(deferred.called for deferred in self._waiting):
            faults.append("somebody still waits")
        return faults


class LanesTests(SynchronousTestCase):
    """The package's own service: a scenario a test."""

    SCENARIOS = 11

    def explore(self, scenario: Scenario) -> None:
        """Fail with the first schedule that does not go well."""
        share = -(-LONG // self.SCENARIOS)
        bound = BOUND if share > ALL_ABOVE else 0
        with scenario.troupe() as troupe:
            explore(self, troupe, THREADS, bound, share, RATES_LONG)
        self.flushLoggedErrors(Death)

    def test_saved(self) -> None:
        """Each lane saves its own players; a flush and the stop wait for both."""
        self.explore(Scenario("move flush move wait", protocol=False))

    def test_third_party(self) -> None:
        """So they do in a store of somebody else's, though rows have to wait for room."""
        scenario = Scenario("move flush leave move", 3, third_party, protocol=False)
        self.explore(scenario)

    def test_died(self) -> None:
        """A lane whose thread dies goes on in another."""
        self.explore(Scenario("move flush move wait", deadly=frozenset({"write 1"})))

    def test_replaced(self) -> None:
        """A lane finds the store replaced, and so may the other; all is saved into the new one."""
        self.explore(Scenario("move flush replace move flush wait"))

    def test_replaced_third_party(self) -> None:
        """The same of a store of somebody else's, with players who leave."""
        self.explore(Scenario("move flush leave replace move flush wait", 2, third_party))

    def test_replaced_and_held(self) -> None:
        """The other would not find it by itself."""
        self.explore(HELD)

    def test_replaced_and_died(self) -> None:
        """A lane that dies meanwhile closes its writer all the same."""
        self.explore(Scenario("move replace flush wait", deadly=frozenset({"write 2"})))

    def test_replaced_and_died_of_it(self) -> None:
        """The next thread goes over, where one dies of that; it may not come off at first."""
        self.explore(Scenario("move replace flush wait", deadly=frozenset({"reopen"}), unusable=1))

    def test_stopped(self) -> None:
        """A stop meanwhile waits till all is in the new store."""
        self.explore(Scenario("move flush replace move stop"))

    def test_found_by_stopping(self) -> None:
        """A lane whose thread is about to end finds it, while the other may have ended."""
        self.explore(Scenario("move stop replace", may_give_up=True, unusable=1))

    def test_given_up(self) -> None:
        """The time for the stop is over, wherever the lanes are."""
        self.explore(Scenario("move replace flush move turn stop deadline", may_give_up=True))


class UnlockedHeart(Heartbeat):
    """Takes the beats of several threads at once."""

    def beat(self) -> None:
        """See `Heartbeat.beat`."""
        if self._beat_at is None:
            self._beat_at = self._monotonic()
            self._call_from_thread(self._take)


class HeldFirst(Persister):
    """Tells that it stands still before it has closed the writer."""

    def _stand_still(self) -> float | None:
        if (number := self._hold) and number != self._held:
            self._held = number
            self._listener.held(number)
            self._close_writer()
        return super()._stand_still()


class WakesFirst(Persister):
    """Wakes the thread before it says why."""

    def hold(self, number: int) -> None:
        """See `Persister.hold`."""
        self._wake.set()
        self._hold = number


class HoldsOthers(Switch):
    """Goes over without waiting for the other lanes to stand still."""

    def held(self) -> None:
        """See `Switch.held`."""
        if self._is_closing:
            self._is_closing = False
            self._reopen()


class AsksTheEnded(Switch):
    """Leaves it to the lane that found out to go over, though its thread has ended."""

    def _have_lane_go_over(self) -> None:
        if self._requested is not None:
            self._requested()


class FlushesTooSoon(Outbox):
    """Calls flushed what was saved before the store was replaced."""

    def resume(self) -> None:
        """See `Outbox.resume`."""
        self._flushes.wait_since = lambda now: None  # type: ignore[method-assign]
        super().resume()


class FaultTests(SynchronousTestCase):
    """Rules of the lanes, broken."""

    def found(
        self,
        module: object,
        broken: type,
        scenario: Scenario,
        fault: str,
        rates: Sequence[float] = RATES_LONG,
    ) -> None:
        """Expect a fault to be found, and again in a replay."""
        self.patch(module, broken.__bases__[0].__name__, broken)
        scenario = attrs.evolve(scenario, also=(broken,))
        with scenario.troupe() as troupe:
            count, faulty = first_fault(sampled(troupe, MOST, 1, 1, rates))
            assert faulty is not None, "not found"
            _log.info("{test}: found by schedule {count}", test=self.id(), count=count)
            self.assertIn(fault, "; ".join(faulty.faults))
            again = troupe.replay(Schedule.parse(str(faulty.schedule)))
        self.assertEqual(again.scenario(THREADS), faulty.scenario(THREADS))

    def test_heart_without_lock(self) -> None:
        """Beats pile up in the reactor."""
        scenario = Scenario("move flush move wait", protocol=False)
        self.found(outbox_module, UnlockedHeart, scenario, "2 beats at a time")

    def test_held_first(self) -> None:
        """The store is exchanged under an open writer."""
        self.found(lane_module, HeldFirst, HELD, "writer")

    def test_wakes_first(self) -> None:
        """The lane sleeps on, and all wait for it."""
        self.found(lane_module, WakesFirst, HELD, "nobody is left to wake")

    def test_others_write_on(self) -> None:
        """The store is exchanged under an open writer."""
        self.found(outbox_module, HoldsOthers, HELD, "writer")

    def test_asks_the_ended(self) -> None:
        """Nobody goes over, and a lane waits for it for good."""
        scenario = Scenario("move stop replace", may_give_up=True)
        self.found(outbox_module, AsksTheEnded, scenario, "nobody is left to wake", RATES)

    def test_flushes_too_soon(self) -> None:
        """Only the old store has it."""
        scenario = Scenario("move flush replace move flush wait")
        self.found(run_module, FlushesTooSoon, scenario, "flushed, and the store holds")
