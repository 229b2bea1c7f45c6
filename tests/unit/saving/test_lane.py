"""Several lanes: the same promises, each lane with its own players, each event logged once."""

from __future__ import annotations

import threading
import time
from typing import Any

from twisted.logger import LogLevel

from playerstate import NotSaved, PlayerStateService, Runtime, StoreBusy
from playerstate.interfaces import Records, Stored, StoreUnusable
from playerstate.players.stopping import ABANDON_WITHIN
from playerstate.saving.partition import Partition
from playerstate.stores import open_store
from playerstate.stores.memory import MemoryStore
from playerstate.testing import FaultyStore, MemoryReactor
from tests.kit.players import (
    SCHEMA,
    FragileStore,
    ServiceTestCase,
    at,
    go_over,
    leave_behind,
    stop_within,
)
from tests.kit.support import PATIENCE

LANES = 4
PLAYERS = range(1, 41)
LANE_OF = {player: Partition(LANES).lane_of(player) for player in PLAYERS}


def of_lane(*lanes: int) -> list[int]:
    """The players of these lanes."""
    return [player for player in PLAYERS if LANE_OF[player] in lanes]


class LanesTestCase(ServiceTestCase):
    """A service with four lanes, and players in each."""

    def setUp(self) -> None:
        """Start it, with all players online."""
        super().setUp()
        self.store = self.make_store()
        self.stepped = self.start(store=self.store, **self.options())
        self.service = self.stepped.service
        for player in PLAYERS:
            self.stepped.join(player)

    def make_store(self) -> Any:
        """The store."""
        return FaultyStore(SCHEMA, LANES)

    def options(self) -> dict[str, Any]:
        """Of the service."""
        return {}

    def move_all(self, x: float = 1.0) -> None:
        """All players change."""
        for player in PLAYERS:
            self.service.update(player, at(x))

    def step(self, lane: int) -> float | None:
        """One step of one lane's persist thread, and what it reports."""
        result = self.stepped.threads[lane].persister.step()
        self.stepped.reactor.deliver()
        return result

    def at_place(self, x: float) -> list[int]:
        """The players stored with this position."""
        return sorted(key for key, values in self.stored(self.stepped).items() if values[0] == x)


class SavingTests(LanesTestCase):
    """What each lane saves."""

    def test_own_players(self) -> None:
        """Each lane saves its own players, and no others."""
        self.move_all()
        flushed = self.service.flush()
        saved: list[int] = []
        for lane in range(LANES):
            self.waits(flushed)
            self.step(lane)
            saved = sorted([*saved, *of_lane(lane)])
            self.assertEqual(self.at_place(1.0), saved)
        self.successResultOf(flushed)

    def test_leaves(self) -> None:
        """A leave is saved by the lane of the player, whatever the others do."""
        self.move_all()
        player = of_lane(2)[0]
        left = self.service.leave(player)
        self.stepped.reactor.advance(0.05)
        self.step(0)
        self.waits(left)
        self.step(2)
        self.successResultOf(left)
        self.assertEqual(self.at_place(1.0), [player])

    def test_place_of_another(self) -> None:
        """A player who takes over a slot from another lane is saved by their own lane."""
        one, other = of_lane(1)[0], next(n for n in range(100, 200) if Partition(4).lane_of(n) == 3)
        self.service.update(one, at(1))
        self.service.leave(one)
        self.stepped.reactor.advance(0.05)
        self.step(1)
        self.stepped.join(other)
        self.service.update(other, at(7))
        flushed = self.service.flush()
        for lane in (0, 1, 2):
            self.step(lane)
        self.waits(flushed)
        self.step(3)
        self.successResultOf(flushed)
        self.assertEqual(self.at_place(7.0), [other])

    def test_quarantine(self) -> None:
        """A row that the store can never take is quarantined, logged and counted once."""
        player = of_lane(1)[0]
        self.store.refused = {player: "hp"}
        self.move_all()
        flushed = self.service.flush()
        while self.stepped.step() is not None:
            pass
        self.failureResultOf(flushed, NotSaved)
        self.assertEqual(self.service.ledger.quarantined, 1)
        self.assertEqual(len(self.told(f"not saved to memory: player {player}: hp")), 1)
        self.flushLoggedErrors()

    def test_stop(self) -> None:
        """A stop saves everything over every lane, and joins every thread."""
        self.move_all()
        threads = self.stepped.threads
        self.successResultOf(self.stepped.stop())
        self.assertEqual(self.at_place(1.0), [*PLAYERS])
        self.assertEqual([thread.joined for thread in threads], [True] * LANES)
        self.assertFalse(self.service.gave_up)

    def test_started_again(self) -> None:
        """After a stop the service starts again, with lanes of its own."""
        before = self.stepped.threads
        self.successResultOf(self.stepped.stop())
        self.service.startService()
        self.assertEqual(len(self.stepped.threads), LANES)
        self.assertFalse(set(before) & set(self.stepped.threads))
        self.assertEqual(self.service.ledger.snapshot().queue_size, LANES * 8192)


