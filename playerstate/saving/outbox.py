"""The outbox: hands changed rows to the lanes, and settles them once they are committed.

`Outbox` decides when to sweep, over one lane or several; a lane has the ring, the persist thread,
and the rows in flight.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.ledger import Ledger
from playerstate.live.sweeping import Sweep
from playerstate.live.table import LiveTable
from playerstate.log import PrintableLogger
from playerstate.runtime import Runtime
from playerstate.saving.commit import (
    NAMED_AT_MOST,
    Commit,
    Dropped,
    NotSaved,
    by_reason,
    named,
)
from playerstate.saving.flushes import Flushes
from playerstate.saving.health import StoreHealth, StoreLines, Trouble
from playerstate.saving.heartbeat import Heartbeat
from playerstate.saving.lane import JOIN_WITHIN, Lane
from playerstate.saving.pace import Pace
from playerstate.saving.partition import Partition
from playerstate.saving.ring import Rows
from playerstate.saving.switch import Switch
from playerstate.sparing import SparingLogger
from playerstate.state.layout import RowLayout

SAVE_TOGETHER = 0.05
"""Seconds for which `Outbox.save_soon` collects players, so that they share a commit."""
ROWS_A_TURN = 16_384
"""Most rows handed over in one turn of the reactor, which takes a fraction of a millisecond."""
OVERFLOW_LOGGED_EVERY = 10.0
"""Seconds between two log lines about a full queue."""
DROPPED_LINES = NAMED_AT_MOST + 1
"""Log lines a minute about rows that are never saved, each a reason and its players: all of the
first commit's."""
THREAD_NAME = "playerstate-persist"
"""The name of the persist thread; with several lanes, a lane number from 1 up follows it."""

T = TypeVar("T")

_log = PrintableLogger()


