"""The mark of each commit: it tells checkpoints, which are allowed, from copies."""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack
from typing import Any

import apsw

from playerstate.stores.sqlite import watch as sqlite_watch
from playerstate.stores.sqlite import writer as sqlite_writer
from playerstate.stores.sqlite.mark import Marks
from tests.kit.sqlite_stores import InUseTestCase


class MarkTests(InUseTestCase):
    """Changes of the file that are no copy."""

    def test_touched(self) -> None:
        """A time of change that no commit explains is no loss: the log stays where it is."""
        self.write(1, 2)
        self.saver.maintain()
        os.utime(self.path, ns=(10**18, 10**18))
        self.saver.maintain()
        self.write(1, 2, updated_at=11)
        self.saver.maintain()
        self.assertEqual(self.loader.load(2).updated_at, 11)
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_checkpoints_are_no_copies(self) -> None:
        """Checkpoints by any program, whole, in part or broken off, are no copies."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        for turn in range(1, 6):
            with self.pinned():
                for updated_at in range(20 * turn, 20 * turn + 5):
                    self.write(*range(1, 200 * turn), updated_at=updated_at)
                    self.saver.maintain()
                    self.elsewhere(
                        "c = apsw.Connection(sys.argv[1]);"
                        "c.execute('UPDATE player_state SET x = x + 1');"
                        "c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)"
                    )
                    self.saver.maintain()
            self.elsewhere("apsw.Connection(sys.argv[1]).execute('VACUUM')")
            self.write(turn, updated_at=1000 * turn)
            self.saver.sync()
            self.saving.close()  # and a writer that follows another
            self.saver = self.store.open_writer()
            self.saving.callback(self.saver.close)
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_schemas_copied_in_part(self) -> None:
        """What other programs did to the schema is theirs, also where half of it is in the file."""
        self.patch(sqlite_writer, "CHECKPOINT_BYTES", 0)
        self.write(*range(1, 1000))
        self.saver.sync()
        at = itertools.count(20)

        def look() -> None:
            """Copy what can be copied, and look at that."""
            self.write(1, updated_at=next(at))
            for _ in range(2):
                self.saver.maintain()

        for change in ("VACUUM", "CREATE INDEX here ON player_state (x)", "VACUUM"):
            look()
            self.write(
                2, updated_at=next(at)
            )  # who pins nothing of the log keeps all from the file
            with ExitStack() as before:
                before.enter_context(self.pinned())
                self.elsewhere("c = apsw.Connection(sys.argv[1]); c.execute(sys.argv[2])", change)
                look()
                with self.pinned():
                    before.close()
                    look()
            look()
        self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])

    def test_mark_not_in_the_file(self) -> None:
        """Others' change of the schema may be in the file before the mark that it has moved."""
        self.patch(sqlite_watch, "CHECKPOINT_PAUSES", (0.0, 0.0))
        self.write(*range(1, 100))
        self.saver.sync()
        self.write(1, updated_at=11)
        self.elsewhere(
            "apsw.Connection(sys.argv[1]).execute('CREATE INDEX here ON player_state (x)')"
        )
        self.saver.maintain()
        ((root,),) = self.sql("SELECT rootpage FROM sqlite_schema WHERE name = 'player_mark'")
        ((newest,),) = self.sql("PRAGMA schema_version")
        for version, is_ours in ((newest, True), (newest + 1, False)):
            self.elsewhere(
                "file = open(sys.argv[1], 'r+b'); file.seek(40);"
                "file.write(int(sys.argv[2]).to_bytes(4, 'big'));"
                "file.seek((int(sys.argv[3]) - 1) * 4096); file.write(bytes(4096)); file.close()",
                str(version),
                str(root),
            )
            if is_ours:
                self.saver.maintain()
                self.saver.maintain()
                self.saver.sync()
                self.saver.maintain()
                self.assertEqual(self.sql("PRAGMA integrity_check"), [("ok",)])
            else:
                self.assert_noticed("was written over in place")

    def test_commit_of_unknown_end(self) -> None:
        """A commit that failed, and one that succeeded and said it failed, are both no loss."""
        self.write(1)
        for query in ("ROLLBACK", "COMMIT"):
            put = Marks.put

            def failing(marks: Marks, connection: Any, put: Any = put, query: str = query) -> None:
                put(marks, connection)
                connection.execute(query)
                raise apsw.IOError("disk I/O error")

            patched = self.patch(Marks, "put", failing)
            self.assertRaises(apsw.IOError, self.write, 1, updated_at=11)
            patched.restore()
            self.saving.close()
            self.saver = self.store.open_writer()
            self.saving.callback(self.saver.close)
            self.saver.maintain()
            self.write(1, updated_at=12)
            self.saver.sync()
            self.saver.maintain()

    def test_no_file_can_be_opened(self) -> None:
        """Want of open files is a failure of the moment, and no loss."""
        self.write(1)

        def none_left(*_: object) -> None:
            raise apsw.CantOpenError("unable to open database file")

        patched = self.patch(apsw, "VFSFile", none_left)
        self.assertRaises(apsw.CantOpenError, self.saver.maintain)
        self.assertRaises(apsw.CantOpenError, self.write, 1)
        patched.restore()
        self.saver.maintain()
