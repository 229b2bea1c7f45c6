"""Callbacks by which the service notifies other parts of what happens to its players."""

from __future__ import annotations

from typing import Protocol

from playerstate.log import PrintableLogger
from playerstate.sparing import SparingLogger

_log = PrintableLogger()


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

    def on_change(self, session_id: int, is_override: bool) -> None:
        """The program changed a player who is online or leaving; the row has changed already.

        So too where a judge rejected a move of an online player, who is put back.

        Args:
            session_id: the player's.
            is_override: whether fields of the client's were set.
        """


class Listeners:
    """The listeners of one service, notified in the order in which they were added."""

    def __init__(self) -> None:
        self._listeners: list[PlayersListener] = []
        self._lines = SparingLogger(_log)

    def add(self, listener: PlayersListener) -> None:
        """Notify this listener, until `remove`."""
        self._listeners.append(listener)

    def remove(self, listener: PlayersListener) -> None:
        """Stop notifying this listener.

        Raises:
            ValueError: it was never added, or is removed already.
        """
        self._listeners.remove(listener)

    def on_leave(self, session_id: int) -> None:
        """Notify each listener, which may remove itself or add others; log what one raises."""
        for listener in list(self._listeners):
            with self._lines.failures_handled("player {id} leaves all the same", id=session_id):
                listener.on_leave(session_id)

    def on_change(self, session_id: int, is_override: bool) -> None:
        """As `on_leave`, of a change."""
        for listener in list(self._listeners):
            with _log.failuresHandled("player {id} is changed all the same", id=session_id):
                listener.on_change(session_id, is_override)
