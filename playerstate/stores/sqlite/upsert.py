"""The INSERT that saves many players at a time."""

from __future__ import annotations

from typing import Any

from playerstate.interfaces import Records
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.columns import quoted, type_of

ROWS_A_STATEMENT = 1536
"""The most rows of one INSERT.  A statement runs with the GIL released and may then wait for a busy
reactor thread to give the GIL back, so few long statements are better; but the longer a statement,
the longer the reactor thread waits while its values are bound."""
SQL_BYTES = 16_000
"""The limit of apsw's statement cache is slightly above this."""
VARIABLES = 32_766
"""The most values that SQLite binds to one statement, by default."""

_SOME = "SELECT * FROM ({rows}) WHERE column1 IS NOT NULL"


class Upsert:
    """The INSERT of many rows at a time.

    The guard writes a row that is as old as the stored one, so that a batch may be repeated after
    an error that came behind its commit.

    Attributes:
        most: the most rows of one statement.
    """

    def __init__(self, schema: StateSchema) -> None:
        names = ["session_id", *(quoted(field.name) for field in schema.stored), "updated_at"]
        marks = ["?", *(type_of(field).bound for field in schema.stored), "?"]
        self._columns = len(names)
        self._row = f"({','.join(marks)})"
        self._head = f"INSERT INTO player_state ({','.join(names)}) "
        self._tail = (
            " ON CONFLICT (session_id) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in names[1:])
            + " WHERE excluded.updated_at >= player_state.updated_at"
        )
        around = len((self._head + _SOME.format(rows="") + self._tail).encode())
        fitting = (SQL_BYTES - around) // (len(self._row) + 1)
        self.most = max(1, min(ROWS_A_STATEMENT, VARIABLES // len(names), fitting))
        self._all = self._head + self._values(self.most) + self._tail
        self._some: dict[int, str] = {}

    def save(self, records: Records) -> tuple[str, list[Any]]:
        """The statement that saves these records, at most `most`, and its values.

        Fewer than `most` are padded to the next power of two with rows of NULL, which the statement
        skips: so there are few different statements, and all stay prepared.
        """
        if len(records) == self.most:
            return self._all, _row_by_row(records)
        room = min(1 << (len(records) - 1).bit_length(), self.most)
        sql = self._some.get(room)
        if sql is None:
            rows = _SOME.format(rows=self._values(room))
            sql = self._some[room] = self._head + rows + self._tail
        return sql, _row_by_row(records) + [None] * ((room - len(records)) * self._columns)

    def _values(self, rows: int) -> str:
        return "VALUES " + ",".join([self._row] * rows)


def _row_by_row(records: Records) -> list[Any]:
    """All values, record by record; copied column by column, which numpy does in bulk."""
    names = records.dtype.names
    assert names is not None
    values: list[Any] = [None] * (len(records) * len(names))
    for place, name in enumerate(names):
        values[place :: len(names)] = records[name].tolist()
    return values
