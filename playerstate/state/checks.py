"""Reads the validators of an attrs class as bounds of its fields, or says why that is impossible.

A player's state is built from values off the wire or from a store, and only the schema's bounds
check those.  A validator that rejects more than its bounds would fail for a state that is saved
already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from playerstate.state.kind import Kind
from playerstate.state.kinds import Int, Limits, Number, Text, is_number

_NONE: Limits = (None, None)


def held_to(kind: Kind, validator: Any) -> Kind:
    """Narrow a kind to the bounds that a validator sets.

    Args:
        kind: as declared by the field's metadata.
        validator: an attrs validator, or None.

    Raises:
        ValueError: the validator is more than a bound; the message ends with what to do.
        Exception: any class: a game's own validator may raise anything when it is inspected.
    """
    limits = _limits_of(validator, kind)
    return kind.narrowed(limits) if isinstance(kind, Number) else kind


def _limits_of(validator: Any, kind: Kind) -> Limits:
    """The inclusive bounds that a validator sets; None for a side that it leaves open."""
    if validator is None:
        return _NONE
    name = type(validator).__name__ if type(validator).__module__.startswith("attr.") else ""
    found = _READERS[name](validator, kind) if name in _READERS else None
    if found is None:
        raise ValueError(
            f"the validator {validator!r} cannot be applied to updates from the wire:"
            " use within() or text(n), and check the rest in the game"
        )
    return found


# Each reader returns the limits that a validator sets for a kind, or None if it is no bound of that
# kind.  They test the kind's class, since a validator applies to numbers, whole numbers or texts.


def _and(validator: Any, kind: Kind) -> Limits:
    limits = [_limits_of(inner, kind) for inner in validator._validators]
    lows = [low for low, _ in limits if low is not None]
    highs = [high for _, high in limits if high is not None]
    return max(lows, default=None), min(highs, default=None)


def _optional(validator: Any, kind: Kind) -> Limits:
    return _limits_of(validator.validator, kind)


def _instance_of(validator: Any, kind: Kind) -> Limits | None:
    return _NONE if issubclass(kind.plain, validator.type) else None


def _min_length(validator: Any, kind: Kind) -> Limits | None:
    return _NONE if isinstance(kind, Text) and validator.min_length <= 0 else None


def _max_length(validator: Any, kind: Kind) -> Limits | None:
    if not isinstance(kind, Text):
        return None
    if kind.size <= validator.max_length:
        return _NONE  # a text never has more characters than bytes
    raise ValueError(
        f"max_len({validator.max_length}) counts characters, and {kind.canonical} allows more of"
        f" them: use text({validator.max_length})"
    )


def _number(validator: Any, kind: Kind) -> Limits | None:
    if not isinstance(kind, Number):
        return None
    bound = validator.bound
    if not (is_number(bound) and -sys.float_info.max <= bound <= sys.float_info.max):
        raise ValueError(f"the bound {bound!r} of its validator is not a finite number")
    limit = kind.nearest(validator.compare_op, bound)
    return (limit, None) if validator.compare_op.startswith(">") else (None, limit)


def _in(validator: Any, kind: Kind) -> Limits | None:
    if not isinstance(kind, Int):
        return None
    options = validator.options
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


_READERS: Mapping[str, Callable[[Any, Kind], Limits | None]] = {
    "_AndValidator": _and,
    "_OptionalValidator": _optional,
    "_InstanceOfValidator": _instance_of,
    "_MinLengthValidator": _min_length,
    "_MaxLengthValidator": _max_length,
    "_NumberValidator": _number,
    "_InValidator": _in,
}
"""Keyed by the name of attrs' validator class."""
