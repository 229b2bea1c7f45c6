"""What a kind of fields is: all that is asked of a field, but its name and its default.

A kind knows how its values lie in a row and on the wire, which column a store keeps them in, what
it takes, and what of an older kind's values it can carry on.  Who deals with fields asks the kind
and not which kind it is; a new one is a new class in `playerstate.state.kinds`.

A value has two forms: *plain*, a ``float``, ``int``, ``bool`` or ``str``, as a program and a store
have it; and *packed*, as `struct` packs it: a bool as 0 or 1, a text as its zero-padded bytes of
UTF-8.

What a packed value must be is said twice, and a test holds the two to be the same rule: for one
value as an expression, `Kind.condition` and `Kind.accepted`, which a schema compiles into one
function of all its fields; and for a column of values, `Kind.check_column` and
`Kind.settle_column`, which numpy runs through.

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
    """What a column is to hold; a store has a type of its own for each."""

    REAL = "float64"
    INTEGER = "int64"
    BOOLEAN = "bool"
    TEXT = "text"


@attrs.frozen
class Bounds:
    """What the state class says of a number's field, not looked at yet; each None for nothing."""

    low: Any = None
    high: Any = None
    resolution: Any = None


class Kind(abc.ABC):
    """What a field holds; compared by value.

    Attributes:
        name: ``float``, ``int``, ``bool`` or ``text``, as the schema's canonical text has it.
        plain: the type of the plain values.
        column: what a store's column of it is to hold.
        packed_as_is: whether a packed value is the plain value itself.
    """

    name: ClassVar[str]
    plain: ClassVar[type]
    column: ClassVar[Column]
    packed_as_is: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Bytes of a packed value; the most that a text takes."""

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
        """What it takes, in words."""

    @property
    def canonical(self) -> str:
        """The kind in the schema's canonical text."""
        return self.name

    @property
    def resolution(self) -> float | None:
        """The step of the grid that a DELTA counts in, or None."""
        return None

    @classmethod
    @abc.abstractmethod
    def declared(cls, bounds: Bounds, size: Any) -> Self:
        """The kind as a state class declares it.

        Args:
            bounds: what ``within`` said.
            size: what ``text`` said; None for nothing.

        Raises:
            ValueError: this is not to be said of it, in words.
        """

    @abc.abstractmethod
    def encode(self, value: Any) -> Any:
        """A plain value, of a program or of a store, as packed; of the right type and size.

        Its bounds are not looked at: they bind updates, not what is stored.

        Raises:
            Exception: of any class: it cannot be held.
        """

    def decode(self, packed: Any) -> Any:
        """A packed value as plain."""
        return packed

    @abc.abstractmethod
    def parse(self, text: str) -> Any:
        """The plain value that somebody wrote down; `encode` judges it.

        Raises:
            ValueError: it reads like none.
        """

    @abc.abstractmethod
    def condition(self, value: str) -> str:
        """What holds of a packed value that is accepted, as an expression; empty where all are.

        Args:
            value: the packed value's name.  The expression may use `CONDITIONS` besides.
        """

    def accepted(self, value: str) -> str:
        """What such a value is taken in as, as an expression."""
        return value

    @abc.abstractmethod
    def check_column(self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> None:
        """Do what `condition` does to many values at once: leave `good` true for those alone."""

    def settle_column(  # noqa: B027  most kinds take their values in as they are
        self, column: npt.NDArray[Any], good: npt.NDArray[np.bool_]
    ) -> None:
        """Do what `accepted` does to many values at once, in place, to those that are good."""

    def carried(self, values: npt.NDArray[Any], before: Kind) -> npt.NDArray[np.bool_]:
        """Which of the values of a field that was of another kind before it can carry on.

        Args:
            values: packed, of the older kind's `dtype`.
            before: the older kind.
        """
        return np.full(len(values), type(before) is type(self))

    def snapped(self, packed: Any) -> Any:
        """The value of the grid that lies nearest, of those within the bounds."""
        return packed
