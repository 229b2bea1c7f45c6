"""What clients send, read for tests; a server reads each kind of message by itself."""

from __future__ import annotations

from typing import Any

import attrs

from playerstate.wire.messages import (
    JOIN,
    LEAVE,
    MOVE,
    PING,
    SEEN,
    Codec,
    Join,
    Malformed,
    Seen,
    decode_join,
    decode_numbered,
)


@attrs.frozen
class Move:
    """The player's whole state now, as accepted packed values."""

    sequence: int
    values: tuple[Any, ...]


@attrs.frozen
class Leave:
    """The player goes; `sequence` is that of the last update sent."""

    sequence: int


@attrs.frozen
class Ping:
    """Still here."""

    sequence: int


class ClientCodec(Codec):
    """A codec that reads what it writes."""

    def decode_client(self, data: bytes) -> Join | Move | Leave | Ping | Seen:
        """Any message of a client."""
        kind = data[0] if data else None
        if kind == JOIN:
            return decode_join(data)
        if kind == MOVE:
            return Move(*self.decode_move(data))
        if kind == LEAVE:
            return Leave(decode_numbered(data))
        if kind == PING:
            return Ping(decode_numbered(data))
        if kind == SEEN:
            return self.decode_seen(data)
        raise Malformed("too_short" if kind is None else "unknown_type")
