"""The live file: the live table in a file that outlives the process.

The rows of the live table lie in a file mapped into memory, so that a move is safe against the
death of the process with the write that applies it, and with no system call.  What the kernel has
written back when the power goes is another matter: the live file is never synced, and the store is
what stands against that.

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
48     u32   bytes of the schema's text, which follows: UTF-8
-16    u64   counts the looks at the file, from a random number: a copy is told from it
-8     u64   slots that may have been written, the first ones; 0 for all
====== ===== ==================================================================

The halves of slot 0, 1, ... follow it.  The file has its whole size at once, and is never grown or
cut while mapped.  It is allocated slot after slot, before a slot comes into use, because a write to
a mapped hole on a full disk kills the process; what follows is a hole that nobody reads either.
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
"""Ends the name of a live file that is not whole yet."""
RECOVERING = ".recovering"
"""Ends the name of a live file whose rows are being saved."""
PAGE = 4096
FORMAT = 1
SLOTS_AT_ONCE = 65_536
"""Slots that are read together from what was left."""

_MAGIC = b"PSLIVE\0\0"
_HEADER = struct.Struct("<8sIIQII16sI")
_CLEAN = struct.Struct("<I")
_CLEAN_AT = 28
_TAIL = struct.Struct("<QQ")
_log = PrintableLogger()


def check_apart(path: str, files: Iterable[str]) -> None:
    """See that a live file would not take the place of a file of the store's.

    Args:
        path: the live file's.
        files: those that the store makes, if any.

    Raises:
        ValueError: it would.
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
        """What becomes of unsaved rows when the process ends, in words."""

    def claim(self, identity: bytes) -> Leftover | None:
        """What a process before this one left, for a store of this identity; None for nothing."""

    def discard(self) -> None:
        """What was left is in the store.

        Raises:
            LiveFileUnusable: it cannot be removed; while it is there, nothing new may be kept.
        """

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """Zeroed memory for so many players of a store of this identity."""

    def reserve(self, used: int) -> None:
        """See that the first `used` bytes of it may be written.

        Raises:
            LiveFileUnusable: there is no room for them; it may be tried again.
        """

    def is_cut(self) -> bool:
        """Whether rows may have been cut off, so that who touches them dies; a fraction of `lost`.

        To be asked before the rows are touched, as often as the table is used.
        """

    def lost(self) -> str:
        """What has become of the file that makes the next start miss the rows; empty if nothing."""

    def salvage(self, used: int) -> memoryview | None:
        """Go over to memory of the process, with what can be read of the first `used` bytes.

        To be called once something was lost, and before the rows are touched again: who wrote to
        the file wrote to them, and the process dies that touches what was cut off.

        Returns:
            The memory; None where that was done before.
        """

    def renew(self, used: int) -> memoryview:
        """A file anew, after `salvage`, with the first `used` bytes of what is in memory.

        Raises:
            LiveFileUnusable: it cannot be made; the rows stay where they are.
        """

    def close(self, clean: bool) -> None:
        """Let go of it; `clean` where everything in it is in the store."""


class AnonymousMemory:
    """Rows that die with the process."""

    unsaved_notice = "they are lost"

    def claim(self, identity: bytes) -> None:
        """See `RowMemory.claim`."""

    def discard(self) -> None:
        """See `RowMemory.discard`."""

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """See `RowMemory.open`."""
        # Anonymous memory: the system gives it page by page, as it is touched.
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
        raise NotImplementedError("it is never lost")

    def close(self, clean: bool) -> None:
        """See `RowMemory.close`."""


