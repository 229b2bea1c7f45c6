"""Runs threads through schedules that a test chooses: all of them, a sample, or one again.

Theory of operation.  Threads affect each other by what they share and by nothing else, so what
they do together follows from the order of their accesses to it.  Here a thread stops before each
such access and only one of them ever runs, so that order is ours to choose:

- An attribute or a copy is watched where the interpreter executes it: `accesses` finds the
  instructions that do it in the code of a class, and the thread stops before each.  The code runs
  as it is, without a call or a lock put into it.
- An event is a `WatchedEvent`, which stops before each call.  A thread that waits for one can not
  run until it is set, and no time passes: a wake-up that is lost leaves all threads asleep, which
  is noticed at once, however short the timeout is that would have hidden it.  A lock is a
  `WatchedLock`, whose waiters sleep likewise.
- What else one thread calls of another's stops by `Turns.call`.

A *step* is one access, or to wake; step ``n`` is the ``n``-th of a run, whoever makes it.  Who made
step ``n - 1`` makes step ``n`` too, or where it sleeps or has ended, the next in their order that
can.  A *preemption* at ``n`` lets another that can make step ``n`` instead.  As each thread by
itself does the same in every run, who makes the first step and where the preemptions are, and to
whom they go, determine a whole run: that is its *schedule*, and two schedules that differ give two
orders that differ.

`systematic` runs each schedule of up to so many preemptions, those with fewer first.  Each but the
first few has one more preemption, at a later step, than another, its parent, and goes as its parent
does up to that step; so each is reached, once, by trying every step of each run at which there
was a choice, after its last preemption, with each thread there was to choose.  `sampled` draws from
those with more.

One thread at a time also means that a copy of several rows is never seen half done.  It need not
be: two copies that could overlap in time can also be made in either order, and the order that is
wrong is among the schedules and leaves the wrong rows.

Instructions are watched by `sys.monitoring`, which calls only for the instructions that matter and
leaves the trace function, a debugger's or coverage's, alone.  Python 3.11 has none; there each of
the threads has a trace function of ours, and its own again at its end: what coverage would
have measured in them meanwhile it does not see.
"""

from __future__ import annotations

import dis
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from types import CodeType, FrameType
from typing import Any, Protocol

import attrs

PATIENCE = 20.0
"""Seconds after which a thread that should have had its turn long before gives up."""

STEPS = 2000
"""Steps after which a run is taken to be one that never ends."""

