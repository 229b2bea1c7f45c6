"""The same flushes while the reactor thread has work in Python all the time."""

from __future__ import annotations

from functools import partial

from bench.cases.flush import lacking, measure, notes
from bench.figures import Figure, Outcome, Target, ratio
from bench.stage import Stage
from bench.writers import EXECUTEMANY

TURN = 0.02
"""Seconds of one turn of the busy reactor.  Where turns are no longer than the 5 ms after which the
interpreter makes a thread give way, a waiting thread is woken in vain at each end, and starves."""
MOST_SECONDS, QUICK_SECONDS = 0.8, 0.3


def run(stage: Stage) -> Outcome:
    """Measure flushes beside a busy reactor."""
    sizes = {10_000: 1.0} if stage.quick else {1_000: 0.2, 20_000: 0.35, 100_000: 0.45}
    busy = partial(stage.busy_reactor, TURN)
    most_seconds = QUICK_SECONDS if stage.quick else MOST_SECONDS
    figures = measure(stage, sizes, busy, most_seconds)
    return Outcome(
        figures,
        [_target(figures, size) for size in sizes if size > 1_000],
        lacking(),
        [
            f"the reactor works in turns of {TURN * 1e3:g} ms, one after the other",
            f"every flush is stopped after {most_seconds:g} s",
            *notes(),
        ],
    )


def _target(figures: list[Figure], size: int) -> Target:
    setting = f"{size:,} players"
    return Target(
        f"times executemany, {setting}", ratio(figures, EXECUTEMANY, setting), 30.0, at_least=True
    )
