"""How late the reactor thread is."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from playerstate.clock import SteadyClock
from playerstate.figures import Histogram
from playerstate.players.lateness import Lateness


class LatenessTests(SynchronousTestCase):
    """A call that is due ten times a second."""

    def setUp(self) -> None:
        """A reactor that the test advances."""
        self.reactor = Clock()
        self.clock = SteadyClock(self.reactor, self.reactor.seconds)
        self.observed = Histogram((0.001, 0.5))
        Lateness(self.clock, self.observed)

    def test_in_time(self) -> None:
        """A reactor that is never held up is not late."""
        self.reactor.pump([0.1] * 10)
        self.assertEqual(self.observed.counts, [10, 0, 0])

    def test_held_up(self) -> None:
        """A delay is observed once, and the next call is due as long after it as ever."""
        self.reactor.advance(0.3)
        self.assertEqual(self.observed.counts, [0, 1, 0])
        self.assertAlmostEqual(self.observed.total, 0.2)
        self.reactor.advance(0.1)
        self.assertEqual(self.observed.counts, [1, 1, 0])

    def test_ends_with_the_run(self) -> None:
        """Once the calls of the clock are cancelled, none follows."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.reactor.advance(10)
        self.assertEqual(self.observed.counts, [0, 0, 0])
