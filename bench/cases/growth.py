"""What a sweep and a flush cost against the players online, when more or fewer of them changed."""

from __future__ import annotations

import time

import attrs
import numpy as np

from bench.figures import Figure, Outcome, Target, median
from bench.ours import START, Flusher, fill, live_table, new_database
from bench.stage import Stage
from bench.upsert import SYNCHRONOUS
from playerstate.stores.sqlite.store import SQLiteStore

DIRTY_PERCENT = (1, 10, 100)
SETTINGS = tuple(
    f"{what}, {percent} % changed" for what in ("sweep", "flush") for percent in DIRTY_PERCENT
)
QUEUE_SIZE = 1 << 20
ROUNDS = 5
LARGE_ROUNDS = 2
MANY = 100_000
"""A flush of this many rows or more is measured in `LARGE_ROUNDS` rounds."""


def run(stage: Stage) -> Outcome:
    """Measure tables of growing size over one store, which holds as many as the largest."""
    sizes = (1_000, 10_000, 100_000) if stage.quick else (1_000, 10_000, 100_000, 1_000_000)
    stage.say(f"store {sizes[-1]:,} players")
    store = new_database(stage.path("growth.db"), SYNCHRONOUS)
    fill(store, sizes[-1])
    costs: list[_Cost] = []
    for size in sizes:
        stage.say(f"{size:,} players join")
        costs += _measure(stage, store, size, sizes[-1])
    store.close()
    figures = [figure for cost in costs for figure in cost.figures()]
    figures.sort(key=lambda figure: list(SETTINGS).index(figure.setting))
    return Outcome(
        figures,
        _targets(figures, costs, sizes[-1]),
        notes=[
            f"the store holds {sizes[-1]:,} players throughout; the players online are spread over"
            " all of them",
            _line("sweeps", costs, "sweep_ms"),
            _line("flushes", costs, "flush_ms"),
        ],
    )


@attrs.frozen
class _Cost:
    """Milliseconds of each round, for one number of players and one share of them."""

    players: int
    percent: int
    sweep_ms: list[float]
    flush_ms: list[float]

    @property
    def rows(self) -> int:
        """The number of players who changed."""
        return self.players * self.percent // 100

    def figures(self) -> list[Figure]:
        """The same as figures."""
        online = f"{self.players:,} players online"
        return [
            Figure(online, f"sweep, {self.percent} % changed", "ms", self.sweep_ms),
            Figure(online, f"flush, {self.percent} % changed", "ms", self.flush_ms),
        ]


def _measure(stage: Stage, store: SQLiteStore, players: int, stored: int) -> list[_Cost]:
    draw = np.random.default_rng(players)
    online = draw.permutation(np.arange(1, stored + 1, stored // players))
    flusher = Flusher.over(store, live_table(online.tolist()), QUEUE_SIZE)
    costs = []
    for percent in DIRTY_PERCENT:
        cost = _Cost(players, percent, [], [])
        for turn in range(LARGE_ROUNDS if stage.quick or cost.rows >= MANY else ROUNDS):
            stage.say(f"{players:,} players, {percent} % changed, round {turn + 1}")
            changed = draw.permutation(players)[: cost.rows].tolist()
            now = START + time.time_ns() // 1000
            for slot in changed:
                flusher.table.apply(slot, None, (1.0, 2.0), now)
            started = time.perf_counter()
            sweep = flusher.table.sweep(flusher.ring)
            cost.sweep_ms.append((time.perf_counter() - started) * 1e3)
            assert sweep.pushed == cost.rows, sweep
            cost.flush_ms.append(flusher.flush() * 1e3)
        costs.append(cost)
    flusher.close()
    return costs


def _line(what: str, costs: list[_Cost], name: str) -> str:
    """The straight line through all costs: time for each row, and the fixed time."""
    rows = [cost.rows for cost in costs]
    took = [float(np.median(getattr(cost, name))) for cost in costs]
    slope, rest = np.polyfit(rows, took, 1)
    fit = np.corrcoef(rows, took)[0, 1] ** 2
    return (
        f"straight line through the {what}: {slope * 1e6:.1f} ns a row and {rest:.2f} ms, which"
        f" explains {fit:.1%} of the differences"
    )


def _targets(figures: list[Figure], costs: list[_Cost], most: int) -> list[Target]:
    few, all_of_them = (
        median(figures, f"{most:,} players online", f"sweep, {percent} % changed")
        for percent in (1, 100)
    )
    assert few is not None and all_of_them is not None
    # The same number of rows changed, of players online by the hundredfold.
    same = [cost for cost in costs if cost.rows == most // 100]
    took = [float(np.median(cost.flush_ms)) for cost in same]
    return [
        Target(f"a sweep with 1 % of {most:,} changed, of one with all", few / all_of_them, 0.05),
        Target(
            f"a flush of {most // 100:,} rows with {most:,} online, of one with {most // 100:,}",
            took[-1] / took[0],
            1.2,
        ),
    ]
