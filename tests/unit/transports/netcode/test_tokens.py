"""Addresses, connect tokens and challenge tokens, byte by byte."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import attrs
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.addresses import (
    Address,
    is_loopback,
    network_of,
    unpack_address,
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
from tests.kit.support import LAW

ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
addresses = st.builds(Address, ips, st.integers(1, 65_535))


class AddressTests(SynchronousTestCase):
    """An IP address and a port."""

    def test_bytes(self) -> None:
        """IPv4 as written; each group of an IPv6 address with its low byte first."""
        self.assertEqual(
            Address.parse("203.0.113.7:40000").pack(), bytes((1, 203, 0, 113, 7, 0x40, 0x9C))
        )
        self.assertEqual(
            Address.parse("[2001:db8::1]:258").pack(),
            bytes.fromhex("02 0120 b80d 0000 0000 0000 0000 0000 0100 0201"),
        )

    @LAW
    @given(address=addresses, before=st.binary(max_size=8))
    def test_round_trips(self, address: Address, before: bytes) -> None:
        """What is packed is read again, wherever it lies; what is printed is parsed again."""
        packed = before + address.pack()
        self.assertEqual(unpack_address(packed, len(before)), (address, len(packed)))
        self.assertEqual(Address.parse(str(address)), address)

    def test_no_address(self) -> None:
        """Another type is none, and data that end within an address hold none."""
        for data in (b"", b"\0" + bytes(6), b"\3" + bytes(18), b"\1" + bytes(5), b"\2" + bytes(17)):
            self.assertRaises(ValueError, unpack_address, data, 0)

    def test_no_text(self) -> None:
        """A name, a port out of range, an IPv6 address without brackets, a zone: not allowed."""
        for text in (
            *("", "203.0.113.7", "203.0.113.7:", "203.0.113.7:0", "203.0.113.7:65536"),
            *("example.org:40000", "[203.0.113.7]:40000", "2001:db8::1:40000", "203.0.113.7:x"),
            *("[fe80::1%eth0]:40000", "[2001:db8::1]", "203.0.113.7:\N{ARABIC-INDIC DIGIT ONE}"),
        ):
            with self.subTest(text):
                error = self.assertRaises(ValueError, Address.parse, text)
                self.assertIn("[2001:db8::1]:40000", str(error))

    def test_network(self) -> None:
        """Senders are told apart by IPv4 address, and by /64 of IPv6; a mapped one is IPv4."""
        self.assertEqual(network_of("203.0.113.7"), bytes((203, 0, 113, 7)))
        self.assertEqual(network_of("::ffff:203.0.113.7"), network_of("203.0.113.7"))
        self.assertEqual(network_of("2001:db8:1:2::3"), network_of("2001:db8:1:2:ffff::4"))
        self.assertNotEqual(network_of("2001:db8:1:2::3"), network_of("2001:db8:1:3::3"))
        self.assertEqual(network_of("fe80::1%eth0"), network_of("fe80::2"))

    def test_loopback(self) -> None:
        """This machine is told by its loopback addresses, however a socket names them."""
        for host in ("127.0.0.1", "127.1.2.3", "::ffff:127.0.0.1", "::1"):
            self.assertTrue(is_loopback(network_of(host)), host)
        for host in ("128.0.0.1", "0.0.0.0", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1"):
            self.assertFalse(is_loopback(network_of(host)), host)


class PrivateTokenTests(SynchronousTestCase):
    """What a server is told of a client."""

    token = PrivateToken(0x0807060504030201, -1, (ADDRESS,), b"C" * 32, b"S" * 32, b"U" * 256)

    def test_bytes(self) -> None:
        """The fields in their order, and zeros to 1,008 bytes."""
        head = bytes.fromhex("0102030405060708 ffffffff 01000000 01cb007107409c")
        fields = head + b"C" * 32 + b"S" * 32 + b"U" * 256
        self.assertEqual(self.token.pack(), fields.ljust(1008, b"\0"))
        self.assertEqual(PrivateToken.unpack(self.token.pack()), self.token)

    def test_sealed(self) -> None:
        """Sealed with version, protocol id and expiry as associated data, by another's hand."""
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
        """Another key, protocol id, expiry, nonce or bit, and it does not open."""
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
        """What is printed of a token shows no key and no user data."""
        for shown in (repr(self.token), repr(make_token())):
            self.assertNotIn("key", shown)
            self.assertNotIn("user_data", shown)
            self.assertLess(len(shown), 400)


class ConnectTokenTests(SynchronousTestCase):
    """What a client is handed."""

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
        """Another length or version, an expiry before the making, no address: none."""
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
    """What a client must bring back."""

    def test_bytes(self) -> None:
        """The number, then client id and user data under that number, opened by another's hand."""
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
        """A challenge of another start does not open, nor one that was changed."""
        body = Challenges(KEY).make(42, bytes(256))
        self.assertRaises(NotSealed, Challenges(b"K" * 32).open, body)
        for at in (0, 8, 307):
            changed = bytearray(body)
            changed[at] ^= 1
            self.assertRaises(NotSealed, Challenges(KEY).open, bytes(changed))
