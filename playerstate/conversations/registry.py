"""All conversations of one run, found by player or by slot; the one place that sets their phase.

A player has at most one conversation that is PLAYING or LEAVING, in the player's slot of the live
table; the service says when it ends, by `on_leave` or by the leave's Deferred.  With it or without
it, there may be one that is JOINING and one that is DEPARTED.  Reactor thread only.
"""

from __future__ import annotations

from playerstate.conversations.conversation import Conversation, Ended, Phase
from playerstate.conversations.last_moves import LastMoves
from playerstate.conversations.receipts import Receipts
from playerstate.conversations.silence import Silence
from playerstate.conversations.states import States
from playerstate.live.table import LiveTable
from playerstate.wire.messages import GoneReason

ENDED_FOR = 60.0
"""Seconds for which an ended conversation is remembered; no datagram is in transit for longer."""


class Registry:
    """The conversations of one run.

    Args:
        table: the live table.
        receipts, states, silence: see the attributes.
        most_departed: the most DEPARTED conversations remembered, and the most ended ones; the
            oldest are forgotten first.
        last_moves: told of each conversation that begins; None where no move is judged.

    Attributes:
        receipts, states, silence: kept by slot, for conversations that are PLAYING or LEAVING.
        joining: conversations that are JOINING, by session id.
        current: those that are PLAYING or LEAVING, by session id; always the same dict.
        departed: those that are DEPARTED, by session id, the oldest first.
        ended: of players without a conversation, what is remembered of the last, likewise.
        at_slot: those that are PLAYING or LEAVING, by slot.
        closing: whether the gateway closes: no conversation begins, and each ends with a GONE.
    """

    def __init__(
        self,
        table: LiveTable,
        receipts: Receipts,
        states: States,
        silence: Silence,
        most_departed: int,
        last_moves: LastMoves | None = None,
    ) -> None:
        self._table = table
        self.receipts = receipts
        self.states = states
        self.silence = silence
        self._most_departed = most_departed
        self._last_moves = last_moves
        self.joining: dict[int, Conversation] = {}
        self.current: dict[int, Conversation] = {}
        self.departed: dict[int, Conversation] = {}
        self.ended: dict[int, Ended] = {}
        self.at_slot: dict[int, Conversation] = {}
        self.closing = False

    def wait(self, conversation: Conversation) -> None:
        """A conversation is JOINING."""
        self.joining[conversation.session_id] = conversation

    def begin(self, conversation: Conversation, slot: int, secret: int) -> None:
        """It is PLAYING from now on, in this slot; the one before, if there was one, has ended."""
        session_id = conversation.session_id
        self.joining.pop(session_id, None)
        if (departed := self.departed.get(session_id)) is not None:
            self.end(departed)
        self.ended.pop(session_id, None)
        conversation.phase = Phase.PLAYING
        conversation.waits_for = None
        conversation.slot, conversation.secret = slot, secret
        conversation.takes_moves = True
        self.current[session_id] = self.at_slot[slot] = conversation
        self.receipts.begin(slot, conversation.join_sequence, len(self.current))
        self.states.begin(conversation, len(self.current))
        self.silence.begin(slot)
        if self._last_moves is not None:
            self._last_moves.begin(slot)

    def leave(self, conversation: Conversation) -> None:
        """It is LEAVING from now on: its silence no longer counts."""
        conversation.phase = Phase.LEAVING
        conversation.takes_moves = False
        self.states.end(conversation.slot)
        self.silence.end(conversation.slot)

    def depart(self, conversation: Conversation, receipt: bytes, until: float) -> None:
        """It is DEPARTED from now on, and answered with this receipt until then."""
        self._take_out(conversation)
        while len(self.departed) >= self._most_departed:
            self.end(next(iter(self.departed.values())))
        conversation.phase = Phase.DEPARTED
        conversation.receipt, conversation.until = receipt, until
        self.departed[conversation.session_id] = conversation

    def end(self, conversation: Conversation, reason: GoneReason | None = None) -> None:
        """It is OVER; the player is sent a GONE if a reason is given.

        The caller has called `guard`, where it may be PLAYING.
        """
        self._remember(conversation)
        self._take_out(conversation)
        conversation.phase = Phase.OVER
        if reason is not None:
            conversation.send_gone(reason)
        conversation.wait_no_more()

    def _remember(self, conversation: Conversation) -> None:
        phase, nonce, replaced = conversation.phase, conversation.nonce, conversation.replaced
        if phase in (Phase.JOINING, Phase.OVER):
            return
        now = self.silence.now
        if phase is Phase.PLAYING:
            ended = Ended(now, replaced, nonce, self._table.sequence(conversation.slot))
        else:
            ended = Ended(now, ((nonce, now), *replaced))
        self.ended.pop(conversation.session_id, None)
        while len(self.ended) >= self._most_departed:
            del self.ended[next(iter(self.ended))]
        self.ended[conversation.session_id] = ended

    def forget(self, now: float) -> None:
        """End the DEPARTED conversations whose time is over, and forget those long ended."""
        while self.ended:
            session_id, ended = next(iter(self.ended.items()))
            if now - ended.at < ENDED_FOR:
                break
            del self.ended[session_id]
        while self.departed:
            conversation = next(iter(self.departed.values()))
            if conversation.until > now:
                break
            self.end(conversation)

    def _take_out(self, conversation: Conversation) -> None:
        session_id, phase = conversation.session_id, conversation.phase
        if phase is Phase.JOINING:
            self.joining.pop(session_id, None)
        elif phase is Phase.DEPARTED:
            del self.departed[session_id]
        elif phase is not Phase.OVER:
            del self.current[session_id], self.at_slot[conversation.slot]
            self.receipts.end(conversation.slot)
            self.states.end(conversation.slot)
            self.silence.end(conversation.slot)
