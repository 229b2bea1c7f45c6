"""What a netcode server is told before it starts, and the bounds that follow from it."""

from __future__ import annotations

import math

import attrs

from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.limits import Rate
from playerstate.transports.netcode.tokens import KEY_BYTES

REQUEST_RATE = Rate(2_000.0, 4_000)
"""Forged requests at this rate cost 2 % of a core; a thousand clients get in within a second."""
SOURCE_RATE = Rate(50.0, 100)
"""Many players may stand behind one address; a client that waits asks ten times a second."""
PAYLOAD_RATE = Rate(240.0, 240)
"""Twice what a client at 120 Hz sends."""


@attrs.frozen
class NetcodeSettings:
    """How a server lets clients in.

    Attributes:
        private_key: 32 bytes, shared with the login service.
        protocol_id: of the game, 64 bits; clients of another are ignored.
        addresses: under which tokens name this server.  The ports and interfaces it listens on
            may be others, behind a NAT or a relay.  With none, no token is for this server.
        slots: the most clients at a time.
        max_token_lifetime: seconds for which the login service's tokens live, at the most.  What a
            server before this one took in is forgotten with it, so every token is refused that may
            have been issued before the start; with a number too small, used tokens slip through.
        clock_skew: seconds by which the login service's clock may be ahead.
        min_timeout, max_timeout: seconds between which a token's timeout must lie.  The standard
            also knows tokens that never time out; on the internet they would keep slots for ever.
        max_client_id: the highest that the application can use; 0 is never one.
        request_rate: requests unsealed, from all sources together.
        source_rate: requests unsealed from one network; this machine itself is not held to it.
        source_buckets: how many networks are told apart.
        payload_rate: payloads taken in from one client.
    """

    private_key: bytes = attrs.field(repr=False)
    protocol_id: int
    addresses: frozenset[Address] = frozenset()
    slots: int = 256
    max_token_lifetime: float = 30.0
    clock_skew: float = 2.0
    min_timeout: int = 1
    max_timeout: int = 60
    max_client_id: int = 2**63 - 1
    request_rate: Rate = REQUEST_RATE
    source_rate: Rate = SOURCE_RATE
    source_buckets: int = 2**14
    payload_rate: Rate = PAYLOAD_RATE

    def __attrs_post_init__(self) -> None:
        if len(self.private_key) != KEY_BYTES:
            raise ValueError(f"a private key has {KEY_BYTES} bytes, not {len(self.private_key)}")
        if not 0 <= self.protocol_id < 2**64:
            raise ValueError(f"protocol id {self.protocol_id} is not from 0 to 2**64 - 1")

    @property
    def half_open(self) -> int:
        """The most clients at a time that were challenged and did not answer yet."""
        return 4 * self.slots

    @property
    def history_size(self) -> int:
        """The most tokens remembered at a time.

        As many as `request_rate` lets pass while one lives, so that the history fills up only where
        that is put below what is let pass; at least the 8 for each slot of the reference.
        """
        lifetime = self.max_token_lifetime + self.clock_skew
        passed = math.ceil(lifetime * self.request_rate.per_second) + self.request_rate.burst
        return max(8 * self.slots, passed)
