"""What the gateway and its transports owe each other, whatever the transport."""

from __future__ import annotations

import struct
from typing import Any

from playerstate import NotOnline
from playerstate.conversations.gateway import Gateway
from tests.kit.players import ServiceTestCase, at, end_thread, outcome, read_answer, run_of

JOIN = struct.pack("<BBIIIQ", 1, 1, 0, 1, 0, 0).ljust(116, b"\0")
OTHER_JOIN = struct.pack("<BBIIIQ", 1, 1, 0, 2, 0, 0).ljust(116, b"\0")
MOVE = struct.pack("<BIdd", 2, 1, 5.0, 6.0)
LEAVE = struct.pack("<BI31x", 3, 1)


class Wire:
    """A transport whose peers are texts, and which writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Write down a message by its name."""
        self.told.append((read_answer(message)[0], session_id, peer))

    def end(self, session_id: int, peer: Any) -> None:
        """Write down the end."""
        self.told.append(("end", session_id, peer))

    def take(self) -> list[tuple[Any, ...]]:
        """What it was told since the last time."""
        told, self.told = self.told, []
        return told


class TransportTestCase(ServiceTestCase):
    """Tests of a gateway with a transport that is told."""

    def setUp(self) -> None:
        """A gateway that a transport has started."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.gateway = Gateway(self.service, jitter=lambda: 0.0)
        self.gateway.start()
        self.wire = Wire()

    def say(self, *messages: bytes, peer: str = "here", session_id: int = 42) -> None:
        """Messages come from a peer."""
        for message in messages:
            self.gateway.received_many(self.wire, [session_id], [peer], [message], 0)

    def settle(self) -> None:
        """Let leaves be saved."""
        for _ in range(20):
            self.stepped.reactor.advance(0.01)
            self.stepped.settle()


class EndTests(TransportTestCase):
    """The transport is told when a conversation has ended by a GONE."""

    def test_kicked(self) -> None:
        """GONE goes first, then the word that the peer may be let go."""
        self.say(JOIN)
        self.wire.take()
        self.gateway.kick(42)
        self.assertEqual(self.wire.take(), [("gone", 42, "here"), ("end", 42, "here")])

    def test_idle(self) -> None:
        """So it is with a player who is silent for too long."""
        self.say(JOIN)
        self.wire.take()
        for _ in range(32):
            self.stepped.reactor.advance(1.0)
        self.assertEqual(self.wire.take(), [("gone", 42, "here"), ("end", 42, "here")])

    def test_joined_elsewhere(self) -> None:
        """A player who joins from elsewhere has the old peer let go, and not the new one."""
        self.say(JOIN)
        self.wire.take()
        self.say(OTHER_JOIN, peer="there")
        self.assertEqual(
            self.wire.take(),
            [("gone", 42, "here"), ("end", 42, "here"), ("welcome", 42, "there")],
        )

    def test_left(self) -> None:
        """A player who leaves hears the last RECEIPT and may join again: nothing is ended."""
        self.say(JOIN, MOVE, LEAVE)
        self.settle()
        self.assertNotIn("end", {told[0] for told in self.wire.take()})


class LostTests(TransportTestCase):
    """The transport tells that a peer is gone."""

    def test_leaves(self) -> None:
        """Its player leaves and is saved, and nothing is said to a peer that is not there."""
        self.say(JOIN, MOVE)
        self.wire.take()
        self.gateway.lost(42, "here")
        self.settle()
        self.assertEqual(self.wire.take(), [])
        self.assertRaises(NotOnline, self.service.state, 42)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 6.0)})

    def test_comes_back(self) -> None:
        """The player may join anew, from another peer, before that is saved."""
        self.say(JOIN, MOVE)
        self.gateway.lost(42, "here")
        self.wire.take()
        self.say(JOIN, peer="there")
        self.settle()
        self.assertIn(("welcome", 42, "there"), self.wire.take())
        self.assertEqual(self.service.state(42), at(5.0, 6.0))

    def test_another_peer(self) -> None:
        """A peer that the player has left behind takes nobody along, nor does one never heard."""
        self.say(JOIN)
        self.gateway.lost(42, "there")
        self.gateway.lost(43, "here")
        self.settle()
        self.assertEqual(self.service.state(42), at(350, 200))

    def test_while_leaving(self) -> None:
        """A player who was leaving is saved all the same, and not answered any more."""
        self.say(JOIN, MOVE, LEAVE)
        self.wire.take()
        self.gateway.lost(42, "here")
        self.settle()
        self.assertEqual(self.wire.take(), [])
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 6.0)})

    def test_while_joining(self) -> None:
        """A JOIN that waits for the store is forgotten: nobody comes online for no peer."""
        self.stepped.store.hold_loads()
        self.say(JOIN)
        self.gateway.lost(42, "there")
        self.assertEqual(len(run_of(self.gateway).registry.joining), 1)
        self.gateway.lost(42, "here")
        self.stepped.store.release_loads()
        self.settle()
        self.assertEqual(self.wire.take(), [])
        self.assertRaises(NotOnline, self.service.state, 42)

    def test_taken_offline_by_the_program(self) -> None:
        """A player whom the program has taken offline before does not leave twice."""
        self.say(JOIN)
        self.service.leave(42)
        self.settle()
        self.gateway.lost(42, "here")
        self.settle()
        self.assertEqual(self.service.ledger.leaves, 1)


class SharedTests(TransportTestCase):
    """Transports that share a gateway."""

    def setUp(self) -> None:
        """A second transport."""
        super().setUp()
        self.other = Wire()

    def say_otherwise(self, message: bytes, peer: str) -> None:
        """A message of the same player comes by the other transport."""
        self.gateway.received_many(self.other, [42], [peer], [message], 0)

    def test_joins_by_both(self) -> None:
        """A JOIN that comes again by another transport, while the store loads, is answered there.

        So it is where the peer is called the same by both.
        """
        for peer in ("here", "there"):
            self.stepped.store.hold_loads()
            self.say(JOIN)
            self.say_otherwise(JOIN, peer)
            self.stepped.store.release_loads()
            self.settle()
            self.assertEqual(self.other.take(), [("welcome", 42, peer)])
            self.gateway.kick(42)
            self.assertEqual(self.other.take(), [("gone", 42, peer), ("end", 42, peer)])
            self.assertEqual(self.wire.take(), [])
            self.settle()

    def test_refused_by_both(self) -> None:
        """So is one that comes to nothing."""
        self.stepped.store.hold_loads()
        self.say(JOIN)
        self.say_otherwise(JOIN, "there")
        self.service.stopService()
        self.assertEqual(self.other.take(), [("refused", 42, "there")])
        self.assertEqual(self.wire.take(), [])
        end_thread(self.stepped)

    def test_moved_to_the_other(self) -> None:
        """A JOIN repeated from the same address by another transport is welcomed by that one."""
        self.say(JOIN)
        self.wire.take()
        self.say_otherwise(JOIN, "here")
        self.assertEqual((self.wire.take(), self.other.take()), ([], [("welcome", 42, "here")]))
        self.gateway.kick(42)
        self.assertEqual(self.other.take(), [("gone", 42, "here"), ("end", 42, "here")])

    def test_replaced_by_the_other(self) -> None:
        """Who joins anew from the same address by another transport is elsewhere now."""
        self.say(JOIN)
        self.wire.take()
        self.say_otherwise(OTHER_JOIN, "here")
        self.assertEqual(self.wire.take(), [("gone", 42, "here"), ("end", 42, "here")])
        self.assertEqual(self.other.take(), [("welcome", 42, "here")])

    def test_started_by_each(self) -> None:
        """The second transport that starts the gateway disturbs nothing."""
        self.say(JOIN)
        calls = len(self.service.clock.getDelayedCalls())
        self.gateway.start()
        self.assertEqual(len(self.service.clock.getDelayedCalls()), calls)
        self.say(MOVE)
        self.assertEqual(self.service.state(42), at(5.0, 6.0))

    def test_closed_by_each(self) -> None:
        """Each transport that closes it hears when all are saved, whenever it asks."""
        self.say(JOIN, MOVE)
        first, second = outcome(self.gateway.close()), outcome(self.gateway.close())
        self.assertEqual((first, second), ([], []))
        self.settle()
        self.assertEqual((first, second, outcome(self.gateway.close())), ([None],) * 3)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 6.0)})
        self.assertEqual([told[0] for told in self.wire.take()][-2:], ["gone", "end"])

    def test_started_again(self) -> None:
        """A gateway that was closed can be started, and knows nobody."""
        self.say(JOIN)
        self.gateway.close()
        self.settle()
        self.wire.take()
        self.gateway.start()
        self.say(MOVE)
        self.assertEqual(self.service.ledger.rejected, {"not_joined": 1})
        self.say(JOIN)
        self.assertEqual(self.wire.take(), [("welcome", 42, "here")])
