"""The live file: the live table in a file that outlives the process.

The rows of the live table lie in a memory-mapped file, so the write that applies a move also makes
it survive the death of the process, without a system call.  A power cut is another matter: the live
file is never synced, so how much of it the kernel has written back is unknown.  Against that, only
the store is safe.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os

from twisted.logger import LogLevel

from playerstate.interfaces import LiveFileUnusable
from playerstate.live.leftover import (
    CLEAN,
    CLEAN_AT,
    FORMAT,
    HEADER,
    MAGIC,
    PAGE,
    TAIL,
    Leftover,
    NotALiveFile,
    read_leftover,
)
from playerstate.live.names import (
    MAKING,
    RECOVERING,
    check_free,
    check_ours,
    in_use,
    is_named,
    lock,
    stamp,
    sync_directory,
)
from playerstate.live.table import FIRST_PLACES, LiveTable
from playerstate.log import PrintableLogger
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema

_log = PrintableLogger()


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
        """
        try:
            leftover = self._read_claimed(identity) if self._take() else None
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

    def _take(self) -> bool:
        """Give the file its `.recovering` name and lock it, so that no other process claims it.

        Returns:
            Whether there is such a file.
        """
        check_ours(self.path)
        check_ours(self._recovering)
        check_free(self.path)
        if os.path.exists(self._recovering):
            # While it exists no player can join, so a file of the plain name holds no player, and
            # would take disk space beside the file that is made next.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        elif os.path.exists(self.path):
            os.rename(self.path, self._recovering)
        else:
            return False
        self._recovering_fd = os.open(self._recovering, os.O_RDONLY | os.O_CLOEXEC)
        lock(self._recovering_fd, self.path)
        return True

    def _read_claimed(self, identity: bytes) -> Leftover | None:
        """Read the claimed file; discard it if all of it is saved, set it aside if it is no use."""
        assert self._recovering_fd is not None
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
        if leftover.identity != identity:
            aside = self._set_aside()
            _log.emit(
                LogLevel.critical if leftover.unsaved else LogLevel.info,
                "the live file {path} holds {players} unsaved players of another store, or of"
                " this one before it was restored; it was set aside as {aside}, and nothing of"
                " it was saved",
                path=self.path,
                players=leftover.unsaved or "no",
                aside=aside,
            )
            return None
        if not leftover.unsaved:
            self.discard()
            return None
        return leftover

    def _let_go_of_recovering(self) -> None:
        if self._recovering_fd is not None:
            os.close(self._recovering_fd)
            self._recovering_fd = None

    def _set_aside(self) -> str:
        """Rename the claimed file to a unique name, under which it is kept; return that name."""
        aside = f"{self.path}.{stamp()}"
        os.rename(self._recovering, aside)
        self._let_go_of_recovering()
        return aside

    def discard(self) -> None:
        """See `RowMemory.discard`."""
        try:
            with contextlib.suppress(FileNotFoundError):  # an operator removed it
                os.unlink(self._recovering)
            sync_directory(self.path)
        except OSError as error:
            raise LiveFileUnusable(
                f"everything in the live file {self._recovering} is in the store, but it cannot be"
                f" removed: {error.strerror}; remove it"
            ) from error
        self._let_go_of_recovering()

    def open(self, schema: StateSchema, capacity: int, identity: bytes) -> memoryview:
        """See `RowMemory.open`; makes the file and maps it."""
        text = schema.canonical.encode()
        header_bytes = -(-(HEADER.size + len(text) + TAIL.size) // PAGE) * PAGE
        header = HEADER.pack(
            *(MAGIC, FORMAT, RowLayout(schema.fields).size, capacity, header_bytes, 0),
            *(identity, len(text)),
        )
        self._header = (header + text).ljust(header_bytes - TAIL.size, b"\0")
        self._slot_bytes = LiveTable.bytes_needed(schema, 1)
        self._reserved = self._slot_bytes * min(capacity, FIRST_PLACES)
        self._lost = ""
        # Random, so that no other file has the same count.
        self._looks = int.from_bytes(os.urandom(6), "little")
        self._fd, self._map = self._make(self._slot_bytes * capacity, b"")
        return memoryview(self._map)[header_bytes:]

    @property
    def _rows_at(self) -> int:
        """Where in the file the rows begin."""
        return len(self._header) + TAIL.size

    def _tail(self) -> bytes:
        return TAIL.pack(self._looks, self._reserved // self._slot_bytes)

    def reserve(self, used: int) -> None:
        """See `RowMemory.reserve`."""
        if used <= self._reserved:
            return
        if why := self.lost():
            raise LiveFileUnusable(f"the live file {self.path} was {why}; it is made anew shortly")
        assert self._fd is not None
        try:
            os.posix_fallocate(self._fd, self._rows_at + self._reserved, used - self._reserved)
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
        at = start = self._rows_at
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
        start = self._rows_at
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
        header, start = self._header + self._tail(), self._rows_at
        size += start
        try:
            making = self.path + MAKING
            check_ours(making)
            with contextlib.ExitStack() as undo:
                fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                undo.callback(os.close, fd)
                lock(fd, self.path)  # serializes processes that make this live file
                if not is_named(fd, making):
                    raise LiveFileUnusable(in_use(self.path))
                undo.callback(os.unlink, making)
                if self._fd is None or not is_named(self._fd, self.path):
                    check_free(self.path)
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
            if self._fd is None or not is_named(self._fd, self.path):
                os.rename(self.path, f"{self.path}.{stamp()}")

    def close(self, clean: bool) -> None:
        """See `RowMemory.close`; the header notes a clean stop."""
        if clean and self._fd is not None and not self.lost():
            os.pwrite(self._fd, CLEAN.pack(1), CLEAN_AT)
        # The mapping is freed with the last view of it.
        self._map = None
        if self._fd is not None:
            # The mapping holds a duplicate of the descriptor, which would keep the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None
        self._let_go_of_recovering()
