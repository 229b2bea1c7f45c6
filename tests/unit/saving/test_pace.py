"""When to sweep next."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.saving.pace import LEAST_SHARE, SHARE, Pace
from tests.kit.support import LAW


class PaceTests(SynchronousTestCase):
    """The interval between sweeps."""

    def test_before_any_commit(self) -> None:
        """With nothing known of commits, the interval is the planned share of `save_within`."""
        self.assertAlmostEqual(Pace(5.0).interval(False), 3.0)

    def test_two_commits_are_taken_off(self) -> None:
        """An update may wait for a commit that runs and for its own: both are taken off."""
        pace = Pace(5.0)
        pace.committed(0.5)
        self.assertAlmostEqual(pace.interval(False), 2.0)

    def test_slowest_commit_counts(self) -> None:
        """A quick commit after a slow one does not make the sweeps rare at once."""
        pace = Pace(5.0)
        pace.committed(1.0)
        pace.committed(0.0)
        self.assertAlmostEqual(pace.interval(False), 3.0 - 2 * 0.9)

    def test_slowness_is_forgotten(self) -> None:
        """After many quick commits, a slow one is forgotten."""
        pace = Pace(5.0)
        pace.committed(1.0)
        for _ in range(100):
            pace.committed(0.01)
        self.assertAlmostEqual(pace.interval(False), 3.0 - 2 * 0.01)

    def test_slower_commit(self) -> None:
        """A commit slower than all before counts at once and in full."""
        pace = Pace(5.0)
        pace.committed(0.1)
        pace.committed(1.0)
        self.assertAlmostEqual(pace.interval(False), 1.0)

    def test_least_interval(self) -> None:
        """However slow the commits, sweeps do not come without end."""
        pace = Pace(5.0)
        pace.committed(1000.0)
        self.assertAlmostEqual(pace.interval(False), 0.25)

    def test_crowded(self) -> None:
        """While the ring is more than half full, sweeps come five times as often."""
        pace = Pace(5.0)
        self.assertAlmostEqual(pace.interval(True), 0.6)
        pace.committed(1000.0)
        self.assertAlmostEqual(pace.interval(True), 0.05)

    @settings(LAW, max_examples=100)
    @given(
        st.floats(0.1, 86_400.0),
        st.lists(st.floats(0.0, 100_000.0), max_size=20),
        st.floats(0.0, 1.0),
    )
    def test_saved_in_time(self, save_within: float, before: list[float], share: float) -> None:
        """What is swept after one interval and two commits like the slowest of late is in time."""
        pace = Pace(save_within)
        for seconds in [*before, share]:
            pace.committed(seconds)
        interval = pace.interval(False)
        self.assertGreaterEqual(interval, save_within * LEAST_SHARE)
        self.assertLessEqual(interval, save_within * SHARE)
        if interval > save_within * LEAST_SHARE:
            self.assertLessEqual(interval + 2 * share, save_within * SHARE * (1 + 1e-9))
