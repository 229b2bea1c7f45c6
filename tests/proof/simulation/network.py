"""Datagrams on their way: lost, late, twice, in another order."""

from __future__ import annotations

import heapq
import itertools
import math

from playerstate.testing import Address
from tests.proof.simulation.plan import Plan
from tests.proof.simulation.world import World

MOST = 400
"""Datagrams on the way at most; what is more is lost."""


class Network:
    """One way between clients and the server.

    Args:
        world: whose time it takes.
        plan: what goes wrong.

    Attributes:
        healed: whether nothing goes wrong any more.
    """

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        self.healed = False
        self._way: list[tuple[float, int, bytes, Address]] = []
        self._numbers = itertools.count()

    def send(self, datagram: bytes, address: Address) -> None:
        """Put a datagram on its way; `address` is the client's, whichever way it goes."""
        world, plan = self._world, self._plan
        if len(self._way) >= MOST:
            return
        if self.healed:
            self._put(world.now + 0.02 * world.random.random(), datagram, address)
            return
        if world.chance(plan.loss):
            return
        for _ in range(2 if world.chance(plan.copies) else 1):
            takes = 0.02 * world.random.random()
            if world.chance(plan.jams):
                takes = 3.0 * world.random.random()
            due = world.now + takes
            if plan.bunches:
                due = math.ceil(due / plan.bunches) * plan.bunches
            self._put(due, datagram, address)

    def _put(self, due: float, datagram: bytes, address: Address) -> None:
        heapq.heappush(self._way, (due, next(self._numbers), datagram, address))

    def next_due(self) -> float:
        """When the next datagram arrives."""
        return self._way[0][0] if self._way else math.inf

    def arrived(self) -> tuple[bytes, Address] | None:
        """A datagram that has arrived."""
        if self.next_due() > self._world.now:
            return None
        return heapq.heappop(self._way)[2:]
