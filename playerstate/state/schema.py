"""A state class, compiled once into everything that is derived from it.

A game states its player as an attrs class.  `StateSchema.of` reads that class once and yields the
packed row, the wire fields, the columns a store keeps and the fingerprint that client and server
compare, so that none of them is ever written down a second time.

A player's state takes three forms here:

- a *state*: an instance of the attrs class, what a game works with;
- *plain values*: a tuple of ``float``, ``int``, ``bool`` and ``str``, in the order of the fields,
  what a store keeps;
- *packed values*: the tuple that `StateSchema.struct` packs: a bool is 0 or 1, a text its
  zero-padded bytes.  Packed values that passed `StateSchema.accept` are *accepted*: finite, within
  their bounds, and without a negative zero.

Nothing here depends on a thread: a schema is immutable, and may be used from any.
"""

from __future__ import annotations

import math
import operator
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.arguments import shown
from playerstate.state.building import builder, own_building
from playerstate.state.checks import Limits, limits_of

MAX_FIELDS_BYTES = 1024
"""The most bytes the packed fields of one player may take (a wire limit)."""

RESERVED_NAMES = frozenset({"session_id", "updated_at", "rowid", "oid", "_rowid_"})
"""Columns that every store has beside the fields, and what SQLite calls the first of them."""

_ALLOWED = "float, int, bool, or str with metadata=text(n)"
_INT64 = (-(2**63), 2**63 - 1)
_LIMITS = {"int": _INT64, "float": (-sys.float_info.max, sys.float_info.max)}
_BOUNDS_KEY = "playerstate.within"
_TEXT_KEY = "playerstate.text"


class SchemaError(TypeError):
    """The state class cannot be packed; the message names the field and says what is allowed."""


class InvalidState(ValueError):
    """A value lies outside its field.

    Attributes:
        field: the field's name; empty where the state as a whole is of the wrong type.
        value: the value refused.
        allowed: what the field takes, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field or 'state'} = {shown(value)}: must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


def folded(name: str) -> str:
    """A field's name as stores compare it: letters of ASCII alone lose their case, as in SQL."""
    return name.encode().lower().decode()


@attrs.frozen
class Bounds:
    """What `within` said of a field."""

    low: float | None
    high: float | None
    resolution: float | None


def within(
    low: float | None = None, high: float | None = None, *, resolution: float | None = None
) -> Mapping[str, Any]:
    """Metadata of a number's field: the inclusive bounds of an update, and its grid on the wire.

    Args:
        low: the least value an update may carry; None for no bound.
        high: the greatest; None for no bound.
        resolution: the step of a ``float`` field's grid when it is sent as a difference.  It
            changes neither what is stored nor what a full update carries.

    Bounds bind updates, not what is loaded: a row saved under wider bounds is still restored.
    """
    return {_BOUNDS_KEY: Bounds(low, high, resolution)}


def text(size: int) -> Mapping[str, Any]:
    """Metadata of a ``str`` field: the most bytes of UTF-8 it may hold."""
    return {_TEXT_KEY: size}


