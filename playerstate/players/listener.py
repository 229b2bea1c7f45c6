"""Callbacks by which the service notifies other parts of what happens to its players."""

from __future__ import annotations

from typing import Protocol


class PlayersListener(Protocol):
    """Receives the service's notifications about players, on the reactor thread."""

    def on_leave(self, session_id: int) -> None:
        """A player in the live table is about to be taken offline, at anyone's request.

        Nothing has changed yet: the slot is the player's until the newest state is saved, possibly
        before `PlayerStateService.leave` returns.  From here on the listener must see to it that no
        move of this player is applied, since each would delay the leave; moves up to the sequence
        of a LEAVE that the player sent are the exception.  An exception raised here is logged, and
        the leave goes on.
        """
