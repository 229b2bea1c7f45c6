"""Who is not in yet waits, and is taken by turns of the sources."""

from __future__ import annotations

import os
import struct

from twisted.trial.unittest import SynchronousTestCase

from playerstate.messages import Codec
from playerstate.transports import strangers
from playerstate.transports.netcode.limits import Rate, SourceBuckets
from playerstate.transports.recvmmsg import DATAGRAMS
from playerstate.transports.strangers import Strangers
from tests.players import WELCOME, Client, GatewayTestCase


class StrangersTests(SynchronousTestCase):
    """The lines."""

    def test_turns(self) -> None:
        """A long line delays no other: each network has its turn, and in it each port."""
        waiting: Strangers[str] = Strangers(b"secret")
        for _ in range(900):
            waiting.put("192.0.2.1", 1, "flood")
        for host, port in (("192.0.2.2", 1), ("192.0.2.3", 1)):
            self.assertTrue(waiting.put(host, port, host))
        taken = [waiting.take() for _ in range(6)]
        self.assertLess({"192.0.2.2", "192.0.2.3"}, set(taken))

    def test_bound(self) -> None:
        """What waits is bounded, from one source and from all of them."""
        waiting: Strangers[int] = Strangers()
        taken = sum(waiting.put("192.0.2.1", 1, number) for number in range(5_000))
        self.assertEqual(taken, strangers.ROOM)
        for number in range(50_000):
            waiting.put(f"10.{number >> 8 & 255}.{number & 255}.1", number & 65_535, number)
        count = 0
        while waiting:
            waiting.take()
            count += 1
        self.assertLessEqual(count, 30 * strangers.ROOM)

    def test_secret(self) -> None:
        """Which sources share a line, or a bucket, cannot be told without the secret."""

        def lines(secret: bytes) -> list[int]:
            waiting: Strangers[int] = Strangers(secret)
            for number in range(64):
                waiting.put(f"192.0.2.{number}", 1, number)
            return [waiting.take() for _ in range(40)]

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
        self.assertLessEqual(self.books.joins - joins, 2)
        other = Client(self.port, 9, ("192.0.2.77", 1))
        other.join()
        self.assertEqual(other.heard()[0][0], WELCOME)
        for _ in range(40):
            self.stepped.reactor.advance(0.0)
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
