"""Those who wait for one event, each by a Deferred of their own.

What a Deferred calls may ask anew, at once.  So all who wait are taken out before the first is
told: who asks meanwhile waits for the next event, and a loop over those who wait has an end.
Reactor thread only.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
N = TypeVar("N")


class Waiters(Generic[T, N]):
    """Deferreds of one event, each with a note of what it is about.

    Cancelling one ends the waiting of that caller, and nothing else.
    """

    def __init__(self) -> None:
        self._notes: dict[Deferred[T], N] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, note: N) -> Deferred[T]:
        """One more who waits."""
        waiter: Deferred[T] = Deferred(self._forget)
        self._notes[waiter] = note
        return waiter

    def notes(self) -> list[tuple[Deferred[T], N]]:
        """All who wait, in the order in which they came, each with its note."""
        return list(self._notes.items())

    def take(self) -> list[Deferred[T]]:
        """Take all out, to be told by `tell`."""
        taken, self._notes = list(self._notes), {}
        return taken

    def take_some(self, some: list[Deferred[T]]) -> list[Deferred[T]]:
        """Take these out, to be told by `tell`."""
        for waiter in some:
            del self._notes[waiter]
        return some

    def _forget(self, waiter: Deferred[T]) -> None:
        self._notes.pop(waiter, None)


def tell(taken: list[Deferred[T]], result: T | Failure) -> None:
    """Give all of these the result, but for those who cancelled since they were taken."""
    for waiter in taken:
        if not waiter.called:
            waiter.callback(result)
