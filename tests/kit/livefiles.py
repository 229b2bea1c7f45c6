"""What tests of the live file share: files as a process leaves them, and services that die."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema, text, within
from playerstate.live.file import LiveFile
from playerstate.live.leftover import read_leftover
from playerstate.live.table import LiveTable
from playerstate.stores.sqlite.store import SQLiteStore
from playerstate.testing import FaultyStore, SteppedService
from tests.kit.crash_live import LogLines
from tests.kit.players import SCHEMA

IDENTITY = bytes(range(16))
"""The identity of the store whose live files these are."""


@attrs.frozen
class Avatar:
    """A state with every kind of field."""

    x: float = attrs.field(default=350.0, metadata=within(resolution=0.015625))
    hp: int = 100
    alive: bool = True
    zone: str = attrs.field(default="spawn", metadata=text(16))


def make_live_file(
    path: str, schema: StateSchema = SCHEMA, capacity: int = 2
) -> tuple[LiveFile, LiveTable]:
    """A new live file that is in use, and the table in it, without players."""
    live_file = LiveFile(path)
    buffer = live_file.open(schema, capacity, IDENTITY)
    return live_file, LiveTable(schema, capacity, lambda: 0.0, buffer)


def make_table(path: str, schema: StateSchema = SCHEMA, capacity: int = 2) -> LiveTable:
    """A table in a new live file, without players."""
    return make_live_file(path, schema, capacity)[1]


def leave_unsaved(path: str) -> None:
    """The live file of a process that died while player 5 was unsaved."""
    live_file, table = make_live_file(path)
    table.apply(table.admit(5, (0.0, 0.0), 0), 1, (1.0, 2.0), 3)
    live_file.close(False)


def remaining(path: str) -> dict[int, tuple[Any, ...]]:
    """What a live file holds: fields and ``updated_at`` by session id."""
    records = read_leftover(path).records.tolist()
    found = {session_id: tuple(rest) for session_id, *rest in records}
    assert len(found) == len(records), f"a player twice: {records}"
    return found


class KeptStore(FaultyStore):
    """A store that outlives the services on it, as a database does."""

    identity = bytes(16)

    def prepare(self) -> bytes:
        """The identity given last."""
        return self.identity

    def migrate(self, identity: bytes) -> bytes:
        """Keep the identity."""
        self.identity = identity
        return identity


class LiveFileTestCase(SynchronousTestCase):
    """A directory, services in it, and the log."""

    def setUp(self) -> None:
        """An empty directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = f"{self.directory}/moves.live"
        self.store = KeptStore(SCHEMA)
        self.log = LogLines()
        self.log.start()
        self.addCleanup(self.log.stop)

    def start(self, store: Any = None, **options: Any) -> SteppedService:
        """A started service; nothing of it survives but files and stores."""
        return SteppedService(
            store=self.store if store is None else store, live_file=self.path, **options
        )

    def kill(self, stepped: SteppedService) -> None:
        """What a SIGKILL leaves: the files, and no lock."""
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(self.path):
                    fcntl.flock(int(name), fcntl.LOCK_UN)
        stepped.service.run.reopening._reader.close()
        stepped.thread.persister._close_writer()
        stepped.store.close()

    def crash(self, **moves: float) -> None:
        """A run that is killed with these players moved and nothing saved."""
        stepped = self.start()
        for name, x in moves.items():
            stepped.join(int(name[1:]))
            stepped.service.update(int(name[1:]), PlayerState(x, 0.0))
        self.kill(stepped)

    def files(self) -> list[str]:
        """Names in the directory."""
        return sorted(os.listdir(self.directory))

    def sqlite(self, state: type = PlayerState, synchronous: str = "normal") -> SQLiteStore:
        """The database's store."""
        return SQLiteStore(f"{self.directory}/players.db", StateSchema.of(state), synchronous)

    def crash_beside_database(self) -> str:
        """A database whose last run was killed with its live file beside it; its path."""
        database = f"{self.directory}/players.db"
        self.path = f"{database}.live"
        stepped = self.start(SQLiteStore(database, SCHEMA))
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 0.0))
        self.kill(stepped)
        return database

    def content(self) -> bytes:
        """The live file's bytes."""
        with open(self.path, "rb") as file:
            return file.read()

    def replace(self, content: bytes) -> None:
        """Put something in the live file's place."""
        with open(self.path, "wb") as file:
            file.write(content)
