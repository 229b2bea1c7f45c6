"""A lane to the store: a ring, the persister that drains it, its thread, and the rows in flight.

A lane has the rows of its own players only.  `playerstate.saving.outbox` feeds it, and is notified
of what becomes of them.  Its methods belong to the reactor thread, except those of
`PersistListener`, which the persist thread calls, and which pass each report on by
``callFromThread``.
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
from playerstate.live.sweeping import Sweep
from playerstate.runtime import Runtime
from playerstate.saving.commit import Commit
from playerstate.saving.health import StoreHealth, Trouble
from playerstate.saving.heartbeat import Heartbeat
from playerstate.saving.persister import Persister
from playerstate.saving.ring import Ring, Rows
from playerstate.state.layout import RowLayout

START_AGAIN_EVERY = 1.0
"""Seconds between two attempts to start a persist thread, where the system cannot start one."""
MOST_FLIGHTS = 64
"""Flights that a lane tracks separately."""
JOIN_WITHIN = 1.0
"""Seconds that a persist thread that is ending has to be joined."""


T = TypeVar("T")


class LaneOwner(Protocol):
    """What a lane notifies.  Every method is called on the reactor thread."""

    def lane_committed(self, lane: Lane, commit: Commit) -> None:
        """Rows of this lane are settled."""

    def lane_recovered(self, commit: Commit) -> None:
        """Rows that a previous process left to a lane are settled."""

    def lane_replaced(self, lane: Lane) -> None:
        """A lane found that the store is not the one that was opened, and now writes nothing."""

    def lane_held(self) -> None:
        """A lane's writer is closed, as `Lane.hold` requested or because the lane has ended."""

    def lane_ended(self, lane: Lane) -> None:
        """The persist thread of a lane has ended, and will not be replaced."""

    def lane_pending(self, number: int) -> int:
        """How many dirty rows this lane has to save."""


@attrs.frozen
class _Flight:
    """The rows of one sweep: in flight until the ring is read up to `end` and that is settled."""

    end: int
    oldest: float


