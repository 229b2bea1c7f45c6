"""The way of a changed row to the store, and the report that it was committed.

`Outbox` decides when to sweep and who waits, over one lane or several; a lane has the ring, the
persist thread, and what is on its way through them.  Reactor thread only.
"""

from __future__ import annotations

import math
from typing import Protocol

import attrs
import numpy as np
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.ledger import Ledger
from playerstate.live.table import LiveTable, Sweep
from playerstate.log import PrintableLogger
from playerstate.runtime import Runtime
from playerstate.saving.commit import Commit, Dropped, NotSaved, by_reason, named, not_saved
from playerstate.saving.health import Trouble
from playerstate.saving.lane import Lane
from playerstate.saving.pace import Pace
from playerstate.saving.partition import Partition
from playerstate.saving.ring import Rows
from playerstate.state.layout import RowLayout
from playerstate.waiters import Waiters, tell

SAVE_TOGETHER = 0.05
"""Seconds within which players who are to be saved at once share a commit."""
ROWS_A_TURN = 16_384
"""Rows that one turn of the reactor hands over at most, which takes a fraction of a millisecond."""
OVERFLOW_TOLD_EVERY = 10.0

_log = PrintableLogger()


class OutboxOwner(Protocol):
    """What an outbox reports to."""

    def settled(self, dropped: tuple[Dropped, ...]) -> None:
        """A commit is noted in the table; these rows were dropped."""

    def recovered(self) -> None:
        """What a process before this one left is in the store."""

    def replaced(self) -> None:
        """The store is not the one that was opened: nothing is to be said to be saved any more."""

    def guard(self) -> object:
        """Rows are about to be taken from the table: see that they are its own."""

    def reopen(self) -> None:
        """Every writer is closed: go over to what is there now, then call `Outbox.resume`."""


@attrs.define(eq=False)
class _Flush:
    """A caller waits until nothing dirtied up to `since` is unsaved."""

    since: float
    dropped: list[Dropped] = attrs.field(factory=list)


