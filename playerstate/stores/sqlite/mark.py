"""The mark that every commit writes into the database, and the check of the mark in its file.

SQLite does not notice that another file was copied over a database in place (``cp copy.db
players.db``): its log, the log's index and the caches of its connections still describe the old
content.  So each commit of ours writes a mark into a table of one row: a random number of this run,
followed by a counter that grows with each commit.  The page of that table is read directly from the
file, bypassing the log, together with the start of the file.  If only checkpoints changed the file,
complete or partial, ours or another program's, the mark there is one that we wrote no earlier than
the last mark seen there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import apsw
import attrs

RUN_BYTES = 16
MARK_BYTES = RUN_BYTES + 8
HEADER_BYTES = 100
SEARCH_BYTES = 1 << 20

_FORM = slice(0, 24)
"""Of the header: the magic, the page size and the file format versions."""
_PAGE_SIZE = slice(16, 18)
_SCHEMA_VERSION = slice(40, 44)
_ANY_RANDOM = f"INSERT OR REPLACE INTO player_mark VALUES (1, randomblob({MARK_BYTES}))"


def draw_mark(connection: apsw.Connection) -> None:
    """Give a database a mark that none of its copies has; the caller commits it."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS player_mark"
        " (id INTEGER PRIMARY KEY CHECK (id = 1), mark BLOB NOT NULL) STRICT"
    )
    connection.execute(_ANY_RANDOM)


@attrs.frozen
class _Seen:
    """The start of the database's file and the page of the mark; shorter if the file is."""

    header: bytes
    page: bytes

    @property
    def version(self) -> int:
        """SQLite's schema version, which each schema change and each ``VACUUM`` raises."""
        return int.from_bytes(self.header[_SCHEMA_VERSION], "big")


