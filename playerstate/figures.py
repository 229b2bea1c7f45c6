"""What each figure means, said where the figure is declared: for the docs and for monitoring.

A figure is a field of an attrs class, declared by `counter`, `gauge` or `histogram`.  `described`
writes the meanings into the docstring of the class, and `figures` gives them to whatever shows the
values, so that no name and no text stands anywhere else.

The names follow Prometheus' rules: the unit comes last, in base units, and the ``_total`` of a
counter is added by what shows it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import attrs

C = TypeVar("C", bound=type)

_KEY = "playerstate.figure"


@attrs.frozen
class Figure:
    """What a figure means.

    Attributes:
        kind: ``counter``, ``gauge`` or ``histogram``.
        metric: its name for monitoring, with the unit last; empty if others tell the same.
        means: in words, as a part of a sentence.
        label: what its values are told apart by, such as ``reason``; empty for a single value.
    """

    kind: str
    metric: str
    means: str
    label: str = ""


class Histogram:
    """How many observed values lie up to each bound, and their sum.

    Args:
        bounds: inclusive upper bounds, ascending; what lies above the last is counted as well.

    Attributes:
        counts: the number of values up to each bound that are above the bound before; the last is
            of those above all bounds.
        total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[float, int]]:
        """Each bound, and infinity, with the number of values up to it."""
        so_far, found = 0, []
        for bound, number in zip((*self.bounds, float("inf")), self.counts, strict=True):
            so_far += number
            found.append((bound, so_far))
        return found


def counter(means: str, metric: str = "", *, label: str = "", default: Any = 0) -> Any:
    """A field that counts.

    Args:
        means: see `Figure`.
        metric: see `Figure`.
        label: see `Figure`.
        default: where it begins; with a label, the class of the mapping by the label's values.
    """
    if label:
        default = attrs.Factory(default or dict)
    return attrs.field(default=default, metadata={_KEY: Figure("counter", metric, means, label)})


def gauge(means: str, metric: str = "", *, default: Any = 0) -> Any:
    """A field with a value that goes up and down."""
    return attrs.field(default=default, metadata={_KEY: Figure("gauge", metric, means)})


def histogram(means: str, metric: str, bounds: Sequence[float]) -> Any:
    """A field with a `Histogram` of these bounds."""
    return attrs.field(
        factory=lambda: Histogram(bounds),
        metadata={_KEY: Figure("histogram", metric, means)},
        eq=False,
        repr=False,
    )


def figures(of: type) -> Iterator[tuple[str, Figure]]:
    """The figures of an attrs class, by the names of their fields, in order."""
    for field in attrs.fields(of):
        if _KEY in field.metadata:
            yield field.name, field.metadata[_KEY]


def described(of: C) -> C:
    """Have the docstring of an attrs class list its figures; a decorator."""
    lines = [f"    {name}: {figure.means}." for name, figure in figures(of)]
    of.__doc__ = "\n".join([(of.__doc__ or "").rstrip(), "", "Attributes:", *lines, ""])
    return of
