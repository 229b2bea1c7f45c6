"""Where a case runs: its directory, its time, its reactor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

import attrs
from twisted.internet.threads import blockingCallFromThread

_T = TypeVar("_T")
_numbers = count()


@attrs.frozen
class Stage:
    """What a case is given.

    A case runs in a thread of its own, in a process of its own, whose main thread runs the reactor.

    Attributes:
        directory: an empty one, removed afterwards.
        quick: whether few rounds and small settings are asked for.
        seconds: that the whole case may take, more or less.
        reactor: the reactor.
        say: tells what is being measured.
    """

    directory: str
    quick: bool
    seconds: float
    reactor: Any
    say: Callable[[str], None]

    def path(self, name: str) -> str:
        """A path in the directory that was not given before."""
        return os.path.join(self.directory, f"{next(_numbers)}-{name}")

    def on_reactor(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call this on the reactor thread; wait for what it returns, or its Deferred gives."""
        result: _T = blockingCallFromThread(self.reactor, function, *arguments)
        return result

    @contextmanager
    def busy_reactor(self, turn_seconds: float) -> Iterator[None]:
        """A reactor that has work in Python all the time, in turns of so many seconds."""
        busy = _Busy(self.reactor, turn_seconds)
        self.on_reactor(busy.turn)
        try:
            yield
        finally:
            self.on_reactor(busy.stop)


class _Busy:
    """Work for the reactor."""

    def __init__(self, reactor: Any, turn_seconds: float) -> None:
        self._reactor = reactor
        self._seconds = turn_seconds
        self._next: Any = None

    def turn(self) -> None:
        """Take up the reactor for one turn, and come back."""
        end = self._reactor.seconds() + self._seconds
        total = 0
        while self._reactor.seconds() < end:
            for number in range(100):
                total += number
        self._next = self._reactor.callLater(0, self.turn)

    def stop(self) -> None:
        """Let it rest."""
        self._next.cancel()
