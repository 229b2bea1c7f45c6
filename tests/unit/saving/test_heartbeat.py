"""The beats of the persist threads."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from playerstate import Runtime
from playerstate.clock import SteadyClock
from playerstate.saving.heartbeat import REACTOR_SILENT, Heartbeat
from playerstate.stores.memory import MemoryStore
from playerstate.testing import MemoryReactor
from tests.kit.players import SCHEMA, ServiceTestCase


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
