"""The whole service on one of two stores: ``python -m bench.saving_server KIND PLAYERS DIRECTORY``.

It prints its port.  Given the path of the sending times, it flushes and prints the ages of updates.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from bench.children import hold, say
from bench.ours import SCHEMA
from bench.recorded import RecordedStore, ages
from bench.upsert import SYNCHRONOUS
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import IStateStore
from playerstate.players.service import PlayerStateService
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.transports.plain import PlainService

OURS, ADBAPI = "playerstate", "adbapi"
SAVE_WITHIN = 1.0
SILENCE = 0.1
FIRST = 20
"""Moves before this one, a second's worth, are for warming up."""


def main() -> None:
    """Serve; evaluate the commits once the parent has sent a path."""
    kind, players, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]

    def finish(path: str) -> None:
        reactor.callFromThread(_finish, reactor, service, store, path, 0)

    hold(finish)
    from twisted.internet import reactor

    path = os.path.join(directory, f"{kind}-{os.getpid()}.db")
    store = RecordedStore(_store(kind, path, reactor))
    service = PlayerStateService(
        store,  # type: ignore[arg-type]
        save_within=SAVE_WITHIN,
        max_players=players,
        live_file=f"{path}.live",
    )
    service.startService()
    plain = PlainService(Gateway(service), 0, reactor=reactor)
    plain.startService()
    say({"port": plain.port})
    reactor.run(installSignalHandlers=False)


def _store(kind: str, path: str, reactor: Any) -> IStateStore:
    if kind == OURS:
        return SQLiteStore(path, SCHEMA, SYNCHRONOUS)
    from bench.adbapi_store import AdbapiStore

    return AdbapiStore(path, reactor)


def _finish(
    reactor: Any, service: PlayerStateService, store: RecordedStore, path: str, applied: int
) -> None:
    """Once no more moves arrive, flush and print the ages."""
    if service.ledger.applied != applied:
        now = service.ledger.applied
        reactor.callLater(SILENCE, _finish, reactor, service, store, path, now)
        return
    cpu = time.thread_time()
    service.flush().addCallback(lambda _: _say_ages(store, path, applied, cpu))


def _say_ages(store: RecordedStore, path: str, applied: int, cpu: float) -> None:
    found = ages(store.commits, np.load(path), FIRST) * 1e3
    p50, p99, largest = np.percentile(found, (50.0, 99.0, 100.0)).tolist()
    say({"applied": applied, "cpu": cpu, "p50": p50, "p99": p99, "max": largest})


if __name__ == "__main__":
    main()
