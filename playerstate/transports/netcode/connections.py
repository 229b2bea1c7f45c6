"""A server's record of a client, half-open or connected."""

from __future__ import annotations

from typing import Any

import attrs
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from playerstate.transports.netcode.replay import ReplayWindow
from playerstate.transports.netcode.tokens import PrivateToken

Source = tuple[str, int, Any]
"""Where a datagram came from: the sender's IP address and UDP port, and the local port.
Requests are counted by the IP address; the rest is only compared, and passed back to send."""


@attrs.define(eq=False)
class HalfOpen:
    """A client that was sent a challenge and has not answered it.

    Attributes:
        token: the private part of its connect token.
        tag: the token's identity.
        opener, sealer: the ciphers of packets from the client, and to it.
        number: the token's, in the order of first arrival; see `TokenHistory.admit`.
        lapses_at: when this record is removed; an accepted repeat of the request postpones it.
    """

    token: PrivateToken
    tag: bytes
    opener: ChaCha20Poly1305
    sealer: ChaCha20Poly1305
    number: int
    lapses_at: float


@attrs.define(eq=False)
class Connection:
    """A connected client, compared by identity: its next connection is another object.

    Times are seconds on a clock that never steps.

    Attributes:
        client_id: the client's id, from its token.
        user_data: of its token, 256 bytes.
        source: the address that it sends from.
        slot: its slot, from 0.
        timeout: seconds of silence after which it times out.
        opener, sealer: the ciphers of packets from the client, and to it.
        number: of the token that opened the connection; see `HalfOpen`.
        began_at: when the connection began.
        heard_at: when a good keep-alive or payload last arrived.
        spoke_at: when a packet was last sent to it.
        payload_at: when a payload last arrived; at first, when the connection began.
        payloads_full_at: its bucket of payloads; see `limits.Buckets`.
        window: the sequence numbers received.
        sequence: the number of the next packet to it.
        is_confirmed: whether a packet of it arrived, so that it must know that it is connected.
        is_open: whether packets can be sent to it: false once it left, timed out or was
            disconnected.
    """

    client_id: int
    user_data: bytes = attrs.field(repr=False)
    source: Source
    slot: int
    timeout: float
    opener: ChaCha20Poly1305
    sealer: ChaCha20Poly1305
    number: int
    began_at: float
    heard_at: float
    spoke_at: float
    payload_at: float
    payloads_full_at: float
    window: ReplayWindow = attrs.field(factory=ReplayWindow, repr=False)
    sequence: int = 0
    is_confirmed: bool = False
    is_open: bool = True
