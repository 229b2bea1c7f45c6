"""The program that embeds the service, and calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from playerstate.arguments import MAX_SEQUENCE
from playerstate.interfaces import StoreBusy
from playerstate.players.service import Joined, NotOnline, NotRunning, ServerFull
from tests.proof.simulation.model import Model
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.players import Player
from tests.proof.simulation.promises import Promises
from tests.proof.simulation.server import Server
from tests.proof.simulation.store import Broken
from tests.proof.simulation.world import World


class Program:
    """The program that embeds the service, and calls it."""

    def __init__(
        self, world: World, plan: Plan, model: Model, promises: Promises, server: Server
    ) -> None:
        self._world = world
        self._plan = plan
        self._random = world.random
        self._model = model
        self._promises = promises
        self._server = server
        self._loads: list[Deferred[Any]] = []
        self.weights: dict[Callable[[], None], float] = {
            self.update: 2.0,
            self.join: 0.7,
            self.leave: 0.5,
            self.flush: 0.5,
            self.update_and_flush: 0.3,
            self.kick: 0.1,
            self.look: 0.3,
            self.cancel_join: 0.2,
        }

    def _player(self) -> Player:
        return self._model.players[self._random.choice(self._plan.players)]

    def new_process(self) -> None:
        """What was asked of the process before is void."""
        self._loads.clear()

    def update(self) -> None:
        """Call `update`; what it must do is known before."""
        player, counts, service = self._player(), self._model.counts, self._server.service
        values = self._model.next_values()
        expected: type[Exception] | None = None
        if self._server.talks.stopping:
            counts.refuse("stopping")
            expected = NotRunning
        elif player.slot is None or player.leaving:
            counts.refuse("not_online")
            expected = NotOnline
        else:
            self._model.apply(player, player.sequence, values, "update")
        self._world.note("update", player.session_id, values[0])
        try:
            service.update(player.session_id, service.schema.state(values))
        except (NotRunning, NotOnline) as error:
            self._world.check(type(error) is expected, "update raised", repr(error))
        else:
            self._world.check(expected is None, "update did not raise", expected)

    def join(self) -> None:
        """Call `join`."""
        player, talks, service = self._player(), self._server.talks, self._server.service
        session_id = player.session_id
        # Numbers that moves had, and that moves will have.
        near = min(max(player.sequence + self._random.randrange(-2, 3), 0), MAX_SEQUENCE)
        sequence = self._random.choice((None, None, 0, player.sequence, near))
        allowed = self._allowed_to_fail(player)
        self._world.note("join", session_id, sequence)

        def joined(result: Joined) -> None:
            self._model.joined(player, result, sequence, service.table.slots[session_id])

        def failed(failure: Failure) -> None:
            # A load that waits may still fail, be cancelled, or be cut short by the stop.
            late = (Broken, CancelledError, *((NotRunning,) if talks.stopping else ()))
            self._world.check(failure.check(*allowed, *late) is not None, "join:", failure)

        def loaded(result: object) -> None:
            talks.api_loads[session_id] -= 1

        joining = service.join(session_id, sequence=sequence)
        waits = not joining.called
        joining.addCallbacks(joined, failed).addErrback(lambda _: None)
        if waits:
            talks.api_loads[session_id] = talks.api_loads.get(session_id, 0) + 1
            self._loads.append(joining)
            joining.addCallback(loaded)

    def _allowed_to_fail(self, player: Player) -> tuple[type[Exception], ...]:
        """How a join of this player may fail at once."""
        if self._server.talks.stopping:
            return (NotRunning,)
        if self._model.recovering:
            return (StoreBusy,)
        if player.slot is not None:
            return ()
        if self._server.talks.has_room(player.session_id):
            return (StoreBusy, Broken)
        return (ServerFull,)

    def cancel_join(self) -> None:
        """Give up on a join that waits."""
        self._loads = [waiting for waiting in self._loads if not waiting.called]
        if self._loads:
            self._loads.pop(self._random.randrange(len(self._loads))).cancel()

    def leave(self) -> None:
        """Call `leave`."""
        player = self._player()
        self._world.note("leave", player.session_id)
        if player.slot is not None:
            talks = self._server.talks
            talks.taken_offline(player)
            self._model.leave(player)
            self._promises.leave(player, self._server.service.leave(player.session_id))
            talks.kicking.clear()
            return
        outcome: list[object] = []
        self._server.service.leave(player.session_id).addBoth(outcome.append)
        refused = isinstance(outcome[0], Failure) and outcome[0].check(NotOnline, NotRunning)
        self._world.check(bool(refused), "left without being there:", outcome)

    def flush(self) -> None:
        """Call `flush`."""
        self._world.note("flush")
        self._promises.flush(self._server.service.flush())
        # What is changed from here on is changed later, as on any real clock.
        self._world.now += 1e-6

    def update_and_flush(self) -> None:
        """Have what changed this very moment saved, before the clock goes on."""
        for _ in self._plan.players:
            self.update()
        self.flush()

    def kick(self) -> None:
        """Kick a player."""
        player, talks = self._player(), self._server.talks
        if player.slot is None:
            return
        self._world.note("kick", player.session_id)
        talks.kicking.add(player.session_id)
        self._model.leave(player)
        self._promises.leave(player, self._server.gateway.kick(player.session_id))
        talks.kicking.clear()

    def look(self) -> None:
        """Call `state`."""
        player = self._player()
        if player.slot is not None and not player.leaving and not self._server.talks.stopping:
            service = self._server.service
            state = service.schema.values(service.state(player.session_id))
            self._world.check(state == player.values, "state is", state, "not", player.values)
