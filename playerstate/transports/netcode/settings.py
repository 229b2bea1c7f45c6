"""A netcode server's settings, and the bounds that follow from them."""

from __future__ import annotations

import math

import attrs

from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.limits import Rate
from playerstate.transports.netcode.tokens import KEY_BYTES

REQUEST_RATE = Rate(2_000.0, 4_000)
"""Forged requests at this rate cost 2 % of a core; a thousand clients connect within a second."""
SOURCE_RATE = Rate(50.0, 100)
"""Many players may share one address; a waiting client sends ten requests a second."""
PAYLOAD_RATE = Rate(240.0, 240)
"""Twice what a client at 120 Hz sends."""


@attrs.frozen
class NetcodeSettings:
    """Which clients a server accepts, and how many.

    Attributes:
        private_key: 32 bytes, shared with the login service.
        protocol_id: of the game, 64 bits; clients with another one are ignored.
        addresses: the addresses under which tokens name this server.  Behind a NAT or a relay, they
            differ from those it listens on.  If empty, no token is for this server.
        slots: the most clients at a time.
        max_token_lifetime: the longest lifetime of the login service's tokens, seconds.  A restart
            loses the history of used tokens, so every token is refused that may have been issued
            before the start; if this number is too small, used tokens are accepted again.
        clock_skew: seconds by which the login service's clock may be ahead.
        min_timeout, max_timeout: seconds between which a token's timeout must lie.  The standard
            also has tokens that never time out; on the internet they would hold slots for ever.
        max_client_id: the highest client id that the application can use; 0 is never valid.
        request_rate: requests unsealed, of all sources together.
        source_rate: requests unsealed of one network; this machine itself is exempt.
        source_buckets: the number of buckets that networks are hashed to.
        payload_rate: payloads accepted from one client.
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
        """The most clients at a time that were challenged and have not answered yet."""
        return 4 * self.slots

    @property
    def history_size(self) -> int:
        """The most tokens remembered at a time.

        As many as `request_rate` allows during one token's lifetime, so that the rate limit refuses
        requests before the history is full; at least the reference's 8 a slot.
        """
        lifetime = self.max_token_lifetime + self.clock_skew
        passed = math.ceil(lifetime * self.request_rate.per_second) + self.request_rate.burst
        return max(8 * self.slots, passed)
