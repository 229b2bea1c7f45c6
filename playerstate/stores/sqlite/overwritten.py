"""A database over which another was copied in place: taken once whoever copies has ended."""

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
    """The file at this path, while no connection of ours is open to it.  Reactor thread."""

    path: str
    _signature: tuple[int, ...] | None = None

    def move(self, check: Callable[[apsw.Connection], object]) -> None:
        """Put what is in it into a file of its own, which takes its name.

        Other programs have the file open beneath a log and an index of before, and whoever copies
        may not have come to the end.

        Args:
            check: raises `StoreUnusable` or what SQLite does where the database cannot be used.

        Raises:
            StoreUnusable: it was changed since the last call, cannot be used, or there is no room;
                it is left as it is.
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
                    f"{self.path} was written over in place, and no copy of that can be made"
                    f" beside it ({error}); make room on its disk"
                ) from error

    def _check_at_rest(self) -> None:
        status, before = look_at(self.path), self._signature
        self._signature = status and (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if before != self._signature:
            raise StoreUnusable(
                f"{self.path} was written over in place; it is taken once nobody writes to it"
            )
