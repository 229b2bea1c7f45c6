"""Shows a server's figures live in a terminal, or once where the output is no terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from playerstate.cli.metrics import NotMetrics, Scrape, read_metrics
from playerstate.cli.terminal import say, say_json, screen
from playerstate.cli.web import Web, WebError
from playerstate.printable import printable

PATIENCE = 5.0
"""Seconds within which the server must answer; a server that takes longer is shown as gone."""
BAR_CELLS = 20

Figures = dict[str, float | None]


@attrs.frozen
class Line:
    """One line of the screen.

    Attributes:
        name: what it shows.
        text: the figures, in words.
        share: of a limit, from 0; None where there is no limit.
        is_wrong: whether an operator should look into it.
    """

    name: str
    text: str
    share: float | None = None
    is_wrong: bool = False


def figures_of(now: Scrape, before: Scrape | None) -> Figures:
    """The figures of one moment; a rate is None until there are two.

    Args:
        now: the last scrape.
        before: the one before it.
    """

    def rate(name: str) -> float | None:
        return None if before is None else now.rate(name, before)

    def quantile(name: str, share: float) -> float | None:
        return now.quantile(name, share, before)

    value = now.values.get
    return {
        "players_online": value("players_online"),
        "players_leaving": value("players_leaving"),
        "moves_received_a_second": rate("updates_received_total"),
        "moves_applied_a_second": rate("updates_applied_total"),
        "moves_rejected_a_second": rate("updates_rejected_total"),
        "rows_saved_a_second": rate("updates_committed_total"),
        "updates_pending": value("updates_pending"),
        "oldest_unsaved_seconds": value("oldest_unsaved_seconds"),
        "save_within_seconds": value("save_within_seconds"),
        "queue_depth": value("queue_depth"),
        "queue_capacity": value("queue_capacity"),
        "queue_overflows": value("queue_overflows_total"),
        "commit_p50_seconds": quantile("persist_latency_seconds", 0.5),
        "commit_p99_seconds": quantile("persist_latency_seconds", 0.99),
        "lateness_p99_seconds": quantile("reactor_lateness_seconds", 0.99),
        "store_errors": value("store_errors_total"),
        "store_errors_a_second": rate("store_errors_total"),
        "persist_thread_restarts": value("persist_thread_restarts_total"),
        "kernel_drops": value("kernel_drops_total"),
        "kernel_drops_a_second": rate("kernel_drops_total"),
        "live_file_bytes": value("live_file_bytes"),
        "wal_bytes": value("wal_bytes"),
    }


def lines_of(figures: Figures) -> list[Line]:
    """The figures as lines of a screen; those that the server does not show are left out."""
    oldest, promise = figures["oldest_unsaved_seconds"], figures["save_within_seconds"]
    depth, capacity = figures["queue_depth"], figures["queue_capacity"]
    lines = [
        _line("players", figures, ("online", "players_online"), ("leaving", "players_leaving")),
        _line(
            "moves a second",
            figures,
            ("received", "moves_received_a_second"),
            ("applied", "moves_applied_a_second"),
            ("rejected", "moves_rejected_a_second"),
        ),
        _line(
            "saving", figures, ("rows a second", "rows_saved_a_second"), ("wait", "updates_pending")
        ),
    ]
    if oldest is not None:
        limit = f" of {promise:g} s promised" if promise else ""
        share = oldest / promise if promise else None
        late = bool(promise) and oldest > (promise or 0)
        lines.append(Line("oldest unsaved", f"{oldest:.1f} s{limit}", share, late))
    if depth is not None:
        overflows = figures["queue_overflows"]
        text = f"{depth:,.0f}" + (f" of {capacity:,.0f} rows" if capacity else " rows")
        text += f", {overflows:,.0f} overflows" if overflows else ""
        lines.append(Line("queue", text, depth / capacity if capacity else None))
    lines += [
        _line(
            "commits",
            figures,
            ("p50", "commit_p50_seconds"),
            ("p99", "commit_p99_seconds"),
            shown=_timed,
        ),
        _line("reactor late by", figures, ("p99", "lateness_p99_seconds"), shown=_timed),
        _line("store errors", figures, ("in all", "store_errors")),
        _line("persist thread", figures, ("restarts", "persist_thread_restarts")),
        _line("kernel drops", figures, ("in all", "kernel_drops")),
        _line(
            "on disk",
            figures,
            ("live file", "live_file_bytes"),
            ("log", "wal_bytes"),
            shown=_sized,
        ),
    ]
    rising = {
        "store errors": figures["store_errors_a_second"],
        "persist thread": figures["persist_thread_restarts"],
        "kernel drops": figures["kernel_drops_a_second"],
    }
    return [
        attrs.evolve(line, is_wrong=line.is_wrong or bool(rising.get(line.name)))
        for line in lines
        if line.text
    ]


def _line(
    name: str,
    figures: Figures,
    *parts: tuple[str, str],
    shown: Callable[[str, float], str] = lambda word, value: f"{value:,.0f} {word}",
) -> Line:
    """A line of those of these figures that are known, each with its word."""
    known = [(word, value) for word, key in parts if (value := figures[key]) is not None]
    return Line(name, ", ".join(shown(word, value) for word, value in known))


def _timed(word: str, seconds: float) -> str:
    """A bound of a histogram."""
    if math.isinf(seconds):
        return f"{word} above all bounds"
    return f"{word} up to {1000 * seconds:,.3g} ms"


def _sized(word: str, size: float) -> str:
    return f"{word} {size / 2**20:,.1f} MiB"


def draw(url: str, lines: list[Line], gone: str, seconds: float) -> Group:
    """The screen.

    Args:
        url: the server's.
        lines: the last figures.
        gone: why the server does not answer; empty if it does.
        seconds: how old the figures are.
    """
    head = Text(f"playerstate at {url}")
    if gone:
        head.append(f"\nno answer for {seconds:.0f} s: {printable(gone)}; trying again", "bold red")
    table = Table(box=None, show_header=False, pad_edge=False)
    for line in lines:
        style = "dim" if gone else "bold red" if line.is_wrong else ""
        # Told apart by the mark as well, for those who see no colour.
        mark = "!" if line.is_wrong else " "
        table.add_row(f"{mark} {line.name}", line.text, _bar(line.share), style=style)
    return Group(head, table, Text("Ctrl-C ends it", "dim"))


def _bar(share: float | None) -> str:
    if share is None:
        return ""
    full = min(BAR_CELLS, round(BAR_CELLS * share))
    return "█" * full + "░" * (BAR_CELLS - full)


def top(
    web: Web,
    interval: float,
    as_json: bool,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a server's figures until Ctrl-C; without a terminal, those of one interval.

    Args:
        web: the server's endpoint.
        interval: seconds between two looks.
        as_json: whether to print those of one interval as a JSON object.
        monotonic: a clock that never steps.
        sleep: waits so many seconds.

    Raises:
        WebError: the server does not answer at the start; later that is shown, and tried again.
    """
    scrape = _scrape(web, monotonic)
    if as_json or screen() is None:
        sleep(interval)
        figures = figures_of(_scrape(web, monotonic), scrape)
        if as_json:
            say_json({"url": web.url, **{name: _plain(each) for name, each in figures.items()}})
            return
        for line in lines_of(figures):
            say(f"{'!' if line.is_wrong else ' '} {line.name}: {line.text}")
        return
    with ExitStack() as stack:
        live = stack.enter_context(
            Live(console=Console(), screen=True, auto_refresh=False, transient=True)
        )
        try:
            for shown in _screens(web, scrape, interval, monotonic, sleep):
                live.update(shown, refresh=True)
        except KeyboardInterrupt:
            return


def _screens(
    web: Web,
    scrape: Scrape,
    interval: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Any]:
    """One screen after another, without an end."""
    lines = lines_of(figures_of(scrape, None))
    gone = ""
    while True:
        yield draw(web.url, lines, gone, monotonic() - scrape.at)
        sleep(interval)
        try:
            before, scrape = scrape, _scrape(web, monotonic)
        except WebError as error:
            gone = error.message
            continue
        gone = ""
        lines = lines_of(figures_of(scrape, before))


def _scrape(web: Web, monotonic: Callable[[], float]) -> Scrape:
    try:
        return read_metrics(web.read("/metrics"), monotonic())
    except NotMetrics as error:
        raise WebError(f"{web.url}/metrics: {error}") from error


def _plain(value: float | None) -> float | None:
    """A figure as JSON can hold it."""
    return value if value is None or math.isfinite(value) else None
