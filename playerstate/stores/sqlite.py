"""Players in a SQLite database in WAL mode, through apsw.

URL: ``sqlite:PATH`` with one option, ``?synchronous=full`` (the default: a commit is on disk before
it is called saved) or ``?synchronous=normal`` (a commit is in the system's hands: it outlives the
process, but not a power cut or a crash of the kernel).

Two connections, and no other, are open while a server runs: the reader's on the reactor thread,
which cannot write, and the writer's on the persist thread.  WAL lets both work at the same time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Set
from typing import Any
from urllib.parse import parse_qsl

import apsw
import numpy as np
import numpy.typing as npt
from twisted.logger import Logger
from zope.interface import implementer

from playerstate.interfaces import (
    IStateReader,
    IStateStore,
    IStateWriter,
    IStoreBrowser,
    Records,
    RowRefused,
    StoreBusy,
    Stored,
    StoreReplaced,
    StoreUnusable,
)
from playerstate.schema import StateSchema
from playerstate.stores.lockfile import LockFile
from playerstate.stores.refused import RefusedFile
from playerstate.stores.sqlite_format import check_ours, migrate_database, quoted, read_identity

ROWS_A_STATEMENT = 512
"""The most rows one INSERT carries; a power of two.  One step of many rows runs with the GIL
released, and more rows would only hold it longer while their values are bound."""
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
LOST_NAMED = 1000
STARTUP_BUSY_MS = 5_000
PINNED_TOLD_EVERY = 60.0

_log = Logger()


def open_url(url: str, schema: StateSchema) -> SQLiteStore:
    """See `playerstate.interfaces.IStoreFactory.open`."""
    path, synchronous = _parse(url)
    return SQLiteStore(path, schema, synchronous)


def browse_url(url: str) -> SQLiteBrowser:
    """See `playerstate.interfaces.IStoreFactory.browse`."""
    path, _ = _parse(url)
    return SQLiteBrowser(path)


def _parse(url: str) -> tuple[str, str]:
    path, _, query = url.partition(":")[2].partition("?")
    if not path or path == ":memory:":
        raise StoreUnusable(f"{url!r} names no file: write sqlite:PATH, or memory: for a trial")
    options = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "full")
    if options:
        raise StoreUnusable(f"{url!r}: there is no option {', '.join(options)}, only synchronous")
    if synchronous not in ("full", "normal"):
        raise StoreUnusable(f"{url!r}: synchronous is {synchronous!r}, must be full or normal")
    return os.path.abspath(path), synchronous


@implementer(IStateStore)
class SQLiteStore:
    """Players in one SQLite database.

    Args:
        path: the database file; made when it is missing.
        schema: of the players.
        synchronous: ``full`` or ``normal``, as SQLite's pragma.
    """

    def __init__(self, path: str, schema: StateSchema, synchronous: str = "full") -> None:
        self.path = path
        self.schema = schema
        self.synchronous = synchronous
        self._lock = LockFile(path)
        self._database_file: FileNumber | None = None
        self._log_file: FileNumber | None = None
        self._index_file: FileNumber | None = None
        self._held: dict[int, int] | None = None

    def prepare(self) -> bytes:
        """See `IStateStore.prepare`."""
        if not _may_be_database(self.path):
            raise StoreUnusable(_not_a_database(self.path))
        self._lock.take()
        try:
            with self._connect() as connection:
                return self._check(connection)
        except BaseException:
            self._lock.release()
            raise

    def _check(self, connection: apsw.Connection) -> bytes:
        identity = read_identity(connection, self.path)
        found = connection.pragma("quick_check", 1)
        if found != "ok":
            raise StoreUnusable(_damaged(self.path, "; ".join(found.splitlines())))
        return identity

    def migrate(self, identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""
        with self._connect() as connection:
            added = migrate_database(connection, self.path, self.schema, identity)
        if added:
            _log.info("{path}: added columns {added}", path=self.path, added=", ".join(added))
        return identity

    @contextlib.contextmanager
    def _connect(self) -> Iterator[apsw.Connection]:
        with _explained(self.path):
            connection = apsw.Connection(self.path)
            try:
                connection.set_busy_timeout(STARTUP_BUSY_MS)
                yield connection
            finally:
                connection.close()

    def reopen(self, identity: bytes, online: Set[int]) -> list[int]:
        """See `IStateStore.reopen`.

        Nothing at the path is opened before the old reader is closed: the connections of a process
        share an index of the log by the file's name, and would find their way into a log that is
        not theirs.  The last to close a database whose log was removed copies the log into it.
        """
        if self._held is None:
            try:
                held = self._reader.newest()
                if _file_number(self.path) == self._database_file:
                    # The log alone was removed, and the reader still has it.  The index that other
                    # programs have open fits no new log, so a copy takes the database's place.
                    self._reader.copy_to(f"{self.path}.new")
                    os.replace(f"{self.path}.new", os.path.realpath(self.path))
                self._held = held
            except apsw.Error as error:
                _log.error("{path} cannot be read any more: {error}", path=self.path, error=error)
                self._held = {}
            self._reader.close()
        self._set_log_aside()
        if not _may_be_database(self.path):
            raise StoreUnusable(_not_a_database(self.path))
        with self._connect() as connection:
            self._check(connection)
        self.migrate(identity)
        with self._connect() as connection:
            there = dict(connection.execute("SELECT session_id, updated_at FROM player_state"))
        held, self._held = self._held, None
        lost = (
            session_id
            for session_id, updated_at in held.items()
            if session_id not in online and there.get(session_id, -1) < updated_at
        )
        return list(itertools.islice(lost, LOST_NAMED))

    def _set_log_aside(self) -> None:
        """Take the old database's log away from beside the one that took its place."""
        if _file_number(self.path) == self._database_file:
            return
        log = os.path.realpath(self.path) + "-wal"
        index = os.path.realpath(self.path) + "-shm"
        if self._index_file is not None and _file_number(index) == self._index_file:
            os.unlink(index)  # another program that still has it open would share it with us
        if self._log_file is not None and _file_number(log) == self._log_file:
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            aside = f"{log}.{stamp}.{os.getpid()}"
            os.rename(log, aside)
            _log.warn("{log} is the old database's: set aside as {aside}", log=log, aside=aside)

    def _note_log(self, log_file: FileNumber) -> None:
        """The log that the writer has open, and its index.  Persist thread."""
        self._log_file = log_file
        self._index_file = _file_number(os.path.realpath(self.path) + "-shm")

    def open_reader(self) -> IStateReader:
        """See `IStateStore.open_reader`."""
        self._reader = SQLiteReader(self.path, self.schema)
        self._database_file = _file_number(self.path)
        self._log_file = self._index_file = None
        return self._reader

    def open_writer(self) -> IStateWriter:
        """See `IStateStore.open_writer`."""
        try:
            return SQLiteWriter(
                self.path,
                self.schema,
                self.synchronous,
                database_file=self._database_file,
                note_log=self._note_log,
            )
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreBusy(str(error)) from error

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return f"sqlite:{self.path}?synchronous={self.synchronous}"

    def close(self) -> None:
        """See `IStateStore.close`."""
        self._lock.release()


