"""One player's conversation, its phases, and what is asked of the transport that carries it."""

from __future__ import annotations

import math
import struct
from enum import Enum
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred

from playerstate.ledger import Outcome
from playerstate.wire.messages import MAX_SEQUENCE, GoneReason, encode_gone

_NUMBER = struct.Struct("<I")


class Transport(Protocol):
    """What the gateway asks of a transport."""

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Send a message of the conversation of this nonce; it may be lost on the way."""

    def end(self, session_id: int, peer: Any) -> None:
        """Let go of a peer that was just told, by a GONE, that its conversation is over."""


class Phase(Enum):
    """How far a conversation has come; it goes down this list, and may leave phases out."""

    JOINING = "its JOIN waits for the store"
    PLAYING = "the player is online, and stands in the conversation's slot"
    LEAVING = "the player is being saved, in that slot still; moves come in up to a last one"
    DEPARTED = "the player left and is saved; who did not hear so is told once more"
    OVER = "it is forgotten"


Replaced = tuple[tuple[int, float], ...]
"""Nonces of one player that a newer JOIN replaced, the newest first, and when."""


@attrs.define(eq=False)
class Conversation:
    """One player's conversation; `playerstate.conversations.registry.Registry` sets its phase.

    Attributes:
        session_id: whose it is.
        transport, peer: where the player is.  The two belong together: a peer means nothing to
            another transport than its own.
        nonce: of the JOIN that began it.
        join_sequence: the JOIN's; every move is numbered above it.
        replaced: the nonces that this conversation replaced of late, and when.
        phase: see `Phase`.
        slot: the player's place in the live table, while PLAYING and LEAVING.
        secret: the WELCOME's; a repeat of the JOIN that knows it moves the conversation there.
        is_used: whether a LEAVE or a PING came; moves are seen by their numbers.
        last_accepted: while LEAVING, the highest sequence still taken in.
        waits_for: the join of one that is JOINING, the leave of one that is LEAVING.
        receipt: the last one, of one that is DEPARTED.
        until: when such a one is forgotten.
        answered_at: when such a one was last answered.
    """

    session_id: int
    transport: Transport
    peer: Any
    nonce: int
    join_sequence: int
    replaced: Replaced = ()
    phase: Phase = Phase.JOINING
    slot: int = -1
    secret: int = 0
    is_used: bool = False
    last_accepted: int = MAX_SEQUENCE
    waits_for: Deferred[Any] | None = None
    receipt: bytes = b""
    until: float = math.inf
    answered_at: float = -math.inf
    # The last two bases, each its sequence and its fields, packed; empty for none.
    _newer: bytes = b""
    _older: bytes = b""

    def is_at(self, transport: Transport, peer: Any) -> bool:
        """Whether the player is there; two transports may each have a peer of the same address."""
        return self.transport is transport and self.peer == peer

    def rejects(self, peer: Any, nonce: int | None) -> Outcome | None:
        """Why a message from there has no business here, if it has none.

        Args:
            peer: where it came from.
            nonce: of the conversation that it is of; None where a peer has no late ones.
        """
        if self.peer != peer:
            return Outcome.OTHER_ADDRESS
        if nonce is not None and self.nonce != nonce:
            return Outcome.OTHER_CONVERSATION
        return None

    def find_base(self, sequence: int) -> bytes | None:
        """The packed fields of the base of this number, if it is one of the last two."""
        number = _NUMBER.pack(sequence & MAX_SEQUENCE)
        for base in (self._newer, self._older):
            if base.startswith(number):
                return base[_NUMBER.size :]
        return None

    def keep_base(self, sequence: int, fields: bytes) -> None:
        """Keep packed fields as the newest base, unless the newest bears this number already."""
        number = _NUMBER.pack(sequence)
        if not self._newer.startswith(number):
            self._older, self._newer = self._newer, number + fields

    def send(self, message: bytes) -> None:
        """Send to the player."""
        self.transport.send(self.session_id, self.peer, self.nonce, message)

    def send_gone(self, reason: GoneReason) -> None:
        """Tell the player that this conversation is over, and the transport to let go."""
        self.send(encode_gone(self.nonce, reason))
        self.transport.end(self.session_id, self.peer)

    def wait_for(self, what: Deferred[Any]) -> None:
        """Wait for this and for nothing else; so a player is waited for once."""
        self.wait_no_more()
        if not what.called:
            self.waits_for = what

    def wait_no_more(self) -> None:
        """Let go of what is waited for; a leave goes on, a join that nobody else wants does not."""
        what, self.waits_for = self.waits_for, None
        if what is not None:
            what.cancel()
