"""The connect tokens that a server has seen: each is good for one connection.

A token is *pending* from its first request on, and its requests may be repeated from the address
that sent the first.  Once its connection is established it is *consumed*, and no request with it
is accepted from any address: a second connection would seal other packets under the numbers of the
first.

These are the rules of the reference since 1.4.5 (advisory GHSA-v29p-3vj4-vg4f).

A token expires by the wall clock, which may be set back: a forgotten token must not become good
again then.  So an expired token is forgotten only to make room, the earliest expiry first, and an
unknown token is refused if it expires no later than one that was forgotten.
"""

from __future__ import annotations

import heapq
from typing import Any

import attrs

from playerstate.transports.netcode.packets import Ignored

REMEMBERED = 2**14
"""Tokens that are kept beyond their expiry, as long as no newer token needs the room."""


@attrs.define(eq=False)
class _Entry:
    source: Any
    number: int
    consumed: bool = False


class TokenHistory:
    """The tokens of one server, by their tags, each at least until it expires.

    A full history refuses new tokens.  It never forgets a token that has not expired, or a flood of
    tokens would make a used one good again.

    Args:
        size: the most tokens at a time.
        remembered: the number of tokens from which on expired ones are forgotten.
    """

    def __init__(self, size: int, remembered: int = REMEMBERED) -> None:
        self._size = size
        self._remembered = min(size, remembered)
        self._number = 0
        self._forgotten_until = 0
        self._entries: dict[bytes, _Entry] = {}
        self._expiries: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, tag: bytes, expires_at: int, source: Any, unix_now: float) -> int:
        """Accept a request whose token is new, or pending from this very source.

        Args:
            tag: the token's last 16 bytes, its identity.
            expires_at: seconds since the Unix epoch; past `unix_now`.
            source: the sender of the request.
            unix_now: the wall clock.

        Returns:
            The token's number: tokens are numbered in the order of their first requests.

        Raises:
            Ignored: the token was used, may have been used, is pending from another source, or
                there is no room for it.
        """
        entry = self._entries.get(tag)
        if entry is None:
            self._make_room(unix_now)
            if expires_at <= self._forgotten_until:
                raise Ignored("token_forgotten")
            if len(self._entries) >= self._size:
                raise Ignored("token_history_full")
            self._number += 1
            entry = self._entries[tag] = _Entry(source, self._number)
            heapq.heappush(self._expiries, (expires_at, tag))
        elif entry.consumed:
            raise Ignored("token_consumed")
        elif entry.source != source:
            raise Ignored("token_pending_elsewhere")
        return entry.number

    def consume(self, tag: bytes) -> None:
        """Refuse the token from now on; one that was forgotten since is refused anyway."""
        entry = self._entries.get(tag)
        if entry is not None:
            entry.consumed = True

    def _make_room(self, unix_now: float) -> None:
        """While there are too many tokens, forget expired ones, the earliest expiry first."""
        while len(self._entries) >= self._remembered and self._expiries[0][0] <= unix_now:
            self._forgotten_until, tag = heapq.heappop(self._expiries)
            del self._entries[tag]