@implementer(IStateReader)
class SQLiteReader:
    """Loads players, over a connection that cannot write."""

    def __init__(self, path: str, schema: StateSchema) -> None:
        self._connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
        self._connection.pragma("query_only", True)
        names = ", ".join(quoted(field.name) for field in schema.fields)
        self._select = f"SELECT {names}, updated_at FROM player_state WHERE session_id = ?"
        self._flags = [i for i, field in enumerate(schema.fields) if field.kind == "bool"]

    def load(self, session_id: int) -> Stored | None:
        """See `IStateReader.load`; a look-up takes microseconds and never waits for a writer."""
        try:
            # `get` runs the statement to its end, which ends the read transaction with it.
            row = self._connection.execute(self._select, (session_id,)).get
        except (apsw.BusyError, apsw.LockedError, apsw.ConnectionClosedError) as error:
            raise StoreBusy(str(error)) from error  # closed: the store is being reopened
        if row is None:
            return None
        *values, updated_at = row
        for index in self._flags:
            values[index] = bool(values[index])
        return Stored(tuple(values), updated_at)

    def newest(self) -> dict[int, int]:
        """When each player in it last changed, by session id."""
        return dict(self._connection.execute("SELECT session_id, updated_at FROM player_state"))

    def copy_to(self, path: str) -> None:
        """Make a copy of the whole database, on disk."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._connection.pragma("query_only", False)
        self._connection.execute("VACUUM INTO ?", (path,))
        with open(path, "rb") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """See `IStateReader.close`."""
        self._connection.close()


@implementer(IStateWriter)
class SQLiteWriter:
    """Saves players, a batch a transaction."""

    def __init__(
        self,
        path: str,
        schema: StateSchema,
        synchronous: str,
        monotonic: Callable[[], float] = time.monotonic,
        database_file: FileNumber | None = None,
        note_log: Callable[[FileNumber], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._pinned_told_at = -PINNED_TOLD_EVERY
        self._log_pages = 0
        self._interrupted = False
        # No waiting for a busy database in here: the persister waits, where it can be told to end.
        # One that was replaced while no writer was open is not to be taken for the old one.
        self._database_file = database_file or _file_number(path)
        self._note_log = note_log
        if _file_number(path) != self._database_file:
            raise StoreReplaced(f"{path} was removed or replaced")
        self._connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            self._log_path = self._connection.filename_wal  # beside what a link leads to
            self._log_file: FileNumber | None = None
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

    def write(self, records: Records) -> npt.NDArray[np.intp]:
        """See `IStateWriter.write`."""
        self._interrupted = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                left_out = self._upsert(records)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreBusy(str(error)) from error
        except (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
            raise RowRefused(str(error)) from error
        return np.array(left_out, np.intp)

    def _upsert(self, records: Records) -> list[int]:
        connection, left_out = self._connection, []
        start, left = 0, len(records)
        while left:
            # Whole statements first, then one for each power of two: all are few and stay prepared.
            rows = self._sql.most if left >= self._sql.most else 1 << (left.bit_length() - 1)
            chunk = records[start : start + rows]
            connection.execute(self._sql.of(rows), _row_by_row(chunk))
            if self._interrupted:  # SQLite forgets one that comes while no statement runs
                raise apsw.InterruptError("interrupted")
            if connection.changes() < rows:
                left_out += [start + index for index in self._find_newer(chunk)]
            start, left = start + rows, left - rows
        return left_out

    def _find_newer(self, chunk: Records) -> list[int]:
        """Positions of the records that the guard left out."""
        ids = chunk["session_id"].tolist()
        marks = ",".join("?" * len(ids))
        stored = dict(
            self._connection.execute(
                f"SELECT session_id, updated_at FROM player_state WHERE session_id IN ({marks})",
                ids,
            )
        )
        updated_at = chunk["updated_at"].tolist()
        return [index for index, key in enumerate(ids) if stored[key] > updated_at[index]]

    def maintain(self) -> None:
        """Copy the write-ahead log into the database once it has grown large.

        A passive checkpoint: it waits for nobody, and copies what no reader still needs.

        Raises:
            StoreReplaced: the database or its log is not the file that was opened.
        """
        self._check_files()
        if self._log_pages * self._frame_bytes < CHECKPOINT_BYTES:
            return
        pages, copied = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
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

    def _check_files(self) -> None:
        if _file_number(self._path) != self._database_file:
            raise StoreReplaced(f"{self._path} was removed or replaced")
        if not self._log_pages:
            return
        log_file = _file_number(self._log_path)
        if self._log_file is None:
            self._log_file = log_file
            if log_file is not None:
                self._note_log(log_file)
        if log_file is None or log_file != self._log_file:
            raise StoreReplaced(f"{self._log_path} was removed or replaced")

    def set_aside(self, record: Records, reason: str) -> None:
        """See `IStateWriter.set_aside`; into ``<database>.refused.jsonl``."""
        self._refused.add(record, reason)

    def _committed(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def sync(self) -> None:
        """See `IStateWriter.sync`; a checkpoint of the whole log also syncs the database."""
        pages, copied = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if copied < pages:
            # Somebody reads what is older: what is not copied is in the log.
            with open(self._log_path, "rb") as log:
                os.fsync(log.fileno())

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`."""
        self._interrupted = True
        # The persist thread may have closed it a moment ago.
        with contextlib.suppress(apsw.ConnectionClosedError):
            self._connection.interrupt()

    def close(self) -> None:
        """See `IStateWriter.close`; the log is copied into the database and emptied, if it can."""
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.InterruptError):
            pass  # somebody reads, or is in a hurry: the log stays, and SQLite uses it as it is
        finally:
            self._connection.close()


