"""Players in a PostgreSQL database, through psycopg 3.

URL: see `playerstate.stores.postgresql.url`.

While a server runs it has one connection for each persist thread, up to four for the reactor
thread's loads, and one that says that it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from playerstate.interfaces import (
    Erased,
    IErasableStore,
    IStateReader,
    IStateWriter,
    StoreUnusable,
)
from playerstate.log import PrintableLogger
from playerstate.state.schema import StateSchema
from playerstate.stores.postgresql.browser import PostgreSQLBrowser
from playerstate.stores.postgresql.erasing import erase_player
from playerstate.stores.postgresql.format import check_names, migrate_database, read_identity
from playerstate.stores.postgresql.locks import Presence
from playerstate.stores.postgresql.operations import PostgreSQLOperations
from playerstate.stores.postgresql.pool import Pool, translated
from playerstate.stores.postgresql.reader import PostgreSQLReader
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import Place, parse_url
from playerstate.stores.postgresql.writer import PostgreSQLWriter

T = TypeVar("T")

_log = PrintableLogger()


def open_url(url: str, schema: StateSchema) -> PostgreSQLStore:
    """See `playerstate.interfaces.IStoreFactory.open`."""
    return PostgreSQLStore(parse_url(url), schema)


def browse_url(url: str) -> PostgreSQLBrowser:
    """See `playerstate.interfaces.IStoreFactory.browse`."""
    return PostgreSQLBrowser(parse_url(url))


def operate_url(url: str) -> PostgreSQLOperations:
    """See `playerstate.interfaces.IOperatedFactory.operate`."""
    return PostgreSQLOperations(parse_url(url))


@implementer(IErasableStore)
class PostgreSQLStore:
    """Players in one PostgreSQL database, which other servers may use too.

    Args:
        place: of the database.
        schema: of the players.
        reactor: gets the answers of the database; the global one if None.

    Raises:
        StoreUnusable: a field cannot have a column of its name.
    """

    lanes = 1

    def __init__(self, place: Place, schema: StateSchema, reactor: Any = None) -> None:
        check_names(schema)
        self.schema = schema
        self._place = place
        self._reactor = reactor
        self._pool: Pool | None = None
        self._presence = Presence(place)

    def prepare(self) -> Deferred[bytes]:
        """See `IStateStore.prepare`; the lock is shared with other servers."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._pool = Pool(self._place, self._reactor)
        self._presence = presence = Presence(self._place)

        def look(session: Session) -> bytes:
            presence.renew()
            return read_identity(session, self._place)

        def release(failure: Failure) -> Failure:
            self.close()
            return failure

        return self._ask(look).addErrback(release)

    def migrate(self, identity: bytes) -> Deferred[bytes]:
        """See `IStateStore.migrate`; a database keeps the first identity that it was given."""

        def migrate(session: Session) -> tuple[bytes, list[str]]:
            return migrate_database(session, self._place, self.schema, identity)

        def note(answer: tuple[bytes, list[str]]) -> bytes:
            identity, done = answer
            if done:
                _log.info("{store}: {done}", store=self.describe(), done="; ".join(done))
            return identity

        return self._ask(migrate).addCallback(note)

    def _ask(self, function: Callable[[Session], T]) -> Deferred[T]:
        """Ask the database, for as long as it takes; whoever asks may cancel."""

        def patiently(session: Session) -> T:
            before, session.patience = session.patience, None
            try:
                return function(session)
            finally:
                session.patience = before

        def explain(error: psycopg.Error) -> Exception:
            return StoreUnusable(self._place.explain(error))

        assert self._pool is not None, "prepare was not called"
        return self._pool.ask(patiently).addErrback(translated, explain)

    def open_reader(self) -> IStateReader:
        """See `IStateStore.open_reader`; it connects when it is first used."""
        assert self._pool is not None, "prepare was not called"
        return PostgreSQLReader(self._pool, self.schema)

    def open_writer(self) -> IStateWriter:
        """See `IStateStore.open_writer`."""
        return PostgreSQLWriter(self._place, self.schema, self._presence)

    def erase(self, session_id: int) -> Erased:
        """See `IErasableStore.erase`; over a connection of its own."""
        return erase_player(self._place, session_id)

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return str(self._place)

    def close(self) -> None:
        """See `IStateStore.close`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        self._presence.close()
