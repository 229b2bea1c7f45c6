"""What the gateway and any transport may expect of each other."""

from __future__ import annotations

import struct
from typing import Any

from playerstate import NotOnline
from playerstate.conversations.gateway import Gateway
from tests.kit.players import ServiceTestCase, at, end_thread, outcome, read_answer, run_of

JOIN = struct.pack("<BBIIIQ", 1, 1, 0, 1, 0, 0).ljust(248, b"\0")
OTHER_JOIN = struct.pack("<BBIIIQ", 1, 1, 0, 2, 0, 0).ljust(248, b"\0")
MOVE = struct.pack("<BIdd", 2, 1, 5.0, 6.0)
LEAVE = struct.pack("<BI31x", 3, 1)


class Wire:
    """A transport whose peers are texts, and which notes the calls that it gets."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Note a message by its name."""
        self.told.append((read_answer(message)[0], session_id, peer))

    def end(self, session_id: int, peer: Any) -> None:
        """Note the end."""
        self.told.append(("end", session_id, peer))

    def take(self) -> list[tuple[Any, ...]]:
        """The calls since the last time."""
        told, self.told = self.told, []
        return told


class TransportTestCase(ServiceTestCase):
    """Tests of a gateway with a transport that notes its calls."""

    def setUp(self) -> None:
        """A gateway that a transport has started."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.gateway = Gateway(self.service, jitter=lambda: 0.0)
        self.gateway.start()
        self.wire = Wire()

    def say(self, *messages: bytes, peer: str = "here", session_id: int = 42) -> None:
        """Let messages arrive from a peer."""
        for message in messages:
            self.gateway.received_many(self.wire, [session_id], [peer], [message], 0)

    def settle(self) -> None:
        """Let leaves be saved."""
        for _ in range(20):
            self.stepped.reactor.advance(0.01)
            self.stepped.settle()


class EndTests(TransportTestCase):
    """The gateway calls `end` when a conversation has ended by a GONE."""

    def test_kicked(self) -> None:
        """GONE is sent first, then `end` is called."""
        self.say(JOIN)
        self.wire.take()
        self.gateway.kick(42)
        self.assertEqual(self.wire.take(), [("gone", 42, "here"), ("end", 42, "here")])

    def test_idle(self) -> None:
        """So it is for a player who is silent for too long."""
        self.say(JOIN)
        self.wire.take()
        for _ in range(32):
            self.stepped.reactor.advance(1.0)
        self.assertEqual(self.wire.take(), [("gone", 42, "here"), ("end", 42, "here")])

    def test_joined_elsewhere(self) -> None:
        """If a player joins from elsewhere, `end` is called for the old peer only."""
        self.say(JOIN)
        self.wire.take()
        self.say(OTHER_JOIN, peer="there")
        self.assertEqual(
            self.wire.take(),
            [("gone", 42, "here"), ("end", 42, "here"), ("welcome", 42, "there")],
        )

    def test_left(self) -> None:
        """For a player who leaves `end` is not called: the player may join again."""
        self.say(JOIN, MOVE, LEAVE)
        self.settle()
        self.assertNotIn("end", {told[0] for told in self.wire.take()})


class LostTests(TransportTestCase):
    """The transport reports that a peer is gone."""

    def test_leaves(self) -> None:
        """Its player leaves and is saved, and no message is sent to the peer."""
        self.say(JOIN, MOVE)
        self.wire.take()
        self.gateway.lost(42, "here")
        self.settle()
        self.assertEqual(self.wire.take(), [])
        self.assertRaises(NotOnline, self.service.state, 42)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 6.0)})

    def test_comes_back(self) -> None:
        """The player may join again, from another peer, before the save."""
        self.say(JOIN, MOVE)
        self.gateway.lost(42, "here")
        self.wire.take()
        self.say(JOIN, peer="there")
        self.settle()
        self.assertIn(("welcome", 42, "there"), self.wire.take())
        self.assertEqual(self.service.state(42), at(5.0, 6.0))

    def test_another_peer(self) -> None:
        """The loss of a player's earlier peer, or of an unknown one, ends no conversation."""
        self.say(JOIN)
        self.gateway.lost(42, "there")
        self.gateway.lost(43, "here")
        self.settle()
        self.assertEqual(self.service.state(42), at(350, 200))

    def test_while_leaving(self) -> None:
        """A player who was leaving is still saved, and not answered any more."""
        self.say(JOIN, MOVE, LEAVE)
        self.wire.take()
        self.gateway.lost(42, "here")
        self.settle()
        self.assertEqual(self.wire.take(), [])
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 6.0)})

    def test_while_joining(self) -> None:
        """A JOIN that waits for the store is dropped: no player comes online without a peer."""
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
        """A player whom the program took offline before does not leave twice."""
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
        """Let a message of the same player arrive by the other transport."""
        self.gateway.received_many(self.other, [42], [peer], [message], 0)

    def test_joins_by_both(self) -> None:
        """A JOIN repeated by another transport, while the store loads, is answered there.

        So it is if both transports have the same peer.
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
        """A refused JOIN that was repeated by another transport is answered there."""
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
        """A new JOIN from the same address by another transport ends the old conversation."""
        self.say(JOIN)
        self.wire.take()
        self.say_otherwise(OTHER_JOIN, "here")
        self.assertEqual(self.wire.take(), [("gone", 42, "here"), ("end", 42, "here")])
        self.assertEqual(self.other.take(), [("welcome", 42, "here")])

    def test_started_by_each(self) -> None:
        """A second transport that starts the gateway changes nothing."""
        self.say(JOIN)
        calls = len(self.service.clock.getDelayedCalls())
        self.gateway.start()
        self.assertEqual(len(self.service.clock.getDelayedCalls()), calls)
        self.say(MOVE)
        self.assertEqual(self.service.state(42), at(5.0, 6.0))

    def test_closed_by_each(self) -> None:
        """Each transport that closes it is notified when all are saved."""
        self.say(JOIN, MOVE)
        first, second = outcome(self.gateway.close()), outcome(self.gateway.close())
        self.assertEqual((first, second), ([], []))
        self.settle()
        self.assertEqual((first, second, outcome(self.gateway.close())), ([None],) * 3)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 6.0)})
        self.assertEqual([told[0] for told in self.wire.take()][-2:], ["gone", "end"])

    def test_started_again(self) -> None:
        """A gateway that was closed can be started, and knows no player."""
        self.say(JOIN)
        self.gateway.close()
        self.settle()
        self.wire.take()
        self.gateway.start()
        self.say(MOVE)
        self.assertEqual(self.service.ledger.rejected, {"not_joined": 1})
        self.say(JOIN)
        self.assertEqual(self.wire.take(), [("welcome", 42, "here")])
