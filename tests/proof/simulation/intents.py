"""What clients meant by their moves, and what they knew of the program's changes by then."""

from __future__ import annotations

import math

import attrs

from playerstate.state.schema import StateSchema
from tests.proof.simulation.players import Player, Values
from tests.proof.simulation.world import World


@attrs.frozen
class Intent:
    """What one move is meant to do.

    Attributes:
        moved: the client's fields; None where the move may be taken for another, by its own fault.
        knew: the number of the newest override that the client knew of when the move was made.
    """

    moved: Values | None
    knew: float


class Intents:
    """The moves of all clients, by player, nonce and sequence.

    Args:
        world: where what does not hold is said.
        schema: the players'.
    """

    def __init__(self, world: World, schema: StateSchema) -> None:
        self._world = world
        self._owned = [field.is_server_owned for field in schema.fields]
        self._sent: dict[tuple[int, int, int], list[Intent]] = {}
        self._joined: dict[int, set[int]] = {}
        self._doubtful: set[tuple[int, int]] = set()

    def moved(self, values: Values) -> Values:
        """The client's part of a state."""
        return tuple(v for v, owned in zip(values, self._owned, strict=True) if not owned)

    def owned(self, values: Values) -> Values:
        """The server's part of a state."""
        return tuple(v for v, owned in zip(values, self._owned, strict=True) if owned)

    def sent(self, session_id: int, nonce: int, sequence: int, intent: Intent) -> None:
        """A client sends a move."""
        self._sent.setdefault((session_id, nonce, sequence), []).append(intent)

    def joins(self, session_id: int, nonce: int) -> None:
        """A client sends a JOIN."""
        self._joined.setdefault(session_id, set()).add(nonce)

    def forgive(self, session_id: int, nonce: int) -> None:
        """The moves that a client has sent in this conversation may undo overrides."""
        for (who, talk, _), intents in self._sent.items():
            if (who, talk) == (session_id, nonce):
                intents[:] = [attrs.evolve(intent, knew=math.inf) for intent in intents]

    def forget(self, session_id: int) -> None:
        """Another process runs, which knows nothing of this player's conversations so far.

        A JOIN that the network repeats may begin one of them again, after an override, and the
        client may get an older WELCOME.
        """
        self._doubtful.update((session_id, nonce) for nonce in self._joined.get(session_id, ()))

    def check(self, player: Player, nonce: int, sequence: int, moved: Values) -> None:
        """A move is to be applied: it is one that was meant, and knows what it changes."""
        intents = self._sent.get((player.session_id, nonce, sequence), [])
        override = player.override if player.is_overridden else 0
        right = [each for each in intents if each.moved in (None, moved) and each.knew >= override]
        self._world.check(
            not intents or bool(right) or (player.session_id, nonce) in self._doubtful,
            *("player", player.session_id, "moves", nonce, sequence, "to", moved, "of", intents),
            *("over the override", override),
        )
