"""Whether the files of a database in use are still ours, and hold what was committed."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

import apsw
import attrs

from playerstate.interfaces import StoreReplaced
from playerstate.stores.sqlite_files import FileNumber, file_number, look_at, number_of

LOG_HEADER_BYTES = 32

Signature = tuple[int, int]


@attrs.define(eq=False)
class Watch:
    """What is known of a database in use.  Writer's thread, and the reactor's while none is open.

    Attributes:
        path: of the database.
        database_file, log_file, index_file: which files they are; None as long as not seen.
        identity: what the database was given; None where it is not known.
        newest: session id and ``updated_at`` of a row of the last commit, the newest in it.
        replaced: whether the files were found not to be ours.
        log_lost: whether the log or its index is gone, so that other programs cannot see it.
    """

    path: str
    database_file: FileNumber | None = None
    log_file: FileNumber | None = None
    index_file: FileNumber | None = None
    identity: bytes | None = None
    newest: tuple[int, int] | None = None
    replaced: bool = False
    log_lost: bool = False
    _signature: Signature | None = None
    _version: int = 0

    @property
    def apart(self) -> bool:
        """Whether log and database do not belong together, so that none is copied to the other."""
        return self.log_lost

    def begin(self) -> None:
        """A reader is about to be opened: what is there now is ours."""
        self.database_file = file_number(self.path)
        self.log_file = self.index_file = self.newest = self._signature = None
        self.replaced = self.log_lost = False

    def note_copied(self, connection: apsw.Connection) -> None:
        """Pages of the log are in the database, by a checkpoint of ours."""
        self._signature = _sign(look_at(self.path))
        self._version = connection.pragma("data_version")

    def check(self, connection: apsw.Connection, pages: int, frame_bytes: int) -> None:
        """Look at the files, after so many pages were seen in the log.

        Costs two or three `stat` and a look at the log's index as long as all is well.

        Raises:
            StoreReplaced: they are not ours, or do not hold what was committed.
        """
        status = look_at(self.path)
        self.check_number(number_of(status))
        if not pages:
            return
        self._check_log(connection, pages, frame_bytes)
        signature, version = _sign(status), connection.pragma("data_version")
        if self._signature is None:
            self._signature, self._version = signature, version
        elif (signature, version) != (self._signature, self._version):
            self._explain(connection, signature, version)

    def check_number(self, found: FileNumber | None) -> None:
        """See that the file found under the database's name is the one that was opened.

        Raises:
            StoreReplaced: it is another, or there is none.
        """
        if found != self.database_file:
            self._lost(self.path, "was removed or replaced")

    def _check_log(self, connection: apsw.Connection, pages: int, frame_bytes: int) -> None:
        log = connection.filename_wal  # beside what a link leads to
        index = log.removesuffix("wal") + "shm"
        status, index_file = look_at(log), file_number(index)
        size = self._size_of_log(log, status)
        if self.index_file is None:
            self.index_file = index_file
        if index_file is None or index_file != self.index_file:
            self.log_lost = True
            self._lost(index, "was removed or replaced")
        if size < LOG_HEADER_BYTES + pages * frame_bytes:
            # What other programs did to the log is seen first; it may be there no more.
            with contextlib.suppress(apsw.IOError):
                connection.pragma("data_version")
                pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            size = self._size_of_log(log, look_at(log))
            if pages and size < LOG_HEADER_BYTES + pages * frame_bytes:
                self.log_lost = True
                self._lost(log, "was cut short")

    def sync_log(self, log: str) -> None:
        """Bring what is in the log to disk.

        Raises:
            StoreReplaced: the log is not ours.
        """
        try:
            with open(log, "rb") as file:
                self._size_of_log(log, os.fstat(file.fileno()))
                os.fsync(file.fileno())
        except (FileNotFoundError, NotADirectoryError):
            self._size_of_log(log, None)

    def _size_of_log(self, log: str, status: os.stat_result | None) -> int:
        """The size of the log by this look at it, in bytes."""
        if self.log_file is None:
            self.log_file = number_of(status)
        if status is None or number_of(status) != self.log_file:
            self.log_lost = True
            self._lost(log, "was removed or replaced")
        return status.st_size

    def _explain(
        self, connection: apsw.Connection, signature: Signature | None, version: int
    ) -> None:
        """Another program wrote, which is its right, or restored the database.

        A time of change that no commit explains is no proof: a checkpoint that failed half-way and
        ``touch`` leave one too, and what is done about a loss would then do harm.
        """
        try:
            identity = connection.execute("SELECT identity FROM player_store").get
            if self.identity is not None and identity != self.identity:
                self._lost(self.path, "was overwritten with another database")
            if self.newest is not None:
                session_id, updated_at = self.newest
                held = connection.execute(
                    "SELECT updated_at FROM player_state WHERE session_id = ?", (session_id,)
                ).get
                if held is None or held < updated_at:
                    self._lost(
                        self.path, "lost what was committed last: it was restored from a copy"
                    )
        except (apsw.SQLError, apsw.CorruptError, apsw.NotADBError) as error:
            self._lost(self.path, f"was overwritten ({error})")
        self._signature, self._version = signature, version

    def _lost(self, path: str, what: str) -> NoReturn:
        self.replaced = True
        raise StoreReplaced(f"{path} {what}")


def _sign(status: os.stat_result | None) -> Signature | None:
    return None if status is None else (status.st_mtime_ns, status.st_size)
