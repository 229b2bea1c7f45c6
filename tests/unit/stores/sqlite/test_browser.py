"""Looking into a database without its state class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import apsw
from zope.interface.verify import verifyObject

from playerstate.interfaces import (
    IStoreBrowser,
    StoreUnusable,
)
from playerstate.stores import browse_store
from playerstate.stores.sqlite.files import STARTUP_BUSY_MS
from tests.kit.databases import (
    EVERYTHING,
    connections,
    digest,
    records,
    state_class,
)
from tests.kit.sqlite_stores import StoreTestCase


class BrowserTests(StoreTestCase):
    """Looking into a database without its state class."""

    def fill(self) -> None:
        """A database of three players."""
        store = self.prepare(EVERYTHING)
        with closing(store.open_writer()) as writer:
            writer.write(
                records(
                    EVERYTHING,
                    (1, 1.0, 10, True, "one", 0.1, 200),
                    (2, 2.0, 20, False, "two", 0.2, 300),
                    (3, 3.0, 30, True, "three", 0.3, 200),
                )
            )
        store.close()

    @contextmanager
    def browser(self) -> Iterator[IStoreBrowser]:
        """The browser of that database."""
        with closing(browse_store(self.url)) as browser:
            yield browser

    def refusal(self) -> str:
        """The one line for a database that cannot be looked into."""
        with self.assertRaises(StoreUnusable) as caught:
            browse_store(self.url)
        return self.assert_one_line(caught.exception)

    def test_interface(self) -> None:
        """A browser provides what it says."""
        self.fill()
        with self.browser() as browser:
            self.assertTrue(verifyObject(IStoreBrowser, browser))

    def test_columns(self) -> None:
        """The columns come in the table's order, the session id first."""
        self.fill()
        with self.browser() as browser:
            self.assertEqual(
                browser.columns,
                ("session_id", "x", "hp", "alive", "zone", "angle", "updated_at"),
            )

    def test_count(self) -> None:
        """Every player counts."""
        self.fill()
        with self.browser() as browser:
            self.assertEqual(browser.count(), 3)

    def test_latest(self) -> None:
        """The latest changed come first, and those of one time by their id."""
        self.fill()
        with self.browser() as browser:
            rows = list(browser.latest(None))
            self.assertEqual([row[0] for row in rows], [2, 1, 3])
            self.assertEqual(rows[0], (2, 2.0, 20, 0, "two", 0.2, 300))

    def test_limit(self) -> None:
        """So many rows and no more, and none for 0."""
        self.fill()
        with self.browser() as browser:
            for limit, ids in ((0, []), (1, [2]), (2, [2, 1]), (9, [2, 1, 3])):
                self.assertEqual([row[0] for row in browser.latest(limit)], ids)

    def test_find(self) -> None:
        """One player's row, or None."""
        self.fill()
        with self.browser() as browser:
            self.assertEqual(browser.find(3), (3, 3.0, 30, 1, "three", 0.3, 200))
            self.assertIsNone(browser.find(4))

    def test_bytes_that_are_no_text(self) -> None:
        """Bytes that an operator put into a text are shown, and hide no other player."""
        self.fill()
        self.sql("UPDATE player_state SET zone = CAST(x'61ff00' AS TEXT) WHERE session_id = 2")
        with self.browser() as browser:
            self.assertEqual(browser.find(2)[4], "a\\xff\0")
            self.assertEqual([row[4] for row in browser.latest(None)], ["a\\xff\0", "one", "three"])

    def test_no_player(self) -> None:
        """A database without players is looked into as any other."""
        self.prepare().close()
        with self.browser() as browser:
            self.assertEqual((browser.count(), [*browser.latest(None)]), (0, []))

    def test_old_columns(self) -> None:
        """The columns of fields that are gone are shown too."""
        self.fill()
        self.prepare(state_class(x=0.0, hp=0, mana=7)).close()
        with self.browser() as browser:
            self.assertEqual(
                browser.columns,
                ("session_id", "x", "hp", "alive", "zone", "angle", "updated_at", "mana"),
            )
            self.assertEqual(browser.find(1), (1, 1.0, 10, 1, "one", 0.1, 200, 7))

    def test_cannot_write(self) -> None:
        """Its connection takes no change."""
        self.fill()
        with connections() as opened, self.browser():
            (connection,) = opened
            self.assertRaises(apsw.ReadOnlyError, connection.execute, "DELETE FROM player_state")

    def test_patience(self) -> None:
        """It waits a while for who has the database locked, as a start does."""
        self.fill()
        with connections() as opened, self.browser():
            (connection,) = opened
            self.assertEqual(connection.pragma("busy_timeout"), STARTUP_BUSY_MS)

    def test_leaves_nothing(self) -> None:
        """Looking takes no lock, changes no byte and leaves no file beside the database."""
        self.fill()
        os.remove(self.path + ".lock")
        before = digest(self.path)
        with self.browser() as browser:
            browser.count()
        self.assertEqual(os.listdir(self.directory), ["players.db"])
        self.assertEqual(digest(self.path), before)

    def test_beside_a_server(self) -> None:
        """Beside a server it sees what is committed, and nothing that is not."""
        self.fill()
        store = self.prepare(EVERYTHING)
        with self.writer(store) as (writer, connection), self.reader(store) as (reader, _):
            writer.write(records(EVERYTHING, (4, 4.0, 40, True, "four", 0.4, 400)))
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM player_state")
            with self.browser() as browser:
                self.assertEqual(browser.count(), 4)
                self.assertEqual([row[0] for row in browser.latest(1)], [4])
            connection.execute("ROLLBACK")
            writer.write(records(EVERYTHING, (5, 5.0, 50, True, "five", 0.5, 500)))
            self.assertIsNotNone(reader.load(5))

    def test_missing(self) -> None:
        """A file that is missing is named, and not made."""
        self.assertEqual(self.refusal(), f"{self.path} does not exist")
        self.assertEqual(os.listdir(self.directory), [])

    def test_empty(self) -> None:
        """An empty file holds no players."""
        open(self.path, "wb").close()
        self.assertEqual(self.refusal(), f"{self.path} holds no players: it is an empty database")

    def test_of_another_program(self) -> None:
        """A database of another program is refused, and left as it is."""
        self.sql("CREATE TABLE notes (note TEXT)")
        before = digest(self.path)
        self.assertIn("is a database of another program", self.refusal())
        self.assertEqual(digest(self.path), before)

    def test_not_a_database(self) -> None:
        """A file that is no database is refused, and left as it is."""
        with open(self.path, "wb") as file:
            file.write(b"a letter to the players\n" * 100)
        before = digest(self.path)
        self.assertIn("is not a SQLite database", self.refusal())
        self.assertEqual(digest(self.path), before)
        self.assertEqual(os.listdir(self.directory), ["players.db"])

    def test_damaged(self) -> None:
        """Damage that shows only while looking is told in a line too."""
        self.fill()
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096)
        with self.browser() as browser:
            for look in (browser.count, lambda: [*browser.latest(None)], lambda: browser.find(1)):
                with self.assertRaises(StoreUnusable) as caught:
                    look()
                line = self.assert_one_line(caught.exception)
                self.assertTrue(line.startswith(f"{self.path} is damaged ("), line)

    def test_close_halfway(self) -> None:
        """A browser may be closed before its rows were all taken."""
        self.fill()
        with self.browser() as browser:
            rows = browser.latest(None)
            self.assertEqual(next(rows)[0], 2)

    def test_refusal_closes(self) -> None:
        """A database that is refused is closed at once, not when the error is forgotten."""
        open(self.path, "wb").close()
        with connections() as opened:
            self.refusal()
        self.assert_closed(*opened)

    def test_header_alone(self) -> None:
        """A file that only begins as a database does is refused too."""
        with open(self.path, "wb") as file:
            file.write(b"SQLite format 3\0" + b"\xff" * 4080)
        self.assertIn("is not a SQLite database", self.refusal())

    def test_not_a_database_however_short(self) -> None:
        """A file too short for SQLite to tell is no empty database either."""
        with open(self.path, "wb") as file:
            file.write(b"x")
        self.assertIn("is not a SQLite database", self.refusal())

    def test_directory(self) -> None:
        """A directory is refused in a line."""
        os.mkdir(self.path)
        self.assertIn("is not a SQLite database", self.refusal())
