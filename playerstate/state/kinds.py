"""The four kinds of fields; `playerstate.state.kind.Kind` documents each method."""

from __future__ import annotations

import abc
import math
import operator
import re
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.state.kind import Bounds, Column, Kind

_FLOAT_MAX = sys.float_info.max
_INT64 = (-(2**63), 2**63 - 1)
_CELLS = {"0": False, "false": False, "1": True, "true": True}

Limits = tuple[float | None, float | None]
"""The inclusive bounds of a value; None for a side that is unbounded."""


@attrs.frozen
class Number(Kind):
    """A number with inclusive bounds, which bind updates and not what is stored.

    Attributes:
        low, high: the bounds; by default `least` and `greatest`.
        least, greatest: the range that the packed type can hold.
    """

    low: Any
    high: Any

    least: ClassVar[float]
    greatest: ClassVar[float]
    _noun: ClassVar[str]
    _unbound: ClassVar[str]

    @property
    def allowed(self) -> str:
        """See `Kind.allowed`."""
        if (self.low, self.high) == (self.least, self.greatest):
            return self._unbound
        if self.high == self.greatest:
            return f"{self._noun}, at least {self.low!r}"
        if self.low == self.least:
            return f"{self._noun}, at most {self.high!r}"
        return f"{self._noun} from {self.low!r} to {self.high!r}"

    @classmethod
    def declared(cls, bounds: Bounds, size: Any) -> Self:
        """See `Kind.declared`."""
        if size is not None:
            raise ValueError(f"text(n) is for str, not {cls.name}")
        low = cls.least if bounds.low is None else bounds.low
        high = cls.greatest if bounds.high is None else bounds.high
        for bound in (low, high):
            cls._check_bound(bound)
        return cls(*_span(cls.plain, low, high))

    @classmethod
    def _check_bound(cls, bound: Any) -> None:
        if not (is_number(bound) and cls.least <= bound <= cls.greatest):
            raise ValueError(f"bound {bound!r} is not a number the field can hold")

    def narrowed(self, limits: Limits) -> Self:
        """The kind narrowed to these bounds as well.

        Raises:
            ValueError: no value lies within both.
        """
        low = self.low if limits[0] is None else max(self.low, limits[0])
        high = self.high if limits[1] is None else min(self.high, limits[1])
        low, high = _span(self.plain, low, high)
        return attrs.evolve(self, low=low, high=high)

    @abc.abstractmethod
    def nearest(self, comparison: str, bound: float) -> float:
        """The outermost number for which ``number COMPARISON bound`` holds; `bound` is finite."""

    def condition(self, value: str) -> str:
        """See `Kind.condition`; these comparisons also refuse NaN and the infinities."""
        return f"{self.low!r} <= {value} <= {self.high!r}"

    def check_column(self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """See `Kind.check_column`."""
        good &= column >= self.low
        good &= column <= self.high


@attrs.frozen
class Float(Number):
    """A finite 64-bit float; a negative zero is accepted as 0.0.

    Attributes:
        resolution: the step of the grid in which a DELTA counts, or None.
    """

    low: float = -_FLOAT_MAX
    high: float = _FLOAT_MAX
    resolution: float | None = None

    name = "float"
    plain = float
    column = Column.REAL
    size = 8
    format = "d"
    dtype = "<f8"
    least, greatest = -_FLOAT_MAX, _FLOAT_MAX
    _noun = _unbound = "a finite number"

    @property
    def canonical(self) -> str:
        """See `Kind.canonical`."""
        return self.name + (f"/{self.resolution!r}" if self.resolution else "")

    @classmethod
    def declared(cls, bounds: Bounds, size: Any) -> Self:
        """See `Kind.declared`."""
        kind = super().declared(bounds, size)
        resolution = bounds.resolution
        if resolution is None:
            return kind
        if not (is_number(resolution) and 0 < resolution <= _FLOAT_MAX):
            raise ValueError(f"resolution {resolution!r} is not above 0")
        return attrs.evolve(kind, resolution=float(resolution))

    def nearest(self, comparison: str, bound: float) -> float:
        """See `Number.nearest`; a bound that is an int may lie between two floats."""
        up = comparison.startswith(">")
        limit = float(bound)
        if limit == bound and comparison.endswith("="):
            return limit
        outside = limit <= bound if up else limit >= bound
        return math.nextafter(limit, math.inf if up else -math.inf) if outside else limit

    def encode(self, value: Any) -> float:
        """See `Kind.encode`; anything that converts to float is a number, except text."""
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number

    def parse(self, text: str) -> float:
        """See `Kind.parse`."""
        return float(text)

    def accepted(self, value: str) -> str:
        """See `Kind.accepted`; this changes -0.0 and no other value (IEEE 754, section 6.3)."""
        return f"{value} + 0.0"

    def settle_column(self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """See `Kind.settle_column`."""
        np.add(column, 0.0, out=column, where=good)

    def snapped(self, packed: float) -> float:
        """See `Kind.snapped`; a value too large to count in steps stays unchanged."""
        resolution = self.resolution
        if resolution is None:
            return packed
        try:
            steps = round(packed / resolution)
        except OverflowError:
            return packed
        if steps * resolution > self.high:
            steps -= 1
        if steps * resolution < self.low:
            steps += 1
        return steps * resolution


@attrs.frozen
class Int(Number):
    """A signed 64-bit integer."""

    low: int = _INT64[0]
    high: int = _INT64[1]

    name = "int"
    plain = int
    column = Column.INTEGER
    size = 8
    format = "q"
    dtype = "<i8"
    least, greatest = _INT64
    _noun, _unbound = "a whole number", "a whole number of 64 bits"

    @classmethod
    def declared(cls, bounds: Bounds, size: Any) -> Self:
        """See `Kind.declared`."""
        kind = super().declared(bounds, size)
        if bounds.resolution is not None:
            raise ValueError("a resolution is for float; an int's step is always 1")
        return kind

    @classmethod
    def _check_bound(cls, bound: Any) -> None:
        if not isinstance(bound, int):
            raise ValueError(f"bound {bound!r} of an int must be an int")
        super()._check_bound(bound)

    def nearest(self, comparison: str, bound: float) -> int:
        """See `Number.nearest`."""
        limit = math.ceil(bound) if comparison in (">=", "<") else math.floor(bound)
        return limit + {">": 1, "<": -1}.get(comparison, 0)

    def encode(self, value: Any) -> int:
        """See `Kind.encode`; a float is never accepted as an int, not even 1.0."""
        whole = operator.index(value)
        if not _INT64[0] <= whole <= _INT64[1]:
            raise OverflowError
        return whole

    def parse(self, text: str) -> int:
        """See `Kind.parse`."""
        return int(text)

    def condition(self, value: str) -> str:
        """See `Kind.condition`; without bounds every 64-bit pattern is accepted."""
        return "" if (self.low, self.high) == _INT64 else super().condition(value)

    def check_column(self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """See `Kind.check_column`."""
        if (self.low, self.high) != _INT64:
            super().check_column(column, good)


@attrs.frozen
class Bool(Kind):
    """True or False; packed, 1 or 0."""

    name = "bool"
    plain = bool
    column = Column.BOOLEAN
    packed_as_is = False
    size = 1
    format = "B"
    dtype = "u1"
    allowed = "True or False"

    @classmethod
    def declared(cls, bounds: Bounds, size: Any) -> Self:
        """See `Kind.declared`."""
        if size is not None:
            raise ValueError("text(n) is for str, not bool")
        if bounds != Bounds():
            raise ValueError("within() is for float and int, not bool")
        return cls()

    def encode(self, value: Any) -> int:
        """See `Kind.encode`; 0 and 1 are rejected: they are ints."""
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError
        return int(value)

    def decode(self, packed: int) -> bool:
        """See `Kind.decode`."""
        return bool(packed)

    def parse(self, text: str) -> bool:
        """See `Kind.parse`: 0, 1, true or false, in any case."""
        try:
            return _CELLS[text.strip().lower()]
        except KeyError:
            raise ValueError(text) from None

    def condition(self, value: str) -> str:
        """See `Kind.condition`."""
        return f"0 <= {value} <= 1"

    def check_column(self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """See `Kind.check_column`."""
        good &= column <= 1


@attrs.frozen
class Text(Kind):
    """A text without NUL; packed as its UTF-8 bytes, padded with zeros.

    Attributes:
        size: the most bytes it holds.
    """

    size: int

    name = "text"
    plain = str
    column = Column.TEXT
    packed_as_is = False

    @property
    def canonical(self) -> str:
        """See `Kind.canonical`."""
        return f"text({self.size})"

    @property
    def format(self) -> str:
        """See `Kind.format`."""
        return f"{self.size}s"

    @property
    def dtype(self) -> str:
        """See `Kind.dtype`."""
        return f"S{self.size}"

    @property
    def allowed(self) -> str:
        """See `Kind.allowed`."""
        return f"text of at most {self.size} bytes of UTF-8, without NUL"

    @classmethod
    def declared(cls, bounds: Bounds, size: Any) -> Self:
        """See `Kind.declared`."""
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError("str needs metadata=text(n), where n is its size in bytes, at least 1")
        if bounds != Bounds():
            raise ValueError("within() is for float and int, text(n) for str")
        return cls(size)

    def encode(self, value: Any) -> bytes:
        """See `Kind.encode`."""
        packed = value.encode() if isinstance(value, str) else None
        if packed is None or len(packed) > self.size or b"\0" in packed:
            raise TypeError
        return packed.ljust(self.size, b"\0")

    def decode(self, packed: bytes) -> str:
        """See `Kind.decode`."""
        return packed.rstrip(b"\0").decode()

    def parse(self, text: str) -> str:
        """See `Kind.parse`."""
        return text

    def condition(self, value: str) -> str:
        """See `Kind.condition`."""
        return f"is_text({value})"

    def check_column(self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """See `Kind.check_column`."""
        good &= np.fromiter(map(_is_text, column.tolist()), np.bool_, len(column))

    def carried(self, values: npt.NDArray[Any], before: Kind) -> npt.NDArray[np.bool_]:
        """See `Kind.carried`: texts of another size are carried over if they fit."""
        same = super().carried(values, before)
        return np.char.str_len(values) <= self.size if same.any() else same


def _is_text(packed: bytes) -> bool:
    """Whether the bytes are UTF-8, zero padded, with no zero byte inside."""
    body = packed.rstrip(b"\0")
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in body


CONDITIONS: Mapping[str, Any] = {"is_text": _is_text}
"""The names that expressions of `Kind.condition` may use."""

KINDS: tuple[type[Kind], ...] = (Float, Int, Bool, Text)
"""All kinds."""

_NAMED: Mapping[str, type[Kind]] = {kind.name: kind for kind in KINDS}
_CANONICAL = re.compile(r"(\w+)(?:\((\d+)\))?(?:/[^ ]*)?(?: server)?")


def of_canonical(canonical: str) -> Kind:
    """The kind of a field of this canonical text; its resolution and its owner are ignored.

    Raises:
        ValueError: no kind has it.
    """
    found = _CANONICAL.fullmatch(canonical)
    kind = _NAMED.get(found[1]) if found else None
    if found is None or kind is None:
        raise ValueError(f"{canonical!r} is no kind of field")
    return kind.declared(Bounds(), None if found[2] is None else int(found[2]))


def is_number(value: object) -> bool:
    """Whether a value is an int or a float; a bool counts as neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _span(plain: type, low: Any, high: Any) -> tuple[Any, Any]:
    """The bounds of a number, converted to its plain type."""
    if low > high:
        raise ValueError(f"no value lies within {low!r} and {high!r}")
    return plain(low), plain(high)
