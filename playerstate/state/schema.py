"""A state class, compiled once into everything that is derived from it.

A game declares its player as an attrs class.  `StateSchema.of` reads that class once and derives
the packed row, the wire fields, a store's columns and the fingerprint that client and server
compare, so that none of them has to be declared a second time.

A player's state takes three forms here:

- a *state*: an instance of the attrs class, used by the game;
- *plain values*: a tuple of ``float``, ``int``, ``bool`` and ``str``, in the order of the fields,
  kept by a store;
- *packed values*: the tuple that `StateSchema.struct` packs: a bool is 0 or 1, a text its
  zero-padded bytes.  Packed values that passed `StateSchema.accept` are *accepted*: finite, within
  their bounds, and without a negative zero.

The kind of a field defines what it holds; see `playerstate.state.kind`.

Nothing here depends on a thread: a schema is immutable, and may be used from any.
"""

from __future__ import annotations

import operator
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

import attrs

from playerstate.state.building import builder, own_building
from playerstate.state.checks import held_to
from playerstate.state.compiling import compile_accept
from playerstate.state.field import Field, InvalidState
from playerstate.state.kind import Bounds
from playerstate.state.kinds import KINDS
from playerstate.state.moved import MovedFields

MAX_FIELDS_BYTES = 1024
"""The most bytes the packed fields of one player may take (a wire limit)."""

RESERVED_NAMES = frozenset({"session_id", "updated_at", "rowid", "oid", "_rowid_"})
"""Columns that every store has beside the fields, and SQLite's aliases of the first."""

_ALLOWED = "float, int, bool, or str with metadata=text(n)"
_BY_TYPE = {kind.plain: kind for kind in KINDS}
_BOUNDS_KEY = "playerstate.within"
_TEXT_KEY = "playerstate.text"
_SERVER_KEY = "playerstate.server_owned"
_TRANSIENT_KEY = "playerstate.transient"
_WAS_KEY = "playerstate.was"


class SchemaError(TypeError):
    """The state class cannot be packed; the message names the field and says what is allowed."""


def folded(name: str) -> str:
    """A field's name as stores compare it: only ASCII letters are lowercased, as in SQL."""
    return name.encode().lower().decode()


def within(
    low: float | None = None, high: float | None = None, *, resolution: float | None = None
) -> dict[str, Any]:
    """Metadata of a number field: the inclusive bounds of an update, and its grid on the wire.

    Args:
        low: the least value an update may carry; None for no bound.
        high: the greatest; None for no bound.
        resolution: the step of the grid on which a ``float`` field is sent in a DELTA.  It changes
            neither what is stored nor what a MOVE carries.

    Bounds apply to updates, not to loaded rows: a row saved under wider bounds is still restored.
    """
    return {_BOUNDS_KEY: Bounds(low, high, resolution)}


def text(size: int) -> dict[str, Any]:
    """Metadata of a ``str`` field: the most bytes of UTF-8 that it may hold."""
    return {_TEXT_KEY: size}


def server_owned() -> dict[str, Any]:
    """Metadata of a field that the server owns: the program around the service, or an operator.

    A client sees it when it joins and whenever the program changes the player, and cannot change
    it: a move does not carry it.
    """
    return {_SERVER_KEY: True}


def transient() -> dict[str, Any]:
    """Metadata of a field that is not stored: it has no column.

    It is in the live table, on the wire and in the live file like any other.  A player who is
    loaded from the store begins with its default; one who joins again after the death of the
    process goes on with the value in the live file.
    """
    return {_TRANSIENT_KEY: True}


def was(*names: str) -> dict[str, Any]:
    """Metadata of a renamed field: the names that it had before, the latest first.

    A store renames the column with the first of these names that it has, unless it has a column
    with the new name already.
    """
    return {_WAS_KEY: names}


