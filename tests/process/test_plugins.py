"""What Twisted finds: our stores by their scheme, and those of others."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from playerstate.interfaces import IStoreFactory, StoreUnusable
from playerstate.state.default import PlayerState
from playerstate.state.schema import SchemaError, StateSchema
from playerstate.stores import StoreFactory, browse_store, open_store
from playerstate.stores.memory import MemoryStore
from playerstate.stores.sqlite.store import SQLiteStore
from tests.kit.databases import DirectoryTestCase, environment
from tests.kit.support import PATIENCE

DEMO_PLUGIN = """
from playerstate import StoreFactory

demo = StoreFactory("demo", "demo_store")
"""

OTHER_PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import implementer

from playerstate.interfaces import IStoreFactory
from playerstate.stores.memory import MemoryStore


@implementer(IPlugin, IStoreFactory)
class Factory:
    scheme = "other"

    def open(self, url, schema):
        store = MemoryStore(schema)
        store.url = url
        return store

    def browse(self, url):
        raise NotImplementedError


factory = Factory()
"""

DEMO_STORE = """
from zope.interface import implementer

from playerstate.interfaces import (
    IStateReader,
    IStateStore,
    IStateWriter,
    LeftOut,
    Stored,
    StoreUnusable,
)


def open_url(url, schema):
    if url == "demo:":
        raise StoreUnusable("'demo:' names no shelf")
    return Store(url, schema)


def browse_url(url):
    raise StoreUnusable(f"{url!r}: a demo shows nothing")


@implementer(IStateStore)
class Store:
    lanes = 1

    def __init__(self, url, schema):
        self.url = url
        self.schema = schema
        self.identity = bytes(16)
        self.calls = []
        self.shelf = {}

    def prepare(self):
        self.calls.append("prepare")
        return self.identity

    def migrate(self, identity):
        self.calls.append("migrate")
        self.identity = identity
        return identity

    def open_reader(self):
        self.calls.append("open_reader")
        return Reader(self)

    def open_writer(self):
        self.calls.append("open_writer")
        return Writer(self)

    def describe(self):
        return self.url

    def close(self):
        self.calls.append("close")


@implementer(IStateReader)
class Reader:
    def __init__(self, store):
        self.store = store

    def load(self, session_id):
        return self.store.shelf.get(session_id)

    def close(self):
        self.store.calls.append("close reader")


@implementer(IStateWriter)
class Writer:
    def __init__(self, store):
        self.store = store

    def write(self, records):
        for session_id, *values, updated_at in records.tolist():
            self.store.shelf[session_id] = Stored(tuple(values), updated_at)
        return LeftOut()

    def maintain(self):
        pass

    def quarantine(self, records, reasons):
        self.store.calls.append("quarantine")

    def sync(self):
        self.store.calls.append("sync")

    def interrupt(self):
        pass

    def close(self):
        self.store.calls.append("close writer")
"""

END_TO_END = """
from zope.interface.verify import verifyObject

from playerstate import PlayerState
from playerstate.interfaces import IStateReader, IStateStore, IStateWriter
from playerstate.stores import open_store
from playerstate.testing import SteppedService

store = open_store("demo:whatever", PlayerState)
verifyObject(IStateStore, store)
verifyObject(IStateReader, store.open_reader())
verifyObject(IStateWriter, store.open_writer())
store.calls.clear()

stepped = SteppedService(store=store)
assert stepped.join(42).state == PlayerState()
stepped.service.update(42, PlayerState(1.0, 2.0))
flushed = stepped.service.flush()
stepped.settle()
assert flushed.called
assert store.shelf[42].values == (1.0, 2.0), store.shelf
stopped = stepped.stop()
assert stopped.called

again = SteppedService(store=store)
joined = again.join(42)
assert joined.restored and joined.state == PlayerState(1.0, 2.0), joined
again.stop()
print(store.url, *store.calls, sep=", ")
"""


class OurPluginsTests(SynchronousTestCase):
    """What this package brings."""

    def factories(self) -> dict[str, Any]:
        """The store factories found, by scheme."""
        return {factory.scheme: factory for factory in getPlugins(IStoreFactory)}

    def test_schemes(self) -> None:
        """``sqlite:`` and ``memory:`` are found."""
        self.assertLessEqual({"sqlite", "memory"}, self.factories().keys())

    def test_interfaces(self) -> None:
        """Each factory provides what it says."""
        for factory in self.factories().values():
            self.assertTrue(verifyObject(IPlugin, factory))
            self.assertTrue(verifyObject(IStoreFactory, factory))

    def test_service(self) -> None:
        """So is the service, under the name that twistd is given."""
        (maker,) = (m for m in getPlugins(IServiceMaker) if m.tapname == "playerstate")
        self.assertTrue(verifyObject(IServiceMaker, maker))

    def test_module_by_name(self) -> None:
        """A factory has its module open the URL, and look into it."""
        factory = StoreFactory("any", "playerstate.stores.memory")
        schema = StateSchema.of(PlayerState)
        self.assertIs(factory.open("memory:", schema).schema, schema)
        self.assertRaises(StoreUnusable, factory.browse, "memory:")


