"""Log lines that may come often: a few of a kind in a while, and a count of those held back.

A fault met once a datagram, a player or a commit would fill a disk with lines that say the same.
All code that may warn that often does so through a `SparingLogger`.  A fault met once a start, or
once a change of a file, needs none; nor does a line that is the only copy of what it says.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import attrs
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from playerstate.log import PrintableLogger

EVERY = 60.0
"""Seconds in which a few lines of a kind are logged, where the caller does not say."""
MOST_KINDS = 64
"""Kinds of lines that one logger tells apart; all further ones count as one."""

_OTHERS = "other kinds"


@attrs.define
class _Kind:
    """What was logged of one kind of line since `began`."""

    began: float
    logged: int = 0
    held_back: int = 0


class SparingLogger:
    """Passes on the first few events of each kind in a while, and counts the others.

    The first event passed on after that says how many were held back, in its text and in its field
    ``held_back``, which is 0 in all others.  Any thread.

    Args:
        log: receives what is passed on, under the name of its module.
        seconds: a clock that never steps back.
        every: seconds that such a while lasts, from the first event of a kind.
        lines: events of a kind that are passed on in it.
    """

    def __init__(
        self,
        log: PrintableLogger,
        seconds: Callable[[], float] = time.monotonic,
        every: float = EVERY,
        lines: int = 1,
    ) -> None:
        self._log = log
        self._seconds = seconds
        self._every = every
        self._lines = lines
        self._kinds: dict[str, _Kind] = {}
        self._lock = threading.Lock()

    def warn(self, format: str, *, kind: str = "", **values: object) -> bool:
        """As `emit`, at the level of a warning."""
        return self.emit(LogLevel.warn, format, kind=kind, **values)

    def error(self, format: str, *, kind: str = "", **values: object) -> bool:
        """As `emit`, at the level of an error."""
        return self.emit(LogLevel.error, format, kind=kind, **values)

    def critical(self, format: str, *, kind: str = "", **values: object) -> bool:
        """As `emit`, at the critical level."""
        return self.emit(LogLevel.critical, format, kind=kind, **values)

    def emit(self, level: Any, format: str, *, kind: str = "", **values: object) -> bool:
        """Log an event, or count it as held back.

        Args:
            level: one of `twisted.logger.LogLevel`.
            format: see `twisted.logger.Logger.emit`.
            kind: what events must have in common to be of one kind; by default their format.
            values: the fields.

        Returns:
            Whether it was logged.
        """
        held_back = self._held_back(kind or format)
        if held_back is None:
            return False
        self._log.emit(level, format + _and(held_back), held_back=held_back, **values)
        return True

    def failure(
        self, format: str, failure: Failure | None = None, *, kind: str = "", **values: object
    ) -> bool:
        """As `emit`, at the critical level, with a traceback; by default the present exception's.

        Exceptions of different types are of different kinds.
        """
        error = sys.exc_info()[0] if failure is None else failure.type
        held_back = self._held_back(f"{kind or format} {error}")
        if held_back is None:
            return False
        found = failure or Failure()
        self._log.failure(format + _and(held_back), found, held_back=held_back, **values)
        return True

    def failures_handled(self, format: str, *, kind: str = "", **values: object) -> _Handled:
        """A context whose exceptions are logged by `failure`, and go no further."""
        return _Handled(lambda failure: self.failure(format, failure, kind=kind, **values))

    def _held_back(self, name: str) -> int | None:
        """How many of this kind were held back before this one; None if this one is, too."""
        with self._lock:
            now = self._seconds()
            kind = self._kinds.get(name)
            if kind is None and len(self._kinds) >= MOST_KINDS:
                name = _OTHERS
                kind = self._kinds.get(name)
            if kind is None:
                kind = self._kinds[name] = _Kind(now)
            elif now - kind.began >= self._every:
                kind.began, kind.logged = now, 0
            if kind.logged >= self._lines:
                kind.held_back += 1
                return None
            kind.logged += 1
            held_back, kind.held_back = kind.held_back, 0
            return held_back


class _Handled:
    """See `SparingLogger.failures_handled`."""

    __slots__ = ("_fail",)

    def __init__(self, fail: Callable[[Failure], object]) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            return False
        self._fail(Failure(error, kind, trace))
        return True


def _and(held_back: int) -> str:
    if not held_back:
        return ""
    return " ({held_back} more such lines were held back since the last one)"
