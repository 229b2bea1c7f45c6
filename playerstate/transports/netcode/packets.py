"""Sealed packets: prefix byte, sequence number, sealed body.

The prefix byte holds the kind of packet in its low four bits and the number of sequence bytes in
its high four.  The sequence follows, low byte first, without its high zero bytes but at least one.
Body and tag are sealed with ChaCha20-Poly1305 under the sequence, with the version, the protocol id
and the prefix byte as associated data.  A request to connect, prefix byte 0, is the one datagram
that is not such a packet; see `requests`.
"""

from __future__ import annotations

import struct
from collections.abc import Container

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from playerstate.transports.netcode.tokens import CHALLENGE_BYTES, TAG_BYTES, VERSION

REQUEST, DENIED, CHALLENGE, RESPONSE, KEEP_ALIVE, PAYLOAD, DISCONNECT = range(7)
TO_SERVER = frozenset((RESPONSE, KEEP_ALIVE, PAYLOAD, DISCONNECT))
TO_CLIENT = frozenset((DENIED, CHALLENGE, KEEP_ALIVE, PAYLOAD, DISCONNECT))
NUMBERED = frozenset((KEEP_ALIVE, PAYLOAD, DISCONNECT))
"""The kinds checked against the replay window; repeats of the handshake's packets are harmless."""
MAX_PAYLOAD = 1200
"""Bytes of the longest payload."""
MAX_DATAGRAM = 1 + 8 + MAX_PAYLOAD + TAG_BYTES
"""Bytes of the longest valid datagram; a request has 1,078."""
SPEAK_EVERY = 0.1
"""Seconds without sending after which either side sends a keep-alive, and between two requests or
responses: the standard's 10 Hz."""
DISCONNECTS = 10
"""Disconnect packets sent in a row: each may be lost, and none is acknowledged."""
KEEP_ALIVE_BODY = struct.Struct("<II")
"""The client's slot, and the number of slots; a client sends zeros."""

_MIN_DATAGRAM = 1 + 1 + TAG_BYTES
_MAX_SEQUENCE_BYTES = 8
_NONCE = struct.Struct("<4xQ")
_read_sequence = struct.Struct("<Q").unpack_from
_SEQUENCE_MASKS = [(1 << 8 * max(0, body_at - 1)) - 1 for body_at in range(2 + _MAX_SEQUENCE_BYTES)]
"""By the offset of the body: the sequence is read as eight bytes and the bytes behind it are masked
out, at half the cost of slicing its own bytes first.  The shortest datagram has that many."""
_BODY_BYTES = {
    DENIED: (0, 0),
    CHALLENGE: (CHALLENGE_BYTES, CHALLENGE_BYTES),
    RESPONSE: (CHALLENGE_BYTES, CHALLENGE_BYTES),
    KEEP_ALIVE: (KEEP_ALIVE_BODY.size, KEEP_ALIVE_BODY.size),
    PAYLOAD: (1, MAX_PAYLOAD),
    DISCONNECT: (0, 0),
}


class Ignored(Exception):
    """A datagram breaks a rule; it gets no answer, and no client's state changes.

    Attributes:
        reason: the name of its counter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_header(datagram: bytes, allowed: Container[int]) -> tuple[int, int, int]:
    """A packet's kind, its sequence, and the offset of its sealed body; the body is not opened.

    Args:
        datagram: at least one byte.
        allowed: the kinds accepted here.

    Raises:
        Ignored: it is shorter or longer than any packet, of a kind that is not allowed, or has
            other than 1 to 8 sequence bytes.
    """
    size = len(datagram)
    if not _MIN_DATAGRAM <= size <= MAX_DATAGRAM:
        raise Ignored("too_short" if size < _MIN_DATAGRAM else "too_long")
    prefix = datagram[0]
    kind = prefix & 0x0F
    if kind not in allowed:
        raise Ignored("type_not_allowed" if REQUEST < kind <= DISCONNECT else "bad_type")
    body_at = 1 + (prefix >> 4)
    if not 1 < body_at <= 1 + _MAX_SEQUENCE_BYTES:
        raise Ignored("bad_sequence_length")
    if size < body_at + TAG_BYTES:
        raise Ignored("too_short")
    return kind, _read_sequence(datagram, 1)[0] & _SEQUENCE_MASKS[body_at], body_at


def check_body(kind: int, body: bytes) -> None:
    """Check the length of an opened body against its kind.

    Raises:
        Ignored: it is shorter or longer.
    """
    low, high = _BODY_BYTES[kind]
    if not low <= len(body) <= high:
        raise Ignored("bad_body_size")


class Seals:
    """Seals and opens the packets of one protocol id.

    Args:
        protocol_id: of the game, 64 bits.
    """

    def __init__(self, protocol_id: int) -> None:
        head = VERSION + protocol_id.to_bytes(8, "little")
        self._associated = [head + bytes((prefix,)) for prefix in range(256)]
        self._nonce = _NONCE.pack

    def seal(self, cipher: ChaCha20Poly1305, kind: int, sequence: int, body: bytes = b"") -> bytes:
        """Return a whole packet.  A key must not seal the same sequence twice."""
        size = (sequence.bit_length() + 7) // 8 or 1
        prefix = size << 4 | kind
        sealed = cipher.encrypt(self._nonce(sequence), body, self._associated[prefix])
        return bytes((prefix,)) + sequence.to_bytes(size, "little") + sealed

    def open(self, cipher: ChaCha20Poly1305, datagram: bytes, sequence: int, body_at: int) -> bytes:
        """Return the body of a packet whose header `read_header` has read.

        Raises:
            Ignored: it was not sealed with this key, or was changed on the way.
        """
        try:
            return cipher.decrypt(
                self._nonce(sequence), datagram[body_at:], self._associated[datagram[0]]
            )
        except InvalidTag:
            raise Ignored("open_failed") from None
