"""The replay window, held against the one of the standard."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.replay import ReplayWindow
from tests.kit.support import LAW


class Cells:
    """The standard's own replay window: 256 cells, each with the last number that fell on it."""

    def __init__(self) -> None:
        self.newest = 0
        self.cells = [-1] * 256

    def take(self, sequence: int) -> bool:
        """Whether the number is accepted."""
        if self.newest >= 256 and sequence <= self.newest - 256:
            return False
        if self.cells[sequence % 256] >= sequence:
            return False
        self.cells[sequence % 256] = sequence
        self.newest = max(self.newest, sequence)
        return True


class ReplayTests(SynchronousTestCase):
    """The replay window."""

    @settings(LAW, max_examples=300)
    @given(
        start=st.sampled_from((0, 1, 255, 256, 2**32, 2**64 - 600)),
        steps=st.lists(st.integers(0, 599), max_size=80),
    )
    def test_as_the_standard_has_it(self, start: int, steps: list[int]) -> None:
        """Each number is accepted or not as by the standard's cells, in any order of arrival."""
        window, cells = ReplayWindow(), Cells()
        for step in steps:
            sequence = start + step
            is_new = window.is_new(sequence)
            if is_new:
                window.note(sequence)
            self.assertEqual(is_new, cells.take(sequence), sequence)

    def test_asking_changes_nothing(self) -> None:
        """A number that was looked up and not noted is still new."""
        window = ReplayWindow()
        window.note(1000)
        for sequence in (2**64 - 1, 999, 745):
            self.assertTrue(window.is_new(sequence))
        self.assertFalse(window.is_new(744))
        self.assertTrue(window.is_new(1001))

    def test_memory(self) -> None:
        """However high the numbers are, a window of bits is kept."""
        window = ReplayWindow()
        for sequence in (*range(1000), 2**40, *range(2**63, 2**63 + 1000)):
            window.note(sequence)
        self.assertLessEqual(window._seen.bit_length(), 256)
