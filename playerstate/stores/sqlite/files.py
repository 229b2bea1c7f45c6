"""The files of a SQLite database: which they are, and what is wrong with them, in one line."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from urllib.parse import quote

import apsw

from playerstate.interfaces import StoreUnusable

STARTUP_BUSY_MS = 5_000
"""How long a start, or a look from outside, waits for another program's lock."""

COMPANIONS = ("", "-wal", "-shm", "-journal", ".lock", ".refused.jsonl")
"""Ends the names of the files that a database and its store have for themselves."""
LIVE = ".live"
"""Ends the name of the live file that lies beside a database, unless it is told elsewhere."""

FileNumber = tuple[int, int]

OLDEST_SQLITE = (3, 51, 3)
"""The first with the mend of a race between a checkpoint and the log's beginning anew."""

_READ_WRITE = apsw.SQLITE_OPEN_READWRITE
_IN_MEMORY = 2
_MAGIC = b"SQLite format 3\0"


def look_at(path: str) -> os.stat_result | None:
    """What the system says of the file of this name; None where there is none.

    Whoever asks two things of a file asks one look: between two it may vanish.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def number_of(status: os.stat_result | None) -> FileNumber | None:
    """What tells a file from all others of its name; None for none."""
    return None if status is None else (status.st_dev, status.st_ino)


def file_number(path: str) -> FileNumber | None:
    """The number of the file that bears this name now; None where there is none."""
    return number_of(look_at(path))


def check_sqlite(version: str) -> None:
    """Refuse a SQLite whose write-ahead log may spoil a database.

    Raises:
        StoreUnusable: naming both versions.
    """
    if tuple(map(int, version.split("."))) < OLDEST_SQLITE:
        raise StoreUnusable(
            f"apsw brings SQLite {version}, which has a fault in its write-ahead log; install"
            f" apsw {'.'.join(map(str, OLDEST_SQLITE))} or newer"
        )


def connect(path: str, flags: int = _READ_WRITE | apsw.SQLITE_OPEN_CREATE) -> apsw.Connection:
    """A connection that needs no temporary file, so that the database's own disk is enough."""
    connection = apsw.Connection(path, flags=flags)
    try:
        connection.pragma("temp_store", _IN_MEMORY)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_existing(path: str) -> apsw.Connection:
    """The same, to a database that is there: none is made."""
    return connect(path, _READ_WRITE)


def connect_to_look(path: str) -> apsw.Connection:
    """The same, to look into it alone: where this user may not write, without a lock or an index.

    A database without a log has no server, so that nothing changes beneath a reader without a lock.
    """
    if os.access(path, os.W_OK) and os.access(os.path.dirname(path) or ".", os.W_OK):
        # A connection opened read-only would leave its -wal and -shm files behind.
        return connect_existing(path)
    if not os.path.exists(f"{path}-wal"):
        return connect_past_log(path)
    return connect(path, apsw.SQLITE_OPEN_READONLY)


def connect_past_log(path: str) -> apsw.Connection:
    """The same, to what is in the file itself: neither the log beside it nor a lock is touched."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return connect(f"file:{quote(path)}?immutable=1", flags)


def copy_whole(connection: apsw.Connection, source: str, target: str) -> None:
    """Make a copy, on disk, of the database at `source`, to which this connection is.

    Only those may read it who may read that one.
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
    """Turn what SQLite raises into one line that says what to do.

    Args:
        path: the database.
        rights: what this user must be allowed to do with its files, as for `os.access`.
    """
    try:
        yield
    except apsw.Error as error:
        raise StoreUnusable(_explain(path, error, rights)) from error


def may_be_database(path: str) -> bool:
    """Whether the file is missing, empty, or begins as a database does.

    It is read through SQLite: a plain close would drop the locks that this process holds on it.
    """
    try:
        status = os.stat(path)
    except OSError:
        return True  # SQLite will say what is wrong with it
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
    """What to say of a database in which this was found."""
    return (
        f"{path} is damaged ({found}); it was left as it is: put a backup in its place, or save"
        f" what can be read with: sqlite3 {path} .recover | sqlite3 new.db"
    )


def not_a_database(path: str) -> str:
    """What to say of a file that is something else."""
    return f"{path} is not a SQLite database; it was left as it is: name another file"


def _explain(path: str, error: apsw.Error, rights: int) -> str:
    """What SQLite met at start, in one line that says what to do."""
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
                " this user, or be the user whose it is"
            )
        return (
            f"{path} cannot be opened ({error}); it must be a file that this user may write, in a"
            " directory that this user may write"
        )
    if isinstance(error, (apsw.FullError, apsw.IOError)):
        return f"{path} cannot be used: {error}; see that its disk has room, and is whole"
    return f"{path} cannot be used: {error}"


def _forbidden(path: str, rights: int) -> str | None:
    """The database, or the file beside it, with which this user may not do what it must."""
    for file in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(file) and not os.access(file, rights, effective_ids=True):
            return file
    return None
