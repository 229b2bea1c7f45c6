"""Load a player on join: cold from stores of two sizes, and in memory, beside a bare look-up."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import apsw
import numpy as np

from bench.figures import OURS, Figure, Outcome, Target, find
from bench.ours import fill, new_database
from bench.rounds import interleave
from bench.stage import Stage
from bench.upsert import SELECT
from playerstate.testing import SteppedService

JOINS = 500
"""A round's joins; the median of them is its value."""
LOOK_UP = "apsw, one SELECT"
COLD, WARM = OURS, f"{OURS}, in memory"


def run(stage: Stage) -> Outcome:
    """Join stored players, and look stored players up through apsw."""
    sizes = (10, 100_000 if stage.quick else 1_000_000)
    figures: list[Figure] = []
    for size in sizes:
        stage.say(f"store {size:,} players")
        store = new_database(stage.path("join.db"))
        fill(store, size)
        store.close()
        setting = f"{size:,} players stored"
        stepped = SteppedService(store=store, max_players=JOINS + 1)
        joins = _Joins(stepped, size)
        looking_up = _look_up(store.path, size)
        measured = interleave(
            {COLD: joins.cold, LOOK_UP: looking_up, WARM: joins.warm},
            stage.seconds / 4,
            most=50,
            say=lambda text, setting=setting: stage.say(f"{setting}: {text}"),
        )
        stepped.stop()
        figures += [Figure(name, setting, "us", values) for name, values in measured.items()]
    setting = f"{sizes[-1]:,} players stored"
    return Outcome(
        figures,
        [Target(f"above a bare look-up, {setting}", _above(figures, setting), 25.0, unit="us")],
        notes=["random players of all that are stored; the file is in the system's cache"],
    )


def _above(figures: list[Figure], setting: str) -> float:
    ours, look_up = find(figures, COLD, setting), find(figures, LOOK_UP, setting)
    assert ours is not None and look_up is not None
    pairs = zip(ours.values, look_up.values, strict=False)
    return float(np.median([mine - theirs for mine, theirs in pairs]))


class _Joins:
    """The joins of a service, one after the other."""

    def __init__(self, stepped: SteppedService, stored: int) -> None:
        self._service = stepped.service
        self._draw = np.random.default_rng(3)
        self._stored = stored

    def cold(self) -> float:
        """Players loaded from the store; their leaving is not counted."""
        return _median_us(self._join_one, self._draw.integers(1, self._stored + 1, JOINS).tolist())

    def _join_one(self, session_id: int) -> int:
        started = time.perf_counter_ns()
        joined = self._service.join(session_id)
        taken = time.perf_counter_ns() - started
        assert joined.result.restored
        self._service.leave(session_id)
        return taken

    def warm(self) -> float:
        """A player who is online already."""
        self._service.join(1)
        taken = _median_us(partial(_timed, self._service.join), [1] * JOINS)
        self._service.leave(1)
        return taken


def _look_up(path: str, stored: int) -> Callable[[], float]:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    draw = np.random.default_rng(4)

    def look_up(session_id: int) -> object:
        return connection.execute(SELECT, (session_id,)).get

    return lambda: _median_us(
        partial(_timed, look_up), draw.integers(1, stored + 1, JOINS).tolist()
    )


def _timed(function: Callable[[int], object], session_id: int) -> int:
    started = time.perf_counter_ns()
    function(session_id)
    return time.perf_counter_ns() - started


def _median_us(timed: Callable[[int], int], session_ids: list[int]) -> float:
    return float(np.median([timed(session_id) for session_id in session_ids])) / 1e3
