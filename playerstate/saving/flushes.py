"""The callers who wait for a flush, and the rows dropped meanwhile.  Reactor thread only."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from playerstate.saving.commit import Dropped, NotSaved, not_saved
from playerstate.waiters import Waiters, tell


@attrs.define(eq=False)
class _Flush:
    """A caller who waits until no update made up to `since` is unsaved."""

    since: float
    dropped: list[Dropped] = attrs.field(factory=list)


class Flushes:
    """Callers each of whom waits until no row is unsaved that became dirty up to a time.

    Times are in the seconds of the owner's clock.
    """

    def __init__(self) -> None:
        self._waiters: Waiters[None, _Flush] = Waiters()

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, since: float) -> Deferred[None]:
        """Wait until no row is unsaved that became dirty up to `since`.

        Returns:
            A Deferred that fails with `NotSaved` where rows were dropped meanwhile, or `fail` was
            called.
        """
        return self._waiters.add(_Flush(since))

    def wait_since(self, now: float) -> None:
        """Have every caller wait for what became dirty up to `now` at least."""
        for _, flush in self._waiters.notes():
            flush.since = max(flush.since, now)

    def note_dropped(self, dropped: Sequence[Dropped]) -> None:
        """Note for every caller that these rows will not be saved."""
        for _, flush in self._waiters.notes():
            flush.dropped.extend(dropped)

    def fire(self, oldest: float | None) -> None:
        """Answer the callers who wait for nothing any more.

        Args:
            oldest: when the oldest unsaved row became dirty; None where everything is saved.
        """
        done = [
            (waiter, flush)
            for waiter, flush in self._waiters.notes()
            if oldest is None or oldest > flush.since
        ]
        self._waiters.take_some([waiter for waiter, _ in done])
        for waiter, flush in done:
            tell([waiter], Failure(not_saved(flush.dropped)) if flush.dropped else None)

    def fail(self, why: NotSaved) -> None:
        """Fail every caller with `why`: no more rows will be saved."""
        tell(self._waiters.take(), Failure(why))
