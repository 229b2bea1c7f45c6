"""A store that forgets: players are kept as long as the store object lives.

For tests and trials.  URL: ``memory:``, or ``memory:?lanes=4`` for one that is written over so many
lanes at a time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zope.interface import implementer

from playerstate.interfaces import (
    MOST_LANES,
    IStateReader,
    IStateStore,
    IStateWriter,
    IStoreBrowser,
    LeftOut,
    Records,
    Stored,
    StoreUnusable,
)
from playerstate.state.schema import StateSchema

IDENTITY = b"playerstate-mem."
"""Of every memory: what a process left in its live file is for the next, which forgot the rest."""


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
    raise StoreUnusable(f"{url!r}: a memory store lives in its server alone")


@implementer(IStateStore, IStateReader, IStateWriter)
class MemoryStore:
    """All three of a store's faces over one dict.

    A persist thread writes what the reactor thread reads, a whole `Stored` at a time, so each
    sees either the old one or the new.

    Args:
        schema: of the players.
        lanes: see `IStateStore`; it gains nothing from several, but tests of them do.

    Attributes:
        players: what is stored, by session id.
    """

    def __init__(self, schema: StateSchema, lanes: int = 1) -> None:
        self.schema = schema
        self.lanes = lanes
        self.players: dict[int, Stored] = {}

    def prepare(self) -> bytes:
        """There is nothing to take hold of, and one memory is like another."""
        return IDENTITY

    def migrate(self, identity: bytes) -> bytes:
        """There is nothing to migrate."""
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
            values = self.schema.decode(tuple(fields))
            before = self.players.get(session_id)
            if before is not None and before.updated_at > updated_at:
                newer.append(index)
            else:
                taken[session_id] = Stored(values, updated_at)
        self.players.update(taken)
        return LeftOut(newer)

    def maintain(self) -> None:
        """There is nothing to maintain."""

    def sync(self) -> None:
        """There is no disk."""

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """The log tells of them; a memory has no place beside it."""

    def interrupt(self) -> None:
        """Nothing here runs for long."""

    def close(self) -> None:
        """What is stored stays, for the next start on the same store."""
