"""The PostgreSQL writer: what counts as saved, what is refused, and what may be tried again."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import psycopg

from playerstate.interfaces import IStateWriter, RowRefused, StoreBusy, StoreInUse
from playerstate.stores.contract.states import EVERYTHING, IDENTITY, PLAIN, records, spawned
from playerstate.stores.postgresql import batches, format, session, upsert
from playerstate.stores.postgresql.batches import NotSaved
from playerstate.stores.postgresql.held import PostgreSQLHeld
from playerstate.stores.postgresql.locks import Presence
from playerstate.stores.postgresql.session import Interrupted
from playerstate.stores.postgresql.url import parse_url
from playerstate.stores.postgresql.writer import PostgreSQLWriter
from tests.kit.postgresql import PostgreSQL, PostgreSQLTestCase
from tests.kit.relay import Relay, once
from tests.kit.support import PATIENCE


class WriterTestCase(PostgreSQLTestCase):
    """A test with tables of players, and writers of `schema`."""

    schema = PLAIN

    def setUp(self) -> None:
        """Make the tables."""
        super().setUp()
        self.place = parse_url(self.url)
        with closing(self.place.connect()) as session:
            format.migrate_database(session, self.place, self.schema, IDENTITY)
        self.presence = Presence(self.place)
        self.addCleanup(self.presence.close)

    def open_writer(self, port: int | None = None) -> PostgreSQLWriter:
        """A writer, through another port if one is given; closed after the test."""
        place = parse_url(self.server.url(self.database, port))
        writer = PostgreSQLWriter(place, self.schema, self.presence)
        self.addCleanup(writer.close)
        return writer

    def set_limit(self, usual: bytes, milliseconds: bytes) -> None:
        """Give the server another limit of time, for every transaction from now on."""
        sql = batches._SETTINGS.sql
        self.assertIn(usual, sql)
        self.patch(batches, "_SETTINGS", session.Command(sql.replace(usual, milliseconds)))

    def relay(self) -> Relay:
        """A relay before the server."""
        relay = Relay(self.server.port)
        self.addCleanup(relay.close)
        return relay

    def dates(self) -> list[tuple[int, int]]:
        """Session id and ``updated_at`` of every stored player."""
        return self.sql("SELECT session_id, updated_at FROM player_state ORDER BY session_id")

    def run_aside(self, call: Any, *arguments: Any) -> Any:
        """Make a call on another thread; what collects its result or its error."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(call(*arguments))
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()

        def finish() -> Any:
            thread.join(PATIENCE)
            self.assertFalse(thread.is_alive())
            return outcome[0]

        return finish

    def await_activity(self, condition: str) -> int:
        """Wait for a backend of the database for which this holds; its process id."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.sql(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                f" AND pid <> pg_backend_pid() AND {condition}"
            )
            if found:
                pid: int = found[0][0]
                return pid
            time.sleep(0.01)
        self.fail(f"no backend {condition}")


class CommitTests(WriterTestCase):
    """A commit counts where the server says that it was one, and of its whole outcome."""

    def assert_tried_again(self, writer: IStateWriter) -> None:
        """The same rows, given to another writer, are saved, and not taken for outdated."""
        writer.close()
        again = self.open_writer()
        self.assertEqual(len(again.write(spawned(PLAIN, [1, 2], updated_at=5))), 0)
        self.assertEqual(self.dates(), [(1, 5), (2, 5)])

    def test_answer_lost(self) -> None:
        """A commit whose answer is lost is not taken for saved, although it was."""
        relay = self.relay()
        writer = self.open_writer(relay.port)
        relay.watch = once(b"COMMIT", "cut after")
        batch = spawned(PLAIN, [1, 2], updated_at=5)
        self.assertRaises(psycopg.OperationalError, writer.write, batch)
        self.assertEqual(self.dates(), [(1, 5), (2, 5)])
        self.assert_tried_again(writer)

    def test_commit_lost(self) -> None:
        """Nor is one that did not reach the server, which was not."""
        relay = self.relay()
        writer = self.open_writer(relay.port)
        relay.watch = once(b"COMMIT", "cut")
        batch = spawned(PLAIN, [1, 2], updated_at=5)
        self.assertRaises(psycopg.OperationalError, writer.write, batch)
        self.assertEqual(self.dates(), [])
        self.assert_tried_again(writer)

    def test_no_time_out(self) -> None:
        """A COMMIT is waited for beyond the time that each other call has; a stop ends it."""
        self.patch(session, "CALL_SECONDS", 0.2)
        relay = self.relay()
        writer = self.open_writer(relay.port)
        self.assertEqual(writer._session.patience, 0.2)
        relay.watch = once(b"COMMIT", "silence")
        finish = self.run_aside(writer.write, spawned(PLAIN, [1, 2], updated_at=5))
        deadline = time.monotonic() + PATIENCE
        while not self.dates() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        writer.interrupt()
        self.assertIsInstance(finish(), Interrupted)
        self.assert_tried_again(writer)

    def test_silent_server(self) -> None:
        """A server that does not answer the rows is given up after that time."""
        self.set_limit(b"10000", b"300")  # of a transaction whose client is gone
        relay = self.relay()
        writer = self.open_writer(relay.port)
        writer._session.patience = 0.2
        relay.watch = once(b"BEGIN", "silence")
        with self.assertRaisesRegex(psycopg.OperationalError, "not answered within 0.2 s"):
            writer.write(spawned(PLAIN, [1, 2], updated_at=5))
        self.assertEqual(self.dates(), [])
        self.assert_tried_again(writer)

    def test_rolled_back(self) -> None:
        """A COMMIT that the server answers by a roll-back saved nothing."""
        self.patch(batches, "_COMMIT", session.Command(b"ROLLBACK"))
        writer = self.open_writer()
        batch = spawned(PLAIN, [1, 2], updated_at=5)
        with self.assertRaisesRegex(NotSaved, "ROLLBACK"):
            writer.write(batch)
        self.assertEqual(self.dates(), [])

    def test_warning_of_a_trigger(self) -> None:
        """What a trigger of the game says at the commit does not make it another one."""
        self.sql(
            """
            CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE WARNING 'hello'; RETURN NULL; END$$;
            CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON player_state DEFERRABLE
            INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()
            """
        )
        writer = self.open_writer()
        self.assertEqual(len(writer.write(spawned(PLAIN, [1, 2]))), 0)
        self.assertEqual(self.dates(), [(1, 1), (2, 1)])

    def test_durability(self) -> None:
        """A commit is on the server's disk, even where the default is less; more is left so."""
        writer = self.open_writer()
        for given, expected in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
            self.sql(f"ALTER DATABASE {self.database} SET synchronous_commit = {given}")
            writer.close()
            writer = self.open_writer()
            with writer._batches.transaction(session.Command(b"SELECT 1")):
                found = writer._session.execute("SHOW synchronous_commit").fetchone()
            self.assertEqual(found, (expected,))


