"""Kinds of fields and values of theirs, made up by Hypothesis; and what a kind takes, said anew."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

from hypothesis import strategies as st

from playerstate.state.kind import Kind
from playerstate.state.kinds import Bool, Float, Int, Number, Text
from playerstate.state.schema import StateSchema, text, within
from tests.kit.support import field, made

UNBOUND: tuple[Float | Int, ...] = (Float(), Int())


@st.composite
def _numbers(draw: st.DrawFn) -> Kind:
    """A kind of number: with any bounds, with such as games have, or with none."""
    unbound = draw(st.sampled_from(UNBOUND))
    small = st.integers(-(2**53), 2**53).map(unbound.plain)
    low, high = sorted(draw(st.tuples(*[small | _between(unbound)] * 2)))
    return draw(st.sampled_from([unbound, type(unbound)(low, high)]))


def _between(kind: Float | Int) -> st.SearchStrategy[Any]:
    if isinstance(kind, Float):
        return st.floats(kind.low, kind.high)
    return st.integers(kind.low, kind.high)


kinds: st.SearchStrategy[Kind] = st.one_of(
    _numbers(), _numbers(), st.just(Bool()), st.integers(1, 24).map(Text)
)
"""A kind of any class."""


def declared(kind: Kind, default: Any = None) -> Any:
    """The attrs field that a state class declares such a kind by; its default may be any it takes.

    Args:
        kind: to be declared.
        default: None for the least value.
    """
    metadata: Any = None
    if isinstance(kind, Text):
        metadata = text(kind.size)
    elif isinstance(kind, Number):
        metadata = within(kind.low, kind.high, resolution=kind.resolution)
        default = kind.low if default is None else default
    return field(kind.plain, kind.plain() if default is None else default, metadata)


def schema_of(drawn: list[Kind]) -> StateSchema:
    """The schema of a class that declares fields f0, f1, … of these kinds."""
    return StateSchema.of(made(**{f"f{i}": declared(kind) for i, kind in enumerate(drawn)}))


schemas: st.SearchStrategy[StateSchema] = st.lists(kinds, min_size=1, max_size=8).map(schema_of)
"""The schema of a class of any fields."""


@singledispatch
def plain_values(kind: Kind) -> st.SearchStrategy[Any]:
    """Plain values within a kind."""
    raise NotImplementedError(kind)


@plain_values.register
def _(kind: Float | Int) -> st.SearchStrategy[Any]:
    return _between(kind)


@plain_values.register
def _(kind: Bool) -> st.SearchStrategy[Any]:
    return st.booleans()


@plain_values.register
def _(kind: Text) -> st.SearchStrategy[Any]:
    characters = st.characters(exclude_characters="\0", codec="utf-8")
    return st.text(characters, max_size=kind.size).filter(
        lambda value: len(value.encode()) <= kind.size
    )


@singledispatch
def packed_values(kind: Kind) -> st.SearchStrategy[Any]:
    """Packed values, within a kind or not; whatever a client may send."""
    raise NotImplementedError(kind)


@packed_values.register
def _(kind: Float) -> st.SearchStrategy[Any]:
    near = [math.nextafter(kind.low, -math.inf), kind.low, kind.high, -0.0, 0.0, 5e-324]
    near += [math.nextafter(kind.high, math.inf), math.inf, -math.inf, math.nan]
    return _between(kind) | st.floats() | st.sampled_from(near)


@packed_values.register
def _(kind: Int) -> st.SearchStrategy[Any]:
    near = [kind.low, kind.high, max(kind.low - 1, -(2**63)), min(kind.high + 1, 2**63 - 1)]
    return _between(kind) | _between(Int()) | st.sampled_from(near)


@packed_values.register
def _(kind: Bool) -> st.SearchStrategy[Any]:
    return st.sampled_from([0, 1, 0, 1, 2, 255])


@packed_values.register
def _(kind: Text) -> st.SearchStrategy[Any]:
    good = plain_values(kind).map(lambda value: value.encode().ljust(kind.size, b"\0"))
    return good | st.binary(min_size=kind.size, max_size=kind.size)


@singledispatch
def plain_of(kind: Kind, packed: Any) -> Any:
    """What a packed value says, whatever the bounds, as plainly as can be.

    Raises:
        ValueError: nothing.
    """
    raise NotImplementedError(kind)


@plain_of.register
def _(kind: Float, packed: Any) -> Any:
    if not math.isfinite(packed):
        raise ValueError(packed)
    return packed


@plain_of.register
def _(kind: Int, packed: Any) -> Any:
    return packed


@plain_of.register
def _(kind: Bool, packed: Any) -> Any:
    if packed not in (0, 1):
        raise ValueError(packed)
    return packed == 1


@plain_of.register
def _(kind: Text, packed: Any) -> Any:
    plain = packed.decode().rstrip("\0")
    if "\0" in plain:
        raise ValueError(packed)
    return plain


def holds(kind: Kind, packed: Any) -> bool:
    """Whether a packed value is within a kind, said as plainly as can be."""
    try:
        plain = plain_of(kind, packed)
    except ValueError:
        return False
    return not isinstance(kind, Number) or kind.low <= plain <= kind.high