@attrs.define(eq=False)
class Marks:
    """The marks of one database in use.  Persist thread; reactor thread while no writer is open.

    Attributes:
        path: of the database.
        is_known: whether `learn` has read the database.
    """

    path: str
    is_known: bool = False
    _run: bytes = attrs.field(factory=lambda: os.urandom(RUN_BYTES))
    _tried: int = 0
    _committed: int = 0
    _first: bytes | None = None
    _is_first: bool = True
    _root: int = 0
    _in_file: int = 0
    _logged_version: int = 0
    _seen: _Seen = _Seen(b"", b"")

    def learn(self, connection: apsw.Connection) -> None:
        """Take the present content, which was just opened, as ours.

        Raises:
            apsw.Error: it cannot be read now; `is_known` is False then.
        """
        self.is_known = False
        self._first, self._is_first = _read_mark(connection), True
        self._root = _read_root(connection)
        self._committed = self._tried
        self._seen = self._read(self._root)
        self._in_file = max(self._ours(self._seen.page, 0), default=0)
        self._logged_version = self._seen.version
        self.is_known = True

    def put(self, connection: apsw.Connection) -> None:
        """Mark the transaction that is about to be committed."""
        self._tried += 1
        mark = self._run + self._tried.to_bytes(8, "big")
        connection.execute("INSERT OR REPLACE INTO player_mark VALUES (1, ?)", (mark,))

    def note_committed(self) -> None:
        """Record that the transaction of the last `put` is committed."""
        self._committed, self._is_first = self._tried, False

    def holds_last(self, connection: apsw.Connection) -> bool:
        """Whether the database, read through SQLite, contains our last commit."""
        mark = _read_mark(connection)
        if self._is_first and mark == self._first:
            return True
        return mark is not None and bool(self._ours(mark, self._committed))

    def is_changed(self, copied: bool) -> bool:
        """Whether the file changed since the last look, or should have changed and did not.

        Args:
            copied: whether the whole log was checkpointed into the file already.

        Raises:
            apsw.CantOpenError: there is no such file, or the process has too many open files.
        """
        is_behind = copied and not self._is_first and self._in_file < self._committed
        return is_behind or self._read(self._root) != self._seen

    def take_changed(self, connection: apsw.Connection, others_wrote: bool, copied: bool) -> bool:
        """Whether a checkpoint explains the change; if so, the next look compares with this one.

        Args:
            connection: to the database.
            others_wrote: whether another program may have made a commit that was not in the file.
            copied: whether the whole log was checkpointed into the file already.

        Raises:
            apsw.CantOpenError: as `is_changed`.
        """
        roots, newest = [self._root], self._seen.version
        if others_wrote:
            try:
                newest = max(newest, connection.pragma("schema_version"))
                roots.append(_read_root(connection))
            except (apsw.SQLError, apsw.CorruptError, apsw.NotADBError):
                return False
        looks = [self._read(root) for root in roots]
        for look in looks:
            if len(look.header) < HEADER_BYTES or look.header[_FORM] != self._seen.header[_FORM]:
                return False
            if not self._seen.version <= look.version <= newest:
                return False
        pages = [look.page for look in looks]
        found = [mark for page in pages for mark in self._ours(page, self._least(copied))]
        if others_wrote and not (copied or found):  # VACUUM may have moved the table
            found = self._search()
        if not found and not self._is_unmarked(pages, copied):
            # A partial checkpoint copies the mark's page last, since each commit changes it.
            first, last = min(look.version for look in looks), max(look.version for look in looks)
            return not copied and self._seen.version < first and last <= self._logged_version
        self._in_file = max(found, default=self._in_file)
        self._root, self._seen = roots[-1], looks[-1]
        return True

    def note_others(self, connection: apsw.Connection) -> None:
        """Record that another program committed into the log, and the file did not change.

        Raises:
            apsw.Error: the database cannot be read.
        """
        self._logged_version = connection.pragma("schema_version")

    def _search(self) -> list[int]:
        """The plausible counters of this run's marks anywhere in the file; see `_ours`."""
        with self._file() as file:
            found, at = [], 0
            while len(part := file.xRead(SEARCH_BYTES, at)) >= MARK_BYTES:
                found += self._ours(part, self._in_file)
                at += SEARCH_BYTES - MARK_BYTES
        return found

    def _least(self, copied: bool) -> int:
        """The lowest counter that may be in the file."""
        return self._committed if copied else self._in_file

    def _is_unmarked(self, pages: list[bytes], copied: bool) -> bool:
        """Whether the file may lack all our commits, and one of these pages precedes them."""
        if copied and not self._is_first:
            return False
        if self._first is not None and not self._in_file:
            return any(self._first in page for page in pages)
        return self._seen.page in pages

    def _ours(self, page: bytes, least: int) -> list[int]:
        """The counters of this run's marks in a page, from `least` to the last one tried."""
        counters, at = [], page.find(self._run)
        while at >= 0:
            counter = int.from_bytes(page[at + RUN_BYTES : at + MARK_BYTES], "big")
            if least <= counter <= self._tried:
                counters.append(counter)
            at = page.find(self._run, at + 1)
        return counters

    def _read(self, root: int) -> _Seen:
        with self._file() as file:
            header = file.xRead(HEADER_BYTES, 0)
            size = int.from_bytes(header[_PAGE_SIZE], "big")
            size = 65536 if size == 1 else size
            return _Seen(header, file.xRead(size, (root - 1) * size) if size else b"")

    @contextlib.contextmanager
    def _file(self) -> Iterator[apsw.VFSFile]:
        # Through SQLite: closing a plain file would drop this process's locks on it.
        flags = [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0]
        file = apsw.VFSFile("", self.path, flags)
        try:
            yield file
        finally:
            file.xClose()


def _read_mark(connection: apsw.Connection) -> bytes | None:
    found: Any = connection.execute("SELECT mark FROM player_mark").get
    return found if isinstance(found, bytes) else None


def _read_root(connection: apsw.Connection) -> int:
    found = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'player_mark'").get
    if not isinstance(found, int):
        raise apsw.SQLError("no such table: player_mark")
    return found