class LiveFile:
    """Rows that outlive the process.

    Args:
        path: the file's.
    """

    def __init__(self, path: str) -> None:
        # By whatever name the file is called, it is the same one.
        self.path = os.path.realpath(path)
        self._recovering = self.path + RECOVERING
        self._header = b""
        self._slot_bytes = self._reserved = self._looks = 0
        # What has become of the file, while the rows are in memory of the process alone.
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

        The live file is renamed first and removed only by `discard`, so a process killed
        anywhere in between leaves it to the next.  One that makes no sense, or is another store's,
        is given a name of its own and left alone.

        Raises:
            LiveFileUnusable: it cannot be read.
        """
        try:
            # The name alone stands while nobody has joined: a file beside it holds no player.
            _check_ours(self.path)
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
                leftover = read_leftover(self._recovering_fd)
            except NotALiveFile as error:
                aside = self._set_aside()
                _log.critical(
                    "the live file {path} is no live file: {error}; it was set aside as {aside},"
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
        """Give it a name of its own, under which it is left alone; return that."""
        aside = f"{self.path}.{_stamp()}"
        os.rename(self._recovering, aside)
        self._let_go_of_recovering()
        return aside

    def discard(self) -> None:
        """See `RowMemory.discard`."""
        try:
            with contextlib.suppress(FileNotFoundError):  # somebody was faster
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
            LiveFileUnusable: there is no room for it, or no leave to make it.
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
        # Another file is not to have the same count.
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
            raise LiveFileUnusable(f"the live file {self.path} was {why}, and is to be made anew")
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
            # Half as dear as fstat; nobody else uses the position.
            return os.lseek(self._fd, 0, os.SEEK_END) != len(self._map)
        except OSError:
            return True

    def lost(self) -> str:
        """See `RowMemory.lost`.

        The file is asked, not the mapping: what was cut off cannot be touched there.  Each look
        is counted in the file, so that a copy of it made before is known for one.
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
            return f"not to be read or written any more ({error.strerror})"
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
        """See `RowMemory.renew`.  What bears the name of the file now is given one of its own."""
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
        """A file of the header and so many bytes, which begin with these rows; mapped.

        It is made under another name, so that there is a whole live file or none.

        Raises:
            LiveFileUnusable: there is no room for it, or no leave to make it.
        """
        header = self._header + self._tail()
        start = len(header)
        size += start
        try:
            making = self.path + MAKING
            with contextlib.ExitStack() as undo:
                fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                undo.callback(os.close, fd)
                _lock(fd, self.path)  # whoever makes a live file of this name holds this
                if not _is_named(fd, making):
                    raise LiveFileUnusable(_in_use(self.path))
                undo.callback(os.unlink, making)
                if self._fd is None or not _is_named(self._fd, self.path):
                    _check_free(self.path)
                os.ftruncate(fd, 0)  # what a start left that was killed
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
        """Give what was put in the place of our file a name of its own."""
        with contextlib.suppress(FileNotFoundError):
            os.stat(self.path)
            if self._fd is None or not _is_named(self._fd, self.path):
                os.rename(self.path, f"{self.path}.{_stamp()}")

    def close(self, clean: bool) -> None:
        """Say in the header whether everything is in the store."""
        if clean and self._fd is not None and not self.lost():
            os.pwrite(self._fd, _CLEAN.pack(1), _CLEAN_AT)
        # The mapping goes with the last view of it.
        self._map = None
        if self._fd is not None:
            # The mapping has a duplicate of it, and would keep the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None
        self._let_go_of_recovering()


@attrs.frozen(eq=False)
class Leftover:
    """What a process that ended left in its live file.

    Attributes:
        identity: the store's whose live file it was.
        clean: whether everything in it was in the store already.
        records: one record a player who was online and had changed, sorted by session id; of
            `RowLayout.record` of `fields`.
        fields: what the state class had then.
    """

    identity: bytes
    clean: bool
    fields: tuple[Field, ...]
    records: npt.NDArray[np.void]


class NotALiveFile(ValueError):
    """The file makes no sense as a live file; the message says why."""


