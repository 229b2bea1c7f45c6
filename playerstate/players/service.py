"""The service: a handle on its runs, for as long as the program lives.

Each start makes a `playerstate.players.run.Run`, which lives to the end of the stop; what is asked
meanwhile is asked of it.  Everything here runs on the reactor thread.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from playerstate.arguments import check_seconds, check_session_id, check_whole
from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.ledger import Gauges, Ledger, count
from playerstate.live.journal import Journal, ProcessMemory, check_apart
from playerstate.live.table import LiveTable, Slots
from playerstate.players.errors import NotOnline, NotRunning, ServerFull
from playerstate.players.joins import Joined
from playerstate.players.leaves import Progress
from playerstate.players.run import Options, Run
from playerstate.players.starting import check_loop, start
from playerstate.players.stopping import end_waiting, stop
from playerstate.saving.outbox import NotSaved, Surroundings
from playerstate.saving.trouble import Trouble
from playerstate.waiters import Waiters, tell

__all__ = ["Joined", "NotOnline", "NotRunning", "PlayerStateService", "ServerFull"]

MAX_SEQUENCE = 2**32 - 1


class PlayerStateService(Service):
    """Keeps where every online player stands, and saves it without the reactor ever waiting.

    Add it to an application, or call `startService` and `stopService` yourself.  Reactor thread
    only.

    Args:
        store: where players are kept, from `playerstate.open_store`.
        save_within: seconds within which every applied update is to be committed.
        queue_size: rows the ring to the persist thread holds; a power of two.
        max_players: the most players at a time, those included who left and are not yet saved.
        stop_within: seconds that `stopService` gives the store to take what is unsaved.
        journal: path of the file that keeps what is applied beyond the death of the process; None
            for none.
        around: the reactor, the clocks and the thread; the real ones by default.

    Attributes:
        store, schema, options: what it was made with.
        ledger: the counters, which go on over stops and starts;
            `playerstate.ledger.Ledger.snapshot` is for reading them.

    Raises:
        TypeError: an argument is no number, or `store` is no store; the message names it.
        ValueError: an argument is out of its range, or `journal` is a file of the store's; the
            message names it.
    """

    name = "playerstate"

    def __init__(
        self,
        store: IStateStore,
        *,
        save_within: float = 5.0,
        queue_size: int = 8192,
        max_players: int = 10_000,
        stop_within: float = 30.0,
        journal: str | os.PathLike[str] | None = None,
        around: Surroundings | None = None,
    ) -> None:
        save_within = check_seconds("save_within", save_within, 0.1, 86_400.0)
        max_players = check_whole("max_players", max_players, 1, 2**24)
        queue_size = check_whole("queue_size", queue_size, 2, 2**24)
        stop_within = check_seconds("stop_within", stop_within, 0.0, 86_400.0)
        if queue_size & (queue_size - 1):
            raise ValueError(f"queue_size {queue_size} is not a power of two")
        if isinstance(store, (str, bytes, os.PathLike)):
            raise TypeError(f"{store!r} is no store: give open_store(URL, STATE_CLASS)")
        if journal is not None:
            journal = os.fspath(journal)
            check_apart(journal, store.path)
        self.store = store
        self.schema = store.schema
        self.options = Options(store, save_within, queue_size, max_players, stop_within, journal)
        self.ledger = Ledger(gauges=self._gauges)
        self._memory = ProcessMemory() if journal is None else Journal(journal)
        self._around = around
        self._run: Run | None = None
        self._gave_up = False
        self._stop_waiters: Waiters[None, None] = Waiters()

    @property
    def run(self) -> Run:
        """The run under way; another after each start.

        Raises:
            NotRunning: there is none.
        """
        if self._run is None:
            raise _not_running()
        return self._run

    @property
    def clock(self) -> SteadyClock:
        """Timers that stand a wall clock that steps; another after each start.

        Raises:
            NotRunning: the service is not started.
        """
        return self.run.clock

    @property
    def table(self) -> LiveTable:
        """The live table; another after each start.

        Raises:
            NotRunning: the service is not started.
        """
        return self.run.table

    @property
    def gave_up(self) -> bool:
        """Whether the last stop ended before everything was saved, or with players lost."""
        return self._gave_up if self._run is None else self._run.gave_up

    def startService(self) -> None:
        """Take hold of the store, save what a process before left, start the persist thread.

        Harmless while it runs.

        Raises:
            StoreUnusable: as `IStateStore.prepare` does; nothing was started.
            NotRunning: the service is stopping, or an asyncio event loop runs that is not the
                reactor's, so that nothing would be saved.
        """
        if self._run is not None:
            if self._run.accepts:
                return
            raise NotRunning(
                "the service is stopping: start it again when the Deferred of stopService fired"
            )
        around = self._around
        if around is None:
            from twisted.internet import reactor

            around = Surroundings(reactor)
        check_loop(around.reactor)
        self._run = start(self.options, self._memory, self.ledger, around, self._ready)
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Refuse joins and updates, save everything, join the thread, close the store.

        Returns:
            A Deferred that fires when every applied update is committed and everything is closed,
            or when `stop_within` seconds have passed; the log then says what was not saved.
        """
        run = self._run
        if run is None:
            return succeed(None)
        waiter = self._stop_waiters.add(None)
        if run.accepts:
            super().stopService()
            Deferred.fromCoroutine(stop(run)).addBoth(self._stopped, run)
        return waiter

    def _stopped(self, result: Failure | None, run: Run) -> None:
        self._gave_up = run.gave_up
        self._run = None
        # Whoever is told may start the service again, and then stop it: that is another stop.
        stopped = self._stop_waiters.take()
        end_waiting(run, NotSaved("the service has stopped"))
        tell(stopped, result)

    def has_room(self, session_id: int) -> bool:
        """Whether this player could join now as far as `max_players` goes."""
        return self._run is not None and self._run.joins.has_room(session_id)

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
        if self._run is None:
            return fail(_not_running())
        return self._run.join(session_id, sequence)

    def guard(self) -> None:
        """See that the rows of the live table may be touched, as a transport's turn begins.

        The process dies that touches rows whose file was cut meanwhile.  A quarter of a
        microsecond, half of one with its calls; whatever else the service is asked for does this
        by itself, but for `move`.
        """
        if self._run is not None:
            self._run.guard()

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
        if self._run is None:
            count(self.ledger.refused, "stopping")
            raise _not_running()
        self._run.update(session_id, state)

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
        return self.run.move(session_id, sequence, values)

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
        return self.run.move_many(slots, sequences, fields)

    def state(self, session_id: int) -> Any:
        """The newest applied state of a player online.

        Raises:
            NotOnline: the player has not joined, or has left.
            NotRunning: the service is not started, or is stopping.
            TypeError: the session id is no whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        return self.run.state(session_id)

    def progress(self, session_id: int) -> Progress:
        """How far the updates of a player have come who is online or leaving.

        Raises:
            NotOnline: the player is neither.
            NotRunning: the service is not started.
            TypeError: the session id is no whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        return self.run.progress(session_id)

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
        if self._run is None:
            return fail(_not_running())
        return self._run.leave(session_id, last)

    def flush(self) -> Deferred[None]:
        """Save everything applied so far.

        Returns:
            A Deferred that fires when all of it is committed.  It fails with `NotRunning`, or with
            `NotSaved` where the store held something newer or the service stopped before.
        """
        if self._run is None:
            return fail(_not_running())
        return self._run.flush()

    @property
    def trouble(self) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`; None if all is well.

        While there is something the service is degraded: it takes joins and updates as ever, but
        they are not being saved, or have no journal, which was lost and cannot be made anew.
        """
        return None if self._run is None else self._run.trouble

    def _ready(self) -> None:
        """Players may join."""

    def _gauges(self) -> Gauges:
        if self._run is None:
            return Gauges(queue_size=self.options.queue_size)
        return self._run.gauges()


def _not_running() -> NotRunning:
    return NotRunning("the service is not running")
