"""Players' conversations: JOIN, moves, receipts, LEAVE.

The gateway stands between transports, which know addresses, and the service, which knows players.
To it a *peer* is a token that a transport gave it: it is compared, handed back for sending, and
never looked into.  Reactor thread only.

A player has at most one conversation, named by the nonce of its JOIN.  It ends by a LEAVE that is
saved, by idleness, by a JOIN with another nonce, by `Gateway.kick`, or with the gateway.
"""

from __future__ import annotations

import math
import random
import secrets
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Any

import attrs
import numpy as np
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from playerstate.arguments import check_seconds, check_session_id
from playerstate.conversations.conversation import Conversation, Replaced, Transport
from playerstate.conversations.receipts import RECEIPT_EVERY, TICK, Receipts
from playerstate.interfaces import StoreBusy
from playerstate.ledger import count
from playerstate.log import PrintableLogger
from playerstate.players.leaves import Progress
from playerstate.players.service import (
    Joined,
    NotOnline,
    NotRunning,
    PlayerStateService,
    ServerFull,
)
from playerstate.saving.commit import NotSaved
from playerstate.waiters import Waiters, tell
from playerstate.wire.deltas import Delta, DeltaCodec
from playerstate.wire.messages import (
    DELTA,
    JOIN,
    LEAVE,
    MAX_SEQUENCE,
    MOVE,
    PING,
    VERSION,
    Codec,
    GoneReason,
    Join,
    Malformed,
    RefusedReason,
    decode_join,
    decode_numbered,
    encode_gone,
    encode_receipt,
    encode_refused,
    receipts_for,
)

LINGER = 5.0
"""Seconds for which one who left is still answered with the last receipt."""
IDLE_LOOK_EVERY = 1.0
STOOD_STILL = 1.0
"""Seconds between two ticks after which the process is taken to have been stopped."""
MANY = 16
"""So many messages that came at the same time are worth the fixed costs of numpy."""
JOIN_ERROR_TOLD_EVERY = 60.0

REPLACED_KEPT = 8
"""Nonces of each player's replaced conversations that are known, so that a JOIN that comes late
does not take the player back from a newer one."""
REPLACED_FOR = 60.0
"""Seconds for which they are known; no datagram is on its way for longer."""

_UPDATES = (MOVE, DELTA)
_NOT_LEFT = (NotSaved, NotOnline, NotRunning, CancelledError)
"""Why a leave may come to nothing here."""
_log = PrintableLogger()


def draw_secret() -> int:
    """64 random bits that are not all 0."""
    return secrets.randbelow(2**64 - 1) + 1


def _are_equal(secret: int, other: int) -> bool:
    """Whether two secrets are equal, in a time that does not tell how far."""
    return secrets.compare_digest(secret.to_bytes(8, "little"), other.to_bytes(8, "little"))


@attrs.define(eq=False)
class _Joining:
    """A JOIN that waits for the store, and where it came from last: by which transport, and whence.

    The two belong together: a peer means nothing to another transport than its own.
    """

    join: Join
    transport: Transport
    peer: Any
    replaced: Replaced
    joined: Deferred[Joined]


@attrs.define(eq=False)
class _Departed:
    """A conversation that ended with a saved LEAVE, still answered for a while."""

    conversation: Conversation
    receipt: bytes
    until: float
    answered_at: float = -math.inf


