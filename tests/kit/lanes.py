"""A service with several lanes, and players in each."""

from __future__ import annotations

from typing import Any

from playerstate.saving.partition import Partition
from playerstate.testing import FaultyStore
from tests.kit.players import SCHEMA, ServiceTestCase, at

LANES = 4
PLAYERS = range(1, 41)
LANE_OF = {player: Partition(LANES).lane_of(player) for player in PLAYERS}


def of_lane(*lanes: int) -> list[int]:
    """The players of these lanes."""
    return [player for player in PLAYERS if LANE_OF[player] in lanes]


class LanesTestCase(ServiceTestCase):
    """A service with four lanes, and players in each."""

    def setUp(self) -> None:
        """Start it, with all players online."""
        super().setUp()
        self.store = self.make_store()
        self.stepped = self.start(store=self.store, **self.options())
        self.service = self.stepped.service
        for player in PLAYERS:
            self.stepped.join(player)

    def make_store(self) -> Any:
        """The store."""
        return FaultyStore(SCHEMA, LANES)

    def options(self) -> dict[str, Any]:
        """Of the service."""
        return {}

    def move_all(self, x: float = 1.0) -> None:
        """All players change."""
        for player in PLAYERS:
            self.service.update(player, at(x))

    def step(self, lane: int) -> float | None:
        """One step of one lane's persist thread, and what it reports."""
        result = self.stepped.threads[lane].persister.step()
        self.stepped.reactor.deliver()
        return result

    def at_place(self, x: float) -> list[int]:
        """The players stored with this position."""
        return sorted(key for key, values in self.stored(self.stepped).items() if values[0] == x)
