"""What keeps rows from the store: since when, and what the log is told of it.  Reactor thread."""

from __future__ import annotations

import math

import attrs
from twisted.python.failure import Failure

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore, StoreBusy
from playerstate.log import PrintableLogger
from playerstate.saving.persister import Persister

BUSY_TOLD_EVERY = 10.0
"""Seconds between two log lines that begin to tell of a busy store."""
ERROR_TOLD_EVERY = 60.0
"""Seconds between two log lines with the trace of one kind of error."""

_log = PrintableLogger()


@attrs.frozen
class Trouble:
    """Why rows do not get into the store, and for how many seconds they have not."""

    why: str
    seconds: float


class StoreHealth:
    """The trouble of one lane there is, if any, from its first error to the next commit.

    Args:
        store: named in the log.
        clock: tells how long it lasts.
        save_within: seconds that it may last before it is more than a short one.
        logged_at: when each kind of error was logged; one dict for all lanes of a store, so that
            what they all meet is told once.
    """

    def __init__(
        self,
        store: IStateStore,
        clock: SteadyClock,
        save_within: float,
        logged_at: dict[str, float],
    ) -> None:
        self._store = store
        self._clock = clock
        self._save_within = save_within
        self._why = ""
        self._since: float | None = None
        self._is_told = False
        self._logged_at = logged_at

    def begin(self, why: str) -> None:
        """Rows are kept for this reason."""
        self._why = why
        if self._since is None:
            self._since = self._clock.seconds()
            self._is_told = False

    def end(self) -> None:
        """There is none, whatever there was; nobody need be told."""
        self._since = None

    def succeeded(self) -> None:
        """The store took rows: whoever was told of trouble is told of its end."""
        if self._since is not None and self._is_told:
            _log.info(
                "the store {store} takes rows again, after {seconds:.1f} s",
                store=self._store.describe(),
                seconds=self._clock.seconds() - self._since,
            )
        self._since = None

    def failed(self, error: Exception, rows: int) -> None:
        """The store failed, and so many rows are kept; 0 where it was maintenance."""
        if rows:
            self.begin(str(error))
        what = f"{rows} rows are kept and tried again" if rows else "this was maintenance"
        kind = type(error).__name__
        if isinstance(error, StoreBusy):
            if self._is_told or not self._may_tell(kind, BUSY_TOLD_EVERY):
                return
            _log.warn(
                "the store {store} is busy: {error}; {what}",
                store=self._store.describe(),
                error=error,
                what=what,
            )
        elif self._may_tell(kind, ERROR_TOLD_EVERY):
            _log.failure(
                "the store {store} failed; {what}",
                Failure(error),
                store=self._store.describe(),
                what=what,
            )
        else:
            return
        self._is_told = True

    def thread_failed(self, error: BaseException, what: str) -> None:
        """Something is the matter with the persist thread; the trace is logged."""
        if self._may_tell(f"thread {type(error).__name__}", ERROR_TOLD_EVERY):
            _log.failure(what, Failure(error))

    def current(self, persister: Persister, pending: int) -> Trouble | None:
        """What has kept rows from the store for longer than `save_within`, if anything has."""
        stuck = persister.maintaining_since if pending else None
        for why, since in (
            (self._why, self._since),
            ("the persist thread is stuck in a write", persister.writing_since),
            ("the persist thread is stuck in maintenance", stuck),
        ):
            if since is not None and self._clock.seconds() - since > self._save_within:
                return Trouble(why, self._clock.seconds() - since)
        return None

    def _may_tell(self, kind: str, every: float) -> bool:
        """Whether this kind of error was not logged within so many seconds; it is to be now."""
        now = self._clock.seconds()
        if now - self._logged_at.get(kind, -math.inf) < every:
            return False
        self._logged_at[kind] = now
        return True
