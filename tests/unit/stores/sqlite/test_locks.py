"""The locks of a database in use, which a process loses once it closes the file anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing

from playerstate.interfaces import StoreUnusable
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema
from playerstate.stores import browse_store, open_store
from playerstate.stores.sqlite.files import may_be_database
from tests.kit.databases import DirectoryTestCase, environment, records, take
from tests.kit.support import PATIENCE

SCHEMA = StateSchema.of(PlayerState)
PROBE = """
import fcntl, sys
for path, start, length in ((sys.argv[1], 0x40000000, 512), (sys.argv[1] + "-shm", 120, 9)):
    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
            print("free")
        except BlockingIOError:
            print("held")
"""
"""Asks for all the bytes that SQLite locks, in the database and in the index of its log."""


class LocksTests(DirectoryTestCase):
    """What a running server does with its files."""

    def probe(self) -> list[str]:
        """What another process gets that asks for the files for itself alone."""
        done = subprocess.run(
            [sys.executable, "-c", PROBE, self.path],
            env=environment(),
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=True,
            text=True,
        )
        return done.stdout.split()

    def test_survive(self) -> None:
        """Nothing that is done with the files lets another process have the database."""
        store = open_store(self.url, PlayerState)
        take(store)
        with closing(store.open_writer()) as writer, closing(store.open_reader()) as reader:
            writer.write(records(SCHEMA, (1, 1.0, 2.0, 200)))
            self.assertEqual(self.probe(), ["held", "held"])
            writer.maintain()
            writer.sync()
            writer.maintain()  # the file is another than at the last look
            self.assertEqual(self.probe(), ["held", "held"])
            reader.copy_to(f"{self.path}.copy")
            with closing(browse_store(self.url)) as browser:
                self.assertEqual(browser.count(), 1)
            self.assertTrue(may_be_database(self.path))
            with self.assertRaises(StoreUnusable):
                open_store(self.url, PlayerState).prepare()
            writer.quarantine(records(SCHEMA, (2, 1.0, 2.0, 200)), ["cursed"])
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            self.assertEqual(self.probe(), ["held", "held"])
            self.assertIsNotNone(reader.load(1))
        store.close()

    def test_probe(self) -> None:
        """A plain close of the file is what lets go of it, so the test above can fail."""
        store = open_store(self.url, PlayerState)
        take(store)
        self.addCleanup(store.close)
        with closing(store.open_writer()) as writer:
            writer.write(records(SCHEMA, (1, 1.0, 2.0, 200)))
            open(self.path, "rb").close()
            self.assertEqual(self.probe(), ["free", "held"])
