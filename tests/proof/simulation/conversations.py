"""The conversations there must be, in plain values.

`tests.proof.simulation.judge` says what each datagram does to them,
`tests.proof.simulation.answers` what each answer says of them.  Only where the rules leave the
moment open (when a lingering answer is forgotten, when the clock of idleness last looked) is the
gateway asked.
"""

from __future__ import annotations

import math

import attrs

from playerstate.arguments import MAX_SEQUENCE
from playerstate.conversations.conversation import Replaced
from playerstate.conversations.gateway import Gateway
from playerstate.conversations.joins import REPLACED_FOR, REPLACED_KEPT
from playerstate.testing import Address
from tests.kit.players import run_of
from tests.proof.simulation.model import Model
from tests.proof.simulation.players import Player, Values
from tests.proof.simulation.world import World


@attrs.frozen
class Asked:
    """A JOIN that is to be answered."""

    address: Address
    nonce: int
    sequence: int
    size: int
    fresh: bool = True
    replaced: Replaced = ()


@attrs.define(eq=False)
class Conversation:
    """One conversation, as `playerstate.conversations.conversation.Conversation`.

    `bases` are the last two, `answered` is when it was last answered after its end, `paid` how many
    RECEIPTs it has paid for, and `told` whether the last RECEIPT was sent, which a LEAVE pays for,
    or the JOIN.
    """

    address: Address
    nonce: int
    first: int
    slot: int
    heard: float
    secret: int
    replaced: Replaced = ()
    used: bool = False
    limit: int = MAX_SEQUENCE
    leaving: bool = False
    bases: list[tuple[int, Values]] = attrs.field(factory=list)
    target: int = 0
    answered: float = -math.inf
    paid: float = 1.0
    told: bool = False


class Conversations:
    """The conversations of one process.

    Attributes:
        current: those there are, by session id, as the other dicts.
        joining: JOINs that wait for a load.
        departed: those that ended by a LEAVE, whether they are still answered or not.
        api_loads: how many joins of the embedding program wait for a load.
        last_receipt: what a player was told last: nonce, applied, saved.
        asked: the JOIN that is being delivered.
        answers: what was sent since the last datagram began to be delivered.
        closing: whether the gateway refuses everybody.
        stopping: whether the service does.
        kicking: who is being kicked.
    """

    def __init__(self, world: World, model: Model, gateway: Gateway) -> None:
        self._world = world
        self._model = model
        self._registry = run_of(gateway).registry
        self._silence = run_of(gateway).silence
        self._service = gateway.service
        self._table = gateway.service.table
        self.current: dict[int, Conversation] = {}
        self.joining: dict[int, Asked] = {}
        self.departed: dict[int, Conversation] = {}
        self.api_loads: dict[int, int] = {}
        self.last_receipt: dict[int, tuple[int, int, int]] = {}
        self.asked: Asked | None = None
        self.answers: list[object] = []
        self.closing = False
        self.stopping = False
        self.kicking: set[int] = set()

    def close(self) -> None:
        """The server begins to stop."""
        self.closing = self.stopping = True
        self.joining.clear()
        for session_id, talk in self.current.items():
            talk.limit = min(talk.limit, self._table.sequence(talk.slot))
            if not talk.leaving:
                self.leave(session_id, talk)

    def loading(self, session_id: int) -> bool:
        """Whether this player's load is under way."""
        return session_id in self.joining or self.api_loads.get(session_id, 0) > 0

    def has_room(self, session_id: int) -> bool:
        """Whether this player may join as far as places go."""
        players = self._model.players.values()
        taken = sum(p.slot is not None or self.loading(p.session_id) for p in players)
        known = self._model.players[session_id].slot is not None or self.loading(session_id)
        return known or taken < self._service.options.max_players

    def look(self) -> None:
        """Find whose leave was answered since, and whether that was right."""
        for session_id, talk in list(self.current.items()):
            if session_id in self._registry.current:
                continue
            player, check = self._model.players[session_id], self._world.check
            name = ("the conversation of player", session_id)
            check(talk.leaving, *name, "ended without leaving")
            check(self._model.reached(player, talk.target), *name, "ended before it was saved")
            self.departed[session_id] = self.current.pop(session_id)

    def replaced(self, session_id: int, nonce: int) -> Replaced:
        """The nonces that a fresh JOIN replaces, or that were replaced of late."""
        now = self._service.clock.seconds()
        found: Replaced = ()
        if session_id in self._registry.departed:
            departed = self.departed[session_id]
            found = ((departed.nonce, now), *departed.replaced)
        if (talk := self.current.get(session_id)) is not None:
            found = talk.replaced
            if talk.nonce != nonce:
                found = ((talk.nonce, now), *found)
        if (asked := self.joining.get(session_id)) is not None:
            found = ((asked.nonce, now), *asked.replaced)
        return tuple(each for each in found if now - each[1] < REPLACED_FOR)[:REPLACED_KEPT]

    def untold(self) -> dict[int, tuple[int, int]]:
        """How far players have come who were not told so, though they have paid for it."""
        untold = {}
        for session_id, talk in self.current.items():
            player = self._model.players[session_id]
            if player.slot == talk.slot and talk.paid >= 1.0:
                progress = (player.sequence, player.saved)
                told = self.last_receipt[session_id]
                # The last RECEIPT in hand is kept for when all is saved.
                is_kept = talk.paid < 2.0 and player.saved != player.sequence == told[1]
                if told != (talk.nonce, *progress) and not is_kept:
                    untold[session_id] = progress
        return untold

    def hear(self, talk: Conversation) -> None:
        """A player gave a sign of life."""
        if not talk.leaving:
            talk.heard = self._silence.now

    def leave(self, session_id: int, talk: Conversation) -> None:
        """The gateway takes the player of this conversation offline."""
        player = self._model.players[session_id]
        talk.leaving, talk.target = True, player.updated_at
        self._model.leave(player)

    def taken_offline(self, player: Player) -> None:
        """The program takes a player offline: who plays is told, who leaves moves no more."""
        talk = self.current.get(player.session_id)
        if talk is not None and talk.leaving:
            talk.limit = min(talk.limit, player.sequence)
        self.kicking.add(player.session_id)
