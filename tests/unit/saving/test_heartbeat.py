"""The beats of the persist threads."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from playerstate import PlayerStateService, Runtime
from playerstate.clock import SteadyClock
from playerstate.saving.heartbeat import REACTOR_SILENT, Heartbeat
from playerstate.stores.memory import MemoryStore
from playerstate.testing import FaultyStore, MemoryReactor, SteppedThread
from tests.kit.players import SCHEMA, ServiceTestCase, at


class HeartbeatTests(ServiceTestCase):
    """One for several threads."""

    def setUp(self) -> None:
        """Make it."""
        super().setUp()
        self.reactor = MemoryReactor()
        clock = SteadyClock(self.reactor, self.reactor.seconds)
        self.heart = Heartbeat(
            MemoryStore(SCHEMA), clock, Runtime(self.reactor, monotonic=self.reactor.seconds)
        )

    def silence(self) -> int:
        """How often it was said that the reactor does not run."""
        return len(self.told("the reactor has not run", LogLevel.critical))

    def test_one_at_a_time(self) -> None:
        """Beats do not pile up in the reactor, however many threads give them."""
        for _ in range(3):
            self.heart.beat()
        self.assertEqual(len(self.reactor._calls), 1)
        self.reactor.deliver()
        self.heart.beat()
        self.assertEqual(len(self.reactor._calls), 1)

    def test_silence(self) -> None:
        """A reactor that takes no beat is logged once, and again after it has run."""
        for _ in range(2):
            for _ in range(30):
                self.heart.beat()
                Clock.advance(self.reactor, REACTOR_SILENT / 10)
            self.reactor.deliver()
        self.assertEqual(self.silence(), 2)

    def test_not_too_soon(self) -> None:
        """A reactor that is busy for less is not."""
        self.heart.beat()
        Clock.advance(self.reactor, REACTOR_SILENT - 0.1)
        self.heart.beat()
        self.assertEqual(self.silence(), 0)


class SteppingClockTests(ServiceTestCase):
    """A reactor whose own clock, the wall clock, is set while the service runs."""

    def setUp(self) -> None:
        """A service whose reactor's clock and monotonic clock are told apart."""
        super().setUp()
        self.reactor = MemoryReactor()
        self.monotonic = 1000.0
        self.store = FaultyStore(SCHEMA)
        self.threads: list[SteppedThread] = []

        def start_thread(run: Any, name: str) -> SteppedThread:
            self.threads.append(SteppedThread(run))
            return self.threads[0]

        self.service = PlayerStateService(
            self.store,
            runtime=Runtime(
                self.reactor,
                monotonic=lambda: self.monotonic,
                wall_clock=lambda: int(self.reactor.seconds() * 1e9),
                start_thread=start_thread,
            ),
        )
        self.service.startService()
        self.service.join(1)

    def live(self, seconds: float) -> None:
        """Time passes, with the thread's beat each second, while the reactor's clock stands."""
        for _ in range(round(seconds)):
            self.monotonic += 1.0
            self.threads[0].persister._listener.beat()
            self.reactor.deliver()

    def test_set_back(self) -> None:
        """While a clock that was set back an hour catches up, sweeps and leaves go on."""
        self.reactor.advance(0.0)
        self.reactor.rightNow -= 3600.0
        self.service.update(1, at(1))
        self.live(3)
        self.threads[0].persister.step()
        self.reactor.deliver()
        self.assertEqual(len(self.store.players), 1)
        self.service.update(1, at(2))
        left = self.service.leave(1)
        self.live(1)
        self.threads[0].persister.step()
        self.reactor.deliver()
        self.successResultOf(left)

    def test_set_back_while_stopping(self) -> None:
        """The deadline of a stop holds on a clock that was set back."""
        self.service.update(1, at(1))
        self.reactor.rightNow -= 3600.0
        stopped = self.service.stopService()
        self.live(29)
        self.assertEqual(self.told("unsaved"), [])
        self.live(2)
        self.assertEqual(len(self.told("unsaved of player 1;")), 1)
        self.successResultOf(stopped)

    def test_set_forward(self) -> None:
        """A clock that is set forward a year makes nothing due too soon."""
        self.service.update(1, at(1))
        self.reactor.advance(365 * 86_400.0)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 0)
        self.monotonic += 3.0
        self.reactor.advance(3.0)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)
        self.assertAlmostEqual(self.service.ledger.snapshot().oldest_unsaved_seconds, 3.0)
