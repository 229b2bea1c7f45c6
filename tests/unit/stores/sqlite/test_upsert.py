"""How a batch becomes statements of many rows."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import apsw
import numpy as np

from playerstate.interfaces import (
    Records,
    Stored,
)
from playerstate.state.schema import StateSchema
from playerstate.stores import browse_store
from playerstate.stores.sqlite import upsert
from tests.kit.databases import (
    EVERYTHING,
    PLAIN,
    DirectoryTestCase,
    records,
    spawned,
    state_class,
)
from tests.kit.sqlite_stores import StoreTestCase


class UpsertTests(StoreTestCase):
    """How a batch becomes statements."""

    def statements(self, schema: StateSchema, batch: Records) -> list[str]:
        """The INSERTs of one batch; that they stored it is checked too."""
        store = self.prepare(schema)
        ran: list[str] = []

        def note(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
            ran.append(sql)
            return True

        with self.writer(store) as (writer, connection):
            connection.exec_trace = note
            self.assertEqual(len(writer.write(batch)), 0)
            connection.exec_trace = None
        begin = ran.index("BEGIN IMMEDIATE")
        self.assertEqual(ran[-2:], ["INSERT OR REPLACE INTO player_mark VALUES (1, ?)", "COMMIT"])
        self.assertEqual(len(self.stored()), len(batch))
        return ran[begin + 1 : -2]

    def rows(self, statements: list[str]) -> list[int]:
        """How many rows each INSERT carries."""
        return [1 + sql.count("),(") for sql in statements]

    def test_rows_a_statement(self) -> None:
        """Whole statements carry 1,536 rows; what is left over is filled up to a power of two."""
        for size, expected in (
            (1, [1]),
            (2, [2]),
            (3, [4]),
            (511, [512]),
            (513, [1024]),
            (1025, [1536]),
            (1535, [1536]),
            (1536, [1536]),
            (1537, [1536, 1]),
            (8192, [1536] * 5 + [512]),
        ):
            self.use(f"{size}.db")
            statements = self.statements(PLAIN, spawned(PLAIN, np.arange(1, size + 1)))
            self.assertEqual(self.rows(statements), expected, size)

    def test_wide_states(self) -> None:
        """The wider a row's statement, the fewer rows it carries, so that it is kept prepared.

        Texts take longer statements than numbers; names are counted by their bytes.
        """
        for fields, expected in (
            ({f"field_{i}": float(i) for i in range(100)}, [54, 54]),
            ({f"text_{i}": "x" for i in range(32)}, [27, 27, 27, 27]),
            ({"名" * 40 + str(i): 1.0 for i in range(30)}, [63, 63]),
        ):
            with self.subTest(fields=len(fields)):
                self.use(f"{len(fields)}.db")
                schema = StateSchema.of(state_class(**fields))
                statements = self.statements(schema, spawned(schema, np.arange(1, 100)))
                self.assertEqual(self.rows(statements), expected)
                self.assertLess(max(len(sql.encode()) for sql in statements), 16_384)

    def test_widest_state(self) -> None:
        """The most fields there can be, 1,024 bools, are saved a row at a time."""
        schema = StateSchema.of(state_class(**{f"flag_{i}": bool(i % 2) for i in range(1024)}))
        statements = self.statements(schema, spawned(schema, [1, 2, 3]))
        self.assertEqual(self.rows(statements), [1, 1, 1])
        self.assertEqual(self.stored()[2], (3, *(i % 2 for i in range(1024)), 1))

    def test_statements_are_kept_prepared(self) -> None:
        """Batches of whatever sizes use few texts, which SQLite parses once."""
        schema = EVERYTHING
        store = self.prepare(schema)
        with self.writer(store) as (writer, connection):
            for size in (*range(1, 9), 100, 511, 513, 1023):
                writer.write(spawned(schema, np.arange(1, size + 1)))
            parsed = connection.cache_stats()["misses"]
            for size in (3, 77, 300, 999, 2049):
                writer.write(spawned(schema, np.arange(1, size + 1)))
            stats = connection.cache_stats(include_entries=True)
            self.assertEqual(stats["misses"], parsed)
            self.assertEqual((stats["too_big"], stats["evictions"]), (0, 0))
            inserts = [e for e in stats["entries"] if e["query"].startswith("INSERT INTO")]
            self.assertLessEqual(len(inserts), 10)

    def test_names_are_quoted(self) -> None:
        """A field may be called as SQL's own words, tables and columns are, or in any script."""
        names = (
            "order",
            "select",
            "group",
            "table",
            "index",
            "default",
            "excluded",
            "player_state",
            "größe",
            "名前",
            "_hidden",
        )
        schema = StateSchema.of(state_class(**dict.fromkeys(names, 0)))
        store = self.prepare(schema)
        values = tuple(range(len(names)))
        with self.writer(store) as (writer, _), self.reader(store) as (reader, _):
            writer.write(records(schema, (1, *(0 for _ in names), 1)))
            writer.write(records(schema, (1, *values, 2)))
            self.assertEqual(reader.load(1), Stored(values, 2))
        with closing(browse_store(self.url)) as browser:
            self.assertEqual(browser.columns, ("session_id", *names, "updated_at"))
            self.assertEqual(browser.find(1), (1, *values, 2))

    def test_negative_ids(self) -> None:
        """The database itself keeps any 64 bits as a session id."""
        store = self.prepare()
        with self.writer(store) as (writer, _), self.reader(store) as (reader, _):
            writer.write(records(PLAIN, (-(2**63), 1.0, 2.0, 3)))
            self.assertEqual(reader.load(-(2**63)), Stored((1.0, 2.0), 3))


class LimitTests(DirectoryTestCase):
    """What the store takes for given of apsw and SQLite."""

    def test_limits(self) -> None:
        """Statements of the longest INSERT's length are kept prepared, and take its values."""
        with closing(apsw.Connection(self.path)) as connection:
            self.assertGreater(connection.cache_stats()["max_cacheable_bytes"], upsert.SQL_BYTES)
            self.assertGreaterEqual(
                connection.limit(apsw.SQLITE_LIMIT_VARIABLE_NUMBER), upsert.VARIABLES
            )
