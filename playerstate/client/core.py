"""The client's side of the conversation: protocol version 1, without a socket and without a clock.

The caller passes the player's actions (`Client.join`, `Client.move`, `Client.leave`) and the
server's messages (`Client.received`), each with the time.  `Client.move` returns the message to
send; all others come from `Client.due`, to be called at `Client.wake_at`.

Datagrams get lost, so the client repeats each message that needs an answer until the answer comes:
the JOIN, the last MOVE if no newer one follows it, the LEAVE.  A repeated MOVE that is stale, or a
lost RECEIPT, does no harm: the PING sent with a repeated MOVE is answered by another RECEIPT.

A server that has been silent for `RECEIPT_WITHIN` may have restarted, so the client joins again.
If the server then has a state that this client sent or was welcomed with, only this client moved
the player: its own values are newer, and it sends the last ones again, with a sequence above the
JOIN's.  Any other state has another origin, such as another device while this client slept: it is
newer, and the client adopts it.  The client sends no move until the WELCOME has come, since an
earlier move could be applied before it is known which of the two cases holds.

The program around the server may change the player.  Then a STATE brings the new state, and the
client answers it with a SEEN, each time it comes: the first time with the highest sequence that it
has used, later with the same.  If fields of the client's were set, it goes on from their values;
what it sent before is refused or stale.

A move is sent as a DELTA if that is shorter: as steps from the newest MOVE of this conversation
that a RECEIPT has acknowledged as applied.  A MOVE is sent at least every `MOVE_EVERY`, so that
there is always a next base, and a server that has lost the base soon catches up.
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
    State,
    Welcome,
    encode_numbered,
)

RECONNECT_AFTER = 1.0
"""Seconds without a message after which a client that waits for an answer asks the server to move
the conversation to its present address: a router may have given the client another."""
REPEAT_EVERY = 0.5
"""Seconds after which an unanswered message is repeated."""
RECEIPT_WITHIN = 3.0
"""Seconds without a RECEIPT after which a client that waits for one joins again."""
MOVE_EVERY = 1.0
"""Seconds after which a move is sent as a MOVE, even if a DELTA would be shorter."""
MOVES_REMEMBERED = 32
"""MOVEs that may still become a base; if more are unacknowledged, some RECEIPTs were lost."""
STATES_REMEMBERED = 2048
"""States that a server may still have, the newest saved one and all later ones: 100 s of moves."""
RENUMBER_ABOVE = 2**31
"""If the last sequence is above this, the next conversation's sequences start from 1 again."""
TRY_AGAIN_AFTER = 0.5
"""Seconds of backoff until the next JOIN, after a server answered that it is stopping or cannot
load now; doubled with each such answer."""
TRY_AGAIN_AT_MOST = 8.0
PING_AFTER = 5.0
"""Seconds without sending after which a client sends a PING; a server considers a player to have
left after 30 s of silence, by default."""


_PASSING = (
    (Refused, RefusedReason.SHUTTING_DOWN),
    (Refused, RefusedReason.STORE),
    (Gone, GoneReason.SHUTTING_DOWN),
    (Gone, GoneReason.IDLE),
)
"""The temporary reasons: over when the server has restarted or its store works again, or when the
client is reachable again, as after its machine slept."""


def draw_nonce() -> int:
    """Return 32 random bits, the nonce that identifies one of a player's conversations."""
    return secrets.randbits(32)


class Phase(Enum):
    """The phase of a client's conversation."""

    JOINING = "joining"
    ONLINE = "online"
    LEAVING = "leaving"
    GONE = "gone"


