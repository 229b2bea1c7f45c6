"""What an operator looks at in a SQLite database, beside its server or without one."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apsw
from zope.interface import implementer

from playerstate.interfaces import IStoreContent, OnProgress, StoreUnusable
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.backup import (
    copy_online,
    count_players,
    find_damage,
    give_permissions,
    look_for_signals,
)
from playerstate.stores.sqlite.columns import raw, restored_from
from playerstate.stores.sqlite.files import (
    LIVE,
    STARTUP_BUSY_MS,
    connect_to_look,
    explained,
    may_be_database,
    not_a_database,
)
from playerstate.stores.sqlite.format import (
    check_ours,
    plan_migration,
    read_columns,
    read_identity,
)
from playerstate.stores.sqlite.newest import read_newest
from playerstate.stores.sqlite.refused import RefusedLines

IDS_A_STATEMENT = 4096
"""Session ids of one SELECT; SQLite binds up to 32,766 values to one statement."""


@implementer(IStoreContent)
class SQLiteContent:
    """See `IStoreContent`.  Each method opens a connection of its own, which only reads.

    Args:
        path: of the database, symbolic links resolved.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.live_path = f"{path}{LIVE}"

    @contextlib.contextmanager
    def look(self) -> Iterator[apsw.Connection]:
        """A connection to read over; it never writes.

        Raises:
            StoreUnusable: there is no database of players, or SQLite fails meanwhile.
        """
        if not os.path.exists(self.path):
            raise StoreUnusable(f"{self.path} does not exist")
        if not may_be_database(self.path):
            raise StoreUnusable(not_a_database(self.path))
        with (
            explained(self.path, os.R_OK),
            contextlib.closing(connect_to_look(self.path)) as connection,
        ):
            connection.pragma("query_only", True)
            connection.set_busy_timeout(STARTUP_BUSY_MS)
            look_for_signals(connection)
            if not check_ours(connection, self.path):
                raise StoreUnusable(f"{self.path} holds no players: it is an empty database")
            yield connection

    def exists(self) -> bool:
        """See `IStoreContent.exists`."""
        if not os.path.exists(self.path):
            return False
        if not may_be_database(self.path):
            raise StoreUnusable(not_a_database(self.path))
        with (
            explained(self.path, os.R_OK),
            contextlib.closing(connect_to_look(self.path)) as connection,
        ):
            return check_ours(connection, self.path)

    def identity(self) -> bytes:
        """See `IStoreContent.identity`."""
        with self.look() as connection:
            return read_identity(connection, self.path)

    def count(self) -> int:
        """See `IStoreContent.count`."""
        with self.look() as connection:
            return count_players(connection)

    def columns(self) -> Sequence[str]:
        """See `IStoreContent.columns`."""
        with self.look() as connection:
            return tuple(read_columns(connection))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        r"""See `IStoreContent.rows`; of a text that is not UTF-8, bytes are shown as ``\xff``."""
        with self.look() as connection:
            declared = read_columns(connection)
            names = ", ".join(raw(name, each) for name, each in declared.items())
            restore = [restored_from(each) for each in declared.values()]
            changed = [(at, each) for at, each in enumerate(restore) if each is not None]
            for row in connection.execute(f"SELECT {names} FROM player_state ORDER BY session_id"):
                if not changed:
                    yield row
                    continue
                values = list(row)
                for at, convert in changed:
                    values[at] = None if values[at] is None else convert(values[at])
                yield tuple(values)

    def updated_at(self, session_ids: Iterable[int]) -> dict[int, int]:
        """See `IStoreContent.updated_at`."""
        found: dict[int, int] = {}
        wanted = iter(session_ids)
        with self.look() as connection:
            while part := list(itertools.islice(wanted, IDS_A_STATEMENT)):
                found.update(read_newest(connection, part).tolist())
        return found

    def plan(self, schema: StateSchema) -> Sequence[str]:
        """See `IStoreContent.plan`."""
        with self.look() as connection:
            return plan_migration(connection, self.path, schema)

    def check(self) -> Sequence[str]:
        """See `IStoreContent.check`."""
        with self.look() as connection:
            return find_damage(connection)

    def quarantined(self) -> int:
        """See `IStoreContent.quarantined`."""
        try:
            return RefusedLines(self.path).count()
        except OSError as error:
            raise StoreUnusable(f"cannot read {error.filename}: {error.strerror}") from error

    def backup(self, path: str, progress: OnProgress) -> int:
        """See `IStoreContent.backup`."""
        try:
            with self.look() as connection:
                players = copy_online(connection, path, progress)
            give_permissions(path, self.path)
        except OSError as error:
            raise StoreUnusable(f"cannot write a copy of {self.path}: {error.strerror}") from error
        return players
