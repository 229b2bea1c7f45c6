"""Requests to connect: the checks that each must pass before it is answered.

A request is 1,078 bytes, in clear but for the private part of the connect token: a zero byte, the
version, the protocol id, the token's expiry and nonce, the sealed private part.  A sender can copy
the clear part from any request, so every forgery costs one unsealing; a rate limit bounds the
number of those first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import attrs

from playerstate.transports.netcode.addresses import is_loopback, network_of
from playerstate.transports.netcode.limits import Buckets, SourceBuckets
from playerstate.transports.netcode.packets import Ignored
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tokens import (
    SEALED_BYTES,
    TAG_BYTES,
    TOKEN_NONCE_BYTES,
    VERSION,
    ConnectToken,
    MalformedToken,
    NotSealed,
    PrivateToken,
)

_REQUEST = struct.Struct(f"<B13sQQ{TOKEN_NONCE_BYTES}s{SEALED_BYTES}s")
REQUEST_BYTES = _REQUEST.size
"""Bytes of every request: 1,078."""


@attrs.define
class Request:
    """A request whose clear part is valid.

    Attributes:
        expires_at: seconds since the Unix epoch.
        nonce: the connect token's.
        sealed: its private part.
    """

    expires_at: int
    nonce: bytes
    sealed: bytes

    @property
    def tag(self) -> bytes:
        """The identity of its token."""
        return self.sealed[-TAG_BYTES:]


def make_request(token: ConnectToken) -> bytes:
    """Return the request of a client that holds this token."""
    return _REQUEST.pack(0, VERSION, token.protocol_id, token.expires_at, token.nonce, token.sealed)


class Requests:
    """Checks requests for one server, from its start to its stop.

    Args:
        settings: the server's.
        started_at: the time of the start, on a clock that never steps.
        random_bytes: returns so many random bytes.
    """

    def __init__(
        self, settings: NetcodeSettings, started_at: float, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._settings = settings
        self._longest = settings.max_token_lifetime + settings.clock_skew
        self._started_at = started_at
        self._prefix = b"\0" + VERSION + settings.protocol_id.to_bytes(8, "little")
        self._all = Buckets(settings.request_rate)
        self._by_source = SourceBuckets(
            settings.source_rate, settings.source_buckets, random_bytes(16)
        )

    def read(self, datagram: bytes, now: float, unix_now: float) -> Request:
        """Read and check the clear part.

        A token that may have been accepted before the start is refused.  So is one that claims to
        live longer than the login service's tokens, since the next start could not tell it from a
        fresh one.  The standard requires the first in a looser form, and not the second.  The time
        of the start is computed back from the wall clock's present value: if the clock was
        corrected since, the login service's tokens agree with the corrected time.

        Raises:
            Ignored: it is no valid request to this server at this time.
        """
        if len(datagram) != REQUEST_BYTES:
            raise Ignored("bad_length")
        _, version, protocol_id, expires_at, nonce, sealed = _REQUEST.unpack(datagram)
        if version != VERSION:
            raise Ignored("bad_version")
        if protocol_id != self._settings.protocol_id:
            raise Ignored("wrong_protocol_id")
        if expires_at <= unix_now:
            raise Ignored("expired")
        if expires_at <= unix_now - (now - self._started_at) + self._longest:
            raise Ignored("issued_before_start")
        if expires_at > unix_now + self._longest:
            raise Ignored("lives_too_long")
        return Request(expires_at, nonce, sealed)

    def looks_right(self, datagram: bytes) -> bool:
        """Whether a request is worth queueing: it has the right length, version and protocol id."""
        return len(datagram) == REQUEST_BYTES and datagram.startswith(self._prefix)

    def has_room(self, now: float) -> bool:
        """Whether the rate limit of all sources has room for one more."""
        return self._all.has(now)

    def limit(self, host: str, now: float) -> None:
        """Charge a request that is about to be unsealed to the rate limits.

        The source's limit comes first, so that a flood from one source leaves the limit of all
        sources to the others.

        Raises:
            Ignored: a limit is reached, this source's or that of all sources.
        """
        network = network_of(host)
        if not (is_loopback(network) or self._by_source.take(now, network)):
            raise Ignored("source_rate")
        if not self._all.take(now):
            raise Ignored("request_rate")

    def unseal(self, request: Request) -> PrivateToken:
        """Open the token's private part, and check that it is for this server.

        Raises:
            Ignored: it does not open, is malformed, or does not list this server.
        """
        settings = self._settings
        try:
            token = PrivateToken.unseal(
                request.sealed,
                settings.private_key,
                settings.protocol_id,
                request.expires_at,
                request.nonce,
            )
        except NotSealed:
            raise Ignored("unseal_failed") from None
        except MalformedToken:
            raise Ignored("malformed_token") from None
        if settings.addresses.isdisjoint(token.addresses):
            raise Ignored("address_not_listed")
        return token

    def check_usable(self, token: PrivateToken) -> None:
        """Refuse a token that the standard allows and this server cannot use.

        Raises:
            Ignored: its client id or its timeout is outside the range allowed.
        """
        settings = self._settings
        if not 1 <= token.client_id <= settings.max_client_id:
            raise Ignored("client_id")
        if not settings.min_timeout <= token.timeout_seconds <= settings.max_timeout:
            raise Ignored("timeout")
