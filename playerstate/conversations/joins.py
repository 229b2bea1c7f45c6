"""JOINs: admitted, welcomed once more, or refused.  Reactor thread only."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from playerstate.conversations.conversation import Conversation, Phase, Replaced, Transport
from playerstate.conversations.registry import Registry
from playerstate.interfaces import StoreBusy
from playerstate.ledger import Outcome, count
from playerstate.log import PrintableLogger
from playerstate.players.service import Joined, NotRunning, PlayerStateService, ServerFull
from playerstate.sparing import SparingLogger
from playerstate.wire.messages import (
    VERSION,
    Codec,
    GoneReason,
    Join,
    Malformed,
    RefusedReason,
    encode_gone,
    encode_refused,
)

JOIN_ERROR_LOGGED_EVERY = 60.0
"""Seconds between two log entries of joins that failed with an unexpected error."""

REPLACED_KEPT = 8
"""Nonces kept of each player's replaced conversations, so that a late JOIN cannot take the player
back from a newer conversation."""
REPLACED_FOR = 60.0
"""Seconds for which those nonces are kept; no datagram is in transit for longer."""

_log = PrintableLogger()


def draw_secret() -> int:
    """64 random bits that are not all 0."""
    return secrets.randbelow(2**64 - 1) + 1


def _are_equal(secret: int, other: int) -> bool:
    """Whether two secrets are equal, compared in constant time."""
    return secrets.compare_digest(secret.to_bytes(8, "little"), other.to_bytes(8, "little"))


class Joins:
    """Begins conversations.

    Args:
        service: the running service, which players join.
        registry: the conversations, with their receipts and their silence.
        draw_secret: returns a new unguessable number of 64 bits, not 0.
    """

    def __init__(
        self,
        service: PlayerStateService,
        registry: Registry,
        draw_secret: Callable[[], int] = draw_secret,
    ) -> None:
        self._service = service
        self._table = service.table
        self._ledger = service.ledger
        self._seconds = service.clock.seconds
        self._registry = registry
        self._receipts, self._silence = registry.receipts, registry.silence
        self._draw_secret = draw_secret
        self._codec = Codec(service.schema)
        self._lines = SparingLogger(_log, self._seconds, JOIN_ERROR_LOGGED_EVERY)

    def received(
        self, transport: Transport, session_id: int, peer: Any, join: Join
    ) -> Outcome | None:
        """Receive a JOIN, and answer it now or when the store has answered.

        Returns:
            The outcome to count; None if the JOIN is answered, or waits for the store.

        Raises:
            Malformed: it is shorter than its answer would be.
        """
        if (reason := self._why_refused(session_id, join)) is not None:
            self._refuse(transport, session_id, peer, join.nonce, reason)
            return None
        if join.size < self._codec.join_size:
            raise Malformed("too_short")
        current = self._registry.current.get(session_id)
        if current is not None and current.nonce == join.nonce:
            return self._repeat(current, transport, peer, join)
        joining = self._registry.joining.get(session_id)
        if joining is not None and joining.nonce == join.nonce:
            joining.transport, joining.peer = transport, peer
            return None
        if join.secret:
            # It is meant to move a conversation that is over, not to begin one.
            return Outcome.NOT_JOINED
        replaced = self._replaced(session_id, join.nonce)
        departed = self._registry.departed.get(session_id)
        if departed is not None and departed.nonce == join.nonce:
            # A duplicate from the network: that conversation is over.
            return Outcome.STALE
        if any(nonce == join.nonce for nonce, _ in replaced):
            # Another; or the client was not told, and would repeat its JOIN in vain.
            gone = encode_gone(join.nonce, GoneReason.JOINED_ELSEWHERE)
            transport.send(session_id, peer, join.nonce, gone)
            return Outcome.STALE
        if joining is not None:
            self._registry.end(joining)
        sequence, is_again = join.sequence, False
        ended = self._registry.ended.get(session_id)
        if ended is not None and ended.nonce == join.nonce:
            sequence, is_again = max(sequence, ended.sequence), True
        states_paid = self._codec.states_paid_by(join.size)
        self._ask(
            Conversation(
                *(session_id, transport, peer, join.nonce, sequence, replaced, is_again),
                states_paid=states_paid,
            )
        )
        return None

    def _why_refused(self, session_id: int, join: Join) -> RefusedReason | None:
        if join.version != VERSION:
            return RefusedReason.VERSION
        if join.fingerprint not in (0, self._service.schema.fingerprint):
            return RefusedReason.FINGERPRINT
        if self._registry.closing:
            return RefusedReason.SHUTTING_DOWN
        if not self._service.has_room(session_id):
            return RefusedReason.FULL
        return None

    def _repeat(
        self, current: Conversation, transport: Transport, peer: Any, join: Join
    ) -> Outcome | None:
        """Welcome once more; at another peer only if unused so far, or with the secret."""
        slot = current.slot
        if not current.is_at(transport, peer):
            is_unused = self._table.sequence(slot) == current.join_sequence and not current.is_used
            if not is_unused and not _are_equal(join.secret, current.secret):
                return Outcome.OTHER_ADDRESS
            current.transport, current.peer = transport, peer
            self._receipts.restart(slot)
            current.states_paid = self._codec.states_paid_by(join.size)
            self._registry.states.restart(current)
        if current.phase is Phase.PLAYING:
            self._silence.last_heard[slot] = self._silence.now
        self._welcome(current)
        return None

    def _replaced(self, session_id: int, nonce: int) -> Replaced:
        """The nonces that a new JOIN with this nonce replaces now, and those replaced before."""
        now, registry = self._seconds(), self._registry
        replaced: Replaced = ()
        if (ended := registry.ended.get(session_id)) is not None:
            replaced = ended.replaced
            if ended.nonce not in (None, nonce):
                replaced = ((ended.nonce, now), *replaced)
        if (departed := registry.departed.get(session_id)) is not None:
            replaced = ((departed.nonce, now), *departed.replaced)
        for conversations in (registry.current, registry.joining):
            if (conversation := conversations.get(session_id)) is not None:
                replaced = ((conversation.nonce, now), *conversation.replaced)
        return tuple(each for each in replaced if now - each[1] < REPLACED_FOR)[:REPLACED_KEPT]

    def _ask(self, conversation: Conversation) -> None:
        """Ask the service to admit the player."""
        joined = self._service.join(conversation.session_id, sequence=conversation.join_sequence)
        if not joined.called:
            self._registry.wait(conversation)
            conversation.wait_for(joined)
        joined.addCallbacks(
            self._joined,
            self._not_joined,
            callbackArgs=(conversation,),
            errbackArgs=(conversation,),
        )

    def _joined(self, _: Joined, conversation: Conversation) -> None:
        """The player is in: the conversation begins, and the one before ends."""
        before = self._registry.current.get(conversation.session_id)
        if before is not None:
            elsewhere = not before.is_at(conversation.transport, conversation.peer)
            self._registry.end(before, GoneReason.JOINED_ELSEWHERE if elsewhere else None)
        slot = self._table.slots[conversation.session_id]
        self._table.last_non_base[slot] = conversation.join_sequence
        if conversation.is_again and self._table.is_overridden(slot):
            # Moves with this nonce may be in transit that were sent before the override.
            self._table.unseen[slot] = 1
        self._registry.begin(conversation, slot, self._draw_secret())
        self._welcome(conversation)

    def _not_joined(self, failure: Failure, conversation: Conversation) -> None:
        if conversation.phase is not Phase.JOINING:
            return  # it ended, and its waiting was cancelled
        self._registry.end(conversation)
        if failure.check(ServerFull):
            reason = RefusedReason.FULL
        elif failure.check(NotRunning):
            reason = RefusedReason.SHUTTING_DOWN
        else:
            reason = RefusedReason.STORE
            if not failure.check(StoreBusy):
                self._lines.failure(
                    "player {session_id} cannot join", failure, session_id=conversation.session_id
                )
        self._refuse(
            conversation.transport,
            conversation.session_id,
            conversation.peer,
            conversation.nonce,
            reason,
        )

    def _refuse(
        self, transport: Transport, session_id: int, peer: Any, nonce: int, reason: RefusedReason
    ) -> None:
        count(self._ledger.joins_refused, reason.name.lower())
        transport.send(session_id, peer, nonce, encode_refused(nonce, reason))

    def _welcome(self, conversation: Conversation) -> None:
        slot, nonce = conversation.slot, conversation.nonce
        values, updated_at = self._table.values(slot), self._table.updated_at(slot)
        conversation.send(
            self._codec.encode_welcome(
                nonce, updated_at, values, conversation.secret, self._table.is_overridden(slot)
            )
        )
