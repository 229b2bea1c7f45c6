"""The names and locks of live files: which is ours, which is in use, which must not be ignored."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator

from playerstate.filenames import check_name
from playerstate.interfaces import LiveFileUnusable
from playerstate.live.leftover import CLEAN, CLEAN_AT, MAGIC, NotALiveFile, read_leftover
from playerstate.log import PrintableLogger

MAKING = ".making"
"""Suffix of a live file that is not complete yet."""
RECOVERING = ".recovering"
"""Suffix of a live file whose rows are being saved."""

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
        if not leftover.unsaved:
            continue
        if leftover.identity == identity:
            raise LiveFileUnusable(
                f"the live file {name} holds {leftover.unsaved} players of this store whose"
                " newest state may be unsaved, and this start does not use it; start once with"
                f" the live file {path} and stop, save them with `playerstate live apply`, or move"
                " the file away to do without them"
            )
        _log.critical(
            "the live file {path} beside the store holds {players} unsaved players of another"
            " store, or of this one before it was restored; it is left alone",
            path=name,
            players=leftover.unsaved,
        )


@contextlib.contextmanager
def held(path: str) -> Iterator[int]:
    """Lock a live file that no process uses, and yield its file descriptor.

    Raises:
        LiveFileUnusable: the file is in use, or never was a live file.
        OSError: the file cannot be opened.
    """
    check_ours(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        lock(fd, path)
        yield fd
    finally:
        os.close(fd)


def mark_clean(fd: int) -> None:
    """Note in a locked live file that everything in it is in the store, and sync it."""
    os.pwrite(fd, CLEAN.pack(1), CLEAN_AT)
    os.fsync(fd)


def stamp() -> str:
    """A unique suffix for a file that is set aside."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.{time.time_ns() % 10**9}"


def check_ours(path: str) -> None:
    """Check that a file of this name, if there is one, is a live file, or was before a power cut.

    Raises:
        LiveFileUnusable: it is another kind of file, which must not be renamed.
    """
    try:
        # Checked before it is opened: opening a device or a pipe may have effects, or block.
        ours = stat.S_ISREG(os.stat(path).st_mode)
        if ours:
            with open(path, "rb") as file:
                start = file.read(len(MAGIC))
            ours = start.strip(b"\0") == b"" or MAGIC.startswith(start)
    except FileNotFoundError:
        return
    if not ours:
        raise LiveFileUnusable(f"{path} exists and is not a live file; name another file, or none")


def lock(fd: int, path: str) -> None:
    """Lock the file until it is closed.

    Raises:
        LiveFileUnusable: another process holds the lock.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LiveFileUnusable(in_use(path)) from None


def in_use(path: str) -> str:
    """What is said of a live file that another process has locked."""
    return (
        f"the live file {path} is in use by another process; stop that process first, or name"
        " another file"
    )


def is_named(fd: int, path: str) -> bool:
    """Whether this is still the name of the open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def sync_directory(path: str) -> None:
    """Sync the directory of this file, so that a power cut does not bring an old name back."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_free(path: str) -> None:
    """Check that no other process has locked the file, if there is one."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        lock(file.fileno(), path)
