"""When each of many players has a turn."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.cli import crowd
from playerstate.cli.crowd import Turns


class TurnsTests(SynchronousTestCase):
    """Who has a turn when."""

    def test_evenly(self) -> None:
        """Turns come one by one, and begin anew after the last."""
        turns = Turns([7, 8], 1.0, 10.0)
        due = [turns.due(now) for now in (10.0, 10.5, 10.6, 11.0, 12.0)]
        self.assertEqual(due, [[], [7], [], [8], [7, 8]])

    def test_bounded(self) -> None:
        """Turns that were missed are made up for little by little."""
        turns = Turns([7], 0.001, 0.0)
        self.assertEqual(len(turns.due(1.0)), crowd.MOST_A_SLICE)
        self.assertEqual(len(turns.due(1.0)), crowd.MOST_A_SLICE)
