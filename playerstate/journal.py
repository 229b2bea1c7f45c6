"""The journal: the live table in a file that outlives the process.

The rows of the live table lie in a file mapped into memory, so that a move is safe against the
death of the process with the write that applies it, and with no system call.  What the kernel has
written back when the power goes is another matter: the journal is never synced, and the store is
what stands against that.

A file begins with a header of whole pages:

====== ===== ==================================================================
offset type  what
====== ===== ==================================================================
0      8     ``PSLIVE`` and two zero bytes
8      u32   format of the file, 1
12     u32   bytes of a half, see `playerstate.layout`
16     u64   slots
24     u32   bytes of the header
28     u32   1 after a clean stop: everything is in the store
32     16    the store's identity
48     u32   bytes of the schema's text, which follows: UTF-8
====== ===== ==================================================================

The halves of slot 0, 1, ... follow it.  The file is allocated whole before it is mapped, because a
write to a mapped hole on a full disk kills the process, and it is never grown or cut while mapped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import struct
import time
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt
from twisted.logger import Logger, LogLevel

from playerstate.interfaces import JournalUnusable
from playerstate.layout import RowLayout
from playerstate.schema import MAX_FIELDS_BYTES, Field, StateSchema
from playerstate.table import LiveTable

COMPANIONS = ("", "-wal", "-shm", "-journal", ".lock", ".refused.jsonl")
"""Ends the names of the files that a database and its store have for themselves."""
MAKING = ".making"
"""Ends the name of a journal that is not whole yet."""
RECOVERING = ".recovering"
"""Ends the name of a journal whose rows are being saved."""
PAGE = 4096
FORMAT = 1

_MAGIC = b"PSLIVE\0\0"
_HEADER = struct.Struct("<8sIIQII16sI")
_CLEAN = struct.Struct("<I")
_CLEAN_AT = 28
_log = Logger()
_TYPE = re.compile(r"(float|int|bool|text\((\d+)\))(?:/.*)?")


def check_apart(path: str, database: str | None) -> None:
    """See that a journal would not take the place of a file of the store's.

    Args:
        path: the journal's.
        database: the store's file, if it keeps one.

    Raises:
        ValueError: it would.
    """
    if database is None:
        return
    taken = {os.path.realpath(database) + companion for companion in COMPANIONS}
    for name in (path, path + MAKING, path + RECOVERING):
        if os.path.realpath(name) in taken:
            raise ValueError(f"{name} is the store's own file; name another file, or none")


class Memory(Protocol):
    """Where the rows of a live table lie.

    Attributes:
        fate: what becomes of unsaved rows when the process ends, in words.
    """

    fate: str

    def take_remains(self, identity: bytes) -> Remains | None:
        """What a process before this one left, for a store of this identity; None for nothing."""

    def forget_remains(self) -> None:
        """What was left is in the store.

        Raises:
            JournalUnusable: it cannot be removed; while it is there, nothing new may be kept.
        """

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """Zeroed memory for so many players of a store of this identity."""

    def close(self, clean: bool) -> None:
        """Let go of it; `clean` where everything in it is in the store."""


class ProcessMemory:
    """Rows that die with the process."""

    fate = "they are lost"

    def take_remains(self, identity: bytes) -> None:
        """See `Memory.take_remains`."""

    def forget_remains(self) -> None:
        """See `Memory.forget_remains`."""

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """See `Memory.open`."""
        # Anonymous memory: the system gives it page by page, as it is touched.
        return memoryview(mmap.mmap(-1, LiveTable.bytes_needed(schema, capacity)))

    def close(self, clean: bool) -> None:
        """See `Memory.close`."""


class Journal:
    """Rows that outlive the process.

    Args:
        path: the file's.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.fate = f"the next start saves them from the journal {path}"
        self._recovering = path + RECOVERING
        self._map: mmap.mmap | None = None
        self._fd: int | None = None
        self._recovering_fd: int | None = None

    def take_remains(self, identity: bytes) -> Remains | None:
        """See `Memory.take_remains`.

        The journal is renamed first and removed only by `forget_remains`, so a process killed
        anywhere in between leaves it to the next.  One that makes no sense, or is another store's,
        is given a name of its own and left alone.

        Raises:
            JournalUnusable: it cannot be read.
        """
        try:
            # The name alone stands while nobody has joined: a file beside it holds no player.
            _check_free(self.path)
            if os.path.exists(self._recovering):
                # It would need room beside the one that is made next.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
            elif not os.path.exists(self.path):
                return None
            else:
                os.rename(self.path, self._recovering)
            # Held until it is forgotten: nobody else is to take it for theirs.
            self._recovering_fd = os.open(self._recovering, os.O_RDONLY | os.O_CLOEXEC)
            _lock(self._recovering_fd, self.path)
            try:
                remains = read_remains(self._recovering)
            except NotAJournal as error:
                aside = self._set_aside()
                _log.critical(
                    "the journal {path} is no journal: {error}; it was set aside as {aside}, and"
                    " nothing of it was saved",
                    path=self.path,
                    error=error,
                    aside=aside,
                )
                return None
            players = 0 if remains.clean else len(remains.records)
            if remains.identity != identity:
                aside = self._set_aside()
                _log.emit(
                    LogLevel.critical if players else LogLevel.info,
                    "the journal {path} holds {players} unsaved players of another store, or of"
                    " this one before it was restored; it was set aside as {aside}, and nothing of"
                    " it was saved",
                    path=self.path,
                    players=players or "no",
                    aside=aside,
                )
                return None
            if not players:
                self.forget_remains()
                return None
        except OSError as error:
            self._let_go_of_recovering()
            raise JournalUnusable(
                f"cannot read the journal {self.path}: {error.strerror}; it must be a file that"
                " this user may read, in a directory that this user may write"
            ) from error
        except BaseException:
            self._let_go_of_recovering()
            raise
        return remains

    def _let_go_of_recovering(self) -> None:
        if self._recovering_fd is not None:
            os.close(self._recovering_fd)
            self._recovering_fd = None

    def _set_aside(self) -> str:
        """Give it a name of its own, under which it is left alone; return that."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = f"{self.path}.{stamp}.{os.getpid()}"
        os.rename(self._recovering, aside)
        self._let_go_of_recovering()
        return aside

    def forget_remains(self) -> None:
        """See `Memory.forget_remains`."""
        try:
            with contextlib.suppress(FileNotFoundError):  # somebody was faster
                os.unlink(self._recovering)
            _sync_directory(self.path)
        except OSError as error:
            raise JournalUnusable(
                f"everything in the journal {self._recovering} is in the store, but it cannot be"
                f" removed: {error.strerror}; remove it"
            ) from error
        self._let_go_of_recovering()

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """Make the file anew and map it.

        It is made under another name, so that there is a whole journal or none.

        Raises:
            JournalUnusable: there is no room for it, or no leave to make it.
        """
        text = schema.canonical.encode()
        header_bytes = -(-(_HEADER.size + len(text)) // PAGE) * PAGE
        size = header_bytes + LiveTable.bytes_needed(schema, capacity)
        header = _HEADER.pack(
            *(_MAGIC, FORMAT, RowLayout(schema.fields).size, capacity, header_bytes, 0),
            *(identity, len(text)),
        )
        try:
            making = self.path + MAKING
            with contextlib.ExitStack() as undo:
                fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                undo.callback(os.close, fd)
                _lock(fd, self.path)  # whoever makes a journal of this name holds this
                if not _is_named(fd, making):
                    raise JournalUnusable(_in_use(self.path))
                undo.callback(os.unlink, making)
                _check_free(self.path)
                os.ftruncate(fd, 0)  # what a start left that was killed
                os.posix_fallocate(fd, 0, size)
                os.pwrite(fd, header + text, 0)
                mapping = mmap.mmap(fd, size)
                os.rename(making, self.path)
                undo.pop_all()
            self._fd, self._map = fd, mapping
        except OSError as error:
            no_room = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "make room" if no_room else "its directory must exist and be writable"
            raise JournalUnusable(
                f"cannot make the journal {self.path} of {size} bytes: {error.strerror}; {remedy},"
                " name another file, or none"
            ) from None
        return memoryview(self._map)[header_bytes:]

    def close(self, clean: bool) -> None:
        """Say in the header whether everything is in the store."""
        if clean and self._map is not None:
            _CLEAN.pack_into(self._map, _CLEAN_AT, 1)
        # The mapping goes with the last view of it.
        self._map = None
        if self._fd is not None:
            # The mapping has a duplicate of it, and would keep the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None
        self._let_go_of_recovering()


@attrs.frozen(eq=False)
class Remains:
    """What a process that ended left in its journal.

    Attributes:
        identity: the store's whose journal it was.
        clean: whether everything in it was in the store already.
        records: one record a player who was online and had changed, sorted by session id; of
            `RowLayout.record` of `fields`.
        fields: what the state class had then.
    """

    identity: bytes
    clean: bool
    fields: tuple[Field, ...]
    records: npt.NDArray[np.void]


class NotAJournal(ValueError):
    """The file makes no sense as a journal; the message says why."""


def read_remains(path: str) -> Remains:
    """Read the journal of a process that has ended.

    Raises:
        NotAJournal: the file is not one, or not whole.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(_HEADER.size)
        if len(start) < _HEADER.size or not start.startswith(_MAGIC):
            raise NotAJournal("it does not begin as one")
        header = _HEADER.unpack(start)
        _, file_format, size, slots, header_bytes, clean, identity, text_bytes = header
        if file_format != FORMAT:
            raise NotAJournal(f"it has format {file_format}, not {FORMAT}")
        if _HEADER.size + text_bytes > header_bytes or header_bytes % PAGE:
            raise NotAJournal("its header is damaged")
        fields = _parse_fields(file.read(text_bytes).decode(errors="replace"))
        try:
            layout = RowLayout(fields)
        except (ValueError, struct.error, OverflowError, MemoryError) as error:
            raise NotAJournal(f"its schema is damaged: {error}") from None
        if layout.size != size:
            raise NotAJournal("its rows are not of the size of its fields")
        if os.fstat(file.fileno()).st_size != header_bytes + 2 * slots * size:
            raise NotAJournal(f"it is not of the size that {slots} slots take")
        file.seek(header_bytes)
        halves = np.fromfile(file, layout.dtype)
    rows = _newest_whole(halves)
    changed = rows[(rows["session_id"] > 0) & (rows["updated_at"] > 0)]
    # Once each: after a power cut, the page of a slot that a player has left may be an old one.
    ordered = changed[np.lexsort((changed["updated_at"], changed["session_id"]))]
    last = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered["session_id"][1:], ordered["session_id"][:-1], out=last[:-1])
    ordered = ordered[last]
    return Remains(identity, bool(clean), fields, ordered.view(layout.record))


