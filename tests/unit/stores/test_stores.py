"""Opening a store by its URL, and a store that knows only the interfaces."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass

from playerstate import stores, testing
from playerstate.interfaces import (
    IStateReader,
    IStateStore,
    IStateWriter,
    IStoreBrowser,
    IStoreFactory,
    NotOffered,
    Stored,
    StoreUnusable,
)
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema, text
from playerstate.stores import StoreFactory, browse_store, open_store, operate_store
from playerstate.stores.memory import MemoryStore
from playerstate.stores.sqlite.browser import SQLiteBrowser
from playerstate.stores.sqlite.reader import SQLiteReader
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.stores.sqlite.writer import SQLiteWriter
from playerstate.testing import FaultyStore
from tests.kit.columnstore import ColumnStore, Table
from tests.kit.databases import EVERYTHING, take
from tests.kit.support import field, made


class ColumnStoreTests(testing.StoreContract):
    """A store that another author wrote from the interfaces alone."""

    many = 20_000

    def setUp(self) -> None:
        """The table is empty."""
        self.table = Table()

    def open(self, schema: StateSchema) -> IStateStore:
        """A store over the same table each time."""
        return ColumnStore(schema, self.table)

    def started(self, *player: Any, **fields: Any) -> None:
        """Start once with a state class of these fields, and save a player, if one is given."""
        self.start(StateSchema.of(made(**fields)))
        if player:
            self.write(player)
        self.ends.close()

    def test_columns(self) -> None:
        """Each kind of field says which column it wants."""
        self.start(EVERYTHING)
        expected = {"x": "double precision", "hp": "bigint", "alive": "boolean", "zone": "text"}
        self.assertEqual(self.table.columns, expected | {"angle": "double precision"})

    def test_new_field(self) -> None:
        """Players who are stored have the default of a field that is new, as its own type."""
        self.started(7, 2.0, 1, x=field(float, 1.0))
        more = made(x=field(float, 1.0), y=field(float, 3), alive=field(bool, np.True_))
        self.start(StateSchema.of(more))
        self.assertEqual(self.load(7), Stored((2.0, 3.0, True), 1))

    def test_changed_field(self) -> None:
        """A field that wants another column now is refused, and so is a text that has shrunk."""
        self.started(7, 1.0, "abcd", 1, x=field(float, 1.0), zone=field(str, "", text(4)))
        self.started(zone=field(str, "", text(9)))
        for wrong in ({"x": field(int, 1)}, {"zone": field(str, "", text(3))}):
            with self.assertRaises(StoreUnusable):
                take(self.open(StateSchema.of(made(**wrong))))


class ClassTests(SynchronousTestCase):
    """Classes against the interfaces they say they implement."""

    def test_verified(self) -> None:
        """Every store class has the methods of its interfaces, with their arguments."""
        for interface, implementation in (
            (IStateStore, MemoryStore),
            (IStateReader, MemoryStore),
            (IStateWriter, MemoryStore),
            (IStateStore, FaultyStore),
            (IStateReader, FaultyStore),
            (IStateWriter, FaultyStore),
            (IStateStore, ColumnStore),
            (IStateReader, ColumnStore),
            (IStateWriter, ColumnStore),
            (IStateStore, SQLiteStore),
            (IStateReader, SQLiteReader),
            (IStateWriter, SQLiteWriter),
            (IStoreBrowser, SQLiteBrowser),
            (IStoreFactory, StoreFactory),
        ):
            self.assertTrue(verifyClass(interface, implementation), implementation)

    def test_stored(self) -> None:
        """A stored player cannot be changed."""
        stored = Stored((1.0, 2.0), 3)
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            stored.updated_at = 4


class UrlTests(SynchronousTestCase):
    """What is no URL of a store, and is refused before any file is made."""

    def test_slashes(self) -> None:
        """Slashes as other programs write them are refused, with what was meant by them."""
        for url in ("sqlite://a.db", "sqlite:///a.db", "sqlite:////a.db"):
            for ask in (partial(open_store, state=PlayerState), browse_store):
                with self.assertRaisesRegex(StoreUnusable, "write sqlite:a.db .*or sqlite:/a.db"):
                    ask(url)

    def test_path(self) -> None:
        """A path is no URL, and the line says how it is written as one."""
        for ask in (partial(open_store, state=PlayerState), browse_store):
            with self.assertRaisesRegex(TypeError, "as in 'sqlite:players.db'"):
                ask(Path("a.db"))

    def test_not_operated(self) -> None:
        """A factory of the first interface alone has stores that no command operates on."""
        factory = StoreFactory("odd", "playerstate.stores.memory")
        self.patch(stores, "_find_factory", lambda url: OldFactory())
        for operate in (operate_store, factory.operate):
            error = self.assertRaises(NotOffered, operate, "odd:x")
            self.assertIn("odd:x: this store offers no such command", str(error))

    def test_missing_extra(self) -> None:
        """A store whose library is not installed says which extra brings it."""
        ours = [name for name in sys.modules if name.startswith("playerstate.stores.postgresql.")]
        loaded = {name: sys.modules.pop(name) for name in (*ours, "psycopg") if name in sys.modules}
        sys.modules["psycopg"] = None  # importing it fails
        self.addCleanup(sys.modules.update, loaded)
        self.addCleanup(sys.modules.pop, "psycopg")
        for ask in (partial(open_store, state=PlayerState), browse_store, operate_store):
            with self.assertRaisesRegex(StoreUnusable, r"install 'playerstate\[postgresql\]'"):
                ask("postgresql://db/game")


@implementer(IStoreFactory)
class OldFactory:
    """Opens stores, and does no more."""
