"""Save 1,000, 20,000 and 100,000 players who changed: one flush, as rows a second."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import apsw

from bench.figures import OURS, Figure, Outcome, Target, ratio
from bench.ours import Rows
from bench.rivals import missing, missing_for_c
from bench.rounds import Measure, interleave
from bench.stage import Stage
from bench.upsert import SYNCHRONOUS
from bench.writers import C_SORTED, EXECUTEMANY, Ours, Writer, contenders

Around = Callable[[], AbstractContextManager[None]]
WARM_SECONDS = 0.2
BY_ROW_SECONDS = 0.3
"""A writer that goes row by row is stopped after this time."""


def run(stage: Stage) -> Outcome:
    """Measure flushes on an idle machine."""
    sizes = {10_000: 1.0} if stage.quick else {1_000: 0.1, 20_000: 0.25, 100_000: 0.65}
    figures = measure(stage, sizes, nullcontext, math.inf)
    return Outcome(figures, _targets(figures, list(sizes)), lacking(), notes())


def lacking() -> list[str]:
    """Contenders that cannot be run here."""
    return [*missing_for_c(), *missing("aiosqlite", "sqlitedict")]


def notes() -> list[str]:
    """Notes that explain the figures of a flush."""
    return [
        f"synchronous={SYNCHRONOUS} and the same table and statement everywhere (sqlitedict has its"
        " own); the store holds as many players as change",
        f"SQLite is {apsw.sqlite_lib_version()} in apsw, {sqlite3.sqlite_version} in sqlite3 and"
        " in all that is built on it, and the system's in C",
        f"a writer that goes row by row is stopped after {BY_ROW_SECONDS} s, and measured by the"
        " rows that it wrote until then",
    ]


def measure(
    stage: Stage, sizes: dict[int, float], around: Around, most_seconds: float
) -> list[Figure]:
    """Rows a second of every contender at every size.

    Args:
        stage: of the case.
        sizes: players who changed, each with its share of the case's time.
        around: entered while a flush is measured, but not while it is prepared.
        most_seconds: a flush is cut short after this time.
    """
    figures: list[Figure] = []
    for size, share in sizes.items():
        rows, setting = Rows(size), f"{size:,} players"
        stage.say(f"{setting}: make the databases")
        with _writers(stage, rows) as writers:
            measured = interleave(
                {
                    name: _turn(writer, rows, around, most_seconds)
                    for name, writer in writers.items()
                },
                stage.seconds * share,
                say=lambda text, setting=setting: stage.say(f"{setting}: {text}"),
            )
        figures += [Figure(name, setting, "rows/s", values) for name, values in measured.items()]
    return figures


@contextmanager
def _writers(stage: Stage, rows: Rows) -> Iterator[dict[str, Writer]]:
    writers = {OURS: Ours(stage, rows), **contenders(stage, rows)}
    try:
        for writer in writers.values():
            writer.prepare(rows)
            writer.flush(rows, WARM_SECONDS if writer.by_row else math.inf)
        yield writers
    finally:
        for writer in writers.values():
            writer.close()


def _turn(
    writer: Writer,
    rows: Rows,
    around: Around,
    most_seconds: float,
) -> Measure:
    """One contender's turn: rows a second of one flush."""

    def measure() -> float:
        rows.change()
        writer.prepare(rows)
        with around():
            count, seconds = writer.flush(rows, BY_ROW_SECONDS if writer.by_row else most_seconds)
        return count / seconds

    return measure


def _targets(figures: list[Figure], sizes: list[int]) -> list[Target]:
    def at_least(what: str, rival: str, size: int, limit: float, goal: float | None) -> Target:
        setting = f"{size:,} players"
        return Target(f"{what}, {setting}", ratio(figures, rival, setting), limit, True, goal=goal)

    most = sizes[-1]
    of_c = "of the C program's rate on sorted rows"
    targets = [
        at_least(of_c, C_SORTED, most, 0.65, 0.75),
        at_least("times executemany in random order", EXECUTEMANY, most, 5.0, None),
    ]
    if sizes[0] < most:
        targets.append(at_least(of_c, C_SORTED, sizes[0], 0.5, None))
    return targets
