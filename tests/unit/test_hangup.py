"""What SIGHUP does; a real one is sent in tests/process/test_server.py."""

from __future__ import annotations

import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from playerstate import hangup


class CatchTests(SynchronousTestCase):
    """When SIGHUP is caught."""

    def test_caught_only_by_default(self) -> None:
        """SIGHUP that is ignored, as under nohup, or caught by a program, stays as it is."""
        cases: list[tuple[Any, list[int]]] = [
            (signal.SIG_DFL, [signal.SIGHUP]),
            (signal.SIG_IGN, []),
            (lambda *signal_and_frame: None, []),
        ]
        for before, expected in cases:
            with self.subTest(before=before):
                caught: list[int] = []
                self.patch(signal, "getsignal", lambda number, before=before: before)
                self.patch(signal, "signal", lambda number, call, to=caught: to.append(number))
                hangup.catch_hangup()
                self.assertEqual(caught, expected)