RATES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""How likely a preemption is at each choice; see `sampled`."""

Accesses = dict[CodeType, dict[int, str]]
"""For each code what its watched instructions do, by offset."""

Note = Callable[[str], None]
Listen = Callable[[Note, Callable[[], None]], None]
Choice = tuple[int, tuple[int, ...]]
"""A step at which there could be a preemption, and the threads it could go to."""

Preempt = Callable[[int, tuple[int, ...]], int | None]
"""Which of these threads is to make this step instead of the one expected; None for none."""


class Stopped(BaseException):
    """Ends a thread of a run that went wrong; only what catches everything catches it."""


def accesses(owner: type, names: Collection[str], copies: bool = False) -> Accesses:
    """The instructions of a class and its bases that load or store attributes of these names.

    Args:
        owner: the class.
        names: of the attributes.
        copies: whether to watch assignments to items and slices, and calls of ``take``, too.

    Raises:
        ValueError: the class uses no attribute of one of these names, so it would go unwatched.
    """
    watched = {
        code: found
        for base in owner.__mro__[:-1]
        for code in _codes_of(base)
        if (found := _accesses_of(code, names, copies))
    }
    seen = {what.rpartition(" ")[2] for found in watched.values() for what in found.values()}
    if unused := set(names) - seen:
        raise ValueError(f"{owner.__name__} uses no attribute {', '.join(sorted(unused))}")
    return watched


def _codes_of(owner: type) -> Iterator[CodeType]:
    for member in vars(owner).values():
        function = member.fget if isinstance(member, property) else member
        if (code := getattr(function, "__code__", None)) is not None:
            yield code


def _accesses_of(code: CodeType, names: Collection[str], copies: bool) -> dict[int, str]:
    found = {}
    calls_of_take = set()
    for instruction in dis.get_instructions(code):
        name, does = instruction.argval, instruction.opname
        where = instruction.positions and instruction.positions[::2]  # where its expression begins
        what = None
        if does in ("LOAD_ATTR", "LOAD_METHOD"):
            if name in names:
                what = f"load {name}"
            elif name == "take":
                calls_of_take.add(where)
        elif does == "STORE_ATTR" and name in names:
            what = f"store {name}"
        elif copies and (
            does in ("STORE_SUBSCR", "STORE_SLICE")
            or (does in ("CALL", "CALL_KW", "CALL_FUNCTION_EX") and where in calls_of_take)
        ):
            what = "copy"
        if what is not None:
            found[instruction.offset] = f"{code.co_qualname}: {what}"
    return found


@contextmanager
def _traced(watched: Accesses) -> Iterator[Listen]:
    """Watch instructions by trace functions."""

    def listen(note: Note, body: Callable[[], None]) -> None:
        def local(found: dict[int, str]) -> Callable[[FrameType, str, Any], Any]:
            def trace(frame: FrameType, event: str, _: Any) -> Any:
                if event == "opcode" and (what := found.get(frame.f_lasti)) is not None:
                    note(what)
                return trace

            return trace

        traces = {code: local(found) for code, found in watched.items()}

        def enter(frame: FrameType, event: str, _: Any) -> Any:
            if (trace := traces.get(frame.f_code)) is not None:
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return trace

        # One frame does both, so that whoever traced before never sees half of a call.
        before = sys.gettrace()
        sys.settrace(enter)
        try:
            body()
        finally:
            sys.settrace(before)

    yield listen


@contextmanager
def _monitored(watched: Accesses) -> Iterator[Listen]:
    """Watch instructions by `sys.monitoring`."""
    monitoring = sys.monitoring
    notes: dict[int, Note] = {}

    def listen(note: Note, body: Callable[[], None]) -> None:
        notes[threading.get_ident()] = note
        try:
            body()
        finally:
            del notes[threading.get_ident()]

    def execute(code: CodeType, offset: int) -> Any:
        what = watched[code].get(offset)
        if what is None:
            return monitoring.DISABLE
        if (note := notes.get(threading.get_ident())) is not None:
            note(what)
        return None

    tool = next(tool for tool in range(6) if monitoring.get_tool(tool) is None)
    instruction = monitoring.events.INSTRUCTION
    monitoring.use_tool_id(tool, __name__)
    try:
        monitoring.register_callback(tool, instruction, execute)
        for code in watched:
            monitoring.set_local_events(tool, code, instruction)
        # One that a watch before this one had disabled may matter to this one.
        monitoring.restart_events()
        yield listen
    finally:
        for code in watched:
            monitoring.set_local_events(tool, code, 0)
        monitoring.register_callback(tool, instruction, None)
        monitoring.free_tool_id(tool)


watching: Callable[[Accesses], AbstractContextManager[Listen]]
"""Watches instructions; what it gives runs a body and notes each of them before it is executed."""
watching = _monitored if sys.version_info >= (3, 12) else _traced


class Sleep(Protocol):
    """What a thread may sleep for.

    Attributes:
        lit: whether it need not, or no more; to look is not a step.
    """

    @property
    def lit(self) -> bool:
        """See above."""


class Turns:
    """Whose turn it is, in one run of threads 0, 1 and so on.

    Args:
        batons: one lock a thread, held; who gets hold of its own runs.
        over: a held lock, released when all threads have ended.
        preempt: whether to preempt at a step, and for whom, where that can be.

    Attributes:
        steps: who made each step, and what it was.
        choices: where there could be a preemption.
        preemptions: the steps at which there was, and to whom it went.
        trouble: what went wrong with the run, if anything; it is being ended then.
    """

    def __init__(
        self, batons: Sequence[threading.Lock], over: threading.Lock, preempt: Preempt
    ) -> None:
        self._batons = batons
        self._over = over
        self._preempt = preempt
        self._running = 0
        self._asleep: list[Sleep | None] = [None] * len(batons)
        self._ended = [False] * len(batons)
        self.steps: list[tuple[int, str]] = []
        self.choices: list[Choice] = []
        self.preemptions: list[tuple[int, int]] = []
        self.trouble = ""

    @property
    def running(self) -> int:
        """The thread that runs."""
        return self._running

    def begin(self, first: int) -> None:
        """Let this thread make the first step.  From outside of all."""
        self._running = first
        self._batons[first].release()

    def access(self, what: str) -> None:
        """The thread that runs is about to access what is shared; it may lose its turn here."""
        if self.trouble:
            return
        me = self._running
        if self.steps and self.steps[-1][0] == me and (chosen := self._choose(me)) != me:
            self._hand_over(me, chosen)
        self.steps.append((me, what))
        if len(self.steps) == STEPS:
            self.trouble = f"no end after {STEPS} steps"

    def call(self, what: str) -> None:
        """The same for a call; raises `Stopped` in a run that is being ended."""
        self.access(what)
        if self.trouble:
            raise Stopped

    def sleep(self, event: Sleep) -> None:
        """The thread that runs sleeps until this is lit."""
        me = self._running
        self._asleep[me] = event
        if able := self._able_after(me):
            self._hand_over(me, self._choose(able[0]))
        else:
            self._never_wakes(event)
        self._asleep[me] = None
        if self.trouble:
            raise Stopped
        # A step, since all that the thread yet does may be to end: who runs shows in the steps.
        self.steps.append((me, f"{event} wakes it"))

    def end(self, error: BaseException | None) -> None:
        """The thread that runs has ended, with this error."""
        me = self._running
        self._ended[me] = True
        if error is not None and not self.trouble:
            self.trouble = f"a thread died: {error!r}"
        if all(self._ended):
            self._over.release()
            return
        if able := self._able_after(me):
            heir = able[0] if self.trouble else self._choose(able[0])
        else:
            heir = self._ended.index(False)
            self._never_wakes(self._asleep[heir])
        self._running = heir
        self._batons[heir].release()

    def _able_after(self, me: int) -> list[int]:
        """The threads that can run, in their order, beginning after this one."""
        size = len(self._batons)
        return [one % size for one in range(me + 1, me + 1 + size) if self._can_run(one % size)]

    def _choose(self, expected: int) -> int:
        """Who is to make the next step: this one, or whom a preemption goes to."""
        step = len(self.steps)
        others = tuple(one for one in self._able_after(expected) if one != expected)
        if others:
            self.choices.append((step, others))
            if (other := self._preempt(step, others)) is not None:
                self.preemptions.append((step, other))
                return other
        return expected

    def _can_run(self, thread: int) -> bool:
        if self._ended[thread]:
            return False
        event = self._asleep[thread]
        return event is None or event.lit

    def _hand_over(self, me: int, other: int) -> None:
        self._running = other
        self._batons[other].release()
        if not self._batons[me].acquire(timeout=PATIENCE):
            self.trouble = f"the other threads keep their turn for {PATIENCE} s"

    def _never_wakes(self, event: Sleep | None) -> None:
        if not self.trouble:
            self.trouble = f"nobody is left to wake who waits for {event}"


class WatchedEvent(threading.Event):
    """An event whose users take turns.

    Args:
        turns: theirs.
        name: how it is called in a run's steps.
        times_out: whether a wait always times out at once; else none ever does.
    """

    def __init__(self, turns: Turns, name: str, times_out: bool = False) -> None:
        super().__init__()
        self._turns = turns
        self._name = name
        self._times_out = times_out

    def __str__(self) -> str:
        return self._name

    @property
    def lit(self) -> bool:
        """Whether it is set; not a step."""
        return super().is_set()

    def is_set(self) -> bool:
        """See `threading.Event.is_set`."""
        self._turns.call(f"{self}.is_set()")
        return self.lit

    def set(self) -> None:
        """See `threading.Event.set`."""
        self._turns.call(f"{self}.set()")
        super().set()

    def clear(self) -> None:
        """See `threading.Event.clear`."""
        self._turns.call(f"{self}.clear()")
        super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event.wait`; of the timeout only whether there is one matters."""
        self._turns.call(f"{self}.wait()")
        if not self.lit and not self._times_out:
            self._turns.sleep(self)
        return self.lit


