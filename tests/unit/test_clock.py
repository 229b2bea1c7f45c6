"""Timers that do not stand still when the reactor's clock, the wall clock, steps."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from playerstate.clock import SteadyClock, sleep_apart
from tests.kit.processes import PATIENCE

HOUR = 3600.0


class SteadyTestCase(SynchronousTestCase):
    """A steady clock on a reactor whose own clock is the wall clock."""

    def setUp(self) -> None:
        """Make both clocks."""
        self.reactor = Clock()
        self.monotonic = 1000.0
        self.clock = SteadyClock(self.reactor, lambda: self.monotonic)
        self.called: list[Any] = []

    def pass_time(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self.monotonic += seconds
        self.reactor.advance(seconds)

    def step_wall_clock(self, seconds: float) -> None:
        """Set the wall clock, on which the reactor's timers run; no time passes."""
        self.reactor.rightNow += seconds

    def later(self, delay: float, name: Any) -> Any:
        """A call that notes its name."""
        return self.clock.callLater(delay, self.called.append, name)


class CallLaterTests(SteadyTestCase):
    """Calls while no clock steps."""

    def test_interface(self) -> None:
        """It is a complete `IReactorTime`, for whatever takes a clock."""
        verifyObject(IReactorTime, self.clock)

    def test_seconds(self) -> None:
        """Its seconds are the monotonic clock's, not the reactor's."""
        self.assertEqual(self.clock.seconds(), 1000.0)

    def test_monotonic_by_default(self) -> None:
        """Unless told otherwise it runs on a clock that never goes back."""
        clock = SteadyClock(Clock())
        self.assertLessEqual(clock.seconds(), clock.seconds())

    def test_called_when_due(self) -> None:
        """A call is made when its delay has passed, and not before."""
        self.later(2.0, "a")
        self.pass_time(1.9)
        self.assertEqual(self.called, [])
        self.pass_time(0.1)
        self.assertEqual(self.called, ["a"])
        self.pass_time(100.0)
        self.assertEqual(self.called, ["a"])

    def test_arguments(self) -> None:
        """A call is made with its arguments."""
        self.clock.callLater(0, lambda *args, **kw: self.called.append((args, kw)), 1, two=2)
        self.pass_time(0)
        self.assertEqual(self.called, [((1,), {"two": 2})])

    def test_order_of_time(self) -> None:
        """Calls are made in the order of their times, those of one time as they were asked."""
        for delay, name in ((3, "d"), (1, "a"), (2, "b"), (2, "c")):
            self.later(delay, name)
        self.pass_time(10)
        self.assertEqual(self.called, ["a", "b", "c", "d"])

    def test_earlier_call_later(self) -> None:
        """A call due before all others moves the alarm forward."""
        self.later(10, "b")
        self.later(1, "a")
        self.pass_time(1)
        self.assertEqual(self.called, ["a"])

    def test_calls_to_come(self) -> None:
        """The calls to come are those not yet made and not cancelled."""
        first, second, third = (self.later(delay, delay) for delay in (1, 2, 3))
        second.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [first, third])
        self.pass_time(1)
        self.assertEqual(self.clock.getDelayedCalls(), [third])

    def test_one_alarm(self) -> None:
        """However many calls, the reactor has one."""
        for delay in (3, 1, 2):
            self.later(delay, delay)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_called_is_not_active(self) -> None:
        """A call that was made cannot be cancelled any more, not even by itself."""
        call = self.clock.callLater(1, lambda: self.called.append(call.active()))
        self.pass_time(1)
        self.assertEqual(self.called, [False])
        self.assertRaises(AlreadyCalled, call.cancel)

    def test_failing_call(self) -> None:
        """What a call raises is logged, and the calls behind it are made."""

        def fail() -> None:
            raise ZeroDivisionError("on purpose")

        self.clock.callLater(1, fail)
        self.later(1, "b")
        self.later(2, "c")
        self.pass_time(5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.called, ["b", "c"])

    def test_call_made_by_a_call(self) -> None:
        """A call may ask for another."""
        self.clock.callLater(1, self.later, 1, "b")
        self.pass_time(1)
        self.assertEqual(self.called, [])
        self.pass_time(1)
        self.assertEqual(self.called, ["b"])

    def test_call_cancelled_by_a_call(self) -> None:
        """A call may cancel another that is due at the same time."""
        self.clock.callLater(1, lambda: doomed.cancel())
        doomed = self.later(1, "b")
        self.pass_time(1)
        self.assertEqual(self.called, [])

    def test_calls_without_delay_do_not_hold_the_reactor(self) -> None:
        """A call that asks for itself without delay is made once a turn of the reactor."""

        def again() -> None:
            self.called.append("again")
            if len(self.called) < 100:
                self.clock.callLater(0, again)

        self.clock.callLater(0, again)
        self.clock.catch_up()
        self.assertEqual(self.called, ["again"])

    def test_works_for_a_looping_call(self) -> None:
        """Twisted's own repetition runs on it."""
        loop = LoopingCall(self.called.append, "a")
        loop.clock = self.clock
        loop.start(1.0, now=False)
        for _ in range(3):
            self.pass_time(1)
        loop.stop()
        self.assertEqual(self.called, ["a"] * 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class MoveTests(SteadyTestCase):
    """Calls cancelled and moved."""

    def test_cancel(self) -> None:
        """A cancelled call is not made, and leaves nothing with the reactor."""
        call = self.later(1, "a")
        call.cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.pass_time(2)
        self.assertEqual(self.called, [])
        self.assertRaises(AlreadyCancelled, call.cancel)

    def test_cancel_one_of_two(self) -> None:
        """The alarm goes to the call that is left."""
        first = self.later(1, "a")
        self.later(2, "b")
        first.cancel()
        (alarm,) = self.reactor.getDelayedCalls()
        self.assertEqual(alarm.getTime(), 2.0)
        self.pass_time(2)
        self.assertEqual(self.called, ["b"])

    def test_call_after_all_were_cancelled(self) -> None:
        """A cancelled alarm is no hindrance to the next."""
        self.later(1, "a").cancel()
        self.later(1, "b")
        self.pass_time(1)
        self.assertEqual(self.called, ["b"])

    def test_reset_to_earlier(self) -> None:
        """A call reset to a nearer time is made then."""
        call = self.later(10, "a")
        call.reset(1)
        self.pass_time(1)
        self.assertEqual(self.called, ["a"])

    def test_reset_to_later(self) -> None:
        """A call reset to a later time is made then, and not at its first."""
        call = self.later(1, "a")
        call.reset(5)
        self.pass_time(4.5)
        self.assertEqual(self.called, [])
        self.pass_time(0.5)
        self.assertEqual(self.called, ["a"])

    def test_delay(self) -> None:
        """A delayed call waits so much longer, or less."""
        longer, shorter = self.later(2, "b"), self.later(4, "a")
        longer.delay(1)
        shorter.delay(-3)
        self.pass_time(1)
        self.assertEqual(self.called, ["a"])
        self.pass_time(2)
        self.assertEqual(self.called, ["a", "b"])

    def test_nothing_left_behind(self) -> None:
        """When every call is made, the reactor has none."""
        self.later(1, "a")
        self.later(2, "b")
        self.pass_time(2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class StepTests(SteadyTestCase):
    """Calls while the wall clock steps."""

    def test_step_back(self) -> None:
        """When the wall clock is set back by an hour, catching up makes what is due."""
        self.later(2, "a")
        self.step_wall_clock(-HOUR)
        self.pass_time(2)
        self.assertEqual(self.called, [])  # the reactor's own alarm is an hour away
        self.clock.catch_up()
        self.assertEqual(self.called, ["a"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_alarm_after_step_back(self) -> None:
        """Catching up sets the alarm by the wall clock as it is now."""
        self.later(2, "a")
        self.step_wall_clock(-HOUR)
        self.pass_time(1)
        self.clock.catch_up()
        self.assertEqual(self.called, [])
        self.pass_time(1)
        self.assertEqual(self.called, ["a"])

    def test_step_forward(self) -> None:
        """When the wall clock is set forward by an hour, no call is made early."""
        self.later(2, "a")
        self.step_wall_clock(HOUR)
        self.pass_time(1)
        self.assertEqual(self.called, [])
        self.pass_time(1)
        self.assertEqual(self.called, ["a"])

    def test_step_forward_between_alarms(self) -> None:
        """The alarm that a step forward sets off is set anew, once."""
        self.later(2, "a")
        self.step_wall_clock(HOUR)
        self.pass_time(0.5)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_new_call_after_step_back(self) -> None:
        """A call asked for after the step is made in its time, and wakes the others."""
        self.later(2, "a")
        self.step_wall_clock(-HOUR)
        self.later(3, "b")
        self.pass_time(2)
        self.assertEqual(self.called, ["a"])

    def test_catch_up_with_nothing_due(self) -> None:
        """Catching up makes no call before its time."""
        self.clock.catch_up()
        self.later(2, "a")
        self.clock.catch_up()
        self.assertEqual(self.called, [])
        self.pass_time(2)
        self.assertEqual(self.called, ["a"])

    def test_catch_up_within_a_call(self) -> None:
        """A call that catches up makes no call twice."""
        self.clock.callLater(1, self.clock.catch_up)
        self.later(1, "a")
        self.pass_time(1)
        self.assertEqual(self.called, ["a"])


class RepetitionTests(SteadyTestCase):
    """Calls made again and again."""

    def test_every(self) -> None:
        """The first call comes after one interval, and one more after each."""
        self.clock.every(2.0, lambda: self.called.append(self.monotonic))
        self.assertEqual(self.called, [])
        for _ in range(6):
            self.pass_time(1)
        self.assertEqual(self.called, [1002.0, 1004.0, 1006.0])

    def test_survives_an_exception(self) -> None:
        """A call that raises is logged once a minute; the next one is made all the same."""

        def fail() -> None:
            self.called.append("tried")
            raise ZeroDivisionError("on purpose")

        self.clock.every(1.0, fail)
        for _ in range(3):
            self.pass_time(1)
        self.assertEqual(self.called, ["tried"] * 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        for _ in range(60):
            self.pass_time(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_missed_turns(self) -> None:
        """Turns missed are not made up for."""
        self.clock.every(1.0, lambda: self.called.append("a"))
        self.pass_time(10.5)
        self.assertEqual(self.called, ["a"])
        self.pass_time(1)
        self.assertEqual(self.called, ["a", "a"])

    def test_cancel(self) -> None:
        """A cancelled repetition leaves nothing behind, and may be cancelled again."""
        repetition = self.clock.every(1.0, lambda: self.called.append("a"))
        self.pass_time(1)
        repetition.cancel()
        repetition.cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.pass_time(5)
        self.assertEqual(self.called, ["a"])

    def test_cancel_by_its_own_call(self) -> None:
        """A repetition may end itself."""
        repetition = self.clock.every(1.0, lambda: repetition.cancel())
        self.pass_time(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_goes_on_through_a_step_back(self) -> None:
        """A repetition that is caught up with keeps its pace though the wall clock went back."""
        self.clock.every(1.0, lambda: self.called.append(self.monotonic))
        self.step_wall_clock(-HOUR)
        for _ in range(3):
            self.pass_time(1)
            self.clock.catch_up()
        self.assertEqual(self.called, [1001.0, 1002.0, 1003.0])


class SleepTests(SynchronousTestCase):
    """A wait without a clock of the reactor's."""

    def test_reactor_thread(self) -> None:
        """The Deferred fires on the reactor thread, which needs no timer for it."""
        calls: SimpleQueue[tuple[Any, ...]] = SimpleQueue()

        class Threads:
            def callFromThread(self, *call: Any) -> None:
                calls.put(call)

        threads = set(threading.enumerate())
        slept = sleep_apart(Threads(), 0.001)  # type: ignore[arg-type]
        call, *arguments = calls.get(timeout=PATIENCE)
        self.assertNoResult(slept)
        call(*arguments)
        self.assertIsNone(self.successResultOf(slept))
        self.assertEqual(set(threading.enumerate()) - threads, set())
