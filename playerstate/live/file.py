"""The live file: the live table in a file that outlives the process.

The rows of the live table lie in a memory-mapped file, so the write that applies a move also makes
it survive the death of the process, without a system call.  A power cut is another matter: the live
file is never synced, so how much of it the kernel has written back is unknown.  Against that, only
the store is safe.

A file begins with a header of whole pages:

====== ===== ==================================================================
offset type  what
====== ===== ==================================================================
0      8     ``PSLIVE`` and two zero bytes
8      u32   format of the file, 1
12     u32   bytes of a half, see `playerstate.state.layout`
16     u64   slots
24     u32   bytes of the header
28     u32   1 after a clean stop: everything is in the store
32     16    the store's identity
48     u32   bytes of the schema's text, which follows, in UTF-8
-16    u64   how often the file was checked, plus a random number: exposes a copy
-8     u64   how many slots, from the first, may have been written; 0 for all
====== ===== ==================================================================

The halves of slot 0, 1, ... follow the header.  The file has its full size from the start, and is
never extended or truncated while mapped.  Its slots are allocated in order, each before its first
use, because a write to a mapped hole on a full disk kills the process; the rest of the file is a
hole that is never read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt
from twisted.logger import LogLevel

from playerstate.filenames import check_name
from playerstate.interfaces import LiveFileUnusable
from playerstate.live.table import FIRST_PLACES, LiveTable
from playerstate.log import PrintableLogger
from playerstate.state.kinds import of_canonical
from playerstate.state.layout import RowLayout
from playerstate.state.schema import MAX_FIELDS_BYTES, Field, StateSchema

MAKING = ".making"
"""Suffix of a live file that is not complete yet."""
RECOVERING = ".recovering"
"""Suffix of a live file whose rows are being saved."""
PAGE = 4096
FORMAT = 1
SLOTS_AT_ONCE = 65_536
"""Slots of a leftover that are read at a time."""

_MAGIC = b"PSLIVE\0\0"
_HEADER = struct.Struct("<8sIIQII16sI")
_CLEAN = struct.Struct("<I")
_CLEAN_AT = 28
_TAIL = struct.Struct("<QQ")
_log = PrintableLogger()


def check_apart(path: str, files: Iterable[str]) -> None:
    """Check that a live file would not replace one of the store's own files.

    Args:
        path: of the live file.
        files: the files that the store makes, if any.

    Raises:
        ValueError: it would replace one, or cannot have this name.
    """
    try:
        check_name(path)
    except ValueError as error:
        raise ValueError(f"{error}, or none") from None
    taken = set(map(os.path.realpath, files))
    for name in (path, path + MAKING, path + RECOVERING):
        if os.path.realpath(name) in taken:
            raise ValueError(f"{name} is the store's own file; name another file, or none")


class RowMemory(Protocol):
    """Where the rows of a live table lie."""

    @property
    def unsaved_notice(self) -> str:
        """What happens to unsaved rows when the process ends, as a clause for log and errors."""

    def claim(self, identity: bytes) -> Leftover | None:
        """Take over what a previous process left of the store of this identity, if anything."""

    def discard(self) -> None:
        """Remove the claimed leftover: all of it is in the store.

        Raises:
            LiveFileUnusable: it cannot be removed; until it is, no new rows may be kept.
        """

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """Return zeroed memory for `capacity` players of the store of this identity."""

    def reserve(self, used: int) -> None:
        """Make sure that the first `used` bytes of the memory can be written.

        Raises:
            LiveFileUnusable: there is no room for them; the caller may try again.
        """

    def is_cut(self) -> bool:
        """Whether rows may have been cut off, so that touching them would kill the process.

        Far cheaper than `lost`.  The caller asks before each use of the table.
        """

    def lost(self) -> str:
        """What happened to the file that makes the next start miss the rows; empty if nothing."""

    def salvage(self, used: int) -> memoryview | None:
        """Switch to anonymous memory, with a copy of what can be read of the first `used` bytes.

        To be called once the file is lost, and before the rows are touched again: another process
        that wrote to the file wrote to the rows, and touching rows that were cut off kills this
        process.

        Returns:
            The memory; None where the switch was made before.
        """

    def renew(self, used: int) -> memoryview:
        """Make a new file after `salvage`, with the first `used` bytes of what is in memory.

        Raises:
            LiveFileUnusable: the file cannot be made; the rows stay where they are.
        """

    def close(self, clean: bool) -> None:
        """Release the memory; `clean` where everything in it is in the store."""


class AnonymousMemory:
    """Rows that die with the process."""

    unsaved_notice = "they are lost"

    def claim(self, identity: bytes) -> None:
        """See `RowMemory.claim`."""

    def discard(self) -> None:
        """See `RowMemory.discard`."""

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """See `RowMemory.open`."""
        # The system allocates anonymous memory page by page, as it is touched.
        return memoryview(mmap.mmap(-1, LiveTable.bytes_needed(schema, capacity)))

    def reserve(self, used: int) -> None:
        """See `RowMemory.reserve`."""

    def is_cut(self) -> bool:
        """See `RowMemory.is_cut`."""
        return False

    def lost(self) -> str:
        """See `RowMemory.lost`."""
        return ""

    def salvage(self, used: int) -> None:
        """See `RowMemory.salvage`."""

    def renew(self, used: int) -> memoryview:
        """See `RowMemory.renew`."""
        raise NotImplementedError("anonymous memory is never lost")

    def close(self, clean: bool) -> None:
        """See `RowMemory.close`."""


class LiveFile:
    """Rows that outlive the process.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        # Resolved: two names of one file are one live file.
        self.path = os.path.realpath(path)
        self._recovering = self.path + RECOVERING
        self._header = b""
        self._slot_bytes = self._reserved = self._looks = 0
        # What happened to the file, while the rows are in anonymous memory; empty otherwise.
        self._lost = ""
        self._map: mmap.mmap | None = None
        self._fd: int | None = None
        self._recovering_fd: int | None = None

    @property
    def unsaved_notice(self) -> str:
        """See `RowMemory.unsaved_notice`."""
        if self._lost:
            return f"they are lost, since the live file {self.path} was {self._lost}"
        return f"the next start saves them from the live file {self.path}"

    def claim(self, identity: bytes) -> Leftover | None:
        """See `RowMemory.claim`.

        The live file is renamed first and removed only by `discard`, so a process killed anywhere
        in between leaves it to the next.  A file that makes no sense, or belongs to another store,
        is set aside.

        Raises:
            LiveFileUnusable: the file cannot be read, or is in use.
        """
        try:
            # While the `.recovering` file exists no player can join, so a file of the plain name
            # holds no player.
            _check_ours(self.path)
            _check_free(self.path)
            if os.path.exists(self._recovering):
                # It would take disk space beside the file that is made next.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
            elif not os.path.exists(self.path):
                return None
            else:
                os.rename(self.path, self._recovering)
            # Locked until it is discarded, so that no other process claims it.
            self._recovering_fd = os.open(self._recovering, os.O_RDONLY | os.O_CLOEXEC)
            _lock(self._recovering_fd, self.path)
            try:
                leftover = read_leftover(self._recovering_fd)
            except NotALiveFile as error:
                aside = self._set_aside()
                _log.critical(
                    "the live file {path} is not a live file: {error}; it was set aside as {aside},"
                    " and nothing of it was saved",
                    path=self.path,
                    error=error,
                    aside=aside,
                )
                return None
            players = 0 if leftover.clean else len(leftover.records)
            if leftover.identity != identity:
                aside = self._set_aside()
                _log.emit(
                    LogLevel.critical if players else LogLevel.info,
                    "the live file {path} holds {players} unsaved players of another store, or of"
                    " this one before it was restored; it was set aside as {aside}, and nothing of"
                    " it was saved",
                    path=self.path,
                    players=players or "no",
                    aside=aside,
                )
                return None
            if not players:
                self.discard()
                return None
        except OSError as error:
            self._let_go_of_recovering()
            raise LiveFileUnusable(
                f"cannot read the live file {self.path}: {error.strerror}; it must be a file that"
                " this user may read, in a directory that this user may write"
            ) from error
        except BaseException:
            self._let_go_of_recovering()
            raise
        return leftover

    def _let_go_of_recovering(self) -> None:
        if self._recovering_fd is not None:
            os.close(self._recovering_fd)
            self._recovering_fd = None

    def _set_aside(self) -> str:
        """Rename the claimed file to a unique name, under which it is kept; return that name."""
        aside = f"{self.path}.{_stamp()}"
        os.rename(self._recovering, aside)
        self._let_go_of_recovering()
        return aside

    def discard(self) -> None:
        """See `RowMemory.discard`."""
        try:
            with contextlib.suppress(FileNotFoundError):  # an operator removed it
                os.unlink(self._recovering)
            _sync_directory(self.path)
        except OSError as error:
            raise LiveFileUnusable(
                f"everything in the live file {self._recovering} is in the store, but it cannot be"
                f" removed: {error.strerror}; remove it"
            ) from error
        self._let_go_of_recovering()

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """Make the file and map it.

        Raises:
            LiveFileUnusable: there is no room for it, or no permission to make it.
        """
        text = schema.canonical.encode()
        header_bytes = -(-(_HEADER.size + len(text) + _TAIL.size) // PAGE) * PAGE
        header = _HEADER.pack(
            *(_MAGIC, FORMAT, RowLayout(schema.fields).size, capacity, header_bytes, 0),
            *(identity, len(text)),
        )
        self._header = (header + text).ljust(header_bytes - _TAIL.size, b"\0")
        self._slot_bytes = LiveTable.bytes_needed(schema, 1)
        self._reserved = self._slot_bytes * min(capacity, FIRST_PLACES)
        self._lost = ""
        # Random, so that no other file has the same count.
        self._looks = int.from_bytes(os.urandom(6), "little")
        self._fd, self._map = self._make(self._slot_bytes * capacity, b"")
        return memoryview(self._map)[header_bytes:]

    def _tail(self) -> bytes:
        return _TAIL.pack(self._looks, self._reserved // self._slot_bytes)

    def reserve(self, used: int) -> None:
        """See `RowMemory.reserve`."""
        if used <= self._reserved:
            return
        if why := self.lost():
            raise LiveFileUnusable(f"the live file {self.path} was {why}; it is made anew shortly")
        assert self._fd is not None
        start = len(self._header) + _TAIL.size
        try:
            os.posix_fallocate(self._fd, start + self._reserved, used - self._reserved)
        except OSError as error:
            raise LiveFileUnusable(
                f"no room for {used} bytes in the live file {self.path}: {error.strerror}; make"
                " room"
            ) from None
        self._reserved = used
        os.pwrite(self._fd, self._tail(), len(self._header))

    def is_cut(self) -> bool:
        """See `RowMemory.is_cut`."""
        if self._lost or self._fd is None or self._map is None:
            return False
        try:
            # Half the cost of fstat; the file position is used for nothing else.
            return os.lseek(self._fd, 0, os.SEEK_END) != len(self._map)
        except OSError:
            return True

    def lost(self) -> str:
        """See `RowMemory.lost`.

        It checks the file, not the mapping, in which touching a page that was cut off kills the
        process.  Each check raises a count in the file, which exposes a copy made before it.
        """
        if self._lost or self._fd is None or self._map is None:
            return self._lost
        header = self._header + self._tail()
        try:
            found = os.fstat(self._fd)
            if found.st_size != len(self._map):
                return "cut or grown"
            if os.pread(self._fd, len(header), 0) != header:
                return "written over"
            self._looks += 1
            os.pwrite(self._fd, self._tail(), len(self._header))
        except OSError as error:
            return f"unreadable or unwritable ({error.strerror})"
        try:
            there = os.stat(self.path)
        except OSError:
            return "removed or renamed"
        return "" if os.path.samestat(found, there) else "replaced by another file"

    def salvage(self, used: int) -> memoryview | None:
        """See `RowMemory.salvage`."""
        if self._lost:
            return None
        self._lost = self.lost()
        assert self._fd is not None
        assert self._map is not None
        at = start = len(self._header) + _TAIL.size
        kept = mmap.mmap(-1, len(self._map))
        with memoryview(kept) as rows, contextlib.suppress(OSError):
            while read := os.preadv(self._fd, [rows[at : start + used]], at):
                at += read
        self._map = kept
        return memoryview(kept)[start:]

    def renew(self, used: int) -> memoryview:
        """See `RowMemory.renew`.  A file that now has the live file's name is renamed and kept."""
        assert self._fd is not None
        assert self._map is not None
        start = len(self._header) + _TAIL.size
        with memoryview(self._map) as rows:
            fd, mapping = self._make(len(self._map) - start, rows[start : start + used])
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd, self._map, self._lost = fd, mapping, ""
        return memoryview(mapping)[start:]

    def _make(self, size: int, rows: bytes | memoryview) -> tuple[int, mmap.mmap]:
        """Make and map a file of the header and `size` more bytes, which begin with these rows.

        The file is made under another name and then renamed, so that there is a complete live file
        or none.

        Returns:
            The open file and its mapping.

        Raises:
            LiveFileUnusable: there is no room for it, or no permission to make it, or it is in use.
        """
        header = self._header + self._tail()
        start = len(header)
        size += start
        try:
            making = self.path + MAKING
            with contextlib.ExitStack() as undo:
                fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                undo.callback(os.close, fd)
                _lock(fd, self.path)  # serializes processes that make this live file
                if not _is_named(fd, making):
                    raise LiveFileUnusable(_in_use(self.path))
                undo.callback(os.unlink, making)
                if self._fd is None or not _is_named(self._fd, self.path):
                    _check_free(self.path)
                os.ftruncate(fd, 0)  # left by a start that was killed
                os.ftruncate(fd, size)
                os.posix_fallocate(fd, 0, start + self._reserved)
                os.pwrite(fd, header, 0)
                mapping = mmap.mmap(fd, size)
                with memoryview(mapping) as whole:
                    whole[start : start + len(rows)] = rows
                self._make_way()
                os.rename(making, self.path)
                undo.pop_all()
        except OSError as error:
            no_room = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "make room" if no_room else "its directory must exist and be writable"
            raise LiveFileUnusable(
                f"cannot make the live file {self.path} of {size} bytes: {error.strerror};"
                f" {remedy}, name another file, or none"
            ) from None
        return fd, mapping

    def _make_way(self) -> None:
        """Rename a file that has replaced ours, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(self.path)
            if self._fd is None or not _is_named(self._fd, self.path):
                os.rename(self.path, f"{self.path}.{_stamp()}")

    def close(self, clean: bool) -> None:
        """See `RowMemory.close`; the header notes a clean stop."""
        if clean and self._fd is not None and not self.lost():
            os.pwrite(self._fd, _CLEAN.pack(1), _CLEAN_AT)
        # The mapping is freed with the last view of it.
        self._map = None
        if self._fd is not None:
            # The mapping holds a duplicate of the descriptor, which would keep the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None
        self._let_go_of_recovering()


@attrs.frozen(eq=False)
class Leftover:
    """What a process that ended left in its live file.

    Attributes:
        identity: of the store whose live file it was.
        clean: whether the store already had everything in it.
        records: one record for each player who was online or leaving and had changed, sorted by
            session id; of `RowLayout.record` of `fields`.
        fields: of the state class at that time.
    """

    identity: bytes
    clean: bool
    fields: tuple[Field, ...]
    records: npt.NDArray[np.void]


class NotALiveFile(ValueError):
    """The file is not a live file, or a damaged one; the message says why."""


def read_leftover(path: str | int) -> Leftover:
    """Read the live file of a process that has ended.

    Args:
        path: its name; or an open file, which stays open: a name may pass to another file.

    Raises:
        NotALiveFile: the file is not a live file, or is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb", closefd=isinstance(path, str)) as file:
        file.seek(0)
        start = file.read(_HEADER.size)
        if len(start) < _HEADER.size or not start.startswith(_MAGIC):
            raise NotALiveFile("it does not begin with the header of one")
        header = _HEADER.unpack(start)
        _, file_format, size, slots, header_bytes, clean, identity, text_bytes = header
        if file_format != FORMAT:
            raise NotALiveFile(f"it has format {file_format}, not {FORMAT}")
        if _HEADER.size + text_bytes > header_bytes or header_bytes % PAGE:
            raise NotALiveFile("its header is damaged")
        fields = _parse_fields(file.read(text_bytes).decode(errors="replace"))
        try:
            layout = RowLayout(fields)
        except (ValueError, struct.error, OverflowError, MemoryError) as error:
            raise NotALiveFile(f"its schema is damaged: {error}") from None
        if layout.size != size:
            raise NotALiveFile("the size of its rows does not fit its fields")
        if os.fstat(file.fileno()).st_size != header_bytes + 2 * slots * size:
            raise NotALiveFile(f"its size is not that of {slots} slots")
        # Earlier versions wrote no tail: zeros stand there, or the end of the text.
        if file.tell() <= (tail_at := header_bytes - _TAIL.size):
            file.seek(tail_at)
            _, used = _TAIL.unpack(file.read(_TAIL.size))
            slots = min(slots, used or slots)
        file.seek(header_bytes)
        # As blocks of bytes: numpy drops the padding where it joins structured rows.
        found = [np.zeros(0, f"V{size}")]
        room = np.empty(2 * min(slots, SLOTS_AT_ONCE), layout.dtype)
        # Holes are read too: a file system may report rows that were only mapped as a hole.
        for first in range(0, slots, SLOTS_AT_ONCE):
            count = min(SLOTS_AT_ONCE, slots - first)
            halves = room[: 2 * count]
            if file.readinto(halves.view(np.uint8).data) != halves.nbytes:
                raise NotALiveFile("it was cut while it was being read")
            if not halves["version"].any():
                continue
            rows = _newest_whole(halves)
            online = (rows["session_id"] > 0) & (rows["updated_at"] > 0)
            found.append(rows.view(f"V{size}")[online])
    changed = np.concatenate(found).view(layout.dtype)
    # One row a player: after a power cut, a slot that a player left may still hold an old row.
    ordered = changed[np.lexsort((changed["updated_at"], changed["session_id"]))]
    last = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered["session_id"][1:], ordered["session_id"][:-1], out=last[:-1])
    ordered = ordered[last]
    return Leftover(identity, bool(clean), fields, ordered.view(layout.record))


@contextlib.contextmanager
def held(path: str) -> Iterator[int]:
    """Lock a live file that no process uses, and yield its file descriptor.

    Raises:
        LiveFileUnusable: the file is in use, or never was a live file.
        OSError: the file cannot be opened.
    """
    _check_ours(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(fd, path)
        yield fd
    finally:
        os.close(fd)


def mark_clean(fd: int) -> None:
    """Note in a locked live file that everything in it is in the store, and sync it."""
    os.pwrite(fd, _CLEAN.pack(1), _CLEAN_AT)
    os.fsync(fd)


def _stamp() -> str:
    """A unique suffix for a file that is set aside."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.{time.time_ns() % 10**9}"


def _check_ours(path: str) -> None:
    """Check that a file of this name, if there is one, is a live file, or was before a power cut.

    Raises:
        LiveFileUnusable: it is another kind of file, which must not be renamed.
    """
    try:
        # Checked before it is opened: opening a device or a pipe may have effects, or block.
        regular = stat.S_ISREG(os.stat(path).st_mode)
        if regular:
            with open(path, "rb") as file:
                start = file.read(len(_MAGIC))
            regular = start.strip(b"\0") == b"" or _MAGIC.startswith(start)
    except FileNotFoundError:
        return
    if not regular:
        raise LiveFileUnusable(f"{path} exists and is not a live file; name another file, or none")


def check_beside(path: str | None, used: str | None, identity: bytes) -> None:
    """Check that this start does not ignore a live file with unsaved players beside the store.

    Args:
        path: the default live file of this store; None where it has none.
        used: the live file that this start uses, if any.
        identity: of the store.

    Raises:
        LiveFileUnusable: there is such a file, or it cannot be read.
    """
    if path is None:
        return
    path = os.path.realpath(path)
    if used is not None and os.path.realpath(used) == path:
        return
    for name in (path, path + RECOVERING):
        try:
            if not stat.S_ISREG(os.stat(name).st_mode):
                continue
            leftover = read_leftover(name)
        except (FileNotFoundError, NotALiveFile):
            continue
        except OSError as error:
            raise LiveFileUnusable(
                f"cannot read the live file {name} beside the store: {error.strerror}; make it"
                " readable, or move it away"
            ) from error
        if leftover.clean or not len(leftover.records):
            continue
        if leftover.identity == identity:
            raise LiveFileUnusable(
                f"the live file {name} holds {len(leftover.records)} players of this store whose"
                " newest state may be unsaved, and this start does not use it; start once with"
                f" the live file {path} and stop, save them with `playerstate live apply`, or move"
                " the file away to do without them"
            )
        _log.critical(
            "the live file {path} beside the store holds {players} unsaved players of another"
            " store, or of this one before it was restored; it is left alone",
            path=name,
            players=len(leftover.records),
        )


def _lock(fd: int, path: str) -> None:
    """Lock the file until it is closed.

    Raises:
        LiveFileUnusable: another process holds the lock.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LiveFileUnusable(_in_use(path)) from None


def _in_use(path: str) -> str:
    return f"the live file {path} is in use by another process; name another file"


def _is_named(fd: int, path: str) -> bool:
    """Whether this is still the name of the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _sync_directory(path: str) -> None:
    """Sync the directory of this file, so that a power cut does not bring an old name back."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_free(path: str) -> None:
    """Check that no other process has locked the file, if there is one."""
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
        try:
            field = Field(name, of_canonical(kind))
        except ValueError:
            raise NotALiveFile(f"its schema is damaged at {part!r}") from None
        if not (name.isidentifier() and field.kind.size <= MAX_FIELDS_BYTES):
            raise NotALiveFile(f"its schema is damaged at {part!r}")
        fields.append(field)
    return tuple(fields)
