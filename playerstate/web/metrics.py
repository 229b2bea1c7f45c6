"""The figures of a server as Prometheus reads them.

Nothing is kept here: each scrape takes a snapshot of the ledger, whose declarations give the names,
the kinds and the help texts.  Reactor thread only.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from playerstate.figures import Figure, figures
from playerstate.interfaces import file_store
from playerstate.ledger import Counters, Gauges, Histograms, Outcome
from playerstate.players.errors import NotRunning
from playerstate.players.service import PlayerStateService
from playerstate.web.lateness import Lateness

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The media type of `Metrics.text`."""
KEPT = 0.25
"""Seconds for which a scrape gets the text of the one before, however many there are."""
PREFIX = "playerstate_"
_LOG = "-wal"
_BLOCK = 512

Source = Callable[[], Any]
"""Gives an instance of an attrs class with figures; raises `NotRunning` where there is none."""


class Metrics:
    """The text of a scrape.

    Args:
        service: the players' service.
        sources: others with figures, such as the tally of a netcode transport.
        seconds: a clock that never steps.
    """

    def __init__(
        self,
        service: PlayerStateService,
        sources: Sequence[Source],
        seconds: Callable[[], float],
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collected(service, sources))
        self._lateness = Lateness(service)
        self._seconds = seconds
        self._text = b""
        self._made_at = float("-inf")

    def follow(self) -> None:
        """Measure from now on what is measured only where it can be asked for.

        Raises:
            NotRunning: the service does not run.
        """
        self._lateness.follow()

    def text(self) -> bytes:
        """The figures, at most `KEPT` seconds old."""
        with suppress(NotRunning):
            self.follow()
        now = self._seconds()
        if now - self._made_at >= KEPT:
            self._text = generate_latest(self._registry)
            self._made_at = now
        return self._text


class _Collected(Collector):
    """Collects the figures at each scrape."""

    def __init__(self, service: PlayerStateService, sources: Sequence[Source]) -> None:
        self._service = service
        self._sources = sources
        self._versions = {"version": our_version(), "python": platform.python_version()}

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering collects nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every figure as it is now."""
        ledger = self._service.ledger
        snapshot = ledger.snapshot()
        for of in (Gauges, Counters):
            yield from _families(of, snapshot)
        yield from _families(Histograms, ledger.histograms)
        for source in self._sources:
            try:
                found = source()
            except NotRunning:
                continue
            yield from _families(type(found), found)
        yield from self._options_and_files()

    def _options_and_files(self) -> Iterator[Metric]:
        options = self._service.options
        yield _gauge(
            "save_within_seconds",
            "seconds within which an applied update is to be committed",
            options.save_within,
        )
        yield _gauge("players_most", "the most players at a time", options.max_players)
        if options.live_file is not None:
            yield _gauge(
                "live_file_bytes",
                "bytes that the live file takes on its disk",
                _on_disk(options.live_file),
            )
        files = file_store(options.store)
        for path in () if files is None else files.files:
            if path.endswith(_LOG):
                yield _gauge("wal_bytes", "bytes of the store's write-ahead log", _length(path))
        yield InfoMetricFamily(
            f"{PREFIX}build", "Versions of this server and what it runs on.", self._versions
        )


def _families(of: type, values: Any) -> Iterator[Metric]:
    for name, figure in figures(of):
        if figure.metric:
            yield _family(figure, getattr(values, name), Outcome.reasons(name))


def _family(figure: Figure, value: Any, known: Sequence[str]) -> Metric:
    """One figure.

    Args:
        figure: what it means.
        value: its value.
        known: values of its label that are shown even where they have not been counted yet, so that
            the first that is counted is a rise.
    """
    name, means = PREFIX + figure.metric, _sentence(figure.means)
    if figure.kind == "histogram":
        buckets = [(_bound(bound), number) for bound, number in value.cumulative()]
        return HistogramMetricFamily(name, means, buckets=buckets, sum_value=value.total)
    if figure.kind == "gauge":
        return GaugeMetricFamily(name, means, value=value)
    if not figure.label:
        return CounterMetricFamily(name, means, value=value)
    family = CounterMetricFamily(name, means, labels=[figure.label])
    for label, number in {**dict.fromkeys(known, 0), **value}.items():
        family.add_metric([label], number)
    return family


def _gauge(name: str, means: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, _sentence(means), value=value)


def _sentence(means: str) -> str:
    return means[:1].upper() + means[1:] + "."


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))


def _length(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _on_disk(path: str) -> int:
    """Bytes of the blocks that a file has; the rest of a live file is a hole."""
    try:
        return os.stat(path).st_blocks * _BLOCK
    except OSError:
        return 0


def our_version() -> str:
    """The version of this package; empty where it is not installed."""
    try:
        return version("playerstate")
    except PackageNotFoundError:
        return ""
