"""Those who wait for one event."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from playerstate.waiters import Waiters, tell


class WaitersTests(SynchronousTestCase):
    """A list of those who wait."""

    def test_asked_meanwhile(self) -> None:
        """Who asks while the first is told waits for the next event."""
        waiters: Waiters[int, None] = Waiters()
        again: list[Deferred[int]] = []
        waiters.add(None).addCallback(lambda _: again.append(waiters.add(None)))
        tell(waiters.take(), 1)
        self.assertEqual(len(waiters), 1)
        self.assertNoResult(again[0])

    def test_cancelled_meanwhile(self) -> None:
        """One who is cancelled by another who is told gets a cancellation, once."""
        waiters: Waiters[int, None] = Waiters()
        results: list[Any] = []
        first, second = waiters.add(None), waiters.add(None)
        first.addCallback(lambda _: second.cancel())
        second.addBoth(results.append)
        tell(waiters.take(), 1)
        self.assertEqual([type(result) for result in results], [Failure])
