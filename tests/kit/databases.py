"""What the tests of stores share: state classes, records as a store is given them, databases."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import apsw
import attrs
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import IStateStore, Records
from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema, text
from tests.kit.support import Everything

PLAIN = StateSchema.of(PlayerState)
EVERYTHING = StateSchema.of(Everything)
IDENTITY = bytes(range(1, 17))
"""What the tests' databases are given."""


def state_class(**fields: Any) -> type:
    """A state class of these fields, each given as its default; text fields hold 32 bytes."""
    return attrs.make_class(
        "Made",
        {
            field: attrs.field(
                default=default,
                type=type(default),
                metadata=text(32) if isinstance(default, str) else {},
            )
            for field, default in fields.items()
        },
        frozen=True,
    )


def records(schema: StateSchema, *players: tuple[Any, ...]) -> Records:
    """Records of players, each given as (session id, plain value of each field, updated_at)."""
    made = np.zeros(len(players), RowLayout(schema.fields).record)
    for index, (session_id, *plain, updated_at) in enumerate(players):
        made[index] = (session_id, *schema.encode(tuple(plain)), updated_at)
    return made


def spawned(schema: StateSchema, ids: Any, updated_at: int = 1) -> Records:
    """Records of many players at their spawn."""
    made = np.zeros(len(ids), RowLayout(schema.fields).record)
    made[:] = (0, *schema.spawn, updated_at)
    made["session_id"] = ids
    return made


def take(store: IStateStore, identity: bytes = IDENTITY) -> None:
    """Take hold of the store and fit it to its schema, as a service does at its start."""
    store.prepare()
    store.migrate(identity)


def digest(path: str) -> str:
    """What tells the file's bytes from any others."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@contextmanager
def connections() -> Iterator[list[apsw.Connection]]:
    """The apsw connections opened meanwhile, in order."""
    opened: list[apsw.Connection] = []
    apsw.connection_hooks.append(opened.append)
    try:
        yield opened
    finally:
        apsw.connection_hooks.remove(opened.append)


class DirectoryTestCase(SynchronousTestCase):
    """A test with a directory of its own, and a database to be in it.

    Attributes:
        directory: its absolute path.
        path: of the database, as yet missing.
        url: of the database.
    """

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.use("players.db")

    def use(self, name: str) -> None:
        """Let the database be called so from now on."""
        self.path = os.path.join(self.directory, name)
        self.url = f"sqlite:{self.path}"

    def sql(self, statements: str, *bindings: Any) -> list[tuple[Any, ...]]:
        """Run SQL on the database by hand, over a connection of its own."""
        with closing(apsw.Connection(self.path)) as connection:
            return list(connection.execute(statements, bindings or None))

    def by_hand(self) -> apsw.Connection:
        """A connection of another program, closed after the test."""
        connection = apsw.Connection(self.path)
        self.addCleanup(connection.close)
        return connection

    def assert_one_line(self, error: BaseException) -> str:
        """The message, which is one line."""
        line = str(error)
        self.assertEqual(len(line.splitlines()), 1, line)
        return line


def environment(*directories: str) -> dict[str, str]:
    """The environment of a process that imports what we do, after what these directories hold."""
    paths = [*directories, *filter(os.path.isabs, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
