"""One seed, from beginning to end."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from twisted.logger import globalLogPublisher

from playerstate.interfaces import RowRefused
from playerstate.state.schema import StateSchema
from tests.proof.simulation.checks import Checks
from tests.proof.simulation.clients import Clients
from tests.proof.simulation.devices import Device, Devices
from tests.proof.simulation.faults import Faults
from tests.proof.simulation.model import Model
from tests.proof.simulation.network import Network
from tests.proof.simulation.plan import Plan, draw
from tests.proof.simulation.program import Program
from tests.proof.simulation.promises import Promises
from tests.proof.simulation.server import Server
from tests.proof.simulation.store import Broken, Busy, Storm
from tests.proof.simulation.world import Crash, Failed, ThreadKilled, World

PAUSES = (0.0, 0.0, 0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
CALM_SLICE = 0.1
"""Seconds that pass at a time in a calm seed, where it is looked at how soon updates are saved."""
SLICES = 6
"""A pause passes in so many slices at most, beside the moments when something is due."""
HEALED_WITHIN = 30.0
"""Seconds within which a healed store must have everything, beyond `save_within`."""
UNSTUCK_WITHIN = 20.0
"""Seconds within which a device on a healed network has a move applied, whatever was before: twice
the longest pause between two JOINs, and the time after which a client joins again."""
PLAYED_EVERY = 0.3
EXPECTED = (Busy, Broken, RowRefused, ThreadKilled)


class Simulation:
    """A run of one seed.

    Args:
        seed: decides everything.
        directory: where the live file lies.
        verbose: is given each line of what happens.
    """

    def __init__(
        self, seed: int, directory: str, verbose: Callable[[str], None] | None = None
    ) -> None:
        source = random.Random(seed)
        self.plan: Plan = draw(source)
        self.world = World(source, verbose)
        self._random = source
        self._live_file = os.path.join(directory, f"{seed}.live") if self.plan.live_file else None
        schema = StateSchema.of(self.plan.state)
        self.store = Storm(schema, self.world, self.plan)
        self.store.stall = self._stall
        self.model = Model(self.world, self.plan, self.store)
        self._to_server = Network(self.world, self.plan)
        self._to_clients = Network(self.world, self.plan)
        self.promises = Promises(self.world, self.model)
        self.server = Server(
            self.world, self.plan, self.store, self.model, self._live_file, self._to_clients.send
        )
        self.checks = Checks(self.world, self.model, self.server, self.plan)
        self.devices = Devices(self.world, self.plan, self.model, self._to_server, schema)
        self.clients = Clients(self.world, self.plan, self.model, self._to_server, schema)
        self.program = Program(self.world, self.plan, self.model, self.promises, self.server)
        self.faults = Faults(
            self.world, self.plan, self.model, self.server, self.store, self.program
        )
        weights = {
            **self.clients.weights,
            **self.devices.weights,
            **self.program.weights,
            **self.faults.weights,
        }
        self._actions, self._weights = list(weights), list(weights.values())
        self.world.note(self.plan)

    def run(self) -> None:
        """Run it to its end.

        Raises:
            Failed: something that always holds did not.
        """
        for _ in range(self.plan.steps):
            self._survive(self._step)
        while not self._survive(self._heal):
            self.world.note("and is healed anew")
        for teleport in (False, True):
            while not self._survive(lambda teleport=teleport: self._play_on(teleport)):
                self.world.note("and is played anew")
        self._survive(self._stop_for_good)
        self.world.check(self.server.stopped, "the server did not stop in order")

    def log(self, event: dict[str, Any]) -> None:
        """Look at what is logged: no error but those made here, and who is said to be unsaved."""
        if (failure := event.get("log_failure")) is not None and not failure.check(*EXPECTED):
            error = Failed(f"logged: {failure.getTraceback()}")
            self.world.broken = self.world.broken or error
        told = str(event.get("log_format"))
        if told.startswith("stopped with the newest state unsaved"):
            self.server.unsaved_named = event["players"]
            self.model.lost_allowed = True
        elif told.startswith("the persist thread is stuck"):
            self.server.thread_given_up = True

    def _survive(self, act: Callable[[], None]) -> bool:
        """Act; where the process dies of it, go on without. Whether it lived."""
        try:
            if not self.server.running:
                self._start()
            act()
        except Crash as crash:
            self.world.note("the process dies:", crash)
            self._bury()
            return False
        self._let_out()
        return True

    def _let_out(self) -> None:
        if self.world.broken is not None:
            raise self.world.broken

    def _bury(self) -> None:
        if self.server.stopped:
            self._note_stop()
        else:
            self.model.died(self._live_file is not None)
        if self.server.can_start_again and self._random.random() < 0.5:
            self.server.leave_running_process()
        else:
            self.server.exit()

    def _start(self) -> None:
        if self._random.random() < 0.5:
            self.world.now += self._random.choice((0.1, 10.0, 100.0))
        if self.server.process:
            self.server.start_again()
        else:
            self.server.start()
        self.program.new_process()
        self.promises.new_process()
        self.checks.new_process()
        self._look_at_recovery()

    def _look_at_recovery(self) -> None:
        if self.model.recovering and not self.server.recovering:
            self.world.note("all is recovered")
            self.model.recovered()

    def _step(self) -> None:
        self._random.choices(self._actions, self._weights)[0]()
        self._pass_time(self._pause())

    def _pause(self) -> float:
        if self._random.random() < 0.02:
            return self._random.choice((5.5, self.plan.idle_timeout * 1.2))
        return self._random.choice(PAUSES)

    def _stall(self, seconds: float) -> None:
        """A write takes this long; everything but its persist thread goes on."""
        until, before = self.world.now + seconds, self.store.interrupts
        self.world.note("the store stalls for", seconds)
        while self.world.now < until and self.store.interrupts == before:
            if self.store.healed:
                self._pass_time(0.05)
            else:
                self._step()
        self.world.note("the store goes on")

    def _pass_time(self, seconds: float) -> None:
        """Let time pass, and everything that is due in it happen."""
        until = self.world.now + seconds
        while self.world.now < until:
            if self._turn():
                self._check()
            self.world.now = max(self.world.now, min(until, self._next_due(seconds)))
        self._turn()
        self._check()

    def _next_due(self, seconds: float) -> float:
        return min(
            self.world.now + (CALM_SLICE if self.plan.calm else seconds / SLICES + 0.001),
            self._to_server.next_due(),
            self._to_clients.next_due(),
            self.devices.next_due(),
            self.server.reactor.next_report(),
            *(thread.due() for thread in self.server.threads),
        )

    def _turn(self) -> bool:
        """Everything that is due now happens, in one order or another; whether anything did."""
        parts = [self._turn_reactor, self._turn_thread, self._turn_network]
        if self._random.random() < 0.5:
            parts.reverse()
        happened = [part() for part in parts]
        self._let_out()
        if self.server.stopped:
            raise Crash("it has stopped")
        self._look_at_recovery()
        return any(happened)

    def _check(self) -> None:
        self.checks.all()
        if self.plan.calm and self.server.stopping_since is None:
            self.promises.check_prompt()
        if self.server.must_have_stopped and not self.faults.clock_is_behind:
            self.world.fail("stopping takes longer than it may")

    def _turn_reactor(self) -> bool:
        reactor, wall = self.server.reactor, self.world.now + self.world.wall_step
        word = reactor.next_report() <= self.world.now
        reactor.advance(max(0.0, wall - reactor.seconds()))
        self.model.look(self.server.table)
        self.server.talks.look()
        return word

    def _turn_thread(self) -> bool:
        due = [thread for thread in self.server.threads if thread.due() <= self.world.now]
        for thread in due:
            if thread.due() <= self.world.now:  # not busy, by a stall of one before it
                thread.turn()
        return bool(due)

    def _turn_network(self) -> bool:
        together = []
        while (arrived := self._to_server.arrived()) is not None:
            together.append(arrived)
        happened = bool(together)
        self.server.receive_together(together)
        while (arrived := self._to_clients.arrived()) is not None:
            if not self.devices.received(*arrived):
                self.clients.received(arrived[0])
        return self.devices.turn() or happened

    def _note_stop(self) -> None:
        service = self.server.service
        self.model.look(self.server.table)
        self.world.check(not self.promises.open, self.promises.open, "waiters were left")
        self.model.stopped(service.gave_up, self._live_file is not None, self.server.unsaved_named)

    def _heal(self) -> None:
        """The weather clears: everything must come into the store, and clients be told."""
        self.world.note("the store is healed")
        self.store.healed, self.store.outage = True, False
        until = self.world.now + self.plan.save_within + HEALED_WITHIN
        while not self._is_quiet() and not self._is_stubborn:
            self._pass_time(0.25)
            if self.store.waiting:
                self.store.answer_load()
            self.world.check(self.world.now < until, "not everything is saved:", self._unquiet())

    @property
    def _is_stubborn(self) -> bool:
        """Whether the store refuses some players' rows to the end, who then may not leave."""
        return bool(self.plan.refused_to_the_end and self.plan.refused)

    def _unquiet(self) -> dict[str, object]:
        snapshot = self.server.service.ledger.snapshot()
        progress = self.server.talks.untold()
        settled = snapshot.committed + snapshot.outdated + snapshot.quarantined
        # What is recovered may be written more than once before it is known to be on disk.
        again = snapshot.recovered > 0 and settled < self.store.rows_settled
        return {
            "pending": snapshot.pending,
            "leaving": snapshot.players_leaving,
            "waiters": self.promises.open,
            "untold": progress,
            "late states": self.server.talks.late_states(),
            "uncounted": 0 if again else self.store.rows_settled - settled,
        }

    def _is_quiet(self) -> bool:
        return not any(self._unquiet().values())

    def _play_on(self, teleport: bool) -> None:
        """No player is stuck: moves of each device that has a place are applied again, soon.

        Args:
            teleport: whether the program moves the players first.
        """
        self.world.note("the network is healed")
        self._to_server.healed = self._to_clients.healed = True
        playing = {}
        for device in [] if self._is_stubborn else self.devices.one_each():
            player = self.model.players[device.session_id]
            if teleport:
                self.program.teleport(player)
            playing[device] = player.updated_at
        until = self.world.now + UNSTUCK_WITHIN
        while playing:
            for device in playing:
                device.play(self.model.next_values())
            self._pass_time(PLAYED_EVERY)
            if self.server.stopping_since is not None:
                until = self.world.now + UNSTUCK_WITHIN
            while self.store.waiting:
                self.store.answer_load()
            playing = {
                device: since
                for device, since in playing.items()
                if not (device.is_turned_away or self._is_done(device, since))
            }
            stuck = [device.session_id for device in playing]
            self.world.check(self.world.now < until, "players are stuck:", stuck)

    def _is_done(self, device: Device, since: int) -> bool:
        # A client whose sequences the program lowers may not change its address any more.
        if self.server.talks.is_renumbered(device.session_id):
            return True
        return self.server.talks.has_moved(device.session_id, device.client.nonce, since)

    def _stop_for_good(self) -> None:
        self.server.stop()
        while not self.server.stopped:
            self._pass_time(0.25)


def run_seed(seed: int, verbose: Callable[[str], None] | None = None) -> None:
    """Run one seed.

    Raises:
        Failed: with the seed, what did not hold, and what happened last.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="simulation-"))
        simulation = Simulation(seed, directory, verbose)
        globalLogPublisher.addObserver(simulation.log)
        stack.callback(globalLogPublisher.removeObserver, simulation.log)
        try:
            simulation.run()
        except Exception as error:
            scenario = simulation.world.scenario()
            raise Failed(f"seed {seed}: {error!r}; before that:\n{scenario}") from error
        finally:
            simulation.server.exit()
