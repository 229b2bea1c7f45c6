"""Players in a SQLite database in WAL mode, through apsw.

URL: ``sqlite:PATH`` with one option, ``?synchronous=full`` (the default: a commit is on disk before
it is reported) or ``?synchronous=normal`` (a commit is in the kernel's page cache when it is
reported: it survives the process, but not a power cut or a kernel crash).

While a server runs, exactly two connections are open: the reader's, read-only, on the reactor
thread, and the writer's on the persist thread.  WAL lets both work at the same time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Set
from urllib.parse import parse_qsl

import apsw
from zope.interface import implementer

from playerstate.filenames import check_name
from playerstate.interfaces import (
    Erased,
    IErasableStore,
    IFileStore,
    IStateReader,
    IStateWriter,
    StoreBusy,
    StoreUnusable,
)
from playerstate.log import PrintableLogger
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.browser import SQLiteBrowser
from playerstate.stores.sqlite.erasing import erase_player
from playerstate.stores.sqlite.files import (
    COMPANIONS,
    LIVE,
    STARTUP_BUSY_MS,
    check_sqlite,
    connect,
    connect_existing,
    damaged,
    explained,
    file_number,
    may_be_database,
    not_a_database,
)
from playerstate.stores.sqlite.format import migrate_database, read_identity
from playerstate.stores.sqlite.lockfile import LockFile
from playerstate.stores.sqlite.newest import Newest, missed, read_newest
from playerstate.stores.sqlite.operations import SQLiteOperations
from playerstate.stores.sqlite.overwritten import Overwritten
from playerstate.stores.sqlite.reader import SQLiteReader
from playerstate.stores.sqlite.refused import RefusedFile
from playerstate.stores.sqlite.watch import Watch
from playerstate.stores.sqlite.writer import SQLiteWriter

LOST_NAMED = 1000
_log = PrintableLogger()


def open_url(url: str, schema: StateSchema) -> SQLiteStore:
    """See `playerstate.interfaces.IStoreFactory.open`."""
    path, synchronous = _parse(url)
    return SQLiteStore(path, schema, synchronous)


def browse_url(url: str) -> SQLiteBrowser:
    """See `playerstate.interfaces.IStoreFactory.browse`."""
    path, _ = _parse(url)
    return SQLiteBrowser(path)


def operate_url(url: str) -> SQLiteOperations:
    """See `playerstate.interfaces.IOperatedFactory.operate`."""
    path, _ = _parse(url)
    return SQLiteOperations(path)


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
    try:
        check_name(path)
    except ValueError as error:
        raise StoreUnusable(f"{path}: {error}") from None
    return os.path.realpath(path), synchronous


@implementer(IFileStore, IErasableStore)
class SQLiteStore:
    """Players in one SQLite database.

    Args:
        path: the database file; created if it is missing.
        schema: of the players.
        synchronous: ``full`` or ``normal``, as SQLite's pragma.
    """

    lanes = 1  # a database has one writer at a time

    def __init__(self, path: str, schema: StateSchema, synchronous: str = "full") -> None:
        self.path = path
        real = os.path.realpath(path)
        self.files = tuple(f"{real}{end}" for end in COMPANIONS)
        self.live_path = f"{real}{LIVE}"
        self.schema = schema
        self.synchronous = synchronous
        self._lock = LockFile(path)
        self._watch = Watch(path)
        self._held: Newest | None = None
        self._rescued = False
        self._overwritten = Overwritten(path)

    def prepare(self) -> bytes:
        """See `IStateStore.prepare`."""
        check_sqlite(apsw.sqlite_lib_version())
        if not may_be_database(self.path):
            raise StoreUnusable(not_a_database(self.path))
        self._lock.take()
        try:
            with self._connect(STARTUP_BUSY_MS) as connection:
                return self._check(connection)
        except BaseException:
            self._lock.release()
            raise

    def _check(self, connection: apsw.Connection) -> bytes:
        identity = read_identity(connection, self.path)
        found = connection.pragma("quick_check", 1)
        if found != "ok":
            raise StoreUnusable(damaged(self.path, "; ".join(found.splitlines())))
        return identity

    def migrate(self, identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""
        return self._fit(identity, STARTUP_BUSY_MS)

    def _fit(self, identity: bytes, busy_ms: int) -> bytes:
        with self._connect(busy_ms) as connection:
            done = migrate_database(connection, self.path, self.schema, identity)
        self._watch.identity = identity
        if done:
            _log.info("{path}: {done}", path=self.path, done="; ".join(done))
        return identity

    @contextlib.contextmanager
    def _connect(self, busy_ms: int = 0) -> Iterator[apsw.Connection]:
        """Open a short-lived connection that waits up to `busy_ms` for another program's lock."""
        with explained(self.path):
            connection = connect(self.path)
            try:
                connection.set_busy_timeout(busy_ms)
                yield connection
            finally:
                connection.close()

    def reopen(self, identity: bytes, online: Set[int]) -> list[int] | None:
        """See `IFileStore.reopen`.

        It does not wait for another program's lock, since players are in the game; the caller
        retries.

        The old reader is closed before the path is opened again: the connections of a process share
        the log's index by file name, so a new connection would use the log of the old database.
        The last connection to close a database whose log was removed checkpoints that log into it.
        """
        if not self._rescued:
            self._held = self._read_newest()
            self._rescued = True
            self._reader.close()
        self._set_log_aside()
        if not may_be_database(self.path):
            raise StoreUnusable(not_a_database(self.path))
        if self._watch.overwritten and file_number(self.path) == self._watch.database_file:
            self._overwritten.move(self._check)
        with self._connect() as connection:
            self._check(connection)
        self._fit(identity, 0)
        with self._connect() as connection:
            there = read_newest(connection)
        held, self._held = self._held, None
        if held is None:
            return None
        lost = (int(session_id) for session_id in missed(held, there) if session_id not in online)
        return list(itertools.islice(lost, LOST_NAMED))

    def _read_newest(self) -> Newest | None:
        """When each player last changed, as the old reader sees it; None if it cannot be read.

        Raises:
            StoreUnusable: as `_rescue`.
        """
        if self._watch.rewritten:
            return None  # the file has other content now
        try:
            held = self._reader.newest()
        except apsw.Error as error:
            _log.error("{path} can no longer be read: {error}", path=self.path, error=error)
            return None
        self._rescue(self._reader)
        return held

    def _rescue(self, reader: SQLiteReader) -> None:
        """If only the log was lost, replace the database by a whole copy read through the reader.

        The copy is a new file, since the index that other programs have open fits no new log.

        Raises:
            StoreUnusable: the disk has no room for the copy, or it cannot be made; the reader stays
                open, since it alone still has all players.
        """
        watch = self._watch
        if not watch.log_lost or file_number(self.path) != watch.database_file:
            return
        try:
            reader.copy_to(f"{self.path}.new")
            if file_number(self.path) != watch.database_file:
                os.unlink(f"{self.path}.new")  # another file took its place meanwhile
                return
            os.replace(f"{self.path}.new", os.path.realpath(self.path))
        except (apsw.Error, OSError) as error:
            with contextlib.suppress(OSError):
                os.unlink(f"{self.path}.new")
            raise StoreUnusable(
                f"{self.path}: its log was lost, and it cannot be replaced by a whole copy"
                f" ({error}); make room on its disk, and keep this server running until then"
            ) from error

    def _before_close(self, reader: SQLiteReader) -> bool:
        """Rescue what only this reader has; return whether its log may be checkpointed."""
        if not self._watch.replaced:
            return True
        if not self._rescued:
            try:
                self._rescue(reader)
            except StoreUnusable as error:
                _log.critical("closing all the same: {error}", error=error)
        if self._watch.overwritten:
            try:
                self._set_log_aside()  # or the next program to open the file copies the log into it
            except OSError as error:
                _log.critical("closing all the same: {error}", error=error)
        return not self._watch.apart

    def _set_log_aside(self) -> None:
        """Move the old database's log away from the new database."""
        watch = self._watch
        if file_number(self.path) == watch.database_file and not watch.apart:
            return
        log = os.path.realpath(self.path) + "-wal"
        index = os.path.realpath(self.path) + "-shm"
        if watch.index_file is not None and file_number(index) == watch.index_file:
            # Another program that still has the old index open would share it with us.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(index)
        if watch.log_file is not None and file_number(log) == watch.log_file:
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            aside = f"{log}.{stamp}.{os.getpid()}"
            try:
                os.rename(log, aside)
            except FileNotFoundError:
                return  # another program moved or removed it first
            _log.warn("{log} of the old database was set aside as {aside}", log=log, aside=aside)

    def open_reader(self) -> IStateReader:
        """See `IStateStore.open_reader`."""
        # Record the file's number first, so that a file put in its place meanwhile is noticed.
        self._watch.begin()
        reader = SQLiteReader(self.path, self.schema, self._before_close)
        try:
            with contextlib.suppress(apsw.BusyError, apsw.LockedError):  # the writer will
                reader.teach(self._watch.marks)
        except BaseException:
            reader.close()
            raise
        self._reader = reader
        self._rescued = False
        return reader

    def open_writer(self) -> IStateWriter:
        """See `IStateStore.open_writer`."""
        try:
            return SQLiteWriter(
                self.path,
                self.schema,
                self.synchronous,
                watch=self._watch,
            )
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreBusy(str(error)) from error

    def erase(self, session_id: int) -> Erased:
        """See `IErasableStore.erase`; the connection is one of its own, as another program's is."""
        with (
            explained(self.path),
            contextlib.closing(connect_existing(self.path)) as connection,
        ):
            stored = erase_player(connection, session_id)
        return Erased(stored, RefusedFile(self.path, self.schema).remove(session_id))

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return f"sqlite:{self.path}?synchronous={self.synchronous}"

    def close(self) -> None:
        """See `IStateStore.close`."""
        self._lock.release()
