"""A database over which another was copied in place."""

from __future__ import annotations

import contextlib
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from playerstate.interfaces import (
    StoreReplaced,
    StoreUnusable,
)
from playerstate.stores.sqlite import overwritten as sqlite_overwritten
from playerstate.stores.sqlite import writer as sqlite_writer
from tests.kit.sqlite_stores import InUseTestCase
from tests.kit.support import PATIENCE


class OverwrittenTests(InUseTestCase):
    """It is noticed, and what was copied is taken into a file of its own."""

    def copy_over(self, copy: str) -> None:
        """Another process copies this file over the database, in place."""
        subprocess.run(["cp", copy, self.path], check=True, timeout=PATIENCE)

    def take_overwritten(self) -> None:
        """Go over to what was written over the database in place, at the second try."""
        self.assert_noticed("was written over in place")
        self.saving.close()
        number, mode = os.stat(self.path).st_ino, os.stat(self.path).st_mode
        self.assertIn("is used once no program writes to it", self.refused())
        self.assertIsNone(self.store.reopen(b"n" * 16, frozenset()))
        self.assertNotEqual(os.stat(self.path).st_ino, number)
        self.assertEqual(os.stat(self.path).st_mode, mode)
        self.loading.close()
        self.open_ends()

    def test_overwritten(self) -> None:
        """A copy that is written over it in place is noticed, and taken into a file of its own."""
        os.chmod(self.path, 0o600)
        self.write(1, 2)
        self.saver.maintain()
        copy = self.copy()
        self.write(2, 3, updated_at=11)
        self.saver.sync()
        self.copy_over(copy)
        self.take_overwritten()
        self.assertEqual(self.loader.load(2).updated_at, 10)
        self.assertIsNone(self.loader.load(3))
        self.assert_in_use()

    def test_overwritten_before_a_commit(self) -> None:
        """Also where nothing was written yet; what was committed before is in the way of it."""
        copy = self.copy()
        self.copy_over(copy)
        self.take_overwritten()
        self.assert_in_use()

    def test_overwritten_before_a_writer(self) -> None:
        """Also where no writer was open yet, whatever is there now."""
        self.write(1)
        self.saver.sync()
        copy = self.copy()
        letter = os.path.join(self.directory, "letter")
        Path(letter).write_text("to the players\n" * 1000)
        self.write(1, updated_at=11)
        self.saving.close()
        for content in (letter, copy):
            self.copy_over(content)
            with self.assertRaisesRegex(StoreReplaced, "was written over in place"):
                self.store.open_writer()
            self.assertRaises(StoreUnusable, self.store.reopen, b"n" * 16, frozenset())
            with contextlib.suppress(StoreUnusable):
                self.store.reopen(b"n" * 16, frozenset())
        self.loading.close()
        self.open_ends()
        self.assertEqual(self.loader.load(1).updated_at, 10)
        self.assert_in_use()

    def test_write_before_a_look(self) -> None:
        """No commit comes after it, though upkeep has not looked."""
        self.write(1)
        self.saver.sync()
        copy = self.copy()
        self.write(1, updated_at=11)
        self.saver.sync()
        self.copy_over(copy)
        with self.assertRaisesRegex(StoreReplaced, "was written over in place"):
            self.write(1, updated_at=12)
        self.take_overwritten()
        self.assertEqual(self.loader.load(1).updated_at, 10)
        self.assert_in_use()

    def test_overwritten_with_what_the_log_has(self) -> None:
        """So is a copy from amid what the log holds, whose pages lie in another order."""
        self.write(*range(1, 500))
        self.saver.sync()
        self.write(*range(500, 600))
        self.saver.maintain()
        self.sql("DELETE FROM player_state WHERE session_id < 300")
        self.saver.maintain()
        self.write(1, updated_at=11)
        copy = self.copy()
        self.write(2, updated_at=11)
        self.copy_over(copy)
        self.take_overwritten()
        self.assertIsNone(self.loader.load(2))
        self.assert_in_use()

    def test_overwritten_as_the_ends_close(self) -> None:
        """Found out at the very end, the log is not copied into it; the next start takes it."""
        self.write(1)
        self.saver.sync()
        copy = self.copy()
        self.write(1, 2, updated_at=11)
        self.copy_over(copy)
        self.saving.close()
        self.loading.close()
        self.store.close()
        self.assertFalse(os.path.exists(self.path + "-wal"))
        self.assertEqual(self.sql("SELECT session_id, updated_at FROM player_state"), [(1, 10)])
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_overwritten_with_what_was_opened(self) -> None:
        """So is a copy of the file as it was at the start, byte for byte."""
        copy = os.path.join(self.directory, "raw.db")
        subprocess.run(["cp", self.path, copy], check=True, timeout=PATIENCE)
        self.write(1)
        self.elsewhere("apsw.Connection(sys.argv[1]).pragma('wal_checkpoint', 'TRUNCATE')")
        self.copy_over(copy)
        self.take_overwritten()
        self.assertIsNone(self.loader.load(1))
        self.assert_in_use()

    def test_overwritten_just_before_a_checkpoint(self) -> None:
        """So is a backup into which our own checkpoint was copied, before the next check."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        self.write(*range(1, 500))
        self.saver.maintain()
        self.saver.maintain()
        copy = self.copy()
        self.write(1, updated_at=11)
        checkpoint = self.saver._checkpoint

        def checkpointing() -> Any:
            self.copy_over(copy)
            return checkpoint()

        patched = self.patch(self.saver, "_checkpoint", checkpointing)
        self.saver.maintain()
        patched.restore()
        self.assert_noticed("was written over in place")

    def test_overwritten_with_itself(self) -> None:
        """A copy of what is in it is no loss."""
        copy = os.path.join(self.directory, "raw.db")
        self.write(1)
        self.saver.sync()
        subprocess.run(["cp", self.path, copy], check=True, timeout=PATIENCE)
        self.write(2)
        self.saver.maintain()
        self.copy_over(copy)
        self.saver.maintain()
        self.write(3)
        self.saver.sync()
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])
        self.assertIsNotNone(self.loader.load(2))

    def test_cannot_be_taken_yet(self) -> None:
        """A file is left alone while it is written over, or while there is no room for a copy.

        Once the file is at rest and there is room, it is taken.
        """
        whole = sqlite_overwritten.copy_whole

        def copied_over_again(copy: str, *arguments: Any) -> None:
            whole(*arguments)
            self.copy_over(copy)

        def full(*_: object) -> None:
            raise apsw.FullError("database or disk is full")

        for number, (copying, lines) in enumerate(
            (
                (copied_over_again, ["is used once no program writes to it"]),
                (full, ["make room"] * 2),
            )
        ):
            with self.subTest(copying=copying.__name__):
                self.use(f"{number}.db")
                self.begin()
                self.write(1)
                copy = self.copy(f"{number}.copy")
                self.write(2)
                self.copy_over(copy)
                self.assertRaises(StoreReplaced, self.saver.maintain)
                self.saving.close()
                self.refused()
                copy_whole = partial(copying, copy)
                patched = self.patch(sqlite_overwritten, "copy_whole", copy_whole)
                for line in lines:
                    self.assertIn(line, self.refused())
                    self.assertFalse(os.path.exists(self.path + ".new"))
                patched.restore()
                self.assertIsNone(self.store.reopen(b"n" * 16, frozenset()))

    def test_overwritten_while_another_reads(self) -> None:
        """Another program that has the old file and its log open does the new one no harm."""
        self.write(*range(1, 500))
        self.saver.sync()
        copy = self.copy()
        self.write(*range(1, 500), updated_at=11)
        with self.pinned():
            self.copy_over(copy)
            self.take_overwritten()
            self.write(5, updated_at=20)
            self.saver.sync()
        self.assertEqual(self.loader.load(5).updated_at, 20)
        self.assertEqual(self.loader.load(6).updated_at, 10)
        self.assert_in_use()
