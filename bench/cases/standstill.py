"""How long the reactor stands still while rows are recovered and a replaced store is reopened."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing

import apsw
import attrs
import numpy as np
from twisted.internet.defer import Deferred

from bench.figures import OURS, Figure, Outcome, Target, ratio
from bench.ours import LAYOUT, SCHEMA, START, fill, new_database
from bench.rounds import interleave
from bench.stage import Stage
from bench.ticks import Ticks
from bench.upsert import SYNCHRONOUS
from playerstate import PlayerState
from playerstate.interfaces import StoreReplaced
from playerstate.live.leftover import read_leftover
from playerstate.live.recovery import find_unsaved
from playerstate.players.service import PlayerStateService
from playerstate.runtime import Runtime
from playerstate.stores.sqlite.store import SQLiteStore

RECOVERED = 10_000
ONLINE = 1_000
"""Players in the game while the store is replaced."""
STORED, QUICK_STORED = 1_000_000, 100_000
ONE_THREAD = "all of it on the reactor thread"
SAVE_WITHIN = 86_400.0
"""Seconds; only flushes that are asked for."""
STANDS_STILL = "the reactor stands still"
DONE = "until it is done"
MOST_ROUNDS = 5


def run(stage: Stage) -> Outcome:
    """Recover and reopen, by the service and by one call on the reactor thread, in turns."""
    stored = QUICK_STORED if stage.quick else STORED
    ticks = stage.on_reactor(Ticks, stage.reactor)
    recovery, reopening = _Recovery(stage), _Reopening(stage, stored)
    recovers, reopens = f"recovery of {RECOVERED:,} rows", f"reopening of {stored:,} players"
    figures: list[Figure] = []
    for setting, ours, alone in (
        (recovers, recovery.by_service, recovery.alone),
        (reopens, reopening.by_service, reopening.alone),
    ):
        turns = {OURS: _Turn(stage, ticks, ours), ONE_THREAD: _Turn(stage, ticks, alone)}
        interleave(
            {name: turn.measure for name, turn in turns.items()},
            stage.seconds / 2,
            most=MOST_ROUNDS,
            say=lambda text, setting=setting: stage.say(f"{setting}: {text}"),
        )
        for what in (STANDS_STILL, DONE):
            figures += [
                Figure(name, f"{setting}: {what}", "ms", turn.milliseconds[what])
                for name, turn in turns.items()
            ]
    stage.on_reactor(ticks.stop)
    return Outcome(
        figures,
        [
            Target(
                f"times shorter than on the reactor thread alone, {reopens}",
                ratio(figures, ONE_THREAD, f"{reopens}: {STANDS_STILL}"),
                5.0,
                at_least=True,
            )
        ],
        notes=[
            f"{STANDS_STILL}: how late the latest tick of 1 ms is",
            f"{recovers}: from the start of the service until players may join; a service finds"
            " the rows on the reactor thread, which serves no player yet, and saves them on the"
            " persist thread",
            f"{reopens}: from the replacement of the file by a copy until a player who is online"
            " is saved in it; the service notices the replacement at its next save",
        ],
    )


class _Turn:
    """One contender's turns.

    Attributes:
        milliseconds: of each turn: the longest that the reactor stood still, and the whole time.
    """

    def __init__(self, stage: Stage, ticks: Ticks, work: Callable[[], _Work]) -> None:
        self._stage = stage
        self._ticks = ticks
        self._work = work
        self.milliseconds: dict[str, list[float]] = {STANDS_STILL: [], DONE: []}

    def measure(self) -> float:
        """Do the work once; milliseconds for which the reactor stood still."""
        work = self._work()
        self._stage.on_reactor(self._ticks.begin)
        started = time.perf_counter()
        self._stage.on_reactor(work.do)
        self.milliseconds[DONE].append((time.perf_counter() - started) * 1e3)
        late = self._stage.on_reactor(self._ticks.end)
        self._stage.on_reactor(work.clean_up)
        self.milliseconds[STANDS_STILL].append(max(late, default=0.0) * 1e3)
        return self.milliseconds[STANDS_STILL][-1]


@attrs.frozen
class _Work:
    """Work that is ready to be done.  Both are called on the reactor thread.

    Attributes:
        do: the measured work.
        clean_up: ends what it started; not measured.
    """

    do: Callable[[], Deferred[None] | None]
    clean_up: Callable[[], Deferred[None] | None]


class _Recovery:
    """A database, and the live file of a server that was killed before it saved 10,000 moves."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._killed = stage.path("killed.db")
        path = stage.path("recovery.db")
        stage.say(f"{RECOVERED:,} players move, and are not saved")
        service = _service(stage, path)
        stage.on_reactor(service.startService)
        session_ids = list(range(1, RECOVERED + 1))
        stage.on_reactor(_move, service, session_ids, 1.0)
        stage.on_reactor(service.flush)
        with closing(apsw.Connection(path)) as connection:
            connection.execute("VACUUM INTO ?", (self._killed,))
        stage.on_reactor(_move, service, session_ids, 2.0)
        shutil.copyfile(f"{path}.live", f"{self._killed}.live")
        stage.on_reactor(service.stopService)

    def _copy(self) -> str:
        path = self._stage.path("recovered.db")
        for end in ("", ".live"):
            shutil.copyfile(f"{self._killed}{end}", f"{path}{end}")
        return path

    def by_service(self) -> _Work:
        """Start a service."""
        service = _service(self._stage, self._copy())

        def start() -> Deferred[None]:
            service.startService()
            return service.started()

        return _Work(start, service.stopService)

    def alone(self) -> _Work:
        """Find and save the rows in one call."""
        store = SQLiteStore(self._copy(), SCHEMA, SYNCHRONOUS)

        def recover() -> None:
            leftover = read_leftover(f"{store.path}.live")
            store.migrate(store.prepare())
            reader = store.open_reader()
            rows = find_unsaved(leftover, SCHEMA, reader)
            assert len(rows) == RECOVERED
            writer = store.open_writer()
            writer.write(np.sort(rows.view(LAYOUT.record), order="session_id"))
            writer.close()
            reader.close()

        return _Work(recover, store.close)


