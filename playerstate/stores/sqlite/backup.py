"""Whole copies of a database, made by SQLite's online backup, and verified."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

import apsw

from playerstate.interfaces import OnProgress, StoreUnusable
from playerstate.stores.sqlite.files import connect_past_log, damaged, explained, not_a_database
from playerstate.stores.sqlite.format import check_ours

PAGES_A_STEP = 1024
"""Pages copied between two reports of progress, some milliseconds' work."""
OPS_A_LOOK = 1_000_000
"""Steps of SQLite's machine between two looks for a signal, some tens of milliseconds."""


def look_for_signals(connection: apsw.Connection) -> None:
    """Let a signal, such as that of Ctrl-C, end a long statement on this connection."""
    # Python runs its signal handlers when it runs Python code: this callback is enough.
    connection.set_progress_handler(lambda: False, OPS_A_LOOK)


def find_damage(connection: apsw.Connection) -> list[str]:
    """Read the whole database and compare its indexes; the damage found, one line each."""
    try:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
    except apsw.CorruptError as error:
        return [str(error)]
    return [] if found == ["ok"] else [line for each in found for line in each.splitlines()]


def count_players(connection: apsw.Connection) -> int:
    """How many players the database holds."""
    count: int = connection.execute("SELECT count(*) FROM player_state").get
    return count


def copy_online(source: apsw.Connection, target: str, progress: OnProgress) -> int:
    """Copy the database that `source` has open into a new file, verify it, and sync it to disk.

    One read transaction lasts from the first page to the last, so commits of a server meanwhile
    neither enter the copy nor make it start over; the log cannot be reset for that time.

    Returns:
        How many players are in it.

    Raises:
        StoreUnusable: it cannot be written, or is not what was copied; it may remain.
        apsw.Error: the source cannot be read; likewise.
        OSError: likewise.
    """
    # For its owner only, until the caller gives it other permissions.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    source.execute("BEGIN")
    try:
        players = count_players(source)
        with explained(target), contextlib.closing(apsw.Connection(target)) as copy:
            # Until it is whole it is of no use to anyone, so it needs no journal.
            copy.pragma("journal_mode", "off")
            copy.pragma("synchronous", "off")
            with copy.backup("main", source, "main") as backup:
                while not backup.done:
                    try:
                        backup.step(PAGES_A_STEP)
                    except apsw.FullError:  # SQLite says no more of it
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
                    progress(backup.page_count - backup.remaining, backup.page_count)
    finally:
        source.execute("ROLLBACK")
    if verify(target) != players:
        raise StoreUnusable(f"{target}: the copy holds other players than what was copied")
    fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return players


def verify(path: str) -> int:
    """Check a copy that no program uses; return how many players it holds.

    Raises:
        StoreUnusable: it is damaged, or no database of players.
    """
    with explained(path, os.R_OK), contextlib.closing(connect_past_log(path)) as connection:
        look_for_signals(connection)
        if not check_ours(connection, path):
            raise StoreUnusable(not_a_database(path))
        if damage := find_damage(connection):
            raise StoreUnusable(damaged(path, damage[0]))
        return count_players(connection)


def give_permissions(path: str, like: str) -> None:
    """Give a file the permissions of another one, and its owner where this user may."""
    status = os.stat(like)
    os.chmod(path, stat.S_IMODE(status.st_mode))
    with contextlib.suppress(PermissionError):
        os.chown(path, status.st_uid, status.st_gid)
