"""The log as JSON, one object a line, for programs that collect logs.

A line has ``time`` (UTC, ISO 8601), ``level``, ``module``, ``text`` as a person would read it, and
``fields``, the values in the text by name: numbers as numbers, everything else as text.  With a
failure it has ``traceback`` as well.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import FileLogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.logfile import LogFile
from twisted.python.reflect import safe_str

_LEGACY = {"format", "isError", "message", "printed", "system", "time", "why", "failure"}
"""Keys that Twisted's older way of logging adds to an event."""


def as_line(event: LogEvent) -> str:
    """An event as one line of JSON, in ASCII."""
    at = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    line: dict[str, Any] = {
        "time": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": event.get("log_level", LogLevel.info).name,
        "module": str(event.get("log_namespace", "")),
        "text": formatEvent(event),
        "fields": {
            name: _value(value)
            for name, value in event.items()
            if not name.startswith("log_") and name not in _LEGACY
        },
    }
    if (failure := event.get("log_failure")) is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line) + "\n"


def _value(value: object) -> object:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return safe_str(value)


def observer(daemon: Mapping[str, Any]) -> FileLogObserver:
    """Write to where twistd would write its log, by its options; SIGUSR1 begins another file."""
    return FileLogObserver(_file(daemon), as_line)


def _file(daemon: Mapping[str, Any]) -> TextIO:
    path = daemon.get("logfile") or ""
    if daemon.get("nodaemon") and path in ("", "-"):
        return sys.stdout
    if path == "-":
        sys.exit("Daemons cannot log to stdout, exiting!")
    file = LogFile.fromFullPath(path or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):

        def rotate(*signal_and_frame: object) -> None:
            from twisted.internet import reactor

            reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]

        signal.signal(signal.SIGUSR1, rotate)
    return file  # type: ignore[no-any-return]
