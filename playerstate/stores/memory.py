"""A store in memory: it keeps players as long as the store object lives.

For tests and trials.  URL: ``memory:``, or ``memory:?lanes=4`` for a store that is written over
four lanes at a time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zope.interface import implementer

from playerstate.interfaces import (
    MOST_LANES,
    Erased,
    IErasableStore,
    IStateReader,
    IStateWriter,
    IStoreBrowser,
    LeftOut,
    Records,
    Stored,
    StoreUnusable,
)
from playerstate.state.schema import StateSchema

IDENTITY = b"playerstate-mem."
"""All memory stores share it, so that a new process recovers the leftover of the last one."""


def open_url(url: str, schema: StateSchema) -> MemoryStore:
    """See `playerstate.interfaces.IStoreFactory.open`."""
    if url == "memory:":
        return MemoryStore(schema)
    lanes = re.fullmatch(r"memory:\?lanes=([1-9][0-9]?)", url)
    if lanes is None or int(lanes[1]) > MOST_LANES:
        raise StoreUnusable(
            f"{url!r}: nothing may follow memory: but ?lanes= with a number from 1 to {MOST_LANES}"
        )
    return MemoryStore(schema, int(lanes[1]))


def browse_url(url: str) -> IStoreBrowser:
    """See `playerstate.interfaces.IStoreFactory.browse`."""
    raise StoreUnusable(f"{url!r}: a memory store exists only in its server's process")


@implementer(IErasableStore, IStateReader, IStateWriter)
class MemoryStore:
    """The store, its reader and its writer, over one dict.

    A persist thread replaces a player's `Stored` as a whole, so the reactor thread reads either the
    old one or the new.

    Args:
        schema: of the players.
        lanes: see `IStateStore`; more than one gains no speed, and is for tests.

    Attributes:
        players: the stored players, by session id.
    """

    def __init__(self, schema: StateSchema, lanes: int = 1) -> None:
        self.schema = schema
        self.lanes = lanes
        self.players: dict[int, Stored] = {}

    def prepare(self) -> bytes:
        """See `IStateStore.prepare`; there is nothing to lock."""
        return IDENTITY

    def migrate(self, identity: bytes) -> bytes:
        """See `IStateStore.migrate`; there is nothing to migrate."""
        return IDENTITY

    def open_reader(self) -> IStateReader:
        """The store itself."""
        return self

    def open_writer(self) -> IStateWriter:
        """The store itself."""
        return self

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return "memory"

    def load(self, session_id: int) -> Stored | None:
        """See `IStateReader.load`."""
        return self.players.get(session_id)

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`."""
        newer = []
        taken: dict[int, Stored] = {}
        for index, record in enumerate(records):
            session_id, *fields, updated_at = record.tolist()
            values = self.schema.stored_values(tuple(fields))
            before = self.players.get(session_id)
            if before is not None and before.updated_at > updated_at:
                newer.append(index)
            else:
                taken[session_id] = Stored(values, updated_at)
        self.players.update(taken)
        return LeftOut(newer)

    def maintain(self) -> None:
        """See `IStateWriter.maintain`; there is nothing to maintain."""

    def sync(self) -> None:
        """See `IStateWriter.sync`; there is no disk."""

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """See `IStateWriter.quarantine`; the rows are only logged: there is no file for them."""

    def erase(self, session_id: int) -> Erased:
        """See `IErasableStore.erase`."""
        return Erased(int(self.players.pop(session_id, None) is not None), 0)

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`; no call runs for long."""

    def close(self) -> None:
        """Close nothing: the stored players stay, for the next start on the same store."""
