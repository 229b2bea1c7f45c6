"""Many players at once: they join, play and leave, evenly spread over time.

Time is divided into slices of a few milliseconds, each with its share of the datagrams, so that
neither the server's socket nor the client's gets those of all players in one burst.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from playerstate.cli.links import netcode_links, plain_links
from playerstate.cli.outcome import Bar, Outcome
from playerstate.cli.parameters import Address, Login
from playerstate.client import Client, Link, Phase, SentAway
from playerstate.state.schema import StateSchema
from playerstate.wire.messages import Refused, RefusedReason

SLICE = 0.004
"""Seconds from one slice to the next."""
MOST_A_SLICE = 200
"""Datagrams in one slice; a socket with the buffer that Linux gives by default holds some 270."""
ASKED_A_SECOND = 1000
"""Players that begin to join or to leave in a second."""
LOOK_EVERY = 0.1
"""Seconds between two turns of a player's link."""
ANSWER_WITHIN = 8.0
"""Seconds without any answer after which the run fails.  A netcode server that has just started
refuses tokens issued before, and for up to three seconds more; a client tries one for five."""
PATIENCE = 10.0
"""Seconds that players have to join, and to leave and be saved."""


class Turns:
    """A round robin, evenly over time: each member has a turn every `period` seconds.

    Missed turns are made up for, but never more than `MOST_A_SLICE` at a time.

    Attributes:
        came: how many turns were due by the last call.
        taken: how many of them were returned.
    """

    def __init__(self, members: Collection[int], period: float, start: float) -> None:
        self._members = list(members)
        self._turns_a_second = len(self._members) / period
        self._start = start
        self.came = self.taken = 0

    def due(self, now: float) -> list[int]:
        """Return the members whose turns have come since the last call, in order."""
        self.came = math.floor((now - self._start) * self._turns_a_second)
        first, self.taken = self.taken, min(self.came, self.taken + MOST_A_SLICE)
        members, size = self._members, len(self._members)
        return [members[turn % size] for turn in range(first, self.taken)]


class Crowd:
    """Players that play together.

    Args:
        links: carry their messages, by session id.
        clock: provides ``IReactorTime``, to wait for the next slice.
        seconds: the time, on a clock that never steps.
        show: called at every slice with the activity, how much of it is done, and the total.

    Attributes:
        links: the players' links, by session id.
        clients: their conversations, likewise.
        interrupted: set by the owner, to cut short everything but leaving.
    """

    def __init__(
        self,
        links: Mapping[int, Link],
        clock: Any,
        seconds: Callable[[], float],
        show: Callable[[str, float, float], None],
    ) -> None:
        self.links = links
        self.clients = {session_id: link.client for session_id, link in links.items()}
        self.interrupted = False
        self.seconds = seconds
        self.show = show
        self._clock = clock
        self._slice_ends = seconds() + SLICE
        self._looks = Turns(links, LOOK_EVERY, seconds())
        for link in links.values():
            link.notify = partial(self._look, link)

    def online(self) -> list[int]:
        """The session ids of the players online."""
        return [i for i, client in self.clients.items() if client.phase is Phase.ONLINE]

    async def pause(self) -> float:
        """Wait for the next slice, and send the messages due; return the time."""
        await deferLater(self._clock, max(0.0, self._slice_ends - self.seconds()))
        now = self.seconds()
        self._slice_ends = now + SLICE
        for session_id in self._looks.due(now):
            link = self.links[session_id]
            link.turn(now)
            self._look(link)
        return now

    async def join(self, session_ids: Collection[int]) -> None:
        """Have players join; return when all are answered, or the time limit is over.

        Raises:
            NoAnswer: no message of a server has arrived.
        """
        await self._have_all("joining", session_ids, _join, _is_answered)

    async def leave(self) -> None:
        """Have all players leave; return when all are saved, or the time limit is over."""
        if self._is_heard():
            await self._have_all("leaving", self.links, _leave, _is_gone)

    def _is_heard(self) -> bool:
        """Whether any player ever received a message of a server."""
        return any(link.was_heard for link in self.links.values())

    def _look(self, link: Link) -> None:
        """Close the link of a player that is gone."""
        if link.client.phase is Phase.GONE:
            link.close(self.seconds())

    async def _have_all(
        self,
        what: str,
        session_ids: Collection[int],
        ask: Callable[[Link, float], None],
        is_done: Callable[[Client], bool],
    ) -> None:
        if not session_ids:
            return
        start, size, asked = self.seconds(), len(session_ids), 0
        turns = Turns(session_ids, size / ASKED_A_SECOND, start)
        deadline = start + size / ASKED_A_SECOND + PATIENCE
        while ask is _leave or not self.interrupted:  # leaving is never cut short
            now = await self.pause()
            for session_id in turns.due(now)[: size - asked]:
                link = self.links[session_id]
                ask(link, now)
                self._look(link)
                asked += 1
            done = sum(is_done(self.clients[i]) for i in session_ids)
            self.show(what, done, size)
            if (asked == size and done == size) or now >= deadline:
                break
            if not self._is_heard() and now - start >= ANSWER_WITHIN:
                raise NoAnswer