def read_leftover(path: str | int) -> Leftover:
    """Read the live file of a process that has ended.

    Args:
        path: its name; or an open file, which stays open: a name may come to be another file's.

    Raises:
        NotALiveFile: the file is not one, or not whole.
        OSError: it cannot be read.
    """
    with open(path, "rb", closefd=isinstance(path, str)) as file:
        file.seek(0)
        start = file.read(_HEADER.size)
        if len(start) < _HEADER.size or not start.startswith(_MAGIC):
            raise NotALiveFile("it does not begin as one")
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
            raise NotALiveFile("its rows are not of the size of its fields")
        if os.fstat(file.fileno()).st_size != header_bytes + 2 * slots * size:
            raise NotALiveFile(f"it is not of the size that {slots} slots take")
        # A version before this one had no such tail: zeros, or the end of the text.
        if file.tell() <= (tail_at := header_bytes - _TAIL.size):
            file.seek(tail_at)
            _, used = _TAIL.unpack(file.read(_TAIL.size))
            slots = min(slots, used or slots)
        file.seek(header_bytes)
        # As blocks of bytes: numpy leaves out the padding where it joins rows of fields.
        found = [np.zeros(0, f"V{size}")]
        room = np.empty(2 * min(slots, SLOTS_AT_ONCE), layout.dtype)
        # A file system that is asked for its holes may count mapped rows among them: all is read.
        for first in range(0, slots, SLOTS_AT_ONCE):
            count = min(SLOTS_AT_ONCE, slots - first)
            halves = room[: 2 * count]
            if file.readinto(halves.view(np.uint8).data) != halves.nbytes:
                raise NotALiveFile("it was cut while it was read")
            if not halves["version"].any():
                continue
            rows = _newest_whole(halves)
            online = (rows["session_id"] > 0) & (rows["updated_at"] > 0)
            found.append(rows.view(f"V{size}")[online])
    changed = np.concatenate(found).view(layout.dtype)
    # Once each: after a power cut, the page of a slot that a player has left may be an old one.
    ordered = changed[np.lexsort((changed["updated_at"], changed["session_id"]))]
    last = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered["session_id"][1:], ordered["session_id"][:-1], out=last[:-1])
    ordered = ordered[last]
    return Leftover(identity, bool(clean), fields, ordered.view(layout.record))


@contextlib.contextmanager
def held(path: str) -> Iterator[int]:
    """Hold a live file that no process uses, and give its open file.

    Raises:
        LiveFileUnusable: it is in use, or no file that was ever a live file.
        OSError: it cannot be opened.
    """
    _check_ours(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(fd, path)
        yield fd
    finally:
        os.close(fd)


def mark_clean(fd: int) -> None:
    """Note in a live file that is held that everything in it is in the store."""
    os.pwrite(fd, _CLEAN.pack(1), _CLEAN_AT)
    os.fsync(fd)


def _stamp() -> str:
    """Ends the name of what is set aside."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.{time.time_ns() % 10**9}"


def _check_ours(path: str) -> None:
    """See that a file of this name, if there is one, is a live file, or was one before a power cut.

    Raises:
        LiveFileUnusable: it is something else, which is not ours to rename.
    """
    try:
        # Looked at before it is opened: to open a device or a pipe may do something, or wait.
        regular = stat.S_ISREG(os.stat(path).st_mode)
        if regular:
            with open(path, "rb") as file:
                start = file.read(len(_MAGIC))
            regular = start.strip(b"\0") == b"" or _MAGIC.startswith(start)
    except FileNotFoundError:
        return
    if not regular:
        raise LiveFileUnusable(f"{path} is there and is no live file; name another file, or none")


def check_beside(path: str | None, used: str | None, identity: bytes) -> None:
    """See that no live file beside the store is passed over that holds unsaved players of it.

    Args:
        path: where one of this store lies if nothing else was said; None where there is no place.
        used: the live file that this start looks into, if any.
        identity: the store's.

    Raises:
        LiveFileUnusable: there is one.
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
                f" the live file {path} and stop, bring it in by `playerstate live apply`, or move"
                " the file away to do without them"
            )
        _log.critical(
            "the live file {path} beside the store holds {players} unsaved players of another"
            " store, or of this one before it was restored; it is left alone",
            path=name,
            players=len(leftover.records),
        )


def _lock(fd: int, path: str) -> None:
    """Hold the file for as long as it is open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LiveFileUnusable(_in_use(path)) from None


def _in_use(path: str) -> str:
    return f"the live file {path} is in use by another process; name another file"


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
        try:
            field = Field(name, of_canonical(kind))
        except ValueError:
            raise NotALiveFile(f"its schema is damaged at {part!r}") from None
        if not (name.isidentifier() and field.kind.size <= MAX_FIELDS_BYTES):
            raise NotALiveFile(f"its schema is damaged at {part!r}")
        fields.append(field)
    return tuple(fields)
