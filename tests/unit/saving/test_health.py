"""What keeps rows from the store, and how it is logged."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel

from playerstate import NotSaved, PlayerState, PlayerStateService
from playerstate.clock import SteadyClock
from playerstate.interfaces import RowRefused, StoreBusy
from playerstate.saving.health import (
    BUSY_LOGGED_EVERY,
    ERROR_LOGGED_EVERY,
    StoreHealth,
    StoreLines,
    Trouble,
)
from playerstate.stores.memory import MemoryStore
from playerstate.testing import FaultyStore
from tests.kit.players import SCHEMA, FragileStore, ServiceTestCase, at, move, stop_within


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
        clock = SteadyClock(self.reactor, self.reactor.seconds)
        lines = StoreLines(clock)
        self.one, self.other = (
            StoreHealth(MemoryStore(SCHEMA), clock, 5.0, lines) for _ in range(2)
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


class TroubleTests(ServiceTestCase):
    """A store that fails: the batch stays in hand (invariant 3)."""

    def setUp(self) -> None:
        """A service with one player."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.stepped.join(1)

    def play(self, seconds: float) -> None:
        """The player moves and the persist thread tries, ten times a second."""
        for _ in range(round(seconds * 10)):
            self.service.update(1, at(self.stepped.reactor.seconds()))
            self.stepped.reactor.advance(0.1)
            self.stepped.step()

    def test_busy_for_a_while(self) -> None:
        """A store busy for 20 s is logged when it begins and when it ends; nothing is lost."""
        self.play(5.0)
        self.stepped.store.failures.extend(StoreBusy("database is locked") for _ in range(200))
        self.play(40.0)
        [begun] = self.told("is busy", LogLevel.warn)
        self.assertEqual(
            begun, "the store memory is busy: database is locked; 1 rows are kept and tried again"
        )
        [ended] = self.told("takes rows again", LogLevel.info)
        self.assertEqual(ended, "the store memory takes rows again, after 20.0 s")
        self.assertEqual(self.service.ledger.store_errors, {"StoreBusy": 200})
        self.successResultOf(self.stepped.stop())
        self.assertEqual(self.service.ledger.snapshot().pending, 0)

    def test_busy_again(self) -> None:
        """Trouble that comes again is logged again, at most every 10 s."""
        for wait in (4.0, 12.0, 4.0):
            self.stepped.store.failures.append(StoreBusy("database is locked"))
            self.play(wait)
        self.assertEqual(len(self.told("is busy")), 2)
        self.assertEqual(len(self.told("takes rows again")), 2)

    def test_other_error(self) -> None:
        """Any other error is logged with its trace; the batch is kept, and tried again."""
        self.service.update(1, at(1))
        flushed = self.service.flush()
        self.stepped.store.failures.append(OSError(28, "no space left"))
        self.assertGreater(self.stepped.step() or 0.0, 0.0)
        [failure] = self.flushLoggedErrors(OSError)
        self.assertIn("in write", failure.getTraceback())
        self.assertEqual(
            len(self.told("the store memory failed; 1 rows are kept and tried again")), 1
        )
        self.waits(flushed)
        self.stepped.step()
        self.successResultOf(flushed)
        self.assertEqual(self.service.ledger.store_errors, {"OSError": 1})

    def test_other_error_is_told_each_minute(self) -> None:
        """An error that goes on is logged once a minute, and its end once."""
        self.stepped.store.failures.extend(OSError(28, "no space left") for _ in range(700))
        self.play(75.0)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)
        self.assertEqual(len(self.told("takes rows again")), 1)
        self.assertEqual(self.service.ledger.store_errors, {"OSError": 700})

    def test_kinds_are_told_apart(self) -> None:
        """Errors of different kinds are each logged."""
        self.service.update(1, at(1))
        self.service.flush()
        self.stepped.store.failures.extend([OSError(28, "full"), RuntimeError("else")])
        for _ in range(3):
            self.stepped.step()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_maintenance_fails(self) -> None:
        """Maintenance that fails is logged and counted; what was committed is no trouble."""
        self.patch(self.stepped.store, "maintain", lambda: 1 / 0)
        self.service.update(1, at(1))
        flushed = self.service.flush()
        self.stepped.settle()
        self.successResultOf(flushed)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.service.update(1, at(2))
        self.service.flush()
        self.stepped.settle()
        self.assertEqual(self.told("takes rows again"), [])
        self.assertEqual(self.service.ledger.store_errors, {"ZeroDivisionError": 2})

    def test_maintenance_that_goes_on_failing_is_no_trouble(self) -> None:
        """Rows that get into the store are no trouble, however long the maintenance fails."""

        def maintain() -> None:
            raise StoreBusy("somebody reads")

        self.patch(self.stepped.store, "maintain", maintain)
        self.play(30.0)
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.told("degraded"), [])


