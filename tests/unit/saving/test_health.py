"""What keeps rows from the store, and how it is logged."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from playerstate.clock import SteadyClock
from playerstate.interfaces import StoreBusy
from playerstate.saving.health import BUSY_LOGGED_EVERY, ERROR_LOGGED_EVERY, StoreHealth, Trouble
from playerstate.stores.memory import MemoryStore
from tests.kit.players import SCHEMA, ServiceTestCase


class Still:
    """A persister that does nothing, since when the test says."""

    writing_since: float | None = None
    maintaining_since: float | None = None


class HealthTests(ServiceTestCase):
    """Two lanes of one store."""

    def setUp(self) -> None:
        """Make their health."""
        super().setUp()
        self.reactor = Clock()
        clock, logged_at = SteadyClock(self.reactor, self.reactor.seconds), dict[str, float]()
        self.one, self.other = (
            StoreHealth(MemoryStore(SCHEMA), clock, 5.0, logged_at) for _ in range(2)
        )
        self.persister: Any = Still()

    def test_short(self) -> None:
        """What is over within the time that saving may take is no trouble."""
        self.one.begin("no disk")
        self.reactor.advance(5.0)
        self.assertIsNone(self.one.current(self.persister, 1))
        self.reactor.advance(1.0)
        self.assertEqual(self.one.current(self.persister, 1), Trouble("no disk", 6.0))
        self.assertIsNone(self.other.current(self.persister, 1))
        self.one.succeeded()
        self.assertIsNone(self.one.current(self.persister, 1))

    def test_told_once(self) -> None:
        """What both lanes meet is logged by the first, and so is its end."""
        self.one.failed(StoreBusy("locked"), 3)
        self.other.failed(StoreBusy("locked"), 2)
        self.assertEqual(len(self.told("is busy: locked; 3 rows are kept")), 1)
        self.assertEqual(len(self.told("is busy")), 1)
        self.other.succeeded()
        self.assertEqual(self.told("takes rows again"), [])
        self.one.succeeded()
        self.assertEqual(len(self.told("takes rows again")), 1)

    def test_told_again(self) -> None:
        """A lane that fails for longer than the first is logged in its turn."""
        self.one.failed(StoreBusy("locked"), 3)
        self.other.failed(StoreBusy("locked"), 2)
        self.one.succeeded()
        self.reactor.advance(BUSY_LOGGED_EVERY)
        self.other.failed(StoreBusy("locked"), 2)
        self.assertEqual(len(self.told("is busy")), 2)

    def test_each_kind(self) -> None:
        """Each kind of error is logged with its trace, and again after a minute."""
        for error in (OSError("disk"), KeyError("bug"), OSError("disk")):
            self.one.failed(error, 1)
        self.assertEqual(len(self.flushLoggedErrors()), 2)
        self.reactor.advance(ERROR_LOGGED_EVERY)
        self.other.failed(OSError("disk"), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_maintenance(self) -> None:
        """Maintenance that fails keeps no row; one that hangs is trouble where rows wait."""
        self.one.failed(OSError("checkpoint"), 0)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.persister.maintaining_since = 0.0
        self.reactor.advance(6.0)
        self.assertIsNone(self.one.current(self.persister, 0))
        self.assertEqual(
            self.one.current(self.persister, 1),
            Trouble("the persist thread is stuck in maintenance", 6.0),
        )
