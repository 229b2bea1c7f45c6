"""The files of a SQLite database: their names, and errors about them in one line."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from urllib.parse import quote

import apsw

from playerstate.interfaces import StoreUnusable

STARTUP_BUSY_MS = 5_000
"""How long a start or a `SQLiteBrowser` waits for another program's lock."""

COMPANIONS = ("", "-wal", "-shm", "-journal", ".lock", ".refused.jsonl")
"""Suffixes of the files that belong to a database and its store."""
LIVE = ".live"
"""Suffix of the live file beside a database, unless it is configured to lie elsewhere."""

FileNumber = tuple[int, int]

OLDEST_SQLITE = (3, 51, 3)
"""The first version with the fix for a race between a checkpoint and a reset of the log."""

_READ_WRITE = apsw.SQLITE_OPEN_READWRITE
_IN_MEMORY = 2
_MAGIC = b"SQLite format 3\0"


def look_at(path: str) -> os.stat_result | None:
    """The `stat` result of the file of this name; None if there is none.

    A caller that needs two facts about a file takes both from one result: the file may vanish
    between two calls.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def number_of(status: os.stat_result | None) -> FileNumber | None:
    """Device and inode, which tell a file from others of its name; None for None."""
    return None if status is None else (status.st_dev, status.st_ino)


def file_number(path: str) -> FileNumber | None:
    """The number of the file that has this name now; None if there is none."""
    return number_of(look_at(path))


def check_sqlite(version: str) -> None:
    """Refuse a SQLite whose write-ahead log may corrupt a database.

    Raises:
        StoreUnusable: it is older than `OLDEST_SQLITE`; the message names both versions.
    """
    if tuple(map(int, version.split("."))) < OLDEST_SQLITE:
        raise StoreUnusable(
            f"apsw brings SQLite {version}, which has a fault in its write-ahead log; install"
            f" apsw {'.'.join(map(str, OLDEST_SQLITE))} or newer"
        )


def connect(path: str, flags: int = _READ_WRITE | apsw.SQLITE_OPEN_CREATE) -> apsw.Connection:
    """Open a connection that needs no temporary file, so that only the database's disk is used."""
    connection = apsw.Connection(path, flags=flags)
    try:
        connection.pragma("temp_store", _IN_MEMORY)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_existing(path: str) -> apsw.Connection:
    """Open a connection to an existing database; never create one."""
    return connect(path, _READ_WRITE)


def connect_to_look(path: str) -> apsw.Connection:
    """Open a connection for reading only, without a lock or an index if this user may not write.

    A database without a log has no server, so nothing changes while it is read without a lock.
    """
    if os.access(path, os.W_OK) and os.access(os.path.dirname(path) or ".", os.W_OK):
        # A connection opened read-only would leave its -wal and -shm files behind.
        return connect_existing(path)
    if not os.path.exists(f"{path}-wal"):
        return connect_past_log(path)
    return connect(path, apsw.SQLITE_OPEN_READONLY)


def connect_past_log(path: str) -> apsw.Connection:
    """Open a connection to the content of the file itself, without its log and without a lock."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return connect(f"file:{quote(path)}?immutable=1", flags)


def copy_whole(connection: apsw.Connection, source: str, target: str) -> None:
    """Write a copy, synced to disk, of the database at `source`, which `connection` has open.

    The copy gets the permissions of `source`.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    mode = stat.S_IMODE(os.stat(source).st_mode)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection.execute("VACUUM INTO ?", (target,))
    os.chmod(target, mode)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def explained(path: str, rights: int = os.R_OK | os.W_OK) -> Iterator[None]:
    """Translate SQLite's errors into `StoreUnusable`, whose one line says what to do.

    Args:
        path: the database.
        rights: that this user needs on its files, as for `os.access`.
    """
    try:
        yield
    except apsw.Error as error:
        raise StoreUnusable(_explain(path, error, rights)) from error


def may_be_database(path: str) -> bool:
    """Whether the file is missing, empty, or begins with the magic of a database.

    It is read through SQLite: closing a plain file would drop this process's locks on it.
    """
    try:
        status = os.stat(path)
    except OSError:
        return True  # opening it raises SQLite's own error
    if not stat.S_ISREG(status.st_mode):
        return False
    if status.st_size < len(_MAGIC):
        return status.st_size == 0
    try:
        file = apsw.VFSFile("", path, [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
    except apsw.Error:
        return True
    try:
        return file.xRead(len(_MAGIC), 0) == _MAGIC
    except apsw.Error:
        return True
    finally:
        file.xClose()


def damaged(path: str, found: str) -> str:
    """The error message for a database in which SQLite found this damage."""
    return (
        f"{path} is damaged ({found}); it was left as it is: put a backup in its place, or save"
        f" what can be read with: sqlite3 {path} .recover | sqlite3 new.db"
    )


def not_a_database(path: str) -> str:
    """The error message for a file that is not a database."""
    return f"{path} is not a SQLite database; it was left as it is: name another file"


def _explain(path: str, error: apsw.Error, rights: int) -> str:
    """The message for an error of SQLite, in one line that says what to do."""
    if isinstance(error, apsw.NotADBError):
        return not_a_database(path)
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return f"{path} is locked by another program; end it, or name another file"
    if isinstance(error, apsw.CorruptError):
        return damaged(path, str(error))
    if isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError)):
        if (forbidden := _forbidden(path, rights)) is not None:
            may = "write" if rights & os.W_OK else "read"
            return (
                f"{path} cannot be opened: this user may not {may} {forbidden}; give that file to"
                " this user, or run as the user who owns it"
            )
        return (
            f"{path} cannot be opened ({error}); it must be a file that this user may write, in a"
            " directory that this user may write"
        )
    if isinstance(error, (apsw.FullError, apsw.IOError)):
        return f"{path} cannot be used: {error}; check that its disk has room and is not faulty"
    return f"{path} cannot be used: {error}"


def _forbidden(path: str, rights: int) -> str | None:
    """The first of the database, its log and its index on which this user lacks the rights."""
    for file in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(file) and not os.access(file, rights, effective_ids=True):
            return file
    return None
