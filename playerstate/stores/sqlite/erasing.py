"""Deletes a player from a database, and from its log as well."""

from __future__ import annotations

import contextlib

import apsw

from playerstate.interfaces import StoreBusy

LOG_PATIENCE_MS = 1000
"""Milliseconds for which the log waits for other readers, to be emptied after an erasure."""


def erase_player(connection: apsw.Connection, session_id: int) -> int:
    """Delete the player's row, and overwrite what it took with zeros.

    Then the log is copied into the database and cut to nothing, since it may hold older states of
    the player; while another program reads the database, that is left to a later checkpoint.

    Args:
        connection: one that is used for nothing else.
        session_id: the player's.

    Returns:
        How many rows that were: 0 or 1.

    Raises:
        StoreBusy: another program is writing; nothing was deleted.
        apsw.Error: nothing is known to be deleted.
    """
    try:
        if not connection.table_exists("main", "player_state"):
            return 0
        connection.pragma("secure_delete", True)
        connection.wal_autocheckpoint(0)  # it would run inside of the commit
        connection.execute("DELETE FROM player_state WHERE session_id = ?", (session_id,))
        found = connection.changes()
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusy(str(error)) from error
    connection.set_busy_timeout(LOG_PATIENCE_MS)
    with contextlib.suppress(apsw.BusyError, apsw.LockedError):  # a reader still needs the log
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return found
