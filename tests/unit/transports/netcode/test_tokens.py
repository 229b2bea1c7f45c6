"""Connect tokens and challenge tokens, byte by byte."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import attrs
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.addresses import (
    Address,
)
from playerstate.transports.netcode.tokens import (
    VERSION,
    Challenges,
    ConnectToken,
    MalformedToken,
    NotSealed,
    PrivateToken,
)
from tests.kit.netcode import ADDRESS, EPOCH, KEY, PROTOCOL_ID, make_token


class PrivateTokenTests(SynchronousTestCase):
    """The private part of a connect token, which a server reads."""

    token = PrivateToken(0x0807060504030201, -1, (ADDRESS,), b"C" * 32, b"S" * 32, b"U" * 256)

    def test_bytes(self) -> None:
        """The fields in their order, and zeros to 1,008 bytes."""
        head = bytes.fromhex("0102030405060708 ffffffff 01000000 01cb007107409c")
        fields = head + b"C" * 32 + b"S" * 32 + b"U" * 256
        self.assertEqual(self.token.pack(), fields.ljust(1008, b"\0"))
        self.assertEqual(PrivateToken.unpack(self.token.pack()), self.token)

    def test_sealed(self) -> None:
        """The seal is libsodium's, with version, protocol id and expiry as associated data."""
        sealed = self.token.seal(KEY, PROTOCOL_ID, EPOCH, b"N" * 24)
        associated = VERSION + struct.pack("<QQ", PROTOCOL_ID, EPOCH)
        self.assertEqual(
            sealed,
            crypto_aead_xchacha20poly1305_ietf_encrypt(
                self.token.pack(), associated, b"N" * 24, KEY
            ),
        )
        self.assertEqual(len(sealed), 1024)
        opened = PrivateToken.unseal(sealed, KEY, PROTOCOL_ID, EPOCH, b"N" * 24)
        self.assertEqual(opened, self.token)

    def test_not_sealed(self) -> None:
        """Another key, protocol id, expiry or nonce does not open it, nor can it be changed."""
        sealed = self.token.seal(KEY, PROTOCOL_ID, EPOCH, b"N" * 24)
        good = (sealed, KEY, PROTOCOL_ID, EPOCH, b"N" * 24)
        bad = (
            (bytes((sealed[0] ^ 1,)) + sealed[1:], *good[1:]),
            (sealed, b"K" * 32, *good[2:]),
            (*good[:2], PROTOCOL_ID + 1, *good[3:]),
            (*good[:3], EPOCH + 1, good[4]),
            (*good[:4], b"M" * 24),
        )
        for arguments in bad:
            self.assertRaises(NotSealed, PrivateToken.unseal, *arguments)

    def test_most_addresses(self) -> None:
        """32 IPv6 addresses fit, and no more are read."""
        one = Address(IPv6Address("2001:db8::1"), 1)
        full = attrs.evolve(self.token, addresses=(one,) * 32)
        self.assertEqual(PrivateToken.unpack(full.pack()), full)
        for count in (0, 33, 2**32 - 1):
            plain = bytearray(full.pack())
            struct.pack_into("<I", plain, 12, count)
            self.assertRaises(MalformedToken, PrivateToken.unpack, bytes(plain))

    def test_secrets_are_not_shown(self) -> None:
        """The repr of a token shows no key and no user data."""
        for shown in (repr(self.token), repr(make_token())):
            self.assertNotIn("key", shown)
            self.assertNotIn("user_data", shown)
            self.assertLess(len(shown), 400)


class ConnectTokenTests(SynchronousTestCase):
    """A whole connect token, which a client reads."""

    def test_bytes(self) -> None:
        """Each field at its place, and zeros to 2,048 bytes."""
        other = Address(IPv4Address("192.0.2.1"), 1)
        token = make_token(addresses=(ADDRESS, other), timeout=7)
        data = token.pack()
        self.assertEqual(len(data), 2048)
        self.assertEqual(
            struct.unpack_from("<13sQQQ24s", data),
            (VERSION, PROTOCOL_ID, token.created_at, token.expires_at, token.nonce),
        )
        self.assertEqual(data[61:1085], token.sealed)
        self.assertEqual(struct.unpack_from("<iI", data, 1085), (7, 2))
        self.assertEqual(data[1093:1107], ADDRESS.pack() + other.pack())
        keys = token.client_to_server_key + token.server_to_client_key
        self.assertEqual(data[1107:1171], keys)
        self.assertEqual(data[1171:].strip(b"\0"), b"")
        self.assertEqual(ConnectToken.unpack(data), token)

    def test_not_a_token(self) -> None:
        """Another length or version, an expiry before the creation, and no address are refused."""
        good = make_token().pack()
        for bad in (
            good[:-1],
            good + b"\0",
            b"X" + good[1:],
            good[:29] + bytes(8) + good[37:],
            good[:1089] + bytes(4) + good[1093:],
            good[:1093] + b"\5" + good[1094:],
        ):
            self.assertRaises(MalformedToken, ConnectToken.unpack, bad)


class ChallengeTests(SynchronousTestCase):
    """Challenge tokens, which a client returns."""

    def test_bytes(self) -> None:
        """Its number, then client id and user data, sealed under that number as libsodium does."""
        challenges = Challenges(KEY)
        for number in range(3):
            body = challenges.make(42 + number, b"U" * 256)
            self.assertEqual(len(body), 308)
            self.assertEqual(body[:8], struct.pack("<Q", number))
            nonce = struct.pack("<4xQ", number)
            plain = crypto_aead_chacha20poly1305_ietf_decrypt(body[8:], b"", nonce, KEY)
            expected = struct.pack("<Q", 42 + number) + b"U" * 256
            self.assertEqual(plain, expected.ljust(284, b"\0"))
            self.assertEqual(challenges.open(body), 42 + number)

    def test_another_start(self) -> None:
        """A challenge of another start does not open, nor does one that was changed."""
        body = Challenges(KEY).make(42, bytes(256))
        self.assertRaises(NotSealed, Challenges(b"K" * 32).open, body)
        for at in (0, 8, 307):
            changed = bytearray(body)
            changed[at] ^= 1
            self.assertRaises(NotSealed, Challenges(KEY).open, bytes(changed))
