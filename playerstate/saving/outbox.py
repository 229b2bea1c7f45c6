"""The way of a changed row to the persist thread, and the word that it was committed.

`Outbox` decides when to sweep, keeps account of what is on its way, and owns the persist thread.
Everything here runs on the reactor thread; the persist thread is spoken to through the ring and
`Persister`'s few methods, and what it reports arrives by ``callFromThread``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.ledger import Ledger, count
from playerstate.live.table import LiveTable, Sweep
from playerstate.log import PrintableLogger
from playerstate.runtime import Runtime
from playerstate.saving.commit import Commit, Dropped, NotSaved, by_reason, named, not_saved
from playerstate.saving.health import StoreHealth, Trouble
from playerstate.saving.pace import Pace
from playerstate.saving.persister import Persister
from playerstate.saving.ring import Ring
from playerstate.state.layout import RowLayout
from playerstate.waiters import Waiters, tell

SAVE_TOGETHER = 0.05
"""Seconds within which players who are to be saved at once share a commit."""
ROWS_A_TURN = 16_384
"""Rows that one turn of the reactor hands over at most, which takes a fraction of a millisecond."""
OVERFLOW_TOLD_EVERY = 10.0
REACTOR_SILENT = 10.0
"""Seconds after which a reactor that takes no call from the persist thread is said not to run."""
START_AGAIN_EVERY = 1.0
"""Seconds between two tries to start a persist thread, where the system has no room for one."""
MOST_FLIGHTS = 64
JOIN_WITHIN = 1.0
_log = PrintableLogger()


class Outbox:
    """Sweeps the table into the ring, and follows the rows until they are committed.

    Args:
        table: the live table.
        layout: its rows' layout.
        store: opens the writer, on the persist thread.
        ledger: where sweeps, commits and errors are counted.
        clock: the service's timers.
        runtime: where the thread comes from.
        queue_size: the ring's capacity.
        save_within: seconds within which an applied update is to be committed.
        settled: called after each commit, when the table knows of it.
        recovered: rows that a process before this one left, to be saved first; empty for none.
        when_recovered: called when they are in the store.
        reopen: called when the store was replaced; is to call `resume` once it can be written.
        guard: called before rows are taken from the table, or noted there.

    Attributes:
        ended: fires when the persist thread has ended, with whether all it saved is on disk.
    """

    def __init__(
        self,
        table: LiveTable,
        layout: RowLayout,
        store: IStateStore,
        ledger: Ledger,
        clock: SteadyClock,
        runtime: Runtime,
        queue_size: int,
        save_within: float,
        settled: Callable[[Commit], None],
        recovered: npt.NDArray[np.void],
        when_recovered: Callable[[], None],
        reopen: Callable[[], None],
        guard: Callable[[], object],
    ) -> None:
        self._table = table
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._start_thread = runtime.start_thread
        self._settled = settled
        self._when_recovered = when_recovered
        self._ring = Ring(queue_size, layout.dtype)
        self._pace = Pace(save_within)
        self._flights: deque[_Flight] = deque()
        self._in_flight = len(recovered)
        # Nobody has a slot in the table as yet: theirs is their place among those recovered.
        recovered["slot"] = np.arange(len(recovered))
        self._recovering = recovered["session_id"].copy()
        if len(recovered):
            # Ends with the recovery, whatever was read of the ring.
            self._flights.append(_Flight(1 << 63, clock.seconds()))
        self._left_over = False
        self._sweeping: IDelayedCall | None = None
        self._overflow_told_at = -math.inf
        self._soon: dict[int, None] = {}
        self._soon_call: IDelayedCall | None = None
        self._flushes: Waiters[None, _Flush] = Waiters()
        self._health = StoreHealth(store, clock, save_within)
        self._restart: IDelayedCall | None = None
        self._abandoned = False
        self._reopen = reopen
        self._guard = guard
        self._call_from_thread = runtime.reactor.callFromThread
        self._persister = Persister(
            self._ring,
            layout.record,
            store.open_writer,
            self,
            runtime.monotonic,
            runtime.jitter,
            recovered if len(recovered) else None,
        )
        self._monotonic = runtime.monotonic
        # When the reactor was given a beat that it has not taken; written by both threads in turn.
        self._beat_at: float | None = None
        self._silence_told = False
        self.ended: Deferred[bool] = Deferred()

    def start(self) -> None:
        """Start the persist thread and the sweeps."""
        self._swept_at = self._clock.seconds()
        self._thread = self._start_thread(self._persister.run)
        self._sweep_call = self._clock.callLater(self._pace.interval(False), self.sweep)

    def finish(self) -> None:
        """Let the persist thread end once it has committed what it was given."""
        self._persister.finish()

    def abandon(self) -> None:
        """Let the persist thread end as soon as it can."""
        self._abandoned = True
        self._persister.abandon()
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
            self.ended.callback(False)

    def end(self, why: NotSaved) -> None:
        """Nothing more is saved: all who wait get `why`."""
        tell(self._flushes.take(), Failure(why))

    def join_thread(self, timeout: float) -> None:
        """Join the persist thread, which has ended or is about to."""
        self._thread.join(timeout)

    @property
    def depth(self) -> int:
        """Rows in the ring."""
        return self._ring.depth

    @property
    def in_flight(self) -> int:
        """Rows on their way to the store."""
        return self._in_flight

    @property
    def pending(self) -> int:
        """Updates applied or recovered that are neither committed nor superseded nor dropped."""
        return self._table.dirty_count() + self._in_flight

    def unrecovered(self) -> list[int]:
        """The players whom a process before this one left, and who are not in the store yet."""
        left: list[int] = self._recovering[self._recovering != 0].tolist()
        return left

    def oldest_unsaved(self) -> float | None:
        """When the first update not yet committed was applied of the player who waits longest.

        In the clock's seconds; None where everything is committed.
        """
        oldest = [flight.oldest for flight in self._flights]
        if (dirty := self._table.oldest_dirty()) is not None:
            oldest.append(dirty)
        return min(oldest, default=None)

    def sweep(self) -> None:
        """Hand every dirty row to the persist thread, and plan the next sweep."""
        self._soon.clear()
        self._sweep_some()
        self._swept_at = self._clock.seconds()
        self._plan_sweep()

    def _sweep_some(self) -> None:
        """Hand over as many rows as one turn of the reactor has time for; the rest in the next."""
        self._guard()
        sweep = self._table.sweep(self._ring, ROWS_A_TURN)
        self._hand_over(sweep)
        under_way = self._sweeping is not None and self._sweeping.active()
        if sweep.left and not sweep.full and not under_way:
            self._sweeping = self._clock.callLater(0.0, self._sweep_some)

    def _plan_sweep(self) -> None:
        """Set the time of the next sweep, from the last one and from how full the ring is now."""
        interval = self._pace.interval(self._ring.depth > self._ring.capacity // 2)
        delay = max(0.0, self._swept_at + interval - self._clock.seconds())
        if self._sweep_call.active():
            self._sweep_call.reset(delay)
        else:
            self._sweep_call = self._clock.callLater(delay, self.sweep)

    def save_soon(self, slot: int) -> None:
        """Hand this row over without waiting for the next sweep."""
        self._soon[slot] = None
        if self._soon_call is None:
            self._soon_call = self._clock.callLater(SAVE_TOGETHER, self._save_soon)

    def _save_soon(self) -> None:
        self._soon_call = None
        self._guard()
        slots, self._soon = list(self._soon), {}
        self._hand_over(self._table.sweep_only(self._ring, slots))

    def saved_since(self, since: float) -> Deferred[None]:
        """Sweep, and wait until nothing is unsaved that was dirtied up to `since`.

        Returns:
            A Deferred that fails with `NotSaved` where the store held something newer.
        """
        self.sweep()
        if self.oldest_unsaved() is None:
            return succeed(None)
        return self._flushes.add(_Flush(since))

    def _hand_over(self, sweep: Sweep) -> None:
        if sweep.oldest is not None:
            self._ledger.swept += sweep.pushed
            self._in_flight += sweep.pushed
            self._remember(_Flight(self._ring.write, sweep.oldest))
            self._persister.wake()
        if sweep.full:
            self._left_over = True
            self._ledger.overflows += 1
            self._tell_overflow(sweep)

    def _remember(self, flight: _Flight) -> None:
        """Follow one more flight; when they are many, as one with the last."""
        if len(self._flights) == MOST_FLIGHTS:
            last = self._flights.pop()
            flight = _Flight(flight.end, min(flight.oldest, last.oldest))
        self._flights.append(flight)

    def _tell_overflow(self, sweep: Sweep) -> None:
        if self._clock.seconds() - self._overflow_told_at < OVERFLOW_TOLD_EVERY:
            return
        self._overflow_told_at = self._clock.seconds()
        _log.warn(
            "the queue of {size} rows is full: {pushed} rows went in, {left} wait for the next"
            " commit; {overflows} sweeps did not fit so far; a larger queue size avoids it",
            size=self._ring.capacity,
            pushed=sweep.pushed,
            left=sweep.left,
            overflows=self._ledger.overflows,
        )

    def committed(self, commit: Commit) -> None:
        """Rows are in the store.  Persist thread, as are the methods up to `thread_ended`."""
        self._call_from_thread(self._note_commit, commit)

    def recovered(self, commit: Commit) -> None:
        """What a process before this one left is in the store."""
        self._call_from_thread(self._note_recovered, commit)

    def failed(self, error: Exception, rows: int) -> None:
        """The store failed."""
        self._call_from_thread(self._note_failure, error, rows)

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

    def _note_beat(self) -> None:
        self._beat_at = None
        self._silence_told = False
        self._clock.catch_up()

    def replaced(self, error: Exception) -> None:
        """The store is not the one that was opened."""
        self._call_from_thread(self._note_replaced, error)

    def died(self, error: BaseException) -> None:
        """The persist thread is about to end by an error."""
        self._call_from_thread(self._note_death, error)

    def thread_ended(self, synced: bool) -> None:
        """The persist thread is about to end."""
        self._call_from_thread(self.ended.callback, synced)

    def _note_recovered(self, commit: Commit) -> None:
        self._guard()
        self._count_commit(commit)
        self._tell_dropped(commit.dropped)
        settled = [*commit.slots.tolist(), *(row.slot for row in commit.dropped)]
        self._recovering[settled] = 0
        if not self._in_flight:
            self._flights.popleft()
            self._when_recovered()
        self._fire_flushes()

    def _count_commit(self, commit: Commit) -> None:
        dropped = len(commit.dropped)
        outdated = sum(row.outdated for row in commit.dropped)
        self._ledger.commit(
            len(commit.slots), outdated, dropped - outdated, commit.superseded, commit.seconds
        )
        self._in_flight -= commit.settled
        while self._flights and self._flights[0].end <= commit.read:
            age = self._clock.seconds() - self._flights.popleft().oldest
            self._ledger.age_at_commit_seconds_max = max(
                self._ledger.age_at_commit_seconds_max, age
            )
        self._pace.committed(commit.seconds + commit.maintenance_seconds)
        self._health.succeeded()

    def _note_commit(self, commit: Commit) -> None:
        self._guard()
        self._count_commit(commit)
        self._table.settle(commit.slots, commit.generations, commit.sequences, commit.updated_at)
        self._tell_dropped(commit.dropped)
        if self._left_over and not self._abandoned:
            self._left_over = False
            self.sweep()
        else:
            self._plan_sweep()
        self._settled(commit)
        self._fire_flushes()

    def _tell_dropped(self, dropped: tuple[Dropped, ...]) -> None:
        for why, session_ids in by_reason(dropped):
            _log.error(
                "not saved to {store}: player {players}: {why}",
                store=self._store.describe(),
                players=named(session_ids),
                why=why,
            )
        for _, flush in self._flushes.notes():
            flush.dropped.extend(dropped)

    def _fire_flushes(self) -> None:
        if not self._flushes:
            return
        oldest = self.oldest_unsaved()
        done = [
            (waiter, flush)
            for waiter, flush in self._flushes.notes()
            if oldest is None or oldest > flush.since
        ]
        self._flushes.take_some([waiter for waiter, _ in done])
        for waiter, flush in done:
            tell([waiter], Failure(not_saved(flush.dropped)) if flush.dropped else None)

    def _note_failure(self, error: Exception, rows: int) -> None:
        count(self._ledger.store_errors, type(error).__name__)
        self._health.failed(error, rows)

    def _note_replaced(self, error: Exception) -> None:
        count(self._ledger.store_errors, type(error).__name__)
        self._health.begin(str(error))
        self._reopen()

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
            self._thread = self._start_thread(self._persister.run)
        except Exception as error:  # no room for a thread just now; trouble goes on
            self._health.thread_failed(error, "no persist thread can be started")
            self._health.begin(f"no persist thread can be started: {error}")
            self._restart = self._clock.callLater(START_AGAIN_EVERY, self._start_again)
            return
        if not self.pending:
            # Nothing waits for a commit, and so none will come to say that all is well.
            self._health.end()

    def resume(self) -> None:
        """The store was replaced, and what is there now may be written."""
        self._health.end()
        self._persister.resume()

    def trouble(self) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`, if anything has."""
        return self._health.current(self._persister, self.pending)


@attrs.frozen
class _Flight:
    """A sweep's rows on their way: done when the ring was read up to `end`."""

    end: int
    oldest: float


@attrs.define(eq=False)
class _Flush:
    """Somebody waits until nothing dirtied up to `since` is unsaved."""

    since: float
    dropped: list[Dropped] = attrs.field(factory=list)
