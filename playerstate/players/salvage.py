"""Watches the live file while it is in use, and recreates it when it was lost.

Reactor thread.  The rows are the file: a process that overwrites it overwrites the players, and one
that truncates it removes them.  So the table tells which rows are its own; the others are loaded
from the store again, and nothing that another process wrote is saved under a player's id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from playerstate.clock import SteadyClock
from playerstate.interfaces import Stored, StoreUnusable
from playerstate.ledger import Ledger
from playerstate.live.memory import RowMemory
from playerstate.live.table import LiveTable
from playerstate.log import PrintableLogger
from playerstate.saving.commit import named
from playerstate.saving.health import Trouble
from playerstate.sparing import SparingLogger
from playerstate.state.schema import StateSchema

LOST_LINES = 5
"""Log lines of a kind a minute about a live file that was lost, however often another process
removes or cuts it."""

_log = PrintableLogger()


class Salvage:
    """Watches the live file of one run.

    Args:
        schema: the players' schema.
        table: the live table, whose rows lie in the file.
        memory: the file.
        clock: measures how long the file has been missing.
        load: reads a player from the store, as `IStateReader.load`.
        in_flight: returns how many rows are on their way to the store.
        ledger: counts how often the file was lost.
        restored: called when players whose rows were lost count as saved, although no commit
            said so: those who have left can be released.
    """

    def __init__(
        self,
        schema: StateSchema,
        table: LiveTable,
        memory: RowMemory,
        clock: SteadyClock,
        load: Callable[[int], Any],
        in_flight: Callable[[], int],
        ledger: Ledger,
        restored: Callable[[], None],
    ) -> None:
        self._schema = schema
        self._table = table
        self._memory = memory
        self._clock = clock
        self._load = load
        self._in_flight = in_flight
        self._ledger = ledger
        self._restored = restored
        # `updated_at` of each player whose row was not ours, until the stored row is loaded.
        self._disowned: dict[int, int] = {}
        self._cannot_renew = ""
        self._lost_at = 0.0
        self._lines = SparingLogger(_log, clock.seconds, lines=LOST_LINES)

    @property
    def trouble(self) -> Trouble | None:
        """Why a kill would lose what is not yet committed, and since when."""
        if not self._cannot_renew:
            return None
        return Trouble(self._cannot_renew, self._clock.seconds() - self._lost_at)

    def guard(self) -> str:
        """Make sure that the rows are the table's own; to be called before any is read.

        Returns:
            What happened to the file; empty if nothing.
        """
        if not (why := self._memory.lost()):
            return ""
        if (kept := self._memory.salvage(self._table.used_bytes)) is not None:
            self._lost_at = self._clock.seconds()
            self._table.lie_in(kept)
            self._disown()
        return why

    def check(self) -> None:
        """Make sure that the next start will find the live file; recreate it if it would not.

        If it cannot be recreated, play goes on: moves still reach the store.
        """
        if why := self.guard():
            self._renew(why)
        if self._disowned and not self._in_flight():
            self._reload()

    def _disown(self) -> None:
        lost = [self._table.session_id(slot) for slot in self._table.disown()]
        if not lost:
            return
        for session_id in lost:
            self._disowned[session_id] = self._table.updated_at(self._table.slots[session_id])
        self._lines.critical(
            "the rows of {count} players in the live file were cut off or written over: player"
            " {players}; they are loaded from the store again, and what it does not have of them"
            " is lost",
            count=len(lost),
            players=named(lost),
        )

    def _renew(self, why: str) -> None:
        if not self._cannot_renew:  # else it is the same loss
            self._ledger.live_file_losses += 1
        try:
            self._table.lie_in(self._memory.renew(self._table.used_bytes))
        except StoreUnusable as error:
            if str(error) != self._cannot_renew:
                self._cannot_renew = str(error)
                self._lines.critical(
                    "the live file was {why} while it was in use, and cannot be made anew: {error};"
                    " the server retries, and until then a kill loses what is not yet committed",
                    why=why,
                    error=error,
                )
            return
        self._cannot_renew = ""
        self._lines.critical(
            "the live file was {why} while it was in use; it was made anew with the {players}"
            " players in the game",
            why=why,
            players=len(self._table),
        )

    def _reload(self) -> None:
        """Load the disowned players from the store, which now has all rows that were in flight."""
        disowned, self._disowned = self._disowned, {}
        for session_id, dated in disowned.items():
            loading = maybeDeferred(self._load, session_id)
            loading.addCallback(self._loaded, session_id, dated)
            loading.addErrback(self._again, session_id, dated)
        self._restored()

    def _loaded(self, stored: Stored | None, session_id: int, dated: int) -> None:
        slot = self._table.slots.get(session_id)
        if slot is None or self._table.updated_at(slot) != dated or self._table.is_dirty(slot):
            return  # left, or moved since: a move carries the whole state
        if stored is None:
            self._table.restore(slot, self._schema.spawn, 0)
        else:
            values = self._schema.restore(stored.values)
            self._table.restore(slot, values, max(stored.updated_at, 1))

    def _again(self, failure: Failure, session_id: int, dated: int) -> None:
        """The store cannot be read now; the next check retries."""
        self._disowned[session_id] = dated
