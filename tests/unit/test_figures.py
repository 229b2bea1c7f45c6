"""What figures mean, and histograms."""

from __future__ import annotations

import re

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate.figures import Figure, Histogram, counter, described, figures, gauge, histogram
from playerstate.ledger import Counters, Gauges, Histograms
from playerstate.transports.netcode.tally import Tally


@described
@attrs.define(slots=False)
class Sheep:
    """What a shepherd knows."""

    born: int = counter("lambs born", "lambs_born")
    lost: dict[str, int] = counter("sheep lost, by cause", "sheep_lost", label="cause")
    weight_grams: float = gauge("their weight", "weight_grams", default=0.5)
    ages: Histogram = histogram("their ages", "age_years", (1, 2))
    shepherd: str = "Abel"


class FigureTests(SynchronousTestCase):
    """Figures are declared as fields, with what they mean."""

    def test_figures(self) -> None:
        """Each figure is found with its meaning, in order; other fields are none."""
        self.assertEqual(
            dict(figures(Sheep)),
            {
                "born": Figure("counter", "lambs_born", "lambs born"),
                "lost": Figure("counter", "sheep_lost", "sheep lost, by cause", "cause"),
                "weight_grams": Figure("gauge", "weight_grams", "their weight"),
                "ages": Figure("histogram", "age_years", "their ages"),
            },
        )

    def test_defaults(self) -> None:
        """A field begins at its default, and shares nothing with another instance."""
        one, other = Sheep(), Sheep()
        one.lost["wolf"] = 1
        one.ages.observe(3)
        self.assertEqual((other.born, other.lost, other.weight_grams), (0, {}, 0.5))
        self.assertEqual(other.ages.counts, [0, 0, 0])

    def test_described(self) -> None:
        """The docstring lists the figures after what it says by itself."""
        self.assertEqual(
            Sheep.__doc__,
            "What a shepherd knows.\n\nAttributes:\n    born: lambs born.\n"
            "    lost: sheep lost, by cause.\n    weight_grams: their weight.\n"
            "    ages: their ages.\n",
        )

    def test_names(self) -> None:
        """Ours follow Prometheus' rules: base units last, no ``_total``, and no name twice."""
        names = [
            figure.metric
            for of in (Counters, Gauges, Histograms, Tally)
            for _, figure in figures(of)
            if figure.metric
        ]
        self.assertEqual(len(set(names)), len(names))
        for name in names:
            self.assertTrue(re.fullmatch(r"[a-z]+(_[a-z]+)*", name), name)
            self.assertFalse(re.search(r"_(total|count|sum|bucket|info|ms|milliseconds)$", name))

    def test_every_field(self) -> None:
        """No counter or gauge of ours is without a meaning."""
        for of in (Counters, Gauges, Histograms, Tally):
            self.assertEqual([name for name, _ in figures(of)], [f.name for f in attrs.fields(of)])


class HistogramTests(SynchronousTestCase):
    """How values are distributed."""

    def test_observe(self) -> None:
        """A value at a bound counts below it, and one above all bounds is counted as well."""
        ages = Histogram((1, 2.5))
        for value in (0, 1, 1.5, 2.5, 2.6, 100):
            ages.observe(value)
        self.assertEqual(ages.counts, [2, 2, 2])
        self.assertEqual(ages.total, 107.6)
        self.assertEqual(ages.cumulative(), [(1, 2), (2.5, 4), (float("inf"), 6)])
