"""SQLite's own messages, in the log."""

from __future__ import annotations

import apsw
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from playerstate.log import PrintableLogger
from playerstate.sparing import SparingLogger
from playerstate.stores.sqlite import messages
from playerstate.stores.sqlite.messages import LINES, log_messages


class MessageTests(SynchronousTestCase):
    """How a message is logged; `tests.process.test_log` has SQLite send some."""

    def setUp(self) -> None:
        """A log that has held nothing back yet."""
        self.patch(messages, "_lines", SparingLogger(PrintableLogger(), lines=LINES))

    def logged(self, code: int, text: str, times: int = 1) -> list[LogEvent]:
        """The events of a message that comes so many times."""
        with capturedLogs() as events:
            for _ in range(times):
                messages._message(code, text)
        return list(events)

    def test_levels(self) -> None:
        """A notice is information, all else a warning, and a change of the schema no news."""
        for code, name, level in (
            (apsw.SQLITE_NOTICE_RECOVER_WAL, "SQLITE_NOTICE_RECOVER_WAL", LogLevel.info),
            (apsw.SQLITE_WARNING, "SQLITE_WARNING", LogLevel.warn),
            (apsw.SQLITE_CORRUPT, "SQLITE_CORRUPT", LogLevel.warn),
            (apsw.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE", LogLevel.warn),
            (apsw.SQLITE_SCHEMA, "SQLITE_SCHEMA", LogLevel.debug),
            (251, "251", LogLevel.warn),
        ):
            with self.subTest(name=name):
                [event] = self.logged(code, "so \x1b it is")
                self.assertEqual(formatEvent(event), f"SQLite: so \\x1b it is ({name})")
                self.assertEqual((event["code"], event["log_level"]), (name, level))

    def test_often(self) -> None:
        """Many of a kind are counted; those of another kind are logged."""
        self.assertEqual(len(self.logged(apsw.SQLITE_CORRUPT, "page 3", times=50)), LINES)
        self.assertEqual(len(self.logged(apsw.SQLITE_FULL, "full")), 1)

    def test_too_late(self) -> None:
        """Once SQLite is in use, its setting stands."""

        def refuse(*arguments: object) -> None:
            raise apsw.MisuseError

        self.patch(apsw, "config", refuse)
        self.assertFalse(log_messages())
        calls: list[tuple[object, ...]] = []
        self.patch(apsw, "config", lambda *arguments: calls.append(arguments))
        self.assertTrue(log_messages())
        self.assertEqual(calls, [(apsw.SQLITE_CONFIG_LOG, messages._message)])
