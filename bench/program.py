"""The program around a server: it changes a share of the players each second."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.task import LoopingCall

from playerstate.players.service import PlayerStateService

SHARE_A_SECOND = 0.01
TURN = 0.05
"""Seconds between two turns of the program."""


class Program:
    """Heals one player and moves the next, in turns, from `start` to `stop`.

    All players from 1 up are online, and are taken in random order.  Reactor thread.

    Args:
        reactor: provides ``IReactorTime``.
        service: the players', of the class `bench.ours.Hero`.
        players: how many.

    Attributes:
        changes: how many it has made.
    """

    def __init__(self, reactor: Any, service: PlayerStateService, players: int) -> None:
        self._service = service
        self._random = random.Random(3)
        self._players = players
        self._order: list[int] = []
        self._a_turn = SHARE_A_SECOND * TURN * players
        self._turn = 0
        self._reactor = reactor
        self._turns: LoopingCall | None = None
        self.changes = 0

    def start(self) -> None:
        """Begin to change players."""
        # A new one each time: one that is started again counts the turns in between as missed.
        self._turns = LoopingCall.withCount(self.turn)
        self._turns.clock = self._reactor
        self._turns.start(TURN, now=False)

    def stop(self) -> None:
        """Change no more, until the next start."""
        assert self._turns is not None
        self._turns.stop()

    def turn(self, count: int) -> None:
        """Make the changes of so many turns: more than one after a turn that came late."""
        self._turn += count
        while self.changes < round(self._turn * self._a_turn):
            self.change(self._next())

    def change(self, session_id: int) -> None:
        """Change this player: the server's field and the client's, in turns."""
        draw = self._random
        if self.changes % 2 == 0:
            self._service.change(session_id, hp=draw.randint(0, 100))
        else:
            x, y = draw.uniform(0.0, 4096.0), draw.uniform(0.0, 4096.0)
            self._service.change(session_id, x=x, y=y)
        self.changes += 1

    def _next(self) -> int:
        if not self._order:
            self._order = list(range(1, self._players + 1))
            self._random.shuffle(self._order)
        return self._order.pop()
