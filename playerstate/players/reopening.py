"""The store's reader, and switching over to a store that replaced the one that was opened.

Opening, checking and comparing the replacement takes a second with a million players, so the
persist thread does it, which has nothing else to do by then.  Until the reader is exchanged, the
reactor thread does not use it: joins wait, for `JOINS_WAIT` seconds at most.  All else here is
called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from playerstate.clock import SteadyClock
from playerstate.interfaces import (
    IStateReader,
    IStateStore,
    StoreBusy,
    Stored,
    StoreUnusable,
    file_store,
)
from playerstate.live.table import LiveTable
from playerstate.log import PrintableLogger
from playerstate.saving.commit import named
from playerstate.saving.outbox import Outbox
from playerstate.sparing import SparingLogger
from playerstate.waiters import Waiters, tell

REOPEN_EVERY = 1.0
"""Seconds between two attempts to switch over."""
REOPEN_LINES = 5
"""Log lines a minute about a replacement that cannot be used, each for another reason."""
JOINS_WAIT = 5.0
"""Seconds from the first attempt for which joins wait; then they fail with `StoreBusy`."""
LOADS_A_TURN = 64
"""Waiting players loaded in one turn of the reactor, some two milliseconds of work."""

_log = PrintableLogger()


class Reopening:
    """The store's reader, which is exchanged when the store was replaced.

    Args:
        store: the run's store.
        identity: the store's identity.
        reader: the reader that the start opened.
        table: the live table, whose players are saved again.
        outbox: the way to the store.
        clock: schedules the retries.
        dirty_all: marks every row of the table dirty, so that it is saved again.

    Attributes:
        stopping: whether a stop has begun, which does not wait for lost players.
        in_doubt: whether players who have left may have been lost with a replaced store.
    """

    def __init__(
        self,
        store: IStateStore,
        identity: bytes,
        reader: IStateReader,
        table: LiveTable,
        outbox: Outbox,
        clock: SteadyClock,
        dirty_all: Callable[[], None],
    ) -> None:
        self._store = store
        self._files = file_store(store)
        self._identity = identity
        self._reader = reader
        self._table = table
        self._outbox = outbox
        self._clock = clock
        self._dirty_all = dirty_all
        self._cannot_reopen = ""
        self._lines = SparingLogger(_log, clock.seconds, lines=REOPEN_LINES)
        self._under_way = False
        self._waiting: Waiters[None, None] = Waiters()
        self._patience: IDelayedCall | None = None
        self.stopping = False
        self.in_doubt = False

    def load(self, session_id: int) -> Stored | Deferred[Stored | None] | None:
        """See `IStateReader.load`; while the reader is exchanged, a Deferred that waits for it."""
        if not self._under_way:
            return self._reader.load(session_id)
        if self._patience is None:
            raise self._busy()
        waiting: Deferred[None] = self._waiting.add(None)
        return waiting.addCallback(lambda _: self._reader.load(session_id))

    def finish(self) -> None:
        """Switch over here, if the persist thread ended before it could.

        Blocks the reactor thread, at the end of a stop, when no player plays any more.
        """
        if self._under_way:
            try:
                lost: list[int] | Exception | None = self._go_over(frozenset(self._table.slots))
            except Exception as error:  # treated like one from the persist thread
                lost = error
            self._gone_over(lost)

    def close(self) -> None:
        """Give back the reader; the persist thread has ended."""
        tell(self._waiting.take(), Failure(self._busy()))
        self._reader.close()

    def _busy(self) -> StoreBusy:
        why = self._cannot_reopen or "its replacement is being checked"
        return StoreBusy(f"{self._store.describe()} was removed or replaced: {why}")

    def disbelieve(self) -> None:
        """The store was removed or replaced: report no player as saved any more."""
        self.in_doubt = True
        self._dirty_all()

    def begin(self) -> None:
        """Every writer is closed: switch over to the replacement, and save all again."""
        self.disbelieve()
        if not self._under_way:
            self._under_way = True
            self._patience = self._clock.callLater(JOINS_WAIT, self._end_patience)
        self._try()

    def _end_patience(self) -> None:
        self._patience = None
        tell(self._waiting.take(), Failure(self._busy()))

    def _try(self) -> None:
        online = frozenset(self._table.slots)
        self._outbox.switch.go_over(lambda: self._go_over(online), self._gone_over)

    def _go_over(self, online: Set[int]) -> list[int] | None:
        """The lost players' session ids; None where they are unknown.  Persist thread."""
        if self._files is None:
            raise StoreUnusable(f"{self._store.describe()} keeps no files that could be replaced")
        return self._files.reopen(self._identity, online)

    def _gone_over(self, lost: list[int] | Exception | None) -> None:
        """The persist thread has switched over and can save again, or has failed to."""
        try:
            if isinstance(lost, Exception):
                raise lost
            assert self._files is not None
            reader = self._files.open_reader()
        except Exception as error:  # not usable yet: logged, retried, and reported as trouble
            self._try_again(error)
            return
        self._reader.close()
        self._reader = reader
        self._under_way, self._cannot_reopen = False, ""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self.in_doubt = self.stopping and lost != []
        self._dirty_all()  # includes players who joined meanwhile
        _log.critical(
            "the store {store} was removed or replaced while it was in use; the {again} players"
            " in the game are saved again; lost: the newest state of {others}",
            store=self._store.describe(),
            again=len(self._table),
            others=_others(lost),
        )
        self._outbox.sweep()
        self._outbox.resume()
        self._load_some()

    def _try_again(self, error: Exception) -> None:
        if str(error) != self._cannot_reopen:
            self._cannot_reopen = str(error)
            store = self._store.describe()
            self._lines.error("cannot go on with {store}: {error}", store=store, error=error)
        self._outbox.switch.put_off()
        self._clock.callLater(REOPEN_EVERY, self._try)

    def _load_some(self) -> None:
        """Load waiting players, as many as one turn of the reactor has time for."""
        if self._under_way:
            return  # replaced again: they keep waiting
        waiting = [waiter for waiter, _ in self._waiting.notes()]
        if len(waiting) > LOADS_A_TURN:
            self._clock.callLater(0.0, self._load_some)
        tell(self._waiting.take_some(waiting[:LOADS_A_TURN]), None)


def _others(lost: list[int] | None) -> str:
    """The offline players whose newest state a replaced store took with it, for the log."""
    if lost is None:
        return "others who changed after the replacement was made, and cannot be named"
    return f"{len(lost)} others: {named(lost) or 'none'}"
