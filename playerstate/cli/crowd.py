"""Many players at once: they join, they play and they leave, evenly spread over time.

Everything goes in slices of a few milliseconds, each with its share of the datagrams, so that
neither the server's socket nor ours is ever hit by all players in one burst.
"""

from __future__ import annotations

import math
import secrets
import signal
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from functools import partial
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from playerstate.cli.outcome import Bar, Outcome
from playerstate.cli.parameters import Address
from playerstate.cli.plain import PlainClients
from playerstate.client import Client, Phase
from playerstate.messages import Codec, GoneReason, Refused, RefusedReason
from playerstate.schema import StateSchema

SLICE = 0.004
"""Seconds from one slice to the next."""
MOST_A_SLICE = 200
"""Datagrams in one slice; a socket with the buffer that Linux gives by default holds some 270."""
ASKED_A_SECOND = 1000
"""Players who are asked to join or to leave in a second."""
LOOK_EVERY = 0.1
"""Seconds from one look at what is due of a player to the next."""
ANSWER_WITHIN = 5.0
"""Seconds without any answer after which there is no server."""
PATIENCE = 10.0
"""Seconds that players are given to join, and to leave and be saved."""
RECEIVE_BUFFER = 2**20
"""Bytes asked of the system for receipts that wait to be read."""

_REFUSED: dict[int, str] = {
    RefusedReason.FULL: "the server is full",
    RefusedReason.VERSION: "the server speaks another version of the protocol",
    RefusedReason.FINGERPRINT: "the server has another state class; name it with --state",
    RefusedReason.SHUTTING_DOWN: "the server is shutting down",
    RefusedReason.STORE: "the server's store cannot load now",
}
_GONE: dict[int, str] = {
    GoneReason.KICKED: "kicked, or no longer known to the server",
    GoneReason.IDLE: "not heard of for too long",
    GoneReason.JOINED_ELSEWHERE: "the same session id joined from elsewhere",
    GoneReason.SHUTTING_DOWN: "the server is shutting down",
}


class Turns:
    """Goes round and round, evenly over time, so that everyone has a turn each `period` seconds.

    Where turns were missed they are made up for, but never more than `MOST_A_SLICE` at a time.
    """

    def __init__(self, members: Collection[int], period: float, start: float) -> None:
        self._members = list(members)
        self._turns_a_second = len(self._members) / period
        self._start = start
        self._taken = 0

    def due(self, now: float) -> list[int]:
        """Whose turns have come since the last call, in order."""
        upto = math.floor((now - self._start) * self._turns_a_second)
        first, self._taken = self._taken, min(upto, self._taken + MOST_A_SLICE)
        members, size = self._members, len(self._members)
        return [members[turn % size] for turn in range(first, self._taken)]


class Crowd:
    """Players over one socket.

    Args:
        wire: carries their messages.
        clock: provides ``IReactorTime``, to wait for the next slice.
        seconds: the time, on a clock that never steps.
        show: called at every slice with what is being done, how much is, and of how much.

    Attributes:
        clients: the players, by session id.
        interrupted: set from outside, to cut short everything but leaving.
    """

    def __init__(
        self,
        wire: PlainClients,
        clock: Any,
        seconds: Callable[[], float],
        show: Callable[[str, float, float], None],
    ) -> None:
        self.clients = wire.clients
        self.interrupted = False
        self.send = wire.send
        self.seconds = seconds
        self.show = show
        self._wire = wire
        self._clock = clock
        self._slice_ends = seconds() + SLICE
        self._looks = Turns(self.clients, LOOK_EVERY, seconds())

    def online(self) -> list[int]:
        """Who is online."""
        return [i for i, client in self.clients.items() if client.phase is Phase.ONLINE]

    async def pause(self) -> float:
        """Wait for the next slice, and send what is due; returns the time."""
        await deferLater(self._clock, max(0.0, self._slice_ends - self.seconds()))
        now = self.seconds()
        self._slice_ends = now + SLICE
        for session_id in self._looks.due(now):
            if self.clients[session_id].wake_at <= now:
                self._wire.speak(session_id, now)
        return now

    async def join(self, session_ids: Collection[int]) -> None:
        """Have players join; return when all are answered, or have waited long enough.

        Raises:
            NoAnswer: no server has said anything yet.
        """
        await self._have_all("joining", session_ids, Client.join, _is_answered)

    async def leave(self) -> None:
        """Have everyone leave; return when all are saved, or have waited long enough."""
        if self._wire.heard:
            await self._have_all("leaving", self.clients, Client.leave, _is_gone)

    async def _have_all(
        self,
        what: str,
        session_ids: Collection[int],
        ask: Callable[[Client, float], None],
        is_done: Callable[[Client], bool],
    ) -> None:
        if not session_ids:
            return
        start, size, asked = self.seconds(), len(session_ids), 0
        turns = Turns(session_ids, size / ASKED_A_SECOND, start)
        deadline = start + size / ASKED_A_SECOND + PATIENCE
        while ask is Client.leave or not self.interrupted:  # leaving is never cut short
            now = await self.pause()
            for session_id in turns.due(now)[: size - asked]:
                ask(self.clients[session_id], now)
                self._wire.speak(session_id, now)
                asked += 1
            done = sum(is_done(self.clients[i]) for i in session_ids)
            self.show(what, done, size)
            if (asked == size and done == size) or now >= deadline:
                break
            if not self._wire.heard and now - start >= ANSWER_WITHIN:
                raise NoAnswer


