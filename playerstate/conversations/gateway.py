"""Players' conversations: JOIN, moves, receipts, LEAVE.

The gateway stands between transports, which know addresses, and the service, which knows players.
A *peer* is an opaque token from a transport: the gateway compares it and hands it back for sending,
and never looks into it.  Reactor thread only.

A player has at most one conversation, named by the nonce of its JOIN.  It ends by a LEAVE that is
saved, by idleness, by a JOIN with another nonce, by `Gateway.kick`, when the embedding program
takes the player offline, or when the gateway closes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from playerstate.arguments import check_seconds, check_session_id
from playerstate.conversations.conversation import Phase, Transport
from playerstate.conversations.departures import Departures
from playerstate.conversations.intake import BATCH_MIN, Intake
from playerstate.conversations.joins import Joins, draw_secret
from playerstate.conversations.judges import Judges, checked
from playerstate.conversations.judging import Judging
from playerstate.conversations.last_moves import LastMoves
from playerstate.conversations.pace import TICK
from playerstate.conversations.receipts import Receipts
from playerstate.conversations.registry import Registry
from playerstate.conversations.silence import Silence
from playerstate.conversations.states import States
from playerstate.interfaces import IMoveJudge
from playerstate.ledger import Judged, Outcome
from playerstate.log import PrintableLogger
from playerstate.players.leaves import Progress
from playerstate.players.service import PlayerStateService
from playerstate.sparing import SparingLogger
from playerstate.waiters import Waiters, tell
from playerstate.wire.messages import (
    DELTA,
    JOIN,
    LEAVE,
    MOVE,
    PING,
    SEEN,
    Codec,
    GoneReason,
    Malformed,
    decode_join,
    decode_numbered,
)

IDLE_LOOK_EVERY = 1.0
"""Seconds between two checks for idle players, at most; a quarter of a short timeout."""
LOOK_EVERY = 16
"""Messages taken one by one between two checks of the live file."""

_UPDATES = (MOVE, DELTA)
_NUMBERED = (LEAVE, PING)
_log = PrintableLogger()


class Gateway:
    """All conversations of one service.

    Args:
        service: the players' service; to be started before `start`.
        idle_timeout: seconds without a message after which a player counts as gone.
        judges: which moves may be applied: those that all of them pass.  The first that rejects a
            move gives the reason that it is counted under, and the player is put back.
        jitter: returns a number from 0 to 1, to spread receipts over time.
        draw_secret: returns a new unguessable number of 64 bits, not 0.

    Raises:
        TypeError: an argument is of the wrong type, or a judge is none; the message names it.
        ValueError: an argument is out of its range, or a judge does not fit the service's state
            class; the message names it.
    """

    def __init__(
        self,
        service: PlayerStateService,
        *,
        idle_timeout: float = 30.0,
        judges: Iterable[IMoveJudge] = (),
        jitter: Callable[[], float] = random.random,
        draw_secret: Callable[[], int] = draw_secret,
    ) -> None:
        self.service = service
        self.idle_timeout = check_seconds("idle_timeout", idle_timeout, 0.1, 86_400.0)
        self._judges = checked(judges, service.schema)
        self._jitter = jitter
        self._draw_secret = draw_secret
        self._batch_min = BATCH_MIN
        self._run: Run | None = None
        self._closers: Waiters[None, None] = Waiters()

    def start(self) -> None:
        """Begin to answer; does nothing if another transport has started this gateway already.

        Raises:
            NotRunning: the service was never started.
        """
        if self._run is None:
            self._run = Run(
                self.service,
                self.idle_timeout,
                self._judges,
                self._jitter,
                self._draw_secret,
                self._batch_min,
            )

    def close(self) -> Deferred[None]:
        """Take every player offline and save them; send each a last receipt and a GONE.

        Transports that share a gateway stop together: each calls this, and the first call closes
        the conversations of all.

        Returns:
            A Deferred that fires when all are saved, or the service gave up saving.
        """
        if (run := self._run) is None:
            return succeed(None)
        closed = self._closers.add(None)
        if not run.registry.closing:
            self.service.guard()
            run.departures.all().addCallback(self._closed, run)
        return closed

    def _closed(self, _: object, run: Run) -> None:
        run.stop()
        self._run = None
        tell(self._closers.take(), None)

    def kick(self, session_id: int) -> Deferred[Progress]:
        """End a player's conversation with a GONE, take the player offline and save them.

        Returns:
            What `PlayerStateService.leave` returns.
        """
        session_id = check_session_id(session_id)
        if self._run is None:
            return self.service.leave(session_id)
        return self._run.departures.kick(session_id)

    def lost(self, session_id: int, peer: Any, reason: GoneReason | None = None) -> None:
        """A transport reports that a peer is gone: its player leaves.

        Args:
            session_id: the player's.
            peer: the peer.
            reason: sent in a GONE, if the peer can still be reached; None sends nothing.
        """
        if self._run is not None:
            self._run.departures.lost(session_id, peer, reason)

    def malformed(self, reason: str, number: int = 1) -> None:
        """Count messages that cannot be read."""
        self.service.ledger.take_in(Outcome.malformed(reason), number)

    def received_many(
        self,
        transport: Transport,
        session_ids: Sequence[int],
        peers: Sequence[Any],
        messages: Sequence[bytes],
        at: int,
        nonces: Sequence[int] | None = None,
    ) -> None:
        """Receive messages that came at the same time, in their order.

        Before the start and after the close they are rejected, and not answered.

        Args:
            transport: the one by which all of them came.
            session_ids: the player of each message.
            peers: where each came from.
            messages: the messages, none of them empty.
            at: the offset in each at which the message begins.
            nonces: of the conversation each message belongs to; None if the transport delivers no
                messages of a peer's earlier conversations.
        """
        if self._run is None:
            self.service.ledger.take_in(Outcome.STOPPING, len(messages))
        else:
            self._run.received_many(transport, session_ids, peers, messages, at, nonces)


class Run:
    """The state of a gateway from its start to its close.

    Args:
        service: the running service.
        idle_timeout, judges, jitter, draw_secret: see `Gateway`.
        batch_min: see `Intake`.
    """

    def __init__(
        self,
        service: PlayerStateService,
        idle_timeout: float,
        judges: tuple[IMoveJudge, ...],
        jitter: Callable[[], float],
        draw_secret: Callable[[], int],
        batch_min: int,
    ) -> None:
        self._players = players = service.run
        clock, table, self._ledger = players.clock, players.table, players.ledger
        self._service = service
        self._seconds = clock.seconds
        self._codec = codec = Codec(service.schema)
        self._lines = SparingLogger(_log, clock.seconds)
        self._receipts = receipts = Receipts(
            service.schema, codec.state_costs, table, self._ledger, clock.seconds, jitter
        )
        self._states = states = States(codec, table, receipts, self._ledger, clock.seconds)
        self.silence = Silence(table, clock.seconds, idle_timeout)
        last_moves = LastMoves(table, clock.seconds, players.wall_clock) if judges else None
        self.registry = registry = Registry(
            table, receipts, states, self.silence, service.max_players, last_moves
        )
        # Where the server owns every field, a move can change nothing.
        self._updates = _UPDATES if service.schema.moved.fields else ()
        judging = None
        if last_moves is not None:
            asked = Judges(judges, clock.seconds, lambda: table.version)
            judging = Judging(players, registry, last_moves, asked)
        self.intake = Intake(players, registry, batch_min, judging)
        self._joins = Joins(service, registry, draw_secret)
        self.departures = Departures(service, registry)
        service.add_listener(self)
        self._repetitions = [
            clock.every(TICK, self._tick),
            clock.every(min(IDLE_LOOK_EVERY, idle_timeout / 4), self.departures.evict_idle),
        ]

    def stop(self) -> None:
        """Stop the timers and the listening."""
        for repetition in self._repetitions:
            repetition.cancel()
        self._service.remove_listener(self)

    def on_leave(self, session_id: int) -> None:
        """See `PlayersListener`."""
        self.departures.on_leave(session_id)

    def on_change(self, session_id: int, is_override: bool) -> None:
        """See `PlayersListener`."""
        conversation = self.registry.current.get(session_id)
        if conversation is not None:
            self._states.changed(conversation, is_override, len(self.registry.current))

    def received_many(
        self,
        transport: Transport,
        session_ids: Sequence[int],
        peers: Sequence[Any],
        messages: Sequence[bytes],
        at: int,
        nonces: Sequence[int] | None,
    ) -> None:
        """See `Gateway.received_many`."""
        left: Sequence[int] = range(len(messages))
        if len(messages) >= self.intake.batch_min and self._updates:
            try:
                left = self.intake.many(session_ids, peers, messages, at, nonces)
            except Exception:  # below, what it applied is stale, and the rest is applied
                self._lines.failure(
                    "messages could not be processed together; they are processed one by one"
                )
        for place, number in enumerate(left):
            if place % LOOK_EVERY == 0:
                self._players.guard()
            try:
                nonce = None if nonces is None else nonces[number]
                self._received(
                    transport, session_ids[number], peers[number], messages[number], at, nonce
                )
            except Exception:  # a bug met by one message must not stop the next
                self._lines.failure("a message could not be processed")

    def _received(
        self,
        transport: Transport,
        session_id: int,
        peer: Any,
        data: bytes,
        at: int,
        nonce: int | None,
    ) -> None:
        """Receive the message from `at` to the end of `data`; the caller has called `guard`.

        Counts the outcome of each message, except for answered ones, which are no updates.
        """
        kind = data[at]
        outcome: Outcome | Judged | None
        try:
            if kind in self._updates:
                outcome = self.intake.one(session_id, peer, data, at, nonce)
            elif kind == JOIN:
                outcome = self._joins.received(transport, session_id, peer, decode_join(data, at))
            elif kind in _NUMBERED:
                sequence = decode_numbered(data, at)
                size = len(data) - at
                outcome = self.departures.received(session_id, peer, nonce, kind, sequence, size)
            elif kind == SEEN:
                outcome = self._seen(session_id, peer, data, at, nonce)
            else:
                outcome = Outcome.SERVER_OWNED if kind in _UPDATES else Outcome.UNKNOWN_TYPE
        except Malformed as error:
            outcome = Outcome.malformed(error.reason)
        if outcome is not None:
            self._ledger.take_in(outcome)

    def _seen(
        self, session_id: int, peer: Any, data: bytes, at: int, nonce: int | None
    ) -> Outcome | None:
        """Receive a SEEN; see `Intake.one` for the arguments and `_received` for the outcome."""
        seen = self._codec.decode_seen(data, at)
        conversation = self.registry.current.get(session_id)
        if conversation is None:
            is_late = session_id in self.registry.departed
            return Outcome.STALE if is_late else Outcome.NOT_JOINED
        if (rejected := conversation.rejects(peer, nonce)) is not None:
            return rejected
        if seen.sequence < conversation.join_sequence:
            return Outcome.STALE
        self._states.seen(conversation, seen)
        conversation.is_used = True
        if conversation.phase is Phase.PLAYING:
            self.silence.last_heard[conversation.slot] = self.silence.now
        return None

    def _tick(self) -> None:
        """Send what is due, and forget players who left long enough ago."""
        now, registry = self._seconds(), self.registry
        self.silence.tick(now)
        registry.forget(now)
        self._players.guard()
        players = len(registry.current)
        for slot, number, fields in self._states.due(now, players):
            self._states.tell(registry.at_slot[slot], number, fields, players)
        # Only now: a STATE may have spent what a RECEIPT would have cost.
        self._players.guard()
        for slot, applied, fields in self._receipts.due(now, players):
            self._receipts.show_this(registry.at_slot[slot], applied, fields)
