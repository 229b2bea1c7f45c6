"""Text that players or others chose, as it may be shown on a terminal or written into a log.

What is stored stays exact; this is for showing alone.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text on one line, with all that a terminal might act upon escaped.

    Control characters, line ends, marks of direction, lone surrogates and whatever else Python
    calls not printable become ``\n``, ``\x1b``, ``\u202e`` and the like, and a backslash becomes
    two, so that what is shown can be read back.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        char if char.isprintable() and char != "\\" else ascii(char)[1:-1] for char in text
    )
