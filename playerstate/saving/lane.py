"""One way to the store: a ring, the persister that drains it, its thread, and what is on its way.

A lane sees the rows of its own players only; `playerstate.saving.outbox` feeds it and is told what
became of them.  Its methods belong to the reactor thread, but for those of `PersistListener`, which
the persist thread calls, and which pass on what they are told by ``callFromThread``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.ledger import Ledger, count
from playerstate.live.table import Sweep
from playerstate.log import PrintableLogger
from playerstate.runtime import Runtime
from playerstate.saving.commit import Commit
from playerstate.saving.health import StoreHealth, Trouble
from playerstate.saving.persister import Persister
from playerstate.saving.ring import Ring, Rows
from playerstate.state.layout import RowLayout

MOST_FLIGHTS = 64
JOIN_WITHIN = 1.0
REACTOR_SILENT = 10.0
"""Seconds after which a reactor that takes no call from the persist thread is said not to run."""
START_AGAIN_EVERY = 1.0
"""Seconds between two tries to start a persist thread, where the system has no room for one."""

_log = PrintableLogger()


class LaneOwner(Protocol):
    """What a lane reports to.  Reactor thread."""

    def committed(self, lane: Lane, commit: Commit) -> None:
        """Rows of this lane are settled."""

    def recovered(self, lane: Lane, commit: Commit) -> None:
        """Rows are settled that a process before this one left to this lane."""

    def replaced(self, lane: Lane) -> None:
        """The lane found that the store is not the one that was opened, and stands still."""

    def held(self, lane: Lane) -> None:
        """The lane stands still, as it was told to."""


@attrs.frozen
class _Flight:
    """A sweep's rows on their way: done when the ring was read up to `end`."""

    end: int
    oldest: float


