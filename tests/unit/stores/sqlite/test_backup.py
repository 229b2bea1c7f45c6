"""Whole copies of a database, and what is no whole copy."""

from __future__ import annotations

import os
from contextlib import closing

import apsw

from playerstate.interfaces import StoreUnusable
from playerstate.stores import operate_store
from playerstate.stores.sqlite import backup
from playerstate.stores.sqlite.backup import verify
from tests.kit.sqlite_stores import InUseTestCase


class BackupTests(InUseTestCase):
    """A backup beside a server."""

    def setUp(self) -> None:
        """Some thousand players, so that the copy takes several steps."""
        super().setUp()
        self.write(*range(1, 5001))
        self.target = f"{self.directory}/copy.db"
        self.patch(backup, "PAGES_A_STEP", 4)

    def back_up(self, progress: object = lambda done, total: None) -> int:
        """How many players are in the copy."""
        return operate_store(self.url).backup(self.target, progress)

    def test_whole(self) -> None:
        """The copy has all that was committed, in the log or not, and the same permissions."""
        os.chmod(self.path, 0o640)
        steps: list[tuple[float, float]] = []
        self.assertEqual(self.back_up(lambda done, total: steps.append((done, total))), 5000)
        self.assertGreater(len(steps), 3)
        self.assertEqual(steps[-1][0], steps[-1][1])
        self.assertEqual(verify(self.target), 5000)
        self.assertEqual(os.stat(self.target).st_mode & 0o777, 0o640)
        self.assertEqual(sorted(n for n in os.listdir(self.directory) if "copy" in n), ["copy.db"])

    def test_commits_meanwhile(self) -> None:
        """What a server commits meanwhile neither enters the copy nor makes it start over."""
        steps: list[float] = []

        def commit(done: float, total: float) -> None:
            steps.append(done)
            self.write(10_000 + len(steps))

        self.assertEqual(self.back_up(commit), 5000)
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(verify(self.target), 5000)

    def test_interrupted(self) -> None:
        """What a signal raises meanwhile ends it; the server is not held up by it."""

        def interrupt(done: float, total: float) -> None:
            raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, self.back_up, interrupt)
        self.write(10_001)

    def test_no_room(self) -> None:
        """A full disk is an error of one line."""

        class Full:
            page_count = remaining = 1
            done = False

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *exception: object) -> None:
                pass

            def step(self, pages: int) -> None:
                raise apsw.FullError("not an error")

        connection = apsw.Connection
        made = type("Made", (connection,), {"backup": lambda *arguments: Full()})
        self.patch(backup.apsw, "Connection", made)
        self.addCleanup(setattr, backup.apsw, "Connection", connection)
        error = self.assertRaises(StoreUnusable, self.back_up)
        self.assertIn("cannot write a copy of", self.assert_one_line(error))
        self.assertIn("No space left on device", str(error))

    def test_exists(self) -> None:
        """A file that is there already is left alone."""
        open(self.target, "wb").close()
        self.assertRaises(StoreUnusable, self.back_up)
        self.assertEqual(os.path.getsize(self.target), 0)

    def test_verify(self) -> None:
        """A damaged copy, and what is no copy, are refused."""
        self.back_up()
        with open(self.target, "r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * 8192)
        self.assertIn("is damaged", str(self.assertRaises(StoreUnusable, verify, self.target)))
        with closing(apsw.Connection(f"{self.directory}/other.db")) as other:
            other.execute("CREATE TABLE t (x)")
        self.assertRaises(StoreUnusable, verify, f"{self.directory}/other.db")
        open(f"{self.directory}/empty", "wb").close()
        self.assertRaises(StoreUnusable, verify, f"{self.directory}/empty")

    def test_other_players(self) -> None:
        """A copy that holds other players than the database is refused."""
        self.patch(backup, "verify", lambda path: 1)
        error = self.assertRaises(StoreUnusable, self.back_up)
        self.assertIn("other players", self.assert_one_line(error))
