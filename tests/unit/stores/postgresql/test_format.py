"""The tables: made, recognised, migrated, or refused as they are."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs, formatEvent

from playerstate.interfaces import Stored, StoreInUse, StoreUnusable
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import IDENTITY, state_class
from playerstate.stores.postgresql.format import migrate_database
from playerstate.stores.postgresql.held import PostgreSQLHeld
from playerstate.stores.postgresql.store import PostgreSQLStore
from playerstate.stores.postgresql.url import parse_url
from tests.kit.postgresql import PostgreSQLTestCase


class FormatTests(PostgreSQLTestCase, StoreTestCase):
    """A database for one state class after another."""

    def open(self, schema: StateSchema) -> PostgreSQLStore:
        """A store over the same database each time."""
        return self.make_store(schema)

    def started(self, state: type, identity: bytes = IDENTITY) -> bytes:
        """Start with this class, and close again; the identity."""
        with closing(self.open(StateSchema.of(state))) as store:
            self.wait(store.prepare())
            found: bytes = self.wait(store.migrate(identity))
        return found

    def refusal(self, state: type = PlayerState) -> str:
        """The one line with which a start is refused; nothing is changed or held by it."""
        before = self.tables()
        error = self.assertRaises(StoreUnusable, self.started, state)
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertEqual(self.tables(), before)
        return str(error)

    def tables(self) -> list[tuple[Any, ...]]:
        """Each column of each table."""
        return self.sql(
            "SELECT table_name, column_name, data_type, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = current_schema()"
            " ORDER BY table_name, ordinal_position"
        )

    def columns(self) -> list[tuple[str, str]]:
        """The columns of the players."""
        return [(row[1], row[2]) for row in self.tables() if row[0] == "player_state"]

    def test_prepare_changes_nothing(self) -> None:
        """A look leaves an empty database empty."""
        with closing(self.open(StateSchema.of(PlayerState))) as store:
            self.assertEqual(self.wait(store.prepare()), bytes(16))
        self.assertEqual(self.tables(), [])

    def test_types(self) -> None:
        """Each kind has its type, and none may be missing."""
        self.started(state_class(x=1.5, hp=1, alive=True, zone="a"))
        self.assertEqual(
            self.columns(),
            [
                ("session_id", "bigint"),
                ("x", "double precision"),
                ("hp", "bigint"),
                ("alive", "boolean"),
                ("zone", "text"),
                ("updated_at", "bigint"),
            ],
        )
        self.assertEqual({row[3] for row in self.tables()}, {"NO"})

    def test_identity_is_kept(self) -> None:
        """The first identity stays, so that each server's live file still belongs to the store."""
        self.assertEqual(self.started(PlayerState), IDENTITY)
        self.assertEqual(self.started(PlayerState, b"x" * 16), IDENTITY)
        self.assertEqual(self.started(state_class(hp=1), b"y" * 16), IDENTITY)

    def test_logged(self) -> None:
        """The log says what was done to the columns, once."""
        self.started(state_class(x=1.5))
        for expected in ([f"{self.url}: added columns hp, zone"], []):
            with capturedLogs() as events:
                self.started(state_class(x=1.5, hp=1, zone=""))
            self.assertEqual([formatEvent(event) for event in events], expected)

    def test_case(self) -> None:
        """A field renamed in case alone takes its column along."""
        self.fitted(state_class(hitPoints=1), (7, 5, 1))
        self.start(StateSchema.of(state_class(HitPoints=2)))
        self.assertEqual(self.load(7), Stored((5,), 1))
        self.assertEqual([name for name, _ in self.columns()][1:-1], ["HitPoints"])

    def test_both_cases(self) -> None:
        """Where both are there, each is its own."""
        self.fitted(state_class(hp=1), (7, 5, 1))
        self.sql('ALTER TABLE player_state ADD COLUMN "HP" bigint NOT NULL DEFAULT 9')
        for name, value in (("hp", 5), ("HP", 9)):
            self.start(StateSchema.of(state_class(**{name: 1})))
            self.assertEqual(self.load(7), Stored((value,), 1))
            self.ends.close()

    def test_odd_names(self) -> None:
        """Words of SQL, and letters of any script, are names like any other."""
        fields = {"user": 1, "select": 2.5, "straße": "a", "Ω": True, "table": ""}
        self.start(StateSchema.of(state_class(**fields)))
        self.write((7, *fields.values(), 1))
        self.assertEqual(self.load(7), Stored(tuple(fields.values()), 1))

    def test_column_of_another_program(self) -> None:
        """A column that users added stays, and is left alone."""
        self.fitted(state_class(x=1.5), (7, 2.5, 1))
        self.sql("ALTER TABLE player_state ADD COLUMN seen timestamptz DEFAULT now()")
        self.start(StateSchema.of(state_class(x=1.5)))
        self.write((7, 3.5, 2), (8, 4.5, 2))
        self.assertEqual(self.load(7), Stored((3.5,), 2))

    def test_table_of_another_program(self) -> None:
        """A table of that name that is not ours is refused, and stays as it is."""
        self.sql("CREATE TABLE player_state (id bigint)")
        self.assertIn("has a table player_state of another program", self.refusal())

    def test_another_schema(self) -> None:
        """Games in different schemas of one database do not meet."""
        self.started(state_class(x=1.5))
        self.sql("CREATE SCHEMA other")
        url = self.server.url(self.database, options="-csearch_path%3Dother")
        other = self.make_store(StateSchema.of(state_class(hp=1)), url)
        with closing(other), closing(PostgreSQLHeld(parse_url(self.url))):
            self.assertEqual(self.wait(other.prepare()), bytes(16))
            self.assertEqual(self.wait(other.migrate(b"o" * 16)), b"o" * 16)
        self.assertEqual(self.started(state_class(x=1.5)), IDENTITY)

    def test_newer_format(self) -> None:
        """A format of a later playerstate is refused."""
        self.started(PlayerState)
        self.sql("UPDATE player_store SET format = 99")
        self.assertIn("has format 99, this playerstate knows formats up to", self.refusal())

    def test_encoding(self) -> None:
        """A database that cannot hold every text is refused."""
        self.database = self.server.make_database(
            "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        self.assertIn("has the encoding LATIN1", self.refusal())

    def test_no_right(self) -> None:
        """What this user may not do is said in one line."""
        self.sql("DROP ROLE IF EXISTS nobody")
        self.sql("CREATE ROLE nobody LOGIN")
        url = f"postgresql://nobody@127.0.0.1:{self.server.port}/{self.database}"
        store = self.make_store(StateSchema.of(PlayerState), url)
        with closing(store):
            self.wait(store.prepare())
            error = self.assertRaises(StoreUnusable, self.wait, store.migrate(IDENTITY))
        self.assertIn("permission denied", str(error))
        self.assertIn("give this user the right", str(error))

    def test_held(self) -> None:
        """While a command has the store, no server starts, and the line names the command."""
        self.started(PlayerState)
        with closing(PostgreSQLHeld(parse_url(self.url))):
            error = self.assertRaises(StoreInUse, self.started, PlayerState)
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertRegex(error.holder, rf"^playerstate {os.getpid()}@")
        self.started(PlayerState)

    def test_unreachable(self) -> None:
        """A start without a server is refused, and leaves nothing open."""
        store = self.make_store(StateSchema.of(PlayerState), "postgresql://postgres@127.0.0.1:1/x")
        threads = threading.active_count()
        error = self.assertRaises(StoreUnusable, self.wait, store.prepare())
        self.assertIn("cannot be reached", str(error))
        self.assertLessEqual(threading.active_count(), threads)

    def test_cancelled_start(self) -> None:
        """A start that is cancelled while the database does not answer lets go of all."""
        store = self.open(StateSchema.of(PlayerState))
        self.wait(store.prepare())
        with closing(parse_url(self.url).connect()) as other, closing(store):
            migrate_database(other, parse_url(self.url), store.schema, IDENTITY)
            other.execute("BEGIN; LOCK TABLE player_state, player_store")
            migration = store.migrate(IDENTITY)
            self.turn()
            migration.cancel()
            self.assertRaises(CancelledError, self.wait, migration)
            other.execute("ROLLBACK")
            self.assertEqual(self.wait(store.migrate(b"z" * 16)), IDENTITY)