class StandbyTests(WriterTestCase):
    """A server that waits for a standby before it reports a commit."""

    def setUp(self) -> None:
        """A server of its own, whose standby is not there."""
        super().setUp()
        self.server = PostgreSQL()
        self.addCleanup(self.server.remove)
        self.database = self.server.make_database()
        self.place = parse_url(self.url)
        with closing(self.place.connect()) as made:
            format.migrate_database(made, self.place, self.schema, IDENTITY)
        self.presence.close()
        self.presence = Presence(self.place)
        self.addCleanup(self.presence.close)
        self.server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'absent'")
        self.reload()

    def reload(self) -> None:
        """Have the server read its settings again."""
        self.server.sql("postgres", "SELECT pg_reload_conf()")

    def test_local_commit(self) -> None:
        """A commit that only this server has is not saved; one that waits is not given up."""
        self.patch(session, "CALL_SECONDS", 0.3)
        self.set_limit(b"8000", b"300")
        writer = self.open_writer()
        batch = spawned(PLAIN, [1, 2], updated_at=5)
        finish = self.run_aside(writer.write, batch)
        pid = self.await_activity("wait_event = 'SyncRep'")
        time.sleep(0.7)
        self.assertEqual(self.await_activity("wait_event = 'SyncRep'"), pid)
        with psycopg.connect(self.server.conninfo(self.database), autocommit=True) as other:
            other.execute("SELECT pg_cancel_backend(%s)", (pid,))
        error = finish()
        self.assertIsInstance(error, NotSaved)
        self.assertIn("on this server only", str(error))
        finish = self.run_aside(self.open_writer().write, batch)
        self.await_activity("wait_event = 'SyncRep'")
        self.server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
        self.reload()
        self.assertEqual(len(finish()), 0)


