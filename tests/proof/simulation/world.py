"""Time, the reactor and the persist thread, all moved by the simulation alone."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.base import DelayedCall

from playerstate.saving.persister import MAX_SLEEP, Persister
from playerstate.testing import EPOCH, MemoryReactor

STARTED_AT = 1000.0
REMEMBERED = 60
"""What happened last, shown with a failure: so many lines."""


class Failed(AssertionError):
    """Something that always holds did not."""


class Crash(BaseException):
    """The process dies here.  Nothing in the package may stop it, as nothing stops a SIGKILL."""


class ThreadKilled(BaseException):
    """The persist thread dies here."""


class World:
    """The clocks of one run, its chance, and its memory of what happened.

    Attributes:
        random: the only source of chance.
        now: the monotonic clock, in seconds.
        wall_step: by how much the wall clock was stepped, in seconds.
        broken: the first thing that did not hold; a Deferred may have swallowed the exception.
    """

    def __init__(self, source: random.Random, verbose: Callable[[str], None] | None = None) -> None:
        self.random = source
        self.now = STARTED_AT
        self.wall_step = 0.0
        self.broken: Failed | None = None
        self._verbose = verbose
        self._happened: deque[tuple[Any, ...]] = deque(maxlen=REMEMBERED)

    def monotonic(self) -> float:
        """Seconds that never step."""
        return self.now

    def wall_clock(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return int((EPOCH + self.wall_step + self.now) * 1e9)

    def chance(self, of: float) -> bool:
        """Whether it happens."""
        return of > 0 and self.random.random() < of

    def note(self, *what: object) -> None:
        """Remember something that happened."""
        self._happened.append((self.now, *what))
        if self._verbose is not None:
            self._verbose(_line(self._happened[-1]))

    def scenario(self) -> str:
        """What happened last, a line each."""
        return "\n".join(map(_line, self._happened))

    def check(self, holds: bool, *what: object) -> None:
        """Fail unless it holds."""
        if not holds:
            self.fail(*what)

    def fail(self, *what: object) -> NoReturn:
        """Something that always holds did not."""
        failed = Failed(" ".join(map(str, what)))
        self.broken = self.broken or failed
        raise failed


def _line(entry: tuple[Any, ...]) -> str:
    at, *what = entry
    return f"  {at - STARTED_AT:9.4f}  " + " ".join(map(str, what))


class Reactor(MemoryReactor):
    """A reactor on the wall clock, which steps; word from threads takes its time.

    Args:
        world: whose clocks it follows.
        slow_reports: the chance that word from a thread takes long.
    """

    def __init__(self, world: World, slow_reports: float) -> None:
        super().__init__()
        self._world = world
        self._slow_reports = slow_reports
        self._reports: deque[tuple[float, Callable[[], object]]] = deque()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Have it called after a while, in order."""
        wait = 0.0
        if self._world.chance(self._slow_reports):
            wait = self._world.random.choice((0.001, 0.03, 0.3, 1.0))
        due = self._world.now + wait
        if self._reports:
            due = max(due, self._reports[-1][0])
        self._reports.append((due, lambda: callable(*args, **kwargs)))

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> DelayedCall:
        """Call after `delay` seconds; time passes while a reactor turns, if only a microsecond."""
        return super().callLater(max(delay, 1e-6), callable, *args, **kwargs)

    def next_report(self) -> float:
        """When the next word comes."""
        return self._reports[0][0] if self._reports else math.inf

    def deliver(self) -> None:
        """Make the calls that are due."""
        while self._reports and self._reports[0][0] <= self._world.now:
            self._reports.popleft()[1]()

    def step_clock(self, seconds: float) -> None:
        """The wall clock, which this reactor's timers run on, is set."""
        self.rightNow += seconds


class Thread:
    """Stands in for the persist thread: the same turns, each made when the simulation says.

    It is `Persister.run` with its sleeps taken out; where that would end, it is called.

    Attributes:
        busy: whether a turn is under way, in which the world goes on.
        ended: whether the thread has ended.
    """

    def __init__(self, world: World, slow: float, run: Callable[[], None]) -> None:
        self._world = world
        self._slow = slow
        self._run = run
        self.persister: Persister = run.__self__  # type: ignore[attr-defined]
        self.busy = False
        self.ended = False
        rest = self.persister._first_rest()
        self._next = world.now + rest
        self._slept = "deaf" if rest else ""

    def join(self, timeout: float | None = None) -> None:
        """It has ended, or whoever joins it goes on without it."""

    def due(self) -> float:
        """When the next turn is to be made."""
        if self.busy or self.ended:
            return math.inf
        persister = self.persister
        woken = self._slept == "idle" and persister._wake.is_set()
        if woken or (self._slept and persister._abandoned.is_set()):
            wait = self._world.random.random() * 0.1 if self._world.chance(self._slow) else 0.0
            self._next = min(self._next, self._world.now + wait)
        return self._next

    def turn(self) -> None:
        """Wake, and do what `Persister.run` does until it sleeps again."""
        self.busy = True
        try:
            self._turn()
        finally:
            self.busy = False

    def _turn(self) -> None:
        persister, slept = self.persister, self._slept
        self._slept = ""
        if slept:
            persister._listener.beat()
        if slept == "idle":
            persister._maintain()
        if persister._abandoned.is_set():
            return self._end()
        persister._wake.clear()
        finishing = persister._finishing
        try:
            wait = persister.step()
        except ThreadKilled:
            # The store kills whatever writes until a thread has died of it.
            return self._end()
        if wait is None and finishing:
            return self._end()
        if wait is None:
            self._slept, wait = "idle", MAX_SLEEP
        elif wait:
            self._slept = "deaf"
        self._next = self._world.now + wait

    def _end(self) -> None:
        self._world.note("the persist thread ends")
        self._run()
        self.ended = True
