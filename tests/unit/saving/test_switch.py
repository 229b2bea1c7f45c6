"""The switch of all lanes to another store: its order, and what it does to those who wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import StoreUnusable
from playerstate.saving.lane import Lane
from playerstate.saving.switch import Switch
from tests.kit.lanes import LANES, PLAYERS, LanesTestCase, of_lane
from tests.kit.players import FragileStore, go_over


class StillLane:
    """A lane without a thread, which the test holds and ends."""

    def __init__(self) -> None:
        self.persister = self
        self.is_held = False
        self.synced: bool | None = None
        self.calls: list[str] = []
        self.then: Callable[[Any], object] = lambda outcome: None

    def hold(self) -> None:
        """See `Lane.hold`."""
        self.calls.append("hold")

    def resume(self) -> None:
        """See `Lane.resume`."""
        self.calls.append("resume")

    def put_off(self) -> None:
        """See `Persister.put_off`."""
        self.calls.append("put off")

    def reopen(self, call: Callable[[], object], then: Callable[[Any], object]) -> None:
        """See `Lane.reopen`."""
        self.calls.append("reopen")
        self.then = then


class SwitchTests(SynchronousTestCase):
    """The switch by itself, over three lanes."""

    def setUp(self) -> None:
        """Make it; the second lane finds the store replaced."""
        self.lanes = [StillLane() for _ in range(3)]
        self.calls: list[str] = []
        self.switch = Switch(
            cast("list[Lane]", self.lanes),
            lambda: self.calls.append("replaced"),
            lambda: self.calls.append("reopen"),
        )
        self.lanes[1].is_held = True
        self.find(1)

    def find(self, number: int) -> None:
        """A lane finds the store replaced."""
        self.switch.found(cast(Lane, self.lanes[number]))

    def end(self, number: int) -> None:
        """The thread of a lane ends."""
        self.lanes[number].synced = False
        self.switch.ended(cast(Lane, self.lanes[number]))

    def reopening(self) -> list[int]:
        """The lanes that were to go over."""
        return [number for number, lane in enumerate(self.lanes) if "reopen" in lane.calls]

    def test_order(self) -> None:
        """It is reported once, whichever find it; all hold, and the last of them is waited for."""
        self.assertTrue(self.switch.under_way)
        for number in (0, 2):
            self.assertEqual(self.calls, ["replaced"])
            self.assertIn("hold", self.lanes[number].calls)
            self.lanes[number].is_held = True
            self.find(number)
        self.assertEqual(self.calls, ["replaced", "reopen"])
        self.switch.held()
        self.assertEqual(self.calls, ["replaced", "reopen"])
        self.switch.resume()
        self.assertFalse(self.switch.under_way)
        self.assertEqual([lane.calls[-1] for lane in self.lanes], ["resume"] * 3)

    def test_goes_over(self) -> None:
        """The lane that found it goes over; a request that is done is not made again."""
        outcomes: list[str] = []
        self.switch.go_over(lambda: "", outcomes.append)
        self.assertEqual(self.reopening(), [1])
        self.lanes[1].then("done")
        self.end(1)
        self.assertEqual((outcomes, self.reopening()), (["done"], [1]))

    def test_ends(self) -> None:
        """Where that lane ends before it goes over, another does; where all have, none does."""
        self.switch.go_over(lambda: "", self.calls.append)
        self.end(2)
        self.assertEqual(self.reopening(), [1])
        self.end(1)
        self.assertEqual(self.reopening(), [0, 1])
        self.end(0)
        self.assertEqual(self.lanes[0].calls.count("reopen"), 1)

    def test_put_off(self) -> None:
        """Every lane is notified that it is put off."""
        self.switch.put_off()
        self.assertEqual([lane.calls[-1] for lane in self.lanes], ["put off"] * 3)


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
