"""The mark that every commit leaves in the database, and the one that its file bears.

SQLite does not notice that another file was copied over a database in place (``cp copy.db
players.db``): its log, the log's index and what its connections remember go on to speak of the
file that was there.  So each commit of ours raises a counter, behind a number drawn at random for
each run, in a table of one row.  The page of that table is read past the log, together with the
start of the file.  Whatever copied pages of the log into it, ourselves or another program, and
however much of it, the mark there is one that we wrote since the last that was seen in it.
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
"""Of the header: what it is, the size of a page, how it is to be written."""
_PAGE_SIZE = slice(16, 18)
_SCHEMA_VERSION = slice(40, 44)
_ANY_RANDOM = f"INSERT OR REPLACE INTO player_mark VALUES (1, randomblob({MARK_BYTES}))"


def draw_mark(connection: apsw.Connection) -> None:
    """Give a database a mark that none of its copies has; to be committed by the caller."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS player_mark"
        " (id INTEGER PRIMARY KEY CHECK (id = 1), mark BLOB NOT NULL) STRICT"
    )
    connection.execute(_ANY_RANDOM)


@attrs.frozen
class _Seen:
    """The start of the database's file and the page of the mark; short where the file is."""

    header: bytes
    page: bytes

    @property
    def version(self) -> int:
        """Which schema it is; each change of it, and each ``VACUUM``, raises that."""
        return int.from_bytes(self.header[_SCHEMA_VERSION], "big")


@attrs.define(eq=False)
class Marks:
    """The marks of one database in use.  Writer's thread, and the reactor's while none is open.

    Attributes:
        path: of the database.
        is_known: whether `learn` has read what was there.
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
        """What is there now is ours, and was just opened.

        Raises:
            apsw.Error: it cannot be read now; nothing is known.
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
        """The transaction that was marked last is committed."""
        self._committed, self._is_first = self._tried, False

    def holds_last(self, connection: apsw.Connection) -> bool:
        """Whether the database, as SQLite sees it, has what was committed last."""
        mark = _read_mark(connection)
        if self._is_first and mark == self._first:
            return True
        return mark is not None and bool(self._ours(mark, self._committed))

    def is_changed(self, copied: bool) -> bool:
        """Whether the file is not what it was at the last look, or was to be another by now.

        Args:
            copied: whether all that is in the log was in the file already.

        Raises:
            apsw.CantOpenError: there is no such file, or no room for another open one.
        """
        is_behind = copied and not self._is_first and self._in_file < self._committed
        return is_behind or self._read(self._root) != self._seen

    def take_changed(self, connection: apsw.Connection, others_wrote: bool, copied: bool) -> bool:
        """Whether what changed the file is a checkpoint; it is what the next look compares with.

        Args:
            connection: to the database.
            others_wrote: whether another program may have committed what was not in the file yet.
            copied: whether all that is in the log was in the file already.

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
        if others_wrote and not (copied or found):  # VACUUM moves tables, more than once perhaps
            found = self._search()
        if not found and not self._is_unmarked(pages, copied):
            # The page of the mark is copied last where each commit changes it.
            first, last = min(look.version for look in looks), max(look.version for look in looks)
            return not copied and self._seen.version < first and last <= self._logged_version
        self._in_file = max(found, default=self._in_file)
        self._root, self._seen = roots[-1], looks[-1]
        return True

    def note_others(self, connection: apsw.Connection) -> None:
        """Another program committed, into the log: the file is what it was at the last look.

        Raises:
            apsw.Error: it cannot be read.
        """
        self._logged_version = connection.pragma("schema_version")

    def _search(self) -> list[int]:
        """The counters of marks of this run anywhere in the file, as far as they can be in it."""
        with self._file() as file:
            found, at = [], 0
            while len(part := file.xRead(SEARCH_BYTES, at)) >= MARK_BYTES:
                found += self._ours(part, self._in_file)
                at += SEARCH_BYTES - MARK_BYTES
        return found

    def _least(self, copied: bool) -> int:
        """The lowest counter that the file may bear."""
        return self._committed if copied else self._in_file

    def _is_unmarked(self, pages: list[bytes], copied: bool) -> bool:
        """Whether no commit of ours need be in the file, and one of these pages is from before."""
        if copied and not self._is_first:
            return False
        if self._first is not None and not self._in_file:
            return any(self._first in page for page in pages)
        return self._seen.page in pages

    def _ours(self, page: bytes, least: int) -> list[int]:
        """The counters of marks of this run in a page, as far as they can be in it."""
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
        # Through SQLite: a plain close would drop the locks that this process holds on the file.
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
