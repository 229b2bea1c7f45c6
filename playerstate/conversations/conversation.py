"""One player's conversation, and what the gateway asks of the transport that carries it."""

from __future__ import annotations

import struct
from typing import Any, Protocol

import attrs

from playerstate.wire.messages import MAX_SEQUENCE

_NUMBER = struct.Struct("<I")


class Transport(Protocol):
    """What the gateway asks of a transport."""

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Send a message of the conversation of this nonce; it may be lost on the way."""

    def end(self, session_id: int, peer: Any) -> None:
        """Let go of a peer that was just told, by a GONE, that its conversation is over."""


Replaced = tuple[tuple[int, float], ...]
"""Nonces of one player that a newer JOIN replaced, the newest first, and when."""


@attrs.define(eq=False)
class Conversation:
    """One player's conversation.

    Attributes:
        session_id: whose it is.
        transport, peer: where the player is.
        nonce: of the JOIN that began it.
        first: the JOIN's sequence; every move is numbered above it.
        slot: the player's place in the live table.
        secret: the WELCOME's; a repeat of the JOIN that knows it moves the conversation there.
        replaced: the nonces that this conversation replaced of late, and when.
        is_used: whether a LEAVE or a PING came; moves are seen by their numbers.
        limit: the highest sequence still taken in: a LEAVE's, once there was one.
        leaving: whether there was one.
    """

    session_id: int
    transport: Transport
    peer: Any
    nonce: int
    first: int
    slot: int
    secret: int
    replaced: Replaced = ()
    is_used: bool = False
    limit: int = MAX_SEQUENCE
    leaving: bool = False
    # The last two bases, each its sequence and its fields, packed; empty for none.
    _newer: bytes = b""
    _older: bytes = b""

    def is_at(self, transport: Transport, peer: Any) -> bool:
        """Whether the player is there; two transports may each have a peer of the same address."""
        return self.transport is transport and self.peer == peer

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
