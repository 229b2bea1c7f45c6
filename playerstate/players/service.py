"""The service: who is online, where they stand, and the order of start and stop.

Everything here runs on the reactor thread.  `playerstate.saving.outbox` carries changed rows to the
persist thread and brings back the word that they are committed.
"""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.python.failure import Failure

from playerstate.arguments import check_seconds, check_session_id, check_whole
from playerstate.clock import SteadyClock
from playerstate.interfaces import (
    MOST_LANES,
    IStateStore,
    JournalUnusable,
    StoreBusy,
    Stored,
    StoreUnusable,
)
from playerstate.ledger import Gauges, Ledger, count
from playerstate.live.journal import Journal, ProcessMemory, Remains, check_apart, check_beside
from playerstate.live.recovery import find_unsaved
from playerstate.live.table import LiveTable, Slots
from playerstate.log import PrintableLogger
from playerstate.players.leaves import Leaves, Progress
from playerstate.players.loads import Loads
from playerstate.players.salvage import Salvage
from playerstate.runtime import Runtime
from playerstate.saving.commit import Commit, NotSaved, named
from playerstate.saving.health import Trouble
from playerstate.saving.outbox import Outbox
from playerstate.state.layout import RowLayout
from playerstate.state.schema import InvalidState
from playerstate.waiters import Waiters, tell

MAX_SEQUENCE = 2**32 - 1
SUMMARY_EVERY = 60.0
REOPEN_EVERY = 1.0
FORGET_EVERY = 1.0
CHECK_EVERY = 1.0
"""Seconds between two looks at the file in which the live table lies."""
CLOSE_WITHIN = 5.0
"""Seconds the persist thread is given to close its writer, whatever is left of the deadline."""
ABANDON_WITHIN = 1.0
"""Seconds an interrupted persist thread is given to end, once the deadline has passed."""

_STOPPED, _RUNNING, _STOPPING = "stopped", "running", "stopping"
_log = PrintableLogger()


class NotOnline(LookupError):
    """This player has not joined, or has left."""

    def __init__(self, session_id: int) -> None:
        super().__init__(f"player {session_id} is not online")
        self.session_id = session_id


class ServerFull(Exception):
    """As many players as the service was made for are in it already."""


class NotRunning(Exception):
    """The service is not started, or is stopping."""


@attrs.frozen
class Joined:
    """A player who has joined.

    Attributes:
        state: where the player stands now, an instance of the state class.
        restored: whether that was ever saved or changed; False for one who spawns.
        updated_at: when it was last changed, microseconds since the Unix epoch; 0 for never.
    """

    state: Any
    restored: bool
    updated_at: int


