"""The interface of a kind: everything about a field except its name and its default.

A kind knows how its values lie in a row and on the wire, which column a store keeps them in, which
values it accepts, and which values of an older kind it can carry over.  Other modules call these
methods and never test which kind a field has; a new kind is a new class in
`playerstate.state.kinds`.

A value has two forms: *plain*, a ``float``, ``int``, ``bool`` or ``str``, as programs and stores
use it; and *packed*, as `struct` packs it: a bool as 0 or 1, a text as its zero-padded UTF-8 bytes.

The rule for packed values is written twice, and a test checks that both agree: for one value, as
the expressions `Kind.condition` and `Kind.accepted`, which a schema compiles into one function of
all its fields; and for a column of values, as `Kind.check_column` and `Kind.settle_column`, which
numpy runs in bulk.

Nothing here depends on a thread: a kind is immutable, and may be used from any.
"""

from __future__ import annotations

import abc
import enum
from typing import Any, ClassVar, Self

import attrs
import numpy as np
import numpy.typing as npt


class Column(enum.Enum):
    """The data type of a store's column; each store maps these four to types of its own."""

    REAL = "float64"
    INTEGER = "int64"
    BOOLEAN = "bool"
    TEXT = "text"


@attrs.frozen
class Bounds:
    """The bounds of a number field as the state class declares them, unchecked; None if unset."""

    low: Any = None
    high: Any = None
    resolution: Any = None


class Kind(abc.ABC):
    """What a field holds; compared by value.

    Attributes:
        name: ``float``, ``int``, ``bool`` or ``text``, as in the schema's canonical text.
        plain: the type of the plain values.
        column: the data type of its column in a store.
        packed_as_is: whether a packed value is the plain value itself.
    """

    name: ClassVar[str]
    plain: ClassVar[type]
    column: ClassVar[Column]
    packed_as_is: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Bytes of a packed value; for a text, the maximum."""

    @property
    @abc.abstractmethod
    def format(self) -> str:
        """The `struct` format, without byte order."""

    @property
    @abc.abstractmethod
    def dtype(self) -> str:
        """The numpy type in a row; the zero padding of a text is not part of its value."""

    @property
    @abc.abstractmethod
    def allowed(self) -> str:
        """The accepted values, in words."""

    @property
    def canonical(self) -> str:
        """The kind in the schema's canonical text."""
        return self.name

    @property
    def resolution(self) -> float | None:
        """The step of the grid in which a DELTA counts, or None."""
        return None

    @classmethod
    @abc.abstractmethod
    def declared(cls, bounds: Bounds, size: Any) -> Self:
        """Make the kind that a state class declares.

        Args:
            bounds: the bounds given by ``within``.
            size: the size given by ``text``; None if not given.

        Raises:
            ValueError: these cannot be declared for this kind; the message says why.
        """

    @abc.abstractmethod
    def encode(self, value: Any) -> Any:
        """Pack a plain value of a program or a store; checks its type and size.

        Its bounds are not checked: they bind updates, not what is stored.

        Raises:
            Exception: of any class: the field cannot hold the value.
        """

    def decode(self, packed: Any) -> Any:
        """Convert a packed value to a plain one."""
        return packed

    @abc.abstractmethod
    def parse(self, text: str) -> Any:
        """Parse a plain value from text that a person wrote; `encode` checks it.

        Raises:
            ValueError: the text is no value of this kind.
        """

    @abc.abstractmethod
    def condition(self, value: str) -> str:
        """The Python expression that is true of accepted packed values; empty if all are accepted.

        Args:
            value: the packed value's name.  The expression may also use the names in `CONDITIONS`.
        """

    def accepted(self, value: str) -> str:
        """The Python expression for the form in which an accepted value is kept."""
        return value

    @abc.abstractmethod
    def check_column(self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """Check `condition` for many values at once: clear `good` where it is false."""

    def settle_column(  # noqa: B027  most kinds keep accepted values unchanged
        self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]
    ) -> None:
        """Apply `accepted` to many values at once, in place, where `good` is true."""

    def carried(self, values: npt.NDArray[Any], before: Kind) -> npt.NDArray[np.bool_]:
        """Which values of a field that had another kind before can be carried over to this kind.

        Args:
            values: packed, of the older kind's `dtype`.
            before: the older kind.
        """
        return np.full(len(values), type(before) is type(self))

    def snapped(self, packed: Any) -> Any:
        """The nearest value on the grid that lies within the bounds."""
        return packed
