"""Reads a PostgreSQL database of players from outside, with or without a server running."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zope.interface import implementer

from playerstate.interfaces import IStoreBrowser
from playerstate.stores.postgresql.columns import column_of, quoted
from playerstate.stores.postgresql.format import check_ours, no_players, read_columns
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import Place

ROWS_AT_A_TIME = 4096
"""Rows that the server sends in one answer, where there may be many."""


def open_to_look(place: Place) -> Session:
    """Connect to a database of players in order to read it, of several hosts to any.

    Raises:
        StoreUnusable: there are no players.
        psycopg.Error: it cannot be reached.
    """
    session = place.connect(target_session_attrs="any")
    try:
        session.patience = None
        session.execute("SET default_transaction_read_only = on")
        if not check_ours(session, place):
            raise no_players(place)
    except BaseException:
        session.close()
        raise
    return session


def expressions(columns: dict[str, str]) -> str:
    """What selects these columns; those of other programs as text."""
    return ", ".join(
        quoted(name) if column_of(declared) is not None else f"{quoted(name)}::text"
        for name, declared in columns.items()
    )


def stream(session: Session, sql: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a query as one moment saw them, some at a time."""
    with session.transaction(), session.cursor("playerstate_rows") as cursor:
        cursor.itersize = ROWS_AT_A_TIME
        cursor.execute(sql)
        yield from cursor


@implementer(IStoreBrowser)
class PostgreSQLBrowser:
    """Reads a database of players, and never writes."""

    def __init__(self, place: Place) -> None:
        self._place = place
        with place.explained():
            self._session = open_to_look(place)
            try:
                columns = read_columns(self._session)
            except BaseException:
                self._session.close()
                raise
        self.columns = tuple(columns)
        self._select = f"SELECT {expressions(columns)} FROM player_state"

    def count(self) -> int:
        """See `IStoreBrowser.count`."""
        with self._place.explained():
            found = self._session.execute("SELECT count(*) FROM player_state").fetchone()
        assert found is not None
        count: int = found[0]
        return count

    def latest(self, limit: int | None) -> Iterator[tuple[Any, ...]]:
        """See `IStoreBrowser.latest`."""
        most = "" if limit is None else f" LIMIT {limit:d}"
        with self._place.explained():
            yield from stream(
                self._session, f"{self._select} ORDER BY updated_at DESC, session_id{most}"
            )

    def find(self, session_id: int) -> tuple[Any, ...] | None:
        """See `IStoreBrowser.find`."""
        with self._place.explained():
            # Without parameters, since the name of a column may hold a percent sign.
            return self._session.execute(
                f"{self._select} WHERE session_id = {session_id:d}"
            ).fetchone()

    def close(self) -> None:
        """See `IStoreBrowser.close`."""
        self._session.close()
