"""Applies moves one by one or many together, by one rule.

A MOVE or a DELTA is checked in this order, and its outcome is the first that holds:

1. ``NOT_JOINED``: the player has no conversation.
2. ``OTHER_ADDRESS``, ``OTHER_CONVERSATION``: it does not belong to that conversation.
3. malformed: it cannot be read, or a value lies outside its field.  A message that can be read pays
   for receipts, whatever its outcome.
4. ``LEAVING``: its sequence is above the last that is accepted of a leaving player.
5. ``NOT_SEEN``: the program set fields of the client's, and the client's SEEN has not come.
6. ``STOPPING``: the service accepts no more updates.
7. ``STALE``: its sequence is not above the highest applied.
8. ``JUDGE_FAILED``, or a judge's reason: the gateway has judges, and they do not let it pass.  The
   player is put back.
9. ``APPLIED``: it is in the live table.

A DELTA's sequence and base are resolved between 3 and 4, where ``UNKNOWN_BASE`` may result.
`Intake.one` does this for one message, `Intake.many` for the first MOVE of each player from whom
nothing but MOVEs came, column by column.  Messages that `many` does not apply are left to `one`,
which alone decides their outcome.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import numpy as np

from playerstate.arguments import MAX_SEQUENCE
from playerstate.conversations.conversation import Conversation, Phase
from playerstate.conversations.judging import Judging
from playerstate.conversations.registry import Registry
from playerstate.ledger import Judged, Outcome
from playerstate.players.run import Run
from playerstate.wire.deltas import Delta, DeltaCodec
from playerstate.wire.messages import MOVE, Codec, Malformed, receipts_for

BATCH_MIN = 16
"""From this many messages at a time on, `many` is worth the fixed costs of numpy."""
JUDGED_BATCH_MIN = 2
"""The same where moves are judged, since a move alone is judged by numpy too."""

_EVEN = -2
"""Masks the date of a move; see `LiveTable.apply`."""

# Used for each move: a module global is faster to look up than a member of an enum.
_PLAYING = Phase.PLAYING
_APPLIED, _STALE = Outcome.APPLIED, Outcome.STALE


class Intake:
    """Applies moves to the live table.

    Args:
        run: the service's run, whose players move.
        registry: the conversations, with the receipts that each move pays for, and the time of
            each last message.
        batch_min: see `BATCH_MIN`; at most `JUDGED_BATCH_MIN` where moves are judged.
        judging: applies the moves that the gateway's judges pass; None without judges.

    Attributes:
        batch_min: the fewest messages at a time for which to call `many`.
    """

    def __init__(
        self,
        run: Run,
        registry: Registry,
        batch_min: int = BATCH_MIN,
        judging: Judging | None = None,
    ) -> None:
        self._run = run
        self._table = run.table
        self._ledger = run.ledger
        self._wall_clock = run.wall_clock
        self._unpack_state = run.schema.struct.unpack
        self._moved = run.schema.moved
        self._current = registry.current
        self._receipts, self._silence = registry.receipts, registry.silence
        self.batch_min = batch_min if judging is None else min(batch_min, JUDGED_BATCH_MIN)
        self._judging = judging
        self._codec = Codec(run.schema)
        self._deltas = DeltaCodec(run.schema)
        self._move_pays = receipts_for(self._codec.move_size)

    def one(
        self, session_id: int, peer: Any, message: bytes, at: int, nonce: int | None
    ) -> Outcome | Judged:
        """Apply or reject the MOVE or DELTA from `at` to the end of `message`.

        The caller has called `guard`.

        Args:
            session_id: the player's.
            peer: where it came from.
            message: the bytes.
            at: the offset at which the MOVE or DELTA begins.
            nonce: of the conversation it belongs to; None if the transport delivers no messages of
                a peer's earlier conversations.

        Returns:
            The outcome, which the caller counts.

        Raises:
            Malformed: the third check above.
        """
        conversation = self._current.get(session_id)
        if conversation is None:
            return Outcome.NOT_JOINED
        if (rejected := conversation.rejects(peer, nonce)) is not None:
            return rejected
        if message[at] == MOVE:
            sequence, values = self._codec.decode_move(message, at)
            self._receipts.paid[conversation.slot] += self._move_pays
            return self._apply(conversation, sequence, values)
        delta = self._deltas.decode(message, at)
        self._receipts.paid[conversation.slot] += receipts_for(len(message) - at)
        return self._apply_delta(conversation, delta)

    def _apply(
        self, conversation: Conversation, sequence: int, values: tuple[Any, ...]
    ) -> Outcome | Judged:
        slot, silence = conversation.slot, self._silence
        if conversation.phase is _PLAYING:
            silence.last_heard[slot] = silence.now
        if not conversation.takes_moves:
            rejected = conversation.rejects_move(sequence)
            if rejected is not None:
                return rejected
        if not self._run.accepts:
            return Outcome.STOPPING
        if self._judging is not None:
            return self._judge(self._judging, slot, sequence, values)
        was_clean = self._table.apply(slot, sequence, values, self._wall_clock() // 1000 & _EVEN)
        if was_clean is None:
            return _STALE
        if not was_clean:
            self._ledger.superseded += 1
        return _APPLIED

    def _judge(
        self, judging: Judging, slot: int, sequence: int, values: tuple[Any, ...]
    ) -> Outcome | Judged:
        """Do what `_apply` does once all else is checked, as the judges decide."""
        if sequence <= self._table.sequence(slot):
            return _STALE
        fields = np.frombuffer(self._moved.struct.pack(*values), self._moved.dtype)
        now = self._wall_clock() // 1000 & _EVEN
        [(outcome, _)] = judging.apply(
            np.array([slot]), np.array([sequence], np.uint64), fields, now
        )
        return outcome

    def many(
        self,
        session_ids: Sequence[int],
        peers: Sequence[Any],
        messages: Sequence[bytes],
        at: int,
        nonces: Sequence[int] | None,
    ) -> Sequence[int]:
        """Apply the moves among messages of the same time that can be applied together; count them.

        Applies none if fewer than `batch_min` qualify.  The arguments are those of `one`, as
        parallel sequences.

        Returns:
            The positions of the messages that are left, in order.
        """
        numbers = range(len(messages))
        chosen, playing = self._choose(session_ids, peers, messages, at, nonces)
        if len(chosen) < self.batch_min or not self._run.accepts:
            return numbers
        moves = self._codec.decode_moves([messages[number] for number in chosen], at)
        slots = np.array([conversation.slot for conversation in playing], np.intp)
        sequences, fields = moves["sequence"], moves["fields"]
        good = self._moved.accept_many(fields)
        self._run.guard()  # as late as possible: a truncation after it goes unnoticed
        good &= sequences > self._table.sequences(slots)
        if not good.all():
            slots, sequences, fields = slots[good], sequences[good], fields[good]
            chosen = list(compress(chosen, good.tolist()))
        now = self._wall_clock() // 1000 & _EVEN
        # Before they are applied, as in `one`: a listener that is told of a player put back may
        # end any conversation.
        self._silence.last_heard_at[slots] = self._silence.now
        self._receipts.paid_at[slots] += self._move_pays
        if self._judging is None:
            self._ledger.superseded += self._table.apply_many(slots, sequences, fields, now)
            self._ledger.take_in(_APPLIED, len(chosen))
        elif len(chosen):
            for outcome, number in self._judging.apply(slots, sequences, fields, now):
                self._ledger.take_in(outcome, number)
        if len(chosen) == len(messages):
            return ()
        return sorted(set(numbers).difference(chosen))

    def _choose(
        self,
        session_ids: Sequence[int],
        peers: Sequence[Any],
        messages: Sequence[bytes],
        at: int,
        nonces: Sequence[int] | None,
    ) -> tuple[list[int], list[Conversation]]:
        """Each first message of players who sent MOVEs only, by position; their conversations."""
        size = at + self._codec.move_size
        firsts = dict(zip(reversed(session_ids), reversed(range(len(messages))), strict=True))
        for session_id, message in zip(session_ids, messages, strict=True):
            if len(message) != size or message[at] != MOVE:
                firsts.pop(session_id, None)
        current, chosen, playing = self._current, [], []
        for session_id, number in firsts.items():
            conversation = current.get(session_id)
            if (
                conversation is not None
                and conversation.peer == peers[number]
                and (nonces is None or conversation.nonce == nonces[number])
                and conversation.takes_moves
            ):
                chosen.append(number)
                playing.append(conversation)
        return chosen, playing

    def _apply_delta(self, conversation: Conversation, delta: Delta) -> Outcome | Judged:
        slot, table = conversation.slot, self._table
        highest = table.sequence(slot)
        sequence = delta.sequence_after(highest)
        if sequence > MAX_SEQUENCE:
            raise Malformed("value")
        if sequence <= highest:
            # A stale one need not be restored, and its base may be gone.
            return self._apply(conversation, sequence, ())
        base = conversation.find_base(delta.base_of(sequence))
        if base is None:
            return Outcome.UNKNOWN_BASE
        values = self._deltas.restore(delta, self._unpack_state(base))
        outcome = self._apply(conversation, sequence, values)
        if outcome is _APPLIED:
            # A state from a DELTA is no base: an error would be passed on.
            table.last_non_base[slot] = sequence
        return outcome