@attrs.frozen
class Field:
    """One field of a state class.

    Attributes:
        name: the attribute's name, also the column's.
        kind: ``float``, ``int``, ``bool`` or ``text``.
        size: packed size in bytes.
        low, high: the inclusive bounds of an update; None for text.
        resolution: the grid's step, or None.
        default: the spawn's value, as a plain value.
    """

    name: str
    kind: str
    size: int
    low: float | None
    high: float | None
    resolution: float | None
    default: Any

    @property
    def canonical(self) -> str:
        """The field in the schema's canonical text, ``name:type``."""
        kind = f"text({self.size})" if self.kind == "text" else self.kind
        return f"{self.name}:{kind}" + (f"/{self.resolution!r}" if self.resolution else "")

    @property
    def format(self) -> str:
        """The field's `struct` format."""
        return {"float": "d", "int": "q", "bool": "B"}.get(self.kind) or f"{self.size}s"

    @property
    def dtype(self) -> str:
        """The field's numpy type; the zero padding of a text is not part of its value."""
        return {"float": "<f8", "int": "<i8", "bool": "u1"}.get(self.kind) or f"S{self.size}"

    @property
    def allowed(self) -> str:
        """What the field takes, in words."""
        if self.kind == "bool":
            return "True or False"
        if self.kind == "text":
            return f"text of at most {self.size} bytes of UTF-8, without NUL"
        noun = "a finite number" if self.kind == "float" else "a whole number"
        least, most = _LIMITS[self.kind]
        if (self.low, self.high) == (least, most):
            return noun if self.kind == "float" else f"{noun} of 64 bits"
        if self.high == most:
            return f"{noun}, at least {self.low!r}"
        if self.low == least:
            return f"{noun}, at most {self.high!r}"
        return f"{noun} from {self.low!r} to {self.high!r}"

    def encode(self, value: Any) -> Any:
        """A plain value as a packed value of the right type; its range is for `accept` to judge."""
        try:
            if self.kind == "bool":
                if not isinstance(value, (bool, np.bool_)):
                    raise TypeError
                return int(value)
            if self.kind == "text":
                packed = value.encode() if isinstance(value, str) else None
                if packed is None or len(packed) > self.size or b"\0" in packed:
                    raise TypeError
                return packed.ljust(self.size, b"\0")
            if self.kind == "int":
                whole = operator.index(value)
                if not _INT64[0] <= whole <= _INT64[1]:
                    raise OverflowError
                return whole
            if isinstance(value, (str, bytes, bytearray)):
                raise TypeError
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
            return number
        except Exception:  # whatever a class of somebody's own does when it is asked for a number
            raise InvalidState(self.name, value, self.allowed) from None

    def decode(self, value: Any) -> Any:
        """A packed value as a plain value."""
        if self.kind == "bool":
            return bool(value)
        if self.kind == "text":
            return value.rstrip(b"\0").decode()
        return value