class RefusedTests(WriterTestCase):
    """Rows that the database refuses, as it likes."""

    def test_reason(self) -> None:
        """The reason is the database's, on one line."""
        self.sql("ALTER TABLE player_state ADD CONSTRAINT near CHECK (x < 1000)")
        writer = self.open_writer()
        batch = spawned(PLAIN, [1, 2, 3])
        batch["x"] = (1, 2000, 3)
        left_out = writer.write(batch)
        self.assertEqual(list(left_out.refused), [1])
        self.assertIn('violates check constraint "near"', left_out.refused[1])
        self.assertEqual(len(left_out.refused[1].splitlines()), 1)
        self.assertEqual(self.dates(), [(1, 1), (3, 1)])

    def test_at_the_commit(self) -> None:
        """A row that would be refused only at the commit is named too."""
        self.sql(
            """
            CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN IF NEW.session_id = 2 THEN RAISE EXCEPTION 'late'; END IF; RETURN NULL; END$$;
            CREATE CONSTRAINT TRIGGER late AFTER INSERT ON player_state DEFERRABLE
            INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()
            """
        )
        left_out = self.open_writer().write(spawned(PLAIN, [1, 2, 3]))
        self.assertEqual(list(left_out.refused), [1])
        self.assertEqual(self.dates(), [(1, 1), (3, 1)])

    def test_in_combination(self) -> None:
        """Of rows that are refused together the first are saved, and the others named."""
        self.sql("ALTER TABLE player_state ADD CONSTRAINT alone UNIQUE (x)")
        batch = spawned(PLAIN, [1, 2, 3])
        batch["x"] = (5, 6, 5)
        left_out = self.open_writer().write(batch)
        self.assertEqual(list(left_out.refused), [2])
        self.assertEqual(self.dates(), [(1, 1), (2, 1)])

    def test_skipped(self) -> None:
        """A row that a trigger skips is not taken for saved."""
        self.sql(
            """
            CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN IF NEW.session_id = 2 THEN RETURN NULL; END IF; RETURN NEW; END$$;
            CREATE TRIGGER skip BEFORE INSERT ON player_state FOR EACH ROW EXECUTE FUNCTION skip()
            """
        )
        left_out = self.open_writer().write(spawned(PLAIN, [1, 2, 3]))
        self.assertEqual(left_out.refused, {1: "a trigger skipped it"})
        self.assertEqual(self.dates(), [(1, 1), (3, 1)])

    def test_several_statements(self) -> None:
        """Positions count over all statements of a batch, for refused and for outdated rows."""
        self.patch(upsert, "ROWS_A_STATEMENT", 10)
        writer = self.open_writer()
        writer.write(spawned(PLAIN, [5, 35, 77], updated_at=9))
        left_out = writer.write(spawned(PLAIN, range(1, 101), updated_at=2))
        self.assertEqual(left_out.newer.tolist(), [4, 34, 76])
        self.refuse(50)
        left_out = writer.write(spawned(PLAIN, range(1, 101), updated_at=3))
        self.assertEqual(left_out.newer.tolist(), [4, 34, 76])
        self.assertEqual(list(left_out.refused), [49])
        self.assertEqual(len(self.dates()), 100)

    def test_quarantine(self) -> None:
        """A quarantined row is in a table with all that is known of it; a later one replaces it."""
        writer = self.open_writer()
        for x, why in ((1.5, "first"), (2.5, "it's\nsecond")):
            writer.quarantine(records(PLAIN, (7, x, -3.0, 11), (8, x, 0.0, 12)), [why, "other"])
        found = self.sql(
            "SELECT session_id, fields, updated_at, reason FROM player_refused ORDER BY session_id"
        )
        self.assertEqual(
            found,
            [
                (7, {"x": 2.5, "y": -3.0}, 11, "it's\nsecond"),
                (8, {"x": 2.5, "y": 0.0}, 12, "other"),
            ],
        )


