"""The players' programs, with a network between them and the server."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import attrs

from playerstate.arguments import MAX_SEQUENCE
from playerstate.state.schema import StateSchema
from playerstate.testing import Address
from playerstate.wire.deltas import DeltaCodec
from playerstate.wire.messages import (
    JOIN,
    LEAVE,
    PING,
    SEEN,
    Codec,
    Gone,
    Receipt,
    Refused,
    State,
    Welcome,
    encode_numbered,
)
from tests.proof.simulation.intents import Intent
from tests.proof.simulation.model import Model
from tests.proof.simulation.network import Network
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.players import Values
from tests.proof.simulation.world import World

_HEAD = struct.Struct("<QI")
_SEEN = struct.Struct("<BQI")
_ANSWERS = ("well", "well", "well", "never", "badly")


@attrs.define(eq=False)
class Client:
    """What one player's program remembers.

    Attributes:
        answers: how it answers a STATE: ``well``, ``never``, or ``badly``.
        used: the highest sequence of a move in this conversation, or of its JOIN.
        knows: the number of the newest override that it has answered; infinite for one that may
            have answered more than it was told, or less than it has sent.
    """

    session_id: int
    address: Address
    answers: str
    nonce: int = 0
    secret: int = 0
    sequence: int = 0
    used: int = 0
    knows: float = 0.0
    welcomed: bool = False
    moves: dict[int, Values] = attrs.field(factory=dict)
    bases: dict[int, Values] = attrs.field(factory=dict)


class Clients:
    """The players' programs: they play well mostly, and badly at times.

    Args:
        world, plan, model: of the run.
        network: the way to the server.
        schema: the players'.
    """

    def __init__(
        self, world: World, plan: Plan, model: Model, network: Network, schema: StateSchema
    ) -> None:
        self._world = world
        self._random = world.random
        self._model = model
        self._network = network
        self._codec = Codec(schema)
        self._deltas = DeltaCodec(schema)
        self._clients = [
            Client(i, ("10.0.0.1", 1000 + i), self._random.choice(_ANSWERS)) for i in plan.clients
        ]
        self._nonces = 0
        actions: dict[Callable[[], None], float] = {
            self.play: 10.0,
            self.play_all: 3.0,
            self.step: 4.0,
            self.ping: 1.0,
            self.leave: 1.0,
            self.join_anew: 0.7,
            self.wander: 0.3,
            self.repeat_old_move: 0.7,
            self.send_rubbish: 0.5,
            self.claim: 0.5,
        }
        self.weights = actions if self._clients else {}

    def received(self, packet: bytes) -> None:
        """The server's answer reaches a client."""
        session_id, nonce = _HEAD.unpack_from(packet)
        message = self._codec.decode_server(packet[12:])
        client = next((each for each in self._clients if each.session_id == session_id), None)
        if client is None:
            return  # it went to where a device was
        if isinstance(message, Welcome) and message.nonce == client.nonce:
            if not client.welcomed:
                client.knows = max(client.knows, message.updated_at)
            client.welcomed = True
            client.secret = message.secret
        elif isinstance(message, (Refused, Gone)) and message.nonce == client.nonce:
            client.welcomed = False
            client.nonce = client.secret = 0
        elif isinstance(message, Receipt) and message.applied in client.moves:
            client.bases[message.applied] = client.moves[message.applied]
        elif isinstance(message, State) and nonce == client.nonce:
            self._answer(client, message)

    def _answer(self, client: Client, state: State) -> None:
        """Answer a STATE, or not, as this client does."""
        if client.answers == "never" or self._random.random() < 0.1:
            return
        number, sequence = state.number, client.used
        if client.answers == "badly":
            number += self._random.choice((0, 0, 0, -2, 2))
            sequence += self._random.choice((0, 0, -2, 3))
            self._misbehaves(client)
        elif state.is_override:
            client.knows = max(client.knows, number)
            client.bases.clear()
        self._see(client, number, sequence)

    def _misbehaves(self, client: Client) -> None:
        """A client may say less than it has sent: what becomes of its moves is its own fault."""
        client.knows = math.inf
        self._model.intents.forgive(client.session_id, client.nonce)

    def _see(self, client: Client, number: int, sequence: int) -> None:
        sequence = min(max(sequence, 0), MAX_SEQUENCE)
        self._world.note("client", client.session_id, "has seen", number, sequence)
        size = max(_SEEN.size, self._codec.state_size)
        seen = _SEEN.pack(SEEN, number & 2**64 - 1, sequence).ljust(size, b"\0")
        self._send(client, seen)

    def claim(self) -> None:
        """Claim to have seen what was never told, or tell again what was."""
        client = self._one()
        player = self._model.players[client.session_id]
        past = [*player.overrides, 0, 1, player.updated_at, player.updated_at + 1, 2**63, 2**64 - 1]
        self._misbehaves(client)
        self._see(client, self._random.choice(past), client.used + self._random.choice((0, 0, -1)))

    def _send(self, client: Client, message: bytes) -> None:
        if message[:1] == bytes([JOIN]):
            self._model.intents.joins(client.session_id, client.nonce)
        self._network.send(_HEAD.pack(client.session_id, client.nonce) + message, client.address)

    def _one(self) -> Client:
        return self._random.choice(self._clients)

    def play(self) -> None:
        """Move, a few times; ask to join first."""
        self._play(self._one())

    def play_all(self) -> None:
        """All play at the same time."""
        for client in self._clients:
            self._play(client)

    def _play(self, client: Client) -> None:
        if not client.welcomed and self._random.random() < 0.8:
            return self._join(client)
        for _ in range(self._random.choice((1, 1, 2, 5))):
            client.sequence = min(client.sequence + 1, MAX_SEQUENCE)
            self._move(client, client.sequence)

    def _move(self, client: Client, sequence: int) -> None:
        self._world.note("client", client.session_id, "moves", sequence)
        client.moves[sequence] = values = self._model.some_values(client.session_id)
        client.used = max(client.used, sequence)
        intent = Intent(self._model.intents.moved(values), self._knew(client))
        self._model.intents.sent(client.session_id, client.nonce, sequence, intent)
        self._send(client, self._codec.encode_move(sequence, values))

    def _knew(self, client: Client) -> float:
        """What a client knows that moves; before its WELCOME it must not, and knows nothing."""
        return client.knows if client.welcomed else math.inf

    def step(self) -> None:
        """Move by a DELTA, from a base that mostly is the newest."""
        client = self._one()
        if not client.bases:
            return
        base = self._random.choice((max(client.bases), *client.bases))
        sequence = min(max(base, client.sequence) + 1, MAX_SEQUENCE)
        values = self._model.next_values()
        message = self._deltas.encode(sequence, base, client.bases[base], values)
        if message is not None:
            client.sequence = sequence
            client.used = max(client.used, sequence)
            # Its base may be one of an earlier conversation.
            intent = Intent(None, self._knew(client))
            self._model.intents.sent(client.session_id, client.nonce, sequence, intent)
            self._world.note("client", client.session_id, "steps", sequence, "from", base)
            self._send(client, message)

    def _join(self, client: Client) -> None:
        if client.nonce == 0:
            self._nonces += 1
            client.nonce = self._nonces
            at_most = self._random.random()
            if at_most < 0.1:
                client.sequence = 0
            elif at_most < 0.15:
                client.sequence = MAX_SEQUENCE - self._random.randrange(4)
            client.used, client.knows = client.sequence, 0.0
        self._world.note("client", client.session_id, "joins", client.nonce, client.sequence)
        secret = client.secret if self._random.random() < 0.5 else 0
        join = self._codec.encode_join(client.nonce, client.sequence, secret=secret)
        self._send(client, join)

    def join_anew(self) -> None:
        """Begin another conversation."""
        client = self._one()
        client.nonce, client.secret, client.welcomed = 0, 0, False
        self._join(client)

    def wander(self) -> None:
        """Go on from another address, without a word or with a JOIN."""
        client = self._one()
        client.address = ("10.0.0.1", self._random.choice((1000, 2000)) + client.session_id)
        if self._random.random() < 0.7:
            self._join(client)

    def ping(self) -> None:
        """Say that one is there."""
        client = self._one()
        size = self._random.choice((0, 0, self._codec.state_size, 200))
        self._send(client, encode_numbered(PING, client.sequence, size))

    def leave(self) -> None:
        """Go; the last moves may come later; some go on all the same."""
        client = self._one()
        late = self._random.choice((0, 1, 2, 5))
        last = min(client.sequence + late, MAX_SEQUENCE)
        self._world.note("client", client.session_id, "leaves", last)
        self._send(client, encode_numbered(LEAVE, last))
        for _ in range(late):
            client.sequence = min(client.sequence + 1, MAX_SEQUENCE)
            self._move(client, client.sequence)
        if self._random.random() < 0.7:
            client.nonce, client.secret, client.welcomed = 0, 0, False

    def repeat_old_move(self) -> None:
        """Send something that is late, or far ahead."""
        client = self._one()
        sequence = client.sequence + self._random.choice((-3, -1, 0, 7))
        self._move(client, min(max(sequence, 0), MAX_SEQUENCE))

    def send_rubbish(self) -> None:
        """Send what no client should."""
        client, codec = self._one(), self._codec
        move = codec.encode_move(client.sequence + 1 & MAX_SEQUENCE, self._model.next_values())
        nan = move[:5] + struct.pack("<d", math.nan) + move[13:]
        join = codec.encode_join(self._nonces + 1000, 0)
        seen = codec.encode_seen(self._model.players[client.session_id].updated_at, client.used)
        message = self._random.choice(
            (
                *(b"", move[:-1], move + b"\0", nan, b"\x05" + bytes(6), b"\x77", bytes(1300)),
                *(b"\x05" + move[1:3] + b"\0\x80", b"\x05" + move[1:3] + b"\0\x7f\x01"),
                *(join[:14], join[:9], join.ljust(1201, b"\0"), b"\x01\x02" + join[2:]),
                *(b"\x01\x01\x01" + join[3:], encode_numbered(PING, client.sequence)[:-1]),
                encode_numbered(LEAVE, 0),
                *(seen[:-1], seen + b"\0", seen[:9] + b"\xff\xff\xff\xff" + seen[13:]),
            )
        )
        if self._random.random() < 0.1:
            self._network.send(_HEAD.pack(2**63, 1) + message, client.address)
        else:
            self._send(client, message)
