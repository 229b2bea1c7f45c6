"""What players take in memory, in a fresh process: ``python -m bench.memory_of KIND
DIRECTORY PLAYERS``.

It says how many bytes the process has more with all of these players than with one of them.
"""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count

import attrs
import numpy as np

from bench.children import hold, say
from bench.ours import LAYOUT, SCHEMA
from playerstate import PlayerState
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import IStateWriter
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import MemoryPort, SteppedService
from playerstate.transports.plain import PlainService
from playerstate.wire.messages import Codec

EMBEDDED, LIVE_FILE, UDP = "embedded", "live-file", "udp"
OBJECTS, SQLITEDICT, HOUR = "objects", "sqlitedict", "hour"
MOVES_A_SECOND = 10
WARM_SHARE = 0.1
QUEUE_SIZE = 1024
ROWS_OF_ALL_STATEMENTS = 1023

Add = Callable[[range], None]


def main() -> None:
    """Measure one kind of keeping players."""
    kind, directory, players = sys.argv[1], sys.argv[2], int(sys.argv[3])
    hold()
    if kind == HOUR:
        say({"bytes": _growth(directory, players, float(sys.argv[4]))})
        return
    add = {
        EMBEDDED: _embedded,
        LIVE_FILE: _with_live_file,
        UDP: _over_udp,
        OBJECTS: _objects,
        SQLITEDICT: _sqlitedict,
    }[kind](directory, players)
    add(range(1, 2))
    before = held()
    add(range(2, players + 1))
    say({"bytes": (held() - before) / (players - 1)})


def held() -> int:
    """Bytes of memory that this process alone holds, mapped files included.

    What was freed is first given back to the system, as far as it can be.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def _service(directory: str, players: int, live_file: bool) -> SteppedService:
    database = os.path.join(directory, f"memory-{os.getpid()}.db")
    store = _Store(database, SCHEMA, "normal")  # what is on disk takes no memory
    stepped = SteppedService(
        store=store,
        max_players=players,
        queue_size=QUEUE_SIZE,
        live_file=f"{database}.live" if live_file else None,
    )
    # The first player goes all around the ring, which is no player's.
    stepped.join(1)
    for _ in range(QUEUE_SIZE):
        stepped.service.update(1, PlayerState(1.0, 2.0))
        _save(stepped)
    # Nor are the statements, one of each size, that the writer keeps.
    rows = np.zeros(ROWS_OF_ALL_STATEMENTS, LAYOUT.record)
    rows["session_id"] = np.arange(-len(rows), 0)
    store.writer.write(rows)
    return stepped


class _Store(SQLiteStore):
    """Lets its writer be used from outside."""

    writer: IStateWriter

    def open_writer(self) -> IStateWriter:
        self.writer = super().open_writer()
        return self.writer


def _save(stepped: SteppedService) -> None:
    saved = stepped.service.flush()
    while not saved.called:
        stepped.step()
        stepped.reactor.advance(0.01)


def _embedded(directory: str, players: int, live_file: bool = False) -> Add:
    stepped = _service(directory, players, live_file)

    def add(session_ids: range) -> None:
        for session_id in session_ids:
            stepped.join(session_id)
            stepped.service.update(session_id, PlayerState(1.0, 2.0))
        _save(stepped)

    return add


def _with_live_file(directory: str, players: int) -> Add:
    return _embedded(directory, players, live_file=True)


def _over_udp(directory: str, players: int) -> Add:
    """With the live file, and a conversation of each player's own address."""
    return _Crowd(directory, players).add


class _Crowd:
    """Players who join and move by datagrams, each from an address of its own."""

    def __init__(self, directory: str, players: int) -> None:
        self._stepped = _service(directory, players, live_file=True)
        plain = PlainService(Gateway(self._stepped.service), 0, reactor=self._stepped.reactor)
        plain.startService()
        self._port: MemoryPort = self._stepped.reactor.ports[plain.port]
        self._codec = Codec(SCHEMA)

    def _send(self, session_id: int, message: bytes) -> None:
        address = f"10.{session_id >> 16}.{session_id >> 8 & 255}.{session_id & 255}", 40_000
        self._port.receive(struct.pack("<QI", session_id, session_id) + message, address)

    def add(self, session_ids: range) -> None:
        """Let these players in, and move each once."""
        for session_id in session_ids:
            self._send(session_id, self._codec.encode_join(session_id, 0))
            self.move(session_id, 1)
            self._port.take()
        self.save()

    def move(self, session_id: int, sequence: int) -> None:
        """Move this player."""
        self._send(session_id, self._codec.encode_move(sequence, (1.0, 2.0)))

    def advance(self, seconds: float) -> None:
        """Let this time pass, with what the service does in it."""
        self._stepped.reactor.advance(seconds)
        self._stepped.step()
        self._port.take()

    def save(self) -> None:
        """Save all, and send the receipts."""
        _save(self._stepped)
        self.advance(0.1)


@attrs.define
class _Player:
    session_id: int
    x: float
    y: float
    updated_at: int
    sequence: int


def _objects(directory: str, players: int) -> Add:
    """A dict of attrs objects, and nothing else."""
    online: dict[int, _Player] = {}

    def add(session_ids: range) -> None:
        now = time.time_ns() // 1000
        for session_id in session_ids:
            x, y = session_id / 3.0, session_id / 7.0
            online[session_id] = _Player(session_id, x, y, now + session_id, 1000 + session_id)

    return add


def _sqlitedict(directory: str, players: int) -> Add:
    """sqlitedict, which keeps players in its file and asks for each from there."""
    from sqlitedict import SqliteDict

    path = os.path.join(directory, f"memory-{os.getpid()}.sqlitedict")
    stored = SqliteDict(path, journal_mode="WAL")

    def add(session_ids: range) -> None:
        for session_id in session_ids:
            stored[session_id] = 1.0, 2.0, session_id
        stored.commit(blocking=True)

    return add


def _growth(directory: str, players: int, seconds: float) -> int:
    """What a service with the live file holds more after so many seconds' worth of moves."""
    crowd = _Crowd(directory, players)
    session_ids = range(1, players + 1)
    crowd.add(session_ids)
    sequences = count(2)
    _play(crowd, session_ids, int(seconds * WARM_SHARE * MOVES_A_SECOND), sequences)
    before = held()
    _play(crowd, session_ids, int(seconds * MOVES_A_SECOND), sequences)
    return held() - before


def _play(crowd: _Crowd, session_ids: range, times: int, sequences: Iterator[int]) -> None:
    for _ in range(times):
        sequence = next(sequences)
        for session_id in session_ids:
            crowd.move(session_id, sequence)
        crowd.advance(1.0 / MOVES_A_SECOND)
    crowd.save()


if __name__ == "__main__":
    main()