class OverflowTests(LanesTestCase):
    """Rings that are full."""

    def options(self) -> dict[str, Any]:
        """Rings of two rows."""
        return {"queue_size": 2}

    def test_others_go_on(self) -> None:
        """Invariant 2: a lane that takes nothing keeps no other from taking turns."""
        for turn in range(1, 12):
            self.move_all(turn)
            self.service.run.outbox.sweep()
            for lane in (0, 1, 3):
                self.step(lane)
        self.assertEqual(sorted(self.stored(self.stepped)), of_lane(0, 1, 3))
        while self.stepped.step() is not None:
            pass
        self.assertEqual(self.at_place(11.0), [*PLAYERS])
        self.assertEqual(len(self.told("the queue of 2 rows is full")), 1)


class TroubleTests(LanesTestCase):
    """Lanes that fail."""

    def test_told_once(self) -> None:
        """A store that fails for all lanes is logged once, and so is that it takes rows again."""
        self.store.failures.extend(StoreBusy("locked") for _ in range(LANES))
        self.move_all()
        self.service.flush()
        self.stepped.step()
        self.assertEqual(len(self.told("is busy: locked")), 1)
        self.assertEqual(self.service.ledger.store_errors, {"StoreBusy": LANES})
        self.stepped.settle()
        self.assertEqual(len(self.told("takes rows again")), 1)

    def test_one_lane(self) -> None:
        """What keeps one lane is trouble, though the others save; it says that it is one."""
        self.move_all()
        self.service.run.outbox.sweep()
        self.store.failures.append(StoreBusy("locked"))
        for lane in (2, 0, 1, 3):
            self.step(lane)
        self.stepped.reactor.advance(6.0)
        self.assertEqual(self.service.trouble.why, "1 of 4 lanes: locked")
        self.assertEqual(len(self.told("degraded:", LogLevel.critical)), 1)
        self.step(2)
        self.assertIsNone(self.service.trouble)

    def test_thread_dies(self) -> None:
        """A thread that dies is followed by one for the same lane; the others go on."""
        self.move_all()
        flushed = self.service.flush()
        before = self.stepped.threads
        before[1].persister._listener.died(SystemExit("out"))
        self.stepped.reactor.deliver()
        after = self.stepped.threads
        self.assertEqual([a is b for a, b in zip(before, after, strict=True)], [1, 0, 1, 1])
        self.assertIs(after[1].persister, before[1].persister)
        self.assertTrue(before[1].joined)
        self.stepped.settle()
        self.successResultOf(flushed)
        self.assertEqual(self.service.ledger.thread_deaths, 1)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_stop_given_up(self) -> None:
        """A stop that one lane keeps from saving names its players, and only those."""
        self.move_all()
        stop_within(self.service, 1.0)
        stopped = self.service.stopService()
        for lane in (0, 1, 2):
            self.step(lane)
        self.stepped.reactor.advance(1.0)
        self.assertTrue(self.service.gave_up)
        for thread in self.stepped.threads:
            thread.run()
        self.stepped.reactor.deliver()
        self.successResultOf(stopped)
        names = ", ".join(map(str, of_lane(3)))
        self.assertEqual(len(self.told(f"unsaved of player {names};")), 1)

    def test_thread_stuck(self) -> None:
        """A stop goes on without a thread that does not end, and joins none."""
        stop_within(self.service, 1.0)
        stopped = self.service.stopService()
        for thread in self.stepped.threads[:3]:
            thread.run()
        self.stepped.reactor.deliver()
        self.waits(stopped)
        self.stepped.reactor.advance(5.0 + ABANDON_WITHIN)
        self.successResultOf(stopped)
        self.assertEqual(len(self.told("the persist thread is stuck")), 1)

    def test_thread_that_cannot_be_started(self) -> None:
        """Where one of the threads cannot be started at all, nothing is; those before it end."""
        threads: list[threading.Thread] = []

        def start_thread(run: Any, name: str) -> threading.Thread:
            if len(threads) == 2:
                raise RuntimeError("can't start new thread")
            threads.append(threading.Thread(target=run, name=name, daemon=True))
            threads[-1].start()
            return threads[-1]

        service = PlayerStateService(
            MemoryStore(SCHEMA, LANES), runtime=Runtime(MemoryReactor(), start_thread=start_thread)
        )
        self.assertRaises(RuntimeError, service.startService)
        self.assertEqual([thread.is_alive() for thread in threads], [False, False])
        self.assertEqual(
            [t.name for t in threads], ["playerstate-persist-1", "playerstate-persist-2"]
        )


