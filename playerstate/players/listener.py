"""What the service tells of its players, to whoever keeps something by them."""

from __future__ import annotations

from typing import Protocol


class PlayersListener(Protocol):
    """Is told what the service does with players; called on the reactor thread."""

    def on_leave(self, session_id: int) -> None:
        """A player in the live table is about to be taken offline, whoever asked for that.

        Nothing has changed as yet: the slot is the player's until the newest state is saved, which
        may be so before `PlayerStateService.leave` returns.  From here on the service leaves it to
        the listener that nobody applies moves of this player, which would put the leave off; those
        up to the number of a LEAVE that the player sent are the exception.  What this raises is
        logged, and the leave goes on.
        """
