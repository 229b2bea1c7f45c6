"""The questions of the reactor thread: answered by other threads, cancelled, and let go of."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
from twisted.internet.defer import CancelledError

from playerstate.interfaces import StoreBusy
from playerstate.state.schema import StateSchema
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import PLAIN
from playerstate.stores.postgresql import pool as pools
from playerstate.stores.postgresql.pool import Pool
from playerstate.stores.postgresql.session import Interrupted, Session
from playerstate.stores.postgresql.store import PostgreSQLStore
from playerstate.stores.postgresql.url import parse_url
from tests.kit.postgresql import PostgreSQLTestCase
from tests.kit.relay import Relay, once


def sleep(session: Session) -> Any:
    """A question that takes long."""
    return session.execute("SELECT pg_sleep(60)").fetchone()


def answer(session: Session) -> int:
    """The process id of the connection's backend."""
    return session.info.backend_pid


class PoolTests(PostgreSQLTestCase, StoreTestCase):
    """A pool of connections."""

    def open(self, schema: StateSchema) -> PostgreSQLStore:
        """A store on the database."""
        return self.make_store(schema)

    def make_pool(self) -> Pool:
        """A pool, closed after the test."""
        pool = Pool(parse_url(self.url), self.reactor)
        self.addCleanup(pool.close)
        return pool

    def test_other_thread(self) -> None:
        """A question is asked on another thread, and answered on the reactor's."""
        pool, threads = self.make_pool(), []
        asked = pool.ask(lambda session: threads.append(threading.current_thread()))
        asked.addCallback(lambda _: threads.append(threading.current_thread()))
        self.wait(asked)
        self.assertIsNot(threads[0], threading.current_thread())
        self.assertIs(threads[1], threading.current_thread())

    def test_most_connections(self) -> None:
        """Many questions share few connections, which stay open."""
        pool = self.make_pool()
        pids = {self.wait(asked) for asked in [pool.ask(answer) for _ in range(50)]}
        self.assertLessEqual(len(pids), pools.MOST_CONNECTIONS)
        self.assertLessEqual({self.wait(pool.ask(answer)) for _ in range(5)}, pids)

    def test_cancelled(self) -> None:
        """A question that is cancelled ends on the server too, and its thread is free again."""
        pool = self.make_pool()
        for _ in range(pools.MOST_CONNECTIONS + 1):
            asked = pool.ask(sleep)
            self.until("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%'")
            asked.cancel()
            self.assertRaises(CancelledError, self.wait, asked)
            self.until(
                "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity"
                " WHERE query LIKE 'SELECT pg_sleep(%' AND state = 'active')"
            )
        self.wait(pool.ask(answer))

    def until(self, query: str) -> None:
        """Wait until a query has a row."""
        end = time.monotonic() + self.patience
        while not self.sql(query):
            self.assertLess(time.monotonic(), end)
            self.turn()

    def test_cancelled_before(self) -> None:
        """One that is cancelled before its turn is never asked."""
        pool, asked = self.make_pool(), []
        busy = [pool.ask(sleep) for _ in range(pools.MOST_CONNECTIONS)]
        waiting = pool.ask(lambda session: asked.append(1))
        waiting.cancel()
        self.assertRaises(CancelledError, self.wait, waiting)
        for each in busy:
            each.cancel()
            self.assertRaises(CancelledError, self.wait, each)
        self.wait(pool.ask(answer))
        self.assertEqual(asked, [])

    def test_lost_connection(self) -> None:
        """A question on a connection that was lost is asked once more, on a new one."""
        pool = self.make_pool()
        before = self.wait(pool.ask(answer))
        self.cut()
        self.assertNotEqual(
            self.wait(pool.ask(lambda s: s.execute("SELECT 1") and answer(s))), before
        )
        self.cut()
        only_once = pool.ask(lambda session: session.execute("SELECT 1"), again=False)
        self.assertRaises(psycopg.OperationalError, self.wait, only_once)

    def test_close(self) -> None:
        """Closing ends what is asked, and waits for no server that does not answer."""
        relay = Relay(self.server.port)
        self.addCleanup(relay.close)
        relay.watch = once(b"pg_sleep", "silence")
        pool = Pool(parse_url(self.server.url(self.database, relay.port)), self.reactor)
        asked = pool.ask(sleep)
        self.until("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%'")
        started = time.monotonic()
        pool.close()
        self.assertLess(time.monotonic() - started, pools.CLOSE_SECONDS + 5)
        self.assertRaises(Interrupted, self.wait, asked)

    def test_load_without_server(self) -> None:
        """A load while the database cannot be reached may be tried again."""
        relay = Relay(self.server.port)
        self.start(PLAIN)
        self.ends.close()
        store = self.make_store(PLAIN, self.server.url(self.database, relay.port))
        self.wait(store.prepare())
        self.addCleanup(store.close)
        reader = store.open_reader()
        self.assertIsNone(self.wait(reader.load(1)))
        relay.close()
        self.assertRaises(StoreBusy, self.wait, reader.load(1))
