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
from tests.kit.lanes import LANES, PLAYERS, LanesTestCase, of_lane
from tests.kit.players import (
    SCHEMA,
    ServiceTestCase,
    at,
    leave_behind,
    stop_within,
)
from tests.kit.support import PATIENCE


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
