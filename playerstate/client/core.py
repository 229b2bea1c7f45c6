"""A player's side of the conversation: protocol version 1, without a socket and without a clock.

A `Client` is told what its player wants (`Client.join`, `Client.move`, `Client.leave`) and what the
server said (`Client.received`), each with the time.  `Client.move` returns the message to send;
all else comes from `Client.due`, which is to be asked whenever `Client.wake_at` has come.

Datagrams get lost, so whatever the server is to answer is said again until it does: the JOIN, the
last MOVE where nothing newer follows it, the LEAVE.  A MOVE that was stale after all, or a RECEIPT
that was lost, does no harm: the PING that goes with a repeated MOVE brings another RECEIPT.

A server that has been silent for `RECEIPT_WITHIN` may have been started anew, so the client joins
again.  Where the server then has a state that this client sent, or was welcomed with, nothing but
this client moved the player: it knows better, and the last values go out once more, under a number
above the JOIN's.  Any other state came from elsewhere, another device perhaps, while this client
slept: it is newer, and taken over.  Until the WELCOME has come no move is sent, or a move of before
could be applied before it is known which of the two it is.

A move goes out as a DELTA where that is shorter: as steps away from the newest MOVE of this
conversation that a RECEIPT has shown as applied.  A MOVE goes out at least every `MOVE_EVERY`, so
that there is always a next base, and a server that has lost the base is not left behind for long.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from playerstate.state.schema import StateSchema
from playerstate.wire.deltas import DeltaCodec
from playerstate.wire.messages import (
    LEAVE,
    PING,
    Codec,
    Gone,
    GoneReason,
    Receipt,
    Refused,
    RefusedReason,
    Welcome,
    encode_numbered,
)

RECONNECT_AFTER = 1.0
"""Seconds without a word after which a client that is owed one has its conversation moved to where
it sends from now: a router that translates its address may have given it another."""
REPEAT_EVERY = 0.5
"""Seconds after which something unanswered is said again."""
RECEIPT_WITHIN = 3.0
"""Seconds without a RECEIPT after which a client that is owed one joins again."""
MOVE_EVERY = 1.0
"""Seconds after which a move goes out as a MOVE, whatever a DELTA would save."""
MOVES_REMEMBERED = 32
"""MOVEs that may yet become a base; a RECEIPT for more is some that were lost on the way."""
STATES_REMEMBERED = 2048
"""States that a server may still have, the newest saved one and what came after: 100 s of moves."""
RENUMBER_ABOVE = 2**31
"""The last move's number from which on the next conversation is numbered from 1 again."""
TRY_AGAIN_AFTER = 0.5
"""Seconds after which a JOIN follows on a server's word that it is stopping, or cannot load now;
they double with each such word."""
TRY_AGAIN_AT_MOST = 8.0
PING_AFTER = 5.0
"""Seconds of silence after which a client says that it is still there; a server takes one that it
has not heard for 30 s, by default, to have left."""


_PASSING = (
    (Refused, RefusedReason.SHUTTING_DOWN),
    (Refused, RefusedReason.STORE),
    (Gone, GoneReason.SHUTTING_DOWN),
    (Gone, GoneReason.IDLE),
)
"""What a server says that is over when it has been started anew, or its store is well again; and to
a client that could not be heard, and is there after all, as one whose machine slept."""


def draw_nonce() -> int:
    """32 random bits: a conversation's name, which no other of the player's has."""
    return secrets.randbits(32)


class Phase(Enum):
    """How far a client is in its conversation."""

    JOINING = "joining"
    ONLINE = "online"
    LEAVING = "leaving"
    GONE = "gone"


