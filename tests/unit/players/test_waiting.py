"""Calls made from inside a Deferred that fires, in every phase, and what waits without end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from playerstate import NotSaved, PlayerState, PlayerStateService, open_store
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import StoreBusy, Stored
from playerstate.ledger import Outcome
from playerstate.players.service import Joined, NotOnline, NotRunning, ServerFull
from playerstate.saving.heartbeat import REACTOR_SILENT
from playerstate.testing import FaultyStore, SteppedService
from playerstate.waiters import Waiters, tell
from tests.kit.players import SCHEMA, ServiceTestCase, at

LATEST = 2**63 - 1


class WaitersTests(SynchronousTestCase):
    """A list of those who wait."""

    def test_asked_meanwhile(self) -> None:
        """Who asks while the first is told waits for the next event."""
        waiters: Waiters[int, None] = Waiters()
        again: list[Deferred[int]] = []
        waiters.add(None).addCallback(lambda _: again.append(waiters.add(None)))
        tell(waiters.take(), 1)
        self.assertEqual(len(waiters), 1)
        self.assertNoResult(again[0])

    def test_cancelled_meanwhile(self) -> None:
        """One who is cancelled by another who is told gets a cancellation, once."""
        waiters: Waiters[int, None] = Waiters()
        results: list[Any] = []
        first, second = waiters.add(None), waiters.add(None)
        first.addCallback(lambda _: second.cancel())
        second.addBoth(results.append)
        tell(waiters.take(), 1)
        self.assertEqual([type(result) for result in results], [Failure])


class RestartTests(ServiceTestCase):
    """Stop and start from inside of each other."""

    def test_second_stop_saves(self) -> None:
        """A service started again by the stop's callback saves all by its next stop."""
        stepped = self.start()
        seconds: list[Deferred[None]] = []

        def again(_: None) -> None:
            stepped.service.startService()
            stepped.join(42)
            stepped.service.update(42, at(7))
            seconds.append(stepped.service.stopService())

        stepped.join(41)
        stepped.service.update(41, at(1))
        stepped.service.stopService().addCallback(again)
        self.successResultOf(stepped.stop())
        self.waits(seconds[0])
        self.successResultOf(stepped.stop())
        self.successResultOf(seconds[0])
        self.assertEqual(self.stored(stepped), {41: (1.0, 0.0), 42: (7.0, 0.0)})

    def test_start_while_stopping(self) -> None:
        """A start while a stop is under way is refused, and the stop goes on."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1))
        stopped = stepped.service.stopService()
        self.assertRaises(NotRunning, stepped.service.startService)
        self.successResultOf(stepped.stop())
        self.successResultOf(stopped)
        self.assertEqual(self.stored(stepped), {42: (1.0, 0.0)})

    def test_retry_while_giving_up(self) -> None:
        """Who tries again on `NotSaved`, told that a stop gave up, gets `NotRunning` at once."""
        stepped = self.start(stop_within=1.0)
        stepped.join(42)
        stepped.service.update(42, at(1))
        stepped.store.failures.extend([OSError("full")] * 100)
        tries: list[Failure] = []

        def retry(failure: Failure) -> None:
            tries.append(failure)
            if failure.check(NotSaved):
                stepped.service.flush().addErrback(retry)

        leaves: list[Failure] = []

        def leave_again(failure: Failure) -> None:
            leaves.append(failure)
            if failure.check(NotSaved):
                stepped.service.leave(42).addErrback(leave_again)

        stepped.service.flush().addErrback(retry)
        stepped.service.leave(42).addErrback(leave_again)
        ends: list[None] = []
        stepped.service.stopService().addCallback(ends.append)
        for _ in range(4):
            stepped.step()
            stepped.reactor.advance(0.5)
        stepped.thread.run()
        stepped.reactor.deliver()
        self.assertEqual(ends, [None])
        self.assertTrue(stepped.service.gave_up)
        self.flushLoggedErrors(OSError)
        for failures in (tries, leaves):
            self.assertEqual([each.type for each in failures], [NotSaved, NotRunning])

    def test_stop_from_a_shared_load(self) -> None:
        """Who shares a load with one who stops the service is not joined to a stopping one."""
        stepped = self.start()
        stepped.store.hold_loads()
        first, second = stepped.service.join(42), stepped.service.join(42)
        first.addCallback(lambda _: stepped.service.stopService() and None)
        stepped.store.release_loads()
        self.failureResultOf(second, NotRunning)
        self.successResultOf(stepped.stop())

    def test_place_taken_from_a_shared_load(self) -> None:
        """Who finds the last place taken by a callback before gets `ServerFull`."""
        stepped = self.start(max_players=1)
        stepped.store.hold_loads()
        first, second = stepped.service.join(42), stepped.service.join(42)

        def make_room(joined: Joined) -> None:
            stepped.service.leave(42)
            stepped.store.held = None
            stepped.join(43)

        first.addCallback(make_room)
        held, stepped.store.held = stepped.store.held, []
        for _, answer in held:
            answer.callback(None)
        self.failureResultOf(second, ServerFull)


EVENTS = ("stop", "flush", "leave", "join", "join refused", "given up", "stop given up")
CALLS: dict[str, Callable[[PlayerStateService, Gateway], Any]] = {
    "start": lambda service, _: service.startService(),
    "stop": lambda service, _: service.stopService(),
    "join": lambda service, _: service.join(7),
    "join again": lambda service, _: service.join(42),
    "leave": lambda service, _: service.leave(42),
    "flush": lambda service, _: service.flush(),
    "update": lambda service, _: service.update(41, at(9)),
    "state": lambda service, _: service.state(41),
    "progress": lambda service, _: service.progress(42),
    "kick": lambda _, gateway: gateway.kick(42),
    "close": lambda _, gateway: gateway.close(),
    "room": lambda service, _: service.has_room(7),
    "trouble": lambda service, _: service.trouble,
}
DOCUMENTED = (NotRunning, NotOnline, NotSaved)


class EveryCallTests(ServiceTestCase):
    """Every public call, made from inside of every Deferred that the service fires."""

    def fire(self, stepped: SteppedService, event: str) -> Deferred[Any]:
        """Begin what will fire the Deferred of this event."""
        service = stepped.service
        if event in ("given up", "stop given up"):
            stepped.store.failures.extend([StoreBusy("locked")] * 500)
            flushed, stopped = service.flush(), service.stopService()
            fires, other = (flushed, stopped) if event == "given up" else (stopped, flushed)
            other.addErrback(lambda failure: failure.trap(NotSaved))
            return fires
        if event in ("join", "join refused"):
            stepped.store.hold_loads()
            return service.join(43)
        begin = {"stop": service.stopService, "flush": service.flush}
        return service.leave(42) if event == "leave" else begin[event]()

    def drive(self, stepped: SteppedService) -> None:
        """Let time pass and the persist thread work, whichever run of the service it is of."""
        for _ in range(30):
            if stepped.service._run is not None and not stepped.service.run.outbox.ended.called:
                if stepped.thread.persister.told_to_end:
                    stepped.thread.run()
                    stepped.reactor.deliver()
                else:
                    stepped.step()
            stepped.reactor.advance(0.25)

    def ask(self, event: str, name: str) -> None:
        """Make one call inside of one event, and see that all ends well."""
        stepped = self.start(stop_within=2.0)
        service, gateway = stepped.service, Gateway(stepped.service)
        gateway.start()
        for session_id in (41, 42):
            stepped.join(session_id)
            service.update(session_id, at(session_id))
        answers: list[Any] = []

        def call(_: object) -> None:
            try:
                answer = CALLS[name](service, gateway)
            except DOCUMENTED as error:
                answers.append(error)
                return
            if isinstance(answer, Deferred):
                answer.addBoth(answers.append)
            else:
                answers.append(answer)

        self.fire(stepped, event).addBoth(call)
        if event == "join":
            stepped.store.release_loads()
        elif event == "join refused":
            service.stopService()
        self.drive(stepped)
        gave_up = service.gave_up
        stepped.store.failures.clear()
        stepped.store.held = None
        last = service.stopService()
        self.drive(stepped)
        self.successResultOf(last)
        (answer,) = answers
        if isinstance(answer, Failure):
            self.assertIsNotNone(answer.check(*DOCUMENTED), answer)
        self.failureResultOf(service.flush(), NotRunning)
        self.assertEqual(service.ledger.snapshot().imbalance(), [])
        self.assertEqual(stepped.reactor.getDelayedCalls(), [])
        if not gave_up and not event.endswith("given up"):
            moved = name == "update" and answer is None
            self.assertEqual(self.stored(stepped)[41], (9.0 if moved else 41.0, 0.0))
            self.assertEqual(self.stored(stepped)[42], (42.0, 0.0))

    def test_each(self) -> None:
        """Each ends with a result or a documented error, loses nothing and ends no other."""
        for event in EVENTS:
            for name in CALLS:
                self.ask(event, name)
        self.assertEqual(self.told("failed", LogLevel.critical), [])


class NeverStartedTests(SynchronousTestCase):
    """A service and a gateway before their first start."""

    def test_session_ids(self) -> None:
        """0, a bool and a text are refused in words; a whole number of numpy's is one."""
        stepped = SteppedService()
        service, gateway = stepped.service, Gateway(stepped.service)
        calls = [service.join, service.leave, service.state, service.progress, gateway.kick]
        calls.append(lambda session_id: service.update(session_id, at(1)))
        for call in calls:
            for wrong, error in ((0, ValueError), (2**63, ValueError), (True, TypeError)):
                self.assertRaises(error, call, wrong)
            self.assertRaises(TypeError, call, "42")
        stepped.join(int(np.int64(42)))
        self.assertEqual(service.state(np.int64(42)), at(350, 200))
        self.assertEqual(service.ledger.snapshot().imbalance(), [])

    def test_arguments(self) -> None:
        """A URL is no store, a path no URL; the live file may be a path."""
        self.assertRaises(TypeError, PlayerStateService, "sqlite:x.db")
        self.assertRaises(TypeError, open_store, Path("x.db"), PlayerState)
        PlayerStateService(FaultyStore(SCHEMA), live_file=Path(self.mktemp()))