class NoAnswer(Exception):
    """No server says anything."""


def _is_answered(client: Client) -> bool:
    return client.phase is not Phase.JOINING


def _is_gone(client: Client) -> bool:
    return client.phase is Phase.GONE


def troubles(clients: dict[int, Client]) -> dict[int, str]:
    """Who, after all was said and done, did not get through, and why."""
    found = {session_id: _trouble(client) for session_id, client in clients.items()}
    return {session_id: why for session_id, why in found.items() if why is not None}


def _trouble(client: Client) -> str | None:
    why = client.ended_by
    if isinstance(why, Refused):
        return "was refused: " + _REFUSED.get(why.reason, f"reason {why.reason}")
    if why is not None:
        return "was sent away: " + _GONE.get(why.reason, f"reason {why.reason}")
    if client.phase is Phase.JOINING:
        return "got no answer to its JOIN"
    if client.phase is Phase.LEAVING:
        if client.applied < client.sequence:
            return f"left, but its last move, {client.sequence}, was not applied in time"
        return f"left, but its last move, {client.sequence}, was not saved in time"
    return None


def run(
    server: Address,
    session_ids: Iterable[int],
    schema: StateSchema,
    course: Callable[[Crowd], Coroutine[Deferred[Any], Any, Outcome]],
) -> Outcome:
    """Run a course on the reactor, with players of these ids; it runs once in a process.

    Ctrl-C cuts the course short; a second one ends the process.

    Raises:
        click.ClickException: no server answers.
    """
    from twisted.internet import reactor as untyped

    reactor: Any = untyped
    codec, draw_nonce = Codec(schema), partial(secrets.randbits, 32)
    clients = {session_id: Client(codec, draw_nonce) for session_id in session_ids}
    wire = PlainClients(clients, (server.ip, server.port), time.monotonic)
    outcomes: list[Outcome | Failure] = []

    async def bind_and_run(crowd: Crowd) -> Outcome:
        interface = "::" if ":" in server.ip else "0.0.0.0"
        port = reactor.listenUDP(0, wire, interface)
        port.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return await course(crowd)

    def end(outcome: Outcome | Failure) -> None:
        outcomes.append(outcome)
        reactor.stop()

    with Bar() as bar:
        crowd = Crowd(wire, reactor, time.monotonic, bar.show)

        def interrupt(*signal_and_frame: object) -> None:
            crowd.interrupted = True
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        signal.signal(signal.SIGINT, interrupt)
        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(bind_and_run(crowd)).addBoth(end))
        reactor.run(installSignalHandlers=False)
    outcome = outcomes[0]
    if isinstance(outcome, Outcome):
        return outcome
    if outcome.check(NoAnswer):
        raise click.ClickException(
            f"no server answers at {server.name}; start one with 'twistd playerstate', or name"
            " another with --to"
        )
    outcome.raiseException()
