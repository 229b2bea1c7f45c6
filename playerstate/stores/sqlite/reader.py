"""Loads players from a SQLite database, on the reactor thread."""

from __future__ import annotations

from collections.abc import Callable

import apsw
from zope.interface import implementer

from playerstate.interfaces import IStateReader, StoreBusy, Stored
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.columns import quoted, raw, type_of
from playerstate.stores.sqlite.files import connect_existing, copy_whole
from playerstate.stores.sqlite.mark import Marks
from playerstate.stores.sqlite.newest import Newest, read_newest


@implementer(IStateReader)
class SQLiteReader:
    """Loads players over a read-only connection.

    Args:
        path: of the database, which must exist.
        schema: of the players.
        may_checkpoint: called by `close` with this reader; whether SQLite may checkpoint the log.
    """

    def __init__(
        self,
        path: str,
        schema: StateSchema,
        may_checkpoint: Callable[[SQLiteReader], bool],
    ) -> None:
        self._may_checkpoint: Callable[[SQLiteReader], bool] | None = may_checkpoint
        self._path = path
        self._connection = connect_existing(path)
        self._connection.pragma("query_only", True)
        names = ", ".join(quoted(field.name) for field in schema.stored)
        where = "updated_at FROM player_state WHERE session_id = ?"
        self._select = f"SELECT {names}, {where}"
        as_bytes = ", ".join(raw(field.name, type_of(field).declared) for field in schema.stored)
        self._select_bytes = f"SELECT {as_bytes}, {where}"
        restored = (type_of(field).restored for field in schema.stored)
        self._restored = [(i, restore) for i, restore in enumerate(restored) if restore]

    def load(self, session_id: int) -> Stored | None:
        """See `IStateReader.load`; it takes microseconds and never waits for a writer."""
        try:
            # `get` runs the statement to its end, which ends the read transaction with it.
            try:
                row = self._connection.execute(self._select, (session_id,)).get
            except UnicodeDecodeError:  # edited by hand; the schema rejects and names the value
                row = self._connection.execute(self._select_bytes, (session_id,)).get
                row = (*map(_text_or_bytes, row),)
        except (apsw.BusyError, apsw.LockedError, apsw.ConnectionClosedError) as error:
            raise StoreBusy(str(error)) from error  # closed: the store is being reopened
        if row is None:
            return None
        *values, updated_at = row
        for index, restore in self._restored:
            values[index] = restore(values[index])
        return Stored(tuple(values), updated_at)

    def newest(self) -> Newest:
        """When each stored player last changed."""
        return read_newest(self._connection)

    def copy_to(self, path: str) -> None:
        """Write a whole copy of the database, synced to disk."""
        self._connection.pragma("query_only", False)
        copy_whole(self._connection, self._path, path)

    def teach(self, marks: Marks) -> None:
        """Let `marks` learn the present content, which is ours."""
        marks.learn(self._connection)

    def close(self) -> None:
        """See `IStateReader.close`."""
        may_checkpoint, self._may_checkpoint = self._may_checkpoint, None
        if may_checkpoint is not None and not may_checkpoint(self):
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.close()


def _text_or_bytes(value: object) -> object:
    """Decode a value of a row whose texts were read as bytes; bytes that are no UTF-8 stay."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
