"""One way to the store: a ring, the persister that drains it, its thread, and what is on its way.

A lane sees the rows of its own players only; `playerstate.saving.outbox` feeds it, and is told what
became of them.  Its methods belong to the reactor thread, but for those of `PersistListener`, which
the persist thread calls, and which pass on what they are told by ``callFromThread``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

import attrs
import numpy as np
from twisted.internet.interfaces import IDelayedCall

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.ledger import Ledger, count
from playerstate.live.table import Sweep
from playerstate.runtime import Runtime
from playerstate.saving.commit import Commit
from playerstate.saving.health import StoreHealth, Trouble
from playerstate.saving.heartbeat import Heartbeat
from playerstate.saving.persister import Persister
from playerstate.saving.ring import Ring, Rows
from playerstate.state.layout import RowLayout

START_AGAIN_EVERY = 1.0
"""Seconds between two tries to start a persist thread, where the system has no room for one."""
MOST_FLIGHTS = 64
JOIN_WITHIN = 1.0


T = TypeVar("T")


class LaneOwner(Protocol):
    """What a lane reports to.  Reactor thread."""

    def lane_committed(self, lane: Lane, commit: Commit) -> None:
        """Rows of this lane are settled."""

    def lane_recovered(self, commit: Commit) -> None:
        """Rows of a lane are settled that a process before this one left."""

    def lane_replaced(self, lane: Lane) -> None:
        """A lane found that the store is not the one that was opened, and stands still."""

    def lane_held(self) -> None:
        """A lane stands still, as it was told to, or has ended."""

    def lane_ended(self, lane: Lane) -> None:
        """The persist thread of a lane has ended, and no other will follow it."""

    def lane_pending(self, number: int) -> int:
        """How many rows are dirty that this lane is to save."""


@attrs.frozen
class _Flight:
    """A sweep's rows on their way: done when the ring was read up to `end`."""

    end: int
    oldest: float


