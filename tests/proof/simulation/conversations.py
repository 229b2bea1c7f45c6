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
from playerstate.conversations.conversation import TOLD_KEPT, Ended, Replaced
from playerstate.conversations.gateway import Gateway
from playerstate.conversations.joins import REPLACED_FOR, REPLACED_KEPT
from playerstate.conversations.pace import SEND_EVERY
from playerstate.testing import Address
from playerstate.wire.messages import STATES_PAID, Codec
from tests.kit.players import run_of
from tests.proof.simulation.model import Model
from tests.proof.simulation.players import Player, Values
from tests.proof.simulation.world import World

HEAD = 12
"""Bytes that a message has before it in a datagram."""
UNASKED = 78
"""Bytes that a JOIN has beyond its WELCOME and the STATEs that it pays for."""
OVERHEAD = 18
"""Bytes that a message has around it, over the transport that adds more."""
LATE = 0.25
"""Seconds that a STATE may be late: turns of the reactor come at intervals."""


@attrs.frozen
class Asked:
    """A JOIN that is to be answered."""

    address: Address
    nonce: int
    sequence: int
    size: int
    fresh: bool = True
    replaced: Replaced = ()
    again: bool = False


@attrs.define(eq=False)
class Conversation:
    """One conversation, as `playerstate.conversations.conversation.Conversation`.

    `bases` are the last two, `answered` is when it was last answered after its end, `paid` how many
    RECEIPTs it has paid for, and `told` whether the last RECEIPT was sent, which a LEAVE pays for,
    or the JOIN.

    `override` is the number of the newest override that the client has not seen, `number` that of
    the newest change that the client has not, 0 for none; `numbers` those of the STATEs sent.
    `bytes_left` is how many bytes more came from where the player is than were sent there.
    `states_paid` is how many STATEs are paid for beside RECEIPTs, `state_at` when the last was
    sent, `gap` how long after it at least the same may be sent again.  `is_renumbered` is whether
    the program has had its sequences begin again below what the client had used.
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
    override: int = 0
    number: int = 0
    numbers: list[int] = attrs.field(factory=list)
    bytes_left: int = 0
    states_paid: float = 0.0
    state_at: float = -math.inf
    gap: float = 0.0
    is_renumbered: bool = False

    def change(self, number: int, is_override: bool) -> None:
        """The program made a change with this number; who leaves is told when in again."""
        if is_override:
            self.override = number
        if not self.leaving:
            self.number, self.gap = number, 0.0

    @property
    def state_due(self) -> float:
        """When the next STATE may be sent."""
        return self.state_at + max(self.gap, SEND_EVERY)

    def pay_for(self, size: int, codec: Codec) -> None:
        """A JOIN of so many bytes came from here: it pays for a RECEIPT, and for some STATEs."""
        self.paid, self.bytes_left = 1.0, HEAD + size
        left = size - codec.welcome_size - UNASKED
        self.states_paid = float(min(STATES_PAID, left // (codec.state_size + OVERHEAD)))

    def knows(self, number: int) -> bool:
        """Whether a SEEN may bear this number: it was sent, or is older than the last few sent."""
        last = self.numbers[-TOLD_KEPT:]
        return number in last or (len(last) == TOLD_KEPT and 0 < number < last[0])


def costs_of_state(codec: Codec) -> float:
    """How many RECEIPTs are as long as a STATE, over the transport for which it is more."""
    return max((codec.state_size + 12) / 21, (codec.state_size + OVERHEAD) / (9 + OVERHEAD))


class Conversations:
    """The conversations of one process.

    Attributes:
        current: those there are, by session id, as the other dicts.
        joining: JOINs that wait for a load.
        departed: those that ended by a LEAVE, whether they are still answered or not.
        ended: what is to be remembered of each player's last one, once it is forgotten.
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
        self._costs = costs_of_state(Codec(gateway.service.schema))
        self._table = gateway.service.table
        self.current: dict[int, Conversation] = {}
        self.joining: dict[int, Asked] = {}
        self.departed: dict[int, Conversation] = {}
        self.ended: dict[int, Ended] = {}
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

    def named(self, session_id: int, nonce: int) -> Conversation | None:
        """This player's conversation with this nonce, if there is one or was one of late."""
        for talks in (self.current, self.departed):
            talk = talks.get(session_id)
            if talk is not None and talk.nonce == nonce:
                return talk
        return None

    def has_moved(self, session_id: int, nonce: int, since: int) -> bool:
        """Whether a move of the conversation with this nonce came after a state of this date."""
        talk, player = self.current.get(session_id), self._model.players[session_id]
        is_move = player.came_by in ("move", "delta") and player.updated_at > since
        return is_move and talk is not None and talk.nonce == nonce

    def is_renumbered(self, session_id: int) -> bool:
        """Whether the program has renumbered a conversation that a client is in."""
        talk = self.current.get(session_id)
        return talk is not None and talk.is_renumbered

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
            self.end(player, talk)

    def end(self, player: Player, talk: Conversation) -> None:
        """A conversation ends: one that was left never begins again, another may."""
        now = self._world.now
        ended = Ended(now, ((talk.nonce, now), *talk.replaced))
        if not talk.leaving:
            ended = Ended(now, talk.replaced, talk.nonce, player.sequence)
        self.ended[player.session_id] = ended

    def began_before(self, session_id: int, nonce: int) -> Ended | None:
        """The conversation with this nonce that ended of late, and that a JOIN begins again."""
        ended = self.ended.get(session_id)
        if session_id not in self._registry.ended or ended is None or ended.nonce != nonce:
            return None
        return ended

    def replaced(self, session_id: int, nonce: int) -> Replaced:
        """The nonces that a fresh JOIN replaces, or that were replaced of late."""
        now = self._service.clock.seconds()
        found: Replaced = ()
        if (remembered := self._registry.ended.get(session_id)) is not None:
            ended = self.ended[session_id]
            found = ended.replaced
            if ended.nonce is None:
                found = ((found[0][0], remembered.at), *found[1:])
            elif ended.nonce != nonce:
                found = ((ended.nonce, now), *found)
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

    def renumbered(self, session_id: int, sequence: int | None) -> None:
        """The program joins a player who may be in a conversation, from this sequence on."""
        talk, player = self.current.get(session_id), self._model.players[session_id]
        if talk is not None and sequence is not None and sequence < player.sequence:
            talk.is_renumbered = True

    def changed(self, player: Player, is_override: bool) -> None:
        """The program has changed a player."""
        talk = self.current.get(player.session_id)
        if talk is not None:
            talk.change(player.updated_at, is_override)

    def seen(self, player: Player, talk: Conversation, number: int, sequence: int) -> None:
        """A client has seen the STATE with this number, having used this sequence."""
        talk.states_paid = min(talk.states_paid + 1.0, STATES_PAID)
        if talk.override and number >= talk.override:
            self._model.seen(player, sequence)
            talk.override, talk.bases = 0, []
        if number == talk.number:
            talk.number = 0

    def late_states(self) -> dict[int, int]:
        """The STATEs that should have been sent by now, since they are paid for."""
        late = {}
        for session_id, talk in self.current.items():
            is_paid = talk.states_paid >= 1.0 or talk.paid >= self._costs
            if talk.number and is_paid and self._world.now > talk.state_due + LATE:
                late[session_id] = talk.number
        return late

    def hear(self, talk: Conversation) -> None:
        """A player gave a sign of life."""
        if not talk.leaving:
            talk.heard = self._silence.now

    def leave(self, session_id: int, talk: Conversation) -> None:
        """The gateway takes the player of this conversation offline."""
        player = self._model.players[session_id]
        talk.leaving, talk.target = True, player.updated_at
        talk.number = 0
        self._model.leave(player)

    def taken_offline(self, player: Player) -> None:
        """The program takes a player offline: who plays is told, who leaves moves no more."""
        talk = self.current.get(player.session_id)
        if talk is not None and talk.leaving:
            talk.limit = min(talk.limit, player.sequence)
        self.kicking.add(player.session_id)
