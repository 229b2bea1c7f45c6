"""How a client gets in: its request is answered by a challenge, its response by a connection.

The steps of each rule stand in the order of the standard; a step that fails raises `Ignored`.  No
client's state has changed then.  What stays is that the request was charged to the rate limits, and
that a token once admitted to the history is known there, even if no half-open client had room.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from playerstate.transports.netcode.connections import Connection, HalfOpen, Source
from playerstate.transports.netcode.history import TokenHistory
from playerstate.transports.netcode.outgoing import Outgoing
from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    RESPONSE,
    TO_SERVER,
    Ignored,
    Seals,
    check_body,
    read_header,
)
from playerstate.transports.netcode.requests import Requests
from playerstate.transports.netcode.roaming import is_silent
from playerstate.transports.netcode.roster import Roster
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tally import Tally
from playerstate.transports.netcode.tokens import KEY_BYTES, Challenges, NotSealed

TAKE_OVER_AFTER = 1.0
"""Seconds before a connection can be replaced by another of the same client: two devices with a
token each replace one another no faster than that."""


@attrs.frozen
class Admitted:
    """A client that answered its challenge and is to be connected.

    Attributes:
        half: its record until now.
        before: its connection at another source or at this one, to be replaced; None without one.
        there: a silent connection at this source, to be timed out if it is not `before`.
    """

    half: HalfOpen
    before: Connection | None
    there: Connection | None


class Handshake:
    """The handshakes of one server, from its start to its stop.

    Args:
        settings: how clients are let in.
        roster: the connected clients; only read.
        seals: of the server's protocol id.
        outgoing: gets the challenges and denials.
        tally: counts them.
        now: the time of the start, on a clock that never steps.
        wall_clock: seconds since the Unix epoch; it may step.
        random_bytes: returns so many random bytes, fit for keys.

    Attributes:
        half_open: the clients that were challenged and have not answered, by source.
        requests: the checks of requests.
    """

    def __init__(
        self,
        settings: NetcodeSettings,
        roster: Roster,
        seals: Seals,
        outgoing: Outgoing,
        tally: Tally,
        *,
        now: float,
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._roster = roster
        self._seals = seals
        self._outgoing = outgoing
        self._tally = tally
        self._wall_clock = wall_clock
        self._most_half_open = settings.half_open
        self._history = TokenHistory(settings.history_size)
        self._challenges = Challenges(random_bytes(KEY_BYTES))
        self.requests = Requests(settings, now, random_bytes)
        self.half_open: dict[Source, HalfOpen] = {}

    def receive_request(self, datagram: bytes, source: Source, now: float) -> None:
        """Receive a request; answer it by a challenge, or by a denial if no slot is free.

        Raises:
            Ignored: a rule is broken, or there is no room.
        """
        unix_now = self._wall_clock()
        request = self.requests.read(datagram, now, unix_now)
        there = self._check_free(source, now)
        self.requests.limit(source[0], now)
        token = self.requests.unseal(request)
        before = self._roster.by_client.get(token.client_id)
        if before is not None:
            _check_take_over(before, math.inf, now)
        self.requests.check_usable(token)
        tag = request.tag
        number = self._history.admit(tag, request.expires_at, source, unix_now)
        if before is not None:
            _check_take_over(before, number, now)
        sealer = ChaCha20Poly1305(token.server_to_client_key)
        if before is None and there is None and self._roster.is_full:
            return self._deny(sealer, source)
        if source not in self.half_open and len(self.half_open) >= self._most_half_open:
            raise Ignored("half_open_full")
        opener = ChaCha20Poly1305(token.client_to_server_key)
        lapses_at = now + token.timeout_seconds
        self.half_open[source] = HalfOpen(token, tag, opener, sealer, number, lapses_at)
        body = self._challenges.make(token.client_id, token.user_data)
        self._tally.challenged += 1
        self._outgoing.say_globally(sealer, CHALLENGE, body, source)

    def receive_response(self, datagram: bytes, source: Source, now: float) -> Admitted | None:
        """Receive a packet from a half-open client, of which only a response is accepted.

        Returns:
            The client, which is not half-open any more, and whose token is used up.  None if it is
            answered by a denial, since no slot is free.

        Raises:
            Ignored: a rule is broken.
        """
        half = self.half_open[source]
        there = self._check_free(source, now)
        kind, sequence, body_at = read_header(datagram, TO_SERVER)
        if kind != RESPONSE:
            raise Ignored("not_connected")
        body = self._seals.open(half.opener, datagram, sequence, body_at)
        check_body(kind, body)
        client_id = self.open_challenge(body)
        before = self._roster.by_client.get(client_id)
        if before is not None:
            _check_take_over(before, half.number, now)
        if client_id != half.token.client_id:
            # Otherwise the holder of two tokens could connect as the client of one, under the keys
            # of the other, and use both again.  The standard does not require this check.
            raise Ignored("client_id_differs")
        if before is None and there is None and self._roster.is_full:
            self._deny(half.sealer, source)
            return None
        self._history.consume(half.tag)
        del self.half_open[source]
        return Admitted(half, before, there)

    def open_challenge(self, body: bytes) -> int:
        """The client id in a challenge that a client returned.

        Raises:
            Ignored: this server did not make it since its start.
        """
        try:
            return self._challenges.open(body)
        except NotSealed:
            raise Ignored("bad_challenge") from None

    def lapse(self, now: float) -> None:
        """Remove the clients that did not answer in time."""
        lapsed = [source for source, half in self.half_open.items() if half.lapses_at <= now]
        for source in lapsed:
            del self.half_open[source]

    def _check_free(self, source: Source, now: float) -> Connection | None:
        """Refuse a source where an active client is connected; return a silent one there, if any.

        A restarted client may send from its earlier port, and a router may give a client the port
        of another that has gone.
        """
        there = self._roster.by_source.get(source)
        if there is not None and not is_silent(there, now):
            raise Ignored("address_connected")
        return there

    def _deny(self, sealer: ChaCha20Poly1305, source: Source) -> None:
        self._tally.denied += 1
        self._outgoing.say_globally(sealer, DENIED, b"", source)


def _check_take_over(before: Connection, number: int | float, now: float) -> None:
    """Refuse to replace a client's connection that is too young, or whose token is newer.

    A client that presents a fresh token and answers at a new address has given its old connection
    up; the standard makes it wait until that has timed out.
    """
    if number < before.number or now < before.began_at + TAKE_OVER_AFTER:
        raise Ignored("client_id_connected")