class Outbox:
    """Sweeps the table into lanes, and follows the rows until they are committed.

    Args:
        owner: is told what became of them.
        table: the live table.
        layout: its rows' layout.
        store: opens the writers, on the persist threads.
        ledger: where sweeps, commits and errors are counted.
        clock: the service's timers.
        runtime: where the threads come from.
        recovered: rows that a process before this one left, to be saved first; empty for none.
        queue_size: rows that the ring of each lane holds.
        save_within: seconds within which an applied update is to be committed.
        lanes: how many lanes there are to be.
    """

    def __init__(
        self,
        owner: OutboxOwner,
        table: LiveTable,
        layout: RowLayout,
        store: IStateStore,
        ledger: Ledger,
        clock: SteadyClock,
        runtime: Runtime,
        recovered: Rows,
        *,
        queue_size: int,
        save_within: float,
        lanes: int,
    ) -> None:
        self._owner = owner
        self._table = table
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._partition = Partition(lanes)
        self._lanes = [
            Lane(
                self,
                layout,
                store,
                ledger,
                clock,
                runtime,
                queue_size,
                save_within,
                self._of_lane(number, recovered),
            )
            for number in range(lanes)
        ]
        self._pace = Pace(save_within)
        self._sweeping: IDelayedCall | None = None
        self._overflow_told_at = -math.inf
        self._soon: dict[int, None] = {}
        self._soon_call: IDelayedCall | None = None
        self._flushes: Waiters[None, _Flush] = Waiters()
        self._abandoned = False
        self._reopening = False

    def _of_lane(self, number: int, rows: Rows) -> Rows:
        members = self._partition.members(number)
        return rows if members is None else rows[members(rows["session_id"])]

    def start(self) -> None:
        """Start the persist threads and the sweeps."""
        self._swept_at = self._clock.seconds()
        for lane in self._lanes:
            lane.start()
        self._sweep_call = self._clock.callLater(self._pace.interval(False), self.sweep)

    @property
    def queue_size(self) -> int:
        """Rows that all rings together can hold."""
        return sum(lane.ring.capacity for lane in self._lanes)

    @property
    def depth(self) -> int:
        """Rows in the rings."""
        return sum(lane.ring.depth for lane in self._lanes)

    @property
    def in_flight(self) -> int:
        """Rows on their way to the store."""
        return sum(lane.in_flight for lane in self._lanes)

    @property
    def pending(self) -> int:
        """Updates applied or recovered that are neither committed nor superseded nor dropped."""
        return self._table.dirty_count() + self.in_flight

    def unrecovered(self) -> list[int]:
        """The players whom a process before this one left, and who are not in the store yet."""
        return [session_id for lane in self._lanes for session_id in lane.unrecovered()]

    def oldest_unsaved(self) -> float | None:
        """When the first update not yet committed was applied of the player who waits longest.

        In the clock's seconds; None where everything is committed.
        """
        oldest = [self._table.oldest_dirty(), *(lane.oldest() for lane in self._lanes)]
        return min((one for one in oldest if one is not None), default=None)

    def trouble(self) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`, if anything has."""
        pending = self.pending
        troubles = [lane.trouble(pending) for lane in self._lanes]
        return max(filter(None, troubles), key=lambda one: one.seconds, default=None)

    def sweep(self) -> None:
        """Hand every dirty row to the persist threads, and plan the next sweep."""
        self._soon.clear()
        self._sweep_some()
        self._swept_at = self._clock.seconds()
        self._plan_sweep()

    def _sweep_some(self) -> None:
        """Hand over as many rows as one turn of the reactor has time for; the rest in the next."""
        self._owner.guard()
        room, is_more = ROWS_A_TURN, False
        for number, lane in enumerate(self._lanes):
            members = self._partition.members(number)
            sweep = self._table.sweep(lane.ring, room, lane.resume_at, members)
            lane.resume_at = sweep.resume_at
            self._hand_over(lane, sweep)
            room -= sweep.pushed
            is_more = is_more or (sweep.left > 0 and not sweep.full)
        under_way = self._sweeping is not None and self._sweeping.active()
        if is_more and not under_way:
            self._sweeping = self._clock.callLater(0.0, self._sweep_some)

    def _plan_sweep(self) -> None:
        """Set the time of the next sweep, from the last one and from how full a ring is now."""
        crowded = any(lane.ring.depth > lane.ring.capacity // 2 for lane in self._lanes)
        interval = self._pace.interval(crowded)
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
        self._owner.guard()
        slots, self._soon = np.unique(np.array(list(self._soon), np.intp)), {}
        lane_of = self._partition.lane_of(self._table.session_ids(slots))
        for number, lane in enumerate(self._lanes):
            if len(mine := slots[lane_of == number]):
                self._hand_over(lane, self._table.sweep_only(lane.ring, mine))

    def saved_since(self, since: float) -> Deferred[None]:
        """Sweep, and wait until nothing is unsaved that was dirtied up to `since`.

        Returns:
            A Deferred that fails with `NotSaved` where the store held something newer.
        """
        self.sweep()
        if self.oldest_unsaved() is None:
            return succeed(None)
        return self._flushes.add(_Flush(since))

    def _hand_over(self, lane: Lane, sweep: Sweep) -> None:
        self._ledger.swept += sweep.pushed
        lane.pushed(sweep)
        if sweep.full:
            lane.left_over = True
            self._ledger.overflows += 1
            self._log_overflow(lane, sweep)

    def _log_overflow(self, lane: Lane, sweep: Sweep) -> None:
        if self._clock.seconds() - self._overflow_told_at < OVERFLOW_TOLD_EVERY:
            return
        self._overflow_told_at = self._clock.seconds()
        _log.warn(
            "the queue of {size} rows is full: {pushed} rows went in, {left} wait for the next"
            " commit; {overflows} sweeps did not fit so far; a larger queue size avoids it",
            size=lane.ring.capacity,
            pushed=sweep.pushed,
            left=sweep.left,
            overflows=self._ledger.overflows,
        )

    def committed(self, lane: Lane, commit: Commit) -> None:
        """See `LaneOwner`."""
        self._pace.committed(commit.seconds + commit.maintenance_seconds)
        self._table.settle(commit.slots, commit.generations, commit.sequences, commit.updated_at)
        self._note_dropped(commit.dropped)
        if lane.left_over and not self._abandoned:
            lane.left_over = False
            self.sweep()
        else:
            self._plan_sweep()
        self._owner.settled(commit.dropped)
        self._fire_flushes()

    def recovered(self, lane: Lane, commit: Commit) -> None:
        """See `LaneOwner`."""
        self._pace.committed(commit.seconds + commit.maintenance_seconds)
        self._note_dropped(commit.dropped)
        if not self.unrecovered():
            self._owner.recovered()
        self._fire_flushes()

    def replaced(self, lane: Lane) -> None:
        """See `LaneOwner`; the writers of the other lanes are closed too, before anything else."""
        if not self._reopening:
            self._reopening = True
            self._owner.replaced()
            for other in self._lanes:
                other.hold()
        self.held(lane)

    def held(self, lane: Lane) -> None:
        """See `LaneOwner`."""
        if self._reopening and all(each.is_held for each in self._lanes):
            self._owner.reopen()

    def resume(self) -> None:
        """The store was replaced, and what is there now may be written."""
        self._reopening = False
        for lane in self._lanes:
            lane.resume()

    def finish(self) -> None:
        """Let the persist threads end once they have committed what they were given."""
        for lane in self._lanes:
            lane.finish()

    def abandon(self) -> None:
        """Let the persist threads end as soon as they can."""
        self._abandoned = True
        for lane in self._lanes:
            lane.abandon()

    def ended(self) -> Deferred[bool]:
        """A Deferred that fires when all persist threads have ended, with whether all is on disk."""
        ended = DeferredList([lane.ended for lane in self._lanes], fireOnOneErrback=True)
        return ended.addCallback(lambda results: all(synced for _, synced in results))

    def join_threads(self, timeout: float) -> None:
        """Join the persist threads, which have ended or are about to; `timeout` seconds each."""
        for lane in self._lanes:
            lane.join_thread(timeout)

    def end(self, why: NotSaved) -> None:
        """Nothing more is saved: all who wait get `why`."""
        tell(self._flushes.take(), Failure(why))

    def _note_dropped(self, dropped: tuple[Dropped, ...]) -> None:
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