def move_in_a_batch(service: PlayerStateService, session_id: int) -> None:
    """The first move of a player, applied and counted as one of many that came together."""
    slots = np.array([service.table.slots[session_id]], np.intp)
    fields, now = np.zeros(1, SCHEMA.dtype), service.run.wall_clock() // 1000
    service.ledger.superseded += service.table.apply_many(
        slots, np.array([1], np.uint32), fields, now
    )
    service.ledger.take_in(Outcome.APPLIED)


class LeaveTests(ServiceTestCase):
    """Leaves again and again, and of the last date there is."""

    def test_storm_tells_the_old(self) -> None:
        """Each leave of old is told once its own row is saved, while the player goes on."""
        stepped = self.start()
        for turn in range(1, 6):
            stepped.join(42)
            stepped.service.update(42, at(turn))
            left = stepped.service.leave(42)
            stepped.reactor.advance(0.05)
            stepped.join(42)
            stepped.service.update(42, at(turn + 0.5))
            stepped.step()
            self.successResultOf(left)
        self.assertEqual(len(stepped.service.run.leaves.by_slot), 0)

    def test_latest_date(self) -> None:
        """A leave at the last date there is waits until the store has taken the row."""
        stepped = self.start()
        stepped.store.players[42] = Stored((1.0, 1.0), LATEST)
        stepped.join(42)
        stepped.service.update(42, at(5))
        left = stepped.service.leave(42)
        self.waits(left)
        stepped.reactor.advance(0.1)
        self.waits(left)
        stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.stored(stepped), {42: (5.0, 0.0)})

    def test_latest_date_on_its_way(self) -> None:
        """A leave at that date waits for a row that was swept already, however it was made."""
        for session_id in (42, 43):
            stepped = self.start()
            service = stepped.service
            stepped.store.players[session_id] = Stored((1.0, 1.0), LATEST)
            stepped.join(session_id)
            if session_id == 42:
                service.update(session_id, at(5))
            else:
                move_in_a_batch(service, session_id)
            stepped.reactor.advance(3.0)
            left = service.leave(session_id)
            self.waits(left)
            stepped.settle()
            self.successResultOf(left)

    def test_latest_date_of_many(self) -> None:
        """The same where moves came together."""
        stepped = self.start()
        stepped.store.players[42] = Stored((1.0, 1.0), LATEST)
        stepped.join(42)
        move_in_a_batch(stepped.service, 42)
        left = stepped.service.leave(42)
        stepped.reactor.advance(0.1)
        self.waits(left)
        stepped.settle()
        self.successResultOf(left)


