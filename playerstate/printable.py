"""Text that players or others chose, as it may be shown on a terminal or written into a log.

What is stored stays exact; this is for showing alone.
"""

from __future__ import annotations

import json
from typing import Any


def printable(text: str) -> str:
    r"""The text on one line, with all that a terminal might act upon escaped.

    Control characters, line ends, marks of direction, lone surrogates and whatever else Python
    calls not printable become ``\n``, ``\x1b``, ``\u202e`` and the like, and a backslash becomes
    two, so that what is shown can be read back.
    """
    return one_line(text.replace("\\", "\\\\"))


def one_line(text: str) -> str:
    """The same with backslashes as they are: for a whole line, in which some were escaped before.

    What it was done to once it leaves alone.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def printable_json(value: Any) -> str:
    """The value in JSON, on one line of printable ASCII."""
    return json.dumps(value).replace("\x7f", "\\u007f")
