"""Callers that wait for one event, each by a Deferred of its own.

A callback of such a Deferred may add another waiter at once.  So all waiters are taken out before
the first Deferred fires: a waiter added meanwhile waits for the next event, and a loop over the
waiters ends.  Reactor thread only.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
N = TypeVar("N")


class Waiters(Generic[T, N]):
    """The Deferreds that wait for one event, each with a note for the owner.

    Cancelling a Deferred removes that waiter, and has no other effect.
    """

    def __init__(self) -> None:
        self._notes: dict[Deferred[T], N] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def add(self, note: N) -> Deferred[T]:
        """Add a waiter, and return its Deferred."""
        waiter: Deferred[T] = Deferred(self._forget)
        self._notes[waiter] = note
        return waiter

    def notes(self) -> list[tuple[Deferred[T], N]]:
        """All waiters with their notes, in the order in which they were added."""
        return list(self._notes.items())

    def take(self) -> list[Deferred[T]]:
        """Remove and return all waiters; `tell` gives them a result."""
        taken, self._notes = list(self._notes), {}
        return taken

    def take_some(self, some: list[Deferred[T]]) -> list[Deferred[T]]:
        """Remove and return these waiters; `tell` gives them a result."""
        for waiter in some:
            del self._notes[waiter]
        return some

    def _forget(self, waiter: Deferred[T]) -> None:
        self._notes.pop(waiter, None)


def tell(taken: list[Deferred[T]], result: T | Failure) -> None:
    """Fire all of these Deferreds with the result, except those cancelled since they were taken."""
    for waiter in taken:
        if not waiter.called:
            waiter.callback(result)
