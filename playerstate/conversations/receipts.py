"""Decides when to send a RECEIPT, which says how far a player's moves have come.

A RECEIPT is due when one of its two sequences has changed since the last, at most once a period for
one player, and spread over that period, so that the RECEIPTs of many players never go out at once.
It must be paid for by bytes that came from the player's address, so that the address of a victim
never gets more bytes than were sent in its name.
Reactor thread only.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator

import numpy as np

from playerstate.arguments import MAX_SEQUENCE
from playerstate.conversations.conversation import Conversation
from playerstate.conversations.pace import Turns, period
from playerstate.ledger import Ledger
from playerstate.live.table import LiveTable
from playerstate.state.schema import StateSchema
from playerstate.wire.messages import encode_receipt

_IN_HAND = 2.0
"""How many RECEIPTs a conversation can have paid for: one says applied, one says saved."""


class Receipts:
    """What each player was last sent, by slot of the live table.

    An argument `players` is always the number of players with a conversation.

    Attributes:
        paid: how many RECEIPTs each slot's conversation has paid for; the callers add to it with
            each of its messages.  An array's elements are set faster than numpy's.
        paid_at: the same memory as a numpy array, for many slots at once.

    Args:
        schema: the players' schema.
        state_costs: how many RECEIPTs have the bytes of a STATE; a conversation can have paid for
            one in addition.
        table: the live table, which holds each player's sequences.
        ledger: where receipts are counted.
        seconds: returns the time, on a clock that never steps.
        jitter: returns a number from 0 to 1, to spread receipts over time.
    """

    def __init__(
        self,
        schema: StateSchema,
        state_costs: float,
        table: LiveTable,
        ledger: Ledger,
        seconds: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._pack_fields = schema.struct.pack
        self._most_in_hand = _IN_HAND + state_costs
        self._table = table
        self._ledger = ledger
        self._seconds = seconds
        self._jitter = jitter
        self._applied = np.zeros(0, np.uint64)
        self._saved = np.zeros(0, np.uint64)
        # Infinite where there is no conversation: nothing is ever due there.
        self._at = np.zeros(0)
        self.paid = array("d")
        self._fit()
        self._turns = Turns()

    def begin(self, slot: int, sequence: int, players: int) -> None:
        """A conversation begins at this slot, above this sequence."""
        self._fit()
        self._applied[slot] = self._saved[slot] = sequence
        self._at[slot] = self._seconds() - self._jitter() * period(players)
        self.restart(slot)

    def restart(self, slot: int) -> None:
        """A JOIN came from a new address: what the old one paid is not spent on the new one."""
        self.paid[slot] = 1.0

    def spend(self, slot: int, receipts: float) -> None:
        """A message of this many RECEIPTs' bytes is sent; it must be paid for."""
        self.paid[slot] = min(self.paid[slot], self._most_in_hand) - receipts

    def _fit(self) -> None:
        """Grow the arrays to the table's room."""
        if more := self._table.room - len(self._at):
            self._applied = np.append(self._applied, np.zeros(more, np.uint64))
            self._saved = np.append(self._saved, np.zeros(more, np.uint64))
            self._at = np.append(self._at, np.full(more, math.inf))
            self.paid = self.paid + array("d", [0.0]) * more
            self.paid_at = np.frombuffer(self.paid, np.float64)

    def end(self, slot: int) -> None:
        """The conversation at this slot is over."""
        self._at[slot] = math.inf

    def answer(self, conversation: Conversation, players: int) -> None:
        """Send a paid receipt now, or when the next is due if the last is too recent."""
        slot = conversation.slot
        if self._seconds() - self._at[slot] >= period(players):
            self.show(conversation)
        else:
            self._applied[slot] = MAX_SEQUENCE + 1

    def show(self, conversation: Conversation) -> None:
        """Send a receipt now; it must be paid for."""
        slot, table = conversation.slot, self._table
        fields = self._pack_fields(*table.values(slot))
        self.show_this(conversation, table.sequence(slot), fields)

    def show_this(self, conversation: Conversation, applied: int, fields: bytes) -> None:
        """Send a receipt for the newest move, given its sequence and packed fields.

        Does not touch the table's rows.
        """
        slot = conversation.slot
        saved = int(self._table.saved[slot])
        self._applied[slot], self._saved[slot] = applied, saved
        self._at[slot] = self._seconds()
        self.spend(slot, 1.0)
        self._ledger.receipts += 1
        # A state that came whole, by a MOVE, is a base for DELTAs once a receipt has shown it.
        if applied != self._table.last_non_base[slot]:
            conversation.keep_base(applied, fields)
        conversation.send(encode_receipt(applied, saved))

    def due(self, now: float, players: int) -> Iterator[tuple[int, int, bytes]]:
        """The receipts that are due, limited so that they spread over their period.

        Their contents are read from the table at once: sending takes milliseconds, and touching
        rows in between would need a check of the live file each time.

        Returns:
            For each, the slot, the highest sequence applied, and the packed fields.
        """
        self._fit()
        high = self._table.high_water
        sequences, saved = self._table.sequences(), self._table.saved[:high]
        # The last paid receipt is kept for when all is saved.
        worth_it = (saved == sequences) | (self.paid_at[:high] >= _IN_HAND)
        changed = sequences != self._applied[:high]
        changed |= worth_it & (saved != self._saved[:high])
        changed &= self._at[:high] <= now - period(players)
        changed &= self.paid_at[:high] >= 1.0
        due = self._turns.take(np.flatnonzero(changed), players)
        return zip(due.tolist(), sequences[due].tolist(), self._table.fields(due), strict=True)
