"""Servers of players on a PostgreSQL that is killed, replaced, or started on by many at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import Records, StoreBusy
from playerstate.state.schema import StateSchema
from playerstate.stores.contract.states import IDENTITY, PLAIN, spawned, state_class
from playerstate.stores.postgresql.format import migrate_database
from playerstate.stores.postgresql.locks import Presence
from playerstate.stores.postgresql.url import parse_url
from playerstate.stores.postgresql.writer import PostgreSQLWriter
from tests.kit.postgresql import PostgreSQL
from tests.kit.processes import Player, Server
from tests.kit.support import PATIENCE

OF_OURS = str(Path(__file__).parents[2])
START = """
import sys, time
sys.path.append({ours!r})
import attrs
from playerstate import StateSchema
from playerstate.interfaces import StoreUnusable
from playerstate.stores.contract.states import state_class
from playerstate.stores.postgresql.store import PostgreSQLStore
from playerstate.stores.postgresql.url import parse_url
from playerstate.testing import MemoryReactor

def wait(deferred):
    found = []
    deferred.addBoth(found.append)
    while not found:
        reactor.deliver()
        time.sleep(0.001)
    return found[0]

reactor = MemoryReactor()
state = state_class(x=1.5, **{{f"f{{i}}": 0.5 for i in range(20)}}, hp=100, zone="spawn")
store = PostgreSQLStore(parse_url({url!r}), StateSchema.of(state), reactor)
identity = wait(store.prepare())
print("ready", flush=True)
sys.stdin.readline()
print(identity, wait(store.migrate(b"n" * 16)), flush=True)
store.close()
"""
"""Prepares a store for a class that has grown, and migrates it when told to."""


class ServerTestCase(SynchronousTestCase):
    """A PostgreSQL of the test's own, which may be killed."""

    def setUp(self) -> None:
        """Start it, and make a database."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.database_server = PostgreSQL()
        self.addCleanup(self.database_server.remove)
        self.database = self.database_server.make_database()
        self.url = self.database_server.url(self.database)

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement by hand."""
        return self.database_server.sql(self.database, statement)

    def crash(self, seconds: float) -> None:
        """Have the server crash, and be started again after so many seconds."""
        self.database_server.stop("immediate")
        time.sleep(seconds)
        self.database_server.start()


