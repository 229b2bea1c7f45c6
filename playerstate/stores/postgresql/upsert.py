"""The INSERT that saves many players at a time, and the question which of them it left out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from playerstate.interfaces import Records
from playerstate.state.schema import StateSchema
from playerstate.stores.postgresql.columns import (
    INT8,
    from_int8_array,
    quoted,
    to_array,
    type_of,
)
from playerstate.stores.postgresql.session import Command, Prepare, Prepared

ROWS_A_STATEMENT = 8_192
BYTES_A_STATEMENT = 2 * 2**20
"""The most rows of one INSERT, and about the most bytes.  While its arrays are made, and while
libpq copies them, the reactor thread may wait for the GIL: a quarter of a millisecond for 8,192
rows of the default class, which is also a whole queue by default."""

_NAME = b"playerstate_save"
_FIND_NEWER = (
    b"SELECT array_agg(place - 1) FROM unnest($1::int8[], $2::int8[])"
    b" WITH ORDINALITY AS given (session_id, updated_at, place)"
    b" JOIN player_state AS held USING (session_id) WHERE held.updated_at > given.updated_at"
)


class Upsert:
    """The INSERT of as many rows as its arrays have.

    The guard writes a row that is as old as the stored one, so that a batch may be repeated after
    an error that came behind its commit.

    Attributes:
        prepare: has the server parse the statement.
        most: the most rows of one statement.
    """

    def __init__(self, schema: StateSchema) -> None:
        kept = {field.name: type_of(field) for field in schema.stored}
        self._kept = {"session_id": INT8, **kept, "updated_at": INT8}
        names = [name if name in _OWN else quoted(name) for name in self._kept]
        arrays = ", ".join(
            f"${place}::{each.declared}[]" for place, each in enumerate(self._kept.values(), 1)
        )
        sql = (
            f"INSERT INTO player_state ({', '.join(names)}) SELECT * FROM unnest({arrays})"
            " ON CONFLICT (session_id) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in names[1:])
            + " WHERE excluded.updated_at >= player_state.updated_at"
        )
        types = [each.array_oid for each in self._kept.values()]
        self.prepare = Prepare(_NAME, sql.encode(), types)
        row = sum(field.kind.size + 4 for field in schema.stored) + 24
        self.most = max(1, min(ROWS_A_STATEMENT, BYTES_A_STATEMENT // row))

    def parts(self, records: Records) -> Iterator[tuple[int, Records]]:
        """The records, at most `most` at a time, each part with the position of its first."""
        for start in range(0, len(records), self.most):
            yield start, records[start : start + self.most]

    def save(self, records: Records) -> Prepared:
        """The statement that saves these records, at least one and at most `most`."""
        return Prepared(_NAME, [to_array(records[name], each) for name, each in self._kept.items()])


_OWN = frozenset({"session_id", "updated_at"})


def find_newer(records: Records) -> Command:
    """The query for the positions of those records of which the store has a newer state."""
    values = [to_array(records[name], INT8) for name in ("session_id", "updated_at")]
    return Command(_FIND_NEWER, values, [INT8.array_oid] * 2)


def positions(found: bytes | None) -> npt.NDArray[np.intp]:
    """The answer to `find_newer`, sorted."""
    if found is None:
        return np.zeros(0, np.intp)
    return np.sort(from_int8_array(found)).astype(np.intp)
