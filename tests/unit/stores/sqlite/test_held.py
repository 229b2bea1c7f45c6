"""What an operator changes in a database that is held."""

from __future__ import annotations

import os
from contextlib import closing

from playerstate.interfaces import Erased, StoreBusy, Stored, StoreUnusable
from playerstate.stores import operate_store
from playerstate.stores.sqlite import held
from playerstate.stores.sqlite.batches import Batches
from tests.kit.databases import EVERYTHING, PLAIN, records
from tests.kit.sqlite_stores import FormatTestCase

CURSE = (
    "CREATE TRIGGER curse BEFORE INSERT ON player_state WHEN NEW.x < 0"
    " BEGIN SELECT RAISE(ABORT, 'cursed'); END"
)


class HeldTests(FormatTestCase):
    """`IHeldStore` of three players."""

    def setUp(self) -> None:
        """Save them, and hold their database."""
        super().setUp()
        self.save(PLAIN, *((n, float(n), 0.5, 100 * n) for n in (1, 2, 3)))
        self.held = operate_store(self.url).hold()
        self.addCleanup(self.held.close)

    def stored(self) -> dict[int, int]:
        """When each stored player last changed."""
        return dict(self.sql("SELECT session_id, updated_at FROM player_state"))

    def test_load(self) -> None:
        """Players are loaded as a server loads them; those who are not stored are missing."""
        loaded = self.held.load(PLAIN, [2, 4])
        self.assertEqual(loaded, {2: Stored((2.0, 0.5), 200)})

    def test_load_busy(self) -> None:
        """A database that another program has locked is an error of one line."""
        self.patch(held.SQLiteReader, "load", busy)
        error = self.assertRaises(StoreUnusable, self.held.load, PLAIN, [2])
        self.assertIn("is busy: locked; try again", self.assert_one_line(error))

    def test_write(self) -> None:
        """Rows are saved, but for those of which the store has a newer state."""
        batch = records(PLAIN, (1, 9.0, 9.0, 99), (2, 9.0, 9.0, 201), (4, 9.0, 9.0, 1))
        self.assertEqual(self.held.write(PLAIN, batch).newer.tolist(), [0])
        self.assertEqual(self.stored(), {1: 100, 2: 201, 3: 300, 4: 1})
        self.assertFalse(os.path.exists(f"{self.path}-wal"))

    def test_write_refused(self) -> None:
        """Where one row is refused none is saved, and the reason is told."""
        self.sql(CURSE)
        before = self.stored()
        batch = records(PLAIN, (4, 1.0, 1.0, 1), (5, -1.0, 1.0, 1), (6, 1.0, 1.0, 1))
        self.assertEqual(self.held.write(PLAIN, batch).refused, {1: "cursed"})
        self.assertEqual(self.stored(), before)

    def test_write_refused_together(self) -> None:
        """Rows that are refused in combination only are not saved either."""
        self.sql(CURSE)
        self.patch(Batches, "find_refused", lambda self, records: {})
        before = self.stored()
        batch = records(PLAIN, (4, -1.0, 1.0, 1), (5, 1.0, 1.0, 1))
        error = self.assertRaises(StoreUnusable, self.held.write, PLAIN, batch)
        self.assertIn("refuses these rows together: cursed", self.assert_one_line(error))
        self.assertEqual(self.stored(), before)

    def test_interrupted(self) -> None:
        """What a signal raises ends the call, and leaves the store as it was."""
        before = self.stored()
        with self.assertRaises(KeyboardInterrupt), self.held._change() as connection:
            connection.execute("DELETE FROM player_state")
            raise KeyboardInterrupt
        self.assertEqual(self.stored(), before)

    def test_erase(self) -> None:
        """A player is gone from the rows and from the quarantined ones; the others stay."""
        with open(f"{self.path}.refused.jsonl", "w", encoding="ascii") as file:
            file.write('{"session_id": 2, "x": 1.0}\n{"session_id": 3, "x": 1.0}\n')
        self.assertEqual(self.held.erase(2), Erased(1, 1))
        self.assertEqual(self.stored(), {1: 100, 3: 300})
        with open(f"{self.path}.refused.jsonl", encoding="ascii") as file:
            self.assertEqual(file.read(), '{"session_id": 3, "x": 1.0}\n')
        self.assertEqual(self.held.erase(2), Erased(0, 0))

    def test_erased_for_good(self) -> None:
        """An erased player's values are in no file of the database."""
        self.held.close()
        self.use("texts.db")
        secret = "my-secret-zone"
        self.save(EVERYTHING, *((n, 0.0, 1, True, f"{secret}{n}", 0.0, n) for n in range(1, 9)))
        with closing(operate_store(self.url).hold()) as held:
            held.erase(5)
        found = b""
        for name in os.listdir(self.directory):
            if name.startswith("texts.db"):
                with open(f"{self.directory}/{name}", "rb") as file:
                    found += file.read()
        self.assertIn(f"{secret}4".encode(), found)
        self.assertNotIn(f"{secret}5".encode(), found)

    def test_erase_fails(self) -> None:
        """Where quarantined rows cannot be rewritten, that is told; a second call goes on."""
        with open(f"{self.path}.refused.jsonl", "w", encoding="ascii") as file:
            file.write('{"session_id": 2}\n')
        os.mkdir(f"{self.path}.refused.jsonl.new")
        error = self.assertRaises(StoreUnusable, self.held.erase, 2)
        self.assertIn("cannot change", self.assert_one_line(error))
        os.rmdir(f"{self.path}.refused.jsonl.new")
        self.assertEqual(self.held.erase(2), Erased(0, 1))

    def test_erase_busy(self) -> None:
        """Where another program writes, nothing is erased."""
        self.patch(held, "STARTUP_BUSY_MS", 1)
        other = self.by_hand()
        other.execute("BEGIN IMMEDIATE")
        error = self.assertRaises(StoreUnusable, self.held.erase, 2)
        self.assertIn("is busy: database is locked; try again", self.assert_one_line(error))
        other.execute("ROLLBACK")
        self.assertEqual(len(self.stored()), 3)

    def test_prune(self) -> None:
        """Those are deleted who changed before a time, and were counted before."""
        self.assertEqual(self.held.idle(200), 1)
        self.assertEqual(len(self.stored()), 3)
        self.assertEqual(self.held.prune(200), 1)
        self.assertEqual(self.stored(), {2: 200, 3: 300})
        self.assertEqual(self.held.prune(200), 0)


def busy(reader: object, session_id: int) -> None:
    """Another program has the lock."""
    raise StoreBusy("locked")