class Saving:
    """Saves one batch after another, each until it is saved, as a persist thread does.

    Attributes:
        saved: the number of batches saved.
        failures: how often a write failed whose outcome is not known.
        outdated: rows that were left out.
    """

    def __init__(self, open_writer: Callable[[], PostgreSQLWriter], stop: threading.Event) -> None:
        self._open_writer = open_writer
        self._stop = stop
        self._writer: PostgreSQLWriter | None = None
        self.saved = self.failures = self.outdated = 0

    def run(self) -> None:
        """Save until told to stop."""
        while not self._stop.is_set():
            batch = spawned(PLAIN, np.arange(1, 5001), updated_at=self.saved + 1)
            while not self._try(batch):
                pass
            self.saved += 1
        self._close()

    def _try(self, batch: Records) -> bool:
        try:
            self._writer = self._writer or self._open_writer()
            self.outdated += len(self._writer.write(batch))
        except StoreBusy:
            time.sleep(0.01)
            return False
        except psycopg.Error:
            self.failures += 1
            self._close()
            return False
        return True

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class KilledServerTests(ServerTestCase):
    """The database's server is killed, and comes back."""

    def test_players_do_not_notice(self) -> None:
        """Moves are applied all the while, and saved once the server is back."""
        server = Server(self.directory, "--store", self.url, "--save-within", "0.3")
        self.addCleanup(server.kill)
        with closing(Player(server.address, 1)) as ada, closing(Player(server.address, 2)) as bob:
            for player in (ada, bob):
                player.join()
                player.move(1.0, 2.0)
                player.wait_saved()
            self.database_server.stop("immediate")
            ada.move(0.0, 7.0)
            server.wait_for("is busy|failed")
            for number in range(20):
                ada.move(float(number), 7.0)
                ada.wait_applied()
            self.database_server.start()
            ada.wait_saved()
            self.assertEqual(
                self.sql("SELECT x, y FROM player_state WHERE session_id = 1"), [(19.0, 7.0)]
            )
            bob.move(5.0, 6.0)
            bob.leave()
        self.assertEqual(server.stop(), -signal.SIGTERM)
        found = self.sql("SELECT session_id, x, y FROM player_state ORDER BY session_id")
        self.assertEqual(found, [(1, 19.0, 7.0), (2, 5.0, 6.0)])

    def test_back_from_a_dead_server(self) -> None:
        """A player who comes back while the database is away is told to wait, and then gets in."""
        server = Server(self.directory, "--store", self.url, "--save-within", "0.3")
        self.addCleanup(server.kill)
        with closing(Player(server.address, 1)) as ada:
            ada.join()
            ada.move(3.0, 4.0)
            ada.leave()
            self.crash(0.2)
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    self.assertEqual(tuple(ada.join().values), (3.0, 4.0))
                    break
                except AssertionError as error:
                    if "refused" not in str(error) or time.monotonic() > deadline:
                        raise
        self.assertEqual(server.stop(), -signal.SIGTERM)

    def test_killed_in_the_middle(self) -> None:
        """Batches under way when the server is killed are saved in the end, and none is lost."""
        place = parse_url(self.url)
        with closing(place.connect()) as session:
            migrate_database(session, place, PLAIN, IDENTITY)
        presence = Presence(place)
        self.addCleanup(presence.close)
        stop = threading.Event()
        saving = Saving(lambda: PostgreSQLWriter(place, PLAIN, presence), stop)
        thread = threading.Thread(target=saving.run)
        thread.start()
        draw = random.Random(7)
        # The server ends with the thread that starts it, so that this one does.
        for _ in range(4):
            time.sleep(draw.uniform(0.1, 0.6))
            self.crash(draw.uniform(0.0, 0.2))
        stop.set()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertEqual(saving.outdated, 0)
        self.assertGreater(saving.failures, 0)
        self.assertGreater(saving.saved, 4)
        self.assertEqual(
            self.sql("SELECT count(*), min(updated_at), max(updated_at) FROM player_state"),
            [(5000, saving.saved, saving.saved)],
        )


class TenStartsTests(ServerTestCase):
    """Ten servers of a new version start at the same moment."""

    def test_one_killed(self) -> None:
        """One is killed in the middle: the others start, and the tables are whole."""
        place = parse_url(self.url)
        schema = StateSchema.of(state_class(x=1.5))
        with closing(place.connect()) as session:
            migrate_database(session, place, schema, IDENTITY)
        self.sql("INSERT INTO player_state SELECT i, i, i FROM generate_series(1, 50000) AS i")
        script = START.format(ours=OF_OURS, url=self.url)
        starts = [
            subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(10)
        ]
        try:
            for start in starts:
                self.assertEqual(start.stdout.readline(), "ready\n")
            # The first to get the lock stands still in the middle of its migration, since a reader
            # keeps the table as it is.
            with psycopg.connect(self.database_server.conninfo(self.database)) as reader:
                reader.execute("SELECT count(*) FROM player_state")
                for start in starts:
                    start.stdin.write("\n")
                    start.stdin.flush()
                victim = self.migrating()
                os.kill(victim, signal.SIGKILL)
            answers = {start.communicate(timeout=60)[0] for start in starts if start.pid != victim}
        finally:
            for start in starts:
                start.kill()
                start.communicate()
        self.assertEqual(answers, {f"{IDENTITY!r} {IDENTITY!r}\n"})
        found = self.sql("SELECT count(*), min(f19), max(hp), min(zone), sum(x) FROM player_state")
        self.assertEqual(found, [(50000, 0.5, 100, "spawn", 50000 * 50001 / 2)])

    def migrating(self) -> int:
        """The process whose ALTER TABLE waits for the reader."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.sql(
                "SELECT application_name FROM pg_stat_activity WHERE query LIKE 'ALTER TABLE%'"
                " AND wait_event_type = 'Lock'"
            )
            if found:
                return int(str(found[0][0]).split()[1].partition("@")[0])
            time.sleep(0.01)
        self.fail("no start is in the middle of its migration")
