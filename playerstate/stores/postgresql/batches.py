"""The rows of one transaction: saved, or the ones found that the database refuses.

A transaction takes two round trips.  The first one begins it and sends the rows; the second one
commits.  A COMMIT has no time-out: it may wait for a standby, and to give up would leave its
outcome unknown.  What is certain is only a commit that the server reports, and not one "locally
only": then the standby may lack it, and would be the server that goes on after the next failure.
So everything else is an error, after which the same rows are written again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg.errors import Diagnostic

from playerstate.interfaces import LeftOut, Records, RowRefused, StoreBusy
from playerstate.printable import printable
from playerstate.state.schema import StateSchema
from playerstate.stores.halving import find_refused
from playerstate.stores.postgresql.locks import SHARE_IN_TRANSACTION
from playerstate.stores.postgresql.session import CALL_SECONDS, Command, Prepared, Session
from playerstate.stores.postgresql.upsert import Upsert, find_newer, positions
from playerstate.stores.postgresql.url import one_line

Positions: TypeAlias = npt.NDArray[np.intp]

REFUSED_CLASSES = ("22", "23", "44", "P0")
"""Classes of ``SQLSTATE`` about rows that the database can never take: data exceptions, integrity
constraints, the condition of a view, and what a trigger raises."""
STATEMENT_SECONDS = 0.8 * CALL_SECONDS
"""After this time the server itself ends a statement, which leaves the connection in use."""
_INVALID_BINARY = "22P03"
"""Of class 22, but about what we sent, and not about a row."""

_RAISED_BY_TRIGGER = "exec_stmt_raise"
"""The function of the server that reports what PL/pgSQL's RAISE says."""

_BEGIN = Command(b"BEGIN")
_SETTINGS = Command(
    # A client that dies must not keep the rows locked.  Set in the transaction alone, for a pooler
    # may give the connection to another program after it.
    f"SELECT set_config('statement_timeout', '{STATEMENT_SECONDS * 1000:.0f}', true),"
    f" set_config('idle_in_transaction_session_timeout', '{CALL_SECONDS * 1000:.0f}', true),"
    " set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit')"
    " IN ('off', 'local') THEN 'on' ELSE current_setting('synchronous_commit') END, true),"
    f" {SHARE_IN_TRANSACTION}".encode()
)
_IMMEDIATE = Command(b"SET CONSTRAINTS ALL IMMEDIATE")
_UNLIMITED = Command(b"SET LOCAL statement_timeout = 0")
_COMMIT = Command(b"COMMIT")
_ROLLBACK = Command(b"ROLLBACK")
_SAVEPOINT = Command(b"SAVEPOINT playerstate")
_RELEASE = Command(b"RELEASE SAVEPOINT playerstate")
_BACK = Command(b"ROLLBACK TO SAVEPOINT playerstate")


class NotSaved(Exception):
    """The server did not commit, or not to its standby; the same rows are to be written again."""


class _NoCommit(Exception):
    """Ends a transaction without a commit."""


