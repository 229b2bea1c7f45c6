"""The order of a start: what cannot be opened, what answers later, and when players may join."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from playerstate import NotRunning, NotSaved, PlayerStateService, StoreBusy, StoreUnusable
from playerstate.interfaces import IStateStore, Stored, StoreReplaced, file_store
from playerstate.players.starting import ANSWER_WITHIN
from playerstate.runtime import Runtime
from playerstate.testing import MemoryReactor, SteppedService
from tests.kit.distant import DistantStore
from tests.kit.players import ServiceTestCase, at, end_thread, go_over, leave_behind
from tests.kit.watched import WatchedStore


class OrderTests(ServiceTestCase):
    """What cannot be started is let go of."""

    def make(self, store: Any, **given: Any) -> PlayerStateService:
        """A service that is not started, over a reactor of its own."""
        self.reactor = MemoryReactor()
        return PlayerStateService(store, runtime=Runtime(self.reactor, **given))

    def test_store_unusable(self) -> None:
        """Where the store cannot be prepared, nothing is started."""
        store = WatchedStore()
        store.failing = {"prepare"}
        started: list[Any] = []
        service = self.make(store, start_thread=lambda run, name: started.append(run))
        self.assertRaises(StoreUnusable, service.startService)
        self.assertEqual((started, self.reactor.getDelayedCalls()), ([], []))
        self.assertFalse(service.running)
        self.failureResultOf(service.join(42), NotRunning)
        self.successResultOf(service.stopService())

    def test_migration_fails(self) -> None:
        """Where the store cannot be fitted to the schema, it is let go of."""
        store = WatchedStore()
        store.failing = {"migrate"}
        service = self.make(store)
        self.assertRaises(StoreUnusable, service.startService)
        self.assertEqual(store.calls, ["prepare", "migrate", "close store"])
        self.assertFalse(service.running)

    def test_no_memory(self) -> None:
        """Where there is no room for the live file, store and reader are let go of."""
        store = WatchedStore()
        service = self.make(store)
        closes: list[bool] = []

        def no_room(*args: Any) -> Any:
            raise StoreUnusable("cannot make the live file")

        self.patch(service._memory, "open", no_room)
        self.patch(service._memory, "close", lambda clean: closes.append(clean))
        self.assertRaises(StoreUnusable, service.startService)
        calls = ["prepare", "migrate", "open_reader", "close reader", "close store"]
        self.assertEqual(store.calls, calls)
        self.assertEqual(closes, [False])

    def test_no_reader(self) -> None:
        """Where the reader cannot be opened, the store is let go of."""
        store = WatchedStore()
        store.failing = {"open_reader"}
        service = self.make(store)
        self.assertRaises(StoreUnusable, service.startService)
        self.assertEqual(store.calls, ["prepare", "migrate", "open_reader", "close store"])
        self.assertFalse(service.running)

    def test_no_thread(self) -> None:
        """Where no thread can be started, the store is let go of and nothing runs."""
        store = WatchedStore()

        def start_thread(run: Any, name: str) -> Any:
            raise RuntimeError("can't start new thread")

        service = self.make(store, start_thread=start_thread)
        self.assertRaises(RuntimeError, service.startService)
        calls = ["prepare", "migrate", "open_reader", "close reader", "close store"]
        self.assertEqual(store.calls, calls)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(service.running)
        self.failureResultOf(service.join(42), NotRunning)


class DistantTests(ServiceTestCase):
    """A store across a network, without files."""

    def setUp(self) -> None:
        """A service that waits for the first answer of its store."""
        super().setUp()
        self.store = DistantStore()
        self.stepped = self.start(store=self.store)
        self.service = self.stepped.service
        self.reactor = self.stepped.reactor

    def test_store_is_one(self) -> None:
        """The store of these tests is one, and keeps no files."""
        verifyObject(IStateStore, self.store)
        self.assertIsNone(file_store(self.store))

    def test_started(self) -> None:
        """It asks one thing after the other; players may join when all is answered."""
        opened, started = self.service.opened(), self.service.started()
        for name in ("prepare", "migrate", "open_reader"):
            self.assertEqual([asked[0] for asked in self.store.asked], [name])
            self.waits(opened, started)
            self.assertFalse(self.service.running)
            self.failureResultOf(self.service.join(42), NotRunning)
            self.store.answer()
        self.successResultOf(opened)
        self.successResultOf(started)
        self.successResultOf(self.service.started())
        self.assertTrue(self.service.running)
        self.stepped.join(42)
        self.service.update(42, at(1))
        self.successResultOf(self.stepped.stop())
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 0.0)})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_not_running_meanwhile(self) -> None:
        """What is asked meanwhile says what to wait for; a second start is harmless."""
        self.service.startService()
        self.assertEqual(self.store.calls, ["prepare"])
        error = self.assertRaises(NotRunning, getattr, self.service, "clock")
        self.assertIn("wait for the Deferred of started()", str(error))
        self.assertIsNone(self.service.trouble)
        self.store.answer_all()
        self.successResultOf(self.stepped.stop())

    def check_not_started(self, started: Deferred[None], *calls: str) -> StoreUnusable:
        """The start has failed, with all given back; why."""
        error: Any = self.failureResultOf(started, StoreUnusable).value
        self.assertEqual(self.store.calls, list(calls))
        self.assertFalse(self.service.running)
        self.failureResultOf(self.service.started(), NotRunning)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        line = f"the service cannot be started: {error}"
        self.assertEqual(self.told("cannot be started", LogLevel.critical), [line])
        return error

    def test_unusable(self) -> None:
        """A store that says that it cannot be used is told of; it may be tried again."""
        started = self.service.started()
        self.store.answer(StoreUnusable("wrong password"))
        self.check_not_started(started, "prepare")
        self.service.startService()
        self.store.answer_all()
        self.stepped.join(42)
        self.successResultOf(self.stepped.stop())

    def test_migration_fails(self) -> None:
        """What `prepare` took is given back where a later step fails."""
        started = self.service.started()
        self.store.answer()
        self.store.answer(StoreUnusable("no such column"))
        self.check_not_started(started, "prepare", "migrate", "close")

    def test_out_of_time(self) -> None:
        """A store that does not answer is given up, each answer by itself."""
        started = self.service.started()
        self.reactor.advance(ANSWER_WITHIN - 1)
        self.store.answer()
        self.reactor.advance(ANSWER_WITHIN - 1)
        self.waits(started)
        self.reactor.advance(1)
        error = self.check_not_started(started, "prepare", "migrate", "cancel migrate", "close")
        self.assertIn("memory has not answered within 30 s", str(error))

    def test_bug(self) -> None:
        """What no store should raise is logged with its trace, and handed on."""
        started = self.service.started()
        self.store.answer(ZeroDivisionError("a bug"))
        self.failureResultOf(started, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopped(self) -> None:
        """A stop meanwhile cancels what is asked, gives all back and fires."""
        started = self.service.started()
        self.store.answer()
        self.successResultOf(self.service.stopService())
        self.failureResultOf(started, NotRunning)
        self.assertEqual(self.store.calls, ["prepare", "migrate", "cancel migrate", "close"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.told("cannot be started"), [])
        self.service.startService()
        self.store.asked = self.store.asked[-1:]
        self.store.answer_all()
        self.stepped.join(42)
        self.successResultOf(self.stepped.stop())

    def test_it_cannot_be_replaced(self) -> None:
        """A store without files that says that it was replaced is trouble, and no more."""
        self.store.answer_all()
        self.stepped.join(42)
        self.service.update(42, at(1))

        def replaced(records: Any) -> Any:
            raise StoreReplaced("moved elsewhere")

        patched = self.patch(self.store, "write", replaced)
        flushed = self.service.flush()
        self.stepped.step()
        go_over(self.stepped)
        self.waits(flushed)
        self.assertEqual(len(self.told("keeps no files", LogLevel.error)), 1)
        patched.restore()
        self.service.stopService()
        self.reactor.advance(30.0)
        end_thread(self.stepped)
        self.failureResultOf(flushed, NotSaved)
        self.assertTrue(self.service.gave_up)


class ReadyTests(ServiceTestCase):
    """When players may join, of a store that answers at once."""

    def test_at_once(self) -> None:
        """A store that answers at once is ready with `startService`, until the stop begins."""
        stepped = self.start()
        self.successResultOf(stepped.service.started())
        stopped = stepped.service.stopService()
        self.failureResultOf(stepped.service.started(), NotRunning)
        self.failureResultOf(stepped.service.opened(), NotRunning)
        end_thread(stepped)
        self.successResultOf(stopped)
        self.failureResultOf(stepped.service.started(), NotRunning)

    def recovering(self) -> tuple[SteppedService, Deferred[None]]:
        """A service that saves what a process before left."""
        leave_behind(self, {1: Stored((1.0, 1.0), 100)})
        stepped = self.start()
        return stepped, stepped.service.started()

    def test_recovered(self) -> None:
        """It is ready once what a process before left is saved."""
        stepped, started = self.recovering()
        self.successResultOf(stepped.service.opened())
        self.waits(started)
        self.failureResultOf(stepped.service.join(1), StoreBusy)
        stepped.settle()
        self.successResultOf(started)
        self.assertEqual(stepped.join(1).state, at(1, 1))

    def test_stopped_before(self) -> None:
        """A stop before that tells who waits; one who cancels waits no more."""
        stepped, started = self.recovering()
        cancelled = stepped.service.started()
        cancelled.addErrback(lambda _: None)
        cancelled.cancel()
        self.successResultOf(stepped.stop())
        self.failureResultOf(started, NotRunning)


class LoopTests(ServiceTestCase):
    """Starts from within an asyncio event loop."""

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
