"""A server and its players in one process, for tests of the ``playerstate`` command."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema, text, within
from playerstate.cli.crowd import SLICE, Crowd
from playerstate.cli.outcome import Outcome
from playerstate.cli.program import Changes
from playerstate.cli.simulate import stepper, visit_twice, walk_for
from playerstate.client import Client, Link, PlainLink, PlainPort
from playerstate.conversations.gateway import Gateway
from playerstate.testing import SteppedService
from playerstate.transports.plain import PlainService

SERVER, CLIENT = ("127.0.0.1", 7777), ("127.0.0.1", 49_152)
LONGEST = 20_000
"""Slices after which a test gives up: 80 s of the clock that moves when told."""


@attrs.frozen
class Avatar:
    """One field of each kind."""

    x: float = attrs.field(default=0.5, metadata=within(0, 1))
    hp: int = attrs.field(default=3, metadata=within(0, 3))
    alive: bool = True
    zone: str = attrs.field(default="spawn", metadata=text(8))


@attrs.frozen
class Walker:
    """Two coordinates on grids, one of a step that binary numbers do not have."""

    x: float = attrs.field(default=5.0, metadata=within(0, 100, resolution=1 / 64))
    y: float = attrs.field(default=5.0, metadata=within(0, 100, resolution=0.3))


class World:
    """A server and its players in one process, on a clock that moves when told.

    Args:
        players: how many.
        state: the state class.
        lost: whether a datagram gets lost.
        options: of the service.

    Attributes:
        saves: whether the persist thread gets on with its work.
        shown: what the crowd showed.
    """

    def __init__(
        self,
        players: int,
        state: type = PlayerState,
        lost: Callable[[bytes], bool] = lambda datagram: False,
        **options: Any,
    ) -> None:
        self.stepped = SteppedService(state, **options)
        self.schema = StateSchema.of(state)
        self.lost = lost
        self.saves = True
        self.shown: list[str] = []
        self.reactor = self.stepped.reactor
        gateway = Gateway(self.stepped.service, jitter=lambda: 0.5)
        PlainService(gateway, SERVER[1], reactor=self.reactor).startService()
        draw_nonce = partial(random.Random(1).getrandbits, 32)
        port = PlainPort(SERVER, self.reactor, self.reactor.seconds)
        lines: dict[int, Link] = {
            i: PlainLink(Client.of(self.schema, draw_nonce), port, i) for i in range(1, players + 1)
        }
        self.crowd = Crowd(lines, self.reactor, self.reactor.seconds, self._show)

    def _show(self, what: str, done: float, total: float) -> None:
        if self.shown[-1:] != [what]:
            self.shown.append(what)

    def close(self) -> None:
        """Close the ports."""
        for port in list(self.reactor.ports.values()):
            port.stopListening()

    def carry(self) -> None:
        """Bring what was sent to the other side."""
        for here, there in ((CLIENT, SERVER), (SERVER, CLIENT)):
            if here[1] not in self.reactor.ports:
                continue  # the players' port is open while somebody plays
            for datagram, _ in self.reactor.ports[here[1]].take():
                if there[1] in self.reactor.ports and not self.lost(datagram):
                    self.reactor.ports[there[1]].receive(datagram, here)

    def run(self, course: Coroutine[Deferred[Any], Any, Any]) -> Any:
        """Let time pass until the course has ended; its result, or the failure raised."""
        results: list[Any] = []
        running = Deferred.fromCoroutine(course)
        running.addBoth(results.append)
        for _ in range(LONGEST):
            if results:
                break
            self.reactor.advance(SLICE)
            if self.saves:
                self.stepped.settle()
            self.carry()
        [result] = results
        if isinstance(result, Outcome):
            return result
        result.raiseException()

    def visit(self, seconds: float = 1.0, rate: float = 20) -> Outcome:
        """Run the course of ``playerstate simulate``, at so many moves a second of each."""
        step = stepper(self.schema, random.Random(1))
        walk = partial(walk_for, seconds=seconds, moves_a_second=rate, step=step)
        found: Outcome = self.run(visit_twice(self.crowd, self.schema, walk))
        return found

    def visit_changed(
        self, changed: int, seconds: float = 2.0, stored: Callable[[int], Any] | None = None
    ) -> Outcome:
        """Run the course of ``playerstate simulate --teleport``, with a store read like this."""
        service, clients = self.stepped.service, self.crowd.clients
        program = Changes(self.crowd, service, list(clients)[:changed], random.Random(2))
        step = stepper(self.schema, random.Random(1))
        walk = partial(walk_for, seconds=seconds, moves_a_second=20, step=step, program=program)
        found = self.run(visit_twice(self.crowd, self.schema, walk))
        self.stepped.service.flush()
        self.stepped.settle()
        return program.checked(found, stored or self.stored)

    def stored(self, session_id: int) -> dict[str, Any] | None:
        """What the store holds of a player."""
        found = self.stepped.store.load(session_id)
        if found is None:
            return None
        names = [field.name for field in self.schema.stored]
        return dict(zip(names, found.values, strict=True))


class WorldTestCase(SynchronousTestCase):
    """Tests with a world."""

    def world(self, players: int, state: type = PlayerState, **options: Any) -> World:
        """A world that ends with the test."""
        world = World(players, state, **options)
        self.addCleanup(world.close)
        return world
