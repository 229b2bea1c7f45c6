"""Runs two threads through schedules that a test chooses: all of them, a sample, or one again.

Theory of operation.  Two threads affect each other by what they share and by nothing else, so what
they do together follows from the order of their accesses to it.  Here a thread stops before each
such access and only one of the two ever runs, so that order is ours to choose:

- An attribute or a copy is watched where the interpreter executes it: `accesses` finds the
  instructions that do it in the code of a class, and the thread stops before each.  The code runs
  as it is, without a call or a lock put into it.
- An event is a `WatchedEvent`, which stops before each call.  A thread that waits for one can not
  run until it is set, and no time passes: a wake-up that is lost leaves both threads asleep, which
  is noticed at once, however short the timeout is that would have hidden it.
- What else one thread calls of the other's stops by `Turns.call`.

A *step* is one access, or to wake; step ``n`` is the ``n``-th of a run, whoever makes it.  A
*preemption* at ``n`` lets the other thread make step ``n`` although the one that made step
``n - 1`` could go on.  Where a thread sleeps or ends, the other goes on: that is no preemption.  As
each thread by itself does the same in every run, who makes the first step and where the preemptions
are determine a whole run: that is its *schedule*, and two schedules that differ give two orders
that differ.

`systematic` runs each schedule of up to so many preemptions, those with fewer first.  Each but the
first two has one more preemption, at a later step, than another, its parent, and goes as its parent
does up to that step; so each is reached, once, by trying every step of each run at which there
was a choice, after its last preemption.  `sampled` draws from those with more.

One thread at a time also means that a copy of several rows is never seen half done.  It need not
be: two copies that could overlap in time can also be made in either order, and the order that is
wrong is among the schedules and leaves the wrong rows.

Instructions are watched by `sys.monitoring`, which calls only for the instructions that matter and
leaves the trace function, a debugger's or coverage's, alone.  Python 3.11 has none; there each of
the two threads has a trace function of ours, and its own again at its end: what coverage would
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

Accesses = dict[CodeType, dict[int, str]]
"""For each code what its watched instructions do, by offset."""

Note = Callable[[str], None]
Listen = Callable[[Note, Callable[[], None]], None]
Preempt = Callable[[int], bool]


class Stopped(BaseException):
    """Ends a thread of a run that went wrong; only what catches everything catches it."""


def accesses(owner: type, names: Collection[str], copies: bool = False) -> Accesses:
    """The instructions of a class and its bases that load or store attributes of these names.

    Args:
        owner: the class.
        names: of the attributes.
        copies: whether to watch assignments to items and slices, and calls of ``take``, too.
    """
    return {
        code: found
        for base in owner.__mro__[:-1]
        for code in _codes_of(base)
        if (found := _accesses_of(code, names, copies))
    }


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


class Turns:
    """Whose turn it is, in one run of two threads 0 and 1.

    Args:
        batons: one lock a thread, held; who gets hold of its own runs.
        over: a held lock, released when both threads have ended.
        preempt: whether to preempt at this step, where that can be.

    Attributes:
        steps: who made each step, and what it was.
        choices: steps at which there could be a preemption.
        preemptions: steps at which there was.
        trouble: what went wrong with the run, if anything; it is being ended then.
    """

    def __init__(
        self, batons: Sequence[threading.Lock], over: threading.Lock, preempt: Preempt
    ) -> None:
        self._batons = batons
        self._over = over
        self._preempt = preempt
        self._running = 0
        self._asleep: list[WatchedEvent | None] = [None, None]
        self._ended = [False, False]
        self.steps: list[tuple[int, str]] = []
        self.choices: list[int] = []
        self.preemptions: list[int] = []
        self.trouble = ""

    def begin(self, first: int) -> None:
        """Let this thread make the first step.  From outside of both."""
        self._running = first
        self._batons[first].release()

    def access(self, what: str) -> None:
        """The thread that runs is about to access what is shared; it may lose its turn here."""
        if self.trouble:
            return
        me = self._running
        step = len(self.steps)
        if step and self.steps[-1][0] == me and self._can_run(1 - me):
            self.choices.append(step)
            if self._preempt(step):
                self.preemptions.append(step)
                self._hand_over(me)
        self.steps.append((me, what))
        if len(self.steps) == STEPS:
            self.trouble = f"no end after {STEPS} steps"

    def call(self, what: str) -> None:
        """The same for a call; raises `Stopped` in a run that is being ended."""
        self.access(what)
        if self.trouble:
            raise Stopped

    def sleep(self, event: WatchedEvent) -> None:
        """The thread that runs sleeps until this is set."""
        me = self._running
        self._asleep[me] = event
        if self._can_run(1 - me):
            self._hand_over(me)
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
        if self._ended[1 - me]:
            self._over.release()
            return
        if not self._can_run(1 - me):
            self._never_wakes(self._asleep[1 - me])
        self._running = 1 - me
        self._batons[1 - me].release()

    def _can_run(self, thread: int) -> bool:
        if self._ended[thread]:
            return False
        event = self._asleep[thread]
        return event is None or event.lit

    def _hand_over(self, me: int) -> None:
        self._running = 1 - me
        self._batons[1 - me].release()
        if not self._batons[me].acquire(timeout=PATIENCE):
            self.trouble = f"the other thread keeps its turn for {PATIENCE} s"

    def _never_wakes(self, event: WatchedEvent | None) -> None:
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


class Performance(Protocol):
    """What two threads do in one run, made anew for each.

    Attributes:
        parts: what each of the two does.
    """

    parts: tuple[Callable[[], None], Callable[[], None]]

    def faults(self) -> list[str]:
        """What is wrong now that both have ended well."""


Rehearse = Callable[[Turns], Performance]


@attrs.frozen
class Schedule:
    """What determines a run.

    Attributes:
        first: the thread that makes the first step.
        preemptions: the steps at which the other thread takes over from one that could go on.
    """

    first: int
    preemptions: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ",".join(map(str, (self.first, *self.preemptions)))

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """The schedule whose text this is."""
        first, *preemptions = map(int, text.split(","))
        return cls(first, tuple(preemptions))


@attrs.frozen(eq=False)
class Run:
    """What came of a schedule.

    Attributes:
        schedule: that led to it.
        steps: who made each step, and what it was.
        choices: steps at which there could be a preemption.
        faults: what is wrong with it.
    """

    schedule: Schedule
    steps: list[tuple[int, str]]
    choices: list[int]
    faults: list[str]

    def scenario(self, names: Sequence[str]) -> str:
        """What is wrong, and each step, in a line of its own."""
        lines = [f"schedule {self.schedule}: {'; '.join(self.faults) or 'no fault'}"]
        for step, (thread, what) in enumerate(self.steps):
            mark = ">" if step in self.schedule.preemptions else " "
            lines.append(f"{step:5} {mark} {names[thread]:10} {what}")
        return "\n".join(lines)


class Pair:
    """Two threads for any number of runs of one performance.  To be used in a ``with`` statement.

    Args:
        watched: the instructions that are steps.
        rehearse: makes the performance of a run.
    """

    def __init__(self, watched: Accesses, rehearse: Rehearse) -> None:
        self._watched = watched
        self._rehearse = rehearse
        self._batons = [threading.Lock(), threading.Lock()]
        self._over = threading.Lock()
        self._run: tuple[Turns, Performance] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Pair:
        with ExitStack() as stack:
            listen = stack.enter_context(watching(self._watched))
            for lock in (*self._batons, self._over):
                lock.acquire()
            for thread in (0, 1):
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
        run = self.run(schedule.first, frozenset(schedule.preemptions).__contains__)
        if run.schedule != schedule:
            raise RuntimeError(f"schedule {schedule} went as {run.schedule}")
        return run

    def _start(self, me: int, listen: Listen) -> threading.Thread:
        # Both are joined; a daemon, lest one that a bug has stuck for good keeps the process.
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


def systematic(pair: Pair, bound: int) -> Iterator[Run]:
    """Run every schedule of up to `bound` preemptions once, those with fewer first.

    Raises:
        RuntimeError: a run did not go as its parent did up to its last preemption, so the threads
            do not do the same each time.
    """
    waiting: deque[tuple[Schedule, list[tuple[int, str]]]] = deque(
        (Schedule(first), []) for first in (0, 1)
    )
    while waiting:
        schedule, parents_steps = waiting.popleft()
        run = pair.replay(schedule)
        since = schedule.preemptions[-1] if schedule.preemptions else 0
        if run.steps[:since] != parents_steps[:since]:
            raise RuntimeError(f"schedule {schedule} did not go as before up to step {since}")
        yield run
        if len(schedule.preemptions) < bound:
            for step in run.choices:
                if step > since:
                    later = Schedule(schedule.first, (*schedule.preemptions, step))
                    waiting.append((later, run.steps))


def sampled(pair: Pair, count: int, at_least: int, seed: int) -> Iterator[Run]:
    """Run `count` different schedules of at least so many preemptions, drawn at random.

    Raises:
        RuntimeError: most draws give nothing new, so there may not be as many.
    """
    draw = random.Random(seed)
    seen: set[Schedule] = set()
    for _ in range(10 * count):
        if len(seen) == count:
            return
        often = draw.choice((0.05, 0.1, 0.2, 0.4, 0.8))
        run = pair.run(draw.randrange(2), lambda _, often=often: draw.random() < often)
        if len(run.schedule.preemptions) >= at_least and run.schedule not in seen:
            seen.add(run.schedule)
            yield run
    if len(seen) < count:
        raise RuntimeError(f"{10 * count} draws gave {len(seen)} schedules of {count}")