class WatchedLock:
    """A lock whose users take turns.

    Args:
        turns: theirs.
        name: how it is called in a run's steps.
    """

    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name
        self.lit = True

    def __str__(self) -> str:
        return self._name

    def __enter__(self) -> None:
        self._turns.call(f"{self}.acquire()")
        while not self.lit:
            self._turns.sleep(self)
        self.lit = False

    def __exit__(self, *_: object) -> None:
        self._turns.access(f"{self}.release()")
        self.lit = True


class Performance(Protocol):
    """What the threads do in one run, made anew for each.

    Attributes:
        parts: what each of them does.
    """

    parts: tuple[Callable[[], None], ...]

    def faults(self) -> list[str]:
        """What is wrong now that all have ended well."""


Rehearse = Callable[[Turns], Performance]


@attrs.frozen
class Schedule:
    """What determines a run.

    Attributes:
        first: the thread that makes the first step.
        preemptions: the steps that a thread makes which was not expected to, and this thread.
    """

    first: int
    preemptions: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        return ",".join([str(self.first), *(f"{step}:{to}" for step, to in self.preemptions)])

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """The schedule whose text this is."""
        first, *preemptions = text.split(",")
        pairs = (preemption.split(":") for preemption in preemptions)
        return cls(int(first), tuple((int(step), int(to)) for step, to in pairs))


@attrs.frozen(eq=False)
class Run:
    """What came of a schedule.

    Attributes:
        schedule: that led to it.
        steps: who made each step, and what it was.
        choices: where there could be a preemption.
        faults: what is wrong with it.
    """

    schedule: Schedule
    steps: list[tuple[int, str]]
    choices: list[Choice]
    faults: list[str]

    def scenario(self, names: Sequence[str]) -> str:
        """What is wrong, and each step, in a line of its own."""
        lines = [f"schedule {self.schedule}: {'; '.join(self.faults) or 'no fault'}"]
        preempted = dict(self.schedule.preemptions)
        for step, (thread, what) in enumerate(self.steps):
            mark = ">" if step in preempted else " "
            lines.append(f"{step:5} {mark} {names[thread]:10} {what}")
        return "\n".join(lines)


