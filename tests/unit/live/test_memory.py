"""Rows that die with the process."""

from __future__ import annotations

from playerstate.live.memory import AnonymousMemory
from playerstate.testing import SteppedService
from tests.kit.livefiles import LiveFileTestCase


class AnonymousMemoryTests(LiveFileTestCase):
    """A service without a live file."""

    def test_no_live_file(self) -> None:
        """Without one nothing is left, and the log says what that means."""
        service = SteppedService(store=self.store, stop_within=0.0).service
        self.assertIsInstance(service._memory, AnonymousMemory)
        self.assertEqual(self.files(), [])
        self.assertEqual(service._memory.unsaved_notice, "they are lost")
