"""Whether the server is fit for players, and why not."""

from __future__ import annotations

from twisted.logger import capturedLogs

from playerstate.interfaces import StoreBusy, Stored
from playerstate.web.health import readiness
from tests.kit.players import ServiceTestCase, at, leave_behind


class ReadinessTests(ServiceTestCase):
    """Each reason, and its end."""

    def test_ready(self) -> None:
        """A service that runs is ready, also while updates wait that are not due."""
        stepped = self.start()
        self.assertEqual(readiness(stepped.service).why, "")
        stepped.join(42)
        stepped.service.update(42, at(1.0))
        stepped.reactor.advance(1.0)
        self.assertTrue(readiness(stepped.service).ready)

    def test_stopped(self) -> None:
        """One that does not run is not."""
        stepped = self.start()
        self.successResultOf(stepped.stop())
        found = readiness(stepped.service)
        self.assertEqual((found.ready, found.why), (False, "the service is not running"))

    def test_stopping(self) -> None:
        """One that stops says how much is to be saved."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1.0))
        stepped.service.stopService()
        found = readiness(stepped.service)
        self.assertFalse(found.ready)
        self.assertIn("stopping; 1 updates are still to be saved", found.why)
        stepped.stop()

    def test_recovering(self) -> None:
        """While what the last process left is not saved, players cannot join."""
        leave_behind(self, {42: Stored((1.0, 2.0), 5)})
        stepped = self.start()
        self.assertIn("what the last run left", readiness(stepped.service).why)
        stepped.settle()
        self.assertTrue(readiness(stepped.service).ready)

    def test_promise(self) -> None:
        """Updates that wait for longer than promised, and a store that does not take them."""
        stepped = self.start(save_within=5.0)
        stepped.store.failures.extend(StoreBusy("locked") for _ in range(20))
        stepped.join(42)
        stepped.service.update(42, at(1.0))
        with capturedLogs():
            for _ in range(9):
                stepped.reactor.advance(1.0)
                stepped.step()
        found = readiness(stepped.service)
        self.assertFalse(found.ready)
        self.assertIn("s: locked", found.why)
        self.assertIn("the oldest unsaved update is 9.0 s old; 5 s are promised", found.why)
        stepped.store.failures.clear()
        stepped.settle()
        self.assertTrue(readiness(stepped.service).ready)
