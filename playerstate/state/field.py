"""One field of a state class, and the error of a value that lies outside it."""

from __future__ import annotations

from typing import Any

import attrs

from playerstate.arguments import shown
from playerstate.state.kind import Kind


class InvalidState(ValueError):
    """A value lies outside its field.

    Attributes:
        field: the field's name; empty if the state as a whole is of the wrong type.
        value: the rejected value.
        allowed: the values that the field accepts, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field or 'state'} = {shown(value)}: must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


@attrs.frozen
class Field:
    """One field of a state class.

    Attributes:
        name: of the attribute and of its column.
        kind: gives the field's size, format, column and allowed values.
        default: the value at which a player spawns, plain.
        is_server_owned: whether the server owns it, and no move carries it.
        is_transient: whether it has no column in the store.
        was: the names it had before, the latest first.
    """

    name: str
    kind: Kind
    default: Any = None
    is_server_owned: bool = False
    is_transient: bool = False
    was: tuple[str, ...] = ()

    @property
    def canonical(self) -> str:
        """The field in the schema's canonical text: ``name:kind``, or ``name:kind server``."""
        return f"{self.name}:{self.kind.canonical}" + " server" * self.is_server_owned

    def encode(self, value: Any) -> Any:
        """Pack a plain value; its type and size are checked, its bounds are left to `accept`.

        Raises:
            InvalidState: the field cannot hold the value at all.
        """
        try:
            return self.kind.encode(value)
        except Exception:  # converting an object of the game's may raise anything
            raise self.refusal(value) from None

    def refusal(self, value: Any) -> InvalidState:
        """The error that rejects a value of this field."""
        return InvalidState(self.name, value, self.kind.allowed)
