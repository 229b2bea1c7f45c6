"""Saving players in a SQLite database: one transaction a batch, few statements of many rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.columns import quoted, type_of
from playerstate.stores.sqlite.files import connect_existing, file_number
from playerstate.stores.sqlite.refused import RefusedFile
from playerstate.stores.sqlite.watch import Watch

ROWS_A_STATEMENT = 1536
"""The most rows one INSERT carries.  A step of many rows runs with the GIL released, and each such
step may have to wait for a busy reactor to give it back; but the longer the statement, the longer
the reactor waits while its values are bound."""
SQL_BYTES = 16_000
"""The longest statement that apsw keeps prepared is a little above this."""
VARIABLES = 32_766
"""The most values SQLite binds to one statement, by default."""
CHECKPOINT_BYTES = 16 * 2**20
"""The write-ahead log is copied into the database when it has grown to this size.  The largest
batch of a queue of 8,192 rows, scattered over a large table, adds some 20 MB; so the log stays
below `LOG_BYTES`."""
LOG_BYTES = 64 * 2**20
"""Above this size the log is cut down when it is next begun anew, and a reader that keeps it from
being begun anew is told of."""
FRAME_HEADER_BYTES = 24
_REFUSED = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)
_SOME = "SELECT * FROM ({rows}) WHERE column1 IS NOT NULL"
PINNED_TOLD_EVERY = 60.0

_log = PrintableLogger()


@implementer(IStateWriter)
class SQLiteWriter:
    """Saves players, a batch a transaction."""

    def __init__(
        self,
        path: str,
        schema: StateSchema,
        synchronous: str,
        monotonic: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._pinned_told_at = -PINNED_TOLD_EVERY
        self._log_pages = 0
        self._interrupted = False
        # No waiting for a busy database in here: the persister waits, where it can be told to end.
        # One that was replaced while no writer was open is not to be taken for the old one.
        self._watch = watch or Watch(path)
        if self._watch.database_file is None:
            self._watch.database_file = file_number(path)
        self._watch.check_number(file_number(path))
        try:
            self._connection = connect_existing(path)
        except apsw.CantOpenError:
            self._watch.check_number(file_number(path))  # it may have gone after that look
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
        self._sql = _Upsert(schema)

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`; raises `RowRefused` where rows are refused only together."""
        self._interrupted = False
        with self._naming_errors():
            self._look()
            try:
                return LeftOut(self._commit(records))
            except (RowRefused, *_REFUSED) as error:
                if not (refused := self._find_refused(records)):
                    raise RowRefused(printable(str(error))) from error
            good = np.delete(np.arange(len(records)), list(refused))
            try:
                return LeftOut(good[self._commit(records[good])], refused=refused)
            except _REFUSED as error:
                raise RowRefused(printable(str(error))) from error

    def _commit(self, records: Records) -> list[int]:
        """Save records in one transaction; return the positions of those the guard left out."""
        if not len(records):
            return []
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            left_out = self._upsert(records)
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
        """Raise what SQLite says of the whole database as an error of this package."""
        try:
            yield
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreBusy(str(error)) from error
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self._watch.replaced = True
            raise StoreReplaced(f"{self._path} is damaged: {error}") from error

    def _find_refused(self, records: Records) -> dict[int, str]:
        """Why each of the records is refused that is, by position; nothing is saved.

        The batch is halved within one transaction, which costs no commit and no sync, and ends
        after twice as many statements as there are records at most.
        """
        reasons: dict[int, str] = {}
        parts = [(0, len(records))]
        try:
            while parts:
                start, end = parts.pop()
                if not self._connection.in_transaction:  # a trigger may roll back all of it
                    self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._upsert(records[start:end])
                except (RowRefused, *_REFUSED) as error:
                    middle = (start + end) // 2
                    if middle == start:
                        reasons[start] = printable(str(error))
                    else:
                        parts += [(middle, end), (start, middle)]
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return reasons

    def _upsert(self, records: Records) -> list[int]:
        connection, left_out = self._connection, []
        for start in range(0, len(records), self._sql.most):
            chunk = records[start : start + self._sql.most]
            connection.execute(*self._sql.save(chunk))
            if self._interrupted:  # SQLite forgets one that comes while no statement runs
                raise apsw.InterruptError("interrupted")
            if connection.changes() < len(chunk):
                left_out += [start + index for index in self._find_newer(chunk)]
        return left_out

    def _find_newer(self, chunk: Records) -> list[int]:
        """Positions of the records that the guard left out.

        Raises:
            RowRefused: a record was left out without a newer one being there.
        """
        ids = chunk["session_id"].tolist()
        marks = ",".join("?" * len(ids))
        stored = dict(
            self._connection.execute(
                f"SELECT session_id, updated_at FROM player_state WHERE session_id IN ({marks})",
                ids,
            )
        )
        updated_at = chunk["updated_at"].tolist()
        if any(stored.get(key, -1) < at for key, at in zip(ids, updated_at, strict=True)):
            raise RowRefused("a trigger passed over it")
        return [index for index, key in enumerate(ids) if stored[key] > updated_at[index]]

    def maintain(self) -> None:
        """Copy the write-ahead log into the database once it has grown large.

        A passive checkpoint: it waits for nobody, and copies what no reader still needs.

        Raises:
            StoreReplaced: the database or its log is not the file that was opened.
        """
        self._look()
        if self._log_pages * self._frame_bytes < CHECKPOINT_BYTES:
            return
        pages, copied = self._checkpoint()
        size = self._log_pages * self._frame_bytes
        now = self._monotonic()
        if copied < pages and size > LOG_BYTES and now - self._pinned_told_at >= PINNED_TOLD_EVERY:
            self._pinned_told_at = now
            _log.warn(
                "{path}-wal has grown to {size} MiB and cannot be begun anew ({copied} of {pages}"
                " pages copied): another program keeps a read transaction open on the database;"
                " end it",
                path=self._path,
                size=size >> 20,
                copied=copied,
                pages=pages,
            )

    def _checkpoint(self) -> tuple[int, int]:
        return self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _look(self) -> None:
        """See that all files are ours, and hold what was committed.

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
        """See `IStateWriter.sync`; a checkpoint of the whole log also syncs the database.

        Raises:
            StoreReplaced: as `maintain`; a log that is not ours is copied nowhere.
        """
        self._look()
        pages, copied = self._checkpoint()
        if copied < pages:
            # Somebody reads what is older: what is not copied is in the log.
            self._watch.sync_log(self._log_path)

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`."""
        self._interrupted = True
        # The persist thread may have closed it a moment ago.
        with contextlib.suppress(apsw.ConnectionClosedError):
            self._connection.interrupt()

    def close(self) -> None:
        """See `IStateWriter.close`; the log is copied into the database and emptied, if it can.

        Not where log and database do not belong together: that would spoil the database.
        """
        try:
            with contextlib.suppress(StoreReplaced):
                self._look()
            if self._watch.apart:
                self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            else:
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.InterruptError):
            pass  # somebody reads, or is in a hurry: the log stays, and SQLite uses it as it is
        finally:
            self._connection.close()


