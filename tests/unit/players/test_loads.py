"""Loads under way, and those who wait for them."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import StoreBusy, Stored
from playerstate.players.loads import Loads

STORED = Stored((1.0, 2.0), 99)


class LoadsTestCase(SynchronousTestCase):
    """Loads whose waiters get what they were entered with."""

    def setUp(self) -> None:
        """Nothing is under way."""
        self.entered: list[tuple[int, Stored | None, int]] = []
        self.loads = Loads()
        self.cancelled: list[str] = []

    def begin(self, session_id: int, work: Deferred[Stored | None], number: int) -> Deferred[int]:
        """Begin a load, with a waiter of this number."""
        return self.loads.begin(session_id, work, partial(self.enter, session_id, number))

    def wait(self, session_id: int, number: int) -> Deferred[int]:
        """One more waiter of a load."""
        return self.loads.wait(session_id, partial(self.enter, session_id, number))

    def enter(self, session_id: int, number: int, stored: Stored | None) -> int:
        """Let a waiter in; number 666 is not let in."""
        self.entered.append((session_id, stored, number))
        if number == 666:
            raise ZeroDivisionError("on purpose")
        return number

    def work(self, name: str = "work") -> Deferred[Stored | None]:
        """A load that has not yet an answer, and notes when it is cancelled."""
        return Deferred(lambda _: self.cancelled.append(name))


class AnswerTests(LoadsTestCase):
    """The store answers."""

    def test_answer(self) -> None:
        """A waiter gets what it was entered with, once the store has answered."""
        work = self.work()
        waiter = self.begin(42, work, 7)
        self.assertNoResult(waiter)
        work.callback(STORED)
        self.assertEqual(self.successResultOf(waiter), 7)
        self.assertEqual(self.entered, [(42, STORED, 7)])

    def test_nothing_stored(self) -> None:
        """A player whom the store does not have is entered with None."""
        self.successResultOf(self.begin(42, succeed(None), 7))
        self.assertEqual(self.entered, [(42, None, 7)])

    def test_answer_that_was_there(self) -> None:
        """A load that was answered before it began ends at once."""
        self.assertEqual(self.successResultOf(self.begin(42, succeed(STORED), 7)), 7)
        self.assertNotIn(42, self.loads)

    def test_under_way(self) -> None:
        """A load is under way until it is answered."""
        work = self.work()
        self.begin(42, work, 0)
        self.assertIn(42, self.loads)
        self.assertNotIn(43, self.loads)
        self.assertEqual(len(self.loads), 1)
        work.callback(None)
        self.assertNotIn(42, self.loads)
        self.assertEqual(len(self.loads), 0)

    def test_shared(self) -> None:
        """All who wait for one load are entered with its answer, in the order of their coming."""
        work = self.work()
        waiters = [self.begin(42, work, 1), self.wait(42, 2), self.wait(42, 3)]
        self.assertEqual(len(self.loads), 1)
        work.callback(STORED)
        self.assertEqual([self.successResultOf(waiter) for waiter in waiters], [1, 2, 3])
        self.assertEqual(self.entered, [(42, STORED, 1), (42, STORED, 2), (42, STORED, 3)])

    def test_separate_players(self) -> None:
        """Loads of two players have nothing to do with each other."""
        first, second = self.work(), self.work()
        waiters = [self.begin(1, first, 10), self.begin(2, second, 20)]
        second.callback(STORED)
        self.assertNoResult(waiters[0])
        self.assertEqual(self.successResultOf(waiters[1]), 20)

    def test_again(self) -> None:
        """A player may be loaded again once the first load has ended."""
        self.begin(42, succeed(None), 1)
        self.assertEqual(self.successResultOf(self.begin(42, succeed(STORED), 2)), 2)

    def test_again_from_a_callback(self) -> None:
        """Whoever is let in may begin the next load of the same player at once."""
        work = self.work()
        again: list[Deferred[Any]] = []
        waiter = self.begin(42, work, 1)
        waiter.addCallback(lambda _: again.append(self.begin(42, self.work(), 2)))
        work.callback(None)
        self.assertIn(42, self.loads)
        self.assertNoResult(again[0])


class FailureTests(LoadsTestCase):
    """The store fails, or a waiter is not let in."""

    def test_store_fails(self) -> None:
        """All who wait get the store's error, and nobody is entered."""
        work = self.work()
        waiters = [self.begin(42, work, 1), self.wait(42, 2)]
        work.errback(StoreBusy("locked"))
        for waiter in waiters:
            self.failureResultOf(waiter, StoreBusy)
        self.assertEqual(self.entered, [])
        self.assertNotIn(42, self.loads)

    def test_store_had_failed(self) -> None:
        """A load that failed before it began fails its waiter at once."""
        self.failureResultOf(self.begin(42, fail(StoreBusy("locked")), 1), StoreBusy)

    def test_one_is_not_let_in(self) -> None:
        """A waiter who is not let in gets the reason, and the others are let in."""
        work = self.work()
        waiters = [self.begin(42, work, 1), self.wait(42, 666), self.wait(42, 3)]
        work.callback(STORED)
        self.assertEqual(self.successResultOf(waiters[0]), 1)
        self.failureResultOf(waiters[1], ZeroDivisionError)
        self.assertEqual(self.successResultOf(waiters[2]), 3)

    def test_fail_all(self) -> None:
        """Every load is cancelled, and all who wait get the error."""
        waiters = [
            self.begin(1, self.work("first"), 1),
            self.wait(1, 2),
            self.begin(2, self.work("second"), 3),
        ]
        self.loads.fail_all(ValueError("stopping"))
        for waiter in waiters:
            self.failureResultOf(waiter, ValueError)
        self.assertEqual(self.cancelled, ["first", "second"])
        self.assertEqual(len(self.loads), 0)
        self.assertEqual(self.entered, [])

    def test_fail_all_of_none(self) -> None:
        """Where nothing is under way, there is nothing to fail."""
        self.loads.fail_all(ValueError("stopping"))
        self.assertEqual(len(self.loads), 0)

    def test_answer_after_fail_all(self) -> None:
        """A store that answers though it was told to stop lets nobody in."""
        work: Deferred[Stored | None] = Deferred(lambda work: work.callback(STORED))
        waiter = self.begin(42, work, 1)
        self.loads.fail_all(ValueError("stopping"))
        self.failureResultOf(waiter, ValueError)
        self.assertEqual(self.entered, [])


