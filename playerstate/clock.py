"""Twisted's timers on a clock that never steps.

The reactor's own timers run on the wall clock: when it is set back by an hour, every delayed call
stalls for that hour.  `SteadyClock` keeps its calls on `time.monotonic` and asks the reactor for a
single alarm.  The persist threads, which do not depend on the reactor's timers, have
`SteadyClock.catch_up` called at least once a second; it runs the calls that are due and sets the
alarm again, from the wall clock as it is then.  After the last persist thread has ended,
`sleep_apart` takes its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import methodcaller
from threading import Thread
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from zope.interface import implementer

from playerstate.log import PrintableLogger
from playerstate.sparing import SparingLogger

JOIN_WITHIN = 1.0
"""Seconds that a thread whose work is done has to end."""

_log = PrintableLogger()
_due_time = methodcaller("getTime")


@implementer(IReactorTime)
class SteadyClock:
    """`IReactorTime` on a monotonic clock.  Reactor thread only.

    Meant for the few calls of a service: all of them are scanned whenever one is due.

    Args:
        reactor: the `IReactorTime` that gives the alarm.
        monotonic: seconds that never step.
    """

    def __init__(
        self, reactor: IReactorTime, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._calls: list[DelayedCall] = []
        self._alarm: IDelayedCall | None = None
        self._lines = SparingLogger(_log, monotonic)

    def seconds(self) -> float:
        """Seconds on the monotonic clock."""
        return self._monotonic()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        """Call `callable` after `delay` seconds; an exception that it raises is logged."""
        due = self.seconds() + delay
        call = DelayedCall(due, callable, args, kw, self._cancelled, self._moved, self.seconds)
        self._calls.append(call)
        self._set_alarm()
        return call

    def every(self, interval: float, function: Callable[[], object]) -> Repetition:
        """Call `function` every `interval` seconds, the first time after one interval.

        An exception is logged and does not end the repetition; a missed call is not made up for.
        """
        return Repetition(self, interval, function)

    def getDelayedCalls(self) -> list[DelayedCall]:
        """The pending calls."""
        return list(self._calls)

    def catch_up(self) -> None:
        """Run every call that is due, earliest first, and set the alarm for the next."""
        now = self.seconds()
        due = sorted((call for call in self._calls if call.getTime() <= now), key=_due_time)
        for call in due:
            if not call.active() or call.getTime() > now:
                continue  # an earlier call cancelled or moved it, or called `catch_up` itself
            self._calls.remove(call)
            call.called = 1
            name = _name(call.func)
            with self._lines.failures_handled("{call} failed", kind=name, call=name):
                call.func(*call.args, **call.kw)
        self._set_alarm()

    def _cancelled(self, call: DelayedCall) -> None:
        self._calls.remove(call)
        self._set_alarm()

    def _moved(self, call: DelayedCall) -> None:
        self._set_alarm()

    def _set_alarm(self) -> None:
        alarm = self._alarm if self._alarm is not None and self._alarm.active() else None
        if not self._calls:
            if alarm is not None:
                alarm.cancel()
            return
        delay = max(0.0, min(map(_due_time, self._calls)) - self.seconds())
        if alarm is not None:
            alarm.reset(delay)
        else:
            self._alarm = self._reactor.callLater(delay, self.catch_up)


class Repetition:
    """A call repeated until it is cancelled; see `SteadyClock.every`.

    Attributes:
        function: what is called.
    """

    def __init__(self, clock: SteadyClock, interval: float, function: Callable[[], object]) -> None:
        self._clock = clock
        self._interval = interval
        self.function = function
        self._call = clock.callLater(interval, self._turn)

    def _turn(self) -> None:
        self._call = self._clock.callLater(self._interval, self._turn)
        self.function()

    def cancel(self) -> None:
        """Stop the repetition; idempotent."""
        if self._call.active():
            self._call.cancel()


def _name(function: Callable[..., Any]) -> str:
    """The name of a function that is called later; of a repetition, that of what it repeats."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, Repetition):
        return _name(owner.function)
    return getattr(function, "__qualname__", "") or repr(function)


def sleep_apart(reactor: IReactorFromThreads, seconds: float) -> Deferred[None]:
    """Return a Deferred that fires after this many seconds, on the reactor thread.

    A separate thread sleeps that long, on the monotonic clock, and is joined before the Deferred
    fires.  For the end of a program, when no persist thread catches a `SteadyClock` up any more.
    """
    slept: Deferred[None] = Deferred()

    def sleep() -> None:
        time.sleep(seconds)
        reactor.callFromThread(awake)

    def awake() -> None:
        thread.join(JOIN_WITHIN)  # that call was the last thing it did
        slept.callback(None)

    thread = Thread(target=sleep, name="playerstate-sleep", daemon=True)
    thread.start()
    return slept
