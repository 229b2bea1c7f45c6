"""What a flush does to the reactor: how late a tick of 1 ms is while 100,000 rows are saved."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
from twisted.internet.defer import Deferred, gatherResults

from bench.cases.flush import lacking
from bench.figures import OURS, Figure, Outcome, Target
from bench.ours import QUEUE_SIZE, SCHEMA, Rows
from bench.stage import Stage
from bench.ticks import Ticks
from bench.upsert import SYNCHRONOUS
from bench.writers import Writer, contenders
from playerstate import PlayerState
from playerstate.interfaces import IStateStore
from playerstate.players.service import PlayerStateService
from playerstate.runtime import Runtime
from playerstate.stores.sqlite.store import SQLiteStore

IDLE = "idle"
LIVE_FILE = f"{OURS}, with the live file"
MOVES_A_TURN = 2_000
FEWEST_TICKS = 10
MOST_SECONDS = 0.5
"""A rival's flush is cut short after this time."""
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


class Source(Protocol):
    """Work that runs while ticks are counted."""

    def prepare(self) -> None:
        """Make `run` ready; not counted."""

    def run(self) -> None:
        """Do the work during which ticks are counted."""


def run(stage: Stage) -> Outcome:
    """Let all contenders flush in turn, with idle turns between; count how late each tick is."""
    rows = Rows(20_000 if stage.quick else 100_000)
    with ExitStack() as stack:
        sources: dict[str, Source] = {
            IDLE: Idle(),
            OURS: stack.enter_context(_ours(stage, rows, None)),
            LIVE_FILE: stack.enter_context(_ours(stage, rows, stage.path("players.live"))),
        }
        rivals = contenders(stage, rows)
        for name, writer in rivals.items():
            stack.callback(writer.close)
            if not (stage.quick and writer.by_row):
                sources[name] = _Rival(writer, rows)
        late = watch(stage, sources, stage.seconds)
    setting = f"flushes of {len(rows):,} rows"
    figures = [
        Figure(name, f"{setting}, {mark}", "ms", [float(np.percentile(late[name], percent)) * 1e3])
        for mark, percent in PERCENTILES.items()
        for name in sources
        if len(late[name]) >= FEWEST_TICKS
    ]
    ticks = ", ".join(f"{name} {len(late[name]):,}" for name in sources)
    return Outcome(figures, _targets(late), lacking(), [f"ticks counted: {ticks}"])


def watch(
    stage: Stage, sources: dict[str, Source], seconds: float
) -> dict[str, np.ndarray[Any, Any]]:
    """How many seconds late every tick was while each source worked.

    Ours and the idle machine get three times the time of a rival: p99.9 asks for many ticks.
    """
    late: dict[str, list[float]] = {name: [] for name in sources}
    ends = time.monotonic() + seconds
    ticks = stage.on_reactor(Ticks, stage.reactor)
    weights = {name: 3 if name in (IDLE, OURS, LIVE_FILE) else 1 for name in sources}
    turn_seconds = seconds / sum(weights.values()) / 4
    turn = 0
    while turn == 0 or time.monotonic() < ends:
        turn += 1
        for name, source in sources.items():
            stage.say(f"{name}, round {turn}")
            until = time.monotonic() + turn_seconds * weights[name]
            while True:
                source.prepare()
                stage.on_reactor(ticks.begin)
                source.run()
                late[name] += stage.on_reactor(ticks.end)
                if time.monotonic() >= until:
                    break
    stage.on_reactor(ticks.stop)
    return {name: np.array(found) for name, found in late.items()}


class Idle:
    def prepare(self) -> None:
        """Nothing."""

    def run(self) -> None:
        """Nothing, for about as long as a flush takes."""
        time.sleep(0.1)


class _Rival:
    """A writer that flushes on a thread, as a program with a reactor would use it."""

    def __init__(self, writer: Writer, rows: Rows) -> None:
        self._writer = writer
        self._rows = rows
        writer.flush(rows, MOST_SECONDS if writer.by_row else math.inf)

    def prepare(self) -> None:
        """All players move."""
        self._rows.change()
        self._rows.tuples()  # made here: the making is no flush

    def run(self) -> None:
        """Save them."""
        self._writer.flush(self._rows, MOST_SECONDS)


def _ours(stage: Stage, rows: Rows, live_file: str | None) -> AbstractContextManager[Service]:
    store = SQLiteStore(stage.path("service.db"), SCHEMA, SYNCHRONOUS)
    return serving(stage, store, rows, live_file)


@contextmanager
def serving(
    stage: Stage, store: IStateStore, rows: Rows, live_file: str | None
) -> Iterator[Service]:
    """The whole service over a store, with all players of these rows online."""
    service = PlayerStateService(
        store,
        # Only flushes that are asked for.
        save_within=86_400.0,
        queue_size=QUEUE_SIZE,
        max_players=len(rows),
        live_file=live_file,
        runtime=Runtime(stage.reactor),
    )
    stage.on_reactor(service.startService)
    stage.on_reactor(service.started)
    try:
        yield Service(stage, service, rows)
    finally:
        stage.on_reactor(service.stopService)


class Service:
    """The whole service with its persist thread."""

    def __init__(self, stage: Stage, service: PlayerStateService, rows: Rows) -> None:
        self._stage = stage
        self._service = service
        self._ids = rows.session_ids.tolist()
        self._each(self._join)
        self.prepare()
        self.run()

    def _each(self, function: Any) -> None:
        """Call this on the reactor thread with all players, `MOVES_A_TURN` at a time."""
        for start in range(0, len(self._ids), MOVES_A_TURN):
            self._stage.on_reactor(function, self._ids[start : start + MOVES_A_TURN])

    def _join(self, session_ids: list[int]) -> Deferred[object]:
        return gatherResults(map(self._service.join, session_ids))

    def _move(self, session_ids: list[int]) -> None:
        for session_id in session_ids:
            self._service.update(session_id, PlayerState(1.0, 2.0))

    def prepare(self) -> None:
        """All players move."""
        self._each(self._move)

    def run(self) -> None:
        """Save them: sweep, flush, and commit report."""
        self._stage.on_reactor(self._service.flush)


def _targets(late: dict[str, np.ndarray[Any, Any]]) -> list[Target]:
    def above_idle(name: str, mark: str) -> float:
        there, idle = (np.percentile(late[source], PERCENTILES[mark]) for source in (name, IDLE))
        return float(there - idle) * 1e3

    def latest(name: str) -> float:
        """How late the latest tick is; 0 if one of the idle machine's is later."""
        return float(late[name].max()) * 1e3 if late[name].max() > late[IDLE].max() else 0.0

    return [
        Target("p99.9 above the idle machine's", above_idle(OURS, "p99.9"), 1.0, unit="ms"),
        Target("the latest tick, if none of idle is later", latest(OURS), 5.0, unit="ms"),
        Target("p99 above idle, with the live file", above_idle(LIVE_FILE, "p99"), 1.0, unit="ms"),
        Target(
            "p99.9 above idle, with the live file", above_idle(LIVE_FILE, "p99.9"), 1.0, unit="ms"
        ),
    ]
