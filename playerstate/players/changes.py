"""A change of some fields of a player's state, checked, to be made to whatever the others hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from playerstate.state.field import InvalidState
from playerstate.state.schema import StateSchema


@attrs.frozen
class Change:
    """New values of some fields; false where there is none.

    Attributes:
        packed: accepted packed values, by the position of their field.
        is_override: whether one of the fields is the client's.
    """

    packed: Mapping[int, Any]
    is_override: bool

    @classmethod
    def of(cls, schema: StateSchema, named: Mapping[str, Any]) -> Change:
        """Check plain values, by the names of their fields, as those of an update are.

        Raises:
            InvalidState: a value is not allowed, or no field has this name.
        """
        positions = {field.name: at for at, field in enumerate(schema.fields)}
        values = list(schema.spawn)  # accepted, so that only a named value can be refused
        for name, value in named.items():
            if name not in positions:
                allowed = f"one of the fields {', '.join(positions)}"
                raise InvalidState(name, value, allowed)
            values[positions[name]] = schema.fields[positions[name]].encode(value)
        accepted = schema.accept(*values)
        packed = {positions[name]: accepted[positions[name]] for name in named}
        return cls(packed, not all(schema.fields[at].is_server_owned for at in packed))

    def __bool__(self) -> bool:
        return bool(self.packed)

    def of_values(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """These packed values with the change made; the others need not lie within bounds."""
        changed = list(values)
        for at, value in self.packed.items():
            changed[at] = value
        return tuple(changed)
