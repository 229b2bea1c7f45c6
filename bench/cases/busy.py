"""The same flushes while the reactor thread has work in Python all the time."""

from __future__ import annotations

from functools import partial

from bench.cases.flush import lacking, measure, notes
from bench.figures import Figure, Outcome, Target, ratio
from bench.stage import Stage
from bench.writers import EXECUTEMANY

TURN = 0.005
"""Seconds of one turn of the busy reactor: as long as the interpreter lets a thread run on while
another waits for it."""
MOST_SECONDS = 0.8


def run(stage: Stage) -> Outcome:
    """Measure flushes beside a busy reactor."""
    sizes = {20_000: 1.0} if stage.quick else {20_000: 0.4, 100_000: 0.6}
    busy = partial(stage.busy_reactor, TURN)
    figures = measure(stage, sizes, busy, MOST_SECONDS, by_row=False)
    return Outcome(
        figures,
        [_target(figures, size) for size in sizes if size > 1_000],
        lacking(),
        [
            f"the reactor works in turns of {TURN * 1e3:g} ms, one after the other",
            f"every flush is stopped after {MOST_SECONDS:g} s",
            "who writes row by row has no place here: each row would wait for several turns",
            *notes(),
        ],
    )


def _target(figures: list[Figure], size: int) -> Target:
    setting = f"{size:,} players"
    return Target(
        f"times executemany, {setting}", ratio(figures, EXECUTEMANY, setting), 30.0, at_least=True
    )
