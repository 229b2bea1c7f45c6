"""What players are loaded from, and going over to a store that took the place of the one opened.

To open, check and compare what is there now takes a second with a million players, so the persist
thread does it, which has nothing else to do by then.  Until the reader is exchanged, nobody uses
it here: who joins waits, for `JOINS_WAIT` seconds at most.  Reactor thread, but for that.
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
from playerstate.waiters import Waiters, tell

REOPEN_EVERY = 1.0
"""Seconds between two tries to go over to what is there now."""
JOINS_WAIT = 5.0
"""Seconds from the first try for which those who join wait; then they are told to ask again."""
LOADS_A_TURN = 64
"""Players who waited and are loaded in one turn of the reactor, some two milliseconds' work."""

_log = PrintableLogger()


class Reopening:
    """The store's reader, which is exchanged where the store was replaced.

    Args:
        store: of the run.
        identity: of the store.
        reader: of the store, as it was opened.
        table: the live table; its players are saved again.
        outbox: the way to the store.
        clock: tells when to try again.
        dirty_all: has everything in the table saved again.

    Attributes:
        stopping: whether a stop has begun, which waits for nobody who was lost.
        in_doubt: whether players who have left may have been lost with a store that was replaced.
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
        """The persist thread has ended before it went over: it is done here, where nobody plays."""
        if self._under_way:
            try:
                lost: list[int] | Exception | None = self._go_over(frozenset(self._table.slots))
            except Exception as error:  # is judged as the thread's is
                lost = error
            self._gone_over(lost)

    def close(self) -> None:
        """Give back the reader; the persist thread has ended."""
        tell(self._waiting.take(), Failure(self._busy()))
        self._reader.close()

    def _busy(self) -> StoreBusy:
        why = self._cannot_reopen or "what is there now is being looked at"
        return StoreBusy(f"{self._store.describe()} was removed or replaced: {why}")

    def disbelieve(self) -> None:
        """The store was removed or replaced: nobody is to be told any more that they are saved."""
        self.in_doubt = True
        self._dirty_all()

    def begin(self) -> None:
        """Every writer is closed: go over to what is there now, and save all again."""
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
        self._outbox.reopen(lambda: self._go_over(online), self._gone_over)

    def _go_over(self, online: Set[int]) -> list[int] | None:
        """The players lost; None where they cannot be named.  Persist thread."""
        if self._files is None:
            raise StoreUnusable(f"{self._store.describe()} keeps no files that could be replaced")
        return self._files.reopen(self._identity, online)

    def _gone_over(self, lost: list[int] | Exception | None) -> None:
        """The persist thread has gone over, and can be given what is to be saved; or has not."""
        try:
            if isinstance(lost, Exception):
                raise lost
            assert self._files is not None
            reader = self._files.open_reader()
        except Exception as error:  # what is there cannot be used yet, which is told as trouble
            self._try_again(error)
            return
        self._reader.close()
        self._reader = reader
        self._under_way, self._cannot_reopen = False, ""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self.in_doubt = self.stopping and lost != []
        self._dirty_all()  # who joined meanwhile
        _log.critical(
            "the store {store} was removed or replaced while it was in use; the {again} players"
            " in the game are saved again, lost is the newest state of {others}",
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
            _log.error("cannot go on with {store}: {error}", store=store, error=error)
        self._outbox.put_off()
        self._clock.callLater(REOPEN_EVERY, self._try)

    def _load_some(self) -> None:
        """Load of those who waited as many as one turn of the reactor has time for."""
        if self._under_way:
            return  # it was replaced again: they wait on
        waiting = [waiter for waiter, _ in self._waiting.notes()]
        if len(waiting) > LOADS_A_TURN:
            self._clock.callLater(0.0, self._load_some)
        tell(self._waiting.take_some(waiting[:LOADS_A_TURN]), None)


def _others(lost: list[int] | None) -> str:
    """Who else lost the newest state with a store that was replaced; None where that is unknown."""
    if lost is None:
        return "others who changed since what is there now, and cannot be named"
    return f"{len(lost)} others: {named(lost) or 'none'}"
