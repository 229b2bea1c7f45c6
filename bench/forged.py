"""Forged requests to connect: what each costs a server, at the rate it looks into and beyond."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from bench.netcode_clients import KEY, PROTOCOL_ID
from playerstate.tokens import connect_token
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.connections import Source
from playerstate.transports.netcode.requests import make_request
from playerstate.transports.netcode.server import Server
from playerstate.transports.netcode.settings import REQUEST_RATE, NetcodeSettings
from playerstate.transports.netcode.tokens import ConnectToken, NotSealed, PrivateToken

ADDRESS = "127.0.0.1:40000"
COUNT = 1_000
_SOURCE: Source = ("127.0.0.1", 5000, None)
"""This machine, which is not held to what one source may ask: all are unsealed."""


class Forgeries:
    """A thousand requests that are in order but for their seal, and a server to get them."""

    def __init__(self) -> None:
        # A server takes no token that may be older than it is: this one has run for a while.
        self._tokens = [self._forged(number) for number in range(1, COUNT + 1)]
        self.requests = [make_request(token) for token in self._tokens]
        self._server = Server(
            NetcodeSettings(KEY, PROTOCOL_ID, frozenset({Address.parse(ADDRESS)})),
            now=-60.0,
            wall_clock=time.time,
            random_bytes=os.urandom,
        )
        self._now = 0.0

    @staticmethod
    def _forged(session_id: int) -> ConnectToken:
        """A token sealed with another key."""
        another = bytes(32)
        return ConnectToken.unpack(
            connect_token(session_id, key=another, protocol_id=PROTOCOL_ID, addresses=[ADDRESS])
        )

    def unsealed(self) -> float:
        """Microseconds of a request that is unsealed, and found to be forged."""
        return self._cost(1.0 / REQUEST_RATE.per_second, "unseal_failed")

    def beyond_the_rate(self) -> float:
        """Microseconds of one that is refused before that, since there were too many."""
        for request in self.requests * (REQUEST_RATE.burst // COUNT + 1):
            self._server.receive(request, _SOURCE, self._now)
        return self._cost(0.0, "request_rate")

    def unsealing_alone(self) -> float:
        """Microseconds of the unsealing, which is libsodium's."""
        unseal = PrivateToken.unseal
        started = time.perf_counter()
        for token in self._tokens:
            try:
                unseal(token.sealed, KEY, PROTOCOL_ID, token.expires_at, token.nonce)
            except NotSealed:
                continue
        return (time.perf_counter() - started) / COUNT * 1e6

    def _cost(self, interval: float, reason: str) -> float:
        if interval:
            self._now += 10.0  # whatever came before, the bucket is full again
        receive, ignored, now = self._server.receive, self._server.tally.ignored, self._now
        before = ignored[reason]
        started = time.perf_counter()
        for request in self.requests:
            now += interval
            receive(request, _SOURCE, now)
        cost = (time.perf_counter() - started) / COUNT * 1e6
        self._now = now
        assert ignored[reason] - before == COUNT, ignored
        assert not self._server.datagrams_to_send(), "a forged request was answered"
        assert not self._server.connections, "a forged request was accepted"
        assert self._server.half_open == 0
        return cost

    def measures(self) -> dict[str, Callable[[], float]]:
        """What is measured, by name."""
        return {
            "a forged request": self.unsealed,
            "the unsealing alone": self.unsealing_alone,
            "beyond the rate": self.beyond_the_rate,
        }
