"""The settings of a netcode server, and the bounds that follow from them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.settings import NetcodeSettings
from tests.kit.netcode import ADDRESS, KEY


class SettingsTests(SynchronousTestCase):
    """What is refused, and what follows."""

    def test_bounds(self) -> None:
        """A key of another length and a protocol id beyond 64 bits are refused, by name."""
        self.assertIn(
            "32 bytes", str(self.assertRaises(ValueError, NetcodeSettings, b"K", 1, frozenset()))
        )
        for protocol_id in (-1, 2**64):
            error = self.assertRaises(ValueError, NetcodeSettings, KEY, protocol_id)
            self.assertIn("protocol id", str(error))

    def test_history_size(self) -> None:
        """It holds what the rate admits in a token's lifetime, and at least 8 tokens a slot."""
        small = NetcodeSettings(KEY, 1, frozenset((ADDRESS,)), slots=4)
        self.assertEqual(small.history_size, 2_000 * 32 + 4_000)
        self.assertEqual(small.half_open, 16)
        large = NetcodeSettings(KEY, 1, slots=100_000)
        self.assertEqual(large.history_size, 800_000)

    def test_key_is_not_shown(self) -> None:
        """The repr shows no key."""
        self.assertNotIn("private_key", repr(NetcodeSettings(KEY, 1)))