class Lane:
    """A ring, its persister and thread, and the rows in flight through them.

    Args:
        owner: is notified of what becomes of rows.
        number: of the lane, from 0.
        name: of the persist thread.
        layout: of the rows.
        store: opens the writer, on the persist thread.
        ledger: counts commits, errors of the store and deaths of the thread.
        clock: the service's timers.
        runtime: starts the thread.
        heart: takes the thread's beats.
        health: tracks what keeps this lane's rows from the store.
        queue_size: the ring's capacity.
        recovered: rows that a previous process left to this lane, saved before all others; empty
            for none.

    Attributes:
        ring: sweeps push into it.
        persister: drains the ring.
        left_over: whether a sweep since the last commit did not fit.
        in_flight: rows in the ring or held by the persister.
        synced: whether all that the lane saved is on disk; None until its thread has ended for
            good.
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
        # No player has a slot in the table yet: here a slot is an index into `recovered`.
        recovered["slot"] = np.arange(len(recovered))
        self._unrecovered = recovered["session_id"].copy()
        if len(recovered):
            # This flight ends with the recovery, however far the ring is read.
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
        """Track the rows that a sweep pushed into the ring, and wake the persist thread.

        Beyond `MOST_FLIGHTS` flights, the last ones are tracked as one.
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
        """When the oldest row in flight became dirty, in the clock's seconds; None without one."""
        return min((flight.oldest for flight in self._flights), default=None)

    @property
    def unrecovered(self) -> list[int]:
        """The session ids of recovered players who are not in the store yet."""
        left: list[int] = self._unrecovered[self._unrecovered != 0].tolist()
        return left

    @property
    def pending(self) -> int:
        """Rows that this lane has yet to commit: dirty or in flight."""
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
        """Close the writer, and write nothing until `resume`; the owner is notified of it."""
        if not self.is_held:
            self._holds += 1
            self.persister.hold(self._holds)

    def resume(self) -> None:
        """Let the lane write again, to the store that is there now."""
        self._holds += 1  # a report still under way of an earlier hold is void
        self._is_held = False
        self._health.end()
        self.persister.resume()

    def reopen(self, go_over: Callable[[], T], then: Callable[[T | Exception], object]) -> None:
        """See `playerstate.saving.switch.Switch.go_over`; the lane must be held."""
        self.persister.reopen(self._reporting(go_over, then))

    def between_writes(
        self, call: Callable[[], T], then: Callable[[T | Exception], object]
    ) -> None:
        """Make a call on the persist thread, between two writes.

        Args:
            call: made there.
            then: called on the reactor thread with the result, or with the error; never, if the
                lane is abandoned or closed first.
        """
        self.persister.between_writes(self._reporting(call, then))

    def _reporting(
        self, call: Callable[[], T], then: Callable[[T | Exception], object]
    ) -> Callable[[], None]:
        """A function for the persist thread, that makes a call and reports what came of it."""

        def on_thread() -> None:
            try:
                outcome: T | Exception = call()
            except Exception as error:  # passed to `then`, which handles it
                outcome = error
            self._call_from_thread(then, outcome)

        return on_thread

    def close(self) -> None:
        """Ignore every report of the persist thread from now on."""
        self._is_closed = True

    def _call_from_thread(self, note: Callable[..., object], *report: object) -> None:
        """Pass a report of the persist thread on to the reactor thread."""
        self._call_reactor(self._take, note, report)

    def _take(self, note: Callable[..., object], report: tuple[object, ...]) -> None:
        if not self._is_closed:
            note(*report)

    def finish(self) -> None:
        """Have the persist thread end once it has committed all its rows."""
        self.persister.finish()

    def abandon(self) -> None:
        """Have the persist thread end as soon as it can."""
        self._abandoned = True
        self.persister.abandon()
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
            self._note_end(False)

    def join_thread(self, timeout: float) -> None:
        """Join the persist thread, which has ended or is about to; `timeout` in seconds."""
        self._thread.join(timeout)

    def committed(self, commit: Commit) -> None:
        """See `PersistListener`.  Persist thread, as are the methods up to `thread_ended`."""
        self._call_from_thread(self._note_commit, commit)

    def recovered(self, commit: Commit) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self._note_recovered, commit)

    def failed(self, error: Exception, rows: int) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self._note_failure, error, rows)

    def replaced(self, error: Exception) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self._note_replaced, error)

    def held(self, number: int) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self._note_held, number)

    def died(self, error: BaseException) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self._note_death, error)

    def thread_ended(self, synced: bool) -> None:
        """See `PersistListener`."""
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
        """Count a commit, and remove the flights that it ends."""
        dropped = len(commit.dropped)
        outdated = sum(row.outdated for row in commit.dropped)
        self._ledger.commit(
            len(commit.slots), outdated, dropped - outdated, commit.superseded, commit.seconds
        )
        self.in_flight -= commit.settled
        while self._flights and self._flights[0].end <= commit.read:
            self._ledger.note_age(self._clock.seconds() - self._flights.popleft().oldest)
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
        """Start the next persist thread, unless the lane was abandoned."""
        self._ledger.thread_deaths += 1
        what = "the persist thread died; what it held is kept for the next"
        self._health.thread_failed(error, what)
        if self._abandoned:
            self._note_end(False)
            return
        self._health.begin(f"the persist thread died: {error}")
        self._start_again()

    def _start_again(self) -> None:
        """Start the next thread at once; it rests first, but its beats keep the timers running."""
        self._thread.join(JOIN_WITHIN)
        try:
            self._thread = self._start_thread(self.persister.run, self._name)
        except Exception as error:  # the system cannot start a thread now; the trouble goes on
            self._health.thread_failed(error, "no persist thread can be started")
            self._health.begin(f"no persist thread can be started: {error}")
            self._restart = self._clock.callLater(START_AGAIN_EVERY, self._start_again)
            return
        if not self.pending:
            # No row is pending, so no commit will come to end the trouble.
            self._health.end()

    def _note_end(self, synced: bool) -> None:
        self.synced = synced
        self._owner.lane_held()
        self._owner.lane_ended(self)
