"""A PostgreSQL database that an operator changes while no server can write to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

import psycopg
from zope.interface import implementer

from playerstate.interfaces import (
    Erased,
    IHeldStore,
    LeftOut,
    OnProgress,
    Records,
    RowRefused,
    Stored,
    StoreUnusable,
)
from playerstate.state.schema import StateSchema
from playerstate.stores.postgresql.batches import Batches, NotSaved, is_refusal, reason_of
from playerstate.stores.postgresql.content import PostgreSQLContent, not_offered
from playerstate.stores.postgresql.erasing import delete_player
from playerstate.stores.postgresql.format import check_ours, migrate_database, no_players
from playerstate.stores.postgresql.locks import take
from playerstate.stores.postgresql.reader import Select
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import Place


@implementer(IHeldStore)
class PostgreSQLHeld(PostgreSQLContent):
    """See `IHeldStore`.  One connection holds the lock, and makes all changes.

    Args:
        place: of the database.

    Raises:
        StoreInUse: a server, or another command, uses it.
        StoreUnusable: it cannot be reached.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        with place.explained():
            self._session = place.connect()
            try:
                self._session.patience = None
                take(self._session, place, shared=False)
            except BaseException:
                self._session.close()
                raise

    @contextlib.contextmanager
    def _change(self) -> Iterator[Session]:
        """The connection that holds the lock, where there are players.

        If the connection was lost, so was the lock, and each call of it fails.
        """
        with self.place.explained():
            if not check_ours(self._session, self.place):
                raise no_players(self.place)
            yield self._session

    def migrate(self, schema: StateSchema) -> None:
        """See `IHeldStore.migrate`."""
        with self.place.explained():
            migrate_database(self._session, self.place, schema, os.urandom(16))

    def load(self, schema: StateSchema, session_ids: Iterable[int]) -> dict[int, Stored]:
        """See `IHeldStore.load`."""
        with self._change() as session:
            return Select(schema).many(session, session_ids)

    def write(self, schema: StateSchema, records: Records) -> LeftOut:
        """See `IHeldStore.write`."""
        if not len(records):
            return LeftOut()
        with self._change() as session:
            batches = Batches(session, schema)
            try:
                return batches.write_all(records)
            except (RowRefused, psycopg.Error) as error:
                if not is_refusal(error):
                    raise
                if refused := batches.name_refused(records):
                    return LeftOut(refused=refused)
                raise StoreUnusable(
                    f"{self.place} refuses these rows together: {reason_of(error)}; nothing"
                    " was saved"
                ) from None
            except NotSaved as error:
                raise StoreUnusable(f"{self.place}: {error}; import the same again") from None

    def erase(self, session_id: int) -> Erased:
        """See `IHeldStore.erase`."""
        with self._change() as session:
            return delete_player(session, session_id)

    def idle(self, before: int) -> int:
        """See `IHeldStore.idle`."""
        with self._change() as session:
            found = session.execute(
                "SELECT count(*) FROM player_state WHERE updated_at < %s", (before,)
            ).fetchone()
        assert found is not None
        count: int = found[0]
        return count

    def prune(self, before: int) -> int:
        """See `IHeldStore.prune`."""
        with self._change() as session:
            return session.execute(
                "DELETE FROM player_state WHERE updated_at < %s", (before,)
            ).rowcount

    def restore(self, path: str, progress: OnProgress) -> Sequence[str]:
        """See `IHeldStore.restore`; PostgreSQL has its own tools for that."""
        raise not_offered(self.place, "and restores no backup", "restore one by pg_restore")

    def close(self) -> None:
        """See `IHeldStore.close`."""
        self._session.close()