class _Reopening:
    """A database in use, and a copy of it that takes its place."""

    def __init__(self, stage: Stage, stored: int) -> None:
        self._stage = stage
        self._stored = stage.path("stored.db")
        stage.say(f"store {stored:,} players")
        store = new_database(self._stored, SYNCHRONOUS)
        fill(store, stored)
        store.close()

    def _copies(self) -> tuple[str, str]:
        """The paths of two copies."""
        paths = self._stage.path("used.db"), self._stage.path("replacement.db")
        for path in paths:
            shutil.copyfile(self._stored, path)
        return paths

    def by_service(self) -> _Work:
        """Let a running service notice it."""
        path, replacement = self._copies()
        service = _service(self._stage, path)
        session_ids = list(range(1, ONLINE + 1))
        self._stage.on_reactor(service.startService)
        self._stage.on_reactor(service.started)
        self._stage.on_reactor(_move, service, session_ids, 1.0)
        self._stage.on_reactor(service.flush)

        def replace() -> Deferred[None]:
            os.replace(replacement, path)
            service.update(1, PlayerState(2.0, 2.0))
            return service.flush()

        def stop() -> Deferred[None]:
            return service.stopService().addCallback(lambda _: _remove(path))

        return _Work(replace, stop)

    def alone(self) -> _Work:
        """Reopen it and save the players in one call."""
        path, replacement = self._copies()
        store = SQLiteStore(path, SCHEMA, SYNCHRONOUS)
        identity = store.migrate(store.prepare())
        store.open_reader()  # which `reopen` closes
        writer = store.open_writer()
        rows = np.zeros(ONLINE, LAYOUT.record)
        rows["session_id"], rows["updated_at"] = np.arange(1, ONLINE + 1), START + 1

        def replace() -> None:
            os.replace(replacement, path)
            try:
                writer.write(rows)
            except StoreReplaced:
                writer.close()
            else:
                raise AssertionError("the replacement was not noticed")
            store.reopen(identity, frozenset(rows["session_id"].tolist()))
            self._reader = store.open_reader()
            again = store.open_writer()
            again.write(rows)
            again.close()

        def close() -> None:
            self._reader.close()
            store.close()
            _remove(path)

        return _Work(replace, close)


def _service(stage: Stage, path: str) -> PlayerStateService:
    return PlayerStateService(
        SQLiteStore(path, SCHEMA, SYNCHRONOUS),
        save_within=SAVE_WITHIN,
        max_players=RECOVERED,
        live_file=f"{path}.live",
        runtime=Runtime(stage.reactor),
    )


def _move(service: PlayerStateService, session_ids: list[int], x: float) -> None:
    """Have these players in the game, at this x."""
    for session_id in session_ids:
        service.join(session_id)
        service.update(session_id, PlayerState(x, 2.0))


def _remove(path: str) -> None:
    """Remove a database of many players, so that the next round has room."""
    os.remove(path)
