"""What the server may send: every packet must have a reason."""

from __future__ import annotations

import struct
from collections.abc import Callable

from playerstate.conversations.gateway import Gateway
from playerstate.conversations.pace import SEND_EVERY
from playerstate.conversations.states import LONGEST_GAP
from playerstate.testing import Address
from playerstate.wire.messages import (
    Codec,
    Gone,
    GoneReason,
    Receipt,
    Refused,
    RefusedReason,
    State,
    Welcome,
)
from tests.proof.simulation.conversations import (
    Asked,
    Conversation,
    Conversations,
    costs_of_state,
)
from tests.proof.simulation.model import Model
from tests.proof.simulation.players import Player
from tests.proof.simulation.world import World

_HEAD = struct.Struct("<QI")


class Answers:
    """Judges what the server sends.

    Args:
        world, model, talks: of the run.
        gateway: the real one.
        pass_on: is given what was sent, after it was judged.
    """

    def __init__(
        self,
        world: World,
        model: Model,
        talks: Conversations,
        gateway: Gateway,
        pass_on: Callable[[bytes, Address], None],
    ) -> None:
        self._world = world
        self._model = model
        self._talks = talks
        self._gateway = gateway
        self._table = gateway.service.table
        self._codec = Codec(gateway.service.schema)
        self._costs = costs_of_state(self._codec)
        self._pass_on = pass_on

    def wrote(self, packet: bytes, address: Address) -> None:
        """The server sends this; whatever it is, it must have a reason."""
        session_id, nonce = _HEAD.unpack_from(packet)
        message = self._codec.decode_server(packet[_HEAD.size :])
        self._talks.answers.append(message)
        player, talk = self._model.players[session_id], self._talks.named(session_id, nonce)
        if isinstance(message, Welcome):
            self._wrote_welcome(player, message, address, len(packet) - 12)
        elif isinstance(message, Refused):
            self._wrote_refused(player, message, address, len(packet) - 12)
        elif isinstance(message, Receipt):
            self._wrote_receipt(player, message, nonce, address)
        elif isinstance(message, State):
            self._wrote_state(player, message, nonce, address)
        else:
            self._wrote_gone(player, message, address)
        self._world.check(getattr(message, "nonce", nonce) == nonce, "a nonce of another:", message)
        talk = talk or self._talks.named(session_id, nonce)
        # A REFUSED is paid for by the JOIN that it answers, whatever conversation there is.
        if talk is not None and not isinstance(message, Refused):
            talk.bytes_left -= len(packet)
            left = talk.bytes_left
            self._world.check(left >= 0, "player", session_id, "gets", -left, "bytes too many")
        self._pass_on(packet, address)

    def _request(self, player: Player, nonce: int, address: Address, size: int) -> Asked:
        """The JOIN that this answers."""
        asked = (
            self._talks.joining.get(player.session_id)
            if self._talks.asked is None
            else self._talks.asked
        )
        self._world.check(
            asked is not None and (asked.nonce, asked.address) == (nonce, address),
            *("player", player.session_id, "at", address, "did not ask for", nonce),
        )
        assert asked is not None
        self._world.check(size <= asked.size, "an answer of", size, "bytes to", asked.size)
        return asked

    def _wrote_welcome(self, player: Player, message: Welcome, address: Address, size: int) -> None:
        session_id = player.session_id
        asked = self._request(player, message.nonce, address, size)
        if asked.fresh:
            before = self._talks.current.get(session_id)
            self._world.check(
                before is None or before.address == address,
                *("player", session_id, "was not told of joining elsewhere"),
            )
            slot = self._table.slots[session_id]
            self._model.enter(player, asked.sequence, slot, self._table, asked.again)
            player.came_by = "join"
            talk = self._talks.current[session_id] = Conversation(
                address,
                asked.nonce,
                asked.sequence,
                slot,
                self._world.now,
                message.secret,
                asked.replaced,
            )
            talk.pay_for(asked.size, self._codec)
            if player.unseen:
                talk.change(player.updated_at, True)
            self._talks.joining.pop(session_id, None)
            self._talks.departed.pop(session_id, None)
            shown = (asked.nonce, asked.sequence, asked.sequence)
            self._talks.last_receipt[session_id] = shown
        self._model.check_joined(player, message.values, message.restored, message.updated_at)

    def _wrote_refused(self, player: Player, message: Refused, address: Address, size: int) -> None:
        self._request(player, message.nonce, address, size)
        if self._talks.asked is None:
            del self._talks.joining[player.session_id]
            self._model.counts.joins_refused["store"] += 1
            self._world.check(message.reason == RefusedReason.STORE, "refused:", message)

    def _wrote_receipt(
        self, player: Player, message: Receipt, nonce: int, address: Address
    ) -> None:
        session_id = player.session_id
        talk = self._talks.current.get(session_id) or self._talks.departed.get(session_id)
        name = ("a receipt for player", session_id)
        right = talk is not None and (talk.address, talk.nonce) == (address, nonce)
        self._world.check(right, *name, "went to", address, nonce)
        assert talk is not None
        if session_id in self._talks.current:
            self._world.check(
                message.applied == player.sequence, *name, message, "not of", player.sequence
            )
            self._model.check_saved(player, message.saved)
            self._note_base(player, talk, message.applied)
            self._pay(talk, name)
        self._talks.last_receipt[session_id] = (talk.nonce, message.applied, message.saved)

    def _pay(self, talk: Conversation, name: tuple[object, ...]) -> None:
        """A RECEIPT is paid for by what came from where it goes; not much is kept in hand."""
        if talk.paid >= 1.0:
            talk.paid = min(talk.paid, 2.0 + self._costs) - 1.0
        else:
            self._world.check(talk.leaving and not talk.told, *name, "is not paid for")
            talk.told = True

    def _wrote_state(self, player: Player, message: State, nonce: int, address: Address) -> None:
        talk, world = self._talks.current.get(player.session_id), self._world
        name = ("player", player.session_id, "at", address, "gets", message)
        right = talk is not None and (talk.address, talk.nonce) == (address, nonce)
        world.check(right, *name, "having", talk)
        assert talk is not None
        due = (message.number, message.is_override, message.values)
        must = (talk.number, talk.override > 0, player.values)
        world.check(due == must and talk.number > 0, *name, "instead of", must)
        world.check(world.now > talk.state_due - 1e-6, *name, "after", talk.state_at)
        talk.state_at = world.now
        talk.gap = min(max(2 * talk.gap, SEND_EVERY), LONGEST_GAP * SEND_EVERY)
        if talk.states_paid >= 1.0:
            talk.states_paid -= 1.0
        else:
            world.check(talk.paid >= self._costs - 1e-6, *name, "which is not paid for:", talk.paid)
            talk.paid = min(talk.paid, 2.0 + self._costs) - self._costs
        if talk.numbers[-1:] != [message.number]:
            world.check(message.number > max(talk.numbers, default=0), *name, "after", talk.numbers)
            talk.numbers.append(message.number)
        self._model.counts.states += 1

    def _note_base(self, player: Player, talk: Conversation, applied: int) -> None:
        """A MOVE's state that is shown as applied is a base from now on, of which two are kept."""
        if player.slot != talk.slot or player.came_by != "move":
            return
        if not talk.bases or talk.bases[-1][0] != applied:
            talk.bases = [*talk.bases, (applied, player.values)][-2:]

    def _wrote_gone(self, player: Player, message: Gone, address: Address) -> None:
        session_id, world, asked = player.session_id, self._world, self._talks.asked
        if asked is not None and not asked.fresh:
            here = (asked.nonce, asked.address) == (message.nonce, address)
            world.check(here, "player", session_id, "at", address, "gets", message, "to", asked)
            return
        talk = self._talks.current.pop(session_id, None)
        name = ("player", session_id, "at", address, "gets", message)
        world.check(
            talk is not None and (talk.nonce, talk.address) == (message.nonce, address),
            *(*name, "having", talk),
        )
        assert talk is not None
        self._talks.end(player, talk)
        if message.reason == GoneReason.IDLE:
            silent = world.now - talk.heard
            world.check(silent >= self._gateway.idle_timeout - 1e-6, *name, "after", silent)
            self._model.leave(player)
        elif message.reason == GoneReason.KICKED:
            unsaved = talk.leaving and player.given_up >= talk.target
            allowed = session_id in self._talks.kicking or unsaved or self._model.lost_allowed
            world.check(allowed, *name, "for nothing")
        elif message.reason == GoneReason.JOINED_ELSEWHERE:
            asked = self._talks.asked or self._talks.joining.get(session_id)
            world.check(asked is not None and asked.address != address, *name, "for nothing")
        else:
            world.check(self._talks.closing, *name, "while the server runs")
            self._talks.departed[session_id] = talk