class Client:
    """One player's conversations with a server, one after another.

    All times are seconds on a clock that never steps.

    Args:
        codec: of the state's schema.
        draw_nonce: returns a 32-bit number, a different one each time.
        sequence: the highest sequence of this player's earlier moves; 0 for none.
        deltas: encodes DELTAs; None for a client that sends MOVEs only.
        tries_again: whether to join again after a server answered that it is stopping or cannot
            load the player now, until `leave` is called.

    Attributes:
        phase: see `Phase`.
        sequence: of the last move.
        values: the player's state, as packed values: the last move's, or else the server's; in the
            fields that the server owns always those that the server sent last.
        applied: the highest sequence known to be applied by the server.
        saved: the highest sequence known to be in the server's store.
        welcome: the last WELCOME.
        ended_by: the server's message that ended the game without `leave`; else None.
        overruled: how many times the server's state replaced the client's own, which was older.
        changes: how many changes by the program arrived in STATEs; several may have come as one.
        overrides: how many of those set fields of the client's.
        receipts: how many RECEIPTs arrived.
        join_seconds: from the JOIN to its WELCOME; None until it arrives.
        leave_seconds: from the LEAVE to the RECEIPT that everything is saved; None likewise.
        wake_at: when to call `due` next.
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
        # The states that the server may have, by sequence, if only this client moved the player.
        self._states: deque[tuple[int, tuple[Any, ...]]] = deque(maxlen=STATES_REMEMBERED)
        self._moves: dict[int, tuple[Any, ...]] = {}
        self._base: tuple[int, tuple[Any, ...]] | None = None
        self._moved_at = -math.inf
        self.phase = Phase.GONE
        # Every move of a conversation has a sequence above its JOIN's.
        self.sequence = self._first = sequence
        self.values: tuple[Any, ...] = ()
        self.applied = self.saved = 0
        self.welcome: Welcome | None = None
        self.ended_by: Refused | Gone | None = None
        self.overruled = 0
        self.changes = self.overrides = 0
        # The number of this conversation's newest STATE, and the sequence to answer it with; and
        # the number of the newest STATE of all, whose change is in the client's state.
        self._seen = (0, 0)
        self._known = 0
        self._owes_seen = False
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
        # When the oldest message was sent that still waits for a RECEIPT.
        self._waits_since = math.inf

    @property
    def nonce(self) -> int:
        """The nonce of the present conversation."""
        return self._nonce

    @classmethod
    def of(
        cls,
        schema: StateSchema,
        draw_nonce: Callable[[], int] = draw_nonce,
        tries_again: bool = False,
    ) -> Client:
        """Make a client for this state; it sends DELTAs if a field has a resolution."""
        has_grid = any(field.kind.resolution is not None for field in schema.moved.fields)
        deltas = DeltaCodec(schema) if has_grid else None
        return cls(Codec(schema), draw_nonce, deltas=deltas, tries_again=tries_again)

    def join(self, now: float) -> None:
        """Begin a fresh conversation; the server's WELCOME gives the player's state."""
        self._leaves = False
        self._states.clear()
        self._ask_to_join(now)

    def move(self, values: tuple[Any, ...], now: float) -> bytes | None:
        """Return the MOVE or DELTA to the player's present state; allowed from `join` to `leave`.

        None while the player is joining: the state is sent after the WELCOME, unless the server has
        a newer one.

        With DELTAs, `Client.values` is the state snapped to the grid of the fields that have one.
        The fields that the server owns stay as they are; where it owns all, nothing is sent.

        Args:
            values: accepted packed values.
            now: the time.
        """
        if not self._codec.moved.fields:
            return None
        self.sequence += 1
        if self._deltas is not None:
            values = self._deltas.snap(values)
        self.values = self._with_the_servers(values, self.values or values)
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

    def _with_the_servers(
        self, values: tuple[Any, ...], latest: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """The state with these values of the client's fields, and the latest of the server's."""
        moved = self._codec.moved
        return values if moved.are_all else moved.put(moved.of(values), latest)

    def _delta(self) -> bytes | None:
        """The DELTA from the newest base, if there is one and it is shorter than a MOVE."""
        if self._deltas is None or self._base is None:
            return None
        delta = self._deltas.encode(self.sequence, *self._base, self.values)
        return delta if delta is not None and len(delta) < self._codec.move_size else None

    def leave(self, now: float) -> None:
        """Leave once the last move is known to be applied; does nothing when gone.

        A client that is joining waits for the WELCOME first, since the server may have accepted the
        JOIN.
        """
        self._leaves = True
        if self.phase is Phase.ONLINE:
            self._begin_to_leave(now)

    def rejoin(self, now: float) -> None:
        """Join again, as the server may have lost the conversation; allowed from `join` to the end.

        A client that has sent moves sends its last state again, unless the server has a newer one;
        a client that was leaving leaves then.
        """
        has_moved = self.sequence > self._first
        self._ask_to_join(now)
        if has_moved:
            self.sequence += 1

    def reconnect(self, now: float) -> None:
        """Have the server move the conversation, if any, to the client's present address."""
        if self.phase in (Phase.ONLINE, Phase.LEAVING):
            self._waits_since = min(self._waits_since, now - RECONNECT_AFTER)
            self._heard_at = -math.inf
            self.wake_at = now

    def end(self, why: Refused | Gone | None = None) -> None:
        """End the conversation on the client's side only; nothing is due any more."""
        self.phase = Phase.GONE
        self.ended_by = why
        self.wake_at = math.inf

    def due(self, now: float) -> list[bytes]:
        """Return the messages to send now, in order; none before `wake_at`."""
        if now < self.wake_at:
            return []
        if self.phase is not Phase.JOINING and now - self._waits_since >= RECEIPT_WITHIN:
            self.rejoin(now)
        self.wake_at = now + REPEAT_EVERY
        if self.phase is Phase.JOINING:
            return [self._codec.encode_join(self._nonce, self._first)]
        return [*self._due_seen(), *self._due_joined(now)]

    def _due_seen(self) -> list[bytes]:
        if not self._owes_seen:
            return []
        self._owes_seen = False
        return [self._codec.encode_seen(*self._seen)]

    def _due_joined(self, now: float) -> list[bytes]:
        silent_since = max(self._waits_since, self._heard_at)
        if now - silent_since >= RECONNECT_AFTER:
            join = self._codec.encode_join(self._nonce, self._first, secret=self._secret)
            return [join, *self._due_in(now)]
        return self._due_in(now)

    def _due_in(self, now: float) -> list[bytes]:
        """The messages due after the WELCOME."""
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
        """Receive a message of the server; one of another conversation changes nothing.

        Raises:
            Malformed: it cannot be read.
        """
        answer = self._codec.decode_server(message)
        if isinstance(answer, Receipt):
            if self.phase in (Phase.ONLINE, Phase.LEAVING):
                self._take_receipt(answer, now)
        elif isinstance(answer, State):
            if self.phase in (Phase.ONLINE, Phase.LEAVING):
                self._take_state(answer, now)
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
        """Whether to join again after this answer; a client that is leaving ends instead."""
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
            # Late moves belong to the old conversation, so none can be taken for a new one.
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
        self._owes_seen = False
        self._seen = (0, self._first)
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
            self.values = self._with_the_servers(self.values, welcome.values)
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

    def _take_state(self, state: State, now: float) -> None:
        self._heard_at = now
        if state.number < self._seen[0]:
            return  # it was overtaken by a newer one
        self._owes_seen = True
        self.wake_at = now
        if state.number == self._seen[0]:
            return
        if state.number == self._known:
            # Seen before the client joined again: all it sent since is newer.
            self._seen = (state.number, self._first)
            return
        self._seen = (state.number, self.sequence)
        self._known = state.number
        self.changes += 1
        if state.is_override:
            self.overrides += 1
            self.values = state.values
            self._states.clear()
            self._states.append((self.sequence, self.values))
            self._base, self._moved_at = None, -math.inf
            self._moves.clear()
        else:
            self.values = self._with_the_servers(self.values, state.values)

    def _make_sure(self, now: float) -> list[bytes]:
        """The last MOVE again, and a PING in case only its RECEIPT was lost."""
        return [self._codec.encode_move(self.sequence, self.values), self._ping(now)]

    def _ping(self, now: float) -> bytes:
        self._spoke(now)
        # A STATE may be due that nothing has paid for.
        return encode_numbered(PING, self.sequence, self._codec.ping_size)

    def _spoke(self, now: float) -> None:
        self._spoke_at = now
        if now < self._waits_since:
            self._waits_since = now
