"""The format of the database: how it is made, recognised and migrated."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from contextlib import closing
from typing import Any

import apsw
import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs

from playerstate.interfaces import Stored, StoreUnusable
from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema, within
from playerstate.stores import open_store
from playerstate.stores.sqlite.format import (
    APPLICATION_ID,
    FORMAT,
    check_ours,
    migrate_database,
    quoted,
)
from tests.kit.databases import IDENTITY, records, state_class, take
from tests.kit.sqlite_stores import FormatTestCase, with_text
from tests.kit.support import LAW, Everything

EXAMPLES: dict[str, Any] = {"float": 1.5, "int": 7, "bool": True, "text": "a"}
"""A value of each kind, for defaults."""


class CreateTests(FormatTestCase):
    """A new database."""

    def definition(self, table: str = "player_state") -> str:
        """The table as SQLite keeps it."""
        (row,) = self.sql("SELECT sql FROM sqlite_schema WHERE name = ?", table)
        return row[0]

    def test_default_state(self) -> None:
        """The table of the default state has exactly this form."""
        self.prepare()
        self.assertEqual(
            self.definition(),
            "CREATE TABLE player_state (session_id INTEGER PRIMARY KEY,"
            ' "x" REAL NOT NULL DEFAULT 350.0, "y" REAL NOT NULL DEFAULT 200.0,'
            " updated_at INTEGER NOT NULL) STRICT",
        )

    def test_every_kind(self) -> None:
        """Each kind of field has its column type; a bool is 0 or 1.

        Table and fingerprint are pinned together: neither may change with a class that does not.
        """
        self.assertEqual(StateSchema.of(Everything).fingerprint, 0x47F08C50)
        self.prepare(Everything)
        self.assertEqual(
            self.definition(),
            "CREATE TABLE player_state (session_id INTEGER PRIMARY KEY,"
            ' "x" REAL NOT NULL DEFAULT 1.5, "hp" INTEGER NOT NULL DEFAULT 100,'
            ' "alive" INT NOT NULL DEFAULT 1 CHECK ("alive" IN (0, 1)),'
            """ "zone" TEXT NOT NULL DEFAULT 'spawn', "angle" REAL NOT NULL DEFAULT -0.25,"""
            " updated_at INTEGER NOT NULL) STRICT",
        )

    def test_marks(self) -> None:
        """The database says that it is ours, and of which form."""
        self.assertEqual(APPLICATION_ID.to_bytes(4, "big"), b"plst")
        self.prepare()
        self.assertEqual(self.sql("PRAGMA application_id"), [(0x706C7374,)])
        self.assertEqual(self.sql("PRAGMA user_version"), [(1,)])
        with open(self.path, "rb") as file:
            header = file.read(100)
        self.assertEqual(header[68:72], b"plst")

    def test_tables(self) -> None:
        """There are three tables and nothing else: no index, no trigger."""
        self.prepare()
        self.assertEqual(
            self.sql("SELECT type, name FROM sqlite_schema ORDER BY name"),
            [("table", "player_mark"), ("table", "player_state"), ("table", "player_store")],
        )

    def test_table_of_the_identity(self) -> None:
        """The table beside it has exactly this form: one row, which holds the identity."""
        self.prepare()
        self.assertEqual(
            self.definition("player_store"),
            "CREATE TABLE player_store (id INTEGER PRIMARY KEY CHECK (id = 1),"
            " identity BLOB NOT NULL) STRICT",
        )
        self.assertEqual(self.sql("SELECT * FROM player_store"), [(1, IDENTITY)])
        with self.assertRaises(apsw.ConstraintError):
            self.sql("INSERT INTO player_store VALUES (2, ?)", IDENTITY)

    def test_table_of_the_mark(self) -> None:
        """So has the one of the mark, which is another after each start."""
        self.prepare()
        self.assertEqual(
            self.definition("player_mark"),
            "CREATE TABLE player_mark (id INTEGER PRIMARY KEY CHECK (id = 1),"
            " mark BLOB NOT NULL) STRICT",
        )
        ((before,),) = self.sql("SELECT mark FROM player_mark")
        self.prepare()
        ((mark,),) = self.sql("SELECT mark FROM player_mark")
        self.assertEqual(len(mark), 24)
        self.assertNotEqual(mark, before)

    def test_strict(self) -> None:
        """The table refuses a value of the wrong type, whichever program writes it."""
        self.prepare()
        with self.assertRaises(apsw.ConstraintError):
            self.sql("INSERT INTO player_state VALUES (1, 'here', 0, 1)")

    def test_defaults(self) -> None:
        """Defaults are kept to the bit: quotes, extremes, and whole numbers as floats."""
        defaults: dict[str, Any] = {
            "quotes": 'it\'s "so"',
            "injected": "'); DROP TABLE player_state; --",
            "empty": "",
            "lines": "a\nb",
            "script": "größe \U0001f409",
            "least": -(2**63),
            "most": 2**63 - 1,
            "minus": -1,
            "huge": 1e300,
            "tiny": 5e-324,
            "greatest": sys.float_info.max,
            "third": 1 / 3,
            "sum": 0.1 + 0.2,
            "whole": 350.0,
            "below": -1e-7,
            "yes": True,
            "no": False,
        }
        self.prepare(state_class(**defaults))
        self.sql("INSERT INTO player_state (session_id, updated_at) VALUES (1, 2)")
        stored = self.load(state_class(**defaults), 1)
        self.assertEqual(stored, Stored(tuple(defaults.values()), 2))
        self.assertEqual(list(map(type, stored.values)), list(map(type, defaults.values())))

    def test_int_as_the_default_of_a_float(self) -> None:
        """A float whose default is written as an int has a float's column."""
        made = attrs.make_class("Made", {"x": attrs.field(default=350, type=float)})
        self.prepare(made)
        self.assertIn(("x", "REAL", 1, "350.0"), self.columns())

    def test_quoted(self) -> None:
        """A quote in a name is doubled."""
        self.assertEqual(quoted("x"), '"x"')
        self.assertEqual(quoted('a"b'), '"a""b"')

    def test_without_tables(self) -> None:
        """An empty file becomes a database, and so does one that a crash left without tables."""
        for content in ("", "PRAGMA journal_mode = wal"):
            self.use(f"{len(content)}.db")
            open(self.path, "wb").close()
            if content:
                self.sql(content)
                self.assertGreater(os.path.getsize(self.path), 0)
            self.prepare()
            self.assertEqual(len(self.columns()), 4)

    def test_twice(self) -> None:
        """Preparing a database again for the same class changes nothing that it holds."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        before = self.sql("SELECT sql FROM sqlite_schema")
        self.prepare()
        self.assertEqual(self.sql("SELECT sql FROM sqlite_schema"), before)
        self.assertEqual(self.load(PlayerState, 1), Stored((2.0, 3.0), 4))


class IdentityTests(FormatTestCase):
    """Which database it is: what ties a live file to it."""

    OTHER = bytes(range(16, 0, -1))

    def identity(self, state: Any = PlayerState) -> bytes:
        """What a start finds."""
        with closing(open_store(self.url, state)) as store:
            return store.prepare()

    def give(self, identity: bytes, state: Any = PlayerState) -> None:
        """Give the database this identity."""
        with closing(open_store(self.url, state)) as store:
            take(store, identity)

    def test_missing_or_empty(self) -> None:
        """A missing database and an empty file have zeros; `prepare` writes nothing into them."""
        for is_there in (False, True):
            self.use(f"{is_there}.db")
            if is_there:
                open(self.path, "wb").close()
            self.assertEqual(self.identity(), bytes(16))
            self.assertEqual(os.path.exists(self.path) and os.path.getsize(self.path), 0)

    def test_given(self) -> None:
        """What it was given comes back at every start, byte for byte."""
        for identity in (IDENTITY, b"\0" * 15 + b"\1", b"\xff" * 16, b"'; DROP TABLE--\0"):
            self.give(identity)
            self.assertEqual(self.identity(), identity)
            self.assertEqual(self.identity(), identity)

    def test_changed(self) -> None:
        """The next one takes its place: there is one at a time."""
        self.give(IDENTITY)
        self.give(self.OTHER)
        self.assertEqual(self.identity(), self.OTHER)
        self.assertEqual(self.sql("SELECT identity FROM player_store"), [(self.OTHER,)])

    def test_with_another_class(self) -> None:
        """It has nothing to do with the state class."""
        self.give(IDENTITY, state_class(x=1.5))
        self.assertEqual(self.identity(state_class(x="text")), IDENTITY)
        self.give(self.OTHER, state_class(x=1.5, hp=1))
        self.assertEqual(self.identity(), self.OTHER)

    def test_copy(self) -> None:
        """A copy of a database has the identity of the day on which it was made."""
        self.give(IDENTITY)
        copy = os.path.join(self.directory, "copy.db")
        shutil.copyfile(self.path, copy)
        self.give(self.OTHER)
        self.use("copy.db")
        self.assertEqual(self.identity(), IDENTITY)

    def test_database_of_before(self) -> None:
        """A database that was made before there were identities has zeros, and is given one."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        self.sql("DROP TABLE player_store")
        self.assertEqual(self.identity(), bytes(16))
        self.give(IDENTITY)
        self.assertEqual(self.identity(), IDENTITY)
        self.assertEqual(self.load(PlayerState, 1), Stored((2.0, 3.0), 4))

    def test_lost(self) -> None:
        """A database whose identity was deleted by hand has zeros."""
        self.give(IDENTITY)
        self.sql("DELETE FROM player_store")
        self.assertEqual(self.identity(), bytes(16))

    def test_refused_migration(self) -> None:
        """A migration that is refused gives none."""
        self.give(IDENTITY, state_class(x=1.5))
        with self.assertRaises(StoreUnusable):
            self.give(self.OTHER, state_class(x="text"))
        self.assertEqual(self.identity(), IDENTITY)