class DegradedTests(ServiceTestCase):
    """Nothing has been saved for longer than allowed: it is logged, and the program can see it."""

    def setUp(self) -> None:
        """A service with one player."""
        super().setUp()
        self.store = FragileStore()
        self.stepped = self.start(store=self.store, save_within=5.0)
        self.service = self.stepped.service
        self.stepped.join(1)

    def begins(self) -> list[str]:
        """Lines that say it began."""
        return self.told("degraded: nothing has been saved for", LogLevel.critical)

    def ends(self) -> list[str]:
        """Lines that say it ended."""
        return self.told("no longer degraded: the store takes rows", LogLevel.info)

    def break_down(self) -> None:
        """An update meets a store that is busy for as long as failures are left."""
        self.store.failures.extend(StoreBusy("database is locked") for _ in range(10_000))
        self.service.update(1, at(1))
        self.service.flush().addErrback(lambda failure: failure.trap(NotSaved))
        self.stepped.step()

    def wait(self, seconds: float) -> None:
        """Time passes, the persist thread tries each second."""
        for _ in range(round(seconds)):
            self.stepped.reactor.advance(1.0)
            self.stepped.step()

    def check_gauges(self) -> None:
        """The gauges say what the service says."""
        trouble, books = self.service.trouble, self.service.ledger.snapshot()
        expected = ("", 0.0) if trouble is None else (trouble.why, trouble.seconds)
        self.assertEqual((books.degraded, books.degraded_seconds), expected)

    def test_begins_after_save_within(self) -> None:
        """It begins `save_within` after the first failure, not before, with its duration."""
        self.stepped.reactor.advance(2.0)
        self.break_down()
        self.stepped.reactor.advance(5.0)
        self.assertIs(self.service.trouble, None)
        self.check_gauges()
        self.stepped.reactor.advance(0.5)
        self.assertEqual(self.service.trouble, Trouble("database is locked", 5.5))
        self.check_gauges()
        self.wait(10.0)
        self.assertEqual(self.service.trouble, Trouble("database is locked", 15.5))
        self.check_gauges()

    def test_ends_with_the_next_commit(self) -> None:
        """The next commit ends it."""
        self.break_down()
        self.wait(20.0)
        self.assertIsNot(self.service.trouble, None)
        self.store.failures.clear()
        self.stepped.step()
        self.assertIs(self.service.trouble, None)
        self.check_gauges()

    def test_told_once(self) -> None:
        """Its start and its end are logged once each, within a second, however long it lasts."""
        self.break_down()
        self.wait(5.0)
        self.assertEqual(self.begins(), [])
        self.wait(1.0)
        line = "degraded: nothing has been saved for 6.0 s: database is locked; 1 updates wait"
        self.assertEqual(self.begins(), [line])
        self.wait(300.0)
        self.assertEqual((len(self.begins()), self.ends()), (1, []))
        self.store.failures.clear()
        self.stepped.settle()
        self.wait(1.0)
        self.assertEqual((len(self.begins()), len(self.ends())), (1, 1))
        self.wait(300.0)
        self.assertEqual((len(self.begins()), len(self.ends())), (1, 1))

    def test_again(self) -> None:
        """Trouble that comes again is logged again, and measured from its own start."""
        for _ in range(3):
            self.break_down()
            self.wait(8.0)
            self.assertEqual(self.service.trouble, Trouble("database is locked", 8.0))
            self.store.failures.clear()
            self.wait(2.0)
        self.assertEqual((len(self.begins()), len(self.ends())), (3, 3))

    def test_short_trouble(self) -> None:
        """A store that takes rows now and then is not in trouble, and not logged as such."""
        for _ in range(20):
            self.break_down()
            self.wait(4.0)
            self.store.failures.clear()
            self.wait(1.0)
        self.assertEqual((self.begins(), self.ends()), ([], []))

    def test_latest_reason(self) -> None:
        """The reason is that of the latest failure."""
        self.break_down()
        self.store.failures.clear()
        self.store.failures.extend(OSError(28, "No space left on device") for _ in range(100))
        self.wait(7.0)
        self.assertEqual(self.service.trouble, Trouble("[Errno 28] No space left on device", 7.0))
        self.flushLoggedErrors(OSError)

    def test_nobody_moves(self) -> None:
        """With nothing to save for hours there is no trouble."""
        self.wait(3600.0)
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.begins(), [])

    def test_stuck_write(self) -> None:
        """A write that does not end is logged while it lasts; its end ends the trouble."""
        write = self.store.write
        seen: list[Trouble | None] = []

        def stick(records: Any) -> Any:
            for _ in range(120):
                self.stepped.reactor.advance(0.1)
                self.check_gauges()
                seen.append(self.service.trouble)
            return write(records)

        self.patch(self.store, "write", stick)
        self.service.update(1, at(1))
        flushed = self.service.flush()
        self.stepped.thread.persister.step()
        self.assertEqual(seen[:49], [None] * 49)
        last = seen[-1]
        assert last is not None
        self.assertEqual(last.why, "the persist thread is stuck in a write")
        self.assertApproximates(last.seconds, 12.0, 1e-6)
        [line] = self.begins()
        self.assertRegex(line, r"for (5\.\d|6\.0) s: the persist thread is stuck in a write; 1 up")
        self.assertIs(self.service.trouble, None)
        self.stepped.reactor.deliver()
        self.successResultOf(flushed)
        self.wait(1.0)
        self.assertEqual(len(self.ends()), 1)

    def test_stuck_maintenance(self) -> None:
        """Maintenance that does not end is logged if rows wait for it."""
        seen: list[Trouble | None] = []

        def stick() -> None:
            self.service.update(1, at(2))
            for _ in range(120):
                self.stepped.reactor.advance(0.1)
                seen.append(self.service.trouble)

        self.patch(self.store, "maintain", stick)
        self.service.update(1, at(1))
        self.service.flush()
        self.stepped.thread.persister.step()
        last = seen[-1]
        assert last is not None
        self.assertApproximates(last.seconds, 12.0, 0.2)
        self.assertEqual(len(self.begins()), 1)

    def test_goes_on_as_ever(self) -> None:
        """Joins, updates and moves are taken meanwhile; leaves and flushes wait for the end."""
        self.break_down()
        self.wait(10.0)
        self.assertEqual(self.stepped.join(2).state, PlayerState())
        self.service.update(2, at(2))
        self.assertTrue(move(self.service, 1, 1, (3.0, 3.0)))
        left, flushed = self.service.leave(1), self.service.flush()
        self.wait(10.0)
        self.waits(left, flushed)
        self.assertEqual(self.service.ledger.snapshot().imbalance(), [])
        self.store.failures.clear()
        self.wait(5.0)
        self.successResultOf(left)
        self.successResultOf(flushed)
        self.assertEqual(self.stored(self.stepped), {1: (3.0, 3.0), 2: (2.0, 0.0)})

    def test_a_row_that_is_refused(self) -> None:
        """One row that the store refuses is trouble only as long as no other player is saved."""
        self.store.cursed = {1}
        self.break_down()
        self.store.failures.clear()
        self.wait(10.0)
        self.assertIn("not this one", self.service.trouble.why)  # type: ignore[union-attr]
        self.stepped.join(2)
        self.service.update(2, at(2))
        self.wait(4.0)
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.store.aside, [(1, "not this one")])
        self.assertEqual(len(self.flushLoggedErrors(RowRefused)), 1)

    def test_stopped(self) -> None:
        """A service that is not running is in no trouble, before the start and after the stop."""
        self.assertIs(PlayerStateService(FaultyStore(SCHEMA)).trouble, None)
        stop_within(self.service, 10.0)
        self.break_down()
        self.successResultOf(self.stepped.stop())
        self.assertTrue(self.service.gave_up)
        self.assertEqual(len(self.begins()), 1)
        self.assertIs(self.service.trouble, None)
        self.check_gauges()

    def test_while_stopping(self) -> None:
        """It is logged during a stop as well."""
        self.break_down()
        stopped = self.service.stopService()
        self.wait(10.0)
        self.assertEqual(len(self.begins()), 1)
        self.check_gauges()
        self.store.failures.clear()
        self.stepped.settle()
        self.stepped.thread.run()
        self.stepped.reactor.deliver()
        self.successResultOf(stopped)