class _Upsert:
    """The INSERT of many rows at a time.

    The guard lets a row through that is as old as the stored one, so that a batch may be written
    again after a failure that was none.

    Attributes:
        most: rows that one statement carries at most.
    """

    def __init__(self, schema: StateSchema) -> None:
        names = ["session_id", *(quoted(field.name) for field in schema.fields), "updated_at"]
        marks = ["?", *(type_of(field).bound for field in schema.fields), "?"]
        self._columns = len(names)
        self._row = f"({','.join(marks)})"
        self._head = f"INSERT INTO player_state ({','.join(names)}) "
        self._tail = (
            " ON CONFLICT (session_id) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in names[1:])
            + " WHERE excluded.updated_at >= player_state.updated_at"
        )
        around = len((self._head + _SOME.format(rows="") + self._tail).encode())
        fitting = (SQL_BYTES - around) // (len(self._row) + 1)
        self.most = max(1, min(ROWS_A_STATEMENT, VARIABLES // len(names), fitting))
        self._all = self._head + self._values(self.most) + self._tail
        self._some: dict[int, str] = {}

    def save(self, records: Records) -> tuple[str, list[Any]]:
        """The statement that saves these records, `most` at most, and its values.

        Fewer than `most` are filled up to the next power of two with rows of NULL, which the
        statement passes over: so there are few statements, and all stay prepared.
        """
        if len(records) == self.most:
            return self._all, _row_by_row(records)
        room = min(1 << (len(records) - 1).bit_length(), self.most)
        sql = self._some.get(room)
        if sql is None:
            rows = _SOME.format(rows=self._values(room))
            sql = self._some[room] = self._head + rows + self._tail
        return sql, _row_by_row(records) + [None] * ((room - len(records)) * self._columns)

    def _values(self, rows: int) -> str:
        return "VALUES " + ",".join([self._row] * rows)


def _row_by_row(records: Records) -> list[Any]:
    """All values, one record after the other; gathered by column, which numpy does at once."""
    names = records.dtype.names
    assert names is not None
    values: list[Any] = [None] * (len(records) * len(names))
    for place, name in enumerate(names):
        values[place :: len(names)] = records[name].tolist()
    return values
