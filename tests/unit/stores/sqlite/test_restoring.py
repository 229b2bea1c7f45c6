"""A copy in the place of a database."""

from __future__ import annotations

import os
from contextlib import closing

import apsw

from playerstate.interfaces import StoreUnusable
from playerstate.stores import operate_store
from playerstate.stores.sqlite import restoring
from tests.kit.databases import PLAIN, digest
from tests.kit.sqlite_stores import FormatTestCase


class RestoringTests(FormatTestCase):
    """`IHeldStore.restore`."""

    def setUp(self) -> None:
        """A database of players 1 and 2, a copy of it, and then player 3."""
        super().setUp()
        self.save(PLAIN, (1, 1.0, 1.0, 10), (2, 2.0, 2.0, 20))
        self.copy = f"{self.directory}/copy.db"
        operate_store(self.url).backup(self.copy, lambda done, total: None)
        self.save(PLAIN, (3, 3.0, 3.0, 30))

    def restore(self, copy: str | None = None) -> list[str]:
        """The names of the files that were set aside."""
        with closing(operate_store(self.url).hold(create=True)) as held:
            return list(held.restore(copy or self.copy, lambda done, total: None))

    def ids(self, path: str) -> list[int]:
        """The players in a database."""
        return [row[0] for row in operate_store(f"sqlite:{path}").rows()]

    def test_restored(self) -> None:
        """The path leads to the copy's players, and the former ones are set aside, whole."""
        os.chmod(self.path, 0o640)
        (aside,) = self.restore()
        self.assertEqual(self.ids(self.path), [1, 2])
        self.assertEqual(self.ids(aside), [1, 2, 3])
        self.assertEqual(self.ids(self.copy), [1, 2])
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)
        self.prepare(PLAIN)  # a server takes it
        self.assertFalse(os.path.exists(f"{self.path}.restoring"))

    def test_identity(self) -> None:
        """No live file, of whatever run, belongs to what was restored."""
        before = {operate_store(f"sqlite:{path}").identity() for path in (self.path, self.copy)}
        self.restore()
        identity = operate_store(self.url).identity()
        self.assertTrue(any(identity))
        self.assertNotIn(identity, before)

    def test_log(self) -> None:
        """Commits that were in the log only, after a kill, are set aside with their database."""
        other = self.by_hand()  # keeps the log
        other.execute("INSERT INTO player_state (session_id, updated_at) VALUES (9, 9)")
        with closing(operate_store(self.url).hold()) as held:
            (aside, *rest) = held.restore(self.copy, lambda done, total: None)
        self.assertEqual(sorted(rest), [f"{aside}-shm", f"{aside}-wal"])
        other.close()
        self.assertEqual(self.ids(self.path), [1, 2])
        self.assertEqual(self.ids(aside), [1, 2, 3, 9])

    def test_damaged(self) -> None:
        """A damaged database makes way too, as it is."""
        with open(self.path, "r+b") as file:
            file.write(b"\0" * 4096)
        before = digest(self.path)
        (aside,) = self.restore()
        self.assertEqual(digest(aside), before)
        self.assertEqual(self.ids(self.path), [1, 2])

    def test_missing(self) -> None:
        """Where there is no database yet, nothing is set aside, but for a log without one."""
        self.use("new.db")
        self.assertEqual(self.restore(), [])
        self.assertEqual(self.ids(self.path), [1, 2])
        self.use("other.db")
        with open(f"{self.path}-wal", "wb") as file:
            file.write(b"of another database")
        (aside,) = self.restore()
        self.assertTrue(aside.endswith("-wal"))
        self.assertEqual(self.ids(self.path), [1, 2])

    def test_refused(self) -> None:
        """What is no whole copy is refused in one line; the database stays as it is."""
        damaged, text, empty = (f"{self.directory}/{name}" for name in ("d.db", "text", "empty"))
        with open(self.copy, "rb") as file:
            content = bytearray(file.read())
        content[4096:] = b"\xff" * (len(content) - 4096)
        for path, bytes_ in ((damaged, content), (text, b"x" * 999), (empty, b"")):
            with open(path, "wb") as file:
                file.write(bytes_)
        with closing(apsw.Connection(f"{self.directory}/other.db")) as other:
            other.execute("CREATE TABLE t (x)")
        before = digest(self.path)
        cases = (damaged, text, empty, f"{self.directory}/other.db", "missing", self.path, "/")
        for copy in cases:
            with self.subTest(copy):
                error = self.assertRaises(StoreUnusable, self.restore, copy)
                self.assert_one_line(error)
                self.assertEqual(digest(self.path), before)
                self.assertFalse(os.path.exists(f"{self.path}.restoring"))

    def test_no_room(self) -> None:
        """A full disk is told, and the database stays as it is."""

        def full(*arguments: object) -> int:
            raise OSError(28, "No space left on device")

        before = digest(self.path)
        self.patch(restoring, "copy_online", full)
        error = self.assertRaises(StoreUnusable, self.restore)
        self.assertIn("No space left on device; it is as it was", self.assert_one_line(error))
        self.assertEqual(digest(self.path), before)

    def test_at_each_moment(self) -> None:
        """Wherever it is killed, the path leads to one of the two, whole."""
        seen = []
        for name in ("rename", "link", "replace"):
            do = getattr(os, name)

            def look(*arguments: str, do: object = do) -> None:
                if os.path.exists(self.path):
                    seen.append(self.ids(self.path))
                do(*arguments)
                seen.append(self.ids(self.path))

            self.patch(restoring.os, name, look)
        self.restore()
        self.assertEqual(seen, [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2]])