class Client:
    """One player's conversation with a server, then the next, and so on.

    All times are seconds on a clock that never steps.

    Args:
        codec: of the state's schema.
        draw_nonce: a number of 32 bits, another each time.
        sequence: the highest number this player's moves ever had; 0 for none.
        deltas: makes DELTAs; None for a client that sends MOVEs only.
        tries_again: whether to join again where a server says that it is stopping, or cannot load
            the player now, until told to leave.

    Attributes:
        phase: how far it is.
        sequence: the number of the last move.
        values: where the player stands, as packed values: the last move's, or else the welcome's.
        applied: the highest sequence the server has taken in, as far as is known.
        saved: the highest sequence the server's store holds, as far as is known.
        welcome: the answer to the last JOIN that was welcomed.
        ended_by: why the player is gone without having asked for it; else None.
        overruled: how many times the server's state was taken over the player's own, which was
            older.
        receipts: how many came.
        join_seconds: from the JOIN to its WELCOME; None while there is none.
        leave_seconds: from the LEAVE to the RECEIPT that everything is saved; None likewise.
        wake_at: when `due` is to be asked again.
    """

    def __init__(
        self,
        codec: Codec,
        draw_nonce: Callable[[], int],
        sequence: int = 0,
        deltas: DeltaCodec | None = None,
        tries_again: bool = False,
    ) -> None:
        self._codec = codec
        self._draw_nonce = draw_nonce
        self._deltas = deltas
        self._tries_again = tries_again
        self._try_again_after = TRY_AGAIN_AFTER
        # By number, what the server may have of this player, if nothing else moved it.
        self._states: deque[tuple[int, tuple[Any, ...]]] = deque(maxlen=STATES_REMEMBERED)
        self._moves: dict[int, tuple[Any, ...]] = {}
        self._base: tuple[int, tuple[Any, ...]] | None = None
        self._moved_at = -math.inf
        self.phase = Phase.GONE
        # Every move of a conversation is numbered above its JOIN's sequence.
        self.sequence = self._first = sequence
        self.values: tuple[Any, ...] = ()
        self.applied = self.saved = 0
        self.welcome: Welcome | None = None
        self.ended_by: Refused | Gone | None = None
        self.overruled = 0
        self.receipts = 0
        self.join_seconds: float | None = None
        self.leave_seconds: float | None = None
        self.wake_at = math.inf
        self._nonce = self._secret = 0
        self._heard_at = -math.inf
        self._joined_at = 0.0
        self._leaves = False
        self._left_at: float | None = None
        self._spoke_at = 0.0
        # When the oldest message was sent that is owed a RECEIPT.
        self._waits_since = math.inf

    @property
    def nonce(self) -> int:
        """The name of the present conversation."""
        return self._nonce

    @classmethod
    def of(
        cls,
        schema: StateSchema,
        draw_nonce: Callable[[], int] = draw_nonce,
        tries_again: bool = False,
    ) -> Client:
        """One whose player has this state, which sends DELTAs where a field has a resolution."""
        has_grid = any(field.kind.resolution is not None for field in schema.fields)
        deltas = DeltaCodec(schema) if has_grid else None
        return cls(Codec(schema), draw_nonce, deltas=deltas, tries_again=tries_again)

    def join(self, now: float) -> None:
        """Begin a fresh conversation; the server says where the player stands."""
        self._leaves = False
        self._states.clear()
        self._ask_to_join(now)

    def move(self, values: tuple[Any, ...], now: float) -> bytes | None:
        """The MOVE or DELTA to where the player stands now, from `join` to `leave`.

        None while the player is joining: it goes out after the WELCOME, if it still holds then.

        With DELTAs, `Client.values` is that place on the grid of the fields that have one.

        Args:
            values: accepted packed values.
            now: the time.
        """
        self.sequence += 1
        self.values = values if self._deltas is None else self._deltas.snap(values)
        if self.phase is Phase.JOINING:
            return None
        self._states.append((self.sequence, self.values))
        self._spoke(now)
        if now - self._moved_at < MOVE_EVERY and (delta := self._delta()) is not None:
            return delta
        if self._deltas is not None:
            self._moved_at = now
            self._moves[self.sequence] = self.values
            if len(self._moves) > MOVES_REMEMBERED:
                del self._moves[next(iter(self._moves))]
        return self._codec.encode_move(self.sequence, self.values)

    def _delta(self) -> bytes | None:
        """The DELTA from the newest base, if there is one and it is shorter than a MOVE."""
        if self._deltas is None or self._base is None:
            return None
        delta = self._deltas.encode(self.sequence, *self._base, self.values)
        return delta if delta is not None and len(delta) < self._codec.move_size else None

    def leave(self, now: float) -> None:
        """Leave once the last move is known to be applied; harmless when gone.

        A player who is still joining does so first, for the server may have taken the JOIN in.
        """
        self._leaves = True
        if self.phase is Phase.ONLINE:
            self._begin_to_leave(now)

    def rejoin(self, now: float) -> None:
        """Begin anew where the server may have lost the conversation, from `join` to the end.

        A player who has moved says where to, unless it was moved elsewhere since; and who was
        leaving goes on to.
        """
        has_moved = self.sequence > self._first
        self._ask_to_join(now)
        if has_moved:
            self.sequence += 1

    def reconnect(self, now: float) -> None:
        """Have the conversation moved to where the client sends from now, if there is one."""
        if self.phase in (Phase.ONLINE, Phase.LEAVING):
            self._waits_since = min(self._waits_since, now - RECONNECT_AFTER)
            self._heard_at = -math.inf
            self.wake_at = now

    def end(self, why: Refused | Gone | None = None) -> None:
        """The conversation is over, whatever the server thinks; nothing is due any more."""
        self.phase = Phase.GONE
        self.ended_by = why
        self.wake_at = math.inf

    def due(self, now: float) -> list[bytes]:
        """The messages to be sent now, in order; none before `wake_at`."""
        if now < self.wake_at:
            return []
        if self.phase is not Phase.JOINING and now - self._waits_since >= RECEIPT_WITHIN:
            self.rejoin(now)
        self.wake_at = now + REPEAT_EVERY
        if self.phase is Phase.JOINING:
            return [self._codec.encode_join(self._nonce, self._first)]
        silent_since = max(self._waits_since, self._heard_at)
        if now - silent_since >= RECONNECT_AFTER:
            join = self._codec.encode_join(self._nonce, self._first, secret=self._secret)
            return [join, *self._due_in(now)]
        return self._due_in(now)

    def _due_in(self, now: float) -> list[bytes]:
        """What is due of one who is welcomed."""
        if self.phase is Phase.LEAVING:
            if self.applied < self.sequence:
                return self._make_sure(now)
            if self._left_at is None:
                self._left_at = now
            return [encode_numbered(LEAVE, self.sequence)]
        silent = now - self._spoke_at
        if self.applied < self.sequence and silent >= REPEAT_EVERY:
            return self._make_sure(now)
        if silent >= PING_AFTER:
            return [self._ping(now)]
        return []

    def received(self, message: bytes, now: float) -> None:
        """Take in a message of the server; one of another conversation changes nothing.

        Raises:
            Malformed: it is none.
        """
        answer = self._codec.decode_server(message)
        if isinstance(answer, Receipt):
            if self.phase in (Phase.ONLINE, Phase.LEAVING):
                self._take_receipt(answer, now)
        elif answer.nonce != self._nonce or self.phase is Phase.GONE:
            return
        elif isinstance(answer, Welcome) and self.phase is not Phase.JOINING:
            self._heard_at = now
        elif self._is_passing(answer):
            self.rejoin(now)
            self.wake_at = now + self._try_again_after
            self._try_again_after = min(2 * self._try_again_after, TRY_AGAIN_AT_MOST)
        elif isinstance(answer, Gone):
            self.end(answer)
        elif self.phase is Phase.JOINING:
            if isinstance(answer, Welcome):
                self._enter(answer, now)
            else:
                self.end(answer)

    def _is_passing(self, answer: Welcome | Refused | Gone) -> bool:
        """Whether to join again after this answer; one who is leaving is rather told of it."""
        if not self._tries_again or self._leaves or isinstance(answer, Welcome):
            return False
        return (type(answer), answer.reason) in _PASSING

    def _is_of_us(self, welcome: Welcome) -> bool:
        """Whether the server's state is one that this client sent or was welcomed with."""
        pack = self._codec.encode_move
        found = pack(0, welcome.values)
        return any(pack(0, values) == found for _, values in self._states)

    def _ask_to_join(self, now: float) -> None:
        self.phase = Phase.JOINING
        self.ended_by = None
        self.join_seconds = self.leave_seconds = None
        self._nonce = self._draw_nonce()
        if self.sequence > RENUMBER_ABOVE:
            # Old moves are of another conversation, so that none is taken for a new one.
            self.sequence = self.applied = self.saved = 0
            self._states = deque(((0, values) for _, values in self._states), STATES_REMEMBERED)
        self._first = self.sequence
        self._joined_at = self.wake_at = now

    def _enter(self, welcome: Welcome, now: float) -> None:
        self.welcome = welcome
        self._secret = welcome.secret
        self._heard_at = now
        self.applied = self._first
        self._base, self._moved_at = None, -math.inf
        self._moves.clear()
        self.join_seconds = now - self._joined_at
        self.phase = Phase.ONLINE
        self.wake_at = now + REPEAT_EVERY
        self._waits_since = math.inf
        self._try_again_after = TRY_AGAIN_AFTER
        plays_on = self._states or self.sequence > self._first
        if plays_on and not self._is_of_us(welcome):
            self.sequence = self._first
            self.overruled += 1
        if self.sequence == self._first:
            self.values = welcome.values
            self._states.clear()
            self._states.append((self.sequence, self.values))
            self._spoke_at = now
        else:
            self._states.append((self.sequence, self.values))
            self._spoke_at = -math.inf
            self.wake_at = now
        if self._leaves:
            self._begin_to_leave(now)

    def _begin_to_leave(self, now: float) -> None:
        self.phase = Phase.LEAVING
        self._left_at = None
        self.wake_at = self._waits_since = now

    def _take_receipt(self, receipt: Receipt, now: float) -> None:
        self.receipts += 1
        self._heard_at = now
        if (shown := self._moves.get(receipt.applied)) is not None:
            self._base = receipt.applied, shown
            self._moves = {n: move for n, move in self._moves.items() if n > receipt.applied}
        self.applied = max(self.applied, receipt.applied)
        self.saved = max(self.saved, receipt.saved)
        states = self._states
        while len(states) > 1 and states[1][0] <= self.saved:
            states.popleft()
        if self.phase is Phase.ONLINE:
            self._waits_since = math.inf
            return
        self._waits_since = now
        if self._left_at is None:
            if self.applied >= self.sequence:
                self.wake_at = now
        elif self.saved >= self.sequence:
            self.leave_seconds = now - self._left_at
            self.end()

    def _make_sure(self, now: float) -> list[bytes]:
        """The last MOVE once more, and a PING for the case that only its RECEIPT was lost."""
        return [self._codec.encode_move(self.sequence, self.values), self._ping(now)]

    def _ping(self, now: float) -> bytes:
        self._spoke(now)
        return encode_numbered(PING, self.sequence)

    def _spoke(self, now: float) -> None:
        self._spoke_at = now
        if now < self._waits_since:
            self._waits_since = now