class Outbox:
    """Sweeps the table into lanes, and follows the rows until they are committed.

    Args:
        table: the live table, without players; it is divided among the lanes.
        layout: of the table's rows.
        store: opens the writers, on the persist threads, and gives the number of lanes.
        ledger: counts sweeps, commits and errors.
        clock: the service's timers.
        runtime: starts the threads.
        queue_size: the capacity of each ring.
        save_within: seconds within which an applied update is to be committed.
        settled: called after each commit, once it is noted in the table.
        recovered: rows that a previous process left, to be saved first, sorted by session id; empty
            for none.
        when_recovered: called once all of `recovered` is settled.
        replaced: called when a lane finds the store replaced, and again with each commit that the
            replaced store still took: what it holds is not saved.
        reopen: called once the store was replaced and every writer is closed; has `switch` go over,
            and calls `resume` once the store can be written.
        guard: called before rows are taken from the table, and before a commit is noted there.

    Attributes:
        switch: takes the lanes to the store that replaced the opened one.
        ended: fires when all persist threads have ended, with whether all they saved is on disk.
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
        recovered: Rows,
        when_recovered: Callable[[], None],
        replaced: Callable[[], None],
        reopen: Callable[[], None],
        guard: Callable[[], object],
    ) -> None:
        self._table = table
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._settled = settled
        self._when_recovered = when_recovered
        self._replaced = replaced
        self._guard = guard
        self._pace = Pace(save_within)
        self._sweeping: IDelayedCall | None = None
        self._overflow_lines = SparingLogger(_log, clock.seconds, OVERFLOW_LOGGED_EVERY)
        self._dropped_lines = SparingLogger(_log, clock.seconds, lines=DROPPED_LINES)
        self._soon: dict[int, None] = {}
        self._soon_call: IDelayedCall | None = None
        self._flushes = Flushes()
        self._abandoned = False
        self.ended: Deferred[bool] = Deferred()
        self._partition = partition = Partition(store.lanes)
        if store.lanes > 1:
            table.divide(store.lanes, partition.lane_of)
        heart, lines = Heartbeat(store, clock, runtime), StoreLines(clock)
        self._lanes = [
            Lane(
                self,
                number,
                THREAD_NAME if store.lanes == 1 else f"{THREAD_NAME}-{number + 1}",
                layout,
                store,
                ledger,
                clock,
                runtime,
                heart,
                StoreHealth(store, clock, save_within, lines),
                queue_size,
                partition.of_lane(number, recovered),
            )
            for number in range(store.lanes)
        ]
        self.switch = Switch(self._lanes, replaced, reopen)

    def start(self) -> None:
        """Start the persist threads and the sweeps.

        Raises:
            Exception: a thread cannot be started; those started before it were ended.
        """
        self._swept_at = self._clock.seconds()
        for lane in self._lanes:
            try:
                lane.start()
            except BaseException:
                self._end_started(lane)
                raise
        self._sweep_call = self._clock.callLater(self._pace.interval(False), self.sweep)

    def _end_started(self, failed: Lane) -> None:
        """End the threads of the lanes before `failed`, which have had no rows yet."""
        for lane in self._lanes[: self._lanes.index(failed)]:
            lane.abandon()
            lane.join_thread(JOIN_WITHIN)

    def finish(self) -> None:
        """Have the persist threads end once they have committed all their rows."""
        for lane in self._lanes:
            lane.finish()

    def abandon(self) -> None:
        """Have the persist threads end as soon as they can."""
        self._abandoned = True
        for lane in self._lanes:
            lane.abandon()

    def end(self, why: NotSaved) -> None:
        """Fail every waiting flush with `why`: no more rows will be saved."""
        self._flushes.fail(why)

    def close(self) -> None:
        """Ignore every report of the persist threads from now on."""
        for lane in self._lanes:
            lane.close()

    def join_threads(self, timeout: float) -> None:
        """Join the persist threads, which have ended or are about to; `timeout` seconds in all."""
        for lane in self._lanes:
            lane.join_thread(timeout / len(self._lanes))

    @property
    def queue_size(self) -> int:
        """Rows that the rings can hold."""
        return sum(lane.ring.capacity for lane in self._lanes)

    @property
    def depth(self) -> int:
        """Rows in the rings."""
        return sum(lane.ring.depth for lane in self._lanes)

    @property
    def in_flight(self) -> int:
        """Rows in the rings or held by the persisters."""
        return sum(lane.in_flight for lane in self._lanes)

    @property
    def pending(self) -> int:
        """Updates applied or recovered that are neither committed nor superseded nor dropped."""
        return self._table.dirty_count() + self.in_flight

    def unrecovered(self) -> list[int]:
        """The session ids, sorted, of recovered players who are not in the store yet."""
        return sorted(player for lane in self._lanes for player in lane.unrecovered)

    def oldest_unsaved(self) -> float | None:
        """When the oldest uncommitted row became dirty, in the clock's seconds.

        That is the first uncommitted update of the player who has waited longest; None where
        everything is committed.
        """
        oldest = [self._table.oldest_dirty(), *(lane.oldest for lane in self._lanes)]
        return min((one for one in oldest if one is not None), default=None)

    def trouble(self) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`, if anything has."""
        found = [trouble for lane in self._lanes if (trouble := lane.trouble) is not None]
        if not found:
            return None
        worst = max(found, key=lambda trouble: trouble.seconds)
        if len(found) == len(self._lanes):
            return worst
        return attrs.evolve(worst, why=f"{len(found)} of {len(self._lanes)} lanes: {worst.why}")

    def sweep(self) -> None:
        """Hand every dirty row to the persist threads, and plan the next sweep."""
        self._soon.clear()
        self._sweep_some()
        self._swept_at = self._clock.seconds()
        self._plan_sweep()

    def _sweep_some(self) -> None:
        """Hand over up to `ROWS_A_TURN` rows now, and the rest in later turns of the reactor."""
        self._guard()
        room, is_more = ROWS_A_TURN, False
        for number, lane in enumerate(self._lanes):
            sweep = self._table.sweep(lane.ring, room, number)
            self._hand_over(lane, sweep)
            room -= sweep.pushed
            is_more |= sweep.left > 0 and not sweep.full
        under_way = self._sweeping is not None and self._sweeping.active()
        if is_more and not under_way:
            self._sweeping = self._clock.callLater(0.0, self._sweep_some)

    def _plan_sweep(self) -> None:
        """Schedule the next sweep, by the time of the last one and by how full the rings are."""
        crowded = any(lane.ring.depth > lane.ring.capacity // 2 for lane in self._lanes)
        delay = max(0.0, self._swept_at + self._pace.interval(crowded) - self._clock.seconds())
        if self._sweep_call.active():
            self._sweep_call.reset(delay)
        else:
            self._sweep_call = self._clock.callLater(delay, self.sweep)

    def save_soon(self, slot: int) -> None:
        """Hand this row over within `SAVE_TOGETHER` seconds, without waiting for the next sweep."""
        self._soon[slot] = None
        if self._soon_call is None:
            self._soon_call = self._clock.callLater(SAVE_TOGETHER, self._save_soon)

    def _save_soon(self) -> None:
        self._soon_call = None
        self._guard()
        by_lane: dict[int, list[int]] = {}
        for slot in self._soon:
            by_lane.setdefault(self._table.part(slot), []).append(slot)
        self._soon = {}
        for number, slots in by_lane.items():
            lane = self._lanes[number]
            self._hand_over(lane, self._table.sweep_only(lane.ring, slots))

    def saved_since(self, since: float) -> Deferred[None]:
        """Sweep, and wait as `Flushes.add` does; `end` fails the Deferred."""
        self.sweep()
        if self.oldest_unsaved() is None:
            return succeed(None)
        return self._flushes.add(since)

    def between_writes(
        self, session_id: int, call: Callable[[], T], then: Callable[[T | Exception], object]
    ) -> None:
        """Make a call between two writes of this player's lane; see `Lane.between_writes`."""
        self._lanes[self._partition.lane_of(session_id)].between_writes(call, then)

    def _hand_over(self, lane: Lane, sweep: Sweep) -> None:
        self._ledger.swept += sweep.pushed
        lane.pushed(sweep)
        if sweep.full:
            self._ledger.overflows += 1
            self._log_overflow(lane, sweep)

    def _log_overflow(self, lane: Lane, sweep: Sweep) -> None:
        self._overflow_lines.warn(
            "the queue of {size} rows is full: {pushed} rows were queued, {left} wait for the next"
            " commit; {overflows} sweeps did not fit so far; a larger queue size avoids it",
            size=lane.ring.capacity,
            pushed=sweep.pushed,
            left=sweep.left,
            overflows=self._ledger.overflows,
        )

    def resume(self) -> None:
        """Let the lanes write again, to the store that has replaced the opened one."""
        # What was saved before is to be saved again, and counts as dirtied only now.
        self._flushes.wait_since(self._clock.seconds())
        self.switch.resume()
        self._fire_flushes()

    def lane_committed(self, lane: Lane, commit: Commit) -> None:
        """See `LaneOwner`."""
        self._guard()
        self._pace.committed(commit.seconds + commit.maintenance_seconds)
        self._table.settle(commit.slots, commit.generations, commit.sequences, commit.updated_at)
        if self.switch.under_way:
            self._replaced()
        self._note_dropped(commit.dropped)
        if lane.left_over and not self._abandoned:
            lane.left_over = False
            self.sweep()
        else:
            self._plan_sweep()
        self._settled(commit)
        self._fire_flushes()

    def lane_recovered(self, commit: Commit) -> None:
        """See `LaneOwner`."""
        self._guard()
        self._pace.committed(commit.seconds + commit.maintenance_seconds)
        self._note_dropped(commit.dropped)
        if not self.in_flight:
            self._when_recovered()
        self._fire_flushes()

    def lane_replaced(self, lane: Lane) -> None:
        """See `LaneOwner`."""
        self.switch.found(lane)

    def lane_held(self) -> None:
        """See `LaneOwner`."""
        self.switch.held()

    def lane_ended(self, lane: Lane) -> None:
        """See `LaneOwner`."""
        self.switch.ended(lane)
        synced = [lane.synced for lane in self._lanes]
        if None not in synced:
            self.ended.callback(all(synced))

    def lane_pending(self, number: int) -> int:
        """See `LaneOwner`."""
        return self._table.dirty_count(number)

    def _note_dropped(self, dropped: tuple[Dropped, ...]) -> None:
        for why, session_ids in by_reason(dropped):
            self._dropped_lines.error(
                "not saved to {store}: player {players}: {why}",
                store=self._store.describe(),
                players=named(session_ids),
                why=why,
            )
        self._flushes.note_dropped(dropped)

    def _fire_flushes(self) -> None:
        if self._flushes and not self.switch.under_way:
            self._flushes.fire(self.oldest_unsaved())
