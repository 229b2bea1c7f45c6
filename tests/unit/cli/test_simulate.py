"""Bots that join, walk, leave and come back."""

from __future__ import annotations

import random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate import StateSchema
from playerstate.cli import crowd
from playerstate.cli.crowd import NoAnswer
from playerstate.cli.simulate import stepper
from playerstate.interfaces import Stored
from playerstate.wire.messages import (
    DELTA,
    MOVE,
    GoneReason,
    RefusedReason,
    encode_gone,
    encode_refused,
)
from tests.kit.world import Avatar, Walker, WorldTestCase


class VisitTests(WorldTestCase):
    """Bots join, walk, leave, come back and leave again."""

    def test_all_is_well(self) -> None:
        """Everyone joins, moves at the rate, and comes back to where they left."""
        found = self.world(3).visit(seconds=2.0)
        numbers = found.numbers
        self.assertTrue(found.ok)
        self.assertEqual(found.status, 0)
        self.assertEqual((numbers["players"], numbers["joined"], numbers["mismatches"]), (3, 3, 0))
        self.assertApproximates(numbers["moves_sent"], 120, 3)
        self.assertEqual(numbers["applied_at_leave"], numbers["moves_sent"])
        self.assertEqual(numbers["lost_moves"], 0)
        self.assertGreater(numbers["receipts"], 3)

    def test_every_kind_of_field(self) -> None:
        """Any state class can walk, and is compared in full."""
        world = self.world(2, Avatar)
        self.assertTrue(world.visit().ok)
        self.assertNotEqual(world.stepped.store.load(1).values, attrs.astuple(Avatar()))

    def test_grid(self) -> None:
        """Where a field has a resolution, bots stand on its grid, whatever gets lost."""
        rng = random.Random(7)
        kinds = set()

        def lost(datagram: bytes) -> bool:
            kinds.add(datagram[12])
            return rng.random() < 0.1

        found = self.world(5, Walker, lost=lost).visit(seconds=3.0)
        self.assertEqual((found.troubles, found.numbers["lost_moves"]), ({}, 0))
        self.assertIn(DELTA, kinds)

    def test_shows_how_far(self) -> None:
        """The display is told what is being done."""
        world = self.world(1)
        world.visit()
        self.assertEqual(world.shown, ["joining", "walking", "leaving", "joining", "leaving"])

    def test_lossy_network(self) -> None:
        """However many datagrams get lost, no player is taken to have strayed."""
        rng = random.Random(7)
        world = self.world(10, lost=lambda datagram: rng.random() < 0.3)
        found = world.visit()
        self.assertEqual((found.troubles, found.numbers["lost_moves"]), ({}, 0))

    def test_stray(self) -> None:
        """A player who comes back to another place is named, with both places."""
        world = self.world(2)
        load = world.stepped.store.load

        def elsewhere(session_id: int) -> Stored | None:
            stored = load(session_id)
            return Stored((0.0, 1.5), 7) if stored and session_id == 2 else stored

        world.stepped.store.load = elsewhere
        found = world.visit()
        self.assertEqual(found.status, 1)
        self.assertEqual(found.numbers["mismatches"], 1)
        self.assertRegex(found.troubles[2], r"^came back to \(0\.0, 1\.5\), not to \(3")

    def test_full(self) -> None:
        """Who is refused is named, and the others play on."""
        found = self.world(3, max_players=2).visit()
        self.assertEqual(found.numbers["joined"], 2)
        self.assertEqual(found.troubles, {3: "was refused: the server is full"})

    def test_all_refused(self) -> None:
        """Where nobody gets in, nobody walks."""
        world = self.world(2)
        world.lost = lambda datagram: bool(datagram[12] < 0x80)
        for i in (1, 2):
            refused = encode_refused(0, RefusedReason.FINGERPRINT)
            world.crowd.clients[i]._draw_nonce = lambda: 0
            world.reactor.callLater(1.0, world.crowd.links[i].take, refused, 1.0)
        found = world.visit()
        self.assertEqual(found.numbers["seconds"], 0.0)
        self.assertIsNone(found.numbers["join_ms"])
        self.assertIn("another state class", found.troubles[1])

    def test_one_unanswered(self) -> None:
        """Who gets no answer while others do is named in the end."""
        world = self.world(2, lost=lambda datagram: datagram[0] == 2)
        self.assertEqual(world.visit().troubles, {2: "got no answer to its JOIN"})

    def test_no_server(self) -> None:
        """Where nothing is heard for some seconds there is no server."""
        world = self.world(2, lost=lambda datagram: True)
        with self.assertRaises(NoAnswer):
            world.visit()
        self.assertApproximates(world.reactor.seconds(), crowd.ANSWER_WITHIN, 0.1)

    def test_not_applied(self) -> None:
        """Who cannot get the last move applied is named."""
        world = self.world(1, lost=lambda datagram: datagram[12] == MOVE)
        found = world.visit()
        self.assertGreater(found.numbers["lost_moves"], 0)
        self.assertRegex(found.troubles[1], "its last move, [0-9]+, was not applied in time")

    def test_not_saved(self) -> None:
        """Who is not saved is named."""
        world = self.world(1)
        world.saves = False
        self.assertRegex(world.visit().troubles[1], "was not saved in time")

    def test_sent_away(self) -> None:
        """Who is sent away is named, with the reason; nobody left is no reason to walk on."""
        world = self.world(1)
        client = world.crowd.clients[1]

        def send_away(reason: int) -> None:
            message = encode_gone(client._nonce, GoneReason.KICKED)[:-1] + bytes([reason])
            world.crowd.links[1].take(message, world.reactor.seconds())

        world.reactor.callLater(0.5, send_away, 77)
        found = world.visit(seconds=30.0)
        self.assertEqual(found.troubles, {1: "was sent away: reason 77"})
        self.assertLess(found.numbers["seconds"], 1.0)

    def test_more_than_it_can_send(self) -> None:
        """Where the rate is not reached, the outcome says what was, and is not well."""
        self.patch(crowd, "MOST_A_SLICE", 1)
        found = self.world(2).visit(seconds=2.0, rate=200)
        self.assertEqual((found.troubles, found.numbers["moves_per_second_asked"]), ({}, 400.0))
        self.assertApproximates(found.numbers["moves_per_second"], 250, 5)
        self.assertIn("reached 250 of the 400 moves a second asked for", found.behind)
        self.assertEqual((found.ok, found.status), (False, 1))

    def test_held_up(self) -> None:
        """A process that is held up for a moment makes up for it."""
        world = self.world(2)
        world.reactor.callLater(1.0, world.reactor.advance, 0.5)
        found = world.visit(seconds=2.0)
        self.assertEqual((found.behind, found.ok), ("", True))

    def test_interrupted(self) -> None:
        """Cut short, the players leave, and what there is gets told."""
        world = self.world(2)
        world.reactor.callLater(0.5, setattr, world.crowd, "interrupted", True)
        found = world.visit(seconds=30.0)
        self.assertEqual((found.status, found.ok), (130, False))
        self.assertLess(world.reactor.seconds(), 2.0)
        self.assertGreater(found.numbers["applied_at_leave"], 0)
        self.assertEqual(found.numbers["lost_moves"], 0)
        self.assertEqual(len(world.stepped.service.table), 0)

    def test_interrupted_before_any_answer(self) -> None:
        """Cut short before a server was heard, there is nobody to leave."""
        world = self.world(2, lost=lambda datagram: True)
        world.reactor.callLater(0.1, setattr, world.crowd, "interrupted", True)
        self.assertEqual(world.visit().status, 130)
        self.assertLess(world.reactor.seconds(), 0.2)


class StepTests(SynchronousTestCase):
    """Where bots walk."""

    def test_stays_within_bounds(self) -> None:
        """Numbers walk within their bounds, bools flip, and texts change."""
        schema = StateSchema.of(Avatar)
        step = stepper(schema, random.Random(1))
        values, seen = schema.spawn, set()
        for _ in range(500):
            before, values = values, step(values)
            schema.accept(*values)
            self.assertNotEqual(values[2:], before[2:])
            seen.add(values[1])
        self.assertEqual(seen, {0, 1, 2, 3})
