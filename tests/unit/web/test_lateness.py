"""How late the reactor thread is."""

from __future__ import annotations

from playerstate import NotRunning
from playerstate.web.lateness import Lateness
from tests.kit.players import ServiceTestCase


class LatenessTests(ServiceTestCase):
    """A call that is due ten times a second."""

    def setUp(self) -> None:
        """A service on a reactor that the test advances."""
        super().setUp()
        self.stepped = self.start()
        self.observed = self.stepped.service.ledger.histograms.reactor_lateness
        self.lateness = Lateness(self.stepped.service)

    def count(self) -> int:
        """How many calls were observed."""
        return sum(self.observed.counts)

    def test_unasked(self) -> None:
        """Where nothing asks for it there is no such call: who has no endpoint pays nothing."""
        self.stepped.reactor.pump([0.1] * 10)
        self.assertEqual(self.count(), 0)

    def test_in_time(self) -> None:
        """A reactor that is never held up is not late; to follow it twice changes nothing."""
        self.lateness.follow()
        self.lateness.follow()
        self.stepped.reactor.pump([0.1] * 10)
        self.assertEqual(self.count(), 10)
        self.assertAlmostEqual(self.observed.total, 0.0)

    def test_held_up(self) -> None:
        """A delay is observed once, and the next call is due as long after it as ever."""
        self.lateness.follow()
        self.stepped.reactor.advance(0.3)
        self.assertEqual(self.count(), 1)
        self.assertAlmostEqual(self.observed.total, 0.2)
        self.stepped.reactor.advance(0.1)
        self.assertEqual(self.count(), 2)
        self.assertAlmostEqual(self.observed.total, 0.2)

    def test_ends_with_the_run(self) -> None:
        """No call is left once the service has stopped; the next run is followed anew."""
        self.lateness.follow()
        self.successResultOf(self.stepped.stop())
        self.assertRaises(NotRunning, self.lateness.follow)
        self.stepped.reactor.advance(10)
        self.assertEqual(self.count(), 0)
