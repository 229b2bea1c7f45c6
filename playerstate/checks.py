"""What an attrs class checks by itself, as bounds of a field, or the reason why it cannot be.

A player's state is built from what came over the wire or out of a store.  There the bounds of the
schema hold and nothing else, so a class that refuses or changes more by itself would fail, or
differ, for a state that is saved already.
"""

from __future__ import annotations

import math
from typing import Any

_HOOKS = ("__attrs_pre_init__", "__attrs_post_init__")

Limits = tuple[float | None, float | None]


def own_building(state_class: Any) -> str | None:
    """What a class does of its own when it is built, in words; None where attrs alone builds it."""
    for hook in _HOOKS:
        if hasattr(state_class, hook):
            return f"defines {hook}"
    code = getattr(state_class.__init__, "__code__", None)
    if code is None or not code.co_filename.startswith("<attrs generated"):
        return "has an __init__ of its own"
    if state_class.__new__ is not object.__new__:
        return "has a __new__ of its own"
    return None


def limits_of(validator: Any, kind: type, size: int | None) -> Limits:
    """The inclusive bounds that a validator says, each None where it says none.

    Args:
        validator: of attrs; None for none.
        kind: the field's type.
        size: bytes of a text, if its field says how many.

    Raises:
        ValueError: it says something else, in words that end with what to do.
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
    if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not math.isfinite(bound):
        raise ValueError(f"the bound {bound!r} of its validator is not a finite number")
    low: float
    high: float
    if kind is int:
        low = math.floor(bound) + 1 if comparison == ">" else math.ceil(bound)
        high = math.ceil(bound) - 1 if comparison == "<" else math.floor(bound)
    else:
        low = math.nextafter(bound, math.inf) if comparison == ">" else bound
        high = math.nextafter(bound, -math.inf) if comparison == "<" else bound
    return (low, None) if comparison.startswith(">") else (None, high)


def _span(options: Any) -> Limits:
    if isinstance(options, range) and options.step == 1 and options:
        return options.start, options.stop - 1
    try:
        numbers = sorted(set(options))
    except TypeError:
        numbers = []
    whole = all(type(number) is int for number in numbers)
    if not (numbers and whole and numbers[-1] - numbers[0] == len(numbers) - 1):
        raise ValueError("in_() of its validator is no span of whole numbers: use within()")
    return numbers[0], numbers[-1]
