"""The figures of a server, read from what it shows to Prometheus."""

from __future__ import annotations

import math

import attrs
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "playerstate_"


class NotMetrics(ValueError):
    """The text is not what a playerstate server shows; the message says why."""


@attrs.frozen
class Scrape:
    """The figures of one moment.

    Attributes:
        at: when, in seconds of a clock that never steps.
        values: by the name without prefix, such as ``players_online`` or ``updates_applied_total``,
            the sum over all labels.
        buckets: of each histogram by its name, the count up to each bound, ascending.
    """

    at: float
    values: dict[str, float]
    buckets: dict[str, list[tuple[float, float]]]

    def rate(self, name: str, before: Scrape) -> float | None:
        """How much a counter rose per second since an earlier scrape; None if that is unknown."""
        if name not in self.values or name not in before.values or self.at <= before.at:
            return None
        risen = self.values[name] - before.values[name]
        return risen / (self.at - before.at) if risen >= 0 else None  # the server was restarted

    def quantile(self, name: str, share: float, before: Scrape | None = None) -> float | None:
        """The bound up to which this share of a histogram's values lies; None without values.

        Args:
            name: the histogram's.
            share: such as 0.99.
            before: an earlier scrape, to look only at the values since then.
        """
        counts = dict(self.buckets.get(name, []))
        if before is not None:
            earlier = dict(before.buckets.get(name, []))
            counts = {bound: count - earlier.get(bound, 0.0) for bound, count in counts.items()}
        total = counts.get(math.inf, 0.0)
        if total <= 0:
            return None
        return next(bound for bound, count in counts.items() if count >= share * total)


def read_metrics(text: str, at: float) -> Scrape:
    """Read an answer in Prometheus' text format.

    Raises:
        NotMetrics: it is none, or none of a playerstate server.
    """
    values: dict[str, float] = {}
    buckets: dict[str, list[tuple[float, float]]] = {}
    try:
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(PREFIX):
                continue
            if family.type == "counter":  # without a label value yet it has no sample
                values[f"{family.name.removeprefix(PREFIX)}_total"] = 0.0
            for sample in family.samples:
                name = sample.name.removeprefix(PREFIX)
                if name.endswith("_bucket"):
                    pair = (float(sample.labels["le"]), sample.value)
                    buckets.setdefault(name.removesuffix("_bucket"), []).append(pair)
                else:
                    values[name] = values.get(name, 0.0) + sample.value
    except Exception as error:  # the parser may raise anything about a text that is none
        raise NotMetrics(f"not Prometheus' text format: {error!r}") from error
    if not values:
        raise NotMetrics("no figure of a playerstate server is in it")
    for pairs in buckets.values():
        pairs.sort()
    return Scrape(at, values, buckets)
