"""Measured figures, and their distance from the targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

OURS = "playerstate"


@attrs.frozen
class Figure:
    """What one contender needed, or reached, in one setting.

    Attributes:
        contender: its name; ours begin with `OURS`.
        setting: under what circumstances, ``100,000 rows``.
        unit: of the values; one that ends in ``/s`` is a rate, of which more is better.
        values: one a round, in the order of the rounds.
        note: what must be known to read it.
    """

    contender: str
    setting: str
    unit: str
    values: tuple[float, ...] = attrs.field(converter=tuple)
    note: str = ""

    @property
    def median(self) -> float:
        """The median of all rounds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The lower and the upper quartile; all there is where there are few rounds."""
        if len(self.values) < 4:
            return min(self.values), max(self.values)
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s")


def times_better(ours: Figure, rival: Figure) -> float:
    """How many times better ours is: above 1 where it is faster, smaller or more at a time.

    The median of the rounds' own ratios, for what disturbed a round disturbed both sides of it.
    """
    pairs = zip(ours.values, rival.values, strict=False)
    if ours.is_rate:
        return statistics.median(mine / theirs for mine, theirs in pairs)
    return statistics.median(theirs / mine for mine, theirs in pairs)


@attrs.frozen
class Target:
    """A figure to be reached.

    Attributes:
        what: in words, without the number.
        value: what was measured; None where it could not be.
        limit: what is to be reached.
        at_least: whether the value is to be at least the limit; else at most.
        unit: of both.
        goal: what to go for beyond the limit.
    """

    what: str
    value: float | None
    limit: float
    at_least: bool = False
    unit: str = ""
    goal: float | None = None

    @property
    def is_reached(self) -> bool:
        """Whether it was measured and reached."""
        return self.value is not None and self._meets(self.value, self.limit)

    def _meets(self, value: float, limit: float) -> bool:
        return value >= limit if self.at_least else value <= limit

    @property
    def verdict(self) -> str:
        """Whether it is reached, and if not, by how much it is missed."""
        if self.value is None:
            return "not measured"
        if self.is_reached:
            if self.goal is not None and self._meets(self.value, self.goal):
                return "reached, and the goal"
            return "reached"
        if self.limit == 0 or self.value == 0:
            return f"missed by {number(abs(self.value - self.limit))}{_spaced(self.unit)}"
        return f"missed by {abs(self.value / self.limit - 1.0):.0%}"

    def __str__(self) -> str:
        relation = "at least" if self.at_least else "at most"
        limit = f"{relation} {number(self.limit)}{_spaced(self.unit)}"
        if self.goal is not None:
            limit += f" (goal {number(self.goal)})"
        value = "-" if self.value is None else f"{number(self.value)}{_spaced(self.unit)}"
        return f"{self.what}: {value}, {limit}: {self.verdict}"


@attrs.frozen
class Outcome:
    """What a case found.

    Attributes:
        figures: in the order they are to be shown in.
        targets: what is to be reached, and was or was not.
        missing: rivals that could not be run, each with the remedy.
        notes: what must be known to read the figures.
    """

    figures: tuple[Figure, ...] = attrs.field(converter=tuple)
    targets: tuple[Target, ...] = attrs.field(converter=tuple, default=())
    missing: tuple[str, ...] = attrs.field(converter=tuple, default=())
    notes: tuple[str, ...] = attrs.field(converter=tuple, default=())

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dicts."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Outcome:
        """What `to_json` gave."""
        return cls(
            [Figure(**figure) for figure in plain["figures"]],
            [Target(**target) for target in plain["targets"]],
            plain["missing"],
            plain["notes"],
        )


def find(figures: Iterable[Figure], contender: str, setting: str) -> Figure | None:
    """The figure of this contender in this setting, if it was measured."""
    for figure in figures:
        if (figure.contender, figure.setting) == (contender, setting):
            return figure
    return None


def ratio(figures: Sequence[Figure], rival: str, setting: str, ours: str = OURS) -> float | None:
    """`times_better` of two contenders in one setting; None where either was not measured."""
    mine, theirs = find(figures, ours, setting), find(figures, rival, setting)
    return None if mine is None or theirs is None else times_better(mine, theirs)


def median(figures: Sequence[Figure], contender: str, setting: str) -> float | None:
    """The median of one figure; None where it was not measured."""
    figure = find(figures, contender, setting)
    return None if figure is None else figure.median


def number(value: float) -> str:
    """Three digits that count, and thousands set apart."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""