class BusyTests(WriterTestCase):
    """What passes: the same writer is given the same rows again."""

    def test_lock(self) -> None:
        """Rows that another program has locked for too long are for later."""
        self.set_limit(b"8000", b"200")
        writer = self.open_writer()
        writer.write(spawned(PLAIN, [1]))
        with psycopg.connect(self.server.conninfo(self.database)) as other:
            other.execute("UPDATE player_state SET x = 5")
            self.assertRaises(StoreBusy, writer.write, spawned(PLAIN, [1, 2], updated_at=2))
            other.rollback()
        self.assertEqual(len(writer.write(spawned(PLAIN, [1, 2], updated_at=2))), 0)
        self.assertEqual(self.dates(), [(1, 2), (2, 2)])

    def test_command(self) -> None:
        """While a command has the store for itself no writer writes, nor is a new one opened."""
        writer = self.open_writer()
        self.assertRaises(StoreInUse, PostgreSQLHeld, self.place)
        self.presence.close()  # as if the connection that says that we are here was lost
        with closing(PostgreSQLHeld(self.place)):
            self.assertRaises(StoreBusy, writer.write, spawned(PLAIN, [1]))
            self.presence = Presence(self.place)
            self.addCleanup(self.presence.close)
            with self.assertRaisesRegex(StoreBusy, "in use by playerstate"):
                self.open_writer()
        self.presence.renew()  # once the server has noticed that the command has ended
        self.assertEqual(len(writer.write(spawned(PLAIN, [1]))), 0)
        self.assertEqual(self.dates(), [(1, 1)])

    def test_unreachable(self) -> None:
        """A writer that cannot be opened is for later."""
        self.presence.renew()
        self.assertRaises(StoreBusy, self.open_writer, 1)

    def test_presence(self) -> None:
        """A new writer says again that the server is here, if the connection for it was lost."""
        self.presence.renew()
        self.cut()
        with closing(PostgreSQLHeld(self.place)):
            pass
        self.open_writer()
        self.assertRaises(StoreInUse, PostgreSQLHeld, self.place)


class LanesTests(WriterTestCase):
    """Several writers on one table."""

    def test_side_by_side(self) -> None:
        """Writers on threads of their own do not wait for each other's players."""
        writers = [self.open_writer() for _ in range(4)]
        with ExitStack() as stack:
            for lane, writer in enumerate(writers):
                ids = np.arange(lane + 1, 2000, 4)
                open_transaction = writer._batches.transaction(session.Command(b"SELECT 1"))
                stack.enter_context(open_transaction)
                writer._batches._insert(spawned(PLAIN, ids))
        self.assertEqual(len(self.dates()), 1999)


class WideTests(WriterTestCase):
    """A state class of each kind."""

    schema = EVERYTHING

    def test_bad_bytes(self) -> None:
        """Bytes that are no text are refused by the server, and the other rows saved."""
        batch = spawned(EVERYTHING, [1, 2, 3])
        batch["zone"][1] = b"\xff"
        left_out = self.open_writer().write(batch)
        self.assertEqual(list(left_out.refused), [1])
        self.assertEqual(self.dates(), [(1, 1), (3, 1)])

    def test_changed_by_hand(self) -> None:
        """A column that was dropped is an error of the whole store, and refuses no row."""
        writer = self.open_writer()
        self.sql("ALTER TABLE player_state DROP COLUMN zone")
        error = self.assertRaises(psycopg.Error, writer.write, spawned(EVERYTHING, [1]))
        self.assertNotIsInstance(error, RowRefused)
        self.assertRaises(psycopg.Error, self.open_writer)
