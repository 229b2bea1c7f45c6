"""A server's count of applied updates, in a mapped file that its sender reads directly."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from typing import Any

import attrs

_COUNTER = struct.Struct("<QQ")
PUBLISH_EVERY = 0.002


@attrs.frozen
class Taken:
    """A server's progress.

    Attributes:
        count: updates taken in since it began.
        cpu: seconds its reactor thread has been running on a processor.
    """

    count: int
    cpu: float


class Counter:
    """The file, made by the server and opened by the sender."""

    def __init__(self, path: str, *, new: bool) -> None:
        if new:
            with open(path, "wb") as file:
                file.write(bytes(mmap.PAGESIZE))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def publish(self, reactor: Any, count: Callable[[], int]) -> None:
        """Keep it up to date from now on.  Reactor thread."""
        _COUNTER.pack_into(self._memory, 0, count(), time.thread_time_ns())
        reactor.callLater(PUBLISH_EVERY, self.publish, reactor, count)

    def read(self) -> Taken:
        """The server's progress, at most `PUBLISH_EVERY` or one turn of its reactor old."""
        count, nanoseconds = _COUNTER.unpack_from(self._memory)
        return Taken(count, nanoseconds / 1e9)
