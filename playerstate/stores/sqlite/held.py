"""A SQLite database that an operator changes while no server can use it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

import apsw
from zope.interface import implementer

from playerstate.interfaces import (
    Erased,
    IHeldStore,
    LeftOut,
    OnProgress,
    Records,
    RowRefused,
    StoreBusy,
    Stored,
    StoreUnusable,
)
from playerstate.printable import printable
from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite.backup import look_for_signals
from playerstate.stores.sqlite.batches import REFUSED, Batches
from playerstate.stores.sqlite.content import SQLiteContent
from playerstate.stores.sqlite.erasing import erase_player
from playerstate.stores.sqlite.files import (
    STARTUP_BUSY_MS,
    connect,
    connect_existing,
    explained,
    may_be_database,
    not_a_database,
)
from playerstate.stores.sqlite.format import check_ours, migrate_database, read_identity
from playerstate.stores.sqlite.lockfile import LockFile
from playerstate.stores.sqlite.reader import SQLiteReader
from playerstate.stores.sqlite.refused import RefusedLines
from playerstate.stores.sqlite.restoring import put_in_place

_NONE = bytes(16)


@implementer(IHeldStore)
class SQLiteHeld(SQLiteContent):
    """See `IHeldStore`.

    Args:
        path: of the database, symbolic links resolved.

    Raises:
        StoreInUse: another process holds it.
        StoreUnusable: the lock cannot be taken.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._lock = LockFile(path)
        self._lock.take()

    @contextlib.contextmanager
    def _change(self) -> Iterator[apsw.Connection]:
        """A connection to write over; its transaction is committed and synced at the end.

        Unless the caller has rolled it back, or raises.
        """
        if not may_be_database(self.path):
            raise StoreUnusable(not_a_database(self.path))
        with (
            explained(self.path),
            contextlib.closing(connect_existing(self.path)) as connection,
        ):
            connection.set_busy_timeout(STARTUP_BUSY_MS)
            look_for_signals(connection)
            if not check_ours(connection, self.path):
                raise StoreUnusable(f"{self.path} holds no players: it is an empty database")
            connection.pragma("synchronous", "full")
            # What is deleted is overwritten, not only forgotten.
            connection.pragma("secure_delete", True)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                if connection.in_transaction:
                    connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            # The log still has the rows as they were before.
            with contextlib.suppress(apsw.BusyError):
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def migrate(self, schema: StateSchema) -> None:
        """See `IHeldStore.migrate`."""
        if not may_be_database(self.path):
            raise StoreUnusable(not_a_database(self.path))
        with explained(self.path), contextlib.closing(connect(self.path)) as connection:
            connection.set_busy_timeout(STARTUP_BUSY_MS)
            identity = read_identity(connection, self.path)
            if identity == _NONE:
                identity = os.urandom(len(_NONE))
            migrate_database(connection, self.path, schema, identity)

    def load(self, schema: StateSchema, session_ids: Iterable[int]) -> dict[int, Stored]:
        """See `IHeldStore.load`."""
        found = {}
        with (
            explained(self.path),
            contextlib.closing(SQLiteReader(self.path, schema, lambda _: True)) as reader,
        ):
            try:
                for session_id in session_ids:
                    if (stored := reader.load(session_id)) is not None:
                        found[session_id] = stored
            except StoreBusy as error:
                raise _busy(self.path, error) from error
        return found

    def write(self, schema: StateSchema, records: Records) -> LeftOut:
        """See `IHeldStore.write`."""
        with self._change() as connection:
            batches = Batches(connection, schema)
            try:
                return LeftOut(batches.upsert(records))
            except (RowRefused, *REFUSED) as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if not (refused := batches.find_refused(records)):
                    raise StoreUnusable(
                        f"{self.path} refuses these rows together: {printable(str(error))}; nothing"
                        " was saved"
                    ) from error
                return LeftOut(refused=refused)

    def erase(self, session_id: int) -> Erased:
        """See `IHeldStore.erase`."""
        with (
            self.look(),  # refuses what is no database of players
            contextlib.closing(connect_existing(self.path)) as connection,
        ):
            connection.set_busy_timeout(STARTUP_BUSY_MS)
            connection.pragma("synchronous", "full")
            try:
                saved = erase_player(connection, session_id)
                quarantined = RefusedLines(self.path).remove(session_id)
            except StoreBusy as error:
                raise _busy(self.path, error) from error
            except OSError as error:
                raise StoreUnusable(f"cannot change {error.filename}: {error.strerror}") from error
        return Erased(saved, quarantined)

    def idle(self, before: int) -> int:
        """See `IHeldStore.idle`."""
        with self.look() as connection:
            count: int = connection.execute(
                "SELECT count(*) FROM player_state WHERE updated_at < ?", (before,)
            ).get
        return count

    def prune(self, before: int) -> int:
        """See `IHeldStore.prune`."""
        with self._change() as connection:
            connection.execute("DELETE FROM player_state WHERE updated_at < ?", (before,))
            return connection.changes()

    def restore(self, path: str, progress: OnProgress) -> Sequence[str]:
        """See `IHeldStore.restore`."""
        return put_in_place(path, self.path, progress)

    def close(self) -> None:
        """See `IHeldStore.close`."""
        self._lock.release()


def _busy(path: str, error: StoreBusy) -> StoreUnusable:
    return StoreUnusable(f"{path} is busy: {error}; try again")
