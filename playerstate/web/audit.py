"""The audit log: one JSON line for each change, written before the change is answered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from playerstate.log import PrintableLogger
from playerstate.printable import printable_json

_log = PrintableLogger()


class AuditUnusable(Exception):
    """The audit log cannot be written; the message says why, and what to do."""


class Audit(Protocol):
    """Where changes are recorded.  Reactor thread only."""

    def check(self) -> None:
        """Make sure that a change can be recorded; called before it is made.

        Raises:
            AuditUnusable: it cannot.
        """

    def record(self, entry: Mapping[str, Any]) -> None:
        """Record a change that was made.

        Raises:
            AuditUnusable: it is not recorded yet, but will be before the next.
        """

    def close(self) -> None:
        """No entry follows, unless the endpoint is started again."""


class LoggedAudit:
    """Records changes in the log of the server."""

    def check(self) -> None:
        """See `Audit.check`."""

    def record(self, entry: Mapping[str, Any]) -> None:
        """See `Audit.record`."""
        _log.info("audit: {entry}", entry=printable_json(entry))

    def close(self) -> None:
        """See `Audit.close`."""


class AuditFile:
    """Records changes in a file, to which lines are only added.

    A line is written, and not synced: it survives the process, but perhaps not a power cut.  A file
    that was renamed, as log rotation does, is made anew.

    Args:
        path: of the file, which is opened by the first `check`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._owed: list[bytes] = []
        self._fd: int | None = None

    def _open(self) -> int:
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            return os.open(self._path, flags, 0o600)
        except OSError as error:
            raise AuditUnusable(
                f"{self._path} cannot be opened: {error.strerror}; name a file that this user may"
                " write"
            ) from error

    def check(self) -> None:
        """See `Audit.check`."""
        self._reopen_if_renamed()
        while self._owed:
            self._write(self._owed[0])
            del self._owed[0]

    def record(self, entry: Mapping[str, Any]) -> None:
        """See `Audit.record`."""
        self._owed.append(printable_json(entry).encode() + b"\n")
        try:
            self.check()
        except AuditUnusable as error:
            _log.critical("a change is not in the audit log: {error}", error=error)
            raise

    def _reopen_if_renamed(self) -> None:
        if self._fd is None:
            self._fd = self._open()
        try:
            if os.path.samestat(os.fstat(self._fd), os.stat(self._path)):
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AuditUnusable(f"{self._path} cannot be looked at: {error.strerror}") from error
        fd, self._fd = self._fd, self._open()
        os.close(fd)

    def _write(self, line: bytes) -> None:
        assert self._fd is not None
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise AuditUnusable(
                f"{self._path} cannot be written: {error.strerror}; make room on its disk"
            ) from error
        if written < len(line):
            self._owed[0] = line[written:]
            raise AuditUnusable(f"{self._path} cannot be written to the end; make room on its disk")

    def close(self) -> None:
        """See `Audit.close`."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
