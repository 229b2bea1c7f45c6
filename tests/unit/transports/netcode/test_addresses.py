"""Addresses of servers, as text and in tokens, and the networks of senders."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.addresses import (
    Address,
    is_loopback,
    network_of,
    unpack_address,
)
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
        """Unpacking returns what was packed, at any offset; parsing returns what was printed."""
        packed = before + address.pack()
        self.assertEqual(unpack_address(packed, len(before)), (address, len(packed)))
        self.assertEqual(Address.parse(str(address)), address)

    def test_no_address(self) -> None:
        """An unknown type, and data that end within an address, are refused."""
        for data in (b"", b"\0" + bytes(6), b"\3" + bytes(18), b"\1" + bytes(5), b"\2" + bytes(17)):
            self.assertRaises(ValueError, unpack_address, data, 0)

    def test_no_text(self) -> None:
        """A name, a port out of range, an IPv6 address without brackets and a zone are refused."""
        for text in (
            *("", "203.0.113.7", "203.0.113.7:", "203.0.113.7:0", "203.0.113.7:65536"),
            *("example.org:40000", "[203.0.113.7]:40000", "2001:db8::1:40000", "203.0.113.7:x"),
            *("[fe80::1%eth0]:40000", "[2001:db8::1]", "203.0.113.7:\N{ARABIC-INDIC DIGIT ONE}"),
        ):
            with self.subTest(text):
                error = self.assertRaises(ValueError, Address.parse, text)
                self.assertIn("[2001:db8::1]:40000", str(error))

    def test_network(self) -> None:
        """A sender's network is an IPv4 address, or a /64 of IPv6; a mapped address is IPv4."""
        self.assertEqual(network_of("203.0.113.7"), bytes((203, 0, 113, 7)))
        self.assertEqual(network_of("::ffff:203.0.113.7"), network_of("203.0.113.7"))
        self.assertEqual(network_of("2001:db8:1:2::3"), network_of("2001:db8:1:2:ffff::4"))
        self.assertNotEqual(network_of("2001:db8:1:2::3"), network_of("2001:db8:1:3::3"))
        self.assertEqual(network_of("fe80::1%eth0"), network_of("fe80::2"))

    def test_loopback(self) -> None:
        """Loopback addresses are recognised in every form in which a socket names them."""
        for host in ("127.0.0.1", "127.1.2.3", "::ffff:127.0.0.1", "::1"):
            self.assertTrue(is_loopback(network_of(host)), host)
        for host in ("128.0.0.1", "0.0.0.0", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1"):
            self.assertFalse(is_loopback(network_of(host)), host)