class Troupe:
    """Threads for any number of runs of one performance.  To be used in a ``with`` statement.

    Args:
        watched: the instructions that are steps.
        rehearse: makes the performance of a run.
        size: how many threads there are, one a part.
    """

    def __init__(self, watched: Accesses, rehearse: Rehearse, size: int = 2) -> None:
        self.size = size
        self._watched = watched
        self._rehearse = rehearse
        self._batons = [threading.Lock() for _ in range(size)]
        self._over = threading.Lock()
        self._run: tuple[Turns, Performance] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Troupe:
        with ExitStack() as stack:
            listen = stack.enter_context(watching(self._watched))
            for lock in (*self._batons, self._over):
                lock.acquire()
            for thread in range(self.size):
                stack.callback(self._start(thread, listen).join, PATIENCE)
            stack.callback(self._dismiss)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, first: int, preempt: Preempt) -> Run:
        """Run once, with these decisions."""
        turns = Turns(self._batons, self._over, preempt)
        performance = self._rehearse(turns)
        self._run = turns, performance
        turns.begin(first)
        if not self._over.acquire(timeout=2 * PATIENCE):
            raise RuntimeError(f"a thread is stuck after {turns.steps[-1:]}")
        faults = [turns.trouble] if turns.trouble else performance.faults()
        schedule = Schedule(first, tuple(turns.preemptions))
        return Run(schedule, turns.steps, turns.choices, faults)

    def replay(self, schedule: Schedule) -> Run:
        """Run this schedule.

        Raises:
            RuntimeError: a preemption is at a step where there is no choice.
        """
        to = dict(schedule.preemptions)
        run = self.run(schedule.first, lambda step, _: to.get(step))
        if run.schedule != schedule:
            raise RuntimeError(f"schedule {schedule} went as {run.schedule}")
        return run

    def _start(self, me: int, listen: Listen) -> threading.Thread:
        # All are joined; daemons, lest one that a bug has stuck keeps the process.
        target = partial(listen, self._note, partial(self._live, me))
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        return thread

    def _note(self, what: str) -> None:
        if self._run is not None:
            self._run[0].access(what)

    def _live(self, me: int) -> None:
        while self._batons[me].acquire(timeout=2 * PATIENCE) and self._run is not None:
            turns, performance = self._run
            error = None
            try:
                performance.parts[me]()
            except BaseException as caught:  # the run that it belongs to tells of it
                error = caught
            turns.end(error)

    def _dismiss(self) -> None:
        self._run = None
        for baton in self._batons:
            baton.release()


def systematic(troupe: Troupe, bound: int) -> Iterator[Run]:
    """Run every schedule of up to `bound` preemptions once, those with fewer first.

    Raises:
        RuntimeError: a run did not go as its parent did up to its last preemption, so the threads
            do not do the same each time.
    """
    waiting: deque[tuple[Schedule, list[tuple[int, str]]]] = deque(
        (Schedule(first), []) for first in range(troupe.size)
    )
    while waiting:
        schedule, parents_steps = waiting.popleft()
        run = troupe.replay(schedule)
        since = schedule.preemptions[-1][0] if schedule.preemptions else 0
        if run.steps[:since] != parents_steps[:since]:
            raise RuntimeError(f"schedule {schedule} did not go as before up to step {since}")
        yield run
        if len(schedule.preemptions) < bound:
            for step, others in run.choices:
                if step > since:
                    for other in others:
                        preemptions = (*schedule.preemptions, (step, other))
                        waiting.append((Schedule(schedule.first, preemptions), run.steps))


def sampled(
    troupe: Troupe,
    count: int,
    at_least: int,
    seed: int,
    rates: Sequence[float] = RATES,
) -> Iterator[Run]:
    """Run `count` different schedules of at least so many preemptions, drawn at random.

    Each run has one of the rates: how likely a preemption is at each choice.

    Raises:
        RuntimeError: most draws give nothing new, so there may not be as many.
    """
    draw = random.Random(seed)
    often = 0.0

    def preempt(_: int, others: tuple[int, ...]) -> int | None:
        return draw.choice(others) if draw.random() < often else None

    seen: set[Schedule] = set()
    for _ in range(10 * count):
        if len(seen) == count:
            return
        often = draw.choice(rates)
        run = troupe.run(draw.randrange(troupe.size), preempt)
        if len(run.schedule.preemptions) >= at_least and run.schedule not in seen:
            seen.add(run.schedule)
            yield run
    if len(seen) < count:
        raise RuntimeError(f"{10 * count} draws gave {len(seen)} schedules of {count}")
