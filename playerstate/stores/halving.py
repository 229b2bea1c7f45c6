"""Finds the rows of a batch that a store refuses, where it says only that one is among them."""

from __future__ import annotations

from collections.abc import Callable


def find_refused(rows: int, attempt: Callable[[int, int], str | None]) -> dict[int, str]:
    """The positions of the refused rows, each with the reason.

    At most two attempts a row, and some two times the logarithm of `rows` for one refused row.

    Args:
        rows: of the batch.
        attempt: tries the rows from one position up to another; returns None, or why one of them is
            refused.  Tried from left to right, each row once more after it was part of a refusal.
    """
    reasons: dict[int, str] = {}
    parts = [(0, rows)] if rows else []
    while parts:
        start, end = parts.pop()
        reason = attempt(start, end)
        if reason is None:
            continue
        middle = (start + end) // 2
        if middle == start:
            reasons[start] = reason
        else:
            parts += [(middle, end), (start, middle)]
    return reasons
