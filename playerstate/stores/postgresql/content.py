"""What an operator looks at in a PostgreSQL database, beside its servers or without one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from zope.interface import implementer

from playerstate.interfaces import IStoreContent, NotOffered, OnProgress
from playerstate.state.schema import StateSchema
from playerstate.stores.postgresql.browser import expressions, open_to_look, stream
from playerstate.stores.postgresql.format import (
    check_ours,
    plan_migration,
    read_columns,
    read_identity,
)
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import Place, one_line

IDS_A_STATEMENT = 65_536

_READ_ALL = "SELECT count(*) FROM player_state WHERE length(player_state::text) > 0"
_DAMAGED = "XX"
"""The class of ``SQLSTATE`` that begins the codes of damaged data and of faults of the server."""


@implementer(IStoreContent)
class PostgreSQLContent:
    """See `IStoreContent`.  Each method opens a connection of its own, which only reads.

    Args:
        place: of the database.
    """

    live_path = None  # each server has a live file of its own

    def __init__(self, place: Place) -> None:
        self.place = place

    @contextlib.contextmanager
    def look(self) -> Iterator[Session]:
        """A connection to read over.

        Raises:
            StoreUnusable: there are no players, or PostgreSQL fails meanwhile.
        """
        with (
            self.place.explained(),
            contextlib.closing(open_to_look(self.place)) as session,
        ):
            yield session

    def exists(self) -> bool:
        """See `IStoreContent.exists`."""
        with self.place.explained(), contextlib.closing(self.place.connect()) as session:
            return check_ours(session, self.place)

    def identity(self) -> bytes:
        """See `IStoreContent.identity`."""
        with self.look() as session:
            return read_identity(session, self.place)

    def count(self) -> int:
        """See `IStoreContent.count`."""
        with self.look() as session:
            return _number(session, "SELECT count(*) FROM player_state")

    def columns(self) -> Sequence[str]:
        """See `IStoreContent.columns`."""
        with self.look() as session:
            return tuple(read_columns(session))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """See `IStoreContent.rows`; a column of another program is read as text."""
        with self.look() as session:
            names = expressions(read_columns(session))
            yield from stream(session, f"SELECT {names} FROM player_state ORDER BY session_id")

    def updated_at(self, session_ids: Iterable[int]) -> dict[int, int]:
        """See `IStoreContent.updated_at`."""
        found: dict[int, int] = {}
        wanted = iter(session_ids)
        with self.look() as session:
            while part := list(itertools.islice(wanted, IDS_A_STATEMENT)):
                rows = session.execute(
                    "SELECT session_id, updated_at FROM player_state WHERE session_id = ANY(%s)",
                    (part,),
                )
                found.update(rows.fetchall())
        return found

    def plan(self, schema: StateSchema) -> Sequence[str]:
        """See `IStoreContent.plan`."""
        with self.look() as session:
            return plan_migration(session, self.place, schema)

    def check(self) -> Sequence[str]:
        """See `IStoreContent.check`; every row is read by the table and by its index."""
        with self.look() as session:
            try:
                table = _number(session, _READ_ALL)
                session.execute("SET enable_seqscan = off")
                session.execute("SET enable_bitmapscan = off")
                index = _number(session, "SELECT count(*) FROM player_state WHERE session_id > 0")
            except psycopg.Error as error:
                if not (error.diag.sqlstate or "").startswith(_DAMAGED):
                    raise
                return [one_line(error)]
        if table == index:
            return []
        return [f"the table has {table} players, and its index {index}"]

    def quarantined(self) -> int:
        """See `IStoreContent.quarantined`."""
        with self.look() as session:
            return _number(session, "SELECT count(*) FROM player_refused")

    def backup(self, path: str, progress: OnProgress) -> int:
        """See `IStoreContent.backup`; PostgreSQL has its own tools for that."""
        raise not_offered(self.place, "no backup", "make one by pg_dump or pg_basebackup")


def _number(session: Session, sql: str) -> int:
    found = session.execute(sql).fetchone()
    assert found is not None
    number: int = found[0]
    return number


def not_offered(place: Place, what: str, instead: str) -> NotOffered:
    """The error of what is left to PostgreSQL's own tools."""
    return NotOffered(f"{place}: playerstate makes {what} of a PostgreSQL database; {instead}")
