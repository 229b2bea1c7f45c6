"""Takes a database over which another was copied in place, once the copying has ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import apsw
import attrs

from playerstate.interfaces import StoreUnusable
from playerstate.stores.sqlite.files import connect_past_log, copy_whole, explained, look_at


@attrs.define(eq=False)
class Overwritten:
    """The file at a path to which no connection of ours is open.  Persist thread, in `reopen`."""

    path: str
    _signature: tuple[int, ...] | None = None

    def move(self, check: Callable[[apsw.Connection], object]) -> None:
        """Copy the file's content into a new file, which then replaces it.

        A new file is needed, since other programs may have the old one open with the log and the
        index of its former content.  The program that writes over the file may still be at it, so
        the file must be unchanged since the last call.

        Args:
            check: raises `StoreUnusable` or an error of SQLite if the database cannot be used.

        Raises:
            StoreUnusable: the file changed since the last call, cannot be used, or the disk has no
                room for a copy; the file is unchanged.
        """
        self._check_at_rest()
        new = f"{self.path}.new"
        with explained(self.path), contextlib.closing(connect_past_log(self.path)) as connection:
            check(connection)
            try:
                copy_whole(connection, self.path, new)
                self._check_at_rest()
                os.replace(new, os.path.realpath(self.path))
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                if not isinstance(error, (apsw.FullError, OSError)):
                    raise
                raise StoreUnusable(
                    f"{self.path} was written over in place, and cannot be copied to a file beside"
                    f" it ({error}); make room on its disk"
                ) from error

    def _check_at_rest(self) -> None:
        status, before = look_at(self.path), self._signature
        self._signature = status and (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if before != self._signature:
            raise StoreUnusable(
                f"{self.path} was written over in place; it is used once no program writes to it"
            )
