"""What a server remembers of a client, half-open or connected."""

from __future__ import annotations

from typing import Any

import attrs
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from playerstate.transports.netcode.replay import ReplayWindow
from playerstate.transports.netcode.tokens import PrivateToken

Source = tuple[str, int, Any]
"""Whence a datagram came: IP address and UDP port of the sender, and the port of ours that took it.
The first is looked into to count requests; all else is compared, and handed back for sending."""


@attrs.define(eq=False)
class HalfOpen:
    """A client that was challenged: its keys wait for its answer.

    Attributes:
        token: what its request carried.
        tag: the token's identity.
        opener, sealer: for what comes from the client and what goes to it.
        number: the token's, by when it was seen first; see `TokenHistory.admit`.
        lapses_at: when it is forgotten, whatever comes; an accepted repeat of the request puts
            that off.
    """

    token: PrivateToken
    tag: bytes
    opener: ChaCha20Poly1305
    sealer: ChaCha20Poly1305
    number: int
    lapses_at: float


@attrs.define(eq=False)
class Connection:
    """A client that is in.  Each is itself alone: the next of the same client is another.

    Times are seconds on a clock that never steps.

    Attributes:
        client_id: who it is.
        user_data: of its token, 256 bytes.
        source: where it is.
        slot: its place, from 0.
        timeout: seconds of silence after which it is gone.
        opener, sealer: for what comes from it and what goes to it.
        number: of the token that let it in; see `HalfOpen`.
        began_at: when it was let in.
        heard_at: when a good keep-alive or payload came last.
        spoke_at: when anything was sent to it last.
        payload_at: when a payload came last; at first, when the connection began.
        payloads_full_at: its bucket of payloads; see `limits.Buckets`.
        window: which of its packets were taken in.
        sequence: the number of the next packet to it.
        is_confirmed: whether it was heard, and so must know that it is in.
        is_open: whether it can be sent to: until it is gone or disconnected.
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
