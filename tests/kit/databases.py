"""What the tests of stores share: state classes, records as a store is given them, databases."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import apsw
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import IStateStore
from playerstate.stores.contract.states import (
    EVERYTHING,
    IDENTITY,
    PLAIN,
    records,
    spawned,
    state_class,
)

__all__ = [
    "EVERYTHING",
    "IDENTITY",
    "PLAIN",
    "DirectoryTestCase",
    "connections",
    "digest",
    "environment",
    "records",
    "spawned",
    "state_class",
    "take",
]


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
