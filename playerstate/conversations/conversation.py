"""One player's conversation, its phases, and the interface of the transport that carries it."""

from __future__ import annotations

import math
import struct
from enum import Enum
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred

from playerstate.arguments import MAX_SEQUENCE
from playerstate.ledger import Outcome
from playerstate.wire.messages import GoneReason, encode_gone

_NUMBER = struct.Struct("<I")

TOLD_KEPT = 8
"""How many numbers of STATEs are kept, to recognise a SEEN; an older one is taken for seen."""


class Transport(Protocol):
    """What the gateway needs of a transport."""

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Send a message of the conversation with this nonce; it may be lost on the way."""

    def end(self, session_id: int, peer: Any) -> None:
        """Forget a peer to which a GONE was just sent: its conversation is over."""


class Phase(Enum):
    """The phase of a conversation; it moves down this list, and may skip phases."""

    JOINING = "its JOIN waits for the store"
    PLAYING = "the player is online, in the conversation's slot"
    LEAVING = "the player is being saved, still in that slot; moves are accepted up to a last one"
    DEPARTED = "the player left and is saved; a repeated LEAVE is answered again"
    OVER = "it has ended, and is forgotten"


Replaced = tuple[tuple[int, float], ...]
"""Nonces of one player that a newer JOIN replaced, the newest first, each with the time."""


@attrs.frozen
class Ended:
    """What is remembered of a player's last conversation, since its messages may still come.

    Attributes:
        at: when it ended.
        replaced: nonces with which no conversation begins: those it replaced, and its own if the
            player left.
        nonce: its own otherwise: another JOIN may begin anew with it, if its end was not heard.
        sequence: the highest sequence applied; moves up to it are stale then, too.
    """

    at: float
    replaced: Replaced
    nonce: int | None = None
    sequence: int = 0


@attrs.define(eq=False)
class Conversation:
    """One player's conversation; `playerstate.conversations.registry.Registry` sets its phase.

    Attributes:
        session_id: the player's.
        transport, peer: where the player is.  The two belong together: a peer means something to
            its own transport only.
        nonce: of the JOIN that began it.
        join_sequence: the sequence of the JOIN; every move has a higher one.
        replaced: the nonces that this conversation replaced recently, and when.
        is_again: whether a conversation with the same nonce ended recently.
        phase: see `Phase`.
        slot: the player's slot in the live table, while PLAYING and LEAVING.
        secret: the WELCOME's; a repeated JOIN that carries it moves the conversation to its peer.
        is_used: whether a LEAVE, a PING or a SEEN came; moves show by their sequences.
        states_paid: how many STATEs the JOIN has paid for.
        takes_moves: whether it is PLAYING without an override that the client has not seen.
        override: the number of the newest override that the client has not seen; 0 for none.
        last_accepted: while LEAVING, the highest sequence still accepted.
        waits_for: the join while JOINING, the leave while LEAVING.
        receipt: while DEPARTED, the last one.
        until: while DEPARTED, when it is forgotten.
        answered_at: while DEPARTED, when it was last answered.
    """

    session_id: int
    transport: Transport
    peer: Any
    nonce: int
    join_sequence: int
    replaced: Replaced = ()
    is_again: bool = False
    phase: Phase = Phase.JOINING
    slot: int = -1
    secret: int = 0
    states_paid: int = 0
    is_used: bool = False
    takes_moves: bool = False
    override: int = 0
    last_accepted: int = MAX_SEQUENCE
    waits_for: Deferred[Any] | None = None
    receipt: bytes = b""
    until: float = math.inf
    answered_at: float = -math.inf
    # The last two bases, each the packed sequence and fields; empty for none.
    _newer: bytes = b""
    _older: bytes = b""
    # The numbers of the last STATEs sent, ascending.
    _told: tuple[int, ...] = ()

    def is_at(self, transport: Transport, peer: Any) -> bool:
        """Whether the player is there; peers of two transports may have equal addresses."""
        return self.transport is transport and self.peer == peer

    def rejects(self, peer: Any, nonce: int | None) -> Outcome | None:
        """Why a message from this peer is rejected; None if it is not.

        Args:
            peer: where it came from.
            nonce: of the conversation it belongs to; None if the transport delivers no messages
                of a peer's earlier conversations.
        """
        if self.peer != peer:
            return Outcome.OTHER_ADDRESS
        if nonce is not None and self.nonce != nonce:
            return Outcome.OTHER_CONVERSATION
        return None

    def rejects_move(self, sequence: int) -> Outcome | None:
        """Why a move with this sequence is rejected; None if it is not.

        Asked only where `takes_moves` is false.
        """
        if self.phase is Phase.LEAVING and sequence > self.last_accepted:
            return Outcome.LEAVING
        return Outcome.NOT_SEEN if self.override else None

    def tell(self, number: int) -> None:
        """A STATE with this number is sent."""
        if not self._told or self._told[-1] != number:
            self._told = (*self._told, number)[-TOLD_KEPT:]

    def was_told(self, number: int) -> bool:
        """Whether a STATE with this number was sent."""
        told = self._told
        return number in told or (len(told) == TOLD_KEPT and 0 < number < told[0])

    def go_on(self) -> None:
        """The client has seen the override: it goes on from there, by moves with new bases."""
        self.override = 0
        self.takes_moves = self.phase is Phase.PLAYING
        self._newer = self._older = b""

    def find_base(self, sequence: int) -> bytes | None:
        """The packed fields of the base with this sequence, if it is one of the last two."""
        number = _NUMBER.pack(sequence & MAX_SEQUENCE)
        for base in (self._newer, self._older):
            if base.startswith(number):
                return base[_NUMBER.size :]
        return None

    def keep_base(self, sequence: int, fields: bytes) -> None:
        """Keep packed fields as the newest base, unless the newest has this sequence already."""
        number = _NUMBER.pack(sequence)
        if not self._newer.startswith(number):
            self._older, self._newer = self._newer, number + fields

    def send(self, message: bytes) -> None:
        """Send to the player."""
        self.transport.send(self.session_id, self.peer, self.nonce, message)

    def send_gone(self, reason: GoneReason) -> None:
        """Send the player a GONE with this reason, and have the transport forget the peer."""
        self.send(encode_gone(self.nonce, reason))
        self.transport.end(self.session_id, self.peer)

    def wait_for(self, what: Deferred[Any]) -> None:
        """Wait for this Deferred only: a conversation waits for one thing at a time."""
        self.wait_no_more()
        if not what.called:
            self.waits_for = what

    def wait_no_more(self) -> None:
        """Cancel the waiting.  A leave goes on; a load is cancelled with its last waiter."""
        what, self.waits_for = self.waits_for, None
        if what is not None:
            what.cancel()
