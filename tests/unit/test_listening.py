"""How a place to listen at, and a protocol id, are written."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.listening import Listen, parse_protocol_id


class ListenTests(SynchronousTestCase):
    """How a place to listen at is written."""

    def test_round_trip(self) -> None:
        """What is printed is read again, colons of IPv6 addresses and all."""
        for listen in (
            Listen("udp", 7777),
            Listen("netcode", 0, "0.0.0.0"),
            Listen("netcode", 65_535, "2001:db8::1"),
        ):
            self.assertEqual(Listen.parse(str(listen)), listen)

    def test_protocol_id(self) -> None:
        """Decimal or hexadecimal, up to 64 bits."""
        self.assertEqual(parse_protocol_id("0x1122334455667788"), 0x1122334455667788)
        self.assertEqual(parse_protocol_id("17"), 17)
        self.assertEqual(parse_protocol_id("0xFFFFFFFFFFFFFFFF"), 2**64 - 1)
        for text in ("", "0x", "1_000", " 1", "1.5", "\N{SUPERSCRIPT TWO}"):
            self.assertRaises(ValueError, parse_protocol_id, text)
