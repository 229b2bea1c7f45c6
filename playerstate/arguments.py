"""Checks of a caller's arguments, made before anything is changed.

Any thread.  Each error names the value given and the values allowed.
"""

from __future__ import annotations

import operator
from typing import Any

MAX_SESSION_ID = 2**63 - 1
"""The highest session id: what a signed integer of 64 bits holds."""
MAX_SEQUENCE = 2**32 - 1
"""The highest sequence of a move: what a message has room for."""


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """Return the value as a whole number; numpy's are accepted.

    Raises:
        TypeError: the value is not a whole number; a bool is not one.
        ValueError: the value is out of range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except Exception:  # a class of the caller's may raise anything when it converts
        raise TypeError(f"{name} {shown(value)} is not a whole number") from None
    if not low <= number <= high:
        raise ValueError(f"{name} {shown(number)} is not from {_bound(low)} to {_bound(high)}")
    return number


def check_seconds(name: str, value: Any, low: float, high: float) -> float:
    """Return the value as a number of seconds.

    Raises:
        TypeError: the value is not a number; neither a bool nor a text is one.
        ValueError: the value is out of range, or NaN.
    """
    try:
        if isinstance(value, (bool, str, bytes, bytearray)):
            raise TypeError
        number = float(value)
    except OverflowError:
        number = float("inf")
    except Exception:  # a class of the caller's may raise anything when it converts
        raise TypeError(f"{name} {shown(value)} is not a number of seconds") from None
    if not low <= number <= high:
        raise ValueError(f"{name} {shown(value)} is not from {low} to {high}")
    return number


def check_session_id(value: Any) -> int:
    """Return the value as a session id.

    Raises:
        TypeError: the value is not a whole number; a bool is not one.
        ValueError: the value is out of range.
    """
    return check_whole("session id", value, 1, MAX_SESSION_ID)


def check_sequence(value: Any) -> int:
    """Return the value as the sequence of a move.

    Raises:
        TypeError: the value is not a whole number; a bool is not one.
        ValueError: the value is out of range.
    """
    return check_whole("sequence", value, 0, MAX_SEQUENCE)


def shown(value: object) -> str:
    """The value for an error message; its type where repr fails, as for a very long number."""
    try:
        return repr(value)
    except Exception:  # the error that quotes the value matters more
        return f"a {type(value).__name__}"


def _bound(number: int) -> str:
    """A bound as text; 2**n - 1 from 32 bits up is written so."""
    bits = number.bit_length()
    return f"2**{bits} - 1" if bits >= 32 and number == 2**bits - 1 else str(number)
