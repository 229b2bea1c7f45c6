"""The share of the reactor's time that requests may take."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from playerstate.web.budget import BURST, SHARE, Budget


class BudgetTests(SynchronousTestCase):
    """Time that is spent, and comes back."""

    def setUp(self) -> None:
        """A full budget."""
        self.clock = Clock()
        self.budget = Budget(self.clock.seconds)

    def spend(self, seconds: float) -> None:
        """Work for so long."""
        with self.budget.spending():
            self.clock.advance(seconds)

    def test_burst(self) -> None:
        """Up to the burst, work need not wait."""
        self.spend(BURST / 2)
        self.assertEqual(self.budget.wait, 0)

    def test_overdrawn(self) -> None:
        """Beyond it, work waits until its share of the time has made up for it."""
        self.spend(1.0)
        left = 1.0 - BURST - 1.0 * SHARE
        self.assertAlmostEqual(self.budget.wait, left / SHARE)
        self.clock.advance(left / SHARE / 2)
        self.assertAlmostEqual(self.budget.wait, left / SHARE / 2)
        self.clock.advance(left / SHARE)
        self.assertEqual(self.budget.wait, 0)

    def test_share(self) -> None:
        """Work that never ends takes its share of the time, and the burst."""
        worked = 0
        for _ in range(10_000):
            if self.budget.wait == 0:
                self.spend(0.001)
                worked += 1
            else:
                self.clock.advance(0.001)
        self.assertLess(abs(worked * 0.001 - (SHARE * self.clock.seconds() + BURST)), 0.01)

    def test_not_saved_up(self) -> None:
        """An idle hour is worth no more than the burst."""
        self.clock.advance(3600)
        self.spend(2 * BURST)
        self.assertGreater(self.budget.wait, 0)

    def test_error(self) -> None:
        """Work that fails was work."""

        def failing() -> None:
            with self.budget.spending():
                self.clock.advance(1.0)
                raise KeyError

        self.assertRaises(KeyError, failing)
        self.assertGreater(self.budget.wait, 0)