class Lane:
    """A ring, its persister and thread, and the rows on their way through them.

    Args:
        owner: is told what becomes of rows.
        number: among the lanes, from 0.
        name: the persist thread's.
        layout: of the rows.
        store: opens the writer, on the persist thread.
        ledger: where errors of the store and deaths of the thread are counted.
        clock: the service's timers.
        runtime: where the thread comes from.
        heart: takes the thread's beats.
        health: what keeps this lane's rows from the store.
        queue_size: the ring's capacity.
        recovered: rows that a process before this one left to this lane, saved before all others;
            empty for none.

    Attributes:
        ring: where sweeps push.
        persister: drains it.
        left_over: whether the last sweep did not fit.
        in_flight: rows that are in the ring or in the persister's hands.
        synced: whether all it saved is on disk; None until its thread has ended for good.
    """

    def __init__(
        self,
        owner: LaneOwner,
        number: int,
        name: str,
        layout: RowLayout,
        store: IStateStore,
        ledger: Ledger,
        clock: SteadyClock,
        runtime: Runtime,
        heart: Heartbeat,
        health: StoreHealth,
        queue_size: int,
        recovered: Rows,
    ) -> None:
        self._owner = owner
        self._number = number
        self._name = name
        self._ledger = ledger
        self._clock = clock
        self._start_thread = runtime.start_thread
        self._call_reactor = runtime.reactor.callFromThread
        self._is_closed = False
        self._health = health
        self.beat = heart.beat
        self.ring = Ring(queue_size, layout.dtype)
        self.left_over = False
        self.in_flight = len(recovered)
        self.synced: bool | None = None
        self._flights: deque[_Flight] = deque()
        # Nobody has a slot in the table as yet: theirs is their place among those recovered.
        recovered["slot"] = np.arange(len(recovered))
        self._unrecovered = recovered["session_id"].copy()
        if len(recovered):
            # Ends with the recovery, whatever was read of the ring.
            self._flights.append(_Flight(1 << 63, clock.seconds()))
        self._restart: IDelayedCall | None = None
        self._abandoned = False
        self._holds = 0
        self._is_held = False
        self.persister = Persister(
            self.ring,
            layout.record,
            store.open_writer,
            self,
            runtime.monotonic,
            runtime.jitter,
            recovered if len(recovered) else None,
        )

    def start(self) -> None:
        """Start the persist thread."""
        self._thread = self._start_thread(self.persister.run, self._name)

    def pushed(self, sweep: Sweep) -> None:
        """A sweep pushed rows into the ring: follow them, and wake the persist thread.

        Of many flights the last are followed as one.
        """
        self.left_over |= sweep.full
        if sweep.oldest is None:
            return
        self.in_flight += sweep.pushed
        flight = _Flight(self.ring.write, sweep.oldest)
        if len(self._flights) == MOST_FLIGHTS:
            last = self._flights.pop()
            flight = _Flight(flight.end, min(flight.oldest, last.oldest))
        self._flights.append(flight)
        self.persister.wake()

    @property
    def oldest(self) -> float | None:
        """When the oldest row on its way was dirtied, in the clock's seconds."""
        return min((flight.oldest for flight in self._flights), default=None)

    @property
    def unrecovered(self) -> list[int]:
        """The players whom a process before this one left, and who are not in the store yet."""
        left: list[int] = self._unrecovered[self._unrecovered != 0].tolist()
        return left

    @property
    def pending(self) -> int:
        """Rows that are to be committed over this lane."""
        return self._owner.lane_pending(self._number) + self.in_flight

    @property
    def trouble(self) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`, if anything has."""
        return self._health.current(self.persister, self.pending)

    @property
    def is_held(self) -> bool:
        """Whether the writer is closed, and nothing is written until `resume`."""
        return self._is_held or self.synced is not None

    def hold(self) -> None:
        """Have the writer closed, and nothing written until `resume`; the owner is told of it."""
        if not self.is_held:
            self._holds += 1
            self.persister.hold(self._holds)

    def resume(self) -> None:
        """What is there now may be written."""
        self._holds += 1  # what is still on its way of a hold before is void
        self._is_held = False
        self._health.end()
        self.persister.resume()

    def reopen(self, go_over: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        """See `playerstate.saving.outbox.Outbox.reopen`; the lane stands still."""

        def on_thread() -> None:
            try:
                outcome: T | Exception = go_over()
            except Exception as error:  # goes to `then`, which is to judge it
                outcome = error
            self._call_from_thread(then, outcome)

        self.persister.reopen(on_thread)

    def close(self) -> None:
        """What the persist thread tells from now on comes too late, and changes nothing."""
        self._is_closed = True

    def _call_from_thread(self, note: Callable[..., object], *told: object) -> None:
        """Have the reactor thread note what the persist thread tells."""
        self._call_reactor(self._take, note, told)

    def _take(self, note: Callable[..., object], told: tuple[object, ...]) -> None:
        if not self._is_closed:
            note(*told)

    def finish(self) -> None:
        """Let the persist thread end once it has committed what it was given."""
        self.persister.finish()

    def abandon(self) -> None:
        """Let the persist thread end as soon as it can."""
        self._abandoned = True
        self.persister.abandon()
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
            self._note_end(False)

    def join_thread(self, timeout: float) -> None:
        """Join the persist thread, which has ended or is about to."""
        self._thread.join(timeout)

    def committed(self, commit: Commit) -> None:
        """Rows are in the store.  Persist thread, as are the methods up to `thread_ended`."""
        self._call_from_thread(self._note_commit, commit)

    def recovered(self, commit: Commit) -> None:
        """What a process before this one left is in the store."""
        self._call_from_thread(self._note_recovered, commit)

    def failed(self, error: Exception, rows: int) -> None:
        """The store failed."""
        self._call_from_thread(self._note_failure, error, rows)

    def replaced(self, error: Exception) -> None:
        """The store is not the one that was opened."""
        self._call_from_thread(self._note_replaced, error)

    def held(self, number: int) -> None:
        """The writer is closed, as `hold` asked for."""
        self._call_from_thread(self._note_held, number)

    def died(self, error: BaseException) -> None:
        """The persist thread is about to end by an error."""
        self._call_from_thread(self._note_death, error)

    def thread_ended(self, synced: bool) -> None:
        """The persist thread is about to end."""
        self._call_from_thread(self._note_end, synced)

    def _note_commit(self, commit: Commit) -> None:
        self._land(commit)
        self._owner.lane_committed(self, commit)

    def _note_recovered(self, commit: Commit) -> None:
        self._land(commit)
        settled = [*commit.slots.tolist(), *(row.slot for row in commit.dropped)]
        self._unrecovered[settled] = 0
        if not self.in_flight:
            self._flights.popleft()
        self._owner.lane_recovered(commit)

    def _land(self, commit: Commit) -> None:
        """Count a commit, and let go of the flights that it ends."""
        dropped = len(commit.dropped)
        outdated = sum(row.outdated for row in commit.dropped)
        self._ledger.commit(
            len(commit.slots), outdated, dropped - outdated, commit.superseded, commit.seconds
        )
        self.in_flight -= commit.settled
        while self._flights and self._flights[0].end <= commit.read:
            age = self._clock.seconds() - self._flights.popleft().oldest
            self._ledger.age_at_commit_seconds_max = max(
                self._ledger.age_at_commit_seconds_max, age
            )
        self._health.succeeded()

    def _note_failure(self, error: Exception, rows: int) -> None:
        count(self._ledger.store_errors, type(error).__name__)
        self._health.failed(error, rows)

    def _note_replaced(self, error: Exception) -> None:
        count(self._ledger.store_errors, type(error).__name__)
        self._health.begin(str(error))
        self._is_held = True
        self._owner.lane_replaced(self)

    def _note_held(self, number: int) -> None:
        if number == self._holds:
            self._is_held = True
            self._owner.lane_held()

    def _note_death(self, error: BaseException) -> None:
        """Start the next persist thread, unless this one was given up anyhow."""
        self._ledger.thread_deaths += 1
        what = "the persist thread died; what it held is kept for the next"
        self._health.thread_failed(error, what)
        if self._abandoned:
            self._note_end(False)
            return
        self._health.begin(f"the persist thread died: {error}")
        self._start_again()

    def _start_again(self) -> None:
        """Start the next thread at once, which rests first: only with one alive is time certain."""
        self._thread.join(JOIN_WITHIN)
        try:
            self._thread = self._start_thread(self.persister.run, self._name)
        except Exception as error:  # no room for a thread just now; trouble goes on
            self._health.thread_failed(error, "no persist thread can be started")
            self._health.begin(f"no persist thread can be started: {error}")
            self._restart = self._clock.callLater(START_AGAIN_EVERY, self._start_again)
            return
        if not self.pending:
            # Nothing waits for a commit, and so none will come to say that all is well.
            self._health.end()

    def _note_end(self, synced: bool) -> None:
        self.synced = synced
        self._owner.lane_held()
        self._owner.lane_ended(self)
