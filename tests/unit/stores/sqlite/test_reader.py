"""Loading players, whatever else happens in the database."""

from __future__ import annotations

from typing import Any

import apsw
import numpy as np

from playerstate.interfaces import (
    Stored,
)
from tests.kit.databases import (
    PLAIN,
    records,
    spawned,
    state_class,
)
from tests.kit.sqlite_stores import StoreTestCase, pause_in_a_statement


class ReaderTests(StoreTestCase):
    """A reader sees each commit at once, waits for no writer, and writes nothing."""

    def test_reader_cannot_write(self) -> None:
        """The reader's connection takes no change."""
        insert = "INSERT INTO player_state VALUES (1, 0, 0, 1)"
        with self.reader(self.prepare()) as (_, connection):
            self.assertRaises(apsw.ReadOnlyError, connection.execute, insert)
        self.assertEqual(self.stored(), [])

    def test_load_during_a_write(self) -> None:
        """While the writer is halfway through a batch, the reader sees what was committed."""
        store = self.prepare()
        seen: list[Any] = []
        with self.reader(store) as (reader, _), self.writer(store) as (writer, connection):
            writer.write(records(PLAIN, (1, 1.0, 1.0, 1)))
            paused = pause_in_a_statement(connection, lambda: seen.append(reader.load(1)))
            writer.write(spawned(PLAIN, np.arange(1, 8193), updated_at=2))
            self.assertTrue(paused.is_set())
            self.assertEqual(seen, [Stored((1.0, 1.0), 1)])
            self.assertEqual(reader.load(1), Stored((350.0, 200.0), 2))

    def test_load_beside_a_large_transaction(self) -> None:
        """A transaction of 100,000 rows that another holds open hides nothing committed."""
        store = self.prepare()
        with self.writer(store) as (writer, _):
            writer.write(records(PLAIN, (7, 1.0, 2.0, 3)))
        other = self.by_hand()
        other.pragma("cache_size", 10)
        other.execute(
            """
            BEGIN IMMEDIATE;
            WITH RECURSIVE ids (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM ids LIMIT 100000)
            INSERT INTO player_state SELECT id, 0, 0, 9 FROM ids WHERE true
            ON CONFLICT (session_id) DO UPDATE SET x = 0, y = 0, updated_at = 9
            """
        )
        self.assertGreater(self.log_bytes(), 0)  # most of it did not fit in the cache
        with self.reader(store) as (reader, _):
            self.assertEqual(reader.load(7), Stored((1.0, 2.0), 3))
            self.assertIsNone(reader.load(8))
            other.execute("COMMIT")
            self.assertEqual(reader.load(7), Stored((0.0, 0.0), 9))
            self.assertEqual(reader.load(8), Stored((0.0, 0.0), 9))

    def test_load_holds_nothing(self) -> None:
        """A look-up ends its read transaction, so that the log can be reset after it."""
        store = self.prepare()
        with self.reader(store) as (reader, connection), self.writer(store) as (writer, _):
            writer.write(records(PLAIN, (1, 0.0, 0.0, 1)))
            reader.load(1)
            reader.load(2)
            self.assertEqual(connection.txn_state(), apsw.SQLITE_TXN_NONE)

    def test_load_bytes_that_are_no_text(self) -> None:
        """A text edited by hand into bytes that are not UTF-8 is returned as bytes."""
        store = self.prepare(state_class(name="a", zone="b", x=1.5))
        self.sql("INSERT INTO player_state VALUES (1, 'ö', CAST(x'61ff' AS TEXT), 2.5, 7)")
        with self.reader(store) as (reader, _):
            self.assertEqual(reader.load(1), Stored(("ö", b"a\xff", 2.5), 7))
