"""What a program pays for what it imports, each in a process that has imported nothing yet."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.kit.support import PATIENCE

ALL = """
from playerstate import *
from playerstate.interfaces import *
from playerstate.client import *
from playerstate.tokens import *
from playerstate.testing import *
"""


def imported_by(program: str) -> set[str]:
    """The modules that a program has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
        timeout=PATIENCE,
    )
    return set(done.stdout.split())


class ImportTests(SynchronousTestCase):
    """Doors, and what is behind them."""

    def test_no_reactor(self) -> None:
        """All doors together install no reactor: that is for the program to choose."""
        modules = imported_by(ALL)
        self.assertIn("playerstate.transports.netcode.service", modules)
        self.assertNotIn("twisted.internet.reactor", modules)

    def test_package(self) -> None:
        """The package by itself imports nothing of ours, so that `twistd --help` does not."""
        modules = imported_by("import playerstate")
        self.assertEqual({name for name in modules if name.startswith("playerstate.")}, set())
        self.assertNotIn("numpy", modules)

    def test_login_service(self) -> None:
        """A login service imports neither a server nor what a server needs."""
        modules = imported_by("from playerstate.tokens import connect_token")
        self.assertEqual({"numpy", "twisted", "apsw"} & modules, set())

    def test_plugin(self) -> None:
        """Twisted finds our plugins without importing a service, a store or a transport."""
        modules = imported_by("import twisted.plugins.playerstate_plugin")
        ours = {name.split(".")[1] for name in modules if name.startswith("playerstate.")}
        self.assertLessEqual({"stores"}, ours)
        self.assertEqual(ours & {"players", "conversations", "transports", "tap", "live"}, set())
