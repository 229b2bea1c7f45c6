"""Figures read from Prometheus' text format."""

from __future__ import annotations

import math

from twisted.trial.unittest import SynchronousTestCase

from playerstate.cli.metrics import NotMetrics, read_metrics
from tests.kit.metrics import METRICS


def later(rise: float) -> str:
    """The figures after more updates were applied and commits made."""
    text = METRICS.replace("applied_total 5000.0", f"applied_total {5000 + rise}")
    text = text.replace('le="0.01"} 98.0', 'le="0.01"} 99.0')
    return text.replace('le="+Inf"} 100.0', 'le="+Inf"} 104.0')


class MetricsTests(SynchronousTestCase):
    """`read_metrics`, and what is computed of two scrapes."""

    def setUp(self) -> None:
        """One scrape."""
        self.scrape = read_metrics(METRICS, 10.0)

    def test_values(self) -> None:
        """Each figure is found by its name, the sum over its labels; those of others are not."""
        values = self.scrape.values
        self.assertEqual(values["players_online"], 100.0)
        self.assertEqual(values["updates_rejected_total"], 7.0)
        self.assertNotIn("process_open_fds", values)
        self.assertEqual(values["store_errors_total"], 0.0)

    def test_rate(self) -> None:
        """A rate is the rise by the time; unknown for one scrape, and after a restart."""
        now = read_metrics(later(300), 12.0)
        self.assertEqual(now.rate("updates_applied_total", self.scrape), 150.0)
        self.assertIsNone(now.rate("no_such_total", self.scrape))
        self.assertIsNone(self.scrape.rate("updates_applied_total", self.scrape))
        restarted = read_metrics(later(-4000), 12.0)
        self.assertIsNone(restarted.rate("updates_applied_total", self.scrape))

    def test_quantile(self) -> None:
        """A quantile is the bound below which it lies: of all values, or of those since."""
        name = "persist_latency_seconds"
        self.assertEqual(self.scrape.quantile(name, 0.1), 0.001)
        self.assertEqual(self.scrape.quantile(name, 0.5), 0.01)
        self.assertEqual(self.scrape.quantile(name, 0.99), math.inf)
        now = read_metrics(later(0), 12.0)
        self.assertEqual(now.quantile(name, 0.25, self.scrape), 0.01)
        self.assertEqual(now.quantile(name, 0.5, self.scrape), math.inf)
        self.assertIsNone(now.quantile(name, 0.5, now))
        self.assertIsNone(now.quantile("no_such_seconds", 0.5))

    def test_not_metrics(self) -> None:
        """What is none says why."""
        for text in ("<html>", "", "process_open_fds 7\n", 'playerstate_x{le="1"} z\n'):
            with self.subTest(text):
                self.assertRaises(NotMetrics, read_metrics, text, 1.0)
