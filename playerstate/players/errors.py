"""The errors with which the service refuses a call."""

from __future__ import annotations


class NotOnline(LookupError):
    """This player has not joined, or has left."""

    def __init__(self, session_id: int) -> None:
        super().__init__(f"player {session_id} is not online")
        self.session_id = session_id


class UnknownPlayer(LookupError):
    """The store does not know this player."""

    def __init__(self, session_id: int) -> None:
        super().__init__(f"player {session_id} is not in the store")
        self.session_id = session_id


class ServerFull(Exception):
    """The service holds `max_players` players already."""


class NotRunning(Exception):
    """The service is not started, or is stopping."""