class Lane:
    """A ring, its persister and thread, and the rows on their way through them.

    Args:
        owner: is told what became of rows.
        layout: of the rows.
        store: opens the writer, on the persist thread.
        ledger: where errors of the store and deaths of the thread are counted.
        clock: the service's timers.
        runtime: where the thread comes from.
        queue_size: the ring's capacity.
        save_within: seconds within which an applied update is to be committed.
        recovered: rows that a process before this one left to this lane, saved before all others.

    Attributes:
        ring: where sweeps push.
        resume_at: the slot with which the next sweep of this lane begins.
        left_over: whether the last sweep did not fit.
        in_flight: rows that are in the ring or in the persister's hands.
        is_held: whether the writer is closed and waits for `resume`.
        ended: fires when the persist thread has ended, with whether all it saved is on disk.
    """

    def __init__(
        self,
        owner: LaneOwner,
        layout: RowLayout,
        store: IStateStore,
        ledger: Ledger,
        clock: SteadyClock,
        runtime: Runtime,
        queue_size: int,
        save_within: float,
        recovered: Rows,
    ) -> None:
        self._owner = owner
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._start_thread = runtime.start_thread
        self._call_from_thread = runtime.reactor.callFromThread
        self._monotonic = runtime.monotonic
        self.ring = Ring(queue_size, layout.dtype)
        self.resume_at = 0
        self.left_over = False
        self.in_flight = len(recovered)
        self.is_held = False
        self.ended: Deferred[bool] = Deferred()
        self._flights: deque[_Flight] = deque()
        # These have no slot in the table as yet: theirs is their place among those recovered.
        recovered["slot"] = np.arange(len(recovered))
        self._unrecovered = recovered["session_id"].copy()
        if len(recovered):
            # Ends with the recovery, whatever was read of the ring.
            self._flights.append(_Flight(1 << 63, clock.seconds()))
        self._health = StoreHealth(store, clock, save_within)
        self._restart: IDelayedCall | None = None
        self._abandoned = False
        # When the reactor was given a beat that it has not taken; written by both threads in turn.
        self._beat_at: float | None = None
        self._silence_told = False
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
        self._thread = self._start_thread(self.persister.run)

    def pushed(self, sweep: Sweep) -> None:
        """A sweep pushed rows into the ring: follow them, and wake the persist thread."""
        if sweep.oldest is None:
            return
        self.in_flight += sweep.pushed
        flight = _Flight(self.ring.write, sweep.oldest)
        if len(self._flights) == MOST_FLIGHTS:  # then as one with the last
            last = self._flights.pop()
            flight = _Flight(flight.end, min(flight.oldest, last.oldest))
        self._flights.append(flight)
        self.persister.wake()

    def oldest(self) -> float | None:
        """When the oldest row on its way was dirtied, in the clock's seconds."""
        return min((flight.oldest for flight in self._flights), default=None)

    def unrecovered(self) -> list[int]:
        """The players whom a process before this one left, and who are not in the store yet."""
        left: list[int] = self._unrecovered[self._unrecovered != 0].tolist()
        return left

    def trouble(self, pending: int) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`, if anything has."""
        return self._health.current(self.persister, pending)

    def hold(self) -> None:
        """Have the writer closed, and write nothing, until `resume`."""
        if not self.is_held:
            self.persister.hold()

    def resume(self) -> None:
        """What is there now may be written."""
        self.is_held = False
        self._health.end()
        self.persister.resume()

    def finish(self) -> None:
        """Let the persist thread end once it has committed what it was given."""
        self.persister.finish()

    def abandon(self) -> None:
        """Let the persist thread end as soon as it can."""
        self._abandoned = True
        self.persister.abandon()
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
            self.ended.callback(False)

    def join_thread(self, timeout: float) -> None:
        """Join the persist thread, which has ended or is about to."""
        self._thread.join(timeout)

    def committed(self, commit: Commit) -> None:
        """See `PersistListener`."""
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

    def held(self) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self._note_held)

    def beat(self) -> None:
        """Time has passed, whatever the reactor's own clock says."""
        now = self._monotonic()
        if self._beat_at is not None:
            # One at a time: they would pile up in a reactor that does not run.
            if now - self._beat_at >= REACTOR_SILENT and not self._silence_told:
                self._silence_told = True
                _log.critical(
                    "the reactor has not run for {seconds:.0f} s, and nothing is being saved to"
                    " {store}; where asyncio runs the program, call"
                    " twisted.internet.asyncioreactor.install(loop) before anything imports"
                    " twisted.internet.reactor",
                    seconds=now - self._beat_at,
                    store=self._store.describe(),
                )
            return
        self._beat_at = now
        self._call_from_thread(self._note_beat)

    def died(self, error: BaseException) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self._note_death, error)

    def thread_ended(self, synced: bool) -> None:
        """See `PersistListener`."""
        self._call_from_thread(self.ended.callback, synced)

    def _note_commit(self, commit: Commit) -> None:
        self._land(commit)
        self._owner.committed(self, commit)

    def _note_recovered(self, commit: Commit) -> None:
        self._land(commit)
        settled = [*commit.slots.tolist(), *(row.slot for row in commit.dropped)]
        self._unrecovered[settled] = 0
        if not self.unrecovered():
            self._flights.popleft()
        self._owner.recovered(self, commit)

    def _land(self, commit: Commit) -> None:
        """Count a commit, and let go of the flights that it ends."""
        outdated = sum(row.outdated for row in commit.dropped)
        self._ledger.commit(
            len(commit.slots),
            outdated,
            len(commit.dropped) - outdated,
            commit.superseded,
            commit.seconds,
        )
        self.in_flight -= commit.settled
        while self._flights and self._flights[0].end <= commit.read:
            self._ledger.committed_at_age(self._clock.seconds() - self._flights.popleft().oldest)
        self._health.succeeded()

    def _note_failure(self, error: Exception, rows: int) -> None:
        count(self._ledger.store_errors, type(error).__name__)
        self._health.failed(error, rows)

    def _note_replaced(self, error: Exception) -> None:
        count(self._ledger.store_errors, type(error).__name__)
        self._health.begin(str(error))
        self.is_held = True
        self._owner.replaced(self)

    def _note_held(self) -> None:
        self.is_held = True
        self._owner.held(self)

    def _note_beat(self) -> None:
        self._beat_at = None
        self._silence_told = False
        self._clock.catch_up()

    def _note_death(self, error: BaseException) -> None:
        """Start the next persist thread, unless this one was given up anyhow."""
        self._ledger.thread_deaths += 1
        what = "the persist thread died; what it held is kept for the next"
        self._health.thread_failed(error, what)
        if self._abandoned:
            self.ended.callback(False)
            return
        self._health.begin(f"the persist thread died: {error}")
        self._start_again()

    def _start_again(self) -> None:
        """Start the next thread at once, which rests first: only with one alive is time certain."""
        self._thread.join(JOIN_WITHIN)
        try:
            self._thread = self._start_thread(self.persister.run)
        except Exception as error:  # no room for a thread just now; trouble goes on
            self._health.thread_failed(error, "no persist thread can be started")
            self._health.begin(f"no persist thread can be started: {error}")
            self._restart = self._clock.callLater(START_AGAIN_EVERY, self._start_again)
            return
        if not self.in_flight:
            # Nothing waits for a commit, and so none will come to say that all is well.
            self._health.end()
