"""Strangers are admitted by the load: players' moves come first."""

from __future__ import annotations

import struct

from playerstate.transports import strangers
from playerstate.transports.admission import LOADED_EVERY
from playerstate.transports.plain import JOINS_A_LOADED_TURN
from playerstate.transports.recvmmsg import DATAGRAMS
from playerstate.wire.messages import Codec
from tests.kit.players import WELCOME, Client, GatewayTestCase


class FloodTests(GatewayTestCase):
    """A flood of JOINs beside players."""

    def test_players_first(self) -> None:
        """In a turn full of JOINs a player's move is applied; the JOINs wait for the timer."""
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
        """JOINs for which a queue has no room are dropped and counted."""
        self.open()
        self.patch(strangers, "ROOM", 16)
        join = Codec(self.service.schema).encode_join(7, 0)
        flood = [struct.pack("<QI", number, 7) + join for number in range(1, DATAGRAMS + 1)]
        self.port.receive_many(flood, [("192.0.2.9", 9)] * len(flood))
        self.assertEqual(self.books.joins_limited, DATAGRAMS - 16)
        self.successResultOf(self.port.stopListening())

    def test_loaded(self) -> None:
        """Under load, JOINs are admitted at a fixed rate, however often the socket is read."""
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
        """Under load, an honest JOIN from another network is admitted in the next turn."""
        self.patch(strangers, "NETWORKS", 2**40)  # so that none share a queue by chance
        self.open()
        join = Codec(self.service.schema).encode_join(7, 0)
        flood = [struct.pack("<QI", 100 + n, 7) + join for n in range(DATAGRAMS - 1)]
        honest = struct.pack("<QI", 9, 7) + join
        source = ("192.0.2.77", 1)
        self.port.receive_many([*flood, honest], [("192.0.2.9", 9)] * len(flood) + [source])
        self.stepped.reactor.advance(LOADED_EVERY)
        self.assertIn(source, [address for _, address in self.port.take()])
