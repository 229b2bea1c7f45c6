"""The devices of players who play by the rules: the package's own client on each."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from playerstate.arguments import MAX_SEQUENCE
from playerstate.client.core import Client, Phase
from playerstate.state.schema import StateSchema
from playerstate.testing import Address
from playerstate.wire.messages import (
    DELTA,
    JOIN,
    MOVE,
    SEEN,
    Codec,
    Refused,
    RefusedReason,
    State,
    Welcome,
)
from tests.proof.simulation.intents import Intent
from tests.proof.simulation.model import Model
from tests.proof.simulation.network import Network
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.players import Values
from tests.proof.simulation.world import World

_HEAD = struct.Struct("<QI")
_SEEN = struct.Struct("<xQI")


class Device:
    """One device, with the client's program on it.

    Args:
        world, model, network, schema: of the run.
        session_id: whose it is.
        address: where it is.

    Attributes:
        client: the conversation.
        awake: whether it runs, and hears anything.
    """

    def __init__(
        self,
        world: World,
        model: Model,
        network: Network,
        schema: StateSchema,
        session_id: int,
        address: Address,
    ) -> None:
        self._world = world
        self._intents = model.intents
        self._network = network
        self._schema = schema
        self._codec = Codec(schema)
        self.session_id = session_id
        self.address = address
        self.awake = True
        self.restart()

    def restart(self) -> None:
        """The program is started: it remembers nothing."""
        draw_nonce = lambda: self._world.random.getrandbits(32)  # noqa: E731
        self.client = Client.of(self._schema, draw_nonce, tries_again=True)
        # The number of this conversation's newest STATE, and of the newest of all; of the newest
        # override that the player knows of, and the latter as it was when the player last moved.
        self._number = self._newest = 0
        self._knows = self._knew = 0.0
        self._owes = 0

    @property
    def wake_at(self) -> float:
        """When it does something next by itself."""
        return self.client.wake_at if self.awake else math.inf

    @property
    def is_turned_away(self) -> bool:
        """Whether there is no place for its player."""
        ended = self.client.ended_by
        return isinstance(ended, Refused) and ended.reason == RefusedReason.FULL

    def turn(self) -> None:
        """Send what is due."""
        if self.wake_at <= self._world.now:
            for message in self.client.due(self._world.now):
                self._send(message)
            self._check(not self._owes or self.client.phase is Phase.JOINING, "is not answered")

    def play(self, values: Values) -> None:
        """Move, or join in order to."""
        client, now = self.client, self._world.now
        if client.phase is Phase.GONE:
            self.join()
        elif client.phase is not Phase.LEAVING and client.sequence < MAX_SEQUENCE - 2:
            self._knew = self._knows
            message = client.move(values, now)
            if message is not None:
                self._world.note("device of", self.session_id, "moves", client.sequence)
                self._send(message)

    def join(self) -> None:
        """Join, beginning anew."""
        self._world.note("device of", self.session_id, "joins")
        self.client.join(self._world.now)

    def leave(self) -> None:
        """Leave the game."""
        self._world.note("device of", self.session_id, "leaves")
        if self.client.phase in (Phase.JOINING, Phase.ONLINE):
            self.client.leave(self._world.now)

    def wander(self, address: Address) -> None:
        """Go on from another address."""
        self.address = address
        self.client.reconnect(self._world.now)

    def _send(self, message: bytes) -> None:
        client = self.client
        if message[0] == JOIN:
            self._intents.joins(self.session_id, client.nonce)
        elif message[0] in (MOVE, DELTA):
            intent = Intent(self._intents.moved(client.values), self._knew)
            self._intents.sent(self.session_id, client.nonce, client.sequence, intent)
        elif message[0] == SEEN:
            number, sequence = _SEEN.unpack_from(message)
            self._check(number == self._owes, "answers", number, "instead of", self._owes)
            self._world.note("device of", self.session_id, "has seen", number, sequence)
            self._owes = 0
        head = _HEAD.pack(self.session_id, client.nonce)
        self._network.send(head + message, self.address)

    def received(self, packet: bytes) -> None:
        """A datagram arrives; one of an earlier conversation is ignored, as by a link."""
        client, now = self.client, self._world.now
        if not self.awake or _HEAD.unpack_from(packet)[1] != client.nonce:
            return
        phase, before = client.phase, client.values
        client.received(packet[_HEAD.size :], now)
        message = self._codec.decode_server(packet[_HEAD.size :])
        if isinstance(message, State) and phase in (Phase.ONLINE, Phase.LEAVING):
            self._took_state(message, before)
        elif isinstance(message, Welcome) and phase is Phase.JOINING is not client.phase:
            self._took_welcome(message, before)
        self.turn()

    def _took_state(self, state: State, before: Values) -> None:
        """The client has taken this in; its values were these."""
        values = before
        if state.number >= self._number:
            self._number = self._owes = state.number
        if state.number == self._number != self._newest:
            self._newest = state.number
            values = state.values
            if state.is_override:
                self._knows = self._knew = state.number
            else:
                values = self._put(self._intents.moved(before), state.values)
            self._world.note("device of", self.session_id, "gets", state)
        found = self.client.values
        self._check(found == values, "is at", found, "instead of", values, "after", state)

    def _took_welcome(self, welcome: Welcome, before: Values) -> None:
        """The client is in, at the server's state or going on from its own."""
        values, client = welcome.values, self.client
        # A server that has lost states tells lower numbers.
        self._owes = self._number = 0
        if welcome.is_override:
            self._newest = welcome.updated_at
        if client.sequence == client._first:
            self._knows = self._knew = max(self._knows, welcome.updated_at)
        else:
            values = self._put(self._intents.moved(before), values)
        self._world.note("device of", self.session_id, "is welcome at", client.values)
        self._check(client.values == values, "is at", client.values, "instead of", values)

    def _put(self, moved: Values, values: Values) -> Values:
        """A state with these as the client's part."""
        parts = iter(moved)
        return tuple(
            value if field.is_server_owned else next(parts)
            for field, value in zip(self._schema.fields, values, strict=True)
        )

    def _check(self, holds: bool, *what: object) -> None:
        self._world.check(holds, "the device of", self.session_id, *what)


