"""Saves players in a PostgreSQL database: one transaction per batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import psycopg
from zope.interface import implementer

from playerstate.interfaces import (
    IStateWriter,
    LeftOut,
    Records,
    RowRefused,
    StoreBusy,
    StoreInUse,
)
from playerstate.printable import printable_json
from playerstate.state.schema import StateSchema
from playerstate.stores.postgresql.batches import Batches, is_refusal, reason_of
from playerstate.stores.postgresql.locks import Presence
from playerstate.stores.postgresql.session import Command
from playerstate.stores.postgresql.url import Place, one_line

BUSY_CLASSES = ("40", "53", "55")
"""Classes of ``SQLSTATE`` after which the same transaction may succeed: roll-backs, lack of
resources, locks."""
_CANCELLED = "57014"

_QUARANTINE = (
    "INSERT INTO player_refused (session_id, fields, updated_at, reason)"
    " SELECT * FROM unnest(%s::int8[], %s::json[], %s::int8[], %s::text[])"
    " ON CONFLICT (session_id) DO UPDATE SET fields = excluded.fields,"
    " updated_at = excluded.updated_at, reason = excluded.reason,"
    " refused_at = excluded.refused_at"
)


@implementer(IStateWriter)
class PostgreSQLWriter:
    """Saves players, one transaction per batch.

    Args:
        place: of the database.
        schema: of the players.
        presence: of the server; renewed.

    Raises:
        StoreBusy: the database cannot be reached now.
        psycopg.Error: the table does not fit the schema.
    """

    def __init__(self, place: Place, schema: StateSchema, presence: Presence) -> None:
        self._schema = schema
        try:
            presence.renew()
            self._session = place.connect()
        except StoreInUse as error:
            raise StoreBusy(str(error)) from None
        except psycopg.OperationalError as error:
            raise StoreBusy(one_line(error)) from None
        try:
            self._batches = Batches(self._session, schema)
        except BaseException:
            self._session.close()
            raise

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`."""
        if not len(records):
            return LeftOut()
        self._session.forget_interrupt()
        with self._naming_errors():
            try:
                return self._batches.write_all(records)
            except (RowRefused, psycopg.Error) as error:
                if not is_refusal(error):
                    raise
            return self._batches.write_others(records)

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Translate errors after which the same connection can go on."""
        try:
            yield
        except psycopg.Error as error:
            state = error.diag.sqlstate or ""
            if not self._session.is_lost:
                if state[:2] in BUSY_CLASSES or state == _CANCELLED:
                    raise StoreBusy(one_line(error)) from None
                if is_refusal(error):
                    raise RowRefused(reason_of(error)) from None
            raise

    def maintain(self) -> None:
        """See `IStateWriter.maintain`; the server looks after itself."""

    def sync(self) -> None:
        """See `IStateWriter.sync`; every commit was on disk when it was reported."""

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """See `IStateWriter.quarantine`; into the table ``player_refused``."""
        names = [field.name for field in self._schema.stored]
        ids, fields, dates = [], [], []
        for record in records:
            session_id, *packed, updated_at = record.tolist()
            values = self._schema.stored_values(tuple(packed))
            ids.append(session_id)
            fields.append(printable_json(dict(zip(names, values, strict=True))))
            dates.append(updated_at)
        self._session.forget_interrupt()
        with self._naming_errors(), self._batches.transaction(Command(b"SELECT")):
            self._session.execute(_QUARANTINE, (ids, fields, dates, list(reasons)))

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`; the connection is lost by it."""
        self._session.interrupt()

    def close(self) -> None:
        """See `IStateWriter.close`."""
        self._session.close()
