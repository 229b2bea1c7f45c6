"""Builds a state field by field, bypassing its class's own construction code.

A stored value is restored even when it lies outside bounds that were narrowed since.  So a state is
built without its class's ``__init__`` and validators; the schema's bounds replace them.  A class
whose construction does more than attrs' could reject or change a saved state, so the class itself
is refused at start.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import attrs

_HOOKS = ("__attrs_pre_init__", "__attrs_post_init__")
_ATTRS_FILE = attrs.fields.__code__.co_filename


def own_building(state_class: Any) -> str | None:
    """Describe the construction code that a class adds to attrs', or None where it adds none."""
    for hook in _HOOKS:
        if hasattr(state_class, hook):
            return f"defines {hook}"
    if not _file_of(state_class.__init__).startswith("<attrs generated"):
        return "has an __init__ of its own"
    if state_class.__new__ is not object.__new__:
        return "has a __new__ of its own"
    if type(state_class).__call__ is not type.__call__:
        return "has a metaclass with a __call__ of its own"
    if state_class.__getattribute__ is not object.__getattribute__:
        return "has a __getattribute__ of its own"
    setting = state_class.__setattr__
    if setting is not object.__setattr__ and _file_of(setting) != _ATTRS_FILE:
        return "has a __setattr__ of its own"
    return None


def _file_of(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return "" if code is None else str(code.co_filename)


def builder(state_class: Any, defaults: Mapping[str, tuple[str, Any]]) -> Callable[..., Any]:
    """Compile a function that builds a state from plain values, one argument per field.

    Args:
        state_class: a class for which `own_building` returns None.
        defaults: for each field name, in order: its ``__init__`` argument and its default.

    Raises:
        ValueError: it cannot be built from its own defaults; the message continues the class name.
    """
    for name in defaults:
        found = inspect.getattr_static(state_class, name, None)
        if hasattr(found, "__set__") and not isinstance(found, types.MemberDescriptorType):
            raise ValueError(f"has a {type(found).__name__} {name} in place of its field")
    try:
        spawn = state_class(**dict(defaults.values()))
    except Exception as error:  # the class's own code may raise anything
        raise ValueError(f"cannot be built from its defaults: {error!r}") from None
    # What attrs keeps beside the fields, such as a cached hash.
    beside = {name: value for name, value in _held(spawn).items() if name not in defaults}
    sets = [f"    set(state, {name!r}, v{index})" for index, name in enumerate(defaults)]
    sets += [f"    set(state, {name!r}, beside[{name!r}])" for name in beside]
    arguments = ", ".join(f"v{index}" for index in range(len(defaults)))
    lines = [f"def build({arguments}):", "    state = new(state_class)", *sets, "    return state"]
    scope: dict[str, Any] = {
        "new": object.__new__,
        "set": object.__setattr__,
        "state_class": state_class,
        "beside": beside,
    }
    exec(compile("\n".join(lines), "<playerstate building>", "exec"), scope)
    build: Callable[..., Any] = scope["build"]
    return build


def _held(state: Any) -> dict[str, Any]:
    """All attributes of an instance, from its dictionary and its slots."""
    held = object.__getstate__(state)
    parts = held if isinstance(held, tuple) else (held,)
    return {name: value for part in parts for name, value in (part or {}).items()}
