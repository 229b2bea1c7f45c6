"""Save the players who changed to PostgreSQL: rows a second, and what that does to the reactor."""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np

from bench.cases.lateness import IDLE, PERCENTILES, Idle, serving, watch
from bench.figures import OURS, Figure, Outcome, Target, ratio
from bench.ours import SCHEMA, Rows
from bench.postgresql_writers import (
    EXECUTEMANY,
    C,
    Ours,
    lacking,
    rivals,
    running_server,
)
from bench.rounds import Measure, interleave
from bench.stage import Stage
from bench.writers import Writer
from playerstate.stores.postgresql.store import PostgreSQLStore
from playerstate.stores.postgresql.url import parse_url
from tests.kit.postgresql import PostgreSQL, programs

LATENESS_SHARE = 0.3
"""Of the case's time."""


def run(stage: Stage) -> Outcome:
    """Measure flushes on an idle machine, then the lateness of ticks during the largest."""
    if programs() is None:
        return Outcome([], [], lacking())
    sizes = {10_000: 1.0} if stage.quick else {1_000: 0.1, 20_000: 0.3, 100_000: 0.6}
    with running_server() as server:
        figures = [
            figure
            for size, share in sizes.items()
            for figure in _flushes(stage, server, size, share * (1 - LATENESS_SHARE))
        ]
        late, targets = _lateness(stage, server, max(sizes))
    goals = [
        Target(
            f"times executemany, {size:,} players", _times(figures, EXECUTEMANY, size), 2.5, True
        )
        for size in sizes
        if size > 1_000
    ]
    goals.append(
        Target("of the C program's rate", _times(figures, C, max(sizes)), 0.9, at_least=True)
    )
    notes = [
        "PostgreSQL as Debian has it, with its defaults, on loopback; the store holds as many"
        " players as change",
        "all contenders have the rows sorted by session id; ours sorts them itself",
    ]
    return Outcome([*figures, *late], [*goals, *targets], lacking(), notes)


def _times(figures: list[Figure], rival: str, size: int) -> float | None:
    return ratio(figures, rival, f"{size:,} players")


def _flushes(stage: Stage, server: PostgreSQL, size: int, share: float) -> list[Figure]:
    rows, setting = Rows(size), f"{size:,} players"
    stage.say(f"{setting}: make the databases")
    with ExitStack() as stack:
        ours = Ours(stage, server, rows)
        stack.callback(ours.close)
        ours.prepare(rows)
        ours.flush(rows, math.inf)
        writers: dict[str, Writer] = {OURS: ours, **rivals(stage, server, rows)}
        for writer in list(writers.values())[1:]:
            stack.callback(writer.close)
        measured = interleave(
            {name: _turn(writer, rows) for name, writer in writers.items()},
            stage.seconds * share,
            say=lambda text: stage.say(f"{setting}: {text}"),
        )
    return [Figure(name, setting, "rows/s", values) for name, values in measured.items()]


def _turn(writer: Writer, rows: Rows) -> Measure:
    """One contender's turn: rows a second of one flush."""

    def measure() -> float:
        rows.change()
        writer.prepare(rows)
        count, seconds = writer.flush(rows, math.inf)
        return count / seconds

    return measure


def _lateness(stage: Stage, server: PostgreSQL, size: int) -> tuple[list[Figure], list[Target]]:
    rows = Rows(size)
    url = server.url(server.make_database())
    store = PostgreSQLStore(parse_url(url), SCHEMA, reactor=stage.reactor)
    with serving(stage, store, rows, None) as service:
        late = watch(stage, {IDLE: Idle(), OURS: service}, stage.seconds * LATENESS_SHARE)
    setting = f"lateness during flushes of {size:,} rows"
    figures = [
        Figure(name, f"{setting}, {mark}", "ms", [float(np.percentile(found, percent)) * 1e3])
        for mark, percent in PERCENTILES.items()
        for name, found in late.items()
    ]
    above = float(np.percentile(late[OURS], 99.0) - np.percentile(late[IDLE], 99.0)) * 1e3
    return figures, [Target("p99 of lateness above idle", above, 1.0, unit="ms")]
