"""Makes text from outside, such as a player's, safe to show on a terminal or write to a log.

For display only; what is stored stays exact.
"""

from __future__ import annotations

import json
from typing import Any


def printable(text: str) -> str:
    r"""The text on one line, with everything that a terminal might act upon escaped.

    Control characters, line ends, direction marks, lone surrogates and everything else that Python
    calls not printable become ``\n``, ``\x1b``, ``\u202e`` and the like, and a backslash becomes
    two, so that the original can be read back.
    """
    return one_line(text.replace("\\", "\\\\"))


def one_line(text: str) -> str:
    """As `printable`, but backslashes stay: for a whole line of which parts were escaped before.

    Idempotent.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_json(value: Any) -> str:
    """The value as JSON, on one line of printable ASCII."""
    return json.dumps(value).replace("\x7f", "\\u007f")
