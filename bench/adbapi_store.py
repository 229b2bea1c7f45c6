"""A store on `twisted.enterprise.adbapi`, as a program would write it: to compare with ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from zope.interface import implementer

from bench.ours import SCHEMA, new_database
from bench.upsert import SELECT, SYNCHRONOUS
from bench.writers import adbapi_pool, upsert_each
from playerstate.interfaces import IStateReader, IStateStore, IStateWriter, LeftOut, Records, Stored


@implementer(IStateStore, IStateReader, IStateWriter)
class AdbapiStore:
    """A new database behind a pool of one connection, shared by loads and saves.

    Args:
        path: of the database, which must not exist yet.
        reactor: the pool's.
    """

    schema = SCHEMA
    lanes = 1

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor

    def prepare(self) -> bytes:
        """Create the database."""
        new_database(self._path, SYNCHRONOUS).close()
        self._pool = adbapi_pool(self._reactor, self._path)
        return bytes(16)

    def migrate(self, identity: bytes) -> bytes:
        """Does nothing: the schema is current."""
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
        """See `IStateReader.load`; on the pool's thread."""
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
        """Checkpoint the log into the database."""
        self._wait_for(self._pool.runQuery, "PRAGMA wal_checkpoint")

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """Does nothing: no row is refused."""

    def interrupt(self) -> None:
        """Does nothing: the caller waits for each call."""

    def close(self) -> None:
        """Does nothing: the pool closes with the reactor; reader and writer are the store."""


def _stored(rows: list[tuple[Any, ...]]) -> Stored | None:
    return Stored(tuple(rows[0][:-1]), rows[0][-1]) if rows else None
