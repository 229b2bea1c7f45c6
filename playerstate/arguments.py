"""What a program hands to us, held to what it may be before anything is changed.

Any thread.  Each error names what was given and what is allowed.
"""

from __future__ import annotations

import operator
from typing import Any

MAX_SESSION_ID = 2**63 - 1


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number, numpy's too.

    Raises:
        TypeError: it is none; a bool is none.
        ValueError: it is out of range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except Exception:  # whatever a class of somebody's own does when it is asked
        raise TypeError(f"{name} {shown(value)} is no whole number") from None
    if not low <= number <= high:
        raise ValueError(f"{name} {shown(number)} is not from {_bound(low)} to {_bound(high)}")
    return number


def check_seconds(name: str, value: Any, low: float, high: float) -> float:
    """A number of seconds.

    Raises:
        TypeError: it is no number; neither a bool nor a text is one.
        ValueError: it is out of range, or no number at all.
    """
    try:
        if isinstance(value, (bool, str, bytes, bytearray)):
            raise TypeError
        number = float(value)
    except OverflowError:
        number = float("inf")
    except Exception:  # whatever a class of somebody's own does when it is asked
        raise TypeError(f"{name} {shown(value)} is no number of seconds") from None
    if not low <= number <= high:
        raise ValueError(f"{name} {shown(value)} is not from {low} to {high}")
    return number


def check_session_id(value: Any) -> int:
    """A session id.

    Raises:
        TypeError: it is no whole number; a bool is none.
        ValueError: it is out of range.
    """
    return check_whole("session id", value, 1, MAX_SESSION_ID)


def shown(value: object) -> str:
    """A value as an error shows it; a number of thousands of digits, say, cannot be."""
    try:
        return repr(value)
    except Exception:  # the error that is being made says more
        return f"a {type(value).__name__}"


def _bound(number: int) -> str:
    """The bounds that are powers of two are known as such."""
    bits = number.bit_length()
    return f"2**{bits} - 1" if bits >= 32 and number == 2**bits - 1 else str(number)
