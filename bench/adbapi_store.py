"""A store as one would write it on `twisted.enterprise.adbapi`: for the service, beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from zope.interface import implementer

from bench.ours import SCHEMA, new_database
from bench.upsert import SYNCHRONOUS
from bench.writers import adbapi_pool, upsert_each
from playerstate.interfaces import IStateReader, IStateStore, IStateWriter, LeftOut, Records, Stored

SELECT = 'SELECT "x", "y", updated_at FROM player_state WHERE session_id = ?'


@implementer(IStateStore, IStateReader, IStateWriter)
class AdbapiStore:
    """A new database behind a pool of one connection, which loads and saves take turns on.

    Args:
        path: of the database; not there yet.
        reactor: the pool's.
    """

    schema = SCHEMA
    lanes = 1

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor

    def prepare(self) -> bytes:
        """Make the database."""
        new_database(self._path, SYNCHRONOUS).close()
        self._pool = adbapi_pool(self._reactor, self._path)
        return bytes(16)

    def migrate(self, identity: bytes) -> bytes:
        """It is as it is to be."""
        return identity

    def open_reader(self) -> IStateReader:
        """The store itself."""
        return self

    def open_writer(self) -> IStateWriter:
        """The store itself."""
        return self

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return f"adbapi:{self._path}"

    def load(self, session_id: int) -> Deferred[Stored | None]:
        """See `IStateReader.load`; by the pool's thread."""
        return self._pool.runQuery(SELECT, (session_id,)).addCallback(_stored)

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`; in one interaction."""
        self._wait_for(self._pool.runInteraction, upsert_each, records.tolist())
        return LeftOut()

    def _wait_for(self, function: Any, *arguments: Any) -> None:
        blockingCallFromThread(self._reactor, function, *arguments)

    def maintain(self) -> None:
        """SQLite checkpoints by itself, inside a commit."""

    def sync(self) -> None:
        """Bring the log into the database."""
        self._wait_for(self._pool.runQuery, "PRAGMA wal_checkpoint")

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """Nothing is refused."""

    def interrupt(self) -> None:
        """It is waited for."""

    def close(self) -> None:
        """The pool closes with the reactor: reader, writer and store are one."""


def _stored(rows: list[tuple[Any, ...]]) -> Stored | None:
    return Stored(tuple(rows[0][:-1]), rows[0][-1]) if rows else None