class MigrationTests(FormatTestCase):
    """A database made for another state class."""

    def test_added_field(self) -> None:
        """A new field becomes a column, and stored players have its default."""
        self.save(state_class(x=1.5), (1, 2.5, 10))
        new = state_class(x=0.0, hp=100, alive=True, zone="it's home", angle=1e300)
        self.assertEqual(self.load(new, 1), Stored((2.5, 100, True, "it's home", 1e300), 10))
        self.assertEqual(
            self.columns()[3:],
            [
                ("hp", "INTEGER", 1, "100"),
                ("alive", "INT", 1, "1"),
                ("zone", "TEXT", 1, "'it''s home'"),
                ("angle", "REAL", 1, "1e+300"),
            ],
        )

    def test_added_field_is_logged(self) -> None:
        """What was added is logged, once."""
        self.prepare(state_class(x=1.5))
        with capturedLogs() as logs:
            self.prepare(state_class(x=1.5, hp=1, mana=2))
            self.prepare(state_class(x=1.5, hp=1, mana=2))
        (event,) = (event for event in logs if "done" in event)
        self.assertEqual(event["log_level"], LogLevel.info)
        self.assertEqual((event["path"], event["done"]), (self.path, "added columns hp, mana"))

    def test_added_bool_is_checked(self) -> None:
        """A bool that was added holds 0 and 1 alone, as one that was there from the beginning."""
        self.prepare(state_class(x=1.5))
        self.prepare(state_class(x=1.5, alive=False))
        with self.assertRaises(apsw.ConstraintError):
            self.sql("INSERT INTO player_state VALUES (1, 0, 1, 2)")

    def test_added_field_is_written(self) -> None:
        """A new field is saved as any other, for players old and new."""
        self.save(state_class(x=1.5), (1, 2.5, 10))
        new = state_class(hp=100, x=0.0)
        self.save(new, (1, 50, 3.5, 11), (2, 60, 4.5, 11))
        self.assertEqual(self.load(new, 1), Stored((50, 3.5), 11))
        self.assertEqual(self.load(new, 2), Stored((60, 4.5), 11))

    def test_removed_field(self) -> None:
        """The column of a removed field keeps its values; a new player has its default."""
        self.save(state_class(x=1.5, hp=100), (1, 2.5, 42, 10))
        self.save(state_class(x=1.5), (1, 3.5, 11), (2, 4.5, 11))
        self.assertEqual(
            self.sql("SELECT x, hp, updated_at FROM player_state"), [(3.5, 42, 11), (4.5, 100, 11)]
        )
        self.assertEqual(self.load(state_class(x=1.5, hp=7), 2), Stored((4.5, 100), 11))

    def test_rolled_back_class(self) -> None:
        """The class of before works on the database of after, and loses nothing of it."""
        old, new = state_class(x=1.5), state_class(x=1.5, hp=100)
        self.save(old, (1, 2.5, 10))
        self.save(new, (1, 3.5, 42, 11))
        self.assertEqual(self.load(old, 1), Stored((3.5,), 11))
        self.save(old, (1, 4.5, 12))
        self.assertEqual(self.load(new, 1), Stored((4.5, 42), 12))

    def test_readded_field(self) -> None:
        """A field that comes back finds what it held."""
        self.save(state_class(x=1.5, zone="start"), (1, 2.5, "cave", 10))
        self.prepare(state_class(x=1.5))
        self.assertEqual(self.load(state_class(x=1.5, zone="other"), 1), Stored((2.5, "cave"), 10))

    def test_reordered_fields(self) -> None:
        """The order of the fields is the class's, whatever the table's."""
        self.save(state_class(a=1, b=2, c=3), (1, 10, 20, 30, 5))
        self.assertEqual(self.load(state_class(c=0, a=0, b=0), 1), Stored((30, 10, 20), 5))
        self.save(state_class(c=0, a=0, b=0), (1, 31, 11, 21, 6))
        self.assertEqual(self.sql("SELECT a, b, c FROM player_state"), [(11, 21, 31)])

    def test_all_fields_replaced(self) -> None:
        """No field of the new class need be there before."""
        self.save(state_class(x=1.5), (1, 2.5, 10))
        self.assertEqual(self.load(state_class(hp=3, zone="a"), 1), Stored((3, "a"), 10))

    def test_changed_default(self) -> None:
        """Another default is for players to come: it changes no stored one."""
        self.save(state_class(x=1.5), (1, 2.5, 10))
        self.assertEqual(self.load(state_class(x=9.5), 1), Stored((2.5,), 10))

    def test_narrower_bounds(self) -> None:
        """Bounds bind updates: a row saved under wider ones is loaded as it is."""
        self.save(state_class(x=1.5), (1, 250.0, 10))
        narrow = attrs.make_class(
            "Made", {"x": attrs.field(default=1.5, type=float, metadata=within(0, 100))}
        )
        self.assertEqual(self.load(narrow, 1), Stored((250.0,), 10))

    def test_changed_case(self) -> None:
        """A field renamed in case alone finds its column, as SQLite does."""
        self.save(state_class(HitPoints=1), (1, 5, 10))
        self.assertEqual(self.load(state_class(hitpoints=2), 1), Stored((5,), 10))
        self.assertEqual(len(self.columns()), 3)

    def test_names_that_only_python_folds(self) -> None:
        """Names that SQLite tells apart are two columns, though Python folds them to one."""
        for before, after in (("straße", "strasse"), ("É", "é"), ("Ω", "ω")):
            self.use(f"{before}.db")
            self.save(state_class(**{before: 1}), (1, 5, 10))
            self.assertEqual(self.load(state_class(**{after: 2}), 1), Stored((2,), 10), after)
            self.save(state_class(**{after: 2}), (1, 7, 11))
            self.assertEqual(self.load(state_class(**{after: 2}), 1), Stored((7,), 11), after)

    def test_changed_type(self) -> None:
        """A field of another type is refused, with its name, the file and what to do."""
        for before, after in itertools.permutations(EXAMPLES, 2):
            self.use(f"{before}-{after}.db")
            self.save(state_class(value=EXAMPLES[before]), (1, EXAMPLES[before], 10))
            self.assertEqual(
                self.refusal(state_class(value=EXAMPLES[after])),
                f"{self.path}: field value is {after} now, but its column holds {before}; it was"
                " left as it is: give the field a new name (the old column stays), or convert the"
                " column first",
            )
            self.assertEqual(
                self.load(state_class(value=EXAMPLES[before]), 1),
                Stored((EXAMPLES[before],), 10),
            )

    def test_changed_type_of_a_column_made_by_hand(self) -> None:
        """A column that was made by hand is told by its declared type."""
        self.prepare(state_class(x=1.5))
        self.sql("ALTER TABLE player_state ADD COLUMN photo BLOB")
        self.assertIn(
            "field photo is text now, but its column holds BLOB",
            self.refusal(state_class(x=1.5, photo="a")),
        )

    def test_refused_field_among_new_ones(self) -> None:
        """Where one field is refused, no other becomes a column."""
        self.prepare(state_class(x=1.5, hp=1))
        before = self.columns()
        self.refusal(state_class(mana=1, x=1.5, hp=1.5, zone="a"))
        self.assertEqual(self.columns(), before)

    def test_readded_field_of_another_type(self) -> None:
        """The column of a field that was gone is held to its type too."""
        self.prepare(state_class(x=1.5, hp=1))
        self.prepare(state_class(x=1.5))
        self.assertIn("field hp is float now", self.refusal(state_class(x=1.5, hp=1.5)))

    def test_one_transaction(self) -> None:
        """From the first look at the columns on, no other program can write."""
        self.prepare(state_class(x=1.5))
        other = self.by_hand()
        refused = []

        def watch(connection: apsw.Connection) -> None:
            def write_meanwhile(source: object, sql: str, bindings: Any) -> bool:
                if connection.in_transaction:
                    try:
                        other.execute("DELETE FROM player_state")
                    except apsw.BusyError:
                        refused.append(sql)
                    else:
                        self.fail(f"written before {sql}")
                return True

            connection.exec_trace = write_meanwhile

        self.patch(apsw, "connection_hooks", [*apsw.connection_hooks, watch])
        self.prepare(state_class(x=1.5, hp=1))
        self.assertTrue(any("ALTER TABLE" in sql for sql in refused), refused)

    def test_failed_addition(self) -> None:
        """Where one column cannot be added, none is."""
        columns = ", ".join(f"c{i} INT" for i in range(1996))
        self.sql(  # one column is left of the 2,000 a table may have
            "PRAGMA journal_mode = wal; CREATE TABLE player_state (session_id INTEGER PRIMARY KEY,"
            f" x REAL NOT NULL, {columns}, updated_at INTEGER NOT NULL) STRICT;"
            f" PRAGMA application_id = {APPLICATION_ID}"
        )
        line = self.refusal(state_class(x=1.5, a=1, b=2))
        self.assertTrue(line.startswith(f"{self.path} cannot be used: "), line)
        self.assertEqual(len(self.columns()), 1999)

    def test_shrunk_text(self) -> None:
        """A text made too short for what is stored is refused, counted in bytes of UTF-8."""
        self.save(with_text(16), (1, "größe", 10), (2, "a", 10))
        self.assertEqual(
            self.refusal(with_text(6)),
            f"{self.path}: field name is text(6) now, but its column holds a text of 7 bytes; it"
            " was left as it is: make the field text(7), or shorten what is stored",
        )

    def test_resized_text(self) -> None:
        """A text may shrink to the longest that is stored, or grow, and then holds more."""
        for before, after, stored in ((16, 7, "größe"), (4, 64, "abcd"), (16, 1, None)):
            with self.subTest(before=before, after=after):
                self.use(f"{before}-{after}.db")
                self.save(with_text(before), *([(1, stored, 10)] if stored else []))
                self.save(with_text(after), (2, "x" * after, 10))
                if stored:
                    self.assertEqual(self.load(with_text(after), 1), Stored((stored,), 10))
                self.assertEqual(self.load(with_text(after), 2), Stored(("x" * after,), 10))

    def test_any_history(self) -> None:
        """Through any history of classes a player keeps what each field last held."""
        kinds = {"a": 1, "b": 2.5, "c": "see", "d": True, "e": -7}
        histories = st.lists(
            st.lists(st.sampled_from(sorted(kinds)), min_size=1, unique=True),
            min_size=1,
            max_size=4,
        )
        numbers = itertools.count()

        @settings(LAW, max_examples=30)
        @given(histories)
        def law(history: list[list[str]]) -> None:
            self.use(f"{next(numbers)}.db")
            held: dict[str, Any] = {}
            for at, names in enumerate(history):
                # The defaults are the same each time, so that a column's is the class's.
                store = open_store(self.url, state_class(**{name: kinds[name] for name in names}))
                take(store)
                with (
                    closing(store),
                    closing(store.open_reader()) as reader,
                    closing(store.open_writer()) as writer,
                ):
                    if at:
                        expected = tuple(held.get(name, kinds[name]) for name in names)
                        self.assertEqual(reader.load(1), Stored(expected, at))
                    for name in names:
                        held[name] = type(kinds[name])(at)
                    values = tuple(held[name] for name in names)
                    writer.write(records(store.schema, (1, *values, at + 1)))
                    self.assertEqual(reader.load(1), Stored(values, at + 1))

        law()


