"""The service: a handle on its runs, for as long as the program lives.

Each start makes a ``Run``, which lives to the end of the stop; calls in between are passed to it.
Everything here runs on the reactor thread.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from playerstate.arguments import check_sequence, check_session_id
from playerstate.clock import SteadyClock
from playerstate.interfaces import Erased, IStateStore
from playerstate.ledger import Gauges, Ledger, Outcome
from playerstate.live.file import LiveFile
from playerstate.live.memory import AnonymousMemory
from playerstate.live.table import LiveTable
from playerstate.players.errors import NotOnline, NotRunning, ServerFull, UnknownPlayer
from playerstate.players.joins import Joined
from playerstate.players.leaves import Progress
from playerstate.players.listener import Listeners, PlayersListener
from playerstate.players.options import Options
from playerstate.players.run import Run
from playerstate.players.starting import check_loop, start, stopped_before_ready, why_not_started
from playerstate.players.stopping import end_waiting, stop
from playerstate.runtime import Runtime
from playerstate.saving.commit import NotSaved
from playerstate.saving.health import Trouble
from playerstate.waiters import Waiters, tell

__all__ = [
    "Joined",
    "NotOnline",
    "NotRunning",
    "PlayerStateService",
    "ServerFull",
    "UnknownPlayer",
]


class PlayerStateService(Service):
    """Keeps every online player's state, and saves it without ever blocking the reactor.

    Add it to an application, or call `startService` and `stopService` yourself.  Reactor thread
    only.

    Args:
        store: where players are kept, from `playerstate.open_store`.
        save_within: seconds within which every applied update is to be committed.
        queue_size: rows that the ring to the persist thread holds; a power of two.
        max_players: the most players at a time, including those who left and are not yet saved.
        stop_within: seconds that `stopService` gives the store to take the unsaved rows.
        live_file: path of the file in which applied updates outlive the process; None for none.
        runtime: the reactor, the clocks and the thread starter; the real ones by default.

    Attributes:
        store, schema, options: what it was made with.
        ledger: the counters, which continue over stops and starts;
            read them by `playerstate.ledger.Ledger.snapshot`.

    Raises:
        TypeError: an argument is not a number, or `store` is not a store; the message names it.
        ValueError: an argument is out of its range, or `live_file` is one of the store's files;
            the message names it.
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
        live_file: str | os.PathLike[str] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.options = Options.checked(
            store, save_within, queue_size, max_players, stop_within, live_file
        )
        self.store = store
        self.schema = store.schema
        self.ledger = Ledger(gauges=self._gauges)
        path = self.options.live_file
        self._memory = AnonymousMemory() if path is None else LiveFile(path)
        self._runtime = runtime
        self._starting: Deferred[Run] | None = None
        self._run: Run | None = None
        self._gave_up = False
        self._listeners = Listeners()
        self._open_waiters: Waiters[None, None] = Waiters()
        self._start_waiters: Waiters[None, None] = Waiters()
        self._stop_waiters: Waiters[None, None] = Waiters()

    @property
    def max_players(self) -> int:
        """The most players at a time."""
        return self.options.max_players

    @property
    def run(self) -> Run:
        """The current run; a new one after each start.

        Raises:
            NotRunning: there is none.
        """
        if self._run is None:
            raise self._not_running()
        return self._run

    @property
    def clock(self) -> SteadyClock:
        """Timers that no step of the wall clock disturbs; a new clock after each start.

        Raises:
            NotRunning: the service is not started.
        """
        return self.run.clock

    @property
    def table(self) -> LiveTable:
        """The live table; a new one after each start.

        Raises:
            NotRunning: the service is not started.
        """
        return self.run.table

    @property
    def gave_up(self) -> bool:
        """Whether the last stop ended before everything was saved, or with players lost."""
        return self._gave_up if self._run is None else self._run.gave_up

    def startService(self) -> None:
        """Open the store, start the persist thread, save the rows that an earlier process left.

        Does nothing while the service starts or runs.

        Raises:
            StoreUnusable: see `IStateStore.prepare`; nothing was started.
            NotRunning: the service is stopping, or an asyncio event loop runs that is not the
                reactor's, so that nothing would be saved.
        """
        if self._starting is not None:
            return
        if self._run is not None:
            if self._run.accepts:
                return
            raise NotRunning(
                "the service is stopping: start it again once the Deferred of stopService has fired"
            )
        runtime = self._runtime
        if runtime is None:
            from twisted.internet import reactor

            runtime = Runtime(reactor)
        check_loop(runtime.reactor)
        starting = Deferred.fromCoroutine(
            start(
                *(self.options, self._memory, self.ledger, runtime),
                when_recovered=self._ready,
                listeners=self._listeners,
            )
        )
        if not starting.called:
            self._starting = starting
            starting.addCallbacks(self._begun, self._not_begun)
            return
        failures: list[Failure] = []
        starting.addCallbacks(self._begun, failures.append)
        for failure in failures:
            failure.raiseException()

    def opened(self) -> Deferred[None]:
        """Wait until the store is open: joins are answered, and transports may be started.

        Joins fail with `StoreBusy` until the rows that an earlier process left are saved; wait for
        that with `started`.

        Returns:
            A Deferred that fires then, at once if the store is open already.  It fails as the
            Deferred of `started` does.
        """
        if self._starting is not None:
            return self._open_waiters.add(None)
        if self._run is None or not self._run.accepts:
            return fail(self._not_running())
        return succeed(None)

    def started(self) -> Deferred[None]:
        """Wait until players may join.

        Returns:
            A Deferred that fires when the store is open and the rows that an earlier process left
            are saved, at once if both are so already.  It fails with `NotRunning` if the service is
            not started, or was stopped before it was ready; with `StoreUnusable`, or any other
            error of the store, if it could not be started.
        """
        run = self._run
        if self._starting is None:
            if run is None or not run.accepts:
                return fail(self._not_running())
            if not run.recovering:
                return succeed(None)
        return self._start_waiters.add(None)

    def _begun(self, run: Run) -> None:
        self._starting, self._run = None, run
        super().startService()
        tell(self._open_waiters.take(), None)
        if not run.recovering:
            self._ready()

    def _ready(self) -> None:
        """Players may join."""
        tell(self._start_waiters.take(), None)

    def _not_begun(self, failure: Failure) -> None:
        self._starting = None
        waiting = [*self._open_waiters.take(), *self._start_waiters.take()]
        stopped = self._stop_waiters.take()
        tell(waiting, why_not_started(failure))
        tell(stopped, None)

    def stopService(self) -> Deferred[None]:
        """Refuse joins, updates and edits, save everything, join the thread, close the store.

        Returns:
            A Deferred that fires when every applied update is committed and everything is closed,
            or when `stop_within` seconds have passed; the log then says what was not saved.
        """
        run = self._run
        if self._starting is not None:
            waiter = self._stop_waiters.add(None)
            self._starting.cancel()
            return waiter
        if run is None:
            return succeed(None)
        waiter = self._stop_waiters.add(None)
        if run.accepts:
            super().stopService()
            Deferred.fromCoroutine(stop(run)).addBoth(self._stopped, run)
            tell(self._start_waiters.take(), Failure(stopped_before_ready()))
        return waiter

    def _stopped(self, result: Failure | None, run: Run) -> None:
        self._gave_up = run.gave_up
        self._run = None
        # A callback may start the service again and stop it: its waiters belong to that stop.
        stopped = self._stop_waiters.take()
        end_waiting(run, NotSaved("the service has stopped"))
        tell(stopped, result)

    def has_room(self, session_id: int) -> bool:
        """Whether this player could join now as far as `max_players` goes."""
        return self._run is not None and self._run.joins.has_room(session_id)

    def join(self, session_id: int, *, sequence: int | None = None) -> Deferred[Joined]:
        """Bring a player online with the last saved state, or at the spawn.

        A player who is online, or whose leave is not yet saved, is taken over with the newest
        applied state.  Concurrent joins of one player share one load; cancelling one affects no
        other.

        Args:
            session_id: 1 to 2**63 - 1.
            sequence: this player's moves must have sequences above it, 0 to 2**32 - 1.  By default
                the highest applied, for a player who is still in the live table, or 0.

        Returns:
            A Deferred of a `Joined`.  It fails with `NotRunning`, `ServerFull`, or the store's
            error.

        Raises:
            TypeError: the session id or the sequence is not a whole number.
            ValueError: the session id or the sequence is out of range.
        """
        session_id = check_session_id(session_id)
        if sequence is not None:
            sequence = check_sequence(sequence)
        if self._run is None:
            return fail(self._not_running())
        return self._run.join(session_id, sequence)

    def guard(self) -> None:
        """Make sure that the rows of the live table may be touched; see ``Run.guard``."""
        if self._run is not None:
            self._run.guard()

    def update(self, session_id: int, state: Any) -> None:
        """Apply a player's whole state.  Never blocks.

        The player's client is told.  Until it has seen that, its moves are rejected, unless the
        server owns every field; then it goes on from this state.

        Raises:
            InvalidState: a value lies outside its field; nothing has changed.
            NotOnline: the player has not joined, or has left.
            NotRunning: the service is not started, or is stopping.
            TypeError: the session id is not a whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        if self._run is None:
            self.ledger.take_in(Outcome.STOPPING)
            raise self._not_running()
        self._run.update(session_id, state)

    def change(self, session_id: int, /, **fields: Any) -> None:
        """Change some fields of an online player, and keep the newest applied values of the others.

        Never blocks.  Without a field it changes nothing.  Only the named fields are checked: the
        others may hold what was saved under wider bounds.

        The player's client is told.  If a field of the client's is named, its moves are rejected
        until it has seen that, and none that it sent before is ever applied; then it goes on from
        the changed state.  A change of server-owned fields alone interrupts no movement.

        Args:
            session_id: the player's.
            fields: the new values, by the names of the state class's fields.

        Raises:
            InvalidState: a value lies outside its field, or no field has that name; nothing has
                changed.
            NotOnline: the player has not joined, or has left.
            NotRunning: the service is not started, or is stopping.
            TypeError: the session id is not a whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        if self._run is None:
            self.ledger.take_in(Outcome.STOPPING)
            raise self._not_running()
        self._run.change(session_id, fields)

    def edit(self, session_id: int, /, *, create: bool = False, **fields: Any) -> Deferred[None]:
        """Change some fields of a player who may be offline, and save the player at once.

        An online or leaving player is changed as by `change`.  An offline player is loaded, changed
        and saved without ever being online: no listener is notified, and neither a join nor a leave
        is counted; but until saved, the player counts against `max_players` and as leaving.  A
        player who joins meanwhile comes in with the edited state.

        Without a field it changes nothing, and waits for the player's present state to be saved.

        As with `change`, an online player's client is told.  Cancelling the Deferred stops the
        waiting, not the edit.

        Args:
            session_id: the player's.
            create: whether a player whom the store does not know is created, at the spawn.
            fields: the new values, by the names of the state class's fields; one that is called
                ``create`` can only be changed by `change`.

        Returns:
            A Deferred that fires when the changed state is committed; the commits of other players
            do not matter.  It fails with `InvalidState`, `UnknownPlayer`, `NotRunning`,
            `ServerFull` or the store's error, when nothing has changed; and with `NotSaved` if the
            store dropped the changed state, or the service stopped before it was saved.

        Raises:
            TypeError: the session id is not a whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        if self._run is None:
            self.ledger.take_in(Outcome.STOPPING)
            return fail(self._not_running())
        return self._run.edit(session_id, fields, create)

    def erase(self, session_id: int) -> Deferred[Erased]:
        """Take a player offline, and delete all that is kept of the player.

        That is the row in the live table and the live file, changes that are not saved yet, and
        what the store holds, quarantined rows included.  Until it is done the player can neither
        join nor be edited: both fail with `StoreBusy`.  Afterwards a join is that of a new player.
        Cancelling the Deferred stops the waiting, not the erasure.

        Args:
            session_id: the player's; it need not be known.

        Returns:
            A Deferred that fires when all of it is deleted, with what the store held.  It fails
            with `NotRunning`; with `StoreUnusable` if the store is no
            `playerstate.interfaces.IErasableStore`; with `NotSaved` if the service stopped first;
            or with the store's error.  Unless it fires, nothing is known to be deleted: erase the
            player again.

        Raises:
            TypeError: the session id is not a whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        if self._run is None:
            return fail(self._not_running())
        return self._run.erase(session_id)

    def state(self, session_id: int) -> Any:
        """The newest applied state of an online player.

        Raises:
            NotOnline: the player has not joined, or has left.
            NotRunning: the service is not started, or is stopping.
            TypeError: the session id is not a whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        return self.run.state(session_id)

    def progress(self, session_id: int) -> Progress:
        """How far the moves of an online or leaving player have come.

        Raises:
            NotOnline: the player is neither.
            NotRunning: the service is not started.
            TypeError: the session id is not a whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        return self.run.progress(session_id)

    def add_listener(self, listener: PlayersListener) -> None:
        """Notify this listener of what happens to players, until `remove_listener`."""
        self._listeners.add(listener)

    def remove_listener(self, listener: PlayersListener) -> None:
        """Stop notifying this listener.

        Raises:
            ValueError: it was never added, or is removed already.
        """
        self._listeners.remove(listener)

    def leave(self, session_id: int) -> Deferred[Progress]:
        """Take a player offline and save them at once.

        The player counts against `max_players` until the state is saved.  Cancelling the Deferred
        stops the waiting, not the leave.

        Args:
            session_id: the player's.

        Returns:
            A Deferred that fires when the player's newest state is committed.  It fails with
            `NotOnline`, `NotRunning`, or with `NotSaved` if the store dropped that state or the
            service stopped before it was saved.

        Raises:
            TypeError: the session id is not a whole number.
            ValueError: the session id is out of range.
        """
        session_id = check_session_id(session_id)
        if self._run is None:
            return fail(self._not_running())
        return self._run.leave(session_id)

    def flush(self) -> Deferred[None]:
        """Save everything applied so far.

        Returns:
            A Deferred that fires when all of it is committed.  It fails with `NotRunning`, or with
            `NotSaved` if the store dropped a row or the service stopped before.
        """
        if self._run is None:
            return fail(self._not_running())
        return self._run.flush()

    @property
    def trouble(self) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`; None if all is well.

        While it is not None the service is degraded: it accepts joins and updates, but they are
        not being saved, or there is no live file, which was lost and cannot be made anew.
        """
        return None if self._run is None else self._run.trouble

    def _gauges(self) -> Gauges:
        if self._run is None:
            return Gauges(queue_size=self.options.queue_size)
        return self._run.gauges()

    def _not_running(self) -> NotRunning:
        if self._starting is not None:
            return NotRunning("the service is starting: wait for the Deferred of started()")
        return NotRunning("the service is not running")
