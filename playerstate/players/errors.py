"""What the service says no with, and what a session id may be."""

from __future__ import annotations

import operator

MAX_SESSION_ID = 2**63 - 1


class NotOnline(LookupError):
    """This player has not joined, or has left."""

    def __init__(self, session_id: int) -> None:
        super().__init__(f"player {session_id} is not online")
        self.session_id = session_id


class ServerFull(Exception):
    """As many players as the service was made for are in it already."""


class NotRunning(Exception):
    """The service is not started, or is stopping."""


def check_session_id(session_id: int) -> int:
    """A session id as it is to be.

    Raises:
        TypeError: it is no whole number; a bool is none.
        ValueError: it is out of range.
    """
    if isinstance(session_id, bool):
        raise TypeError(f"session id {session_id} is no whole number")
    session_id = operator.index(session_id)
    if not 1 <= session_id <= MAX_SESSION_ID:
        raise ValueError(f"session id {session_id} is not from 1 to 2**63 - 1")
    return session_id
