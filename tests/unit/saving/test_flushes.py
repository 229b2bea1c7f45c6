"""The callers who wait for a flush."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import Reason
from playerstate.saving.commit import Dropped, NotSaved
from playerstate.saving.flushes import Flushes


class FlushesTests(SynchronousTestCase):
    """Callers who wait since 1.0 and 2.0 seconds."""

    def setUp(self) -> None:
        """Let them wait."""
        self.flushes = Flushes()
        self.first, self.second = self.flushes.add(1.0), self.flushes.add(2.0)

    def test_oldest(self) -> None:
        """A caller is answered once the oldest unsaved row is younger than the call."""
        for oldest, waiting in ((0.5, 2), (1.0, 2), (1.5, 1), (2.0, 1), (2.5, 0)):
            with self.subTest(oldest=oldest):
                self.flushes.fire(oldest)
                self.assertEqual(len(self.flushes), waiting)
        self.successResultOf(self.first)
        self.successResultOf(self.second)

    def test_nothing_unsaved(self) -> None:
        """Where everything is saved every caller is answered."""
        self.flushes.fire(None)
        self.successResultOf(self.first)
        self.successResultOf(self.second)

    def test_wait_since(self) -> None:
        """A caller can be made to wait for later rows, and never for earlier ones only."""
        self.flushes.wait_since(1.5)
        self.flushes.fire(1.25)
        self.assertNoResult(self.first)
        self.flushes.fire(1.75)
        self.successResultOf(self.first)
        self.assertNoResult(self.second)

    def test_dropped(self) -> None:
        """A caller is told of the rows dropped while it waited, and of no others."""
        self.flushes.note_dropped([Dropped(7, 0, 0, Reason.REFUSED, "hp must be positive")])
        later = self.flushes.add(2.0)
        self.flushes.fire(None)
        for flushed in (self.first, self.second):
            self.assertIn("player 7", str(self.failureResultOf(flushed, NotSaved).value))
        self.successResultOf(later)

    def test_fail(self) -> None:
        """All callers fail where no more rows will be saved."""
        why = NotSaved("stopped")
        self.flushes.fail(why)
        for flushed in (self.first, self.second):
            self.assertIs(self.failureResultOf(flushed).value, why)
        self.assertEqual(len(self.flushes), 0)
