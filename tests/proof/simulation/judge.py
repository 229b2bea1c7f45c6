"""What each datagram must do: the rules of the wire format once more.

A datagram that reaches the server is judged here first; then the server gets it, and what it
answers is compared.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import attrs

from playerstate.arguments import MAX_SEQUENCE
from playerstate.conversations.gateway import Gateway
from playerstate.conversations.pace import SEND_EVERY
from playerstate.testing import Address
from playerstate.wire.messages import (
    DELTA,
    JOIN,
    LEAVE,
    MAX_JOIN_SIZE,
    MOVE,
    PING,
    SEEN,
    STATES_PAID,
    VERSION,
    Codec,
    Gone,
    GoneReason,
    Receipt,
    Refused,
    RefusedReason,
    Welcome,
)
from tests.kit.players import run_of
from tests.proof.simulation.conversations import (
    HEAD,
    OVERHEAD,
    UNASKED,
    Asked,
    Conversation,
    Conversations,
)
from tests.proof.simulation.model import Model
from tests.proof.simulation.move_judge import verdict
from tests.proof.simulation.players import Player, Values
from tests.proof.simulation.world import World

MAX_DATAGRAM = 12 + MAX_JOIN_SIZE
_ID = struct.Struct("<Q")
_HEAD = struct.Struct("<QI")
_JOIN = struct.Struct("<BBIIIQ")
_NUMBERED = struct.Struct("<BI")
_SEEN = struct.Struct("<BQI")


class Judge:
    """Judges what clients send.

    Args:
        world, model, talks: of the run.
        gateway: the real one.
        loads: what became of loads since this was last cleared, from the store.
        judged: see `tests.proof.simulation.move_judge.verdict`.
    """

    def __init__(
        self,
        world: World,
        model: Model,
        talks: Conversations,
        gateway: Gateway,
        loads: list[str],
        judged: int,
    ) -> None:
        self._world = world
        self._model = model
        self._talks = talks
        self._registry = run_of(gateway).registry
        self._table = gateway.service.table
        self._schema = gateway.service.schema
        self._codec = Codec(self._schema)
        self._loads = loads
        self._judged = judged

    def is_unanswered(self, datagram: bytes) -> bool:
        """Whether it is a MOVE, a DELTA or a SEEN, which may be delivered with others."""
        return len(datagram) > 12 and datagram[12] in (MOVE, DELTA, SEEN)

    def deliver_together(
        self, datagrams: list[bytes], addresses: list[Address], receive: Callable[..., None]
    ) -> None:
        """Judge messages one after the other, let the server have them together, and compare."""
        self._prepare()
        for datagram, address in zip(datagrams, addresses, strict=True):
            self._judge(datagram, address)
        receive(datagrams, addresses)
        self._world.check(not self._talks.answers, "answered", self._talks.answers, "to", datagrams)

    def _prepare(self) -> None:
        self._model.look(self._table)
        self._talks.look()
        self._talks.answers = []
        self._loads.clear()

    def deliver(self, datagram: bytes, address: Address, receive: Callable[..., None]) -> None:
        """Judge a datagram, let the server have it, and compare."""
        self._prepare()
        expected = self._judge(datagram, address)
        receive(datagram, address)
        if self._talks.asked is not None and self._talks.asked.fresh:
            expected = self._fresh_join(_ID.unpack_from(datagram)[0], self._talks.asked)
        self._talks.asked = None
        if expected is not None:
            self._world.check(
                self._talks.answers == expected,
                *("answered", self._talks.answers, "instead of", expected, "to", datagram.hex()),
            )

    def _judge(self, datagram: bytes, address: Address) -> list[object] | None:
        """What a datagram must do; its exact answers, or None where they are for `wrote`."""
        counts = self._model.counts
        if len(datagram) < 13:
            return counts.malform("too_short")
        if len(datagram) > MAX_DATAGRAM:
            return counts.malform("too_long")
        session_id, nonce = _HEAD.unpack_from(datagram)
        if not 1 <= session_id < 2**63:
            return counts.malform("session_id")
        message = datagram[12:]
        kind = message[0]
        if kind not in (MOVE, JOIN, LEAVE, PING, DELTA, SEEN):
            return counts.malform("unknown_type")
        player = self._model.players[session_id]
        if kind in (MOVE, DELTA):
            return self._judge_update(player, address, nonce, message)
        if kind == JOIN:
            return self._judge_join(player, address, message)
        if kind == SEEN:
            return self._judge_seen(player, address, nonce, message)
        size = 36 if kind == LEAVE else min(max(len(message), 9), MAX_JOIN_SIZE)
        if len(message) != size:
            return counts.malform(_length(len(message), size))
        sequence = _NUMBERED.unpack_from(message)[1]
        return self._judge_numbered(player, address, nonce, kind, sequence, size)

    def _judge_update(
        self, player: Player, address: Address, nonce: int, message: bytes
    ) -> list[object]:
        counts, talk = self._model.counts, self._talks.current.get(player.session_id)
        if talk is None:
            return counts.refuse("not_joined")
        if talk.address != address:
            return counts.refuse("other_address")
        if talk.nonce != nonce:
            return counts.refuse("other_conversation")
        # What is malformed pays for nothing; all else that came from there does.
        malformed = counts.malformed.total()
        answers = self._judge_known(player, talk, message)
        if counts.malformed.total() == malformed:
            size = len(message)
            talk.paid += _receipts_for(size)
            talk.bytes_left += HEAD + size
        return answers

    def _judge_seen(
        self, player: Player, address: Address, nonce: int, message: bytes
    ) -> list[object]:
        counts, session_id = self._model.counts, player.session_id
        size = max(_SEEN.size, self._codec.state_size)
        if len(message) != size:
            return counts.malform(_length(len(message), size))
        _, number, sequence = _SEEN.unpack_from(message)
        if sequence == MAX_SEQUENCE:
            return counts.malform("value")
        talk = self._talks.current.get(session_id)
        if talk is None:
            return counts.outdate() if self._is_departed(player) else counts.refuse("not_joined")
        if talk.address != address:
            return counts.refuse("other_address")
        if talk.nonce != nonce:
            return counts.refuse("other_conversation")
        if sequence < talk.first:
            return counts.outdate()
        if not talk.knows(number):
            return counts.malform("value")
        self._check_there(player, talk)
        talk.bytes_left += HEAD + size
        self._talks.seen(player, talk, number, sequence)
        talk.used = True
        self._talks.hear(talk)
        return []

    def _is_departed(self, player: Player) -> bool:
        return player.session_id in self._registry.departed

    def _judge_known(self, player: Player, talk: Conversation, message: bytes) -> list[object]:
        if message[0] == DELTA:
            return self._judge_delta(player, talk, message)
        return self._judge_move(player, talk, message)

    def _judge_delta(self, player: Player, talk: Conversation, message: bytes) -> list[object]:
        """A DELTA, for the states that are used here: all fields are steps, or none is."""
        counts, low = self._model.counts, int.from_bytes(message[1:3], "little")
        steps: list[int] = []
        if self._schema.fields[0].kind.resolution is None:
            wrong = len(message) - 4 - self._schema.moved.struct.size
        else:
            steps, wrong = _steps(message[4:], len(self._schema.moved.fields))
        if wrong:
            return counts.malform("too_short" if wrong < 0 else "too_long")
        lowest = player.sequence - 2**15
        sequence = lowest + (low - lowest) % 2**16
        if sequence > MAX_SEQUENCE:
            return counts.malform("value")
        if sequence <= player.sequence:
            return self._take(player, talk, sequence, (), "delta")
        found = [
            values
            for number, values in talk.bases
            if number % 256 == message[3] and 0 < sequence - number < 256
        ]
        if not found:
            return counts.refuse("unknown_base")
        values = (
            tuple(
                value + 0.25 * step
                for value, step in zip(self._model.intents.moved(found[-1]), steps, strict=True)
            )
            if steps
            else self._schema.moved.struct.unpack_from(message, 4)
        )
        if not all(map(math.isfinite, values[:2])):
            return counts.malform("value")
        return self._take(player, talk, sequence, values, "delta")

    def _judge_move(self, player: Player, talk: Conversation, message: bytes) -> list[object]:
        counts = self._model.counts
        if len(message) != self._codec.move_size:
            return counts.malform(_length(len(message), self._codec.move_size))
        sequence = _NUMBERED.unpack_from(message)[1]
        values = self._schema.moved.struct.unpack_from(message, 5)
        if not all(map(math.isfinite, values[:2])):
            return counts.malform("value")
        return self._take(player, talk, sequence, values, "move")

    def _take(
        self, player: Player, talk: Conversation, sequence: int, values: Values, came_by: str
    ) -> list[object]:
        counts = self._model.counts
        if sequence > talk.limit:
            return counts.refuse("leaving")
        if talk.override:
            self._talks.hear(talk)
            return counts.refuse("not_seen")
        if self._talks.stopping:
            return counts.refuse("stopping")
        self._check_there(player, talk)
        if sequence <= player.sequence:
            counts.outdate()
        elif reason := verdict(values[0], self._judged):
            counts.refuse(reason)
            if not talk.leaving:
                self._model.put_back(player)
                self._talks.changed(player, True)
        else:
            if not talk.is_renumbered:
                self._model.intents.check(player, talk.nonce, sequence, values)
            self._model.apply(player, sequence, self._whole(player, values), came_by)
        self._talks.hear(talk)
        return []

    def _whole(self, player: Player, moved: Values) -> Values:
        """The state after a move: what the server owns is as it was."""
        values = iter(moved)
        return tuple(
            old if field.is_server_owned else next(values)
            for field, old in zip(self._schema.fields, player.values, strict=True)
        )

    def _check_there(self, player: Player, talk: Conversation) -> None:
        """A conversation ends before its player's slot is another's."""
        there = player.slot == talk.slot and (talk.leaving or not player.leaving)
        self._world.check(there, "player", player.session_id, "talks without being online")

    def _judge_numbered(
        self, player: Player, address: Address, nonce: int, kind: int, sequence: int, size: int
    ) -> list[object] | None:
        counts, session_id = self._model.counts, player.session_id
        talk = self._talks.current.get(session_id)
        departed = None if talk is not None else self._registry.departed.get(session_id)
        if departed is not None:
            talk = self._talks.departed[session_id]
        if talk is None:
            return counts.refuse("not_joined")
        if talk.address != address:
            return counts.refuse("other_address")
        if talk.nonce != nonce:
            return counts.refuse("other_conversation")
        if sequence < talk.first:
            return counts.outdate()
        talk.bytes_left += HEAD + size
        if departed is not None:
            if self._world.now - talk.answered < SEND_EVERY:
                return []
            talk.answered = self._world.now
            return [Receipt(*self._talks.last_receipt[session_id][1:])]
        self._check_there(player, talk)
        talk.used = True
        talk.paid += 1.0 if kind == LEAVE else _receipts_for(size)
        if kind == LEAVE and not talk.leaving:
            talk.limit = sequence
            talk.limit = sequence
            self._talks.leave(session_id, talk)
        else:
            self._talks.hear(talk)
        return None

    def _judge_join(self, player: Player, address: Address, message: bytes) -> list[object] | None:
        counts, size = self._model.counts, len(message)
        if size < _JOIN.size or size > MAX_JOIN_SIZE:
            return counts.malform(_length(size, _JOIN.size))
        _, version, fingerprint, nonce, sequence, secret = _JOIN.unpack_from(message)
        if sequence == MAX_SEQUENCE:
            return counts.malform("value")
        session_id, refused = player.session_id, None
        if version != VERSION:
            refused = RefusedReason.VERSION
        elif fingerprint not in (0, self._schema.fingerprint):
            refused = RefusedReason.FINGERPRINT
        elif self._talks.closing:
            refused = RefusedReason.SHUTTING_DOWN
        elif not self._talks.has_room(session_id):
            refused = RefusedReason.FULL
        if refused is not None:
            counts.joins_refused[refused.name.lower()] += 1
            self._talks.asked = Asked(address, nonce, sequence, size, fresh=False)
            return [Refused(nonce, refused)]
        states = STATES_PAID * (self._codec.state_size + OVERHEAD)
        if size < self._codec.welcome_size + UNASKED + states:
            return counts.malform("too_short")
        talk = self._talks.current.get(session_id)
        if talk is not None and talk.nonce == nonce:
            self._check_there(player, talk)
            if talk.address != address:
                if (talk.used or player.sequence != talk.first) and secret != talk.secret:
                    return counts.refuse("other_address")
                talk.address = address
                talk.pay_for(size, self._codec)
            else:
                talk.bytes_left += HEAD + size
            self._talks.hear(talk)
            self._talks.asked = Asked(address, nonce, sequence, size, fresh=False)
            return [self._welcome(player, nonce, talk.secret)]
        joining = self._talks.joining.get(session_id)
        if joining is not None and joining.nonce == nonce:
            self._talks.joining[session_id] = attrs.evolve(joining, address=address)
            return []
        if secret:
            return counts.refuse("not_joined")
        replaced = self._talks.replaced(session_id, nonce)
        departed = self._registry.departed.get(session_id)
        is_over = departed is not None and self._talks.departed[session_id].nonce == nonce
        if is_over:
            return counts.outdate()
        if any(each == nonce for each, _ in replaced):
            counts.outdate()
            self._talks.asked = Asked(address, nonce, sequence, size, fresh=False)
            return [Gone(nonce, GoneReason.JOINED_ELSEWHERE)]
        self._talks.joining.pop(session_id, None)
        before = self._talks.began_before(session_id, nonce)
        if before is not None:
            sequence = max(sequence, before.sequence)
        again = before is not None
        asked = Asked(address, nonce, sequence, size, replaced=replaced, again=again)
        self._talks.asked = asked
        return None

    def _fresh_join(self, session_id: int, asked: Asked) -> list[object] | None:
        """What a fresh JOIN must have been answered, now that its load is known."""
        player = self._model.players[session_id]
        if self._model.recovering or self._loads == ["failed"]:
            self._model.counts.joins_refused["store"] += 1
            return [Refused(asked.nonce, RefusedReason.STORE)]
        waits = self._loads == ["waits"] or (not self._loads and player.slot is None)
        if waits:
            self._talks.joining[session_id] = asked
            return []
        # Each GONE was judged when it was sent; the WELCOME comes last.
        gone = [answer for answer in self._talks.answers if isinstance(answer, Gone)]
        secret = self._talks.current[session_id].secret
        return [*gone, self._welcome(player, asked.nonce, secret)]

    def _welcome(self, player: Player, nonce: int, secret: int) -> Welcome:
        restored = player.updated_at != 0
        return Welcome(
            restored, nonce, player.updated_at, player.values, secret, player.is_overridden
        )


def _receipts_for(size: int) -> float:
    """How many RECEIPTs a message of this many bytes pays for."""
    return (size + 18) / 27 if size >= 9 else (size + 12) / 21


def _steps(data: bytes, count: int) -> tuple[list[int], int]:
    """So many zigzag varints; how many bytes are too many, or -1 where there are too few."""
    steps, number, shift = [], 0, 0
    for place, byte in enumerate(data):
        if len(steps) == count:
            return steps, len(data) - place
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            steps.append(-(number // 2) - 1 if number % 2 else number // 2)
            number = shift = 0
    return steps, 0 if len(steps) == count else -1


def _length(size: int, right: int) -> str:
    return "too_short" if size < right else "too_long"
