"""The log as JSON."""

from __future__ import annotations

import io
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from playerstate.jsonlog import as_line, observer
from playerstate.log import PrintableLogger

_log = PrintableLogger()


class Unsaid:
    """Cannot be said."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class LineTests(SynchronousTestCase):
    """What a line holds."""

    def setUp(self) -> None:
        """Gather the lines."""
        self.lines: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        """Keep what an event looks like as JSON."""
        line = as_line(event)
        self.assertEqual(line.count("\n"), 1)
        self.assertTrue(line.endswith("\n"))
        self.assertTrue(line.isascii())
        self.lines.append(json.loads(line, parse_constant=self.fail))

    def test_fields(self) -> None:
        """Numbers are numbers, everything else is text; the text is as a person reads it."""
        _log.warn("{rows} of {who} in {seconds:.1f}", rows=3, who="é\n", seconds=0.25)
        [line] = self.lines
        self.assertEqual(line["level"], "warn")
        self.assertEqual(line["module"], __name__)
        self.assertEqual(line["text"], "3 of é\\n in 0.2")
        self.assertEqual(line["fields"], {"rows": 3, "who": "é\\n", "seconds": 0.25})
        self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        self.assertNotIn("traceback", line)

    def test_values_of_others(self) -> None:
        """What others log may be anything; a line is JSON all the same."""
        values = {"nan": math.nan, "far": -math.inf, "none": None, "yes": True, "ids": [1]}
        Logger("twisted.other").info("{ids}", bad=Unsaid(), **values)
        [line] = self.lines
        self.assertIn("ZeroDivisionError", line["fields"].pop("bad"))
        self.assertEqual(
            line["fields"],
            {"nan": "nan", "far": "-inf", "none": None, "yes": True, "ids": "[1]"},
        )

    def test_failure(self) -> None:
        """A failure comes with its traceback."""
        _log.failure("{what} failed", Failure(KeyError("x")), what="it")
        [line] = self.lines
        self.assertEqual((line["level"], line["text"]), ("critical", "it failed"))
        self.assertIn("KeyError", line["traceback"])
        self.flushLoggedErrors(KeyError)

    def test_legacy(self) -> None:
        """What is logged in Twisted's older way is text without fields."""
        legacy.msg("port closed")
        [line] = self.lines
        self.assertEqual((line["text"], line["fields"], line["level"]), ("port closed", {}, "info"))

    def test_bare(self) -> None:
        """An event without anything is a line."""
        self.observe({})
        self.assertEqual(self.lines[0]["text"], "")


class FileTests(SynchronousTestCase):
    """Where the lines go: to where twistd's own log would."""

    def setUp(self) -> None:
        """No signal is caught, and nothing is printed."""
        self.caught: dict[int, Any] = {}
        self.patch(signal, "getsignal", lambda number: self.caught.get(number, signal.SIG_DFL))
        self.patch(signal, "signal", self.caught.__setitem__)
        self.printed = io.StringIO()
        self.patch(sys, "stdout", self.printed)

    def write(self, **daemon: Any) -> Any:
        """Log one event under these options of twistd."""
        made = observer(daemon)
        made({"log_format": "hello", "log_level": LogLevel.info})
        return made

    def test_standard_output(self) -> None:
        """In the foreground it is standard output, unless a file is named."""
        self.write(nodaemon=1, logfile=None)
        self.write(nodaemon=1, logfile="-")
        texts = [json.loads(line)["text"] for line in self.printed.getvalue().splitlines()]
        self.assertEqual(texts, ["hello", "hello"])
        self.assertEqual(self.caught, {})

    def test_files(self) -> None:
        """Else it is the named file, or twistd.log; SIGUSR1 begins another."""
        for daemon, name in (({"nodaemon": 1, "logfile": "here"}, "here"), ({}, "twistd.log")):
            path = Path(name)
            path.unlink(missing_ok=True)
            made = self.write(**daemon)
            self.addCleanup(made._outFile.close)
            self.assertIn('"text": "hello"', path.read_text())
        self.assertEqual(list(self.caught), [signal.SIGUSR1])
        from twisted.internet import reactor

        self.patch(reactor, "callFromThread", lambda call: call())
        self.caught[signal.SIGUSR1](signal.SIGUSR1, None)
        self.assertIn('"text": "hello"', Path("here.1").read_text())

    def test_daemon_without_output(self) -> None:
        """A daemon has no standard output."""
        self.assertRaises(SystemExit, observer, {"logfile": "-"})