def _row_by_row(records: Records) -> list[Any]:
    """All values, one record after the other; gathered by column, which numpy does at once."""
    names = records.dtype.names
    assert names is not None
    values: list[Any] = [None] * (len(records) * len(names))
    for place, name in enumerate(names):
        values[place :: len(names)] = records[name].tolist()
    return values


class _Upsert:
    """The INSERT for so many rows at a time.

    The guard lets a row through that is as old as the stored one, so that a batch may be written
    again after a failure that was none.
    """

    def __init__(self, schema: StateSchema) -> None:
        names = ["session_id", *(quoted(field.name) for field in schema.fields), "updated_at"]
        # A text comes as its UTF-8 bytes.
        marks = ["?", *("CAST(? AS TEXT)" if f.kind == "text" else "?" for f in schema.fields), "?"]
        self._row = f"({','.join(marks)})"
        self._head = f"INSERT INTO player_state ({','.join(names)}) VALUES "
        self._tail = (
            " ON CONFLICT (session_id) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in names[1:])
            + " WHERE excluded.updated_at >= player_state.updated_at"
        )
        room = SQL_BYTES - len(self._head.encode()) - len(self._tail.encode())
        fitting = min(ROWS_A_STATEMENT, VARIABLES // len(names), room // (len(self._row) + 1))
        self.most = 1 << (max(fitting, 1).bit_length() - 1)
        self._by_rows: dict[int, str] = {}

    def of(self, rows: int) -> str:
        """The statement that takes so many rows."""
        sql = self._by_rows.get(rows)
        if sql is None:
            sql = self._head + ",".join([self._row] * rows) + self._tail
            self._by_rows[rows] = sql
        return sql


@implementer(IStoreBrowser)
class SQLiteBrowser:
    """Looks into a database of players, read-only."""

    def __init__(self, path: str) -> None:
        if not os.path.exists(path):
            raise StoreUnusable(f"{path} does not exist")
        if not _may_be_database(path):
            raise StoreUnusable(_not_a_database(path))
        self._path = path
        with _explained(path):
            # A connection opened read-only would leave its -wal and -shm files behind.
            self._connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                self._connection.pragma("query_only", True)
                self._connection.set_busy_timeout(STARTUP_BUSY_MS)
                self.columns = self._read_columns()
            except BaseException:
                self._connection.close()
                raise
        self._names = ", ".join(map(quoted, self.columns))

    def _read_columns(self) -> tuple[str, ...]:
        if not check_ours(self._connection, self._path):
            raise StoreUnusable(f"{self._path} holds no players: it is an empty database")
        names = self._connection.execute("SELECT name FROM pragma_table_xinfo('player_state')")
        return tuple(name for (name,) in names)

    def count(self) -> int:
        """See `IStoreBrowser.count`."""
        with _explained(self._path):
            count: int = self._connection.execute("SELECT count(*) FROM player_state").get
        return count

    def latest(self, limit: int | None) -> Iterator[tuple[Any, ...]]:
        """See `IStoreBrowser.latest`."""
        order = "ORDER BY updated_at DESC, session_id LIMIT ?"
        with _explained(self._path):
            yield from self._connection.execute(
                f"SELECT {self._names} FROM player_state {order}", (-1 if limit is None else limit,)
            )

    def find(self, session_id: int) -> tuple[Any, ...] | None:
        """See `IStoreBrowser.find`."""
        with _explained(self._path):
            row: tuple[Any, ...] | None = self._connection.execute(
                f"SELECT {self._names} FROM player_state WHERE session_id = ?", (session_id,)
            ).get
        return row

    def close(self) -> None:
        """See `IStoreBrowser.close`."""
        self._connection.close()


FileNumber = tuple[int, int]


def _file_number(path: str) -> FileNumber | None:
    """What tells a file from all others of its name; None where there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn what SQLite raises into one line that says what to do."""
    try:
        yield
    except apsw.Error as error:
        raise StoreUnusable(_explain(path, error)) from error


def _may_be_database(path: str) -> bool:
    """Whether the file is missing, empty, or begins as a database does."""
    try:
        with open(path, "rb") as file:
            return file.read(16) in (b"", b"SQLite format 3\0")
    except IsADirectoryError:
        return False
    except OSError:
        return True  # SQLite will say what is wrong with it


def _damaged(path: str, found: str) -> str:
    return (
        f"{path} is damaged ({found}); it was left as it is: put a backup in its place, or save"
        f" what can be read with: sqlite3 {path} .recover | sqlite3 new.db"
    )


def _not_a_database(path: str) -> str:
    return f"{path} is not a SQLite database; it was left as it is: name another file"


def _explain(path: str, error: apsw.Error) -> str:
    """What SQLite met at start, in one line that says what to do."""
    if isinstance(error, apsw.NotADBError):
        return _not_a_database(path)
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return (
            f"{path} is locked by another program, for more than {STARTUP_BUSY_MS // 1000} s;"
            " end it, or name another file"
        )
    if isinstance(error, apsw.CorruptError):
        return _damaged(path, str(error))
    if isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError)):
        return (
            f"{path} cannot be opened ({error}); it must be a file that this user may write, in a"
            " directory that this user may write"
        )
    return f"{path} cannot be used: {error}"
