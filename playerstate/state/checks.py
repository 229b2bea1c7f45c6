"""What the validators of an attrs class say, as bounds of a field, or why they cannot be.

A player's state is built from what came over the wire or out of a store.  There the bounds of the
schema hold and nothing else, so a validator that refuses more would fail a state that is saved
already.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from typing import Any

Limits = tuple[float | None, float | None]


def limits_of(validator: Any, kind: type, size: int | None) -> Limits:
    """The inclusive bounds that a validator says, each None where it says none.

    Args:
        validator: of attrs; None for none.
        kind: the field's type.
        size: bytes of a text, if its field says how many.

    Raises:
        ValueError: it says something else, in words that end with what to do.
        Exception: whatever a validator of somebody's own making does when it is looked at.
    """
    if validator is None:
        return None, None
    name = type(validator).__name__ if type(validator).__module__.startswith("attr.") else ""
    if name == "_AndValidator":
        return _inner([limits_of(inner, kind, size) for inner in validator._validators])
    if name == "_OptionalValidator":
        return limits_of(validator.validator, kind, size)
    if name == "_InstanceOfValidator" and issubclass(kind, validator.type):
        return None, None
    if name == "_MinLengthValidator" and kind is str and validator.min_length <= 0:
        return None, None
    if name == "_MaxLengthValidator" and kind is str:
        if size is None or size <= validator.max_length:
            return None, None  # no text of so many bytes has more characters
        raise ValueError(
            f"max_len({validator.max_length}) counts characters, and text({size}) lets more of them"
            f" in: use text({validator.max_length})"
        )
    if kind in (int, float):
        if name == "_NumberValidator":
            return _limit(validator.compare_op, validator.bound, kind)
        if name == "_InValidator" and kind is int:
            return _span(validator.options)
    raise ValueError(
        f"the validator {validator!r} cannot be held to what comes over the wire:"
        " use within() or text(n), and check the rest in the game"
    )


def _inner(limits: list[Limits]) -> Limits:
    lows = [low for low, _ in limits if low is not None]
    highs = [high for _, high in limits if high is not None]
    return max(lows, default=None), min(highs, default=None)


def _limit(comparison: str, bound: Any, kind: type) -> Limits:
    number = isinstance(bound, (int, float)) and not isinstance(bound, bool)
    if not (number and -sys.float_info.max <= bound <= sys.float_info.max):
        raise ValueError(f"the bound {bound!r} of its validator is not a finite number")
    limit: float
    if kind is int:
        limit = math.ceil(bound) if comparison in (">=", "<") else math.floor(bound)
        limit += {">": 1, "<": -1}.get(comparison, 0)
    else:
        limit = _nearest_float(comparison, bound)
    return (limit, None) if comparison.startswith(">") else (None, limit)


def _nearest_float(comparison: str, bound: float) -> float:
    """The last float on the right side of a bound, which as an int may lie between two."""
    up = comparison.startswith(">")
    limit = float(bound)
    if limit == bound and comparison.endswith("="):
        return limit
    outside = limit <= bound if up else limit >= bound
    return math.nextafter(limit, math.inf if up else -math.inf) if outside else limit


def _span(options: Any) -> Limits:
    if isinstance(options, range):
        if options and abs(options.step) == 1:
            return min(options[0], options[-1]), max(options[0], options[-1])
    elif isinstance(options, Collection):  # an iterator may have no end
        numbers = set(options)
        if numbers and all(type(number) is int for number in numbers):
            low, high = min(numbers), max(numbers)
            if high - low == len(numbers) - 1:
                return low, high
    raise ValueError("in_() of its validator is no span of whole numbers: use within()")