class RecoveryTests(ServiceTestCase):
    """What a process before left."""

    def test_all_lanes(self) -> None:
        """Invariant 13: it is saved by its players' lanes; no player joins before all is."""
        players = {player: Stored((float(player), 0.0), 9) for player in PLAYERS}
        memory = leave_behind(self, players)
        stepped = self.start(store=FaultyStore(SCHEMA, LANES))
        self.assertEqual(stepped.service.run.outbox.unrecovered(), [*PLAYERS])
        for lane in range(LANES):
            self.failureResultOf(stepped.service.join(1), StoreBusy)
            self.assertEqual(memory.forgotten, 0)
            stepped.threads[lane].persister.step()
            stepped.reactor.deliver()
            left = of_lane(*range(lane + 1, LANES))
            self.assertEqual(stepped.service.run.outbox.unrecovered(), left)
        self.assertEqual(memory.forgotten, 1)
        self.assertEqual(stepped.join(7).state, at(7))
        self.assertEqual(stepped.service.ledger.recovered, len(PLAYERS))

    def test_some_lanes(self) -> None:
        """Lanes without a leftover delay no player."""
        (player,) = of_lane(2)[:1]
        leave_behind(self, {player: Stored((5.0, 0.0), 9)})
        stepped = self.start(store=FaultyStore(SCHEMA, LANES))
        stepped.threads[2].persister.step()
        stepped.reactor.deliver()
        self.assertEqual(stepped.join(player).state, at(5))


class ReplacedTests(LanesTestCase):
    """A store that was replaced while several lanes write."""

    def make_store(self) -> FragileStore:
        """One that can be replaced."""
        return FragileStore(LANES)

    def find(self, lane: int) -> None:
        """Have this lane find and report it."""
        self.store.successor = {}
        self.stepped.threads[lane].persister._maintain()
        self.stepped.reactor.deliver()

    def save_all(self) -> None:
        """All players are saved."""
        self.move_all()
        flushed = self.service.flush()
        self.stepped.settle()
        self.successResultOf(flushed)

    def test_all_stand_still_first(self) -> None:
        """It is gone over to when the last writer is closed, once; then all is saved again."""
        self.save_all()
        self.find(1)
        for lane in (0, 2, 3):
            self.assertEqual(self.store.reopened, [])
            self.assertEqual(self.step(lane), 1.0)
        self.assertEqual(self.store.reopened, [])
        go_over(self.stepped)
        self.assertEqual(len(self.store.reopened), 1)
        self.assertEqual(len(self.told("was removed or replaced", LogLevel.critical)), 1)
        self.stepped.settle()
        self.assertEqual(self.at_place(1.0), [*PLAYERS])
        self.assertEqual(self.service.ledger.snapshot().pending, 0)

    def test_found_by_each(self) -> None:
        """Where each lane finds it by itself it is gone over to once."""
        self.save_all()
        self.store.successor = {}
        for thread in self.stepped.threads:
            thread.persister._maintain()
        self.stepped.reactor.deliver()
        go_over(self.stepped)
        self.assertEqual(len(self.store.reopened), 1)
        self.stepped.settle()
        self.assertEqual(self.at_place(1.0), [*PLAYERS])

    def test_committed_meanwhile(self) -> None:
        """What another lane commits to the old store meanwhile is not called saved."""
        self.save_all()
        self.move_all(2.0)
        player = of_lane(0)[0]
        left, flushed = self.service.leave(player), self.service.flush()
        self.stepped.threads[0].persister.step()  # told after the other's word
        self.store.successor = {}
        commits = list(self.stepped.reactor._calls)
        self.stepped.reactor._calls.clear()
        self.find(1)
        self.stepped.reactor._calls.extend(commits)
        self.stepped.reactor.deliver()
        self.waits(left, flushed)
        self.assertEqual(self.service.progress(player).saved, 0)
        for lane in (0, 2, 3):
            self.step(lane)
        go_over(self.stepped)
        self.assertEqual(len(self.store.reopened), 1)
        self.stepped.settle()
        self.successResultOf(left)
        self.successResultOf(flushed)
        self.assertEqual(self.at_place(2.0), [*PLAYERS])

    def test_cannot_be_used_at_first(self) -> None:
        """All lanes stand still as long as what is there cannot be used."""
        self.save_all()
        self.store.reopen_failures.extend(StoreUnusable("a shopping list") for _ in range(2))
        self.find(1)
        self.move_all(3.0)
        self.stepped.step()
        for _ in range(2):
            go_over(self.stepped)
            self.assertEqual(self.store.reopened, [])
            self.stepped.reactor.advance(1.0)
        go_over(self.stepped)
        self.assertEqual(len(self.store.reopened), 1)
        self.stepped.settle()
        self.stepped.reactor.advance(5.0)
        self.stepped.settle()
        self.assertEqual(self.at_place(3.0), [*PLAYERS])

    def test_put_off(self) -> None:
        """Every lane is told that the switch is put off: one that is to end and has no rows ends
        only then."""
        self.save_all()
        self.store.reopen_failures.append(StoreUnusable("a shopping list"))
        self.store.successor = {}
        for thread in self.stepped.threads:
            thread.persister._maintain()
            thread.persister.finish()
        self.stepped.reactor.deliver()
        self.assertEqual([self.step(lane) for lane in range(1, LANES)], [1.0] * (LANES - 1))
        go_over(self.stepped)
        self.assertEqual(self.store.reopened, [])
        self.assertEqual([self.step(lane) for lane in range(LANES)], [None] * LANES)

    def test_found_while_stopping(self) -> None:
        """A lane whose thread has ended delays no other lane, and the loss is logged."""
        self.save_all()
        stopped = self.service.stopService()
        for thread in self.stepped.threads[:3]:
            thread.run()
        self.stepped.reactor.deliver()
        self.store.successor = {}
        self.patch(self.store, "sync", self.store.maintain)
        self.stepped.threads[3].run()
        self.stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertEqual(len(self.store.reopened), 1)
        self.assertTrue(self.service.gave_up)

    def test_found_by_one_that_ends(self) -> None:
        """Another lane goes over for one that found it as it ended, and keeps nobody waiting."""
        self.save_all()
        stopped = self.service.stopService()
        self.store.successor = {}
        self.patch(self.store, "sync", self.store.maintain)
        self.stepped.threads[3].run()  # finds it, and ends
        self.stepped.threads[0].persister._maintain()  # finds it as well
        self.stepped.reactor.deliver()
        for thread in self.stepped.threads[1:3]:
            thread.run()
        self.stepped.reactor.deliver()
        self.assertEqual(self.store.reopened, [])
        self.step(0)
        self.assertEqual(len(self.store.reopened), 1)
        self.stepped.threads[0].run()
        self.stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertTrue(self.service.gave_up)
        self.assertFalse(self.told("stuck"))