def _lock(fd: int, path: str) -> None:
    """Hold the file for as long as it is open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalUnusable(_in_use(path)) from None


def _in_use(path: str) -> str:
    return f"the journal {path} is in use by another process; name another file"


def _is_named(fd: int, path: str) -> bool:
    """Whether an open file bears this name still."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _sync_directory(path: str) -> None:
    """Have the directory of this file on disk: an old name must not come back."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_free(path: str) -> None:
    """See that no other process holds the file, if there is one."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        _lock(file.fileno(), path)


def _newest_whole(halves: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The newer whole half of each slot that has one."""
    whole = halves["version"] == halves["version_again"]
    versions = np.where(whole, halves["version"], 0).reshape(-1, 2)
    newer = versions.argmax(axis=1)
    chosen = np.arange(len(versions)) * 2 + newer
    return halves[chosen[versions.max(axis=1) > 0]] if len(versions) else halves


def _parse_fields(text: str) -> tuple[Field, ...]:
    fields = []
    for part in text.split(","):
        name, _, kind = part.partition(":")
        found = _TYPE.fullmatch(kind)
        if not (name.isidentifier() and found):
            raise NotAJournal(f"its schema is damaged at {part!r}")
        size = int(found[2]) if found[2] else 1 if found[1] == "bool" else 8
        if not 1 <= size <= MAX_FIELDS_BYTES:
            raise NotAJournal(f"its schema is damaged at {part!r}")
        plain = "text" if found[2] else found[1]
        fields.append(Field(name, plain, size, None, None, None, None))
    return tuple(fields)


def as_rows(remains: Remains | None, schema: StateSchema) -> npt.NDArray[np.void]:
    """What remains, as rows of today's state class; fields are found by name.

    A field that is new gets its default.  One whose type has changed, or a text that has grown
    shorter, gets its default as well: the store's own migration has refused or allowed that before.
    """
    layout = RowLayout(schema.fields)
    if remains is None:
        return np.zeros(0, layout.dtype)
    rows = np.zeros(len(remains.records), layout.dtype)
    records = rows.view(layout.record)
    records["session_id"] = remains.records["session_id"]
    records["updated_at"] = remains.records["updated_at"]
    before = {field.name: field for field in remains.fields}
    for field in schema.fields:
        old = before.get(field.name)
        records[field.name] = field.encode(field.default)
        if old is not None and old.kind == field.kind:
            values = remains.records[field.name]
            fits = np.char.str_len(values) <= field.size if field.kind == "text" else slice(None)
            records[field.name][fits] = values[fits]
    return rows
