"""What always holds, looked at after every step."""

from __future__ import annotations

import attrs

from playerstate.ledger import Snapshot
from playerstate.players.errors import NotOnline
from playerstate.saving.lane import MOST_FLIGHTS
from playerstate.saving.pace import SHARE
from tests.proof.simulation.model import Counts, Model, Player
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.server import Server
from tests.proof.simulation.world import World

LATE = 0.45
"""Seconds that a save may take beyond its plan in a calm seed: time passes there in slices of a
tenth, one for the sweep, one for the thread, one for its word."""

COUNTS = tuple(field.name for field in attrs.fields(Counts))


class Checks:
    """Compares the running server with the model.

    Args:
        world: where what does not hold is said.
        model: what must be.
        server: what is.
        plan: of the run.
    """

    def __init__(self, world: World, model: Model, server: Server, plan: Plan) -> None:
        self._world = world
        self._model = model
        self._server = server
        self._calm = plan.calm
        self._settled_at = world.now
        self._cursors: dict[int, tuple[int, int]] = {}

    def new_process(self) -> None:
        """What was remembered of the process before is void."""
        self._settled_at = self._world.now
        self._cursors: dict[int, tuple[int, int]] = {}

    def all(self) -> None:
        """Look at everything."""
        self._model.look(self._server.table)
        snapshot = self._server.service.ledger.snapshot()
        self._check_books(snapshot)
        self._check_unsaved(snapshot)
        self._check_bounds(snapshot)
        for player in self._model.players.values():
            self._check_player(player)

    def _check_books(self, snapshot: Snapshot) -> None:
        """Invariant 7, and the model's own books."""
        imbalance = snapshot.imbalance()
        self._world.check(not imbalance, *imbalance)
        counts = self._model.counts
        for name in COUNTS:
            told, count = getattr(snapshot, name), getattr(counts, name)
            self._world.check(told == count, "the ledger has", name, told, "instead of", count)
        players = [p for p in self._model.players.values() if p.slot is not None]
        leaving = sum(p.leaving for p in players)
        told, must = (
            (snapshot.players_online, snapshot.players_leaving),
            (len(players) - leaving, leaving),
        )
        # One who gives up has no word for those who were leaving.
        if not self._server.service.gave_up:
            self._world.check(told == must, "online and leaving:", told, "instead of", must)

    def _check_player(self, player: Player) -> None:
        """Invariants 5, 6 and 9: the live table has the newest state, and says what is saved."""
        service, check = self._server.service, self._world.check
        slot, name = self._server.table.slots.get(player.session_id), ("player", player.session_id)
        check(slot == player.slot, *name, "has slot", slot, "instead of", player.slot)
        if slot is None:
            return
        table = self._server.table
        found = (table.sequence(slot), table.updated_at(slot), table.values(slot))
        must = (player.sequence, player.updated_at, player.values)
        check(found == must, *name, "stands at", found, "instead of", must)
        unseen = bool(table.unseen[slot])
        check(unseen == player.unseen, *name, "is to be told again:", unseen)
        if player.never_joined:
            # One who gives up has no word for those who never joined.
            if not service.gave_up:
                self._check_no_progress(player)
            return
        progress = service.progress(player.session_id)
        check(progress.applied == player.sequence, *name, "progress", progress)
        check(
            player.saved <= progress.saved <= progress.applied,
            *(*name, "had saved", player.saved, "now", progress),
        )
        player.saved = progress.saved
        self._model.check_saved(player, progress.saved)

    def _check_no_progress(self, player: Player) -> None:
        """A player who is edited offline is seen by no call."""
        try:
            found = self._server.service.progress(player.session_id)
        except NotOnline:
            return
        self._world.fail("player", player.session_id, "is edited offline, and at", found)

    def _check_unsaved(self, snapshot: Snapshot) -> None:
        """What waits, and for how long: told neither too short nor too long."""
        world, service = self._world, self._server.service
        oldest = service.run.outbox.oldest_unsaved()
        check = world.check
        check(
            (oldest is None) == (snapshot.pending == 0),
            *("the oldest unsaved is of", oldest, "with", snapshot.pending, "pending"),
        )
        for player in self._model.players.values():
            settled = max(self._model.stored_at(player), player.given_up)
            player.applied_at[:] = [entry for entry in player.applied_at if entry[0] > settled]
            if player.applied_at:
                first = player.applied_at[0][1]
                check(
                    oldest is not None and oldest <= first,
                    *("player", player.session_id, "waits since", first, "and not", oldest),
                )
        if oldest is None:
            self._settled_at = world.now
            return
        check(oldest >= self._settled_at, "unsaved since", oldest, "not", self._settled_at)
        if self._calm and self._server.stopping_since is None:
            waited, most = world.now - oldest, SHARE * service.options.save_within + LATE
            check(waited <= most, "an update waits for", waited, "seconds")

    def _check_bounds(self, snapshot: Snapshot) -> None:
        """Invariants 1 and 11: cursors only grow, and nothing is kept without bound."""
        service, world = self._server.service, self._world
        registry = self._server.registry
        places, lanes = service.max_players, service.run.outbox._lanes
        for number, lane in enumerate(lanes):
            read, write = lane.ring.read, lane.ring.write
            before = self._cursors.get(number, (0, 0))
            world.check(
                before[0] <= read <= write <= read + lane.ring.capacity and before[1] <= write,
                *("the cursors of ring", number, "went from", before, "to", (read, write)),
            )
            self._cursors[number] = (read, write)
        sizes = {
            "players": (len(self._server.table) + len(service.run.joins), places),
            "conversations": (len(registry.current), places),
            "conversations by slot": (len(registry.at_slot), places),
            "departed": (len(registry.departed), places),
            "ended": (len(registry.ended), places),
            "joining": (len(registry.joining), places),
            "leavers": (len(service.run.leaves.by_slot), places),
            "dropped": (len(service.run.leaves._dropped), places),
            "flights": (max(len(lane._flights) for lane in lanes), MOST_FLIGHTS),
            "timers": (len(service.clock._calls), 11 + len(lanes)),
            "queue": (snapshot.queue_depth, snapshot.queue_size),
        }
        for name, (size, most) in sizes.items():
            world.check(size <= most, size, name, "where there should be", most, "at most")