class Gateway:
    """All conversations of one service.

    Args:
        service: the players' service; started before `start`.
        idle_timeout: seconds without a word after which a player is taken to have left.
        jitter: a number from 0 to 1, to spread receipts over time.
        draw_secret: a number of 64 bits, not 0, that nobody can guess, another each time.
    """

    def __init__(
        self,
        service: PlayerStateService,
        *,
        idle_timeout: float = 30.0,
        jitter: Callable[[], float] = random.random,
        draw_secret: Callable[[], int] = draw_secret,
    ) -> None:
        self.service = service
        self.idle_timeout = check_seconds("idle_timeout", idle_timeout, 0.1, 86_400.0)
        self._jitter = jitter
        self._draw_secret = draw_secret
        self._codec = Codec(service.schema)
        self._deltas = DeltaCodec(service.schema)
        self._move_pays = receipts_for(self._codec.move_size)
        self._unpack_fields = service.schema.struct.unpack
        self._many = MANY
        self._is_open = self._closing = False
        self._closers: Waiters[None, None] = Waiters()

    def start(self) -> None:
        """Begin to answer; harmless when another transport of this gateway had it begin."""
        if self._is_open:
            return
        self._clock = self.service.clock
        self._table = self.service.table
        self._ledger = self.service.ledger
        self._conversations: dict[int, Conversation] = {}
        self._joining: dict[int, _Joining] = {}
        self._leaving: dict[Conversation, Deferred[Progress]] = {}
        self._departed: dict[int, _Departed] = {}
        self._at_slot: dict[int, Conversation] = {}
        self._receipts = Receipts(
            self.service.schema, self._table, self._ledger, self._clock.seconds, self._jitter
        )
        # Infinite where there is no conversation.  An array's elements are set faster than
        # numpy's, and this is set with every move.
        self._heard = array("d", [math.inf]) * self._table.room
        self._heard_at = np.frombuffer(self._heard, np.float64)
        self._now = self._clock.seconds()
        self._stood_still = False
        self._join_error_told_at = -math.inf
        self._is_open, self._closing = True, False
        self._repetitions = [
            self._clock.every(TICK, self._tick),
            self._clock.every(min(IDLE_LOOK_EVERY, self.idle_timeout / 4), self._evict_idle),
        ]

    def close(self) -> Deferred[None]:
        """Take every player offline, saved, with a last receipt and word that the server stops.

        Transports that share a gateway stop together: each calls this, and the first means all.

        Returns:
            A Deferred that fires when all are saved, or the service gave up on it.
        """
        if not self._is_open:
            return succeed(None)
        closed = self._closers.add(None)
        if not self._closing:
            self._closing = True
            self._take_offline()
        return closed

    def _take_offline(self) -> None:
        self.service.guard()
        joinings, self._joining = self._joining, {}
        for joining in joinings.values():
            joining.joined.cancel()
        waiting = []
        for conversation in list(self._conversations.values()):
            # Moves that went on would keep the newest state from ever being the saved one.
            conversation.limit = min(conversation.limit, self._table.sequence(conversation.slot))
            waiting.append(self._leave(conversation))
        DeferredList(waiting).addCallback(self._stop_ticking)

    def _stop_ticking(self, result: object) -> None:
        for repetition in self._repetitions:
            repetition.cancel()
        self._is_open = False
        tell(self._closers.take(), None)

    def kick(self, session_id: int) -> Deferred[Progress]:
        """End a player's conversation; the player is told, taken offline and saved.

        Returns:
            What `PlayerStateService.leave` returns.
        """
        session_id = check_session_id(session_id)
        conversation = self._conversations.get(session_id) if self._is_open else None
        if conversation is not None:
            self._end(conversation, GoneReason.KICKED)
        return self.service.leave(session_id)

    def lost(self, session_id: int, peer: Any, reason: GoneReason | None = None) -> None:
        """The transport knows that a peer is gone: its player leaves.

        Args:
            session_id: whose it was.
            peer: itself.
            reason: what to tell it, where it can still be reached; else it is told nothing.
        """
        joining = self._joining.get(session_id)
        if joining is not None and joining.peer == peer:
            del self._joining[session_id]
            joining.joined.cancel()
        conversation = self._conversations.get(session_id)
        if conversation is None or conversation.peer != peer:
            return
        is_here = self._is_live(conversation) and not conversation.leaving
        self._end(conversation, reason)
        if is_here:
            # What is not saved is in the log; there is nobody else to tell.
            left = self.service.leave(session_id)
            left.addErrback(lambda failure: failure.trap(*_NOT_LEFT))
            left.cancel()

    def malformed(self, reason: str, number: int = 1) -> None:
        """Count what cannot be read."""
        self._ledger.received += number
        count(self._ledger.malformed, reason, number)

    def received_many(
        self,
        transport: Transport,
        session_ids: Sequence[int],
        peers: Sequence[Any],
        messages: Sequence[bytes],
        at: int,
        nonces: Sequence[int] | None = None,
    ) -> None:
        """Do what `received` does for messages that came at the same time, in their order.

        Args:
            transport: by which all of them came.
            session_ids: whose each message is.
            peers: where each came from.
            messages: themselves.
            at: where each message begins.
            nonces: of the conversation that each message is of; None where a peer has no late ones.
        """
        left: Iterable[int] = range(len(messages))
        if len(messages) >= self._many:
            try:
                left = self._received_moves(session_ids, peers, messages, at, nonces)
            except Exception:  # what it applied is stale now, and the rest is not lost
                _log.failure("messages could not be taken in together")
        for taken_in, number in enumerate(left):
            if taken_in % MANY == 0:
                self.service.guard()
            try:
                nonce = None if nonces is None else nonces[number]
                self.received(
                    transport, session_ids[number], peers[number], messages[number], at, nonce
                )
            except Exception:  # one message's bug keeps nobody from taking in the next
                _log.failure("a message could not be taken in")

    def _received_moves(
        self,
        session_ids: Sequence[int],
        peers: Sequence[Any],
        messages: Sequence[bytes],
        at: int,
        nonces: Sequence[int] | None,
    ) -> Iterable[int]:
        """Apply the first MOVE of each player from whom nothing but MOVEs came, all at once.

        Whatever is unusual about a message is left to `received`, which knows what to do then; so
        are all where fewer than `MANY` remain.

        Returns:
            The numbers of the messages that are left.
        """
        numbers, size = range(len(messages)), at + self._codec.move_size
        firsts = dict(zip(reversed(session_ids), reversed(numbers), strict=True))
        for session_id, message in zip(session_ids, messages, strict=True):
            if len(message) != size or message[at] != MOVE:
                firsts.pop(session_id, None)
        slots_of, conversations = self._table.slots, self._conversations
        chosen, places = [], []
        for session_id, number in firsts.items():
            conversation = conversations.get(session_id)
            if (
                conversation is not None
                and conversation.peer == peers[number]
                and (nonces is None or conversation.nonce == nonces[number])
                and conversation.slot == slots_of.get(session_id)
            ):
                chosen.append(number)
                places.append(conversation.slot)
        if len(chosen) < self._many:
            return numbers
        moves = self._codec.decode_moves([messages[number] for number in chosen], at)
        slots = np.array(places, np.intp)
        applied = self.service.move_many(slots, moves["sequence"], moves["fields"])
        if not applied.all():
            slots = slots[applied]
            chosen = list(compress(chosen, applied.tolist()))
        self._heard_at[slots] = self._now
        self._receipts.paid_at[slots] += self._move_pays
        self._ledger.received += len(chosen)
        if len(chosen) == len(messages):
            return ()
        return sorted(set(numbers).difference(chosen))

    def received(
        self,
        transport: Transport,
        session_id: int,
        peer: Any,
        data: bytes,
        at: int,
        nonce: int | None = None,
    ) -> None:
        """Take in the message from `at` to the end of `data`, which is not empty.

        The service was guarded before.  Unless `nonce` is None, it names the conversation that the
        message is of.
        """
        kind = data[at]
        try:
            if kind in _UPDATES:
                conversation = self._conversations.get(session_id)
                if conversation is None:
                    self._refuse("not_joined")
                elif conversation.peer != peer:
                    self._refuse("other_address")
                elif nonce is not None and conversation.nonce != nonce:
                    self._refuse("other_conversation")
                elif kind == MOVE:
                    sequence, values = self._codec.decode_move(data, at)
                    self._receipts.paid[conversation.slot] += self._move_pays
                    self._move(conversation, sequence, values)
                else:
                    delta = self._deltas.decode(data, at)
                    self._receipts.paid[conversation.slot] += receipts_for(len(data) - at)
                    self._received_delta(conversation, delta)
            elif kind == JOIN:
                self._received_join(transport, session_id, peer, decode_join(data, at))
            elif kind in (LEAVE, PING):
                self._received_numbered(session_id, peer, nonce, kind, decode_numbered(data, at))
            else:
                raise Malformed("unknown_type")
        except Malformed as error:
            self.malformed(error.reason)

    def _move(self, conversation: Conversation, sequence: int, values: tuple[Any, ...]) -> None:
        if sequence > conversation.limit:
            return self._refuse("leaving")
        try:
            self.service.move(conversation.session_id, sequence, values)
        except NotOnline:
            self._end(conversation, GoneReason.KICKED)
            return self._refuse("not_joined")
        except NotRunning:
            return self._refuse("stopping")
        self._ledger.received += 1
        if not conversation.leaving:
            self._heard[conversation.slot] = self._now

    def _received_delta(self, conversation: Conversation, delta: Delta) -> None:
        if not self._is_live(conversation):
            self._end(conversation, GoneReason.KICKED)
            return self._refuse("not_joined")
        highest = self._table.sequence(conversation.slot)
        sequence = delta.sequence_after(highest)
        if sequence > MAX_SEQUENCE:
            raise Malformed("value")
        if sequence <= highest:
            # A stale one need not be restored, and may be of a base that is no more.
            return self._move(conversation, sequence, ())
        base = conversation.find_base(delta.base_of(sequence))
        if base is None:
            return self._refuse("unknown_base")
        values = self._deltas.restore(delta, self._unpack_fields(base))
        self._move(conversation, sequence, values)
        if self._table.sequence(conversation.slot) == sequence:
            # A state that stood on another is no base: an error would be handed on.
            self._table.not_moved[conversation.slot] = sequence

    def _received_numbered(
        self, session_id: int, peer: Any, nonce: int | None, kind: int, sequence: int
    ) -> None:
        conversation = self._conversations.get(session_id)
        if conversation is None:
            departed = self._departed.get(session_id)
            if departed is None:
                return self._refuse("not_joined")
            conversation = departed.conversation
        else:
            departed = None
        if conversation.peer != peer:
            return self._refuse("other_address")
        if nonce is not None and conversation.nonce != nonce:
            return self._refuse("other_conversation")
        if sequence < conversation.first:
            self._ledger.received += 1
            self._ledger.stale += 1
            return
        if departed is not None:
            now = self._clock.seconds()
            if now - departed.answered_at >= RECEIPT_EVERY:
                departed.answered_at = now
                self._ledger.receipts += 1
                conversation.send(departed.receipt)
        elif not self._is_live(conversation):
            self._end(conversation, GoneReason.KICKED)
            self._refuse("not_joined")
        elif kind == LEAVE and not conversation.leaving:
            # It is long enough for a second one, which `_left` sends.
            self._receipts.paid[conversation.slot] += 1.0
            conversation.is_used = True
            conversation.limit = sequence
            self._receipts.show(conversation)
            self._leave(conversation)
        else:
            conversation.is_used = True
            self._receipts.paid[conversation.slot] += 1.0
            if not conversation.leaving:
                self._heard[conversation.slot] = self._now
            self._receipts.answer(conversation, len(self._conversations))

    def _refuse(self, reason: str) -> None:
        self._ledger.received += 1
        count(self._ledger.refused, reason)

    def _received_join(self, transport: Transport, session_id: int, peer: Any, join: Join) -> None:
        def refuse(reason: RefusedReason) -> None:
            self._refuse_join(transport, session_id, peer, join.nonce, reason)

        current = self._conversations.get(session_id)
        if join.version != VERSION:
            return refuse(RefusedReason.VERSION)
        if join.fingerprint not in (0, self.service.schema.fingerprint):
            return refuse(RefusedReason.FINGERPRINT)
        if self._closing:
            return refuse(RefusedReason.SHUTTING_DOWN)
        if not self.service.has_room(session_id):
            return refuse(RefusedReason.FULL)
        if join.size < self._codec.join_size:
            raise Malformed("too_short")
        if current is not None and current.nonce == join.nonce and self._is_live(current):
            return self._repeat(current, transport, peer, join)
        before = self._joining.get(session_id)
        if before is not None and before.join.nonce == join.nonce:
            before.transport, before.peer = transport, peer
            return
        if join.secret:
            # It is to move a conversation that is no more, and not to begin another.
            return self._refuse("not_joined")
        replaced = self._replaced(session_id, join.nonce)
        departed = self._departed.get(session_id)
        is_over = departed is not None and departed.conversation.nonce == join.nonce
        if is_over or any(nonce == join.nonce for nonce, _ in replaced):
            # A duplicate from the network: that conversation is over.
            self._ledger.received += 1
            self._ledger.stale += 1
            return
        if before is not None:
            del self._joining[session_id]
            before.joined.cancel()
        waiting = self.service.join(session_id, sequence=join.sequence)
        joining = _Joining(join, transport, peer, replaced, waiting)
        if not waiting.called:
            self._joining[session_id] = joining
        asked = session_id, joining
        waiting.addCallbacks(self._joined, self._not_joined, callbackArgs=asked, errbackArgs=asked)

    def _joined(self, _: Joined, session_id: int, joining: _Joining) -> None:
        self._joining.pop(session_id, None)
        self._begin(session_id, joining)

    def _not_joined(self, failure: Failure, session_id: int, joining: _Joining) -> None:
        if failure.check(CancelledError) and session_id not in self._joining:
            return
        self._joining.pop(session_id, None)
        if failure.check(ServerFull):
            reason = RefusedReason.FULL
        elif failure.check(NotRunning):
            reason = RefusedReason.SHUTTING_DOWN
        else:
            reason = RefusedReason.STORE
            if not failure.check(StoreBusy):
                self._tell_join_error(session_id, failure)
        nonce = joining.join.nonce
        self._refuse_join(joining.transport, session_id, joining.peer, nonce, reason)

    def _refuse_join(
        self, transport: Transport, session_id: int, peer: Any, nonce: int, reason: RefusedReason
    ) -> None:
        count(self._ledger.joins_refused, reason.name.lower())
        transport.send(session_id, peer, nonce, encode_refused(nonce, reason))

    def _repeat(self, current: Conversation, transport: Transport, peer: Any, join: Join) -> None:
        """Welcome once more; from elsewhere only who has not played yet, or knows the secret."""
        if not current.is_at(transport, peer):
            is_unused = self._table.sequence(current.slot) == current.first and not current.is_used
            if not is_unused and not _are_equal(join.secret, current.secret):
                return self._refuse("other_address")
            current.transport, current.peer = transport, peer
            self._receipts.restart(current.slot)
        if not current.leaving:
            self._heard[current.slot] = self._now
        self._welcome(current)

    def _replaced(self, session_id: int, nonce: int) -> Replaced:
        """The nonces that a JOIN of this nonce replaces, or that were replaced before."""
        now = self._clock.seconds()
        replaced: Replaced = ()
        if (departed := self._departed.get(session_id)) is not None:
            replaced = departed.conversation.replaced
        if (current := self._conversations.get(session_id)) is not None:
            replaced = current.replaced
            if current.nonce != nonce:  # else the program took the player offline in between
                replaced = ((current.nonce, now), *replaced)
        if (joining := self._joining.get(session_id)) is not None:
            replaced = ((joining.join.nonce, now), *joining.replaced)
        return tuple(each for each in replaced if now - each[1] < REPLACED_FOR)[:REPLACED_KEPT]

    def _begin(self, session_id: int, joining: _Joining) -> None:
        join, transport, peer = joining.join, joining.transport, joining.peer
        before = self._conversations.get(session_id)
        if before is not None:
            elsewhere = not before.is_at(transport, peer)
            self._end(before, GoneReason.JOINED_ELSEWHERE if elsewhere else None)
        self._departed.pop(session_id, None)
        slot = self._table.slots[session_id]
        if (gone := self._at_slot.get(slot)) is not None:
            # The program that embeds the service took that player offline.
            self._end(gone, GoneReason.KICKED)
        secret = self._draw_secret()
        conversation = Conversation(
            session_id, transport, peer, join.nonce, join.sequence, slot, secret, joining.replaced
        )
        self._conversations[session_id] = self._at_slot[slot] = conversation
        self._table.not_moved[slot] = join.sequence
        self._receipts.begin(slot, join.sequence, len(self._conversations))
        if more := self._table.room - len(self._heard):
            self._heard = self._heard + array("d", [math.inf]) * more
            self._heard_at = np.frombuffer(self._heard, np.float64)
        self._heard[slot] = self._clock.seconds()
        self._welcome(conversation)

    def _welcome(self, conversation: Conversation) -> None:
        slot, nonce = conversation.slot, conversation.nonce
        values, updated_at = self._table.values(slot), self._table.updated_at(slot)
        conversation.send(
            self._codec.encode_welcome(nonce, updated_at, values, conversation.secret)
        )

    def _tell_join_error(self, session_id: int, failure: Failure) -> None:
        now = self._clock.seconds()
        if now - self._join_error_told_at >= JOIN_ERROR_TOLD_EVERY:
            self._join_error_told_at = now
            _log.failure("player {session_id} cannot join", failure, session_id=session_id)

    def _is_live(self, conversation: Conversation) -> bool:
        """Whether the service still has this player where the conversation began."""
        return self._table.slots.get(conversation.session_id) == conversation.slot

    def _end(self, conversation: Conversation, reason: GoneReason | None) -> None:
        """Forget a conversation, with a word to the player if there is a reason."""
        if self._conversations.get(conversation.session_id) is conversation:
            del self._conversations[conversation.session_id]
        if self._at_slot.get(conversation.slot) is conversation:
            del self._at_slot[conversation.slot]
            self._heard[conversation.slot] = math.inf
            self._receipts.end(conversation.slot)
        if reason is not None:
            conversation.send(encode_gone(conversation.nonce, reason))
            conversation.transport.end(conversation.session_id, conversation.peer)
        self._wait_no_more(conversation)

    def _leave(self, conversation: Conversation) -> Deferred[None]:
        """Take the player of this conversation offline, and answer again when that is saved."""
        conversation.leaving = True
        self._heard[conversation.slot] = math.inf
        left = self.service.leave(conversation.session_id, last=conversation.limit)
        self._wait_no_more(conversation)
        if not left.called:
            self._leaving[conversation] = left
        return left.addCallbacks(
            self._left, self._not_saved, callbackArgs=(conversation,), errbackArgs=(conversation,)
        )

    def _wait_no_more(self, conversation: Conversation) -> None:
        """Let go of a conversation's leave, which goes on; so a player is waited for once."""
        left = self._leaving.pop(conversation, None)
        if left is not None:
            left.cancel()

    def _left(self, progress: Progress, conversation: Conversation) -> None:
        self._leaving.pop(conversation, None)
        if self._conversations.get(conversation.session_id) is not conversation:
            return
        receipt = encode_receipt(progress.applied, progress.saved)
        self._ledger.receipts += 1
        conversation.send(receipt)
        self._end(conversation, GoneReason.SHUTTING_DOWN if self._closing else None)
        while len(self._departed) >= self.service.max_players:
            del self._departed[next(iter(self._departed))]
        until = self._clock.seconds() + LINGER
        self._departed[conversation.session_id] = _Departed(conversation, receipt, until)

    def _not_saved(self, failure: Failure, conversation: Conversation) -> None:
        if failure.check(CancelledError):
            return
        self._leaving.pop(conversation, None)
        failure.trap(*_NOT_LEFT)
        if self._conversations.get(conversation.session_id) is conversation:
            reason = GoneReason.SHUTTING_DOWN if self._closing else GoneReason.KICKED
            self._end(conversation, reason)

    def _tick(self) -> None:
        """Send the receipts that are due, and forget who left long enough ago."""
        now = self._clock.seconds()
        self._stood_still = self._is_late(now)
        if self._stood_still:
            # Nobody could be heard meanwhile: it is not their silence.
            self._heard_at[: self._table.high] += now - self._now
        self._now = now
        while self._departed:
            session_id, departed = next(iter(self._departed.items()))
            if departed.until > now:
                break
            del self._departed[session_id]
        self.service.guard()
        for slot in self._receipts.due(now, len(self._conversations)):
            conversation = self._at_slot[slot]
            if self._is_live(conversation):
                self._receipts.show(conversation)
            else:
                self._end(conversation, GoneReason.KICKED)

    def _is_late(self, now: float) -> bool:
        """Whether the process stood still since the last tick, and words wait in the sockets."""
        return now - self._now > min(STOOD_STILL, self.idle_timeout / 2)

    def _evict_idle(self) -> None:
        if self._stood_still or self._is_late(self._clock.seconds()):
            return
        idle = np.flatnonzero(self._heard_at[: self._table.high] <= self._now - self.idle_timeout)
        for slot in idle.tolist():
            conversation = self._at_slot[slot]
            is_live = self._is_live(conversation)
            self._end(conversation, GoneReason.IDLE)
            # Else the program that embeds the service took that player offline.
            if is_live:
                self._leave(conversation)
                self._wait_no_more(conversation)