@attrs.frozen(eq=False)
class StateSchema:
    """Everything derived from one state class; made by `of`.

    Attributes:
        state_class: the attrs class.
        fields: its fields, in order.
        stored: those with a column in the store, in order: all but the transient ones.
        canonical: the text of which the fingerprint is taken: ``x:float,y:float,hp:int server``.
        fingerprint: CRC-32 of `canonical`.
        struct: packs and unpacks packed values, little-endian, without padding between fields.
        accept: ``accept(value, ...)``, with one packed value per field: returns the accepted
            values, or raises `InvalidState`.
        moved: the fields that a move carries.
        spawn: the state class's defaults, as accepted packed values.
    """

    state_class: type
    fields: tuple[Field, ...]
    stored: tuple[Field, ...]
    canonical: str
    fingerprint: int
    struct: struct.Struct
    accept: Callable[..., tuple[Any, ...]]
    moved: MovedFields
    spawn: tuple[Any, ...]
    _plain: Callable[[Any], tuple[Any, ...]]
    _build: Callable[..., Any]
    _decode: tuple[tuple[int, Callable[[Any], Any]], ...]

    @classmethod
    def of(cls, state_class: type | StateSchema) -> StateSchema:
        """Compile a state class; a schema is returned as it is.

        Raises:
            SchemaError: a field cannot be packed; it names the field and what is allowed.
        """
        if isinstance(state_class, StateSchema):
            return state_class
        fields = _read_class(state_class)
        names = [field.name for field in fields]
        getter: Callable[[Any], Any] = operator.attrgetter(*names)
        canonical = ",".join(field.canonical for field in fields)
        kinds = [field.kind for field in fields]

        def refuse(index: int, value: Any) -> NoReturn:
            raise fields[index].refusal(value)

        accept = compile_accept(kinds, refuse)
        try:
            accepted = accept(*(field.encode(field.default) for field in fields))
        except InvalidState as error:
            raise _refused(state_class, error.field, f"the default {error}") from None
        defaults = {each.name: (each.alias, each.default) for each in attrs.fields(state_class)}
        try:
            build = builder(state_class, defaults)
        except ValueError as error:
            raise SchemaError(f"{state_class.__qualname__} {error}") from None
        return cls(
            state_class=state_class,
            fields=fields,
            stored=tuple(field for field in fields if not field.is_transient),
            canonical=canonical,
            fingerprint=zlib.crc32(canonical.encode()),
            struct=struct.Struct("<" + "".join(kind.format for kind in kinds)),
            accept=accept,
            moved=MovedFields(fields),
            spawn=accepted,
            plain=getter if len(names) > 1 else lambda state: (getter(state),),
            build=build,
            decode=tuple((i, kind.decode) for i, kind in enumerate(kinds) if not kind.packed_as_is),
        )

    @property
    def size(self) -> int:
        """Bytes of the packed fields."""
        return self.struct.size

    def values(self, state: Any) -> tuple[Any, ...]:
        """Convert a state to accepted packed values.

        Raises:
            InvalidState: a value is not allowed; it names the field and the allowed values.
        """
        if not isinstance(state, self.state_class):
            raise InvalidState("", state, f"of class {self.state_class.__qualname__}")
        return self.accept(*self.encode(self._plain(state)))

    def state(self, values: tuple[Any, ...]) -> Any:
        """Build a state from packed values."""
        return self._build(*self.decode(values))

    def restore(self, stored: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pack the plain values of a stored player; a transient field gets its default.

        Args:
            stored: one value for each of `stored`.

        Raises:
            InvalidState: a field cannot hold its value at all.
        """
        values = iter(map(Field.encode, self.stored, stored))
        return tuple(
            spawn if field.is_transient else next(values)
            for field, spawn in zip(self.fields, self.spawn, strict=True)
        )

    def stored_values(self, packed: tuple[Any, ...]) -> tuple[Any, ...]:
        """Convert the packed values of a record, one for each of `stored`, to plain values."""
        decode = (field.kind.decode for field in self.stored)
        return tuple(convert(value) for convert, value in zip(decode, packed, strict=True))

    def with_transients(self, values: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[Any, ...]:
        """These packed values, with the transient fields of the others."""
        return tuple(
            other if field.is_transient else value
            for field, value, other in zip(self.fields, values, others, strict=True)
        )

    def encode(self, plain: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pack plain values; types and sizes are checked, bounds are not.

        Raises:
            InvalidState: a field cannot hold its value at all.
        """
        return tuple(map(Field.encode, self.fields, plain))

    def decode(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Convert packed values to plain values."""
        if not self._decode:
            return values
        plain = list(values)
        for index, decode in self._decode:
            plain[index] = decode(plain[index])
        return tuple(plain)


def _refused(state_class: type, name: str, why: str) -> SchemaError:
    return SchemaError(f"{state_class.__qualname__}.{name}: {why}")


def _read_class(state_class: Any) -> tuple[Field, ...]:
    """Read the fields of an attrs class."""
    if not (isinstance(state_class, type) and attrs.has(state_class)):
        raise SchemaError(f"{state_class!r} is not an attrs class: decorate it with attrs.frozen")
    try:
        attributes = attrs.fields(attrs.resolve_types(state_class))
    except Exception as error:  # evaluating a string annotation may raise anything
        raise _refused(
            state_class, _unreadable(state_class), f"{error}; allowed: {_ALLOWED}"
        ) from None
    if (own := own_building(state_class)) is not None:
        raise SchemaError(
            f"{state_class.__qualname__} {own}, which may refuse or change what a player was saved"
            " with: remove it, and bound the fields by within() and text(n)"
        )
    fields = tuple(_read_attribute(state_class, attribute) for attribute in attributes)
    if not fields:
        raise SchemaError(f"{state_class.__qualname__} has no field: give it at least one")
    if all(field.is_transient for field in fields):
        raise SchemaError(
            f"{state_class.__qualname__} has no field to store: leave one without transient()"
        )
    seen: dict[str, str] = {}
    for name in (field.name for field in fields):
        if name.casefold() in RESERVED_NAMES:
            raise _refused(
                state_class, name, "the store has a column of this name; rename the field"
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise _refused(
                state_class, name, f"differs from {other} only in case; columns ignore case"
            )
    _check_old_names(state_class, fields)
    size = sum(field.kind.size for field in fields)
    if size > MAX_FIELDS_BYTES:
        raise SchemaError(
            f"{state_class.__qualname__} packs to {size} bytes, from {fields[0].name} to "
            f"{fields[-1].name}; at most {MAX_FIELDS_BYTES} are allowed"
        )
    return fields


def _check_old_names(state_class: type, fields: tuple[Field, ...]) -> None:
    """Check that each old name belongs to one field, and is the name of none."""
    owners = {folded(field.name): field.name for field in fields}
    for field in fields:
        for name in field.was:
            if not str.isidentifier(name):
                raise _refused(
                    state_class, field.name, f"was({name!r}): must be the name of a field"
                )
            owner = owners.setdefault(folded(name), field.name)
            if owner != field.name or folded(name) == folded(field.name):
                raise _refused(
                    state_class,
                    field.name,
                    f"was({name!r}): {owner} has that name, or had it: a column can go to one field"
                    " only",
                )


def _unreadable(state_class: type) -> str:
    """The first field whose annotation is a string that cannot be evaluated."""
    scope = vars(sys.modules[state_class.__module__])
    for attribute in attrs.fields(state_class):
        try:
            if isinstance(attribute.type, str):
                eval(attribute.type, scope)
        except Exception:  # this field is the one
            return str(attribute.name)
    return "*"


def _read_attribute(state_class: type, attribute: attrs.Attribute[Any]) -> Field:
    name, declared = attribute.name, attribute.type
    if not attribute.init:
        raise _refused(state_class, name, "init=False; a restored state must be able to set it")
    if declared not in _BY_TYPE:
        raise _refused(state_class, name, f"cannot pack {declared!r}; allowed: {_ALLOWED}")
    default = attribute.default
    if default is attrs.NOTHING:
        raise _refused(state_class, name, "has no default; the defaults are where a player spawns")
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        raise _refused(state_class, name, "a factory cannot be a column's default; give a value")
    if attribute.converter is not None:
        raise _refused(
            state_class, name, "has a converter, which may change what was saved: remove it"
        )
    metadata = attribute.metadata
    bounds, size = metadata.get(_BOUNDS_KEY, Bounds()), metadata.get(_TEXT_KEY)
    try:
        kind = _BY_TYPE[declared].declared(bounds, size)
        kind = held_to(kind, attribute.validator)
    except ValueError as error:
        raise _refused(state_class, name, str(error)) from None
    except Exception as error:  # inspecting a validator may raise anything
        raise _refused(state_class, name, f"its validator cannot be read: {error!r}") from None
    field = Field(
        name,
        kind,
        is_server_owned=_SERVER_KEY in metadata,
        is_transient=_TRANSIENT_KEY in metadata,
        was=metadata.get(_WAS_KEY, ()),
    )
    try:
        return attrs.evolve(field, default=kind.decode(field.encode(default)))
    except InvalidState as error:
        raise _refused(state_class, name, f"the default {error}") from None
