"""Puts a copy in the place of a database that no server uses."""

from __future__ import annotations

import contextlib
import os
import time

import apsw

from playerstate.interfaces import OnProgress, StoreUnusable
from playerstate.stores.sqlite.backup import copy_online, give_permissions
from playerstate.stores.sqlite.content import SQLiteContent
from playerstate.stores.sqlite.files import connect_existing, explained

LOG_AND_INDEX = ("-wal", "-shm", "-journal")


def put_in_place(copy: str, path: str, progress: OnProgress) -> list[str]:
    """Put a copy in a database's place; the copy stays, and the former database is set aside.

    At each moment the path names the former database or the new one, whole.

    Args:
        copy: the copy's path.
        path: the database's, symbolic links resolved; it need not exist.
        progress: called now and then.

    Returns:
        The names under which the former files were set aside.

    Raises:
        StoreUnusable: the copy cannot be used, or the disk has no room; nothing has changed.
    """
    new = f"{path}.restoring"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # left by a restore that was killed
        try:
            _copy(copy, path, new, progress)
            give_permissions(new, path if os.path.exists(path) else copy)
            aside = _set_aside(path)
            os.replace(new, path)
        finally:
            for name in (new, f"{new}-journal"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
        fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreUnusable(f"cannot restore {path}: {error.strerror}; it is as it was") from error
    return aside


def _copy(copy: str, path: str, new: str, progress: OnProgress) -> None:
    if os.path.exists(path) and os.path.exists(copy) and os.path.samefile(copy, path):
        raise StoreUnusable(f"{copy} is the database itself; name a copy of it")
    with SQLiteContent(copy).look() as source:
        copy_online(source, new, progress)
    # With another identity no live file of the copied run, wherever it lies, is recovered into it.
    with explained(new), contextlib.closing(connect_existing(new)) as connection:
        connection.pragma("journal_mode", "delete")
        connection.pragma("synchronous", "full")
        if connection.table_exists("main", "player_store"):
            connection.execute("UPDATE player_store SET identity = ?", (os.urandom(16),))


def _set_aside(path: str) -> list[str]:
    """Give the former database another name as well, and its other files another one instead."""
    aside = f"{path}.{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.{time.time_ns() % 10**9}"
    if os.path.exists(path):
        _finish_log(path)
    moved = []
    for end in LOG_AND_INDEX:
        if os.path.exists(path + end):
            os.rename(path + end, aside + end)
            moved.append(aside + end)
    if os.path.exists(path):
        os.link(path, aside)
        moved.insert(0, aside)
    return moved


def _finish_log(path: str) -> None:
    """Copy the whole log into the database, if it can be read, so that it is one file."""
    with contextlib.suppress(apsw.Error), contextlib.closing(connect_existing(path)) as connection:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
