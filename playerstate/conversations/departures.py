"""How conversations end: by a LEAVE, idleness, a lost connection, the program, or a stop.

Reactor thread only.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.python.failure import Failure

from playerstate.conversations.conversation import Conversation, Phase
from playerstate.conversations.pace import SEND_EVERY
from playerstate.conversations.registry import Registry
from playerstate.ledger import Outcome
from playerstate.players.leaves import Progress
from playerstate.players.service import NotOnline, NotRunning, PlayerStateService
from playerstate.saving.commit import NotSaved
from playerstate.wire.messages import LEAVE, GoneReason, encode_receipt, receipts_for

LINGER = 5.0
"""Seconds for which a player who left is still answered with the last receipt."""

_NOT_LEFT = (NotSaved, NotOnline, NotRunning, CancelledError)
"""The expected errors of a leave."""


class Departures:
    """Ends conversations, and answers leaving players.

    Args:
        service: the running service, which players leave.
        registry: the conversations, with their receipts and their silence.
    """

    def __init__(
        self,
        service: PlayerStateService,
        registry: Registry,
    ) -> None:
        self._service = service
        self._table = service.table
        self._ledger = service.ledger
        self._seconds = service.clock.seconds
        self._registry = registry
        self._receipts, self._silence = registry.receipts, registry.silence

    def received(
        self, session_id: int, peer: Any, nonce: int | None, kind: int, sequence: int, size: int
    ) -> Outcome | None:
        """Accept or reject a LEAVE or a PING, by its kind and sequence; see `Intake.one`.

        Args:
            session_id: the player's.
            peer: where it came from.
            nonce: see `Intake.one`.
            kind: its type.
            sequence: its sequence.
            size: its bytes.

        Returns:
            The outcome to count; None if it was accepted.
        """
        conversation = self._registry.current.get(session_id)
        if conversation is None:
            conversation = self._registry.departed.get(session_id)
            if conversation is None:
                return Outcome.NOT_JOINED
        if (rejected := conversation.rejects(peer, nonce)) is not None:
            return rejected
        if sequence < conversation.join_sequence:
            return Outcome.STALE
        if conversation.phase is Phase.DEPARTED:
            self._answer_departed(conversation)
            return None
        # A LEAVE is long enough to pay for a second receipt, which `_left` sends.
        self._receipts.paid[conversation.slot] += 1.0 if kind == LEAVE else receipts_for(size)
        conversation.is_used = True
        if kind == LEAVE and conversation.phase is Phase.PLAYING:
            self._receipts.show(conversation)
            self._leave(conversation, sequence)
            return None
        if conversation.phase is Phase.PLAYING:
            self._silence.last_heard[conversation.slot] = self._silence.now
        self._receipts.answer(conversation, len(self._registry.current))
        return None

    def _answer_departed(self, conversation: Conversation) -> None:
        now = self._seconds()
        if now - conversation.answered_at >= SEND_EVERY:
            conversation.answered_at = now
            self._ledger.receipts += 1
            conversation.send(conversation.receipt)

    def _leave(self, conversation: Conversation, last_accepted: int) -> Deferred[None]:
        """Take the player of this conversation offline, and answer again once saved.

        Args:
            conversation: one that is PLAYING.
            last_accepted: the highest sequence of a move that is still accepted until then.
        """
        self._registry.leave(conversation)
        left = self._service.leave(conversation.session_id)
        # `on_leave` has set it to what is applied: it does not know the sequence of the LEAVE.
        conversation.last_accepted = last_accepted
        conversation.wait_for(left)
        return left.addCallbacks(
            self._left, self._not_saved, callbackArgs=(conversation,), errbackArgs=(conversation,)
        )

    def _left(self, progress: Progress, conversation: Conversation) -> None:
        conversation.waits_for = None
        if conversation.phase is not Phase.LEAVING:
            return
        receipt = encode_receipt(progress.applied, progress.saved)
        self._ledger.receipts += 1
        conversation.send(receipt)
        self._registry.depart(conversation, receipt, self._seconds() + LINGER)
        if self._registry.closing:
            conversation.send_gone(GoneReason.SHUTTING_DOWN)

    def _not_saved(self, failure: Failure, conversation: Conversation) -> None:
        failure.trap(*_NOT_LEFT)
        if failure.check(CancelledError):
            return
        conversation.waits_for = None
        if conversation.phase is Phase.LEAVING:
            closing = self._registry.closing
            reason = GoneReason.SHUTTING_DOWN if closing else GoneReason.KICKED
            self._registry.end(conversation, reason)

    def on_leave(self, session_id: int) -> None:
        """See `PlayersListener`.

        A conversation that is PLAYING ends with a GONE; one that is LEAVING goes on until saved,
        without further moves.
        """
        conversation = self._registry.current.get(session_id)
        if conversation is None:
            return
        if conversation.phase is Phase.PLAYING:
            self._registry.end(conversation, GoneReason.KICKED)
        else:
            applied = self._table.sequence(conversation.slot)
            conversation.last_accepted = min(conversation.last_accepted, applied)

    def kick(self, session_id: int) -> Deferred[Progress]:
        """See `Gateway.kick`."""
        conversation = self._registry.current.get(session_id)
        if conversation is not None:
            self._service.guard()
            self._registry.end(conversation, GoneReason.KICKED)
        return self._service.leave(session_id)

    def lost(self, session_id: int, peer: Any, reason: GoneReason | None) -> None:
        """See `Gateway.lost`."""
        joining = self._registry.joining.get(session_id)
        if joining is not None and joining.peer == peer:
            self._registry.end(joining)
        conversation = self._registry.current.get(session_id)
        if conversation is not None and conversation.peer == peer:
            self._end_and_leave(conversation, reason)

    def evict_idle(self) -> None:
        """End the conversations of players who have been silent for too long."""
        for slot in self._silence.idle():
            self._end_and_leave(self._registry.at_slot[slot], GoneReason.IDLE)

    def _end_and_leave(self, conversation: Conversation, reason: GoneReason | None) -> None:
        """End a conversation, and take its player offline if it was PLAYING."""
        was_playing = conversation.phase is Phase.PLAYING
        self._service.guard()
        self._registry.end(conversation, reason)
        if was_playing:
            # The service logs what is not saved; no player is left to notify.
            left = self._service.leave(conversation.session_id)
            left.addErrback(lambda failure: failure.trap(*_NOT_LEFT))
            left.cancel()

    def all(self) -> Deferred[Any]:
        """Take every player with a conversation offline, and let no conversation begin.

        Returns:
            A Deferred that fires when all are saved, or the service gave up saving.
        """
        self._registry.closing = True
        for joining in list(self._registry.joining.values()):
            self._registry.end(joining)
        waiting: list[Deferred[Any]] = []
        for conversation in list(self._registry.current.values()):
            # If moves went on, the newest state might never be the saved one.
            applied = self._table.sequence(conversation.slot)
            if conversation.phase is Phase.PLAYING:
                waiting.append(self._leave(conversation, applied))
            elif conversation.waits_for is not None:
                # Its leave may be settled already, with the callback still due.
                conversation.last_accepted = min(conversation.last_accepted, applied)
                waiting.append(conversation.waits_for)
        return DeferredList(waiting)
