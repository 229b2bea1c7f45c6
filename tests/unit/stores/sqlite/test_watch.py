"""The check that the files of a database in use are still ours."""

from __future__ import annotations

import contextlib
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from playerstate.interfaces import (
    StoreReplaced,
)
from playerstate.stores.sqlite import reader as sqlite_reader
from playerstate.stores.sqlite import writer as sqlite_writer
from playerstate.stores.sqlite.writer import SQLiteWriter
from tests.kit.databases import PLAIN
from tests.kit.sqlite_stores import InUseTestCase


class RemovedTests(InUseTestCase):
    """The files of a database, removed or replaced while they are in use."""

    def test_untouched(self) -> None:
        """Files that are what they were are no cause for anything, before and after a commit."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 8 * 4120)
        self.saver.maintain()
        for updated_at in range(1, 50):
            self.write(*range(1, 100), updated_at=updated_at)
            self.saver.maintain()
            self.saver.maintain()

    def test_log_emptied_by_another(self) -> None:
        """A program that copies the log and empties it has replaced nothing."""
        self.write(1)
        self.saver.maintain()
        other = self.by_hand()
        other.execute("SELECT count(*) FROM player_state").fetchall()
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.assertEqual(self.log_bytes(), 0)
        self.saver.maintain()
        self.write(2)
        self.saver.maintain()

    def test_symbolic_link(self) -> None:
        """A database that is named by a link, beside which no log lies, is no cause either."""
        self.use("real.db")
        self.prepare().close()
        link = os.path.join(self.directory, "elsewhere", "link.db")
        os.mkdir(os.path.dirname(link))
        os.symlink(self.path, link)
        self.use("elsewhere/link.db")
        self.begin()
        self.write(1)
        self.saver.maintain()
        self.write(2)
        self.saver.maintain()

    def test_link_to_another(self) -> None:
        """A link that leads to another database now has replaced it."""
        copy = self.copy()
        os.symlink(self.path, os.path.join(self.directory, "link.db"))
        self.use("link.db")
        writer = SQLiteWriter(self.path, PLAIN, "full")
        self.addCleanup(writer.close)
        writer.maintain()
        os.remove(self.path)
        os.symlink(copy, self.path)
        self.assertRaises(StoreReplaced, writer.maintain)

    def test_removed_or_replaced(self) -> None:
        """A file that was removed, or replaced by even a copy of it, is missed.

        So it is before the first commit, and before maintenance saw the files of the commit.
        """
        for suffix, is_replaced, is_written, is_seen in (
            ("", False, True, True),
            ("", False, True, False),
            ("", False, False, False),
            ("", True, True, True),
            ("", True, False, False),
            ("-wal", False, True, True),
            ("-wal", False, True, False),
            ("-wal", True, True, True),
        ):
            with self.subTest(
                suffix=suffix, replaced=is_replaced, written=is_written, seen=is_seen
            ):
                self.use(f"{suffix}{is_replaced}{is_written}{is_seen}.db")
                self.begin()
                if is_written:
                    self.write(1)
                if is_seen:
                    self.saver.maintain()
                file = self.path + suffix
                if is_replaced:
                    os.replace(shutil.copyfile(file, f"{file}.copy"), file)
                else:
                    os.remove(file)
                self.assert_replaced(file)

    def test_directory_removed(self) -> None:
        """Also with the directory that it lay in."""
        os.rename(self.directory, f"{self.directory}.moved")
        self.assert_replaced(self.path)
        os.rename(f"{self.directory}.moved", self.directory)
        self.saver.maintain()

    def test_removed_between_looks(self) -> None:
        """A file that vanishes at any point of a look is missed then or at the next, in words."""
        for index, suffix in enumerate(("", "-wal", "-shm")):
            for after in (1, 2, 3):
                with self.subTest(suffix=suffix, after=after):
                    self.use(f"{index}{after}.db")
                    self.begin()
                    self.write(1)
                    self.saver.maintain()
                    self.vanish(self.path + suffix, after)
                    for _ in range(after):
                        with contextlib.suppress(StoreReplaced):
                            self.saver.maintain()
                    self.assertFalse(os.path.exists(self.path + suffix))
                    self.assert_replaced(self.path + suffix)

    def test_log_removed_amid_a_look_at_its_size(self) -> None:
        """So is a log that another program has emptied, which is looked at twice."""
        for after in (1, 2):
            self.use(f"emptied{after}.db")
            self.begin()
            self.write(1)
            self.saver.maintain()
            other = self.by_hand()
            other.execute("SELECT count(*) FROM player_state").fetchall()
            other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self.vanish(self.path + "-wal", after)
            with contextlib.suppress(StoreReplaced):
                self.saver.maintain()
            self.assertFalse(os.path.exists(self.path + "-wal"))
            self.assert_replaced(self.path + "-wal")

    def test_log_cut_short(self) -> None:
        """A log that was emptied in place is noticed; the database is whole afterwards."""
        self.write(*range(1, 2000))
        self.saver.sync()
        self.write(1, 2, updated_at=11)
        self.saver.maintain()
        os.truncate(self.path + "-wal", 0)
        self.assert_noticed("was cut short")
        self.assertRaises(StoreReplaced, self.saver.sync)
        self.go_over()
        self.assert_in_use()

    def test_log_cut_short_after_another_wrote(self) -> None:
        """A log that was cut where another program's commit was is no error of the disk."""
        self.write(1)
        self.saver.maintain()
        self.by_hand().execute("CREATE TABLE notes (note TEXT)")
        os.truncate(self.path + "-wal", 0)
        self.assert_noticed("was cut short")

    def test_log_removed_before_a_sync(self) -> None:
        """A log that vanishes before it is synced by itself is missed, and no other is synced."""
        for replaced in (False, True):
            self.use(f"synced{replaced}.db")
            self.begin()
            self.write(1)
            self.saver.maintain()
            with self.pinned():
                self.write(1, updated_at=11)
                checkpoint = self.saver._checkpoint

                def checkpointing(checkpoint: Any = checkpoint, replaced: bool = replaced) -> Any:
                    found = checkpoint()
                    os.remove(self.path + "-wal")
                    if replaced:
                        Path(self.path + "-wal").touch()
                    return found

                self.patch(self.saver, "_checkpoint", checkpointing)
                with self.assertRaisesRegex(StoreReplaced, "-wal was removed or replaced"):
                    self.saver.sync()

    def test_removed_as_a_writer_is_opened(self) -> None:
        """A database that vanishes between the look and the opening was removed, not unusable."""
        self.saving.close()
        self.vanish(self.path, 1)
        with self.assertRaisesRegex(StoreReplaced, "was removed or replaced"):
            self.store.open_writer()

    def test_replaced_while_it_is_opened(self) -> None:
        """Put in place the moment before or after the reader is open, another file is noticed."""
        self.write(1)
        self.saving.close()
        self.loading.close()
        copy, connect = self.copy(), sqlite_reader.connect_existing
        for early in (True, False):
            shutil.copyfile(copy, f"{copy}.next")

            def opening(path: str, early: bool = early) -> apsw.Connection:
                if early:
                    os.replace(f"{copy}.next", path)
                connection = connect(path)
                if not early:
                    os.replace(f"{copy}.next", path)
                return connection

            patched = self.patch(sqlite_reader, "connect_existing", opening)
            loader = self.store.open_reader()
            patched.restore()
            with self.assertRaises(StoreReplaced):
                self.store.open_writer()
            loader.close()


