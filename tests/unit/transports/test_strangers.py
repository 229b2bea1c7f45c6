"""Who is not in yet waits, and is taken by turns of the sources."""

from __future__ import annotations

import os
import struct

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports import strangers
from playerstate.transports.admission import LOADED_EVERY
from playerstate.transports.netcode.limits import Rate, SourceBuckets
from playerstate.transports.plain import JOINS_A_LOADED_TURN
from playerstate.transports.recvmmsg import DATAGRAMS
from playerstate.transports.strangers import Strangers
from playerstate.wire.messages import Codec
from tests.kit.players import WELCOME, Client, GatewayTestCase


class StrangersTests(SynchronousTestCase):
    """The lines."""

    def test_turns(self) -> None:
        """A long line delays no other: each network has its turn, and in it each port."""
        self.patch(strangers, "NETWORKS", 2**40)  # so that none share a line by chance
        waiting = Strangers(b"secret")
        waiting.put([("192.0.2.1", 1)] * 900, [b"flood"] * 900)
        others = [("192.0.2.2", 1), ("192.0.2.3", 1)]
        self.assertEqual(waiting.put(others, [b"other"] * 2), 0)
        taken = [waiting.take() for _ in range(6)]
        self.assertLess({(other, b"other") for other in others}, set(taken))

    def test_beside_many(self) -> None:
        """One of another network is never passed over for many ports of one that came with it."""
        for number in range(50):
            waiting = Strangers(bytes([number]))
            flood = [("192.0.2.1", port) for port in range(127)]
            flood.insert(number, ("192.0.2.2", 1))
            dropped = waiting.put(flood, [b"datagram"] * 128)
            taken = []
            while waiting:
                taken.append(waiting.take()[0])
            self.assertIn(("192.0.2.2", 1), taken)
            self.assertEqual(dropped, 128 - len(taken))
            self.assertLessEqual(len(taken), strangers.SOURCES_AT_ONCE)

    def test_by_chance(self) -> None:
        """Of more networks than are looked at chance says which, and not the order they came in."""
        drawn = set()
        for number in range(50):
            waiting = Strangers(bytes([number]))
            waiting.put([(f"192.0.2.{host}", 1) for host in range(128)], [b"datagram"] * 128)
            while waiting:
                drawn.add(waiting.take()[0])
        self.assertGreater(len(drawn), 100)

    def test_bound(self) -> None:
        """What waits is bounded, from one source and from all of them."""
        waiting = Strangers()
        dropped = waiting.put([("192.0.2.1", 1)] * 5_000, [b"datagram"] * 5_000)
        self.assertEqual(5_000 - dropped, strangers.ROOM)
        for number in range(50_000):
            source = (f"10.{number >> 8 & 255}.{number & 255}.1", number & 65_535)
            waiting.put([source] * 8, [b"datagram"] * 8)
        count = 0
        while waiting:
            waiting.take()
            count += 1
        self.assertLessEqual(count, 12 * strangers.ROOM)

    def test_secret(self) -> None:
        """Which sources share a line, or a bucket, cannot be told without the secret."""

        def lines(secret: bytes) -> list[str]:
            waiting = Strangers(secret)
            for number in range(64):
                waiting.put([(f"192.0.2.{number}", 1)], [b"datagram"])
            return [waiting.take()[0][0] for _ in range(40)]

        def buckets(secret: bytes) -> list[bool]:
            measure = SourceBuckets(Rate(1.0, 1), 32, secret)
            return [measure.take(0.0, bytes([number])) for number in range(64)]

        for outcome in (lines, buckets):
            self.assertEqual(outcome(b"a"), outcome(b"a"))
            self.assertGreater(len({tuple(outcome(os.urandom(16))) for _ in range(8)}), 1)


class FloodTests(GatewayTestCase):
    """A flood of JOINs beside players."""

    def test_players_first(self) -> None:
        """In a turn full of JOINs a player's move is applied, and few JOINs are taken in."""
        self.open()
        player = self.joined()
        codec = Codec(self.service.schema)
        flood = [
            struct.pack("<QI", number + 100, 7) + codec.encode_join(7, 0)
            for number in range(DATAGRAMS - 1)
        ]
        joins = self.books.joins
        head = struct.pack("<QI", player.session_id, player.nonce)
        move = head + codec.encode_move(1, (5.0, 6.0))
        self.port.receive_many([*flood, move], [("192.0.2.9", 9)] * len(flood) + [player.address])
        self.assertEqual(self.service.state(player.session_id).x, 5.0)
        self.assertEqual(self.books.joins, joins)
        other = Client(self.port, 9, ("192.0.2.77", 1))
        other.join()
        self.assertEqual(other.heard()[0][0], WELCOME)
        for _ in range(40):
            self.stepped.reactor.advance(LOADED_EVERY)
        self.assertEqual(self.books.joins - joins, DATAGRAMS)

    def test_dropped(self) -> None:
        """What a line has no room for is dropped and counted; nothing is out of balance."""
        self.open()
        self.patch(strangers, "ROOM", 16)
        join = Codec(self.service.schema).encode_join(7, 0)
        flood = [struct.pack("<QI", number, 7) + join for number in range(1, DATAGRAMS + 1)]
        self.port.receive_many(flood, [("192.0.2.9", 9)] * len(flood))
        self.assertEqual(self.books.joins_limited, DATAGRAMS - 16)
        self.successResultOf(self.port.stopListening())

    def test_loaded(self) -> None:
        """While more waits to be read, JOINs are let in by the clock, however often it is read."""
        self.open()
        self.joined()
        join = Codec(self.service.schema).encode_join(7, 0)
        joins, number = self.books.joins, 100
        for _ in range(20):
            for _ in range(10):
                flood = [struct.pack("<QI", number + n, 7) + join for n in range(DATAGRAMS)]
                number += DATAGRAMS
                self.port.receive_many(flood, [("192.0.2.9", 9)] * len(flood))
                self.stepped.reactor.advance(0.001)
        self.assertGreater(self.books.joins - joins, 0)
        self.assertLessEqual(self.books.joins - joins, 20 * JOINS_A_LOADED_TURN)

    def test_beside_a_loaded_turn(self) -> None:
        """Under load an honest JOIN from elsewhere is let in with the next turn of strangers."""
        self.patch(strangers, "NETWORKS", 2**40)  # so that none share a line by chance
        self.open()
        join = Codec(self.service.schema).encode_join(7, 0)
        flood = [struct.pack("<QI", 100 + n, 7) + join for n in range(DATAGRAMS - 1)]
        honest = struct.pack("<QI", 9, 7) + join
        source = ("192.0.2.77", 1)
        self.port.receive_many([*flood, honest], [("192.0.2.9", 9)] * len(flood) + [source])
        self.stepped.reactor.advance(LOADED_EVERY)
        self.assertIn(source, [address for _, address in self.port.take()])
