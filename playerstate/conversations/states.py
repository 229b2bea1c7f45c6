"""Tells clients what the program changed, by a STATE, and takes in the SEEN that answers it.

An *override* sets fields of the client's.  From then until the client's SEEN, the player's moves
are refused: they may have been sent before the client knew.  After it, every sequence that the
client used before is stale.  A change of server-owned fields alone is told too, and interrupts no
movement.

If the conversation ends before its SEEN comes, the next one begins with the same STATE, under the
same number.  A player who left meanwhile, or was offline, is told by the WELCOME alone: no move
that was on its way can reach the new conversation.  It could where the new conversation has the
nonce of one that ended, or of one of a process that died: so there the STATE comes too, if the
player's newest state is an override.

A STATE is repeated until its SEEN comes, with growing gaps.  Like a RECEIPT it must be paid for by
bytes from the player's address: the JOIN and each SEEN pay for some in advance.  Reactor thread
only.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator

import numpy as np

from playerstate.conversations.conversation import Conversation, Phase
from playerstate.conversations.pace import Turns, period
from playerstate.conversations.receipts import Receipts
from playerstate.ledger import Ledger
from playerstate.live.table import LiveTable
from playerstate.wire.messages import STATES_PAID, Codec, Malformed, Seen, encode_state

LONGEST_GAP = 16
"""The most periods between two STATEs with the same number: the gap doubles up to this."""


class States:
    """What of the program's changes each player has still to be told, by slot of the live table.

    An argument `players` is always the number of players with a conversation.

    Args:
        codec: of the players' schema.
        table: the live table, which holds what is told.
        receipts: what each conversation has paid.
        ledger: where STATEs are counted.
        seconds: returns the time, on a clock that never steps.
    """

    def __init__(
        self,
        codec: Codec,
        table: LiveTable,
        receipts: Receipts,
        ledger: Ledger,
        seconds: Callable[[], float],
    ) -> None:
        self._cost = codec.state_costs
        self._table = table
        self._receipts = receipts
        self._ledger = ledger
        self._seconds = seconds
        self._turns = Turns()
        # The number of the newest change that the player has not seen; 0 for none.
        self._number = np.zeros(0, np.int64)
        self._sent_at = np.zeros(0)
        self._gap = np.zeros(0)
        # How many STATEs each slot's conversation has paid for in advance.
        self._prepaid = array("d")
        # The slots with such a number: few, mostly, so that a tick need not look at all.
        self._waiting: set[int] = set()

    def _fit(self) -> None:
        """Grow the arrays to the table's room."""
        if more := self._table.room - len(self._number):
            self._number = np.append(self._number, np.zeros(more, np.int64))
            self._sent_at = np.append(self._sent_at, np.full(more, -math.inf))
            self._gap = np.append(self._gap, np.zeros(more))
            self._prepaid = self._prepaid + array("d", [0.0]) * more

    def begin(self, conversation: Conversation, players: int) -> None:
        """A conversation begins; its player is told of an override that no client has seen."""
        self._fit()
        slot = conversation.slot
        self._sent_at[slot] = -math.inf
        self.restart(conversation)
        if self._table.unseen[slot]:
            self.changed(conversation, True, players)

    def restart(self, conversation: Conversation) -> None:
        """A JOIN came from a new address: what the old one paid is not spent on the new one."""
        self._prepaid[conversation.slot] = conversation.states_paid

    def changed(self, conversation: Conversation, is_override: bool, players: int) -> None:
        """The program changed the player, just now; the newest row is what is to be told.

        A player who is leaving is told after the next JOIN; the last moves are refused all the same
        if they were sent before an override.
        """
        slot = conversation.slot
        number = self._table.updated_at(slot)
        if is_override:
            conversation.override = number
            conversation.takes_moves = False
        if conversation.phase is not Phase.PLAYING:
            return
        self._waiting.add(slot)
        self._number[slot] = number
        self._gap[slot] = 0.0

    def end(self, slot: int) -> None:
        """Nothing more is told to this slot's player."""
        if slot in self._waiting:
            self._waiting.remove(slot)
            self._number[slot] = 0

    def seen(self, conversation: Conversation, seen: Seen) -> None:
        """A client has seen a STATE.

        Raises:
            Malformed: the client was sent none with this number.
        """
        if not conversation.was_told(seen.number):
            raise Malformed("value")
        slot, table = conversation.slot, self._table
        self._prepaid[slot] = min(self._prepaid[slot] + 1.0, STATES_PAID)
        if conversation.override and seen.number >= conversation.override:
            table.start_generation(slot, max(table.sequence(slot), seen.sequence))
            table.unseen[slot] = 0
            conversation.go_on()
        if seen.number == self._number[slot]:
            self.end(slot)

    def due(self, now: float, players: int) -> Iterator[tuple[int, int, bytes]]:
        """The STATEs that are due and paid for, limited so that they spread over their period.

        Their contents are read from the table at once: sending takes milliseconds, and touching
        rows in between would need a check of the live file each time.

        Returns:
            For each, the slot, the number, and the packed fields.
        """
        if not self._waiting:
            return iter(())
        slots = np.fromiter(self._waiting, np.intp, len(self._waiting))
        slots.sort()
        is_due = self._sent_at[slots] + np.maximum(self._gap[slots], period(players)) <= now
        is_due &= (np.frombuffer(self._prepaid, np.float64)[slots] >= 1.0) | (
            self._receipts.paid_at[slots] >= self._cost
        )
        due = self._turns.take(slots[is_due], players)
        fields = self._table.fields(due)
        return zip(due.tolist(), self._number[due].tolist(), fields, strict=True)

    def tell(self, conversation: Conversation, number: int, fields: bytes, players: int) -> None:
        """Send a STATE that is due."""
        slot = conversation.slot
        if self._prepaid[slot] >= 1.0:
            self._prepaid[slot] -= 1.0
        else:
            self._receipts.spend(slot, self._cost)
        self._sent_at[slot] = self._seconds()
        least = period(players)
        self._gap[slot] = min(max(2 * self._gap[slot], least), LONGEST_GAP * least)
        self._ledger.states += 1
        conversation.tell(number)
        conversation.send(encode_state(conversation.override != 0, number, fields))
