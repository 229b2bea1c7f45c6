"""What a store in memory must do besides what every store must."""

from __future__ import annotations

from collections.abc import Callable

from playerstate import testing
from playerstate.interfaces import IStateStore, file_store
from playerstate.state.schema import StateSchema
from playerstate.stores.memory import MemoryStore
from tests.kit.databases import EVERYTHING, IDENTITY, PLAIN, spawned


class MemoryStoreContract(testing.StoreContract):
    """The store that forgets, and keeps as long as it lives."""

    migrates = False
    factory: Callable[[StateSchema], MemoryStore] = MemoryStore

    def setUp(self) -> None:
        """Nothing is open yet."""
        self.opened: MemoryStore | None = None

    def open(self, schema: StateSchema) -> IStateStore:
        """One store, which is all there is to open again."""
        if self.opened is None:
            self.opened = self.factory(schema)
        return self.opened

    def test_no_file(self) -> None:
        """There is no file, whose companions could lie beside it."""
        self.assertIsNone(file_store(self.open(PLAIN)))

    def test_identity(self) -> None:
        """One memory is like another: a live file that one left is for the next."""
        self.start()
        self.assertEqual(self.store.migrate(IDENTITY), self.store.prepare())
        self.assertEqual(self.factory(PLAIN).prepare(), self.store.prepare())

    def test_all_or_nothing(self) -> None:
        """A batch with a record that cannot be read leaves nothing of the others."""
        self.start(EVERYTHING)
        batch = spawned(EVERYTHING, [1, 2, 3])
        batch["zone"][1] = b"\xff"
        self.assertRaises(UnicodeDecodeError, self.opened_writer().write, batch)
        self.assertIsNone(self.load(1))
