"""What an operator does with a database: looking into it, and taking its lock."""

from __future__ import annotations

import os
from contextlib import closing

import apsw
from zope.interface.verify import verifyObject

from playerstate.interfaces import IHeldStore, IStoreOperations, StoreInUse, StoreUnusable
from playerstate.stores import open_store, operate_store
from playerstate.stores.sqlite.operations import SQLiteOperations
from tests.kit.databases import EVERYTHING, IDENTITY, PLAIN, records, state_class, take
from tests.kit.sqlite_stores import FormatTestCase


class OperationsTestCase(FormatTestCase):
    """A database of two players of every kind of field."""

    PLAYERS = ((7, 1.5, 9, False, "zöne", -0.25, 100), (5, 0.1, 2**62, True, "", 3.0, 200))

    def setUp(self) -> None:
        """Save them."""
        super().setUp()
        self.save(EVERYTHING, *self.PLAYERS)
        self.store = operate_store(self.url)


class LookTests(OperationsTestCase):
    """What can be looked at, whether or not a server runs."""

    def test_interface(self) -> None:
        """It is all of the interface."""
        verifyObject(IStoreOperations, self.store)
        with closing(self.store.hold()) as held:
            verifyObject(IHeldStore, held)

    def test_content(self) -> None:
        """Players come by session id, as plain values of their fields' types."""
        self.assertEqual(self.store.count(), 2)
        self.assertEqual(self.store.identity(), IDENTITY)
        self.assertTrue(self.store.exists())
        names = ("session_id", "x", "hp", "alive", "zone", "angle", "updated_at")
        self.assertEqual(tuple(self.store.columns()), names)
        rows = list(self.store.rows())
        self.assertEqual(rows, sorted(self.PLAYERS))
        self.assertIs(rows[0][3], True)
        self.assertEqual(self.store.updated_at(iter([5, 6, 7])), {5: 200, 7: 100})

    def test_columns_of_others(self) -> None:
        """A column that a user added may be empty; a text that is no UTF-8 is made readable."""
        self.sql("ALTER TABLE player_state ADD COLUMN note TEXT")
        self.sql("ALTER TABLE player_state ADD COLUMN flag INT")
        self.sql("UPDATE player_state SET note = CAST(x'61ff' AS TEXT) WHERE session_id = 7")
        five, seven = self.store.rows()
        self.assertEqual(five[-2:], (None, None))
        self.assertEqual(seven[-2:], ("a\\xff", None))

    def test_plain(self) -> None:
        """Where nothing has to be converted, rows are as they are stored."""
        self.use("plain.db")
        self.save(PLAIN, (1, 2.0, 3.0, 4))
        self.assertEqual(list(operate_store(self.url).rows()), [(1, 2.0, 3.0, 4)])

    def test_one_moment(self) -> None:
        """Players who are saved meanwhile do not enter the rows."""
        rows = self.store.rows()
        self.assertEqual(next(rows)[0], 5)
        self.sql("INSERT INTO player_state (session_id, updated_at) VALUES (9, 1)")
        self.assertEqual([row[0] for row in rows], [7])

    def test_plan(self) -> None:
        """The plan says what a start would change, and changes nothing."""
        self.assertEqual(list(self.store.plan(EVERYTHING)), [])
        self.sql("DROP TABLE player_mark")
        plan = list(self.store.plan(operated(x=1.0, mana=1, lives=3)))
        self.assertEqual(plan, ["add columns mana, lives", "add table player_mark"])
        self.assertEqual(len(self.store.columns()), 7)
        error = self.assertRaises(StoreUnusable, self.store.plan, operated(zone=1))
        self.assertIn("field zone is int now", self.assert_one_line(error))

    def test_whole(self) -> None:
        """A database without damage has none."""
        self.assertEqual(list(self.store.check()), [])

    def test_damage(self) -> None:
        """Damage is told; the database stays as it is."""
        self.sql("CREATE INDEX by_x ON player_state (x)")
        with closing(apsw.Connection(self.path)) as connection:
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
            connection.pragma("writable_schema", True)
            connection.execute("UPDATE sqlite_schema SET sql = replace(sql, '(x)', '(y)')")
            connection.execute("UPDATE sqlite_schema SET sql = replace(sql, '(y)', '(hp)')")
        found = list(self.store.check())
        self.assertTrue(found)
        self.assertTrue(all(len(line.splitlines()) == 1 for line in found), found)

    def test_quarantined(self) -> None:
        """Quarantined rows are counted."""
        self.assertEqual(self.store.quarantined(), 0)
        with open(f"{self.path}.refused.jsonl", "w", encoding="ascii") as file:
            file.write('{"session_id": 5}\na note\n{"session_id": 6}\n')
        self.assertEqual(self.store.quarantined(), 2)
        os.remove(f"{self.path}.refused.jsonl")
        os.mkdir(f"{self.path}.refused.jsonl")
        error = self.assertRaises(StoreUnusable, self.store.quarantined)
        self.assertIn("Is a directory", self.assert_one_line(error))

    def test_no_players(self) -> None:
        """What is no database of players is refused in one line, and nothing is made beside it."""
        cases = {"missing": None, "empty": b"", "text": b"not a database", "sqlite": b"SQLite"}
        for name, content in cases.items():
            with self.subTest(name):
                self.use(name)
                if content is not None:
                    with open(self.path, "wb") as file:
                        file.write(content)
                store = operate_store(self.url)
                before = sorted(os.listdir(self.directory))
                for look in (store.count, store.hold, store.identity):
                    self.assert_one_line(self.assertRaises(StoreUnusable, look))
                self.assertEqual(sorted(os.listdir(self.directory)), before)

    def test_exists(self) -> None:
        """A missing or an empty file is no store; another file is refused."""
        self.use("missing")
        self.assertFalse(operate_store(self.url).exists())
        open(self.path, "wb").close()
        self.assertFalse(operate_store(self.url).exists())
        with open(self.path, "wb") as file:
            file.write(b"x" * 100)
        self.assertRaises(StoreUnusable, operate_store(self.url).exists)


class HoldTests(OperationsTestCase):
    """The lock."""

    def test_held_by_server(self) -> None:
        """A server that holds the store is named; looking goes on beside it."""
        with closing(open_store(self.url, EVERYTHING)) as server:
            take(server)
            error = self.assertRaises(StoreInUse, self.store.hold)
            self.assertEqual(error.holder, f"process {os.getpid()}")
            self.assertEqual(self.store.count(), 2)

    def test_server_kept_out(self) -> None:
        """While it is held no server starts; afterwards it does."""
        server = open_store(self.url, EVERYTHING)
        with closing(self.store.hold()):
            self.assertRaises(StoreInUse, server.prepare)
        with closing(server):
            take(server)

    def test_made(self) -> None:
        """A store that does not exist can be held to make it."""
        self.use("new.db")
        with closing(SQLiteOperations(self.path).hold(create=True)) as held:
            held.migrate(PLAIN)
            self.assertEqual(held.count(), 0)
            identity = held.identity()
            self.assertTrue(any(identity))
            held.migrate(PLAIN)
            self.assertEqual(held.identity(), identity)
            held.write(PLAIN, records(PLAIN, (1, 2.0, 3.0, 4)))
        self.assertEqual(self.load(PLAIN, 1).updated_at, 4)


def operated(**fields: object) -> object:
    """The schema of a class of these fields."""
    return type(EVERYTHING).of(state_class(**fields))
