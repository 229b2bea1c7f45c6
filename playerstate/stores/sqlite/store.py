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
from urllib.parse import parse_qsl

import apsw
from zope.interface import implementer

from playerstate.filenames import check_name
from playerstate.interfaces import (
    IStateReader,
    IStateStore,
    IStateWriter,
    StoreBusy,
    Stored,
    StoreUnusable,
)
from playerstate.log import PrintableLogger
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.browser import SQLiteBrowser
from playerstate.stores.sqlite.files import (
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
from playerstate.stores.sqlite.format import migrate_database, quoted, read_identity
from playerstate.stores.sqlite.lockfile import LockFile
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


@implementer(IStateStore)
class SQLiteStore:
    """Players in one SQLite database.

    Args:
        path: the database file; made when it is missing.
        schema: of the players.
        synchronous: ``full`` or ``normal``, as SQLite's pragma.
    """

    lanes = 1  # a database has one writer at a time

    def __init__(self, path: str, schema: StateSchema, synchronous: str = "full") -> None:
        self.path = path
        self.schema = schema
        self.synchronous = synchronous
        self._lock = LockFile(path)
        self._watch = Watch(path)
        self._held: dict[int, int] | None = None
        self._rescued = False

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
            added = migrate_database(connection, self.path, self.schema, identity)
        self._watch.identity = identity
        if added:
            _log.info("{path}: added columns {added}", path=self.path, added=", ".join(added))
        return identity

    @contextlib.contextmanager
    def _connect(self, busy_ms: int = 0) -> Iterator[apsw.Connection]:
        """A connection for a moment, which waits so long for another program's lock."""
        with explained(self.path):
            connection = connect(self.path)
            try:
                connection.set_busy_timeout(busy_ms)
                yield connection
            finally:
                connection.close()

    def reopen(self, identity: bytes, online: Set[int]) -> list[int]:
        """See `IStateStore.reopen`.

        It waits for nobody's lock, since players are in the game; the caller tries again.

        Nothing at the path is opened before the old reader is closed: the connections of a process
        share an index of the log by the file's name, and would find their way into a log that is
        not theirs.  The last to close a database whose log was removed copies the log into it.
        """
        if self._held is None:
            try:
                held = self._reader.newest()
            except apsw.Error as error:
                _log.error("{path} cannot be read any more: {error}", path=self.path, error=error)
                held = {}
            else:
                self._rescue(self._reader)
            self._held = held
            self._rescued = True
            self._reader.close()
        self._set_log_aside()
        if not may_be_database(self.path):
            raise StoreUnusable(not_a_database(self.path))
        with self._connect() as connection:
            self._check(connection)
        self._fit(identity, 0)
        with self._connect() as connection:
            there = dict(connection.execute("SELECT session_id, updated_at FROM player_state"))
        held, self._held = self._held, None
        lost = (
            session_id
            for session_id, updated_at in held.items()
            if session_id not in online and there.get(session_id, -1) < updated_at
        )
        return list(itertools.islice(lost, LOST_NAMED))

    def _rescue(self, reader: SQLiteReader) -> None:
        """Where the log alone was lost, and the reader still has it: put a whole copy in place.

        The index that other programs have open fits no new log, so the copy is another file.

        Raises:
            StoreUnusable: there is no room for it, or it cannot be made; the reader is kept, since
                it is the last that has everything.
        """
        watch = self._watch
        if not watch.log_lost or file_number(self.path) != watch.database_file:
            return
        try:
            reader.copy_to(f"{self.path}.new")
            os.replace(f"{self.path}.new", os.path.realpath(self.path))
        except (apsw.Error, OSError) as error:
            with contextlib.suppress(OSError):
                os.unlink(f"{self.path}.new")
            raise StoreUnusable(
                f"{self.path}: its log was lost, and a whole copy cannot be put in its place"
                f" ({error}); make room on its disk, and keep this server running until then"
            ) from error

    def _before_close(self, reader: SQLiteReader) -> bool:
        """Save what only this reader has; whether its log may be copied into the database."""
        if not self._watch.replaced:
            return True
        if not self._rescued:
            try:
                self._rescue(reader)
            except StoreUnusable as error:
                _log.critical("closing all the same: {error}", error=error)
        return not self._watch.apart

    def _set_log_aside(self) -> None:
        """Take the old database's log away from beside the one that took its place."""
        watch = self._watch
        if file_number(self.path) == watch.database_file and not watch.apart:
            return
        log = os.path.realpath(self.path) + "-wal"
        index = os.path.realpath(self.path) + "-shm"
        if watch.index_file is not None and file_number(index) == watch.index_file:
            os.unlink(index)  # another program that still has it open would share it with us
        if watch.log_file is not None and file_number(log) == watch.log_file:
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            aside = f"{log}.{stamp}.{os.getpid()}"
            os.rename(log, aside)
            _log.warn("{log} is the old database's: set aside as {aside}", log=log, aside=aside)

    def open_reader(self) -> IStateReader:
        """See `IStateStore.open_reader`."""
        # Which file it is comes first: another that is put in place meanwhile is noticed then.
        self._watch.begin()
        self._reader = SQLiteReader(self.path, self.schema, self._before_close)
        self._rescued = False
        return self._reader

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

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return f"sqlite:{self.path}?synchronous={self.synchronous}"

    def close(self) -> None:
        """See `IStateStore.close`."""
        self._lock.release()


@implementer(IStateReader)
class SQLiteReader:
    """Loads players, over a connection that cannot write."""

    def __init__(
        self,
        path: str,
        schema: StateSchema,
        may_checkpoint: Callable[[SQLiteReader], bool] = lambda _: True,
    ) -> None:
        self._may_checkpoint: Callable[[SQLiteReader], bool] | None = may_checkpoint
        self._connection = connect_existing(path)
        self._connection.pragma("query_only", True)
        names = ", ".join(quoted(field.name) for field in schema.fields)
        where = "updated_at FROM player_state WHERE session_id = ?"
        self._select = f"SELECT {names}, {where}"
        as_bytes = ", ".join(
            f"CAST({quoted(field.name)} AS BLOB)" if field.kind == "text" else quoted(field.name)
            for field in schema.fields
        )
        self._select_bytes = f"SELECT {as_bytes}, {where}"
        self._flags = [i for i, field in enumerate(schema.fields) if field.kind == "bool"]

    def load(self, session_id: int) -> Stored | None:
        """See `IStateReader.load`; a look-up takes microseconds and never waits for a writer."""
        try:
            # `get` runs the statement to its end, which ends the read transaction with it.
            try:
                row = self._connection.execute(self._select, (session_id,)).get
            except UnicodeDecodeError:  # put there by hand; the schema names it, as all that is bad
                row = self._connection.execute(self._select_bytes, (session_id,)).get
                row = (*map(_text_or_bytes, row),)
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
        ask, self._may_checkpoint = self._may_checkpoint, None
        if ask is not None and not ask(self):
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.close()


def _text_or_bytes(value: object) -> object:
    """A value of a row of which texts were read as bytes: text, where it is one."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
