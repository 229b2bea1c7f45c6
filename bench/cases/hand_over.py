"""Hand one update to the persist thread: a sweep into the ring, a row, beside a queue, a put."""

from __future__ import annotations

import queue
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.figures import OURS, Figure, Outcome, Target, median, ratio
from bench.ours import SCHEMA, START, live_table, warm_ring
from bench.rivals import has, missing
from bench.rounds import Measure, interleave
from bench.stage import Stage
from playerstate.saving.ring import Ring

QUOTED_NS = 2.76
ROWS_A_MEASURE = 100_000
"""Sweeps and puts are repeated until this many rows were handed over, at least `LEAST` times; their
median is taken, since the first after another contender finds none of its data in the caches."""
LEAST = 3
SWEEP, PUSH = OURS, f"{OURS}, the push alone"
AFTER_MOVES = f"{OURS}, right after the moves"


def run(stage: Stage) -> Outcome:
    """Measure sweeps and puts of three sizes."""
    sizes = (1_000, 10_000) if stage.quick else (1_000, 10_000, 100_000)
    figures: list[Figure] = []
    for size in sizes:
        setting = f"{size:,} rows"
        measured = interleave(
            _contenders(size),
            stage.seconds / len(sizes),
            say=lambda text, setting=setting: stage.say(f"{setting}: {text}"),
        )
        figures += [Figure(name, setting, "ns", values) for name, values in measured.items()]
        figures.append(Figure("C++ queue, quoted", setting, "ns", [QUOTED_NS], "not run here"))
    return Outcome(figures, _targets(figures, sizes), missing("culsans"))


def _targets(figures: list[Figure], sizes: tuple[int, ...]) -> list[Target]:
    targets = []
    for size in sizes:
        setting, limit = f"{size:,} rows", 9.0 if size == 1_000 else 6.0
        targets.append(
            Target(
                f"a row handed over in sweeps of {setting}",
                median(figures, SWEEP, setting),
                limit,
                unit="ns",
                goal=QUOTED_NS,
            )
        )
        targets.append(
            Target(
                f"times cheaper than deque.append, {setting}",
                ratio(figures, "deque.append", setting),
                3.0,
                at_least=True,
            )
        )
    return targets


def _contenders(size: int) -> dict[str, Measure]:
    rows: list[object] = [(number, 1.0, 2.0, START) for number in range(size)]

    def put_each(make: Callable[[], Callable[[Any], Any]]) -> float:
        return statistics.median(_put_each(rows, make) for _ in range(_times(size)))

    contenders: dict[str, Measure] = {
        SWEEP: _Sweeps(size).measure,
        AFTER_MOVES: _Sweeps(size).measure_after_moves,
        PUSH: _Sweeps(size).measure_push,
        "deque.append": lambda: put_each(_appender),
        "queue.SimpleQueue.put": lambda: put_each(lambda: queue.SimpleQueue[object]().put),
        "queue.Queue.put": lambda: put_each(lambda: queue.Queue[object]().put),
    }
    if has("culsans"):
        import culsans

        contenders["culsans put"] = lambda: put_each(lambda: culsans.Queue().sync_q.put)
    return contenders


def _times(size: int) -> int:
    return max(LEAST, ROWS_A_MEASURE // size)


def _appender() -> Callable[[Any], Any]:
    return deque[object]().append


def _put_each(rows: list[object], make: Callable[[], Callable[[Any], Any]]) -> float:
    """Nanoseconds a row, put one by one into a fresh queue."""
    put = make()
    started = time.perf_counter_ns()
    for row in rows:
        put(row)
    return (time.perf_counter_ns() - started) / len(rows)


class _Sweeps:
    """Sweeps of a table in which all players have moved.

    The sweeps follow each other at once, as the rivals' puts do: the swept rows are noted as saved,
    and one call moves all players, as for moves that arrive together.  `measure_after_moves` moves
    the players one by one before each sweep, which then finds none of its data in the caches.
    """

    def __init__(self, size: int) -> None:
        self._table = live_table(list(range(1, size + 1)))
        self._ring = warm_ring(max(8192, 1 << (size - 1).bit_length()))
        self._size = size
        self._times = _times(size)
        self._now = START
        self._slots = np.arange(size)
        self._sequences = np.zeros(size, np.uint64)
        self._fields = np.ones(size, SCHEMA.moved.dtype)
        self._sweep(self._move_at_once)

    def _take(self) -> None:
        """Take what was swept, and note it as saved."""
        rows = self._ring.take()
        assert len(rows) == self._size
        columns = (rows[name] for name in ("generation", "sequence", "updated_at"))
        self._table.settle(rows["slot"].astype(np.intp), *columns)

    def _move_at_once(self) -> None:
        self._now += 1
        self._sequences += 1
        self._table.apply_many(self._slots, self._sequences, self._fields, self._now)

    def _move_all(self) -> None:
        self._now += 1
        apply, now = self._table.apply, self._now
        for slot in range(self._size):
            apply(slot, None, (1.0, 2.0), now)

    def _measure(self, hand_over: Callable[[], int], times: int) -> float:
        return statistics.median(hand_over() for _ in range(times)) / self._size

    def measure(self) -> float:
        """Nanoseconds a row of a whole sweep: find the dirty rows, gather them, make them clean."""
        return self._measure(lambda: self._sweep(self._move_at_once), self._times)

    def measure_after_moves(self) -> float:
        """The same after Python has moved the players one by one."""
        return self._measure(lambda: self._sweep(self._move_all), 1 + self._times // 10)

    def measure_push(self) -> float:
        """Nanoseconds a row of the gather into the ring, without what the sweep does beside it."""
        return self._measure(self._push, self._times)

    def _sweep(self, prepare: Callable[[], object]) -> int:
        prepare()
        started = time.perf_counter_ns()
        self._table.sweep(self._ring)
        nanoseconds = time.perf_counter_ns() - started
        self._take()
        return nanoseconds

    def _push(self) -> int:
        self._move_at_once()
        sink = _Timed(self._ring)
        self._table.sweep(sink)
        self._take()
        return sink.nanoseconds


class _Timed:
    """A ring that notes how long a push took."""

    nanoseconds = 0

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def push(self, rows: Any, indices: Any) -> int:
        """See `Ring.push`."""
        started = time.perf_counter_ns()
        pushed = self._ring.push(rows, indices)
        self.nanoseconds = time.perf_counter_ns() - started
        return pushed
