"""Sealed packets: prefix byte, sequence, body."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    DISCONNECT,
    KEEP_ALIVE,
    PAYLOAD,
    RESPONSE,
    TO_SERVER,
    Ignored,
    Seals,
    check_body,
    read_header,
)
from playerstate.transports.netcode.tokens import VERSION
from tests.kit.netcode import KEY, PROTOCOL_ID
from tests.kit.support import LAW

sequences = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda n: 2**n))


class PacketTests(SynchronousTestCase):
    """Prefix byte, sequence, sealed body."""

    seals = Seals(PROTOCOL_ID)
    cipher = ChaCha20Poly1305(KEY)

    def test_bytes(self) -> None:
        """The sequence without high zero bytes, then the body, sealed as libsodium does."""
        for sequence, prefix, number in (
            (0, 0x15, "00"),
            (255, 0x15, "ff"),
            (1000, 0x25, "e803"),
            (2**63, 0x85, "0000000000000080"),
        ):
            packet = self.seals.seal(self.cipher, PAYLOAD, sequence, b"abc")
            head = bytes((prefix,)) + bytes.fromhex(number)
            associated = VERSION + struct.pack("<QB", PROTOCOL_ID, prefix)
            nonce = bytes(4) + struct.pack("<Q", sequence)
            sealed = crypto_aead_chacha20poly1305_ietf_encrypt(b"abc", associated, nonce, KEY)
            self.assertEqual(packet, head + sealed)

    @LAW
    @given(
        kind=st.sampled_from(sorted(TO_SERVER)), sequence=sequences, body=st.binary(max_size=1200)
    )
    def test_round_trip(self, kind: int, sequence: int, body: bytes) -> None:
        """A sealed packet is read and opened again."""
        packet = self.seals.seal(self.cipher, kind, sequence, body)
        read = read_header(packet, TO_SERVER)
        self.assertEqual(read[:2], (kind, sequence))
        self.assertEqual(self.seals.open(self.cipher, packet, *read[1:]), body)

    @LAW
    @given(packet=st.binary(min_size=1, max_size=60), flipped=st.integers(0, 10**6))
    def test_reader(self, packet: bytes, flipped: int) -> None:
        """Any bytes are read or ignored; nothing that was not sealed opens."""
        try:
            _, sequence, at = read_header(packet, TO_SERVER)
        except Ignored:
            pass
        else:
            self.assertRaises(Ignored, self.seals.open, self.cipher, packet, sequence, at)
        whole = self.seals.seal(self.cipher, PAYLOAD, 300, packet)
        bit = flipped % (8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        with self.assertRaises(Ignored):
            _, sequence, at = read_header(bytes(changed), TO_SERVER)
            self.seals.open(self.cipher, bytes(changed), sequence, at)

    def reason(self, packet: bytes) -> str:
        """Why a packet is not read."""
        return self.assertRaises(Ignored, read_header, packet, TO_SERVER).reason

    def test_reasons(self) -> None:
        """The length is checked first, then the kind, then the number of sequence bytes."""
        rest = bytes(40)
        self.assertEqual(self.reason(b"\x15" + bytes(16)), "too_short")
        self.assertEqual(self.reason(b"\x15" + bytes(1225)), "too_long")
        for kind in (0, 7, 15):
            self.assertEqual(self.reason(bytes((0x10 | kind,)) + rest), "bad_type")
        for kind in (DENIED, CHALLENGE):
            self.assertEqual(self.reason(bytes((0x10 | kind,)) + rest), "type_not_allowed")
        for count in (0, 9, 15):
            self.assertEqual(self.reason(bytes((count << 4 | 5,)) + rest), "bad_sequence_length")
        self.assertEqual(self.reason(b"\x85" + bytes(23)), "too_short")
        read_header(b"\x85" + bytes(24), TO_SERVER)
        read_header(b"\x85" + bytes(1224), TO_SERVER)

    def test_long_form(self) -> None:
        """A sequence in more bytes than it needs is read as itself."""
        packet = b"\x35\x05\0\0" + bytes(16)
        self.assertEqual(read_header(packet, TO_SERVER), (PAYLOAD, 5, 4))

    def test_body_sizes(self) -> None:
        """Each kind has its length."""
        for kind, low, high in (
            (DENIED, 0, 0),
            (CHALLENGE, 308, 308),
            (RESPONSE, 308, 308),
            (KEEP_ALIVE, 8, 8),
            (PAYLOAD, 1, 1200),
            (DISCONNECT, 0, 0),
        ):
            for size in (low, high):
                check_body(kind, bytes(size))
            for size in {low - 1, high + 1} - {-1}:
                self.assertRaises(Ignored, check_body, kind, bytes(size))
