"""What players are loaded from, and going over to a store that took the place of the one opened.

Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateReader, IStateStore, Stored
from playerstate.live.table import LiveTable
from playerstate.log import PrintableLogger
from playerstate.saving.outbox import Outbox, named

REOPEN_EVERY = 1.0
"""Seconds between two tries to go over to what is there now."""

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
        self._identity = identity
        self._reader = reader
        self._table = table
        self._outbox = outbox
        self._clock = clock
        self._dirty_all = dirty_all
        self._cannot_reopen = ""
        self.stopping = False
        self.in_doubt = False

    def load(self, session_id: int) -> Stored | Deferred[Stored | None] | None:
        """See `IStateReader.load`."""
        return self._reader.load(session_id)

    def close(self) -> None:
        """Give back the reader."""
        self._reader.close()

    def begin(self) -> None:
        """The store was removed or replaced: go over to what is there now, and save all again."""
        self.in_doubt = True
        self._dirty_all()  # at once: nobody is to be told that they are saved
        store = self._store.describe()
        try:
            lost = self._store.reopen(self._identity, self._table.slots.keys())
            reader = self._store.open_reader()
        except Exception as error:  # what is there cannot be used yet, which is told as trouble
            if str(error) != self._cannot_reopen:
                self._cannot_reopen = str(error)
                _log.error("cannot go on with {store}: {error}", store=store, error=error)
            self._clock.callLater(REOPEN_EVERY, self.begin)
            return
        self._reader.close()
        self._reader = reader
        self._cannot_reopen = ""
        self.in_doubt = self.stopping and bool(lost)
        self._dirty_all()  # who joined meanwhile
        _log.critical(
            "the store {store} was removed or replaced while it was in use; the {again} players"
            " in the game are saved again, lost is the newest state of {count} others: {players}",
            store=store,
            again=len(self._table),
            count=len(lost),
            players=named(lost) or "none",
        )
        self._outbox.sweep()
        self._outbox.resume()