class CancelTests(LoadsTestCase):
    """Those who wait give up."""

    def test_cancel_one(self) -> None:
        """Who cancels is not entered; the others and the load go on."""
        work = self.work()
        first, second = self.begin(42, work, 1), self.wait(42, 2)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cancelled, [])
        work.callback(STORED)
        self.assertEqual(self.successResultOf(second), 2)
        self.assertEqual(self.entered, [(42, STORED, 2)])

    def test_cancel_the_last(self) -> None:
        """With its last waiter the load is cancelled, and is no longer under way."""
        first, second = self.begin(42, self.work(), 1), self.wait(42, 2)
        first.cancel()
        second.cancel()
        for waiter in (first, second):
            self.failureResultOf(waiter, CancelledError)
        self.assertEqual(self.cancelled, ["work"])
        self.assertNotIn(42, self.loads)

    def test_load_after_cancel(self) -> None:
        """The answer of a load that was cancelled does not go to the one begun since."""
        slow: Deferred[Stored | None] = Deferred(lambda work: None)
        self.failureResultOf(self.cancel(self.begin(42, slow, 1)), CancelledError)
        waiter = self.begin(42, self.work(), 2)
        self.assertNoResult(waiter)
        self.assertIn(42, self.loads)

    def cancel(self, waiter: Deferred[Any]) -> Deferred[Any]:
        """The same, cancelled."""
        waiter.cancel()
        return waiter

    def test_load_begun_while_the_last_is_cancelled(self) -> None:
        """A load begun while the one before is being cancelled is not ended by that."""
        begun: list[Deferred[Any]] = []
        old: Deferred[Stored | None] = Deferred(
            lambda _: begun.append(self.begin(42, self.work("new"), 2))
        )
        self.failureResultOf(self.cancel(self.begin(42, old, 1)), CancelledError)
        self.assertNoResult(begun[0])
        self.assertIn(42, self.loads)
        self.assertEqual(self.cancelled, [])

    def test_cancel_another_when_let_in(self) -> None:
        """A waiter cancelled by one who was just let in is not entered; the rest are let in."""
        work = self.work()
        first, second = self.begin(42, work, 1), self.wait(42, 2)
        third = self.wait(42, 3)
        first.addCallback(lambda _: second.cancel())
        work.callback(STORED)
        self.successResultOf(work)
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.successResultOf(third), 3)
        self.assertEqual([number for _, _, number in self.entered], [1, 3])

    def test_cancel_the_last_when_let_in(self) -> None:
        """The last waiter may be cancelled by the one let in before."""
        work = self.work()
        first, second = self.begin(42, work, 1), self.wait(42, 2)
        first.addCallback(lambda _: second.cancel())
        work.callback(STORED)
        self.successResultOf(work)
        self.failureResultOf(second, CancelledError)
        self.assertEqual([number for _, _, number in self.entered], [1])
        self.assertEqual(self.cancelled, [])

    def test_cancel_another_when_all_fail(self) -> None:
        """A waiter cancelled by one who was just failed is no hindrance to failing the rest."""
        first, second = self.begin(42, self.work(), 1), self.wait(42, 2)
        third = self.wait(42, 3)
        first.addErrback(lambda _: second.cancel())
        self.loads.fail_all(ValueError("stopping"))
        self.failureResultOf(second, CancelledError)
        self.failureResultOf(third, ValueError)
