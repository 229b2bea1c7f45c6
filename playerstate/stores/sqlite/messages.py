"""SQLite's own messages, in the log.

SQLite tells some things to nobody but its log: that it recovered a write-ahead log after a crash,
that the file was moved or deleted beneath it, which system call failed with which error, where a
page is damaged.
"""

from __future__ import annotations

import apsw
from twisted.logger import LogLevel

from playerstate.log import PrintableLogger
from playerstate.sparing import SparingLogger

LINES = 10
"""Messages of each kind that are logged in a minute."""

_log = PrintableLogger()
_lines = SparingLogger(_log, lines=LINES)


def log_messages() -> bool:
    """Send the messages of all SQLite connections of this process to the log.

    To be called before the first of them is opened: SQLite takes no such setting afterwards.

    Returns:
        Whether it could be set.
    """
    try:
        apsw.config(apsw.SQLITE_CONFIG_LOG, _message)
    except apsw.MisuseError:
        return False
    return True


def _message(code: int, text: str) -> None:
    """Log one message.  Any thread, in the midst of whatever SQLite does."""
    names = apsw.mapping_extended_result_codes, apsw.mapping_result_codes
    name = str(names[0].get(code) or names[1].get(code, code))
    level = LogLevel.warn
    if code & 0xFF == apsw.SQLITE_NOTICE:
        level = LogLevel.info
    elif code == apsw.SQLITE_SCHEMA:
        level = LogLevel.debug  # a statement is prepared anew, after another program's change
    _lines.emit(level, "SQLite: {text} ({code})", kind=name, text=text, code=name)