class RestoredTests(InUseTestCase):
    """What other programs commit, and what they restore."""

    def test_restored_by_sqlite(self) -> None:
        """An older copy that another program restores through SQLite is noticed, and used."""
        self.write(1, 2)
        self.saver.maintain()
        copy = self.copy()
        self.write(1, 3, updated_at=11)
        self.saver.maintain()
        self.elsewhere(
            "t = apsw.Connection(sys.argv[1]); s = apsw.Connection(sys.argv[2]);"
            "b = t.backup('main', s, 'main'); b.step(); b.finish(); t.close(); s.close()",
            copy,
        )
        self.assert_noticed("restored from a copy")
        self.go_over()
        self.assertEqual(self.loader.load(1).updated_at, 10)
        self.assertIsNone(self.loader.load(3))
        self.assert_in_use()

    def test_restored_from_another_run(self) -> None:
        """So is one that holds what was committed last, by its identity."""
        self.write(1)
        copy = self.copy()
        with closing(apsw.Connection(copy)) as connection:
            connection.execute("UPDATE player_store SET identity = ?", (b"x" * 16,))
        self.saver.maintain()
        self.elsewhere(
            "t = apsw.Connection(sys.argv[1]); s = apsw.Connection(sys.argv[2]);"
            "b = t.backup('main', s, 'main'); b.step(); b.finish(); t.close(); s.close()",
            copy,
        )
        self.assert_noticed("overwritten with another database")
        self.go_over()
        self.assert_in_use()

    def test_changed_by_another(self) -> None:
        """Rows that another program changes or deletes, and its checkpoints, are its right."""
        self.write(1, 2, 3)
        self.write(4, updated_at=12)
        self.saver.maintain()
        self.elsewhere(
            "c = apsw.Connection(sys.argv[1]);"
            "c.execute('DELETE FROM player_state WHERE session_id = 1');"
            "c.execute('UPDATE player_state SET x = 1 WHERE session_id = 2');"
            "c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)"
        )
        self.saver.maintain()
        self.elsewhere(
            "c = apsw.Connection(sys.argv[1]); c.execute('SELECT 1 FROM player_state').get;"
            "c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE); c.execute('VACUUM')"
        )
        self.saver.maintain()
        self.assertIsNone(self.loader.load(1))
        self.write(5)
        self.saver.maintain()
