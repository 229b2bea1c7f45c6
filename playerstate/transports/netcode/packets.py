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
"""The kinds held against the replay window; the others repeat what the handshake makes harmless."""
MAX_PAYLOAD = 1200
MAX_DATAGRAM = 1 + 8 + MAX_PAYLOAD + TAG_BYTES
"""Bytes of the longest datagram that can mean anything, a request's 1,078 among them."""
KEEP_ALIVE_BODY = struct.Struct("<II")
"""The client's slot, and how many there are; a client sends zeros."""

_MIN_DATAGRAM = 1 + 1 + TAG_BYTES
_MAX_SEQUENCE_BYTES = 8
_NONCE = struct.Struct("<4xQ")
_read_sequence = struct.Struct("<Q").unpack_from
_SEQUENCE_MASKS = [(1 << 8 * max(0, body_at - 1)) - 1 for body_at in range(2 + _MAX_SEQUENCE_BYTES)]
"""By where the body begins: the sequence is read with what follows it, eight bytes at once, which
is half of what taking its own bytes out first costs.  The shortest datagram has that many."""
_BODY_BYTES = {
    DENIED: (0, 0),
    CHALLENGE: (CHALLENGE_BYTES, CHALLENGE_BYTES),
    RESPONSE: (CHALLENGE_BYTES, CHALLENGE_BYTES),
    KEEP_ALIVE: (KEEP_ALIVE_BODY.size, KEEP_ALIVE_BODY.size),
    PAYLOAD: (1, MAX_PAYLOAD),
    DISCONNECT: (0, 0),
}


class Ignored(Exception):
    """A datagram that keeps to no rule, and so gets no answer and changes nothing.

    Attributes:
        reason: the name under which it is counted.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_header(datagram: bytes, allowed: Container[int]) -> tuple[int, int, int]:
    """A packet's kind, its sequence, and where its sealed body begins; nothing is opened.

    Args:
        datagram: at least one byte.
        allowed: the kinds that have business here.

    Raises:
        Ignored: it is shorter or longer than any packet, of no kind that is allowed, or has not 1
            to 8 sequence bytes.
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
    """Hold an opened body to the length of its kind.

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
        """A whole packet; each sequence may be sealed once with a key."""
        size = (sequence.bit_length() + 7) // 8 or 1
        prefix = size << 4 | kind
        sealed = cipher.encrypt(self._nonce(sequence), body, self._associated[prefix])
        return bytes((prefix,)) + sequence.to_bytes(size, "little") + sealed

    def open(self, cipher: ChaCha20Poly1305, datagram: bytes, sequence: int, body_at: int) -> bytes:
        """The body of a packet, once `read_header` has said what it claims to be.

        Raises:
            Ignored: it was not sealed with this key, or was changed on the way.
        """
        try:
            return cipher.decrypt(
                self._nonce(sequence), datagram[body_at:], self._associated[datagram[0]]
            )
        except InvalidTag:
            raise Ignored("open_failed") from None
