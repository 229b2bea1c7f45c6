"""What flushes and leaves promise, held against the store at the moment they are answered."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from playerstate.players.leaves import Progress
from playerstate.players.service import NotRunning
from playerstate.saving.commit import NotSaved
from tests.proof.simulation.model import Model
from tests.proof.simulation.players import Player
from tests.proof.simulation.world import World

PROMPT = 0.6
"""Seconds within which a flush or a leave is answered where nothing is wrong."""
LATEST_WORD = 10.0
"""Seconds that word from the persist thread may take, with a stall on its way."""


class Promises:
    """Who waits for what."""

    def __init__(self, world: World, model: Model) -> None:
        self._world = world
        self._model = model
        self._asked_at: dict[int, float] = {}
        self._number = 0

    def new_process(self) -> None:
        """Nobody waits any more."""
        self._asked_at.clear()

    @property
    def open(self) -> int:
        """How many wait."""
        return len(self._asked_at)

    def check_prompt(self) -> None:
        """Nobody waits for long."""
        since = next(iter(self._asked_at.values()), self._world.now)
        self._world.check(self._world.now - since <= PROMPT, "a promise waits since", since)

    def leave(self, player: Player, waiter: Deferred[Progress]) -> None:
        """A leave was asked for."""
        self._wait("leave", [player], waiter)

    def edit(self, player: Player, waiter: Deferred[None]) -> None:
        """An edit was made, and is to be saved."""
        self._wait("edit", [player], waiter)

    def flush(self, waiter: Deferred[None]) -> None:
        """A flush was asked for."""
        self._wait("flush", list(self._model.players.values()), waiter)

    def _wait(self, what: str, players: list[Player], waiter: Deferred[object]) -> None:
        targets = [(player, player.updated_at) for player in players]
        earliest = self._world.now - LATEST_WORD
        self._number = number = self._number + 1
        self._asked_at[number] = self._world.now

        def answered(result: object) -> None:
            self._asked_at.pop(number, None)
            for player, target in targets:
                self._world.check(
                    self._model.reached(player, target),
                    *("a", what, "was answered while player", player.session_id, "of", target),
                    *("is not in the store, which has", self._model.stored_at(player)),
                )
            if isinstance(result, Progress):
                self._model.check_saved(players[0], result.saved)

        def failed(failure: Failure) -> None:
            self._asked_at.pop(number, None)
            if failure.check(CancelledError):
                return
            # Asked of a service whose stop has given up, it is `NotRunning`.
            expected = failure.check(NotSaved, NotRunning) is not None
            self._world.check(expected, "a", what, "failed:", failure)
            since = any(player.given_up_at > earliest for player in self._model.players.values())
            alone = what != "flush" and players[0].given_up >= targets[0][1]
            self._world.check(
                since or alone or self._model.lost_allowed,
                "a",
                what,
                "failed for nothing:",
                failure,
            )

        # What does not hold is remembered by the world: here it would end in a Deferred.
        waiter.addCallbacks(answered, failed).addErrback(lambda _: None)