class OpenStoreTests(DirectoryTestCase):
    """From a URL to a store."""

    def test_class(self) -> None:
        """A store is opened for a state class."""
        store = open_store("memory:", PlayerState)
        self.assertIsInstance(store, MemoryStore)
        self.assertIs(store.schema.state_class, PlayerState)

    def test_schema(self) -> None:
        """Or for its schema, which it then has as it is."""
        schema = StateSchema.of(PlayerState)
        self.assertIs(open_store("memory:", schema).schema, schema)

    def test_unpackable_class(self) -> None:
        """A class that cannot be packed is refused as such."""
        self.assertRaises(SchemaError, open_store, "memory:", int)

    def test_sqlite(self) -> None:
        """The scheme says which store it is."""
        self.assertIsInstance(open_store(self.url, PlayerState), SQLiteStore)

    def test_unknown_scheme(self) -> None:
        """Where there is no such store, those there are are listed."""
        for url in ("redis:players", "SQLITE:players.db", ":players.db", ""):
            for find in (lambda url: open_store(url, PlayerState), browse_store):
                with self.assertRaises(StoreUnusable) as caught:
                    find(url)
                line = self.assert_one_line(caught.exception)
                self.assertIn(f"no store is called {url!r}", line)
                self.assertIn("memory:, postgresql:, sqlite:", line)

    def test_no_scheme(self) -> None:
        """A path alone is no URL, not even where it begins as a scheme does."""
        for url in ("players.db", "sqlite", "memory"):
            with self.assertRaisesRegex(StoreUnusable, "a store is SCHEME:REST"):
                open_store(url, PlayerState)


class PluginDirectoryTests(DirectoryTestCase):
    """Stores that others bring, in a directory of their own on the path of a new process."""

    def setUp(self) -> None:
        """The directory holds two plugins, and the module that one of them names."""
        super().setUp()
        plugins = os.path.join(self.directory, "twisted", "plugins")
        os.makedirs(plugins)
        for path, content in (
            (os.path.join(plugins, "demo_plugin.py"), DEMO_PLUGIN),
            (os.path.join(plugins, "other_plugin.py"), OTHER_PLUGIN),
            (os.path.join(self.directory, "demo_store.py"), DEMO_STORE),
        ):
            with open(path, "w") as file:
                file.write(content)

    def run_script(self, script: str) -> str:
        """What the script prints, in a process with that directory on its path."""
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            cwd=self.directory,
            env=environment(self.directory),
            capture_output=True,
            timeout=PATIENCE,
            text=True,
        )
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        return ran.stdout

    def test_end_to_end(self) -> None:
        """A store that was dropped into ``twisted/plugins/`` serves a service, start to stop."""
        self.assertEqual(
            self.run_script(END_TO_END),
            "demo:whatever"
            ", prepare, migrate, open_reader, open_writer, sync, close writer, close reader, close"
            ", prepare, migrate, open_reader, open_writer, sync, close writer, close reader, close"
            "\n",
        )

    def test_factory_of_any_class(self) -> None:
        """A factory may be any object that provides the interface; it is given the whole URL."""
        script = (
            "from playerstate import PlayerState\n"
            "from playerstate.stores import open_store\n"
            "print(open_store('other:a:b?c', PlayerState).url)\n"
        )
        self.assertEqual(self.run_script(script), "other:a:b?c\n")

    def test_listed(self) -> None:
        """The line for an unknown scheme lists the stores of others too, in order."""
        script = (
            "from playerstate.interfaces import StoreUnusable\n"
            "from playerstate.stores import browse_store\n"
            "try:\n"
            "    browse_store('redis:')\n"
            "except StoreUnusable as error:\n"
            "    print(error)\n"
        )
        self.assertEqual(
            self.run_script(script),
            "no store is called 'redis:': a store is SCHEME:REST, with demo:, memory:, other:,"
            " postgresql:, sqlite:\n",
        )

    def test_refusals_of_others(self) -> None:
        """What another store says of its URLs comes through as it is."""
        script = (
            "from playerstate import PlayerState\n"
            "from playerstate.interfaces import StoreUnusable\n"
            "from playerstate.stores import browse_store, open_store\n"
            "for call in (lambda: open_store('demo:', PlayerState),"
            " lambda: browse_store('demo:x')):\n"
            "    try:\n"
            "        call()\n"
            "    except StoreUnusable as error:\n"
            "        print(error)\n"
        )
        self.assertEqual(
            self.run_script(script), "'demo:' names no shelf\n'demo:x': a demo shows nothing\n"
        )

    def test_finding_imports_nothing(self) -> None:
        """Finding a store imports no other: SQLite is left alone by who keeps players in memory."""
        script = (
            "import sys\n"
            "from playerstate.state.default import PlayerState\n"
            "from playerstate.stores import open_store\n"
            "open_store('memory:', PlayerState)\n"
            "print({'apsw', 'demo_store', 'playerstate.stores.sqlite.store'} & {*sys.modules})\n"
        )
        self.assertEqual(self.run_script(script), "set()\n")
