"""A netcode server's outgoing datagrams: sealed, numbered, and queued until they are taken."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from playerstate.transports.netcode.connections import Connection, Source
from playerstate.transports.netcode.packets import (
    DISCONNECT,
    DISCONNECTS,
    KEEP_ALIVE,
    KEEP_ALIVE_BODY,
    PAYLOAD,
    Seals,
)

FIRST_GLOBAL_SEQUENCE = 2**63
"""The first number of challenges and denials, at each start.  They are sealed with the keys of
tokens, as are the packets of connections, whose numbers begin at 0."""


class Outgoing:
    """The outgoing datagrams of one server, in sending order.

    Args:
        seals: of the server's protocol id.
        slots: the most clients at a time, as keep-alives state it.
    """

    def __init__(self, seals: Seals, slots: int) -> None:
        self._seals = seals
        self._slots = slots
        self._global_sequence = FIRST_GLOBAL_SEQUENCE
        self._datagrams: list[tuple[bytes, Source]] = []

    def take(self) -> list[tuple[bytes, Source]]:
        """Return and remove all queued datagrams, each with its destination."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def say_globally(
        self, sealer: ChaCha20Poly1305, kind: int, body: bytes, source: Source
    ) -> None:
        """Queue a packet to a client that is not connected, sealed with the key of its token."""
        datagram = self._seals.seal(sealer, kind, self._global_sequence, body)
        self._global_sequence += 1
        self._datagrams.append((datagram, source))

    def say_payload(self, connection: Connection, payload: bytes, now: float) -> None:
        """Queue a payload."""
        self._say(connection, PAYLOAD, payload, now)

    def say_alive(self, connection: Connection, now: float) -> None:
        """Queue a keep-alive, with the client's slot."""
        self._say(connection, KEEP_ALIVE, KEEP_ALIVE_BODY.pack(connection.slot, self._slots), now)

    def say_disconnected(self, connection: Connection, now: float) -> None:
        """Queue the disconnect packets."""
        for _ in range(DISCONNECTS):
            self._say(connection, DISCONNECT, b"", now)

    def _say(self, connection: Connection, kind: int, body: bytes, now: float) -> None:
        datagram = self._seals.seal(connection.sealer, kind, connection.sequence, body)
        connection.sequence += 1
        connection.spoke_at = now
        self._datagrams.append((datagram, connection.source))
