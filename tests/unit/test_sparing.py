"""Lines that may come often, and that every place that may log often does so through them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import playerstate
from playerstate.log import PrintableLogger
from playerstate.sparing import MOST_KINDS, SparingLogger

PACKAGE = Path(playerstate.__file__).parent

_log = PrintableLogger()


class SparingTests(SynchronousTestCase):
    """Which events are passed on."""

    def setUp(self) -> None:
        """A logger that passes on two lines of a kind a minute."""
        self.clock = Clock()
        self.lines = SparingLogger(_log, self.clock.seconds, 60.0, 2)

    def warned(self, times: int = 1, kind: str = "") -> list[str]:
        """The lines logged while a warning is given so many times."""
        with capturedLogs() as events:
            for number in range(times):
                self.lines.warn("tried {number}", kind=kind, number=number)
        return [formatEvent(event) or "" for event in events]

    def test_first_ones(self) -> None:
        """The first ones are logged as they are, and those after them are not."""
        self.assertEqual(self.warned(5), ["tried 0", "tried 1"])
        self.clock.advance(59.9)
        self.assertEqual(self.warned(), [])

    def test_held_back(self) -> None:
        """The next line that is logged says how many were not, once."""
        self.warned(5)
        self.clock.advance(60.0)
        held = "tried 0 (3 more such lines were held back since the last one)"
        self.assertEqual(self.warned(3), [held, "tried 1"])
        self.clock.advance(60.0)
        held = "tried 0 (1 more such lines were held back since the last one)"
        self.assertEqual(self.warned(), [held])
        self.clock.advance(60.0)
        self.assertEqual(self.warned(), ["tried 0"])

    def test_fields(self) -> None:
        """The number is a field of every event, beside its own; the level is the caller's."""
        with capturedLogs() as events:
            for level in (LogLevel.error, LogLevel.critical, LogLevel.warn):
                self.lines.emit(level, "{name}", name=level.name)
                self.clock.advance(20.0)
            for _ in range(3):
                self.lines.error("tried")
            self.clock.advance(60.0)
            self.lines.critical("tried")
        found = [(event["log_level"], event["held_back"]) for event in events]
        self.assertEqual(found[0], (LogLevel.error, 0))
        self.assertEqual(found[1], (LogLevel.critical, 0))
        self.assertEqual(found[-1], (LogLevel.critical, 1))
        self.assertEqual(events[0]["name"], "error")
        self.assertEqual(events[0]["log_namespace"], __name__)

    def test_kinds(self) -> None:
        """Each kind is counted by itself; without one named, the format is it."""
        self.warned(3, "a")
        self.assertEqual(self.warned(3, "b"), ["tried 0", "tried 1"])
        self.assertTrue(self.lines.warn("other"))
        self.assertFalse(self.lines.warn("tried {number}", kind="a", number=9))

    def test_too_many_kinds(self) -> None:
        """What is kept of kinds has a bound: further ones count as one, and the first go on."""
        for number in range(MOST_KINDS):
            self.warned(1, str(number))
        logged = [line for number in range(50) for line in self.warned(1, f"more {number}")]
        self.assertEqual(len(logged), 2)
        self.assertEqual(len(self.warned(1, "0")), 1)
        self.assertLessEqual(len(self.lines._kinds), MOST_KINDS + 1)

    def test_failures(self) -> None:
        """A failure is logged with its traceback; another type of exception is another kind."""
        with capturedLogs() as events:
            for error in (KeyError("a"), KeyError("b"), OSError("c"), KeyError("d")):
                self.lines.failure("failed", Failure(error))
        self.assertEqual(
            [event["log_failure"].type for event in events], [KeyError] * 2 + [OSError]
        )
        self.flushLoggedErrors(KeyError, OSError)

    def test_present_failure(self) -> None:
        """Without a failure it is the exception that is being handled."""
        with capturedLogs() as events:
            for _ in range(3):
                try:
                    {}["missing"]
                except KeyError:
                    self.lines.failure("failed")
        self.assertEqual(len(events), 2)
        self.assertIn("missing", events[0]["log_failure"].getTraceback())
        self.flushLoggedErrors(KeyError)

    def test_failures_handled(self) -> None:
        """A context logs what is raised in it, and goes on, whatever it is."""
        for _ in range(3):
            with self.lines.failures_handled("failed of {whom}", whom="me"):
                raise SystemExit(1)
        with self.lines.failures_handled("failed"):
            pass
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 2)


SELDOM = {
    "hangup.py": "once a SIGHUP that an operator sent",
    "live/file.py": "once a live file that is set aside at a start",
    "live/names.py": "once a start",
    "live/recovery.py": "once a start",
    "players/erasures.py": "once an erasure that an operator asked for",
    "players/run.py": "a start, a stop, a minute, each trouble of seconds and its end",
    "players/reopening.py": "once a store that was replaced",
    "players/starting.py": "once a start",
    "players/stopping.py": "once a second of a stop, which ends",
    "saving/health.py": "once a trouble that was logged, at its end",
    "saving/heartbeat.py": "once a silence of the reactor",
    "server.py": "once a start",
    "stores/sqlite/refused.py": "each is the only copy of a row",
    "stores/sqlite/store.py": "once a migration, a replacement or a stop",
    "transports/netcode/run.py": "once a minute",
    "transports/netcode/service.py": "once a start",
    "transports/udp.py": "once a port that is bound",
    "web/audit.py": "once a change that an operator made",
    "web/service.py": "once a start",
}
"""The modules that log without a `SparingLogger`, and how often they do."""


def logging_calls(path: Path) -> Iterator[ast.Call]:
    """The calls of a module's own logger, which count nothing."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "_log"
        ):
            yield node


class PlacesTests(SynchronousTestCase):
    """Where the package logs."""

    def test_seldom(self) -> None:
        """What logs without counting is known to log seldom, and why."""
        found = {
            str(path.relative_to(PACKAGE))
            for path in PACKAGE.rglob("*.py")
            if any(logging_calls(path))
        }
        self.assertEqual(found, set(SELDOM))

    def test_no_other_logger(self) -> None:
        """Nothing logs by a logger of another name, or by another library."""
        for path in PACKAGE.rglob("*.py"):
            if path.name not in ("log.py", "sparing.py"):
                text = path.read_text("utf-8")
                self.assertNotIn("import logging", text, path)
                self.assertNotIn("Logger(namespace", text, path)
                self.assertNotIn("from twisted.python import log\n", text, path)
