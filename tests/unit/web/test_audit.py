"""The audit log."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from playerstate.web.audit import AuditFile, AuditUnusable, LoggedAudit


class AuditFileTests(SynchronousTestCase):
    """One line of JSON for each change."""

    def setUp(self) -> None:
        """A file to be."""
        self.path = os.path.abspath(self.mktemp())
        self.audit = AuditFile(self.path)
        self.addCleanup(self.audit.close)

    def entries(self, path: str = "") -> list[Any]:
        """What the file holds."""
        with open(path or self.path, encoding="ascii") as file:
            return [json.loads(line) for line in file]

    def fail(self, *results: Exception | int | None) -> None:
        """Have the next writes fail, or write so many bytes only."""
        left, write = list(results), os.write

        def failing(fd: int, data: bytes) -> int:
            result = left.pop(0) if left else None
            if isinstance(result, Exception):
                raise result
            return write(fd, data[:result])

        self.patch(os, "write", failing)

    def test_made_by_first_check(self) -> None:
        """The file is made by the first check, for its owner alone."""
        self.assertFalse(os.path.exists(self.path))
        self.audit.check()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_lines(self) -> None:
        """Entries are added, each as a line of ASCII, to what the file held."""
        self.audit.record({"what": "edit", "name": "\N{SNOWMAN}\n\x1b"})
        self.audit.close()
        self.audit.record({"what": "kick"})
        self.assertEqual(
            self.entries(), [{"what": "edit", "name": "\N{SNOWMAN}\n\x1b"}, {"what": "kick"}]
        )

    def test_renamed(self) -> None:
        """After a rotation the next entry goes to a new file."""
        self.audit.record({"n": 1})
        os.rename(self.path, f"{self.path}.1")
        self.audit.record({"n": 2})
        self.assertEqual(self.entries(f"{self.path}.1"), [{"n": 1}])
        self.assertEqual(self.entries(), [{"n": 2}])

    def test_cannot_open(self) -> None:
        """A file that cannot be opened is an error that names it."""
        audit = AuditFile(f"{self.path}/in/none")
        self.assertIn(self.path, str(self.assertRaises(AuditUnusable, audit.check)))

    def test_cannot_write(self) -> None:
        """What could not be written is owed, and comes before the next entry, whole."""
        self.audit.check()
        self.fail(OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O"), 5)
        with capturedLogs() as logs:
            self.assertRaises(AuditUnusable, self.audit.record, {"n": 1})
        self.assertIn("not in the audit log", formatEvent(logs[0]))
        for _ in range(2):
            self.assertRaises(AuditUnusable, self.audit.check)
        self.audit.check()
        self.audit.record({"n": 2})
        self.assertEqual(self.entries(), [{"n": 1}, {"n": 2}])

    def test_cannot_look(self) -> None:
        """A path that cannot be looked at is an error too."""
        self.audit.check()

        def forbidden(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.patch(os, "stat", forbidden)
        self.assertRaises(AuditUnusable, self.audit.check)


class LoggedAuditTests(SynchronousTestCase):
    """Without a file."""

    def test_logged(self) -> None:
        """Changes are in the server's log, and nothing can prevent that."""
        audit = LoggedAudit()
        audit.check()
        with capturedLogs() as logs:
            audit.record({"what": "kick", "player": "42"})
        audit.close()
        self.assertEqual(
            [formatEvent(event) for event in logs], ['audit: {"what": "kick", "player": "42"}']
        )
