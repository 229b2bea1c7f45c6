"""Allows one server per database, by a lock file that names its holder."""

from __future__ import annotations

import fcntl
import os
import weakref

from playerstate.interfaces import StoreInUse, StoreUnusable

_held_here: weakref.WeakSet[LockFile] = weakref.WeakSet()


class LockFile:
    """``<database>.lock``, held by ``flock``, so that the kernel releases it with its process.

    The file is never removed: if it could vanish between its opening and its locking, two processes
    could each hold a lock of their own.

    Args:
        database: the database's path; symbolic links are followed, so that all names of one
            database share a lock.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._path = os.path.realpath(database) + ".lock"
        self._fd: int | None = None
        _held_here.add(self)

    def take(self) -> None:
        """Take the lock and write our process id into it.

        Raises:
            StoreInUse: another process holds it.
            StoreUnusable: the file cannot be created.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if isinstance(error, PermissionError) and os.path.exists(self._path):
                raise StoreUnusable(
                    f"cannot open {self._path}: {error.strerror}; another user's server created"
                    " it: once that server has ended, give the file to this user, or remove it"
                ) from None
            raise StoreUnusable(
                f"cannot create {self._path}: {error.strerror}; the directory of a database must"
                " exist and be writable"
            ) from None
        try:
            self._lock(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.write(fd, b"%d\n" % os.getpid())
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            raise StoreInUse(
                f"{self._database} is in use by process {holder}; stop that server first, or name"
                " another database",
                f"process {holder}",
            ) from None
        except OSError as error:
            raise StoreUnusable(
                f"cannot lock {self._path}: {error.strerror}; a database must lie on a local disk"
                " with room left"
            ) from None

    def release(self) -> None:
        """Release the lock; harmless if it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _forget_in_child() -> None:
    """Close the locks in a forked child, which shares them and must not hold them longer."""
    for lock in list(_held_here):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
