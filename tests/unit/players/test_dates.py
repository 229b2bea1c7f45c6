"""Players whose ``updated_at`` is at a limit, as a row brought in from elsewhere may have it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState
from playerstate.interfaces import StoreBusy, Stored
from playerstate.testing import SteppedService

LAST = 2**63 - 1
DATES = (LAST, LAST - 1, 4 * 10**15, 1, 0, -1, -(2**63))


class DatesTests(SynchronousTestCase):
    """A leave that succeeds is saved, whatever the date, and the books balance."""

    def start(self, updated_at: int) -> SteppedService:
        """A service with one player of this date, who is in the game."""
        stepped = SteppedService()
        stepped.store.players[7] = Stored((1.0, 2.0), updated_at)
        self.assertEqual(stepped.join(7).state, PlayerState(1.0, 2.0))
        return stepped

    def leave(self, stepped: SteppedService) -> None:
        """Leave, and see that what was applied last is stored."""
        applied = stepped.service.state(7)
        left = stepped.service.leave(7)
        stepped.reactor.advance(0.05)
        stepped.settle()
        self.successResultOf(left)
        self.assertEqual(PlayerState(*stepped.store.players[7].values), applied)
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
        self.successResultOf(stepped.stop())

    def test_moved(self) -> None:
        """A player who moves is saved, and never with an older date."""
        for date in DATES:
            with self.subTest(date=date):
                stepped = self.start(date)
                stepped.service.update(7, PlayerState(3.0, 4.0))
                self.leave(stepped)
                self.assertGreaterEqual(stepped.store.players[7].updated_at, date)

    def test_busy(self) -> None:
        """While the store does not take the move, the leave is not told to be done."""
        for date in DATES:
            with self.subTest(date=date):
                stepped = self.start(date)
                stepped.service.update(7, PlayerState(3.0, 4.0))
                stepped.reactor.advance(3.0)  # on its way
                stepped.store.failures.append(StoreBusy("held by a backup"))
                left = stepped.service.leave(7)
                stepped.reactor.advance(0.05)
                stepped.settle()
                self.assertNoResult(left)
                stepped.settle()
                self.successResultOf(left)
                self.assertEqual(stepped.store.players[7].values, (3.0, 4.0))
                self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
                self.successResultOf(stepped.stop())

    def test_not_moved(self) -> None:
        """A player who stood still leaves at once as they were."""
        for date in DATES:
            with self.subTest(date=date):
                self.leave(self.start(date))

    def test_two_batches(self) -> None:
        """Of two rows of one date in two batches, the first's commit does not settle the other."""
        for date in DATES:
            with self.subTest(date=date):
                stepped = self.start(date)
                stepped.service.update(7, PlayerState(3.0, 4.0))
                stepped.reactor.advance(3.0)  # the first is on its way
                stepped.service.update(7, PlayerState(5.0, 6.0))
                stepped.step()
                stepped.service.update(7, PlayerState(7.0, 8.0))
                self.leave(stepped)

    def test_busy_between(self) -> None:
        """So it is where the first batch has to come again."""
        for date in DATES:
            with self.subTest(date=date):
                stepped = self.start(date)
                stepped.service.update(7, PlayerState(3.0, 4.0))
                stepped.store.failures.append(OSError("no room"))
                stepped.reactor.advance(3.0)
                stepped.step()
                stepped.service.update(7, PlayerState(5.0, 6.0))
                self.flushLoggedErrors(OSError)
                stepped.settle()
                self.leave(stepped)
