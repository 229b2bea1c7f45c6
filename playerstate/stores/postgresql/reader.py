"""Loads players from a PostgreSQL database, off the reactor thread."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from playerstate.interfaces import IStateReader, StoreBusy, Stored
from playerstate.state.schema import StateSchema
from playerstate.stores.postgresql.columns import quoted
from playerstate.stores.postgresql.pool import Pool, translated
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import one_line


class Select:
    """Loads players over one session."""

    def __init__(self, schema: StateSchema) -> None:
        names = ", ".join(quoted(field.name) for field in schema.stored)
        self._one = f"SELECT {names}, updated_at FROM player_state WHERE session_id = %s"
        self._many = (
            f"SELECT session_id, {names}, updated_at FROM player_state WHERE session_id = ANY(%s)"
        )

    def one(self, session: Session, session_id: int) -> Stored | None:
        """One player; None if the store has no such player."""
        row = session.execute(self._one, (session_id,), binary=True).fetchone()
        return None if row is None else Stored(row[:-1], row[-1])

    def many(self, session: Session, session_ids: Iterable[int]) -> dict[int, Stored]:
        """Those of these players whom the store has."""
        rows = session.execute(self._many, (list(session_ids),), binary=True)
        return {row[0]: Stored(row[1:-1], row[-1]) for row in rows}


@implementer(IStateReader)
class PostgreSQLReader:
    """Loads players over a pool of connections, which is the store's.

    Args:
        pool: the connections.
        schema: of the players.
    """

    def __init__(self, pool: Pool, schema: StateSchema) -> None:
        self._pool = pool
        self._select = Select(schema)

    def load(self, session_id: int) -> Deferred[Stored | None]:
        """See `IStateReader.load`."""
        found = self._pool.ask(lambda session: self._select.one(session, session_id))
        found.addErrback(_busy)
        return found

    def close(self) -> None:
        """See `IStateReader.close`; the store closes the connections."""


def _busy(failure: Failure) -> Failure:
    """The failure of a load; where the database cannot be reached, it may be tried again."""

    def explain(error: psycopg.Error) -> Exception:
        is_passing = isinstance(error, psycopg.OperationalError)
        return StoreBusy(one_line(error)) if is_passing else error

    return translated(failure, explain)
