"""Checks that the files of a database in use are still ours and contain the last commit."""

from __future__ import annotations

import os
import time
from typing import NoReturn

import apsw
import attrs

from playerstate.interfaces import StoreReplaced
from playerstate.stores.sqlite.files import FileNumber, file_number, look_at, number_of
from playerstate.stores.sqlite.mark import Marks

LOG_HEADER_BYTES = 32
OVERWRITTEN = "was written over in place"
CHECKPOINT_PAUSES = (0.0, 0.01, 0.04, 0.15, 0.3, 0.5, 0.0)
"""Seconds between looks at a file while another program's checkpoint may move its tables."""


@attrs.define(eq=False)
class Watch:
    """The state of a database in use.  Persist thread; reactor thread while no writer is open.

    Attributes:
        path: of the database.
        database_file, log_file, index_file: the numbers of these files; None until first seen.
        identity: the identity given to the database; None if unknown.
        marks: the marks of our commits.
        replaced: whether the files were found not to be ours.
        log_lost: whether the log or its index is gone, so that other programs cannot see it.
        rewritten: whether other content was put into the file, through SQLite or bypassing it.
        overwritten: whether other content was put into the file bypassing SQLite.
    """

    path: str
    database_file: FileNumber | None = None
    log_file: FileNumber | None = None
    index_file: FileNumber | None = None
    identity: bytes | None = None
    marks: Marks = attrs.field(init=False)
    replaced: bool = False
    log_lost: bool = False
    rewritten: bool = False
    overwritten: bool = False
    _version: int | None = None
    _others_wrote: bool = True

    def __attrs_post_init__(self) -> None:
        """Create the marks of the same database."""
        self.marks = Marks(self.path)

    @property
    def apart(self) -> bool:
        """Whether the log does not belong to the database file, and must not be checkpointed."""
        return self.log_lost or self.overwritten

    def begin(self) -> None:
        """Take the present files as ours; called before a reader is opened."""
        self.database_file = file_number(self.path)
        self.log_file = self.index_file = None
        self.replaced = self.log_lost = self.rewritten = self.overwritten = False

    def attach(self, connection: apsw.Connection) -> None:
        """Record that a writer now uses this connection.

        Raises:
            StoreReplaced: the file is not ours.
        """
        self._version, self._others_wrote = None, True
        if self.marks.is_known and self._is_changed(copied=False):
            self._check_file(connection, copied=False)

    def check(self, connection: apsw.Connection, pages: int, frame_bytes: int) -> None:
        """Check the files.

        As long as they are ours, it costs two or three `stat`, two short reads and a look at the
        log's index.

        Args:
            connection: the writer's.
            pages: in the log after our last commit.
            frame_bytes: bytes of one page in the log, with its header.

        Raises:
            StoreReplaced: the files are not ours, or lack the last commit.
        """
        self.check_number(file_number(self.path))
        if self.overwritten:
            self._rewritten(OVERWRITTEN)
        if not self.marks.is_known:
            self.marks.learn(connection)
        # If the whole log is checkpointed, the file alone is the whole database.
        copied = _is_copied(connection)
        if (is_changed := self._is_changed(copied)) and copied:
            self._others_wrote |= _data_version(connection) != self._version
            self._check_file(connection, copied=True)
            is_changed = False
        if pages:
            self._check_log(connection, pages, frame_bytes)
        version = connection.execute("PRAGMA data_version").get
        if version != self._version:
            self._others_wrote = True
            self._check_content(connection)
            if not is_changed:
                self.marks.note_others(connection)
        if is_changed:
            self._check_file(connection, copied=False)
        self._version = version

    def check_number(self, found: FileNumber | None) -> None:
        """Check that the file found under the database's name is the one that was opened.

        Raises:
            StoreReplaced: it is another file, or there is none.
        """
        if found != self.database_file:
            self._lost(self.path, "was removed or replaced")

    def _check_log(self, connection: apsw.Connection, pages: int, frame_bytes: int) -> None:
        log = connection.filename_wal  # with symbolic links followed
        index = log.removesuffix("wal") + "shm"
        status, index_file = look_at(log), file_number(index)
        size = self._size_of_log(log, status)
        if self.index_file is None:
            self.index_file = index_file
        if index_file is None or index_file != self.index_file:
            self.log_lost = True
            self._lost(index, "was removed or replaced")
        if size < LOG_HEADER_BYTES + pages * frame_bytes:
            # Another program may have reset the log: read the index before judging.
            pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            size = self._size_of_log(log, look_at(log))
            if pages and size < LOG_HEADER_BYTES + pages * frame_bytes:
                self.log_lost = True
                self._lost(log, "was cut short")

    def sync_log(self, log: str) -> None:
        """Sync the log to disk.

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
        """The size of the log in bytes, from its `stat` result; checks that the log is ours."""
        if self.log_file is None:
            self.log_file = number_of(status)
        if status is None or number_of(status) != self.log_file:
            self.log_lost = True
            self._lost(log, "was removed or replaced")
        return status.st_size

    def _check_content(self, connection: apsw.Connection) -> None:
        """Tell another program's commit, which is allowed, from a restore through SQLite."""
        try:
            identity = connection.execute("SELECT identity FROM player_store").get
            if self.identity is not None and identity != self.identity:
                self._rewritten("was overwritten with another database")
            if not self.marks.holds_last(connection):
                self._rewritten("lost its last commit: it was restored from a copy")
        except (apsw.SQLError, apsw.CorruptError, apsw.NotADBError) as error:
            self._rewritten(f"was overwritten ({error})")

    def _is_changed(self, copied: bool) -> bool:
        try:
            return self.marks.is_changed(copied)
        except apsw.CantOpenError:
            self.check_number(file_number(self.path))  # it may have been removed meanwhile
            raise

    def _check_file(self, connection: apsw.Connection, copied: bool) -> None:
        """Check that a changed file still belongs to its log.

        Args:
            connection: to the database.
            copied: whether the whole log was checkpointed into the file.

        Raises:
            StoreReplaced: another file was copied into it.
        """
        # Another program's checkpoint may write the file while it is read.
        may_move = self._others_wrote and not copied
        for pause in CHECKPOINT_PAUSES if may_move else (0.0, 0.0):
            if self.marks.take_changed(connection, self._others_wrote, copied):
                self._others_wrote &= not copied
                return
            time.sleep(pause)
        log = connection.filename_wal
        self.log_file = self.log_file or file_number(log)
        self.index_file = self.index_file or file_number(log.removesuffix("wal") + "shm")
        self.overwritten = True
        self._rewritten(OVERWRITTEN)

    def _rewritten(self, what: str) -> NoReturn:
        self.rewritten = True
        self._lost(self.path, what)

    def _lost(self, path: str, what: str) -> NoReturn:
        self.replaced = True
        raise StoreReplaced(f"{path} {what}")


def _data_version(connection: apsw.Connection) -> int | None:
    """Changes with each commit of another program; None if the file is no database."""
    try:
        version: int = connection.execute("PRAGMA data_version").get
    except (apsw.CorruptError, apsw.NotADBError):
        return None
    return version


def _is_copied(connection: apsw.Connection) -> bool:
    """Whether the whole log is checkpointed into the file; False if the log is not open yet."""
    pages, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    return 0 <= pages == copied
