"""Which connect tokens were seen: each is good for one connection.

A token is *pending* from its first request on, and its requests may be repeated from the address
that brought it first.  Once its connection stands it is *consumed*, and admits nothing any more,
from anywhere: a second connection would seal other packets under the numbers of the first.

These are the rules of the reference since 1.4.5 (advisory GHSA-v29p-3vj4-vg4f).
"""

from __future__ import annotations

import heapq
from typing import Any

import attrs

from playerstate.transports.netcode.packets import Ignored


@attrs.define(eq=False)
class _Entry:
    source: Any
    consumed: bool = False


class TokenHistory:
    """The tokens of one server, by their tags, each until it expires.

    A full history lets no new token in.  It never gives up a token that still lives, or a flood of
    tokens would make a used one good again.

    Args:
        size: the most tokens at a time.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[bytes, _Entry] = {}
        self._expiries: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, tag: bytes, expires_at: int, source: Any, unix_now: float) -> None:
        """Let the request of a token pass that is new, or pending from this very source.

        Args:
            tag: the token's last 16 bytes, its identity.
            expires_at: seconds since the Unix epoch; past `unix_now`.
            source: whence the request came.
            unix_now: a wall clock that never steps back, else a used token would be forgotten and
                then live again.

        Raises:
            Ignored: it was used, is pending from elsewhere, or finds no room.
        """
        self._forget_expired(unix_now)
        entry = self._entries.get(tag)
        if entry is None:
            if len(self._entries) >= self._size:
                raise Ignored("token_history_full")
            self._entries[tag] = _Entry(source)
            heapq.heappush(self._expiries, (expires_at, tag))
        elif entry.consumed:
            raise Ignored("token_consumed")
        elif entry.source != source:
            raise Ignored("token_pending_elsewhere")

    def consume(self, tag: bytes) -> None:
        """Let the token pass no more; one that has expired since is past use anyway."""
        entry = self._entries.get(tag)
        if entry is not None:
            entry.consumed = True

    def _forget_expired(self, unix_now: float) -> None:
        while self._expiries and self._expiries[0][0] <= unix_now:
            _, tag = heapq.heappop(self._expiries)
            del self._entries[tag]
