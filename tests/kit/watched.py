"""A store in memory that notes what is done with it, and fails where told."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from playerstate import StoreUnusable
from playerstate.interfaces import IStateReader, IStateStore, IStateWriter
from playerstate.testing import FaultyStore
from tests.kit.players import SCHEMA


@implementer(IStateReader, IStateWriter)
class End:
    """A reader or a writer that notes what is done with it."""

    def __init__(self, name: str, store: WatchedStore) -> None:
        self.name = name
        self.store = store

    def load(self, session_id: int) -> Any:
        """See `IStateReader.load`."""
        return self.store.inner.load(session_id)

    def write(self, records: Any) -> Any:
        """See `IStateWriter.write`."""
        self.store.calls.append("write")
        return self.store.inner.write(records)

    def maintain(self) -> None:
        """See `IStateWriter.maintain`."""

    def sync(self) -> None:
        """See `IStateWriter.sync`."""
        self.store.calls.append("sync")
        self.store.fail("sync")

    def quarantine(self, records: Any, reasons: Any) -> None:
        """See `IStateWriter.quarantine`."""

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`."""
        self.store.calls.append("interrupt")

    def close(self) -> None:
        """See `IStateWriter.close`."""
        self.store.calls.append(f"close {self.name}")
        self.store.fail(f"close {self.name}")


@implementer(IStateStore)
class WatchedStore:
    """A store in memory that notes what is done with it, and fails where told.

    Attributes:
        calls: what was called.
        failing: which calls raise `StoreUnusable`.
        identities: what `migrate` was given.
    """

    schema = SCHEMA
    lanes = 1

    def __init__(self) -> None:
        self.inner = FaultyStore(SCHEMA)
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.identities: list[bytes] = []

    def fail(self, call: str) -> None:
        """Raise if it is to fail."""
        if call in self.failing:
            raise StoreUnusable(call)

    def prepare(self) -> bytes:
        """See `IStateStore.prepare`."""
        self.calls.append("prepare")
        self.fail("prepare")
        return self.identities[-1] if self.identities else bytes(16)

    def migrate(self, identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""
        self.calls.append("migrate")
        self.identities.append(identity)
        self.fail("migrate")
        return identity

    def open_reader(self) -> End:
        """See `IStateStore.open_reader`."""
        self.calls.append("open_reader")
        self.fail("open_reader")
        return End("reader", self)

    def open_writer(self) -> End:
        """See `IStateStore.open_writer`."""
        return End("writer", self)

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return "watched"

    def close(self) -> None:
        """See `IStateStore.close`."""
        self.calls.append("close store")
        self.fail("close store")