class ReactorTests(ServiceTestCase):
    """A reactor that does not run."""

    def test_told(self) -> None:
        """The log says so once, and calls do not pile up in the reactor."""
        stepped = self.start(store=FaultyStore(SCHEMA, lanes=3))
        lanes = stepped.service.run.outbox._lanes
        for _ in range(30):
            for lane in lanes:
                lane.beat()
            Clock.advance(stepped.reactor, REACTOR_SILENT / 10)
        self.assertEqual(len(self.told("the reactor has not run", LogLevel.critical)), 1)
        self.assertEqual(len(stepped.reactor._calls), 1)

    def test_foreign_loop(self) -> None:
        """A start from within an asyncio loop that is not the reactor's is refused."""
        code = (
            "import asyncio\n"
            "from playerstate import *\n"
            "service = PlayerStateService(open_store('memory:', PlayerState))\n"
            "async def main():\n"
            "    service.startService()\n"
            "asyncio.run(main())\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertIn("asyncioreactor.install", ran.stderr)

    def test_asyncio(self) -> None:
        """With its reactor installed, a service lives in an asyncio program."""
        code = (
            "import asyncio, sys\n"
            "from twisted.internet import asyncioreactor\n"
            "loop = LOOP\n"
            "asyncio.set_event_loop(loop)\n"
            "asyncioreactor.install(loop)\n"
            "from playerstate import *\n"
            "store = open_store('memory:', PlayerState)\n"
            "service = PlayerStateService(store, save_within=0.2)\n"
            "async def main():\n"
            "    service.startService()\n"
            "    await service.join(42).asFuture(loop)\n"
            "    service.update(42, PlayerState(3.0, 4.0))\n"
            "    await service.leave(42).asFuture(loop)\n"
            "    await service.stopService().asFuture(loop)\n"
            "    print('saved', service.ledger.committed)\n"
            "loop.run_until_complete(main())\n"
        )
        loops = ["asyncio.new_event_loop()"]
        try:
            import uvloop  # noqa: F401
        except ImportError:
            pass
        else:
            loops.append("__import__('uvloop').new_event_loop()")
        for loop in loops:
            ran = subprocess.run(
                [sys.executable, "-c", code.replace("LOOP", loop)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env=dict(os.environ),
            )
            self.assertEqual(ran.stdout, "saved 1\n", ran.stderr)
