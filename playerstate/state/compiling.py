"""The check of one player's packed values, compiled into one function of all fields.

It runs for every move, so the loop over the fields is unrolled, as attrs unrolls its own methods.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from playerstate.state.kind import Kind
from playerstate.state.kinds import CONDITIONS

Refuse = Callable[[int, Any], NoReturn]
"""Called with a position and a value: raises the error that the kind there rejects the value."""


def compile_accept(kinds: Sequence[Kind], refuse: Refuse) -> Callable[..., tuple[Any, ...]]:
    """Compile ``accept(value, ...)``: checks the packed values, one argument each; returns them."""
    accept: Callable[..., tuple[Any, ...]] = _compile(
        kinds, refuse, "{values}", "pass", "{accepted}"
    )
    return accept


def compile_read(
    kinds: Sequence[Kind], refuse: Refuse
) -> Callable[[bytes, int], tuple[int, tuple[Any, ...]]]:
    """Compile ``read(data, at)``: the u32 at that offset, and the accepted values after it."""
    unpack = struct.Struct("<I" + "".join(kind.format for kind in kinds)).unpack_from
    read: Callable[[bytes, int], tuple[int, tuple[Any, ...]]] = _compile(
        kinds,
        refuse,
        "data, at",
        "number, {values} = unpack(data, at)",
        "number, {accepted}",
        unpack=unpack,
    )
    return read


def _compile(
    kinds: Sequence[Kind], refuse: Refuse, arguments: str, begin: str, result: str, **scope: Any
) -> Any:
    """Compile a function that checks each value against its kind.

    Args:
        kinds: of the fields, in order.
        refuse: raises the error of a rejected value.
        arguments: its parameter list.
        begin: its statement before the checks.
        result: what it returns.
        scope: names that these use.
    """
    names = [f"v{index}" for index in range(len(kinds))]
    checks = [
        f"    if not {condition}: refuse({index}, v{index})"
        for index, kind in enumerate(kinds)
        if (condition := kind.condition(f"v{index}"))
    ]
    accepted = (kind.accepted(name) for kind, name in zip(kinds, names, strict=True))
    words = {
        "values": "".join(f"{name}, " for name in names),
        "accepted": f"({''.join(f'{each}, ' for each in accepted)})",
    }
    head, first, last = (part.format(**words) for part in (arguments, begin, result))
    source = "\n".join([f"def check({head}):", f"    {first}", *checks, f"    return {last}"])
    scope = {**scope, **CONDITIONS, "refuse": refuse}
    exec(compile(source, "<playerstate schema>", "exec"), scope)
    return scope["check"]
