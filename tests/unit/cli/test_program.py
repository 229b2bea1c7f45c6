"""Bots that are teleported and healed while they walk."""

from __future__ import annotations

import random
from typing import Any

import attrs

from playerstate import server_owned, text, transient, within
from playerstate.cli.program import Hero
from playerstate.client import Client
from playerstate.conversations.states import States
from playerstate.wire.messages import SEEN, STATE
from tests.kit.world import Walker, World, WorldTestCase


@attrs.frozen
class Owned:
    """A class of which the server owns every field, one of each kind."""

    x: float = attrs.field(default=-7.5, metadata=within(-9, -7) | server_owned())
    hp: int = attrs.field(default=5000, metadata=within(5000, 5003) | server_owned())
    alive: bool = attrs.field(default=True, metadata=server_owned())
    zone: str = attrs.field(default="spawn", metadata=text(8) | server_owned())


@attrs.frozen
class Mixed:
    """Each side owns a field that is stored and one that is not."""

    x: float = 1.0
    hp: int = attrs.field(default=5, metadata=server_owned())
    pose: int = attrs.field(default=2, metadata=within(0, 9) | transient())
    buff: int = attrs.field(default=3, metadata=within(0, 9) | transient() | server_owned())


def is_state(datagram: bytes) -> bool:
    """Whether this is a STATE."""
    return datagram[12] == STATE


class ChangeTests(WorldTestCase):
    """Some of the bots are changed, the others are not."""

    def test_all_is_well(self) -> None:
        """Each ends where it must, and the numbers say how often it was changed."""
        world = self.world(3, Hero)
        found = world.visit_changed(2)
        self.assertEqual((found.troubles, found.ok), ({}, True))
        numbers = found.numbers
        self.assertApproximates(numbers["teleports"], 8, 1)
        self.assertApproximates(numbers["heals"], 8, 1)
        self.assertEqual(numbers["changes_told"], numbers["teleports"] + numbers["heals"])
        self.assertEqual((numbers["lost_moves"], numbers["mismatches"]), (0, 0))
        stored = {i: world.stored(i) or {} for i in (1, 2, 3)}
        self.assertNotEqual(stored[1]["hp"], 100)
        self.assertEqual(stored[3]["hp"], 100)
        self.assertEqual(world.crowd.clients[3].changes, 0)
        self.assertEqual(world.stepped.service.ledger.snapshot().imbalance(), [])

    def test_lossy_network(self) -> None:
        """However many datagrams get lost, no change does."""
        rng = random.Random(7)
        kinds = set()

        def lost(datagram: bytes) -> bool:
            kinds.add(datagram[12])
            return rng.random() < 0.3

        world = self.world(10, Hero, lost=lost)
        found = world.visit_changed(10, seconds=4.0)
        self.assertEqual(found.troubles, {})
        self.assertGreater(found.numbers["teleports"], 50)
        self.assertLessEqual({STATE, SEEN}, kinds)
        self.assertGreater(world.stepped.service.ledger.rejected["not_seen"], 0)

    def test_no_field_of_the_servers(self) -> None:
        """Where the client owns all, bots are only teleported, onto the grid or off it."""
        found = self.world(2, Walker).visit_changed(2)
        self.assertEqual((found.troubles, found.numbers["heals"]), ({}, 0))
        self.assertApproximates(found.numbers["teleports"], 16, 2)

    def test_no_field_of_the_clients(self) -> None:
        """Where the server owns all, bots stand still, and are only healed."""
        world = self.world(2, Owned)
        found = world.visit_changed(2)
        self.assertEqual((found.troubles, found.numbers["teleports"]), ({}, 0))
        self.assertApproximates(found.numbers["heals"], 16, 2)
        self.assertNotEqual(world.stored(1), attrs.asdict(Owned()))

    def test_not_stored(self) -> None:
        """A transient field of either side begins anew, and is not sought in the store."""
        self.assertEqual(self.world(2, Mixed).visit_changed(2).troubles, {})

    def test_not_told(self) -> None:
        """A bot that learns of no change is named, with what it was set to."""
        found = self.world(2, Hero, lost=is_state).visit_changed(1)
        self.assertEqual((found.status, list(found.troubles)), (1, [1]))
        self.assertRegex(
            found.troubles[1], r"^was not told in time that it was set to x=-?\d.*, y="
        )

    def test_not_told_of_the_servers_fields(self) -> None:
        """So is one that learns of no new value of a field that the server owns."""
        found = self.world(1, Owned, lost=is_state).visit_changed(1)
        self.assertRegex(found.troubles[1], "that it was set to x=-.*, hp=500[0-3]")

    def test_undone(self) -> None:
        """A teleport that a move undoes is named: here moves go on before the client knows."""
        changed = States.changed

        def not_moved(states: States, conversation: Any, moved: bool, players: int) -> None:
            changed(states, conversation, False, players)

        self.patch(States, "changed", not_moved)
        found = self.world(2, Hero).visit_changed(1)
        self.assertRegex(found.troubles[1], r"^was teleported to x=.*, and an earlier move undid")
        self.assertNotIn(2, found.troubles)

    def test_goes_elsewhere(self) -> None:
        """So is a client that answers, and goes on from a place of its own."""
        take = Client._take_state

        def astray(client: Client, state: Any, now: float) -> None:
            take(client, state, now)
            client.values = (1.5, 2.5, *client.values[2:])

        self.patch(Client, "_take_state", astray)
        found = self.world(1, Hero).visit_changed(1)
        self.assertRegex(found.troubles[1], r"^went where it was never teleported: x=1\.5, y=2\.5")

    def stored_with(self, world: World, **values: Any) -> Any:
        """A store that holds other values."""
        return lambda session_id: {**(world.stored(session_id) or {}), **values}

    def test_store_has_another_value_of_the_servers(self) -> None:
        """A heal that the store lacks is named, with both values."""
        world = self.world(1, Hero)
        found = world.visit_changed(1, stored=self.stored_with(world, hp=-1))
        self.assertEqual(found.status, 1)
        self.assertRegex(
            found.troubles[1],
            r"^ended in the store with hp=-1, not with hp=\d+, as the program set it$",
        )

    def test_store_has_another_place(self) -> None:
        """So is a place."""
        world = self.world(1, Hero)
        found = world.visit_changed(1, stored=self.stored_with(world, y=0.25))
        self.assertRegex(
            found.troubles[1],
            r"^ended in the store with y=0\.25, not with y=-?\d+\.\d+, as its client left$",
        )

    def test_not_in_store(self) -> None:
        """A bot that the store does not know is named."""
        found = self.world(2, Hero).visit_changed(2, stored=lambda session_id: None)
        self.assertEqual(found.troubles, dict.fromkeys((1, 2), "is not in the store"))

    def test_interrupted(self) -> None:
        """Cut short, the bots leave at once, and nothing is said of what they did not do."""
        world = self.world(2, Hero, lost=is_state)
        world.reactor.callLater(0.5, setattr, world.crowd, "interrupted", True)
        found = world.visit_changed(1, seconds=30.0, stored=lambda session_id: None)
        self.assertEqual(found.status, 130)
        self.assertLess(world.reactor.seconds(), 13.0)
        self.assertEqual([i for i, why in found.troubles.items() if "told" in why], [])
