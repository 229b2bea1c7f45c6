"""Which connect tokens were seen: each is good for one connection.

A token is *pending* from its first request on, and its requests may be repeated from the address
that brought it first.  Once its connection stands it is *consumed*, and admits nothing any more,
from anywhere: a second connection would seal other packets under the numbers of the first.

These are the rules of the reference since 1.4.5 (advisory GHSA-v29p-3vj4-vg4f).

The wall clock says when a token expires, and may be set back: what is forgotten must not be good
again then.  So an expired token is forgotten only to make room, the first to expire first, and a
token that is not known is refused where it expires no later than one that was forgotten.
"""

from __future__ import annotations

import heapq
from typing import Any

import attrs

from playerstate.transports.netcode.packets import Ignored

REMEMBERED = 2**14
"""So many tokens stay known beyond their expiry, as long as nothing newer needs the room."""


@attrs.define(eq=False)
class _Entry:
    source: Any
    number: int
    consumed: bool = False


class TokenHistory:
    """The tokens of one server, by their tags, each until it expires, and longer.

    A full history lets no new token in.  It never gives up a token that still lives, or a flood of
    tokens would make a used one good again.

    Args:
        size: the most tokens at a time.
        remembered: above so many, expired ones are forgotten.
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
        """Let the request of a token pass that is new, or pending from this very source.

        Args:
            tag: the token's last 16 bytes, its identity.
            expires_at: seconds since the Unix epoch; past `unix_now`.
            source: whence the request came.
            unix_now: the wall clock.

        Returns:
            Its number: a token that was seen for the first time later has a higher one.

        Raises:
            Ignored: it was used, may have been, is pending from elsewhere, or finds no room.
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
        """Let the token pass no more; one that was forgotten since is past use anyway."""
        entry = self._entries.get(tag)
        if entry is not None:
            entry.consumed = True

    def _make_room(self, unix_now: float) -> None:
        """Forget what has expired, the first to expire first, where there are too many tokens."""
        while len(self._entries) >= self._remembered and self._expiries[0][0] <= unix_now:
            self._forgotten_until, tag = heapq.heappop(self._expiries)
            del self._entries[tag]