class Batches:
    """Saves batches of records over one connection, each in a transaction.

    Args:
        session: the connection; a statement is prepared on it.
        schema: of the players.

    Raises:
        psycopg.Error: the table does not fit the schema, or the connection was lost.
    """

    def __init__(self, session: Session, schema: StateSchema) -> None:
        self._session = session
        self._upsert = Upsert(schema)
        self._warnings: list[str] = []
        session.add_notice_handler(self._note)
        session.run(self._upsert.prepare)

    def _note(self, notice: Diagnostic) -> None:
        """Keep a warning: after a COMMIT each says that it is not what was asked for."""
        is_warning = notice.severity_nonlocalized == "WARNING"
        if is_warning and notice.source_function != _RAISED_BY_TRIGGER:
            self._warnings.append(notice.message_primary or "")

    def write_all(self, records: Records) -> LeftOut:
        """Save all records, at least one, in one transaction, or none.

        Raises:
            RowRefused: the database skipped a record, although it has no newer one.
            StoreBusy: a command has the store for itself.
            NotSaved: it is not known whether they are saved.
            psycopg.Error: of the server; see `is_refusal`.
        """
        parts = self._upsert.parts(records)
        _, part = next(parts)
        with self.transaction(self._upsert.save(part)) as inserted:
            left_out = [self._left_out(part, inserted)]
            for start, part in parts:
                left_out.append(start + self._insert(part))
        return LeftOut(np.concatenate(left_out))

    def write_others(self, records: Records) -> LeftOut:
        """Save the records that the database takes, and name the others.

        Raises:
            psycopg.Error: as `write_all`, but for a row.
        """
        with self.transaction(_IMMEDIATE):
            return self._save_others(records)

    def name_refused(self, records: Records) -> dict[int, str]:
        """The positions of the records that the database refuses, with the reasons; none is saved.

        Raises:
            psycopg.Error: as `write_others`.
        """
        with contextlib.suppress(_NoCommit), self.transaction(_IMMEDIATE):
            refused = dict(self._save_others(records).refused)
            raise _NoCommit
        return refused

    def _save_others(self, records: Records) -> LeftOut:
        newer = [positions(None)]

        def attempt(start: int, end: int) -> str | None:
            try:
                self._session.run(_SAVEPOINT)
                found = [
                    start + at + self._insert(part)
                    for at, part in self._upsert.parts(records[start:end])
                ]
                self._session.run(_RELEASE)
            except (RowRefused, psycopg.Error) as error:
                if not is_refusal(error):
                    raise
                self._session.run(_BACK, _RELEASE)
                return reason_of(error)
            newer.extend(found)
            return None

        refused = find_refused(len(records), attempt)
        return LeftOut(np.sort(np.concatenate(newer)), refused=refused)

    def _insert(self, part: Records) -> Positions:
        """Save one statement's records; the positions of those left out."""
        (inserted,) = self._session.run(self._upsert.save(part))
        return self._left_out(part, inserted.command_tuples or 0)

    def _left_out(self, part: Records, inserted: int) -> Positions:
        """The positions of the records that the guard left out.

        Raises:
            RowRefused: others were left out too, although the store has no newer state of them.
        """
        if inserted == len(part):
            return positions(None)
        (found,) = self._session.run(find_newer(part))
        newer = positions(found.get_value(0, 0))
        if len(newer) + inserted != len(part):
            raise RowRefused("a trigger skipped it")
        return newer

    @contextlib.contextmanager
    def transaction(self, first: Command | Prepared) -> Iterator[int]:
        """A transaction that begins with this statement, and is committed at the end.

        Yields:
            The rows that the statement inserted or updated.

        Raises:
            StoreBusy: a command has the store for itself.
            NotSaved: see `_commit`.
        """
        try:
            _, settings, done = self._session.run(_BEGIN, _SETTINGS, first)
            if settings.get_value(0, settings.nfields - 1) != b"\1":
                raise StoreBusy("a command of an operator has the store for itself")
            yield done.command_tuples or 0
            self._commit()
        except BaseException:
            if not self._session.is_lost:
                with contextlib.suppress(psycopg.Error):  # the first error is what counts
                    self._session.run(_ROLLBACK)
            raise

    def _commit(self) -> None:
        """Commit, however long it takes.

        Raises:
            NotSaved: the server says that it has not committed, or only locally.
        """
        self._warnings.clear()
        before, self._session.patience = self._session.patience, None
        try:
            _, committed = self._session.run(_UNLIMITED, _COMMIT)
        finally:
            self._session.patience = before
        if committed.command_status != b"COMMIT":
            raise NotSaved(f"the server answered COMMIT by {committed.command_status!r}")
        if self._warnings:
            raise NotSaved(f"the commit may be on this server only: {'; '.join(self._warnings)}")


def reason_of(error: RowRefused | psycopg.Error) -> str:
    """Why a row is refused, on one line."""
    return printable(one_line(error) if isinstance(error, psycopg.Error) else str(error))


def is_refusal(error: Exception) -> bool:
    """Whether the error is about a row that the database can never take."""
    if isinstance(error, RowRefused):
        return True
    state = error.diag.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and state[:2] in REFUSED_CLASSES and state != _INVALID_BINARY
