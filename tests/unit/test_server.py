"""The service that twistd runs, and the status with which the process ends."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerStateService, Runtime, StoreUnusable, server
from playerstate.tap import Options, makeService
from playerstate.testing import MemoryReactor, SteppedThread
from tests.kit.distant import DistantStore


class ExitTests(SynchronousTestCase):
    """What a stop makes of the status that the process ends with."""

    def stop(self, *, gave_up: bool) -> list[tuple[Any, ...]]:
        """Stop a server that never started; return what is to be done at the process's end."""
        options = Options()
        options.parseOptions(["--store", "memory:", "--live-file", "none"])
        server = makeService(options)
        for service in server:
            service.running = True
            self.patch(service, "stopService", lambda: succeed(None))
            if isinstance(service, PlayerStateService):
                service._gave_up = gave_up
        at_exit: list[tuple[Any, ...]] = []
        self.patch(atexit, "register", lambda *call: at_exit.append(call))
        from twisted.internet import reactor

        self.reactor = reactor
        self.patch(reactor, "_exitSignal", signal.SIGTERM)
        self.successResultOf(server.stopService())
        return at_exit

    def test_everything_saved(self) -> None:
        """Where everything was saved the process ends as the signal has it."""
        self.assertEqual(self.stop(gave_up=False), [])
        self.assertEqual(self.reactor._exitSignal, signal.SIGTERM)

    def test_gave_up(self) -> None:
        """Where not everything was saved it ends with status 1, whatever signal stopped it."""
        self.assertEqual(self.stop(gave_up=True), [(os._exit, 1)])
        self.assertIsNone(self.reactor._exitSignal)


class LateTests(SynchronousTestCase):
    """A store that answers late, across a network."""

    def setUp(self) -> None:
        """A server that has been started, and waits for its store."""
        options = Options()
        options.parseOptions(["--store", "memory:", "--live-file", "none"])
        self.store = options["store"] = DistantStore()
        self.server = makeService(options)
        self.service, self.plain = self.server
        self.memory = MemoryReactor()
        self.service._runtime = Runtime(self.memory, start_thread=self.start_thread)
        self.plain._reactor = self.memory
        self.patch(server, "catch_hangup", lambda: None)
        self.at_exit: list[tuple[Any, ...]] = []
        self.patch(atexit, "register", lambda *call: self.at_exit.append(call))
        from twisted.internet import reactor

        self.ends: list[None] = []
        self.patch(reactor, "_exitSignal", None)
        self.patch(reactor, "stop", lambda: self.ends.append(None))
        self.server.startService()

    def start_thread(self, run: Callable[[], None], name: str) -> SteppedThread:
        """A persist thread that runs when told."""
        self.thread = SteppedThread(run)
        return self.thread

    def stop(self) -> None:
        """Stop the server, which must have an end."""
        stopped = self.server.stopService()
        if not stopped.called:
            self.thread.run()
            self.memory.deliver()
        self.successResultOf(stopped)

    def test_listens_when_open(self) -> None:
        """The port is bound once the store is open, and not before."""
        self.assertEqual(self.memory.ports, {})
        self.store.answer_all()
        self.assertEqual(list(self.memory.ports), [7777])
        self.stop()
        self.assertEqual((self.ends, self.at_exit, self.memory.ports), ([], [], {}))

    def test_stopped_before(self) -> None:
        """A stop meanwhile is a clean one, and nothing listens."""
        self.stop()
        self.assertEqual((self.ends, self.at_exit, self.memory.ports), ([], [], {}))
        self.assertEqual(self.store.calls, ["prepare", "cancel prepare"])

    def test_cannot_start(self) -> None:
        """A store that cannot be used ends the process with status 1, and a line in the log."""
        self.store.answer(StoreUnusable("wrong password"))
        self.assertEqual((self.ends, self.at_exit), ([None], [(os._exit, 1)]))
        self.assertEqual(self.memory.ports, {})

    def test_cannot_listen(self) -> None:
        """So does a port that another program has by then."""
        port = self.memory.listenUDP(7777, DatagramProtocol(), "127.0.0.1")
        self.addCleanup(port.stopListening)
        self.store.answer_all()
        self.assertEqual((self.ends, self.at_exit), ([None], [(os._exit, 1)]))
        self.stop()
