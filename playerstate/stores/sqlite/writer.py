"""Saves players in a SQLite database: one transaction per batch, few statements of many rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import apsw
import numpy as np
from zope.interface import implementer

from playerstate.interfaces import (
    IStateWriter,
    LeftOut,
    Records,
    RowRefused,
    StoreBusy,
    StoreReplaced,
)
from playerstate.log import PrintableLogger
from playerstate.printable import printable
from playerstate.sparing import SparingLogger
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.batches import REFUSED, Batches
from playerstate.stores.sqlite.files import connect_existing, file_number
from playerstate.stores.sqlite.refused import RefusedFile
from playerstate.stores.sqlite.watch import Watch

CHECKPOINT_BYTES = 16 * 2**20
"""The size of the write-ahead log at which it is checkpointed.  The largest batch of a queue of
8,192 rows, scattered over a large table, adds some 20 MB, so the log stays below `LOG_BYTES`."""
LOG_BYTES = 64 * 2**20
"""A larger log is truncated to this size at its next reset, and a reader that prevents the reset is
logged."""
FRAME_HEADER_BYTES = 24
PINNED_LOGGED_EVERY = 60.0

_log = PrintableLogger()


@implementer(IStateWriter)
class SQLiteWriter:
    """Saves players, one transaction per batch."""

    def __init__(
        self,
        path: str,
        schema: StateSchema,
        synchronous: str,
        monotonic: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
    ) -> None:
        self._path = path
        self._pinned_lines = SparingLogger(_log, monotonic, PINNED_LOGGED_EVERY)
        self._log_pages = 0
        # No busy timeout: the persister waits between attempts instead, where a stop can end it.
        # Check the file's number: the database may have been replaced while no writer was open.
        self._watch = watch or Watch(path)
        if self._watch.database_file is None:
            self._watch.database_file = file_number(path)
        self._watch.check_number(file_number(path))
        try:
            self._connection = connect_existing(path)
        except apsw.CantOpenError:
            self._watch.check_number(file_number(path))  # it may have been removed since that check
            raise
        try:
            self._log_path = self._connection.filename_wal  # beside what a link leads to
            self._watch.attach(self._connection)
            self._refused = RefusedFile(path, schema)
            self._connection.pragma("synchronous", synchronous)
            self._connection.pragma("journal_size_limit", LOG_BYTES)
            self._frame_bytes = self._connection.pragma("page_size") + FRAME_HEADER_BYTES
            # The hook also switches off SQLite's own checkpoints, which would run inside a commit.
            self._connection.set_wal_hook(self._committed)
        except BaseException:
            self._connection.close()
            raise
        self._batches = Batches(self._connection, schema)

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`; raises `RowRefused` if rows are refused only in combination."""
        self._batches.interrupted = False
        with self._naming_errors():
            self._look()
            try:
                return LeftOut(self._commit(records))
            except (RowRefused, *REFUSED) as error:
                if not (refused := self._batches.find_refused(records)):
                    raise RowRefused(printable(str(error))) from error
            good = np.delete(np.arange(len(records)), list(refused))
            try:
                return LeftOut(good[self._commit(records[good])], refused=refused)
            except REFUSED as error:
                raise RowRefused(printable(str(error))) from error

    def _commit(self, records: Records) -> list[int]:
        """Save records in one transaction; return the positions of those the guard left out."""
        if not len(records):
            return []
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            left_out = self._batches.upsert(records)
            self._watch.marks.put(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._watch.marks.note_committed()
        return left_out

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Translate SQLite's errors about the whole database into errors of this package."""
        try:
            yield
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreBusy(str(error)) from error
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self._watch.replaced = True
            raise StoreReplaced(f"{self._path} is damaged: {error}") from error

    def maintain(self) -> None:
        """Checkpoint the write-ahead log once it has grown to `CHECKPOINT_BYTES`.

        The checkpoint is passive: it waits for no reader or writer, and copies the pages that no
        reader still needs.

        Raises:
            StoreReplaced: the database or its log is not the file that was opened.
        """
        self._look()
        if self._log_pages * self._frame_bytes < CHECKPOINT_BYTES:
            return
        try:
            pages, copied = self._checkpoint()
        except apsw.BusyError:
            return  # another program's checkpoint is running, and does the same
        size = self._log_pages * self._frame_bytes
        if copied < pages and size > LOG_BYTES:
            self._pinned_lines.warn(
                "{path}-wal has grown to {size} MiB and cannot be reset ({copied} of {pages}"
                " pages copied): another program keeps a read transaction open on the database;"
                " end it, or if it is Litestream, which then lags behind, raise --save-within",
                path=self._path,
                size=size >> 20,
                copied=copied,
                pages=pages,
            )

    def _checkpoint(self) -> tuple[int, int]:
        return self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _look(self) -> None:
        """Check that all files are ours and contain the last commit.

        Raises:
            StoreReplaced: they are not, or do not.
        """
        self._watch.check(self._connection, self._log_pages, self._frame_bytes)

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """See `IStateWriter.quarantine`; into ``<database>.refused.jsonl``."""
        self._refused.add(records, reasons)

    def _committed(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def sync(self) -> None:
        """See `IStateWriter.sync`; a complete checkpoint also syncs the database.

        Raises:
            StoreReplaced: as `maintain`; a log that is not ours is never checkpointed.
        """
        self._look()
        try:
            pages, copied = self._checkpoint()
            is_complete = copied == pages
        except apsw.BusyError:
            is_complete = False  # another program's checkpoint is running
        if not is_complete:
            # A reader still needs older pages; the rest of the commits is only in the log.
            self._watch.sync_log(self._log_path)

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`."""
        self._batches.interrupted = True
        # The persist thread may just have closed it.
        with contextlib.suppress(apsw.ConnectionClosedError):
            self._connection.interrupt()

    def close(self) -> None:
        """See `IStateWriter.close`; checkpoints and truncates the log, if possible.

        A log that does not belong to the database is not checkpointed: that would corrupt it.
        """
        try:
            with contextlib.suppress(StoreReplaced):
                self._look()
            if self._watch.apart:
                self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            else:
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.InterruptError):
            pass  # a reader is active, or a stop interrupts: the log stays for SQLite's next use
        finally:
            self._connection.close()
