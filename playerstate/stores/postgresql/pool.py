"""The connections over which the reactor thread asks the database, by Twisted's pool of threads.

Each thread of the pool has a connection of its own.  A connection that was lost is opened again by
the call that finds it so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import psycopg
from twisted.enterprise import adbapi
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from playerstate.stores.postgresql.session import Interrupted, Session
from playerstate.stores.postgresql.url import Place

MOST_CONNECTIONS = 4
"""Each answers some thousand loads a second, while a server may allow a hundred in all."""
CLOSE_SECONDS = 1.0
"""How long `Pool.close` waits for a thread that is connecting; it then ends on its own."""

T = TypeVar("T")

# What `adbapi.ConnectionPool` asks of a module that it is to connect by.
apilevel = "2.0"
threadsafety = 2


def connect(place: Place) -> Session:
    """Connect, as a module of the DB-API does."""
    return place.connect()


class _Connection(adbapi.Connection):
    """A thread's connection during one call.  Each statement is a transaction of its own."""

    @property
    def session(self) -> Session:
        """The connection, opened again if it was lost."""
        if self.is_lost:
            self.reconnect()
        session: Any = self._connection
        assert isinstance(session, Session)
        return session

    @property
    def is_lost(self) -> bool:
        """Whether the connection was found to be lost."""
        session: Any = self._connection
        return bool(session.is_lost)

    def commit(self) -> None:
        """There is nothing to commit."""

    def rollback(self) -> None:
        """There is nothing to roll back."""


class _Call(Generic[T]):
    """One call, which may be cancelled before it begins, and while it runs."""

    def __init__(self, function: Callable[[Session], T], again: bool) -> None:
        self._function = function
        self._again = again
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._cancelled = False

    def run(self, connection: _Connection) -> T:
        """Make the call.  A thread of the pool."""
        if self._cancelled:
            raise CancelledError()
        try:
            return self._try(connection.session)
        except psycopg.OperationalError as error:
            # The connection may have been lost since its last use.
            lost = self._again and not isinstance(error, Interrupted)
            if not (lost and connection.is_lost):
                raise
        return self._try(connection.session)

    def _try(self, session: Session) -> T:
        session.forget_interrupt()
        with self._guard:
            if self._cancelled:
                raise CancelledError()
            self._session = session
        try:
            return self._function(session)
        finally:
            with self._guard:
                self._session = None

    def cancel(self) -> None:
        """End the call.  Reactor thread."""
        with self._guard:
            self._cancelled = True
            if self._session is not None:
                self._session.interrupt()


class Pool(adbapi.ConnectionPool):
    """Threads with a connection each.  Reactor thread.

    Args:
        place: of the database.
        reactor: gets the answers.
    """

    connectionFactory = _Connection  # noqa: N815 - Twisted's name

    def __init__(self, place: Place, reactor: Any) -> None:
        super().__init__(__name__, place, cp_min=0, cp_max=MOST_CONNECTIONS, cp_reactor=reactor)

    def ask(self, function: Callable[[Session], T], again: bool = True) -> Deferred[T]:
        """Call a function with a connection, on another thread; cancelling ends the call.

        Args:
            function: called once, or once more on a new connection.
            again: whether it may be called once more, where the connection turns out to be lost.
        """
        call = _Call(function, again)
        answer: Deferred[T] = Deferred(lambda _: call.cancel())
        work: Deferred[T] = self.runWithConnection(call.run)

        def deliver(result: T | Failure) -> None:
            if not answer.called:  # it was not cancelled
                answer.callback(result)  # also a failure

        work.addBoth(deliver)
        return answer

    def finalClose(self) -> None:  # noqa: N802 - Twisted calls it
        """End the threads and their calls; waits `CLOSE_SECONDS` at most."""
        for session in list(self.connections.values()):
            session.interrupt()
        ending = threading.Thread(target=super().finalClose, name="playerstate-pool-close")
        ending.start()
        ending.join(CLOSE_SECONDS)


def translated(failure: Failure, explain: Callable[[psycopg.Error], Exception]) -> Failure:
    """The failure, with an error of PostgreSQL explained."""
    error = failure.value
    return Failure(explain(error)) if isinstance(error, psycopg.Error) else failure
