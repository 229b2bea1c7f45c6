"""The rows of one transaction: saved, or the ones found that the database refuses."""

from __future__ import annotations

import apsw
import numpy as np

from playerstate.interfaces import Records, RowRefused
from playerstate.printable import printable
from playerstate.state.schema import StateSchema
from playerstate.stores.halving import find_refused
from playerstate.stores.sqlite.newest import find, read_newest
from playerstate.stores.sqlite.upsert import Upsert

REFUSED = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)
"""SQLite's errors about a row that it can never take."""


class Batches:
    """Saves batches of records over one connection, each in a transaction of the caller's.

    Args:
        connection: to the database.
        schema: of the players.

    Attributes:
        interrupted: set by another thread to end a running `upsert`.
    """

    def __init__(self, connection: apsw.Connection, schema: StateSchema) -> None:
        self.interrupted = False
        self._connection = connection
        self._sql = Upsert(schema)

    def upsert(self, records: Records) -> list[int]:
        """Save records; return the positions of those that the guard left out.

        Raises:
            RowRefused: the database skipped a record, although it has no newer one.
            apsw.Error: as SQLite, with one of `REFUSED` for a record that it can never take.
        """
        connection, left_out = self._connection, []
        for start in range(0, len(records), self._sql.most):
            chunk = records[start : start + self._sql.most]
            connection.execute(*self._sql.save(chunk))
            if self.interrupted:  # SQLite ignores an interrupt between statements
                raise apsw.InterruptError("interrupted")
            if connection.changes() < len(chunk):
                left_out += [start + index for index in self._find_newer(chunk)]
        return left_out

    def find_refused(self, records: Records) -> dict[int, str]:
        """Find the refused records: their reasons, by position.  Nothing is saved.

        All attempts are of one transaction, which costs no commit and no sync.
        """

        def attempt(start: int, end: int) -> str | None:
            if not self._connection.in_transaction:  # a trigger may have rolled it back
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                self.upsert(records[start:end])
            except (RowRefused, *REFUSED) as error:
                return printable(str(error))
            return None

        try:
            return find_refused(len(records), attempt)
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _find_newer(self, chunk: Records) -> list[int]:
        """Positions of the records that the guard left out.

        Raises:
            RowRefused: a record was left out although the store has no newer one.
        """
        there = read_newest(self._connection, chunk["session_id"].tolist())
        is_there, stored_at = find(chunk["session_id"], there)
        if not is_there.all() or (stored_at < chunk["updated_at"]).any():
            raise RowRefused("a trigger skipped it")
        newer: list[int] = np.flatnonzero(stored_at > chunk["updated_at"]).tolist()
        return newer
