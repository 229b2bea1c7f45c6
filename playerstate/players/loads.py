"""Loads under way: joins and edits that wait for the store's answer.

Those of one player share one load.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from playerstate.interfaces import Stored

T = TypeVar("T")


Enter = Callable[[Stored | None], T]
"""Turns the stored row, or None where there is none, into a waiter's result; what it raises fails
that waiter."""


class Loads:
    """Loads by session id, each with its waiters."""

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}

    def __len__(self) -> int:
        return len(self._loads)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._loads

    def begin(self, session_id: int, work: Deferred[Stored | None], enter: Enter[T]) -> Deferred[T]:
        """Track a load, and return the Deferred of its first waiter."""
        self._loads[session_id] = _Load(work)
        waiter = self.wait(session_id, enter)
        work.addBoth(self._end, session_id, work)
        return waiter

    def wait(self, session_id: int, enter: Enter[T]) -> Deferred[T]:
        """A Deferred for one more waiter of a load; cancelling it affects no other waiter.

        Cancelling the last waiter cancels the load.
        """
        load = self._loads[session_id]

        def cancelled(waiter: Deferred[T]) -> None:
            del load.waiters[waiter]
            if not load.waiters and self._loads.get(session_id) is load:
                del self._loads[session_id]
                load.work.cancel()

        waiter: Deferred[T] = Deferred(cancelled)
        load.waiters[waiter] = enter
        return waiter

    def fail_all(self, error: Exception) -> None:
        """Cancel every load; every waiter fails with `error`."""
        loads, self._loads = self._loads, {}
        for load in loads.values():
            load.work.cancel()
        for load in loads.values():
            while load.waiters:
                load.next_waiter()[0].errback(error)

    def _end(
        self, result: Stored | Failure | None, session_id: int, work: Deferred[Stored | None]
    ) -> None:
        load = self._loads.get(session_id)
        if load is None or load.work is not work:
            return
        del self._loads[session_id]
        while load.waiters:
            waiter, enter = load.next_waiter()
            if isinstance(result, Failure):
                waiter.errback(result)
                continue
            try:
                entered = enter(result)
            except Exception:  # passed to the waiter, who decides what to do
                waiter.errback()
            else:
                waiter.callback(entered)


@attrs.define(eq=False)
class _Load:
    work: Deferred[Stored | None]
    waiters: dict[Deferred[Any], Enter[Any]] = attrs.field(factory=dict)

    def next_waiter(self) -> tuple[Deferred[Any], Enter[Any]]:
        """Take out the oldest waiter; its callbacks may cancel others."""
        waiter = next(iter(self.waiters))
        return waiter, self.waiters.pop(waiter)
