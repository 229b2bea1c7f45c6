"""Logging, with text from outside made printable."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from playerstate.printable import one_line

_NUMBERS = (int, float)
_OWN = ("log_failure", "log_operation")
"""Event keys that Twisted sets itself, and reads again."""


class PrintableLogger(Logger):
    """A logger that makes text from outside printable in its events, tracebacks included.

    Every value that is not a number becomes printable text: for instance a state, or an exception
    whose message quotes a row or the name of a file.
    """

    def emit(self, level: Any, format: str | None = None, **values: object) -> None:
        """See `twisted.logger.Logger.emit`."""
        shown = {
            name: value if isinstance(value, _NUMBERS) or name in _OWN else one_line(str(value))
            for name, value in values.items()
        }
        super().emit(level, format, **shown)

    def failure(
        self,
        format: str,
        failure: Failure | None = None,
        level: Any = LogLevel.critical,
        **values: object,
    ) -> None:
        """See `twisted.logger.Logger.failure`."""
        super().failure(format, _PrintableFailure(failure or Failure()), level, **values)


class _PrintableFailure(Failure):
    """A copy of a failure whose traceback is printable."""

    def getTraceback(self, *options: Any, **named: Any) -> str:  # noqa: N802 - Twisted calls it
        """See `twisted.python.failure.Failure.getTraceback`."""
        trace: str = super().getTraceback(*options, **named)
        return "".join(f"{one_line(line)}\n" for line in trace.split("\n")[:-1])
