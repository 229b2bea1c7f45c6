"""What happens to the machine and the store."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.proof.simulation.model import Model
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.program import Program
from tests.proof.simulation.server import Server
from tests.proof.simulation.store import Storm
from tests.proof.simulation.world import Crash, World

HOUR = 3600.0
YEAR = 365 * 24 * HOUR


class Faults:
    """What happens to the machine and the store."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        model: Model,
        server: Server,
        store: Storm,
        program: Program,
    ) -> None:
        self._world = world
        self._random = world.random
        self._plan = plan
        self._model = model
        self._server = server
        self._store = store
        self._program = program
        self._clock_behind_until = -math.inf
        self.weights: dict[Callable[[], None], float] = {
            self.crash: 0.15 * plan.faults,
            self.die_writing: 0.15 * plan.faults,
            self.stop: 0.25 * plan.faults,
            self.step_clock: 0.2 * plan.faults,
            self.begin_or_end_outage: 0.4 * (plan.write_faults > 0),
            self.write_elsewhere: 0.1 * plan.faults,
            self.answer_load: 3.0 * (plan.slow_loads > 0),
        }

    def crash(self) -> None:
        """The process is killed."""
        raise Crash("killed")

    def die_writing(self) -> None:
        """The process is killed while it writes a row."""
        act = self._random.choice(
            (
                *(self._program.update, self._program.update, self._program.join),
                *(self._program.change, self._program.edit),
                *(self._program.leave, self._server.reactor.deliver),
            )
        )
        self._server.die_writing(self._random.random(), act)

    def stop(self) -> None:
        """The server is told to stop."""
        if self._server.stopping_since is None:
            self._world.note("the server is told to stop")
            self._server.stop()

    def step_clock(self) -> None:
        """Somebody sets the clock."""
        if any(thread.busy for thread in self._server.threads):
            return
        step = self._random.choice((-HOUR, -1.0, -0.001, 1.0, YEAR))
        self._world.note("the clock is set by", step)
        self._world.wall_step += step
        self._server.reactor.step_clock(step)
        if step < 0:
            self._clock_behind_until = self._world.now - step

    @property
    def clock_is_behind(self) -> bool:
        """Whether the reactor's own timers stand still, and only the persist thread moves them."""
        return self._world.now < self._clock_behind_until

    def begin_or_end_outage(self) -> None:
        """The store goes away for a while."""
        self._store.outage = not self._store.outage
        self._world.note("the store", "goes away" if self._store.outage else "is back")

    def write_elsewhere(self) -> None:
        """Another program writes a player's row, of a moment that no update here will have."""
        player = self._model.players[self._random.choice(self._plan.players)]
        newest = max(player.updated_at, self._model.stored_at(player))
        ahead = self._random.choice((10_000, 1_000_000)) + self._random.randrange(1, 1000)
        updated_at = max(newest, self._world.wall_clock() // 1000) + ahead
        self._world.note("player", player.session_id, "is written elsewhere as of", updated_at)
        self._model.write_elsewhere(player, updated_at)

    def answer_load(self) -> None:
        """The store answers a load."""
        if self._store.waiting:
            self._store.answer_load()