class ForeignTests(FormatTestCase):
    """Databases that are not ours, or not for this version."""

    def test_newer_format(self) -> None:
        """A database of a newer form is refused; the line says which and what to do."""
        self.save(PlayerState, (1, 2.0, 3.0, 4))
        self.sql("PRAGMA user_version = 2")
        self.assertEqual(
            self.refusal(),
            f"{self.path} has format 2, this playerstate knows formats up to 1; it was left as it"
            " is: install the newer playerstate again",
        )

    def test_format_of_this_version(self) -> None:
        """The form of this version is 1."""
        self.assertEqual(FORMAT, 1)

    def test_other_application(self) -> None:
        """A database that bears another program's mark is refused, even without a table."""
        for content in ("", "CREATE TABLE notes (note TEXT);"):
            self.use(f"{len(content)}.db")
            self.sql(content + "PRAGMA application_id = 252006674")
            self.assertEqual(
                self.refusal(),
                f"{self.path} is a database of another program; it was left as it is: name another"
                " file",
            )

    def test_tables_without_a_mark(self) -> None:
        """A database with tables and no mark is another program's, whatever they are called."""
        for table in ("notes (note TEXT)", "player_state (session_id INTEGER PRIMARY KEY)"):
            self.use(f"{len(table)}.db")
            self.sql(f"CREATE TABLE {table}")
            self.assertIn("is a database of another program", self.refusal())
            self.assertEqual(self.sql("PRAGMA journal_mode"), [("delete",)])

    def test_no_write_ahead_log(self) -> None:
        """Where SQLite cannot use its write-ahead log, the database is refused."""
        with closing(apsw.Connection(":memory:")) as connection:
            with self.assertRaises(StoreUnusable) as caught:
                migrate_database(connection, "players.db", StateSchema.of(PlayerState), IDENTITY)
            self.assertEqual(connection.execute("SELECT count(*) FROM sqlite_schema").get, 0)
        self.assertEqual(
            self.assert_one_line(caught.exception),
            "players.db: SQLite cannot use its write-ahead log here (memory instead); it does not"
            " work on a network file system: put the database on a local disk",
        )

    def test_check_ours(self) -> None:
        """An empty database is not ours yet, and one that we made is recognised."""
        with closing(apsw.Connection(self.path)) as connection:
            self.assertFalse(check_ours(connection, self.path))
        self.prepare()
        with closing(apsw.Connection(self.path)) as connection:
            self.assertTrue(check_ours(connection, self.path))
