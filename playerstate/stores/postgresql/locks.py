"""The advisory locks by which servers and commands on one database keep out of each other's way.

Servers share the *use* of a store; a command that changes it takes that lock for itself, so that no
server writes meanwhile.  A server holds the lock by a connection for as long as it runs, so that a
command finds it; and each of its transactions takes the lock too, so that a command is safe from a
server whose connection was lost.  The *migration* lock lets one program at a time create or change
the tables.

Locks are of one schema of one database: games in different schemas do not meet.
"""

from __future__ import annotations

import contextlib
import threading
import time

import psycopg

from playerstate.interfaces import StoreInUse
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import Place

_CLASS = 0x706C7374  # "plst" in ASCII
USE = f"{_CLASS}, hashtext(current_schema())"
MIGRATION = f"{_CLASS + 1}, hashtext(current_schema())"

ENDING_SECONDS = 0.5
"""How long a lock is waited for: the server may not have noticed yet that its last holder ended."""

SHARE_IN_TRANSACTION = f"pg_try_advisory_xact_lock_shared({USE})"
"""Whether the transaction may write: no command has the store for itself."""

_HOLDERS = f"""
    SELECT application_name, pid FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = {_CLASS}::oid
    AND objid = hashtext(current_schema())::int8::bit(32)::int8::oid AND objsubid = 2
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND pid <> pg_backend_pid() ORDER BY pid
"""


def take(session: Session, place: Place, shared: bool) -> None:
    """Take the lock of use, until the session is closed.

    Args:
        session: that is to hold it.
        place: for the message.
        shared: as a server does; else for this session alone.

    Raises:
        StoreInUse: it is held otherwise.
    """
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    end = time.monotonic() + ENDING_SECONDS
    while session.execute(f"SELECT {function}({USE})").fetchone() != (True,):
        if time.monotonic() > end:
            holder = _holder(session)
            raise StoreInUse(f"{place} is in use by {holder}; wait until that has ended", holder)
        time.sleep(0.02)


def _holder(session: Session) -> str:
    found = session.execute(_HOLDERS).fetchall()
    names = [name or f"the backend {pid}" for name, pid in found]
    return ", ".join(names) if names else "a program that has just ended"


class Presence:
    """The connection by which a server says that it uses the store.  Any thread.

    Args:
        place: of the database.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._renewing = threading.Lock()
        self._guard = threading.Lock()  # of the two below; held for no longer than they need
        self._session: Session | None = None
        self._closed = False

    def renew(self) -> None:
        """Take the lock, or take it again if the connection that had it was lost.  Blocks.

        Raises:
            StoreInUse: a command has the store for itself.
            psycopg.Error: the server cannot be reached.
        """
        with self._renewing:
            with self._guard:
                if self._closed:
                    return
                session, self._session = self._session, None
            session = self._renewed(session)
            if not self._keep(session):
                session.close()

    def _keep(self, session: Session) -> bool:
        with self._guard:
            if not self._closed:
                self._session = session
            return not self._closed

    def _renewed(self, session: Session | None) -> Session:
        if session is not None:
            if _is_alive(session):
                return session
            session.close()
        session = self._place.connect()
        try:
            take(session, self._place, shared=True)
        except BaseException:
            session.close()
            raise
        return session

    def close(self) -> None:
        """Release the lock, at once or as soon as `renew` ends; waits for no server."""
        with self._guard:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()


def _is_alive(session: Session) -> bool:
    if session.is_lost:
        return False
    with contextlib.suppress(psycopg.Error):
        session.execute("SELECT 1")
        return True
    return False