class Devices:
    """All devices: their players play, leave them, and come back to them.

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
        self.all = [
            Device(world, model, network, schema, session_id, ("10.0.1.1", 3000 + number))
            for number, session_id in enumerate(plan.devices)
        ]
        actions: dict[Callable[[], None], float] = {
            self.play: 10.0,
            self.play_all: 3.0,
            self.leave: 0.3,
            self.restart: 0.2,
            self.sleep: 0.3,
            self.wake: 0.7,
            self.wander: 0.3,
        }
        self.weights = actions if self.all else {}

    def _one(self) -> Device:
        return self._random.choice(self.all)

    def one_each(self) -> list[Device]:
        """Wake one device of each player; the others sleep from now on."""
        last = {device.session_id: device for device in self.all}
        for device in self.all:
            device.awake = device is last[device.session_id]
        return list(last.values())

    def next_due(self) -> float:
        """When one of them does something next by itself."""
        return min((device.wake_at for device in self.all), default=math.inf)

    def turn(self) -> bool:
        """Let those send who have something to send; whether there were any."""
        due = [device for device in self.all if device.wake_at <= self._world.now]
        for device in due:
            device.turn()
        return bool(due)

    def received(self, packet: bytes, address: Address) -> bool:
        """A packet of the server's reaches an address; whether a device is there."""
        here = [device for device in self.all if device.address == address]
        for device in here:
            device.received(packet)
        return bool(here)

    def _play(self, device: Device) -> None:
        if device.awake:
            device.play(self._model.some_values(device.session_id))

    def play(self) -> None:
        """Move, a few times."""
        device = self._one()
        for _ in range(self._random.choice((1, 1, 2, 5))):
            self._play(device)

    def play_all(self) -> None:
        """All move at the same time."""
        for device in self.all:
            self._play(device)

    def leave(self) -> None:
        """A player leaves."""
        device = self._one()
        if device.awake:
            device.leave()

    def restart(self) -> None:
        """A player's program is started anew."""
        device = self._one()
        self._world.note("device of", device.session_id, "is started anew")
        device.restart()

    def sleep(self) -> None:
        """A device sleeps, and hears nothing."""
        device = self._one()
        self._world.note("device of", device.session_id, "sleeps")
        device.awake = False

    def wake(self) -> None:
        """A device wakes, and goes on as if nothing had been."""
        device = self._one()
        device.awake = True

    def wander(self) -> None:
        """A device is at another address."""
        device = self._one()
        host, port = device.address
        device.wander((host, 3000 + (port + 1000 - 3000) % 2000))
