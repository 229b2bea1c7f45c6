"""One run of the service, from a start to the end of the stop that follows it.

A `Run` is complete when it is made: the table, the way to the store, the joins and the leaves.
Each start makes a new one.  Reactor thread only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred, fail

from playerstate.clock import SteadyClock
from playerstate.interfaces import Erased, IStateReader, StoreBusy, StoreUnusable
from playerstate.ledger import SUMMARY, Gauges, Ledger, Outcome
from playerstate.live.memory import RowMemory
from playerstate.live.recovery import Left
from playerstate.live.table import LiveTable
from playerstate.log import PrintableLogger
from playerstate.players.changes import Change
from playerstate.players.edits import Edits
from playerstate.players.erasures import Erasures
from playerstate.players.errors import NotOnline, NotRunning
from playerstate.players.joins import Joined, Joins
from playerstate.players.leaves import Leaves, Progress
from playerstate.players.listener import Listeners
from playerstate.players.options import Options
from playerstate.players.reopening import Reopening
from playerstate.players.salvage import Salvage
from playerstate.runtime import Runtime
from playerstate.saving.commit import Commit
from playerstate.saving.health import Trouble
from playerstate.saving.outbox import Outbox
from playerstate.sparing import SparingLogger
from playerstate.state.field import InvalidState
from playerstate.state.layout import RowLayout

FORGET_EVERY = 1.0
"""Seconds between two attempts to discard what an earlier process left, once it is saved."""
SUMMARY_EVERY = 60.0
"""Seconds between two summaries in the log."""
TROUBLE_EVERY = 1.0
"""Seconds between two checks of whether to log that the service is degraded, or no longer."""
LEFT_KEPT = 60.0
"""Seconds, from when players may join after a crash, in which a player who joins again gets the
transient fields back, and an override counts as unseen.  No datagram is in transit for longer."""
CHECK_EVERY = 1.0
"""Seconds between two checks of the live file."""

_REFUSED: Mapping[type[Exception], Outcome] = {
    InvalidState: Outcome.VALUE,
    NotOnline: Outcome.NOT_ONLINE,
    NotRunning: Outcome.STOPPING,
}
"""What becomes of an update that a call refuses, by the error it raises."""

_log = PrintableLogger()


@attrs.frozen(eq=False)
class Opened:
    """What a start opened, and a stop closes.

    Attributes:
        identity: the store's identity.
        reader: the store's reader.
        memory: where the live table lies.
        buffer: the table's part of that memory.
        recovered: rows that an earlier process left, and that the store does not have.
        left: of the players who were online when that process died.
    """

    identity: bytes
    reader: IStateReader
    memory: RowMemory
    buffer: memoryview
    recovered: npt.NDArray[np.void]
    left: Left


class Run:
    """Everything of one run.

    Args:
        options: the service's options.
        opened: what the start opened.
        ledger: the service's counters, over all of its runs.
        clock: timers that no step of the wall clock disturbs; this run's alone.
        runtime: the reactor, the clocks and the thread starter.
        when_recovered: called once the rows that an earlier process left are saved, if there are
            any.
        listeners: notified of players who leave or are changed.

    Attributes:
        wall_clock: returns nanoseconds since the Unix epoch.
        table: the live table.
        outbox: the way to the store.
        joins, leaves, edits: players who come, go, and are edited.
        erasures: players who are erased.
        reopening: the store's reader, and switching over to a store that replaced it.
        salvage: watches the live file, and recreates it.
        accepts: whether joins and updates are accepted; False once a stop begins.
        recovering: whether rows that an earlier process left are still being saved.
        gave_up: whether the stop gave up on saving, or lost players.
    """

    def __init__(
        self,
        options: Options,
        opened: Opened,
        ledger: Ledger,
        clock: SteadyClock,
        runtime: Runtime,
        when_recovered: Callable[[], None],
        listeners: Listeners,
    ) -> None:
        store = options.store
        self.options = options
        self.schema = schema = store.schema
        self.ledger = ledger
        self.clock = clock
        self.memory = memory = opened.memory
        self.accepts = True
        self.gave_up = False
        self._recovered_rows = len(opened.recovered)
        self.recovering = self._recovered_rows > 0
        self.wall_clock = runtime.wall_clock
        self._when_recovered = when_recovered
        self._listeners = listeners
        self._degraded = False
        self._lines = SparingLogger(_log, clock.seconds)
        self._summarised = ledger.snapshot()
        self.table = LiveTable(
            *(schema, options.max_players, clock.seconds, opened.buffer, memory.reserve),
            # The version tells our rows from those that another process wrote.
            first_version=int.from_bytes(os.urandom(7), "little"),
        )
        self.outbox = Outbox(
            self.table,
            RowLayout(schema.fields),
            store,
            ledger,
            clock,
            runtime,
            options.queue_size,
            options.save_within,
            self._settled,
            opened.recovered,
            self._note_recovered,
            lambda: self.reopening.disbelieve(),
            lambda: self.reopening.begin(),
            lambda: self.salvage.guard(),
        )
        self.leaves = Leaves(self.table, ledger, self.outbox.save_soon)
        self.reopening = Reopening(
            store,
            opened.identity,
            opened.reader,
            self.table,
            self.outbox,
            clock,
            self._guard_and_dirty_all,
        )
        self.salvage = Salvage(
            schema,
            self.table,
            memory,
            clock,
            self.reopening.load,
            lambda: self.outbox.in_flight,
            ledger,
            lambda: self.leaves.settled(()),
        )
        self.joins = Joins(
            schema,
            self.table,
            self.leaves,
            ledger,
            self.reopening.load,
            self.guard,
            options.max_players,
            opened.left,
        )
        self.edits = Edits(self.table, self.joins, self.leaves, ledger, self._apply)
        self.erasures = Erasures(
            store,
            self.table,
            self.joins,
            self.leaves,
            self.outbox,
            self._apply,
            listeners.on_leave,
        )

    def begin(self) -> None:
        """Start the persist thread and the timers.

        Raises:
            RuntimeError: no thread can be started; nothing was started.
        """
        self.outbox.start()
        self.ledger.recovered += self._recovered_rows
        self.clock.every(SUMMARY_EVERY, self._summarise)
        self.clock.every(TROUBLE_EVERY, self._log_trouble)
        self.clock.every(CHECK_EVERY, self.salvage.check)
        if not self.recovering:
            self._forget_left_later()
        _log.info(
            "saving to {store} within {seconds} s, for up to {players} players",
            store=self.options.store.describe(),
            seconds=self.options.save_within,
            players=self.options.max_players,
        )

    def _forget_left_later(self) -> None:
        """Players may join from now on: those who come back later begin anew."""
        self.clock.callLater(LEFT_KEPT, self.joins.forget_left)

    def _note_recovered(self) -> None:
        try:
            self.memory.discard()
        except StoreUnusable as error:
            # The next start would take the leftover for the newest rows, over what came after it.
            self._lines.critical("no player can join: {error}", error=error)
            self.clock.callLater(FORGET_EVERY, self._note_recovered)
            return
        self.recovering = False
        self._forget_left_later()
        _log.info("what the last run left is saved: players may join")
        if self.accepts:
            self._when_recovered()

    def refuse(self) -> None:
        """A stop begins: accept no join, no update and no edit from now on."""
        self.accepts = False
        self.reopening.stopping = True
        self.joins.refuse_all(NotRunning("the service is stopping"))

    def end(self) -> None:
        """The stop is over: count the updates it abandoned, and ignore late commit reports."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        _log.info("stopped: " + SUMMARY, **self.ledger.snapshot().since(self._summarised))
        self.erasures.end()
        self.ledger.abandoned += self.outbox.pending
        self.outbox.close()

    def _summarise(self) -> None:
        now = self.ledger.snapshot()
        _log.info(SUMMARY, **now.since(self._summarised))
        self._summarised = now

    def join(self, session_id: int, sequence: int | None) -> Deferred[Joined]:
        """See `playerstate.players.service.PlayerStateService.join`."""
        if self.accepts and self.recovering:
            return fail(_recovering())
        return self.joins.join(session_id, sequence)

    def guard(self) -> None:
        """Make sure that the rows of the live table may be touched, as a transport's turn begins.

        A process that touches rows whose file was truncated meanwhile dies.  Takes a quarter of a
        microsecond, half of one with its calls.  Every other call of the service does this by
        itself; a caller that writes to `table` directly must do it first.
        """
        if self.memory.is_cut():
            self.salvage.guard()
            # Not now: it calls callbacks, which must not run within the caller's call.
            self.clock.callLater(0.0, self.salvage.check)

    def update(self, session_id: int, state: Any) -> None:
        """See `playerstate.players.service.PlayerStateService.update`."""
        try:
            values = self.schema.values(state)
            slot = self._online(session_id)
        except (InvalidState, NotOnline, NotRunning) as error:
            self.ledger.take_in(_REFUSED[type(error)])
            raise
        self.guard()
        self._apply(slot, values, bool(self.schema.moved.fields))

    def change(self, session_id: int, fields: Mapping[str, Any]) -> None:
        """See `playerstate.players.service.PlayerStateService.change`."""
        try:
            change = Change.of(self.schema, fields)
            slot = self._online(session_id)
        except (InvalidState, NotOnline, NotRunning) as error:
            self.ledger.take_in(_REFUSED[type(error)])
            raise
        if change:
            self.guard()
            self._apply(slot, change.of_values(self.table.values(slot)), change.is_override)

    def edit(self, session_id: int, fields: Mapping[str, Any], create: bool) -> Deferred[None]:
        """See `playerstate.players.service.PlayerStateService.edit`."""
        # It has no canceller, so cancelling it ends the waiting alone.
        edited: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._edit(session_id, fields, create)).addBoth(edited.callback)
        return edited

    async def _edit(self, session_id: int, fields: Mapping[str, Any], create: bool) -> None:
        try:
            change = Change.of(self.schema, fields)
        except InvalidState:
            self.ledger.take_in(Outcome.VALUE)
            raise
        if self.accepts and self.recovering:
            raise _recovering()
        await self.edits.edit(session_id, change, create)

    def erase(self, session_id: int) -> Deferred[Erased]:
        """See `playerstate.players.service.PlayerStateService.erase`."""
        # It has no canceller, so cancelling it ends the waiting alone.
        erased: Deferred[Erased] = Deferred()
        Deferred.fromCoroutine(self._erase(session_id)).addBoth(erased.callback)
        return erased

    async def _erase(self, session_id: int) -> Erased:
        if not self.accepts:
            raise NotRunning("the service is stopping")
        if self.recovering:
            raise _recovering()
        self.guard()
        return await self.erasures.erase(session_id, self.schema.spawn)

    def _apply(self, slot: int, values: tuple[Any, ...], is_override: bool) -> None:
        """Apply accepted values that the program gives; the caller has called `guard`."""
        table = self.table
        # The date is odd from an override until the next move; see `LiveTable.is_overridden`.
        now = self.wall_clock() // 1000 | 1
        if is_override:
            table.last_non_base[slot] = table.sequence(slot)
            table.unseen[slot] = 1
        elif not table.is_overridden(slot):
            now -= 1
        was_clean = table.apply(slot, None, values, now)
        self.ledger.take_in(Outcome.APPLIED)
        if not was_clean:
            self.ledger.superseded += 1
        if not self.leaves.never_joined(slot):
            self._listeners.on_change(table.session_id(slot), is_override)

    def put_back(self, slot: int) -> None:
        """Apply the present row of an online player again, as an override.

        It counts as an update.  The player's client is told to go on from there, and until its SEEN
        its moves are rejected.
        """
        self.guard()
        self._apply(slot, self.table.values(slot), True)

    def state(self, session_id: int) -> Any:
        """See `playerstate.players.service.PlayerStateService.state`."""
        slot = self._online(session_id)
        self.guard()
        return self.schema.state(self.table.values(slot))

    def progress(self, session_id: int) -> Progress:
        """See `playerstate.players.service.PlayerStateService.progress`."""
        slot = self.table.slots.get(session_id)
        if slot is None or self.leaves.never_joined(slot):
            raise NotOnline(session_id)
        self.guard()
        return Progress.of(self.table, slot)

    def leave(self, session_id: int) -> Deferred[Progress]:
        """See `playerstate.players.service.PlayerStateService.leave`."""
        if self.gave_up:
            return fail(_given_up())
        slot = self.table.slots.get(session_id)
        if slot is None or self.leaves.never_joined(slot):
            return fail(NotOnline(session_id))
        self.guard()
        self._listeners.on_leave(session_id)
        return self.leaves.begin(slot)

    def flush(self) -> Deferred[None]:
        """See `playerstate.players.service.PlayerStateService.flush`."""
        if self.gave_up:
            return fail(_given_up())
        return self.outbox.saved_since(self.clock.seconds())

    def _online(self, session_id: int) -> int:
        if not self.accepts:
            raise NotRunning("the service is stopping")
        slot = self.table.slots.get(session_id)
        if slot is None or self.leaves.has_left(slot):
            raise NotOnline(session_id)
        return slot

    @property
    def trouble(self) -> Trouble | None:
        """See `playerstate.players.service.PlayerStateService.trouble`."""
        return self.outbox.trouble() or self.salvage.trouble

    def _log_trouble(self) -> None:
        trouble = self.outbox.trouble()
        if (trouble is not None) == self._degraded:
            return
        self._degraded = trouble is not None
        if trouble is None:
            _log.info("no longer degraded: the store takes rows")
        else:
            _log.critical(
                "degraded: nothing has been saved for {seconds:.1f} s: {why}; {pending} updates"
                " wait",
                seconds=trouble.seconds,
                why=trouble.why,
                pending=self.outbox.pending,
            )

    def _guard_and_dirty_all(self) -> None:
        """The store is lost: mark everything dirty, to be saved into its replacement."""
        self.guard()
        self.ledger.recovered += self.table.dirty_all(self.leaves.take_given_up())

    def gauges(self) -> Gauges:
        """The current gauges."""
        oldest = self.outbox.oldest_unsaved()
        leaving = self.leaves.leaving()
        trouble = self.trouble
        return Gauges(
            degraded="" if trouble is None else trouble.why,
            degraded_seconds=0.0 if trouble is None else trouble.seconds,
            players_online=len(self.table) - leaving,
            players_leaving=leaving,
            pending=self.outbox.pending,
            queue_depth=self.outbox.depth,
            queue_size=self.outbox.queue_size,
            oldest_unsaved_seconds=0.0 if oldest is None else self.clock.seconds() - oldest,
        )

    def _settled(self, commit: Commit) -> None:
        """A commit is noted in the table: release the players who have left and are saved."""
        self.leaves.settled(commit.dropped)


def _recovering() -> StoreBusy:
    """The error of who would join or be edited before the recovery has ended."""
    return StoreBusy("what the last run left is not saved yet")


def _given_up() -> NotRunning:
    """The error once saving was given up; not `NotSaved`, on which a caller may retry."""
    return NotRunning("the service is stopping, and has given up saving")
