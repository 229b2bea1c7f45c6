"""What keeps rows from the store, since when, and how it is logged.  Reactor thread only."""

from __future__ import annotations

import attrs
from twisted.python.failure import Failure

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore, StoreBusy
from playerstate.log import PrintableLogger
from playerstate.saving.persister import Persister
from playerstate.sparing import SparingLogger

BUSY_LOGGED_EVERY = 10.0
"""Seconds between two log lines that report the start of a busy period of the store."""
ERROR_LOGGED_EVERY = 60.0
"""Seconds between two log lines with the traceback of one kind of error."""

_log = PrintableLogger()


@attrs.frozen
class Trouble:
    """Why rows do not reach the store, and for how many seconds they have not."""

    why: str
    seconds: float


class StoreLines:
    """The log lines of one store's failures, each kind logged now and then.

    Args:
        clock: measures how often.
    """

    def __init__(self, clock: SteadyClock) -> None:
        self.busy = SparingLogger(_log, clock.seconds, BUSY_LOGGED_EVERY)
        self.errors = SparingLogger(_log, clock.seconds, ERROR_LOGGED_EVERY)


class StoreHealth:
    """The present trouble of one lane, if any: from the first error to the next commit.

    Args:
        store: named in log lines.
        clock: measures how long the trouble lasts.
        save_within: seconds that trouble may last before `current` reports it.
        lines: what is logged of the store's failures; one for all lanes of a store, so that an
            error that all of them meet is logged once.
    """

    def __init__(
        self,
        store: IStateStore,
        clock: SteadyClock,
        save_within: float,
        lines: StoreLines,
    ) -> None:
        self._store = store
        self._clock = clock
        self._save_within = save_within
        self._why = ""
        self._since: float | None = None
        self._is_logged = False
        self._lines = lines

    def begin(self, why: str) -> None:
        """Note that rows cannot be saved, for this reason."""
        self._why = why
        if self._since is None:
            self._since = self._clock.seconds()
            self._is_logged = False

    def end(self) -> None:
        """End any trouble, without a log line."""
        self._since = None

    def succeeded(self) -> None:
        """Note that the store took rows; if the trouble was logged, its end is logged too."""
        if self._since is not None and self._is_logged:
            _log.info(
                "the store {store} takes rows again, after {seconds:.1f} s",
                store=self._store.describe(),
                seconds=self._clock.seconds() - self._since,
            )
        self._since = None

    def failed(self, error: Exception, rows: int) -> None:
        """Note that the store failed, with `rows` kept; 0 where no rows were being written."""
        if rows:
            self.begin(str(error))
        what = f"{rows} rows are kept and tried again" if rows else "no rows were being written"
        kind = type(error).__name__
        store = self._store.describe()
        if not isinstance(error, StoreBusy):
            is_logged = self._lines.errors.failure(
                "the store {store} failed; {what}",
                Failure(error),
                kind=kind,
                store=store,
                what=what,
            )
        elif self._is_logged:
            return  # the same busy period
        else:
            is_logged = self._lines.busy.warn(
                "the store {store} is busy: {error}; {what}", store=store, error=error, what=what
            )
        self._is_logged |= is_logged

    def thread_failed(self, error: BaseException, what: str) -> None:
        """Log what is wrong with the persist thread, with the traceback of the error."""
        kind = f"thread {type(error).__name__}"
        self._lines.errors.failure(what, Failure(error), kind=kind)

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
