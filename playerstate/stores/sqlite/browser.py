"""Reads a SQLite database of players from outside, with or without its server running."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from zope.interface import implementer

from playerstate.interfaces import IStoreBrowser, StoreUnusable
from playerstate.stores.sqlite.columns import raw
from playerstate.stores.sqlite.files import (
    STARTUP_BUSY_MS,
    connect_to_look,
    explained,
    may_be_database,
    not_a_database,
)
from playerstate.stores.sqlite.format import check_ours, read_columns


@implementer(IStoreBrowser)
class SQLiteBrowser:
    """Reads a database of players, and never writes."""

    def __init__(self, path: str) -> None:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreUnusable(f"{path} does not exist") from None
        except OSError as error:
            raise StoreUnusable(
                f"{path} cannot be reached: {error.strerror}; this user needs search"
                " permission (x) for every directory of the path"
            ) from None
        if not may_be_database(path):
            raise StoreUnusable(not_a_database(path))
        self._path = path
        with explained(path, os.R_OK):
            self._connection = connect_to_look(path)
            try:
                self._connection.pragma("query_only", True)
                self._connection.set_busy_timeout(STARTUP_BUSY_MS)
                declared = self._read_columns()
            except BaseException:
                self._connection.close()
                raise
        self.columns = tuple(declared)
        self._texts = [each == "TEXT" for each in declared.values()]
        # Values edited by hand may be bytes that are not UTF-8.
        self._names = ", ".join(raw(name, each) for name, each in declared.items())

    def _read_columns(self) -> dict[str, str]:
        if not check_ours(self._connection, self._path):
            raise StoreUnusable(f"{self._path} holds no players: it is an empty database")
        return read_columns(self._connection)

    def count(self) -> int:
        """See `IStoreBrowser.count`."""
        with explained(self._path, os.R_OK):
            count: int = self._connection.execute("SELECT count(*) FROM player_state").get
        return count

    def latest(self, limit: int | None) -> Iterator[tuple[Any, ...]]:
        """See `IStoreBrowser.latest`."""
        order = "ORDER BY updated_at DESC, session_id LIMIT ?"
        with explained(self._path, os.R_OK):
            rows = self._connection.execute(
                f"SELECT {self._names} FROM player_state {order}", (-1 if limit is None else limit,)
            )
            yield from map(self._readable, rows)

    def find(self, session_id: int) -> tuple[Any, ...] | None:
        """See `IStoreBrowser.find`."""
        with explained(self._path, os.R_OK):
            row: tuple[Any, ...] | None = self._connection.execute(
                f"SELECT {self._names} FROM player_state WHERE session_id = ?", (session_id,)
            ).get
        return None if row is None else self._readable(row)

    def _readable(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        r"""Decode the texts of a row; bytes that are not UTF-8 are written as ``\xff``."""
        return tuple(
            value.decode(errors="backslashreplace") if is_text and value is not None else value
            for is_text, value in zip(self._texts, row, strict=True)
        )

    def close(self) -> None:
        """See `IStoreBrowser.close`."""
        self._connection.close()