@attrs.frozen(eq=False)
class StateSchema:
    """Everything that follows from one state class; made by `of`.

    Attributes:
        state_class: the attrs class.
        fields: its fields, in order.
        canonical: the text the fingerprint is taken from: ``x:float,y:float``.
        fingerprint: CRC-32 of `canonical`.
        struct: packs and unpacks packed values, little-endian, without padding between fields.
        accept: called with packed values, one argument a field; returns them accepted, or raises
            `InvalidState`.
        read: ``read(data, at)``: the u32 there, and the accepted packed values of the fields that
            follow it; raises `InvalidState`.
        dtype: the packed fields by name, for arrays.
        spawn: the state class's defaults, as accepted packed values.
    """

    state_class: type
    fields: tuple[Field, ...]
    canonical: str
    fingerprint: int
    struct: struct.Struct
    accept: Callable[..., tuple[Any, ...]]
    read: Callable[[bytes, int], tuple[int, tuple[Any, ...]]]
    dtype: np.dtype[np.void]
    spawn: tuple[Any, ...]
    _plain: Callable[[Any], tuple[Any, ...]]
    _build: Callable[..., Any]
    _recode: bool

    @classmethod
    def of(cls, state_class: type | StateSchema) -> StateSchema:
        """Compile a state class; a schema is returned as it is.

        Raises:
            SchemaError: naming the field that cannot be packed, and what is allowed.
        """
        if isinstance(state_class, StateSchema):
            return state_class
        fields = _read_class(state_class)
        names = [field.name for field in fields]
        getter: Callable[[Any], Any] = operator.attrgetter(*names)
        packer = struct.Struct("<" + "".join(field.format for field in fields))
        canonical = ",".join(field.canonical for field in fields)
        accept = _compile_accept(fields)
        spawn = []
        for field in fields:
            try:
                spawn.append(field.encode(field.default))
            except InvalidState as error:
                raise _refused(state_class, field.name, f"the default {error}") from None
        try:
            accepted = accept(*spawn)
        except InvalidState as error:
            raise _refused(state_class, error.field, f"the default {error}") from None
        attributes = {attribute.name: attribute for attribute in attrs.fields(state_class)}
        defaults = {each.name: (attributes[each.name].alias, each.default) for each in fields}
        try:
            build = builder(state_class, defaults)
        except ValueError as error:
            raise SchemaError(f"{state_class.__qualname__} {error}") from None
        return cls(
            state_class=state_class,
            fields=fields,
            canonical=canonical,
            fingerprint=zlib.crc32(canonical.encode()),
            struct=packer,
            accept=accept,
            read=_compile_read(fields),
            dtype=np.dtype([(field.name, field.dtype) for field in fields]),
            spawn=accepted,
            plain=getter if len(names) > 1 else lambda state: (getter(state),),
            build=build,
            recode=any(field.kind in ("bool", "text") for field in fields),
        )

    @property
    def size(self) -> int:
        """Bytes of the packed fields."""
        return self.struct.size

    def accept_many(self, rows: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Do what `accept` does to many packed rows at once, in place.

        Args:
            rows: of the schema's `dtype`.

        Returns:
            Which rows are accepted; the others are left as they are.
        """
        good = np.ones(len(rows), np.bool_)
        for field in self.fields:
            column = rows[field.name]
            if field.kind == "text":
                good &= np.fromiter(map(_is_text, column.tolist()), np.bool_, len(rows))
            elif (field.low, field.high) != _INT64:
                good &= column >= field.low
                good &= column <= field.high
        for field in self.fields:
            if field.kind == "float":
                np.add(rows[field.name], 0.0, out=rows[field.name], where=good)
        return good

    def values(self, state: Any) -> tuple[Any, ...]:
        """A state as accepted packed values.

        Raises:
            InvalidState: naming the field and what it takes.
        """
        if not isinstance(state, self.state_class):
            raise InvalidState("", state, f"of class {self.state_class.__qualname__}")
        return self.accept(*self.encode(self._plain(state)))

    def state(self, values: tuple[Any, ...]) -> Any:
        """Packed values as a state."""
        return self._build(*self.decode(values))

    def encode(self, plain: tuple[Any, ...]) -> tuple[Any, ...]:
        """Plain values as packed values; types and sizes are checked, bounds are not.

        Raises:
            InvalidState: a value that its field cannot hold at all.
        """
        return tuple(map(Field.encode, self.fields, plain))

    def decode(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Packed values as plain values."""
        return tuple(map(Field.decode, self.fields, values)) if self._recode else values


def _refused(state_class: type, name: str, why: str) -> SchemaError:
    return SchemaError(f"{state_class.__qualname__}.{name}: {why}")


def _read_class(state_class: Any) -> tuple[Field, ...]:
    """The fields of an attrs class."""
    if not (isinstance(state_class, type) and attrs.has(state_class)):
        raise SchemaError(f"{state_class!r} is not an attrs class: decorate it with attrs.frozen")
    try:
        attributes = attrs.fields(attrs.resolve_types(state_class))
    except Exception as error:  # whatever a string annotation does when it is read
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
    seen: dict[str, str] = {}
    for name in (field.name for field in fields):
        if name.casefold() in RESERVED_NAMES:
            raise _refused(state_class, name, "this name is a column of the store's own; rename it")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise _refused(
                state_class, name, f"differs from {other} only in case; columns ignore case"
            )
    size = sum(field.size for field in fields)
    if size > MAX_FIELDS_BYTES:
        raise SchemaError(
            f"{state_class.__qualname__} packs to {size} bytes, from {fields[0].name} to "
            f"{fields[-1].name}; at most {MAX_FIELDS_BYTES} are allowed"
        )
    return fields


def _unreadable(state_class: type) -> str:
    """The first field whose annotation is a text that cannot be read."""
    scope = vars(sys.modules[state_class.__module__])
    for attribute in attrs.fields(state_class):
        try:
            if isinstance(attribute.type, str):
                eval(attribute.type, scope)
        except Exception:  # that is the one that is looked for
            return str(attribute.name)
    return "*"


def _read_attribute(state_class: type, attribute: attrs.Attribute[Any]) -> Field:
    name, kind = attribute.name, attribute.type
    if not attribute.init:
        raise _refused(state_class, name, "init=False; a restored state must be able to set it")
    if kind not in (float, int, bool, str):
        raise _refused(state_class, name, f"cannot pack {kind!r}; allowed: {_ALLOWED}")
    default = attribute.default
    if default is attrs.NOTHING:
        raise _refused(state_class, name, "has no default; the defaults are where a player spawns")
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        raise _refused(state_class, name, "a factory cannot be a column's default; give a value")
    size = attribute.metadata.get(_TEXT_KEY)
    bounds = attribute.metadata.get(_BOUNDS_KEY, Bounds(None, None, None))
    if attribute.converter is not None:
        raise _refused(
            state_class, name, "has a converter, which may change what was saved: remove it"
        )
    try:
        limits = limits_of(attribute.validator, kind, size)
    except ValueError as error:
        raise _refused(state_class, name, str(error)) from None
    except Exception as error:  # whatever a validator does when it is looked at
        raise _refused(state_class, name, f"its validator cannot be read: {error!r}") from None
    if kind is str:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise _refused(state_class, name, "str needs metadata=text(n), n bytes from 1")
        if bounds != Bounds(None, None, None):
            raise _refused(state_class, name, "within() is for float and int, text(n) for str")
        return Field(name, "text", size, None, None, None, default)
    if size is not None:
        raise _refused(state_class, name, f"text(n) is for str, not {kind.__name__}")
    if kind is bool:
        if bounds != Bounds(None, None, None):
            raise _refused(state_class, name, "within() is for float and int, not bool")
        return Field(name, "bool", 1, 0, 1, None, default)
    low, high = _read_bounds(state_class, name, kind, bounds, limits)
    resolution = bounds.resolution
    if resolution is not None:
        if kind is not float:
            raise _refused(state_class, name, "a resolution is for float, an int has one already")
        if not (_is_number(resolution) and 0 < resolution <= sys.float_info.max):
            raise _refused(state_class, name, f"resolution {resolution!r} is not above 0")
        resolution = float(resolution)
    return Field(name, kind.__name__, 8, low, high, resolution, default)


def _read_bounds(
    state_class: type, name: str, kind: type, bounds: Bounds, limits: Limits
) -> tuple[float | None, float | None]:
    least, most = _LIMITS[kind.__name__]
    low = least if bounds.low is None else bounds.low
    high = most if bounds.high is None else bounds.high
    for bound in (low, high):
        if kind is int and not isinstance(bound, int):
            raise _refused(state_class, name, f"bound {bound!r} of an int must be an int")
        if not (_is_number(bound) and least <= bound <= most):
            raise _refused(state_class, name, f"bound {bound!r} is not a number the field can hold")
    low = low if limits[0] is None else max(low, limits[0])
    high = high if limits[1] is None else min(high, limits[1])
    if low > high:
        raise _refused(state_class, name, f"no value lies within {low!r} and {high!r}")
    return kind(low), kind(high)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compile_accept(fields: tuple[Field, ...]) -> Callable[..., tuple[Any, ...]]:
    """Compile the check of one player's packed values into one function of as many arguments."""
    accept: Callable[..., tuple[Any, ...]] = _compile(fields, "{values}", "pass", "{accepted}")
    return accept


def _compile_read(fields: tuple[Field, ...]) -> Callable[[bytes, int], tuple[int, tuple[Any, ...]]]:
    """Compile the reading of a u32 and the fields behind it into one function."""
    unpack = struct.Struct("<I" + "".join(field.format for field in fields)).unpack_from
    read: Callable[[bytes, int], tuple[int, tuple[Any, ...]]] = _compile(
        fields,
        "data, at",
        "number, {values} = unpack(data, at)",
        "number, {accepted}",
        unpack=unpack,
    )
    return read


def _compile(
    fields: tuple[Field, ...], arguments: str, begin: str, result: str, **scope: Any
) -> Any:
    """Compile a function that holds each field's value to what the field allows.

    It runs for every move, so the loop over the fields is unrolled, as attrs does for its own
    methods.  The comparison that holds a number to its bounds also refuses NaN and the infinities;
    adding 0.0 takes -0.0 in as 0.0 and changes no other value (IEEE 754, section 6.3).
    """

    def refuse(index: int, value: Any) -> None:
        field = fields[index]
        raise InvalidState(field.name, value, field.allowed)

    checks, results = [], []
    for index, field in enumerate(fields):
        value = f"v{index}"
        if field.kind == "text":
            checks.append(f"    if not is_text({value}): refuse({index}, {value})")
        elif (field.low, field.high) != _INT64:
            checks.append(
                f"    if not {field.low!r} <= {value} <= {field.high!r}: refuse({index}, {value})"
            )
        results.append(f"{value} + 0.0" if field.kind == "float" else value)
    names = {
        "values": ", ".join(f"v{index}" for index in range(len(fields))) + ",",
        "accepted": f"({', '.join(results)},)",
    }
    head, first, last = (part.format(**names) for part in (arguments, begin, result))
    source = "\n".join([f"def accept({head}):", f"    {first}", *checks, f"    return {last}"])
    exec(
        compile(source, "<playerstate schema>", "exec"),
        scope := scope | {"refuse": refuse, "is_text": _is_text},
    )
    return scope["accept"]


def _is_text(value: bytes) -> bool:
    """Whether the bytes are UTF-8, zero padded, with no zero byte inside."""
    body = value.rstrip(b"\0")
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in body
