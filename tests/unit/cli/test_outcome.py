"""How the outcome of a run is printed."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from playerstate.cli import outcome
from playerstate.cli.outcome import Bar, Outcome, spread_ms, tell


class OutcomeTests(SynchronousTestCase):
    """How it is told."""

    def test_percentiles(self) -> None:
        """Percentiles are those of the nearest rank, without what was not measured."""
        seconds = [i / 1000 for i in range(200, 0, -1)]
        self.assertEqual(spread_ms([*seconds, None]), {"p50": 100.0, "p99": 198.0, "max": 200.0})
        self.assertIsNone(spread_ms([None]))

    def test_table(self) -> None:
        """People get a line for each number."""
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        numbers = {"moves_sent": 1200, "join_ms": {"p50": 1.5, "max": 2.0}, "leave_ms": None}
        tell(Outcome(numbers, {}, interrupted=False), as_json=False)
        self.assertEqual(
            [line.rstrip().split(maxsplit=2) for line in stdout.getvalue().splitlines()],
            [
                ["moves", "sent", "1,200"],
                ["join", "ms", "p50 1.5, max 2.0"],
                ["leave", "ms", "-"],
                ["ok", "yes"],
            ],
        )

    def test_troubles_are_bounded(self) -> None:
        """The first few in trouble are named, the others counted."""
        troubles = dict.fromkeys(range(1, 8), "was kicked")
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.patch(sys, "stdout", io.StringIO())
        tell(Outcome({}, troubles, interrupted=False), as_json=False)
        lines = stderr.getvalue().splitlines()
        self.assertEqual([lines[0], lines[-1]], ["player 1 was kicked", "and 2 more players"])
        self.assertEqual(len(lines), 6)

    def test_bar(self) -> None:
        """The bar shows what is being done, on a terminal."""
        drawn = io.StringIO()
        terminal = Console(file=drawn, force_terminal=True)
        self.patch(outcome, "Console", lambda stderr: terminal)
        with Bar() as bar:
            bar.show("walking", 1.0, 4.0)
            bar.show("leaving", 1.0, 4.0)
        self.assertIn("walking", drawn.getvalue())
        self.assertNotIn("leaving", drawn.getvalue())

    def test_no_terminal(self) -> None:
        """Elsewhere the bar prints nothing."""
        drawn = io.StringIO()
        self.patch(outcome, "Console", lambda stderr: Console(file=drawn))
        with Bar() as bar:
            bar.show("walking", 1.0, 4.0)
        self.assertEqual(drawn.getvalue(), "")
