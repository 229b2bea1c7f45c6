"""Deletes a player from a PostgreSQL database.

The server overwrites the deleted rows when it next vacuums the tables; its log and its backups keep
them for as long as they are kept.
"""

from __future__ import annotations

import contextlib

import psycopg

from playerstate.interfaces import Erased, StoreBusy
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import Place, one_line


def erase_player(place: Place, session_id: int) -> Erased:
    """Delete the player's rows, over a connection of its own.  Blocks.

    Raises:
        StoreBusy: the database cannot be reached, or did not answer; nothing is known to be
            deleted.
        psycopg.Error: any other error, likewise.
    """
    try:
        with contextlib.closing(place.connect()) as session:
            return delete_player(session, session_id)
    except psycopg.OperationalError as error:
        raise StoreBusy(one_line(error)) from None


def delete_player(session: Session, session_id: int) -> Erased:
    """Delete the player's rows in one transaction.

    Raises:
        psycopg.Error: nothing is known to be deleted.
    """
    with session.transaction():
        deleted = [
            session.execute(f"DELETE FROM {table} WHERE session_id = %s", (session_id,)).rowcount
            for table in ("player_state", "player_refused")
        ]
    return Erased(*deleted)