class NoAnswer(Exception):
    """No server answers."""


def _join(link: Link, now: float) -> None:
    link.client.join(now)
    link.open(now)


def _leave(link: Link, now: float) -> None:
    link.client.leave(now)
    link.turn(now)


def _is_answered(client: Client) -> bool:
    return client.phase is not Phase.JOINING


def _is_gone(client: Client) -> bool:
    return client.phase is Phase.GONE


def troubles(links: Mapping[int, Link]) -> dict[int, str]:
    """The players that could not play to the end, each with the reason."""
    found = {session_id: _trouble(link) for session_id, link in links.items()}
    return {session_id: why for session_id, why in found.items() if why is not None}


def _trouble(link: Link) -> str | None:
    client = link.client
    if client.ended_by is not None:
        why = f"was {SentAway(client.ended_by)}"
        is_of_state = client.ended_by.reason == RefusedReason.FINGERPRINT
        needs_state = is_of_state and isinstance(client.ended_by, Refused)
        return f"{why}; name it with --state" if needs_state else why
    if link.trouble is not None:
        return f"could not play: {link.trouble}"
    if client.phase is Phase.JOINING:
        return "got no answer to its JOIN"
    if client.phase is Phase.LEAVING:
        if client.applied < client.sequence:
            return f"left, but its last move, {client.sequence}, was not applied in time"
        return f"left, but its last move, {client.sequence}, was not saved in time"
    return None


def run(
    server: Address,
    login: Login | None,
    session_ids: Iterable[int],
    schema: StateSchema,
    course: Callable[[Crowd], Coroutine[Deferred[Any], Any, Outcome]],
) -> Outcome:
    """Run a course on the reactor, with players of these ids; once in a process.

    Ctrl-C cuts the course short; a second one ends the process.

    Args:
        server: its address.
        login: to make each player's token with; None for plain UDP.
        session_ids: the players'.
        schema: of the server's state class.
        course: what the players do.

    Raises:
        click.ClickException: no server answers.
    """
    from twisted.internet import reactor as untyped

    reactor: Any = untyped
    if login is None:
        links = plain_links(server, session_ids, schema, reactor, time.monotonic)
    else:
        links = netcode_links(server, login, session_ids, schema, reactor, time.monotonic)
    outcomes: list[Outcome | Failure] = []

    def end(outcome: Outcome | Failure) -> None:
        outcomes.append(outcome)
        reactor.stop()

    with Bar() as bar:
        crowd = Crowd(links, reactor, time.monotonic, bar.show)

        def interrupt(*signal_and_frame: object) -> None:
            crowd.interrupted = True
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        signal.signal(signal.SIGINT, interrupt)
        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(course(crowd)).addBoth(end))
        reactor.run(installSignalHandlers=False)
    outcome = outcomes[0]
    if isinstance(outcome, Outcome):
        return outcome
    if outcome.check(NoAnswer):
        raise click.ClickException(_no_answer(server, login))
    outcome.raiseException()


def _no_answer(server: Address, login: Login | None) -> str:
    if login is None:
        return (
            f"no server answers at {server.name}; start one with 'twistd playerstate', or name"
            " another with --to"
        )
    return (
        f"no server accepts players at {server.name}; it must have this --key-file and"
        " --protocol-id, and this --to among its --public addresses. If it runs, its log says"
        " within a minute what it ignored"
    )