class PlayerStateService(Service):
    """Keeps where every online player stands, and saves it without the reactor ever waiting.

    Add it to an application, or call `startService` and `stopService` yourself.  Reactor thread
    only.

    Args:
        store: where players are kept, from `playerstate.open_store`.
        save_within: seconds within which every applied update is to be committed.
        queue_size: rows the ring to each persist thread holds; a power of two.
        max_players: the most players at a time, those included who left and are not yet saved.
        stop_within: seconds that `stopService` gives the store to take what is unsaved.
        journal: path of the file that keeps what is applied beyond the death of the process; None
            for none.
        runtime: the reactor, the clocks and the thread; the real ones by default.

    Attributes:
        ledger: the counters; `playerstate.ledger.Ledger.snapshot` is for reading them.
        clock: timers that stand a wall clock that steps, once the service is started.
        gave_up: whether the last stop ended before everything was saved, or with players lost.

    Raises:
        TypeError: an argument is no number, or `store` is no store; the message names it.
        ValueError: an argument is out of its range, or `journal` is a file of the store's; the
            message names it.
    """

    name = "playerstate"

    clock: SteadyClock
    table: LiveTable

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("clock", "table"):
                raise NotRunning(f"the service was never started, and has no {name} as yet")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __init__(
        self,
        store: IStateStore,
        *,
        save_within: float = 5.0,
        queue_size: int = 8192,
        max_players: int = 10_000,
        stop_within: float = 30.0,
        journal: str | os.PathLike[str] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        save_within = check_seconds("save_within", save_within, 0.1, 86_400.0)
        max_players = check_whole("max_players", max_players, 1, 2**24)
        queue_size = check_whole("queue_size", queue_size, 2, 2**24)
        stop_within = check_seconds("stop_within", stop_within, 0.0, 86_400.0)
        if queue_size & (queue_size - 1):
            raise ValueError(f"queue_size {queue_size} is not a power of two")
        if isinstance(store, (str, bytes, os.PathLike)):
            raise TypeError(f"{store!r} is no store: give open_store(URL, STATE_CLASS)")
        check_whole("lanes of the store", getattr(store, "lanes", None), 1, MOST_LANES)
        if journal is not None:
            journal = os.fspath(journal)
            check_apart(journal, store.path)
        self.store = store
        self.schema = store.schema
        self.save_within = save_within
        self.queue_size = queue_size
        self.max_players = max_players
        self.stop_within = stop_within
        self.ledger = Ledger()
        self._journal = journal
        self._memory = ProcessMemory() if journal is None else Journal(journal)
        self._runtime = runtime
        self.gave_up = False
        self._stop_waiters: Waiters[None, None] = Waiters()
        self._phase = _STOPPED

    def startService(self) -> None:
        """Take hold of the store, save what a process before left, start the persist thread.

        Harmless while it runs.

        Raises:
            StoreUnusable: as `IStateStore.prepare` does; nothing was started.
            NotRunning: the service is stopping, or an asyncio event loop runs that is not the
                reactor's, so that nothing would be saved.
        """
        if self._phase == _STOPPING:
            raise NotRunning(
                "the service is stopping: start it again when the Deferred of stopService fired"
            )
        if self._phase == _RUNNING:
            return
        runtime = self._runtime
        if runtime is None:
            from twisted.internet import reactor

            runtime = Runtime(reactor)
        _check_loop(runtime.reactor)
        with ExitStack() as undo:
            identity = self.store.prepare()
            undo.callback(self.store.close)
            check_beside(self.store.path, self._journal, identity)
            remains = self._memory.take_remains(identity)
            undo.callback(self._memory.close, clean=False)
            fresh = os.urandom(16) if remains is None else identity
            self._identity = self.store.migrate(fresh)
            self._reader = self.store.open_reader()
            undo.callback(self._reader.close)
            buffer = self._memory.open(self.schema, self.max_players, self._identity)
            self._set_up(runtime, buffer, remains)
            self._outbox.start()
            undo.pop_all()
        super().startService()
        self._phase = _RUNNING
        self.clock.every(SUMMARY_EVERY, self._summarise)
        self.clock.every(1.0, self._tell_trouble)
        self.clock.every(CHECK_EVERY, self._salvage.check)
        _log.info(
            "saving to {store} within {seconds} s, for up to {players} players",
            store=self.store.describe(),
            seconds=self.save_within,
            players=self.max_players,
        )

    def _set_up(self, runtime: Runtime, buffer: memoryview, remains: Remains | None) -> None:
        """Make everything anew; nothing runs yet."""
        self.gave_up = False
        self.clock = SteadyClock(runtime.reactor, runtime.monotonic)
        self.table = LiveTable(
            *(self.schema, self.max_players, self.clock.seconds, buffer, self._memory.reserve),
            # A row that another process wrote is told from ours by its version.
            first_version=int.from_bytes(os.urandom(7), "little"),
        )
        self.ledger = Ledger(gauges=self._gauges)
        self._wall_clock = runtime.wall_clock
        self._loads = Loads(self._enter)
        self._degraded = False
        self._cannot_reopen = ""
        # Whether players who have left may have been lost with a store that was replaced.
        self._in_doubt = False
        recovered = find_unsaved(remains, self.schema, self._reader)
        self._recovering = len(recovered) > 0
        self.ledger.recovered = len(recovered)
        if remains is not None and not self._recovering:
            self._memory.forget_remains()
        self._outbox = Outbox(
            self.table,
            RowLayout(self.schema.fields),
            self.store,
            self.ledger,
            self.clock,
            runtime,
            self.queue_size,
            self.save_within,
            self._settled,
            recovered,
            self._recovered,
            self._disbelieve,
            self._reopen,
            lambda: self._salvage.guard(),
        )
        self._leaves = Leaves(self.table, self.ledger, self._outbox.save_soon)
        self._salvage = Salvage(
            self.schema,
            self.table,
            self._memory,
            self.clock,
            lambda session_id: self._reader.load(session_id),
            lambda: self._outbox.in_flight,
            lambda: self._leaves.settled(()),
        )
        self._summarised = self.ledger.snapshot()

    def _recovered(self) -> None:
        try:
            self._memory.forget_remains()
        except StoreUnusable as error:
            # The next start would take it for the newest, and let go of what came after it.
            _log.critical("nobody may join: {error}", error=error)
            self.clock.callLater(FORGET_EVERY, self._recovered)
            return
        self._recovering = False
        _log.info("what the last run left is saved: players may join")

    def stopService(self) -> Deferred[None]:
        """Refuse joins and updates, save everything, join the thread, close the store.

        Returns:
            A Deferred that fires when every applied update is committed and everything is closed,
            or when `stop_within` seconds have passed; the log then says what was not saved.
        """
        if self._phase == _STOPPED:
            return succeed(None)
        waiter = self._stop_waiters.add(None)
        if self._phase == _RUNNING:
            super().stopService()
            self._phase = _STOPPING
            Deferred.fromCoroutine(self._stop()).addBoth(self._stopped)
        return waiter

    async def _stop(self) -> None:
        self._loads.fail_all(NotRunning("the service is stopping"))
        deadline = self.clock.seconds() + self.stop_within
        progress = self.clock.every(1.0, partial(self._tell_progress, deadline))
        try:
            await self._outbox.saved_since(math.inf).addTimeout(self.stop_within, self.clock)
        except TimeoutError:
            self._give_up(
                NotSaved(f"the store did not take everything within {self.stop_within} s")
            )
            end_within = ABANDON_WITHIN
        except NotSaved as error:
            _log.error("stopping: {error}", error=error)
            end_within = self._finish(deadline)
        else:
            end_within = self._finish(deadline)
        finally:
            progress.cancel()
        try:
            synced = await self._outbox.ended.addTimeout(end_within, self.clock)
        except TimeoutError:
            # The store stays locked: whatever the thread is stuck in may yet write.
            _log.critical(
                "the persist thread is stuck in the store {store}; going on without it",
                store=self.store.describe(),
            )
        else:
            self._outbox.join_threads(ABANDON_WITHIN)
            if self._outbox.pending and not self.gave_up:
                # The store was found to be replaced after it had taken everything.
                self._give_up(NotSaved("the store was removed or replaced while stopping"))
            self.gave_up |= self._in_doubt and not synced
            clean = synced and not self.gave_up
            ends = (self._reader.close, partial(self._memory.close, clean=clean), self.store.close)
            for end in ends:
                # Nothing more can be done with it, and whoever waits for the end must be told.
                with _log.failuresHandled("closing {store} failed", store=self.store.describe()):
                    end()
        for call in self.clock.getDelayedCalls():
            call.cancel()
        _log.info("stopped: {summary}", summary=self.ledger.snapshot().summary(self._summarised))

    def _stopped(self, result: Failure | None) -> None:
        self._phase = _STOPPED
        # Whoever is told may start the service again, and then stop it: that is another stop.
        stopped = self._stop_waiters.take()
        self._end_waiting(NotSaved("the service has stopped"))
        tell(stopped, result)

    def _finish(self, deadline: float) -> float:
        """Everything is settled: let the thread close its writer; return how long it may take."""
        self._outbox.finish()
        return max(deadline - self.clock.seconds(), CLOSE_WITHIN)

    def _tell_progress(self, deadline: float) -> None:
        _log.info(
            "stopping: updates that wait for {store}: {pending}; giving up in {seconds:.0f} s",
            pending=self._outbox.pending,
            store=self.store.describe(),
            seconds=deadline - self.clock.seconds(),
        )

    def _give_up(self, why: NotSaved) -> None:
        """Nothing more can be saved: say whose updates are not saved, and tell them."""
        self.gave_up = True
        self._salvage.check()  # the next start is to find it
        unsaved = [*self._outbox.unrecovered(), *self.table.unsaved().tolist()]
        _log.error(
            "stopped with the newest state unsaved of player {players}; {why}; {fate}",
            players=named(unsaved),
            why=why,
            fate=self._memory.fate,
        )
        self._outbox.abandon()
        self._end_waiting(why)

    def _end_waiting(self, why: NotSaved) -> None:
        """Nothing more is saved: tell all who wait for it."""
        outbox, leaves = self._outbox, self._leaves
        outbox.end(why)
        leaves.end(why)

    def _summarise(self) -> None:
        now = self.ledger.snapshot()
        _log.info("{summary}", summary=now.summary(self._summarised))
        self._summarised = now

    def has_room(self, session_id: int) -> bool:
        """Whether this player could join now as far as `max_players` goes."""
        if self._phase == _STOPPED:
            return False
        taken = len(self.table) + len(self._loads)
        return (
            taken < self.max_players or session_id in self.table.slots or session_id in self._loads
        )

    def join(self, session_id: int, *, sequence: int | None = None) -> Deferred[Joined]:
        """Bring a player online, where they left or at the spawn.

        A player who is online, or whose leave is not yet saved, is taken over with the newest
        applied state.  Joins of the same player at the same time share one load; cancelling one
        touches no other.

        Args:
            session_id: 1 to 2**63 - 1.
            sequence: the number above which this player's moves will be numbered, 0 to 2**32 - 1;
                by default they go on as they were, for a player who is still there, or from 0.

        Returns:
            A Deferred that fails with `NotRunning`, `ServerFull`, or what the store raised.

        Raises:
            TypeError: the session id or the sequence is no whole number.
            ValueError: the session id or the sequence is out of range.
        """
        session_id = check_session_id(session_id)
        if sequence is not None:
            sequence = check_whole("sequence", sequence, 0, MAX_SEQUENCE)
        if self._phase != _RUNNING:
            return fail(NotRunning("the service is not running"))
        if self._recovering:
            return fail(StoreBusy("what the last run left is not saved yet"))
        if session_id in self.table.slots:
            return succeed(self._enter(session_id, None, sequence))
        if session_id in self._loads:
            return self._loads.wait(session_id, sequence)
        if not self.has_room(session_id):
            return fail(ServerFull(f"all {self.max_players} places are taken"))
        try:
            found = self._reader.load(session_id)
            if isinstance(found, Deferred):
                return self._loads.begin(session_id, found, sequence)
            return succeed(self._enter(session_id, found, sequence))
        except Exception:  # goes to the one who joins, who is to judge it
            return fail()

    def _enter(self, session_id: int, stored: Stored | None, sequence: int | None) -> Joined:
        if self._phase != _RUNNING:
            raise NotRunning("the service is stopping")  # stopped by one who shared the load
        self.guard()
        slot = self.table.slots.get(session_id)
        if slot is None:
            slot = self._admit(session_id, stored)
        else:
            self._leaves.returned(slot)
        self.table.begin(slot, self.table.sequence(slot) if sequence is None else sequence)
        updated_at = self.table.updated_at(slot)
        self.ledger.joins += 1
        self.ledger.restored += updated_at != 0
        return Joined(self.schema.state(self.table.values(slot)), updated_at != 0, updated_at)

    def _admit(self, session_id: int, stored: Stored | None) -> int:
        if len(self.table) >= self.max_players:
            raise ServerFull(f"all {self.max_players} places are taken")
        values, updated_at = self.schema.spawn, 0
        if stored is not None:
            values, updated_at = self._stored(session_id, stored)
            # 0 is a player who was never stored; a row of that date, imported, is one who was.
            updated_at = max(updated_at, 1)
        try:
            return self.table.admit(session_id, values, updated_at)
        except JournalUnusable as error:
            raise StoreBusy(str(error)) from error

    def _stored(self, session_id: int, stored: Stored) -> tuple[tuple[Any, ...], int]:
        """What a store holds of a player, which other hands may have put there."""
        try:
            values = self.schema.encode(stored.values)
            try:
                return values, check_whole("updated_at", stored.updated_at, -(2**63), 2**63 - 1)
            except (TypeError, ValueError):
                allowed = "a whole number of 64 bits"
                raise InvalidState("updated_at", stored.updated_at, allowed) from None
        except InvalidState as error:
            remedy = f"player {session_id} is stored with it: correct that row, or delete it"
            raise InvalidState(error.field, error.value, f"{error.allowed}; {remedy}") from None

    def guard(self) -> None:
        """See that the rows of the live table may be touched, as a transport's turn begins.

        The process dies that touches rows whose file was cut meanwhile.  A quarter of a
        microsecond, half of one with its calls; whatever else the service is asked for does this
        by itself, but for `move`.
        """
        if self._memory.is_cut():
            self._salvage.guard()
            self.clock.callLater(0.0, self._salvage.check)  # which tells callers: not in their call

    def update(self, session_id: int, state: Any) -> None:
        """Take in a player's whole state.  Never blocks.

        Raises:
            InvalidState: a value lies outside its field; nothing has changed.
            NotOnline: the player has not joined, or has left.
            NotRunning: the service is not started, or is stopping.
            TypeError: the session id is no whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        self.ledger.received += 1
        try:
            values = self.schema.values(state)
            slot = self._online(session_id)
        except InvalidState:
            count(self.ledger.malformed, "value")
            raise
        except NotOnline:
            count(self.ledger.refused, "not_online")
            raise
        except NotRunning:
            count(self.ledger.refused, "stopping")
            raise
        self.guard()
        self.ledger.applied += 1
        if not self.table.apply(slot, None, values, self._wall_clock() // 1000):
            self.ledger.superseded += 1

    def move(self, session_id: int, sequence: int, values: tuple[Any, ...]) -> bool:
        """Take in a numbered update, as a transport receives it.  Never blocks.

        The player may be leaving, as long as the leave is not yet saved.  The caller counts it as
        received, and counts what this raises; what becomes of it otherwise is counted here.

        Args:
            session_id: whose it is.
            sequence: its number; it is stale if that is not above the highest applied.
            values: accepted packed values.

        Returns:
            Whether it was applied; False for a stale one.

        Raises:
            NotOnline: the player is not in the table, or has left with a lower number.
            NotRunning: the service is not started, or is stopping.
        """
        if self._phase != _RUNNING:
            raise NotRunning("the service is not running")
        slot = self.table.slots.get(session_id)
        if slot is None:
            raise NotOnline(session_id)
        if self._leaves.by_slot and self._leaves.refuses(slot, sequence):
            raise NotOnline(session_id)
        was_clean = self.table.apply(slot, sequence, values, self._wall_clock() // 1000)
        ledger = self.ledger
        if was_clean is None:
            ledger.stale += 1
            return False
        ledger.applied += 1
        if not was_clean:
            ledger.superseded += 1
        return True

    def move_many(
        self,
        slots: Slots,
        sequences: npt.NDArray[np.uint32],
        fields: npt.NDArray[np.void],
    ) -> npt.NDArray[np.bool_]:
        """Do what `move` does for many players at once; all arrays are of equal length.

        Args:
            slots: where the players are in the live table, each at most once.
            sequences: as in `move`.
            fields: packed values, of dtype `StateSchema.dtype`, writable and not yet accepted.

        Returns:
            Which were applied.  Nothing is done or counted for the others: `move` is to say what
            is wrong with them, if anything is.
        """
        if self._phase != _RUNNING:
            return np.zeros(len(slots), np.bool_)
        self.guard()
        good = self.schema.accept_many(fields)
        good &= sequences > self.table.sequences(slots)
        if self._leaves.by_slot:
            good &= ~np.isin(slots, list(self._leaves.by_slot))
        if not good.all():
            slots, sequences, fields = slots[good], sequences[good], fields[good]
        now = self._wall_clock() // 1000
        self.ledger.superseded += self.table.apply_many(slots, sequences, fields, now)
        self.ledger.applied += len(slots)
        return good

    def state(self, session_id: int) -> Any:
        """The newest applied state of a player online.

        Raises:
            NotOnline: the player has not joined, or has left.
            NotRunning: the service is not started, or is stopping.
            TypeError: the session id is no whole number.
            ValueError: the session id is out of range.
        """
        slot = self._online(check_session_id(session_id))
        self.guard()
        return self.schema.state(self.table.values(slot))

    def progress(self, session_id: int) -> Progress:
        """How far the updates of a player have come who is online or leaving.

        Raises:
            NotOnline: the player is neither.
            NotRunning: the service is not started.
            TypeError: the session id is no whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        if self._phase == _STOPPED:
            raise NotRunning("the service is not running")
        slot = self.table.slots.get(session_id)
        if slot is None:
            raise NotOnline(session_id)
        self.guard()
        return Progress.of(self.table, slot)

    def leave(self, session_id: int, *, last: int | None = None) -> Deferred[Progress]:
        """Take a player offline and save them at once.

        The player's place counts against `max_players` until the state is saved.  Cancelling the
        Deferred stops the waiting, not the leave.

        Args:
            session_id: whose leave it is.
            last: the highest number of a move that is still taken in until then; by default the
                highest applied, so that a player who goes on moving cannot put the leave off.

        Returns:
            A Deferred that fires when the player's newest state is committed.  It fails with
            `NotOnline`, `NotRunning`, or with `NotSaved` where the store holds a newer state of
            this player or the service stopped before it could be saved.

        Raises:
            TypeError: the session id or the last number is no whole number.
            ValueError: the session id or the last number is out of range.
        """
        session_id = check_session_id(session_id)
        if last is not None:
            last = check_whole("last", last, 0, MAX_SEQUENCE)
        if (over := self._over()) is not None:
            return fail(over)
        slot = self.table.slots.get(session_id)
        if slot is None:
            return fail(NotOnline(session_id))
        self.guard()
        return self._leaves.begin(slot, last)

    def flush(self) -> Deferred[None]:
        """Save everything applied so far.

        Returns:
            A Deferred that fires when all of it is committed.  It fails with `NotRunning`, or with
            `NotSaved` where the store held something newer or the service stopped before.
        """
        if (over := self._over()) is not None:
            return fail(over)
        return self._outbox.saved_since(self.clock.seconds())

    def _over(self) -> NotRunning | None:
        """Why nothing is saved any more; no `NotSaved`, on which a caller may try again."""
        if self._phase == _STOPPED:
            return NotRunning("the service is not running")
        if self.gave_up:
            return NotRunning("the service is stopping, and has given up saving")
        return None

    def _online(self, session_id: int) -> int:
        if self._phase != _RUNNING:
            raise NotRunning("the service is not running")
        slot = self.table.slots.get(session_id)
        if slot is None or self._leaves.has_left(slot):
            raise NotOnline(session_id)
        return slot

    @property
    def trouble(self) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`; None if all is well.

        While there is something the service is degraded: it takes joins and updates as ever, but
        they are not being saved, or have no journal, which was lost and cannot be made anew.
        """
        if self._phase == _STOPPED:
            return None
        return self._outbox.trouble() or self._salvage.trouble

    def _tell_trouble(self) -> None:
        trouble = self._outbox.trouble()
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
                pending=self._outbox.pending,
            )

    def _disbelieve(self) -> None:
        """The store was removed or replaced: nobody is to be told any more that they are saved."""
        if self._phase != _STOPPED:
            self.guard()
            self._in_doubt = True
            self._dirty_all()

    def _reopen(self) -> None:
        """The store was removed or replaced: go over to what is there now, and save all again."""
        if self._phase == _STOPPED:
            return
        self._disbelieve()
        try:
            lost = self.store.reopen(self._identity, self.table.slots.keys())
            reader = self.store.open_reader()
        except Exception as error:  # what is there cannot be used yet, which is told as trouble
            if str(error) != self._cannot_reopen:
                self._cannot_reopen = str(error)
                store = self.store.describe()
                _log.error("cannot go on with {store}: {error}", store=store, error=error)
            self.clock.callLater(REOPEN_EVERY, self._reopen)
            return
        self._reader.close()
        self._reader = reader
        self._cannot_reopen = ""
        self._in_doubt = self._phase == _STOPPING and bool(lost)
        self._dirty_all()  # who joined meanwhile
        _log.critical(
            "the store {store} was removed or replaced while it was in use; the {again} players"
            " in the game are saved again, lost is the newest state of {count} others: {players}",
            store=self.store.describe(),
            again=len(self.table),
            count=len(lost),
            players=named(lost) or "none",
        )
        self._outbox.sweep()
        self._outbox.resume()

    def _dirty_all(self) -> None:
        """The store is not to be had: everything is to be saved into the next one."""
        self.ledger.recovered += self.table.dirty_all(self._leaves.take_given_up())

    def _gauges(self) -> Gauges:
        oldest = self._outbox.oldest_unsaved()
        leaving = self._leaves.leaving()
        trouble = self.trouble
        return Gauges(
            degraded="" if trouble is None else trouble.why,
            degraded_seconds=0.0 if trouble is None else trouble.seconds,
            players_online=len(self.table) - leaving if self._phase != _STOPPED else 0,
            players_leaving=leaving,
            pending=self._outbox.pending,
            queue_depth=self._outbox.depth,
            queue_size=self._outbox.queue_size,
            oldest_unsaved_seconds=0.0 if oldest is None else self.clock.seconds() - oldest,
        )

    def _settled(self, commit: Commit) -> None:
        """A commit is noted in the table: let go of who has left and is saved."""
        self._leaves.settled(commit.dropped)


def _check_loop(reactor: object) -> None:
    """Refuse a reactor that stands still while an asyncio event loop of its own runs us."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    if getattr(reactor, "running", True) or getattr(reactor, "_asyncioEventloop", None) is loop:
        return
    raise NotRunning(
        f"an asyncio event loop runs, and {type(reactor).__name__} does not: nothing would be"
        " saved; call twisted.internet.asyncioreactor.install(loop) with this loop before"
        " anything imports twisted.internet.reactor"
    )
