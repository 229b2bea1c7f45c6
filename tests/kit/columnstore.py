"""A store with a typed column for each field, as another author would write one for a database.

It knows of a state class what `playerstate.interfaces` says, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from playerstate import StateSchema
from playerstate.interfaces import (
    Column,
    IStateReader,
    IStateStore,
    IStateWriter,
    LeftOut,
    Records,
    RowRefused,
    Stored,
    StoreUnusable,
)

TYPES = {
    Column.REAL: "double precision",
    Column.INTEGER: "bigint",
    Column.BOOLEAN: "boolean",
    Column.TEXT: "text",
}
_HOLDS = {"double precision": float, "bigint": int, "boolean": bool, "text": str}


class Table:
    """A table of a database that converts nothing.

    Attributes:
        columns: the type of each by name, as it was declared.
        rows: by session id: a value for each column, and ``updated_at``.
    """

    def __init__(self) -> None:
        self.columns: dict[str, str] = {}
        self.defaults: dict[str, Any] = {}
        self.identity = bytes(16)
        self.rows: dict[int, dict[str, Any]] = {}

    def add_column(self, name: str, declared: str, default: Any) -> None:
        """Add a column; the rows there are have the default in it."""
        self._check(declared, default)
        self.columns[name] = declared
        self.defaults[name] = default
        for row in self.rows.values():
            row[name] = default

    def rename_column(self, before: str, name: str) -> None:
        """Give a column another name."""
        self.columns[name] = self.columns.pop(before)
        self.defaults[name] = self.defaults.pop(before)
        for row in self.rows.values():
            row[name] = row.pop(before)

    def upsert(self, rows: dict[int, dict[str, Any]]) -> None:
        """Put these rows in the place of those of the same key, or none of them.

        A column of which a row says nothing gets its default.
        """
        rows = {key: self.defaults | row for key, row in rows.items()}
        for row in rows.values():
            for name, declared in self.columns.items():
                self._check(declared, row[name])
        self.rows.update(rows)

    def _check(self, declared: str, value: Any) -> None:
        if type(value) is not _HOLDS[declared]:
            raise RowRefused(f"{value!r} is no {declared}")


@implementer(IStateStore, IStateReader, IStateWriter)
class ColumnStore:
    """Players in such a table."""

    lanes = 1

    def __init__(self, schema: StateSchema, table: Table) -> None:
        self.schema = schema
        self._table = table

    def prepare(self) -> bytes:
        """See `IStateStore.prepare`."""
        return self._table.identity

    def migrate(self, identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""
        missing, renamed = [], {}
        for field in self.schema.stored:
            wanted = TYPES[field.kind.column]
            names = [name for name in (field.name, *field.was) if name in self._table.columns]
            held = self._table.columns[names[0]] if names else None
            if names and names[0] != field.name:
                renamed[names[0]] = field.name
            if held is None:
                missing.append(field)
            elif held != wanted:
                raise StoreUnusable(f"{field.name} is {held}, and would have to be {wanted}")
            elif field.kind.column is Column.TEXT:
                texts = [row[names[0]] for row in self._table.rows.values()]
                if any(len(text.encode()) > field.kind.size for text in texts):
                    raise StoreUnusable(f"{field.name} holds more than {field.kind.size} bytes")
        for field in missing:
            self._table.add_column(field.name, TYPES[field.kind.column], field.default)
        for before, name in renamed.items():
            self._table.rename_column(before, name)
        if not any(self._table.identity):
            self._table.identity = identity
        return self._table.identity

    def open_reader(self) -> IStateReader:
        """The store itself."""
        return self

    def open_writer(self) -> IStateWriter:
        """The store itself."""
        return self

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return "columns"

    def load(self, session_id: int) -> Stored | None:
        """See `IStateReader.load`."""
        row = self._table.rows.get(session_id)
        if row is None:
            return None
        return Stored(tuple(row[field.name] for field in self.schema.stored), row["updated_at"])

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`; the values come column by column."""
        columns = {
            field.name: list(map(field.kind.decode, records[field.name].tolist()))
            for field in self.schema.stored
        }
        columns["updated_at"] = records["updated_at"].tolist()
        rows, left_out = {}, []
        for index, session_id in enumerate(records["session_id"].tolist()):
            row = {name: column[index] for name, column in columns.items()}
            before = self._table.rows.get(session_id)
            if before is not None and before["updated_at"] > row["updated_at"]:
                left_out.append(index)
            else:
                rows[session_id] = (before or {}) | row
        self._table.upsert(rows)
        return LeftOut(left_out)

    def maintain(self) -> None:
        """There is no upkeep."""

    def sync(self) -> None:
        """There is no disk."""

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        """The log tells of them."""

    def interrupt(self) -> None:
        """Nothing here runs for long."""

    def close(self) -> None:
        """The table stays."""
