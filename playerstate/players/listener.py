"""What the service tells of its players, to whoever keeps something by them."""

from __future__ import annotations

from typing import Protocol


class PlayersListener(Protocol):
    """Is told what the service does with players; called on the reactor thread."""

    def on_leave(self, session_id: int) -> None:
        """A player who is in the live table is taken offline, whoever asked for that.

        The player still has the slot; it is free once the newest state is saved, which may be at
        once.  Whoever takes in moves takes in none of this player from here on, but for those that
        came before a LEAVE which says so.  What this raises is logged, and the leave goes on.
        """
