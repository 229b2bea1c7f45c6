"""The ring and the persist thread's wake-up, under every order in which two threads can meet.

The real `Ring` and the real `Persister` run on two real threads, one that pushes rows as the
outbox does and one in `Persister.run`.  `tests.proof.interleaving` decides who makes the next
access to what they share: the ring's cursors and places, the persister's events and flags, the
listener. A run is good when

- both threads end: no wake-up is lost, a timeout counting for nothing;
- the rows taken are those pushed, whole, in order, each once (invariants 1 and 2);
- everything taken is reported committed or superseded, with the newest row of each player in the
  store, and with cursors below which that is so (invariant 3);
- each cursor was written by one thread (invariant 1).

Every schedule with up to two preemptions runs, and ``PROOF_SCHEDULES`` others, 2,000 unless
set, drawn from those with three or more.  A schedule that fails is told with its steps;
``PROOF_REPLAY=0,17:1,23:0`` runs that one alone in whatever test is chosen.

Copies of the ring and the persister with known faults, one a rule of theirs, show that each rule
matters and that a fault is found.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import attrs
import numpy as np
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from playerstate.interfaces import IStateWriter, LeftOut, Records, StoreBusy
from playerstate.saving.commit import Commit
from playerstate.saving.in_hand import InHand
from playerstate.saving.persister import MAX_SLEEP, Persister
from playerstate.saving.ring import Indices, Ring, Rows
from tests.proof.exploring import SAMPLED, explore, first_fault
from tests.proof.interleaving import (
    Run,
    Schedule,
    Troupe,
    Turns,
    WatchedEvent,
    accesses,
    sampled,
    systematic,
    watching,
)

THREADS = ("producer", "consumer")
CONSUMER = THREADS.index("consumer")
BOUND = 2
"""Preemptions up to which every schedule runs."""

ROW = np.dtype(
    [
        ("session_id", "<i8"),
        ("slot", "<u4"),
        ("generation", "<u4"),
        ("updated_at", "<i8"),
        ("sequence", "<u8"),
        ("body", "<u8", (4,)),
    ]
)
SALT = np.arange(1, 5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)

_log = Logger()


def fill(rows: Rows, first: int) -> None:
    """Number these rows from `first`, one a player; all else in a row follows from its number."""
    numbers = np.arange(first, first + len(rows), dtype=np.uint64)
    rows["session_id"] = np.arange(1, len(rows) + 1)
    rows["slot"] = numbers + np.uint64(100)
    rows["generation"] = numbers + np.uint64(200)
    rows["updated_at"] = numbers + np.uint64(1000)
    rows["sequence"] = numbers
    rows["body"] = numbers[:, np.newaxis] * SALT


class TakingRing(Ring):
    """A ring that keeps what was taken."""

    __slots__ = ("taken",)

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, ROW)
        self.taken: list[Rows] = []

    def take(self) -> Rows:
        """See `Ring.take`."""
        taken = super().take()
        self.taken.append(taken)
        return taken


@attrs.frozen
class Scenario:
    """What the producer does, and with what.

    Attributes:
        capacity: the ring's.
        sweeps: rows in each sweep; they are the same players' again.
        busy: how often the store is busy first.
        abandons: whether the end is `Persister.abandon`, not `Persister.finish`.
        ring, persister: their classes.
    """

    capacity: int
    sweeps: tuple[int, ...]
    busy: int = 0
    abandons: bool = False
    ring: type[TakingRing] = TakingRing
    persister: type[Persister] = Persister

    def troupe(self) -> Troupe:
        """Two threads for it."""
        # Only `abandon` looks at the writer from the other thread.
        flags = {"_finishing", *({"_writer"} if self.abandons else ())}
        watched = accesses(self.ring, {"read", "write"}, copies=True)
        watched |= accesses(self.persister, flags) | accesses(InHand, {"read"})
        return Troupe(watched, lambda turns: HandOver(self, turns))


@implementer(IStateWriter)
class Writer:
    """Notes what is written, after it was busy as often as it should."""

    def __init__(self, busy: int, turns: Turns) -> None:
        self._busy = busy
        self._turns = turns
        self.newest: dict[int, int] = {}
        self.faults: list[str] = []
        self._closed = False

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter`."""
        self._on_the_thread("write")
        if self._busy:
            self._busy -= 1
            raise StoreBusy("locked")
        for session_id, number in zip(
            records["session_id"].tolist(), records["sequence"].tolist(), strict=True
        ):
            if number <= self.newest.get(session_id, 0):
                self.faults.append(f"player {session_id} goes back to row {number}")
            self.newest[session_id] = number
        return LeftOut()

    def sync(self) -> None:
        """See `IStateWriter`."""
        self._on_the_thread("sync")

    def maintain(self) -> None:
        """See `IStateWriter`."""
        self._on_the_thread("maintain")

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """See `IStateWriter`."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """See `IStateWriter`; it may be closed already."""
        self._turns.call("writer.interrupt()")

    def close(self) -> None:
        """See `IStateWriter`."""
        self._on_the_thread("close")
        self._closed = True

    def _on_the_thread(self, what: str) -> None:
        if self._closed:
            self.faults.append(f"{what} after close")


class HandOver:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, turns: Turns) -> None:
        self._scenario = scenario
        self._turns = turns
        self._ring = scenario.ring(scenario.capacity)
        self._writer = Writer(scenario.busy, turns)
        self._room = WatchedEvent(turns, "room")
        self._persister = scenario.persister(
            self._ring, ROW, lambda: self._writer, self, lambda: 0.0, lambda: 0.0
        )
        self._persister._wake = WatchedEvent(turns, "_wake")
        # The time to try again comes at once, or where the thread is to be abandoned, never.
        self._persister._abandoned = WatchedEvent(
            turns, "_abandoned", times_out=not scenario.abandons
        )
        self._faults: list[str] = []
        self._pushed = self._settled = 0
        self._end: list[str] = []
        self.parts = self._produce, self._persister.run

    def _produce(self) -> None:
        table = np.zeros(max(self._scenario.sweeps), ROW)
        number = 1
        for count in self._scenario.sweeps:
            fill(table[:count], number)
            number += count
            left = np.arange(count)
            while len(left):
                self._room.clear()
                pushed = self._ring.push(table, left)
                self._pushed += pushed
                if pushed:
                    self._persister.wake()
                left = left[pushed:]
                if len(left):
                    self._room.wait()
        if self._scenario.abandons:
            self._persister.abandon()
        else:
            self._persister.finish()

    def committed(self, commit: Commit) -> None:
        """See `PersistListener`, as for the methods that follow."""
        self._turns.call("listener.committed()")
        self._settled += len(commit.sequences) + commit.superseded
        if commit.read != self._settled:
            self._faults.append(f"{self._settled} rows settled, {commit.read} told")
        if not (commit.sequences + np.uint64(100) == commit.slots).all():
            self._faults.append("a commit in pieces")
        self._room.set()

    def recovered(self, commit: Commit) -> None:
        """Nothing was left by anyone."""
        raise NotImplementedError

    def failed(self, error: Exception, rows: int) -> None:
        """The store is busy, or there is a fault."""
        self._turns.call("listener.failed()")
        if not isinstance(error, StoreBusy):
            self._faults.append(f"{error!r} with {rows} rows in hand")

    def replaced(self, error: Exception) -> None:
        """The store is never replaced."""
        raise NotImplementedError

    def held(self, number: int) -> None:
        """It is never told to stand still."""
        raise NotImplementedError

    def beat(self) -> None:
        """The thread woke."""
        self._turns.call("listener.beat()")

    def died(self, error: BaseException) -> None:
        """The thread ends by an error."""
        self._end.append(repr(error))

    def thread_ended(self, synced: bool) -> None:
        """The thread ends as it should."""
        self._end.append("synced" if synced else "abandoned")

    def faults(self) -> list[str]:
        """What is wrong, both threads having ended."""
        return [*self._faults, *self._writer.faults, *self._found()]

    def _found(self) -> Iterator[str]:
        total = sum(self._scenario.sweeps)
        if self._pushed != total:
            yield f"{self._pushed} rows pushed of {total}"
        taken = np.concatenate([np.empty(0, ROW), *self._ring.taken])
        numbers = taken["sequence"].tolist()
        if numbers != list(range(1, len(taken) + 1)):
            yield f"rows taken: {numbers}"
        if not (taken["body"] == taken["sequence"][:, np.newaxis] * SALT).all():
            yield "a row in pieces"
        if not self._scenario.abandons and not total == len(taken) == self._settled:
            yield f"of {total} rows {len(taken)} taken and {self._settled} settled"
        settled = taken[: self._settled]
        if self._writer.newest != dict(
            zip(settled["session_id"].tolist(), settled["sequence"].tolist(), strict=True)
        ):
            yield f"the store holds {self._writer.newest}"
        if self._end != ["abandoned" if self._scenario.abandons else "synced"]:
            yield f"the thread's end: {self._end}"
        for thread, what in self._turns.steps:
            _, _, cursor = what.partition(": store ")
            if cursor in ("read", "write") and (cursor == "read") != (thread == CONSUMER):
                yield f"{what} by the {THREADS[thread]}"


class HandOverTests(SynchronousTestCase):
    """The package's own ring and persister: a scenario a test."""

    SCENARIOS = 7

    def explore(self, scenario: Scenario) -> None:
        """Fail with the first schedule that does not go well."""
        share = -(-SAMPLED // self.SCENARIOS)
        with scenario.troupe() as troupe:
            explore(self, troupe, THREADS, BOUND, share)

    def test_a_row_at_a_time(self) -> None:
        """Rows that meet an empty ring, one that is not, or the end."""
        self.explore(Scenario(capacity=2, sweeps=(1, 1)))

    def test_round_the_end(self) -> None:
        """A sweep in two pieces, of which some rows may have to wait for room."""
        self.explore(Scenario(capacity=4, sweeps=(3, 3)))

    def test_full(self) -> None:
        """A sweep larger than the ring: what does not fit goes in at the next commit, and first."""
        self.explore(Scenario(capacity=2, sweeps=(1, 3)))

    def test_three_sweeps(self) -> None:
        """Sweeps of different sizes."""
        self.explore(Scenario(capacity=4, sweeps=(2, 3, 1)))

    def test_busy(self) -> None:
        """The rows in hand wait for the store while others come."""
        self.explore(Scenario(capacity=2, sweeps=(1, 1), busy=1))

    def test_abandoned(self) -> None:
        """Wherever the thread is, it ends, and what it did not save it does not call saved."""
        self.explore(Scenario(capacity=2, sweeps=(1, 1), abandons=True))

    def test_abandoned_while_busy(self) -> None:
        """It need not wait till it would try again."""
        self.explore(Scenario(capacity=2, sweeps=(1, 1), busy=1, abandons=True))


class PublishesFirst(TakingRing):
    """Raises `write` before the rows are written."""

    __slots__ = ()

    def push(self, rows: Rows, indices: Indices) -> int:
        """See `Ring.push`."""
        write = self.write
        count = min(len(indices), self.capacity - (write - self.read))
        places = np.arange(write, write + count) % self.capacity
        self.write = write + count
        self._places[places] = rows[indices[:count]].view(self._places.dtype)
        return count


class ReleasesFirst(TakingRing):
    """Raises `read` before the rows are copied."""

    __slots__ = ()

    def take(self) -> Rows:
        """See `Ring.take`."""
        read = self.read
        count = self.write - read
        places = np.arange(read, read + count) % self.capacity
        self.read = read + count
        taken = np.take(self._places, places).view(self.dtype)
        self.taken.append(taken)
        return taken


class ClearsAfterTheLook(Persister):
    """Clears the event when it has looked into the ring."""

    def _live(self) -> None:
        while True:
            finishing = self._finishing
            if self.step() is None:
                if finishing:
                    break
                self._wake.clear()
                self._wake.wait(MAX_SLEEP)


class AsksAfterTheLook(Persister):
    """Asks whether to finish when it has looked into the ring."""

    def _live(self) -> None:
        while True:
            self._wake.clear()
            if self.step() is None:
                if self._finishing:
                    break
                self._wake.wait(MAX_SLEEP)


class AsksBeforeItClears(Persister):
    """Asks whether to finish, and then clears the event."""

    def _live(self) -> None:
        while True:
            finishing = self._finishing
            self._wake.clear()
            if self.step() is None:
                if finishing:
                    break
                self._wake.wait(MAX_SLEEP)


class WakesFirst(Persister):
    """Wakes the thread before it says why."""

    def finish(self) -> None:
        """See `Persister.finish`."""
        self._wake.set()
        self._finishing = True


class FaultTests(SynchronousTestCase):
    """Each rule of the two, broken."""

    def found(self, scenario: Scenario, preemptions: int, fault: str) -> None:
        """Expect a fault, found with so many preemptions and no fewer, and again in a replay."""
        with scenario.troupe() as troupe:
            count, faulty = first_fault(systematic(troupe, BOUND))
        assert faulty is not None, "not found"
        _log.info("{test}: found by schedule {count}", test=self.id(), count=count)
        self.assertEqual(len(faulty.schedule.preemptions), preemptions)
        self.assertIn(fault, faulty.scenario(THREADS).splitlines()[0])
        with scenario.troupe() as troupe:
            again = troupe.replay(Schedule.parse(str(faulty.schedule)))
        self.assertEqual(again.scenario(THREADS), faulty.scenario(THREADS))

    def test_publishes_before_the_rows_are_written(self) -> None:
        """The consumer takes what lay in the place before."""
        self.found(Scenario(2, (1, 1), ring=PublishesFirst), 1, "rows taken: [0, ")

    def test_releases_before_the_rows_are_copied(self) -> None:
        """The producer writes over rows that are not copied yet."""
        self.found(Scenario(2, (2, 2), ring=ReleasesFirst), 2, "rows taken: [3, ")

    def test_clears_after_the_look(self) -> None:
        """A wake-up between the two is lost."""
        fault = "nobody is left to wake who waits for _wake"
        self.found(Scenario(2, (1, 1), persister=ClearsAfterTheLook), 1, fault)

    def test_asks_after_the_look(self) -> None:
        """Rows pushed between the two are left in the ring."""
        self.found(Scenario(2, (1, 1), persister=AsksAfterTheLook), 1, "of 2 rows 0 taken")

    def test_asks_before_it_clears(self) -> None:
        """The wake-up to finish, between the two, is lost."""
        fault = "nobody is left to wake who waits for _wake"
        self.found(Scenario(2, (1, 1), persister=AsksBeforeItClears), 2, fault)

    def test_wakes_first(self) -> None:
        """The thread looks before there is anything to see, and sleeps again."""
        fault = "nobody is left to wake who waits for _wake"
        self.found(Scenario(2, (1, 1), persister=WakesFirst), 1, fault)


class Steps:
    """Threads of so many steps, which share nothing."""

    def __init__(self, turns: Turns, *counts: int) -> None:
        self.parts = tuple(partial(self._go, turns, count) for count in counts)

    def _go(self, turns: Turns, count: int) -> None:
        for step in range(count):
            turns.call(f"step {step}")

    def faults(self) -> list[str]:
        """There are none."""
        return []


class Meeting(Steps):
    """Each waits for the other, and dies where it is told to."""

    def __init__(self, turns: Turns, error: Exception | None = None) -> None:
        self._events = [WatchedEvent(turns, name) for name in "ab"]
        self._error = error
        self.parts = partial(self._meet, 0, 1), partial(self._meet, 1, 0)

    def _meet(self, mine: int, other: int) -> None:
        if self._error is not None:
            raise self._error
        self._events[mine].set()
        self._events[other].wait()
        self._events[other].clear()


def order_of(run: Run) -> tuple[int, ...]:
    """Who made each step."""
    return tuple(thread for thread, _ in run.steps)


def every_run(troupe: Troupe) -> Iterator[Run]:
    """Run all schedules there are, by going through each choice both ways."""
    for first in range(troupe.size):
        decisions: list[int] | None = []
        while decisions is not None:
            rest = iter(decisions)
            run = troupe.run(first, lambda _, others, rest=rest: (None, *others)[next(rest, 0)])
            yield run
            to = dict(run.schedule.preemptions)
            options = [(None, *others) for _, others in run.choices]
            decisions = [
                which.index(to.get(step))
                for (step, _), which in zip(run.choices, options, strict=True)
            ]
            while decisions and decisions[-1] == len(options[len(decisions) - 1]) - 1:
                decisions.pop()
            decisions = [*decisions[:-1], decisions[-1] + 1] if decisions else None


class SchedulerTests(SynchronousTestCase):
    """The means of all this."""

    def orders(self, bound: int, *counts: int) -> list[tuple[int, ...]]:
        """Who made each step, in each run of threads of so many steps."""
        with Troupe({}, lambda turns: Steps(turns, *counts), len(counts)) as troupe:
            return [order_of(run) for run in systematic(troupe, bound)]

    def test_every_order(self) -> None:
        """With as many preemptions as there can be, each order of the steps comes once."""
        orders = self.orders(8, 4, 3)
        self.assertEqual(len(orders), math.comb(7, 3))
        self.assertEqual(len(set(orders)), math.comb(7, 3))

    def test_every_order_of_three(self) -> None:
        """Of three threads too."""
        orders = self.orders(5, 2, 2, 2)
        self.assertEqual(len(orders), math.factorial(6) // 2**3)
        self.assertEqual(len(set(orders)), len(orders))

    def test_every_order_within_the_bound(self) -> None:
        """With up to two, each order comes once that has up to two.

        Whoever begins is preempted never, before one of its steps but the first, or so and then the
        other likewise.
        """
        first, second = 6, 9
        orders = self.orders(2, first, second)
        expected = first + second + 2 * (first - 1) * (second - 1)
        self.assertEqual(len(orders), expected)
        self.assertEqual(len(set(orders)), expected)

    def test_every_order_of_sleepers(self) -> None:
        """Of threads that sleep, each order within the bound comes once too, and no other."""
        with Troupe({}, lambda turns: Meeting(turns)) as troupe:
            everything = list(every_run(troupe))
            runs = list(systematic(troupe, BOUND))
        within = [run for run in everything if len(run.schedule.preemptions) <= BOUND]
        self.assertLess(len(within), len(everything))
        self.assertEqual(len(set(map(order_of, runs))), len(runs))
        self.assertEqual(set(map(order_of, runs)), set(map(order_of, within)))
        self.assertEqual([run.faults for run in everything], [[]] * len(everything))

    def test_fewest_preemptions_first(self) -> None:
        """What needs few preemptions is found with few."""
        with Troupe({}, lambda turns: Steps(turns, 3, 3)) as troupe:
            counts = [len(run.schedule.preemptions) for run in systematic(troupe, 3)]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], 3)

    def test_samples_differ(self) -> None:
        """No schedule is drawn twice, nor one with too few preemptions."""
        with Troupe({}, lambda turns: Steps(turns, 5, 5)) as troupe:
            drawn = [run.schedule for run in sampled(troupe, 50, 3, seed=2)]
        self.assertEqual(len(set(drawn)), 50)
        self.assertGreaterEqual(min(len(schedule.preemptions) for schedule in drawn), 3)

    def test_too_few_to_sample(self) -> None:
        """Sampling more than there are comes to an end."""
        with Troupe({}, lambda turns: Steps(turns, 3, 3)) as troupe:
            self.assertRaises(RuntimeError, list, sampled(troupe, 50, 3, seed=2))

    def test_sleep_is_no_preemption(self) -> None:
        """Where a thread waits or ends, the other goes on."""
        with Troupe({}, lambda turns: Meeting(turns)) as troupe:
            run = troupe.replay(Schedule(0))
        self.assertEqual(
            run.steps[:4], [(0, "a.set()"), (0, "b.wait()"), (1, "b.set()"), (1, "a.wait()")]
        )
        self.assertEqual(run.steps[5:], [(0, "b wakes it"), (0, "b.clear()")])
        self.assertEqual(run.faults, [])

    def test_death(self) -> None:
        """A thread that dies is told of, and the other does not wait for it for ever."""
        error = ValueError("a bug")
        with Troupe({}, lambda turns: Meeting(turns, error=error)) as troupe:
            run = troupe.replay(Schedule(0))
        self.assertEqual(run.faults, ["a thread died: ValueError('a bug')"])

    def test_never_ends(self) -> None:
        """A run that does not end is ended."""
        with Troupe({}, lambda turns: Steps(turns, 10**9, 1)) as troupe:
            run = troupe.replay(Schedule(0))
        self.assertEqual(run.faults, ["no end after 2000 steps"])

    def test_not_a_schedule(self) -> None:
        """A preemption where there is no choice is an error, not another run."""
        with Troupe({}, lambda turns: Steps(turns, 2, 2)) as troupe:
            self.assertRaises(RuntimeError, troupe.replay, Schedule(0, ((3, 1),)))

    def test_leaves_no_thread(self) -> None:
        """Both threads have ended when the runs are over, whatever came of these."""
        before = threading.enumerate()
        with Troupe({}, lambda turns: Steps(turns, 1, 1)) as troupe:
            self.assertEqual(len(threading.enumerate()), len(before) + 2)
            troupe.replay(Schedule(1))
        self.assertEqual(threading.enumerate(), before)

    def test_what_is_watched(self) -> None:
        """Every access of the ring to what it shares is a step.

        Where this fails, `accesses` may no longer find all there is.
        """
        ring = Ring(4, ROW)
        rows = np.zeros(3, ROW)
        noted: list[str] = []

        def body() -> None:
            for _ in range(2):
                noted.clear()
                ring.push(rows, np.arange(3))
                ring.take()

        trace = sys.gettrace()
        with watching(accesses(Ring, {"read", "write"}, copies=True)) as listen:
            listen(noted.append, body)
        self.assertIs(sys.gettrace(), trace)
        push = ["load write", "load read", "copy", "copy", "store write"]
        take = ["load read", "load write", "copy", "store read"]
        expected = [f"Ring.push: {what}" for what in push] + [f"Ring.take: {what}" for what in take]
        self.assertEqual(noted, expected)
        ring.take()
        self.assertEqual(noted, expected)

    def test_watched_in_vain(self) -> None:
        """A name that a class does not use, such as one from before a rename, is an error."""
        error = self.assertRaises(ValueError, accesses, Ring, {"read", "tail", "head"})
        self.assertEqual(str(error), "Ring uses no attribute head, tail")