class ThirdPartyStore(MemoryStore):
    """A third-party store, with a writer object for each lane.

    Attributes:
        writers: what each saved, by the name of its thread.
    """

    def __init__(self) -> None:
        super().__init__(SCHEMA, LANES)
        self.writers: dict[str, set[int]] = {}

    def write(self, records: Records) -> Any:
        """See `IStateWriter.write`."""
        mine = self.writers.setdefault(threading.current_thread().name, set())
        mine.update(records["session_id"].tolist())
        return super().write(records)


class ThreadTests(ServiceTestCase):
    """Real threads."""

    def test_third_party(self) -> None:
        """Each thread has its name, and its own players; all is saved and all threads end."""
        reactor, store = MemoryReactor(), ThirdPartyStore()
        service = PlayerStateService(store, runtime=Runtime(reactor))
        service.startService()
        for player in PLAYERS:
            self.successResultOf(service.join(player))
            service.update(player, at(player))

        def until(deferred: Any) -> None:
            limit = time.monotonic() + PATIENCE
            while not deferred.called and time.monotonic() < limit:
                reactor.deliver()
                time.sleep(0.001)
            self.successResultOf(deferred)

        until(service.flush())
        for player in PLAYERS:
            service.update(player, at(player, 1))
        until(service.stopService())
        expected = {f"playerstate-persist-{lane + 1}": set(of_lane(lane)) for lane in range(LANES)}
        self.assertEqual(store.writers, expected)
        self.assertEqual(store.players[40].values, (40.0, 1.0))
        self.assertEqual(service.ledger.snapshot().imbalance(), [])
        self.assertFalse({t.name for t in threading.enumerate()} & set(expected))

    def test_how_many(self) -> None:
        """The user of a memory store says how many; a store that says nonsense is refused."""
        self.assertEqual(open_store("memory:", type(at(0))).lanes, 1)
        self.assertEqual(open_store("memory:?lanes=4", type(at(0))).lanes, 4)
        for rest in ("?lanes=0", "?lanes=65", "?lanes=x", "?lanes=", "?lane=4", "?lanes=4&x=1"):
            self.assertRaises(StoreUnusable, open_store, f"memory:{rest}", type(at(0)))
        for lanes, error in (
            (0, ValueError),
            (65, ValueError),
            ("4", TypeError),
            (None, TypeError),
        ):
            store = MemoryStore(SCHEMA)
            store.lanes = lanes  # type: ignore[assignment]
            self.assertRaises(error, PlayerStateService, store)
