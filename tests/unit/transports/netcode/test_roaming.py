"""A client whose port changes in the middle of a connection."""

from __future__ import annotations

import random

from playerstate.transports.netcode import roaming
from playerstate.transports.netcode.client import State
from playerstate.transports.netcode.limits import Rate
from playerstate.transports.netcode.packets import (
    RESPONSE,
)
from playerstate.transports.netcode.roaming import Roaming
from tests.kit.netcode import (
    MANY,
    Player,
    ServerTestCase,
    Table,
    source,
)


class RoamingTests(ServerTestCase):
    """A client whose port changes in the middle of a connection."""

    def silent(self, table: Table, count: int = 1) -> list[Player]:
        """Clients at one host that have been silent for more than a second."""
        players = []
        for n in range(count):
            token = self.token(table, 100 + n, timeout=60)
            players.append(table.player(token, source(9, 1000 + n)))
            players[-1].connect()
        table.pass_time(1.1)
        table.sent.clear()
        return players

    def moved(self, player: Player) -> bool:
        """Whether a payload gets through from another port of its host."""
        before = player.table.server.tally.moved
        player.source = source(9, player.source[1] + 1000)
        player.say(player.client.send(b"x", player.table.now))
        return player.table.server.tally.moved > before

    def test_goes_on(self) -> None:
        """After a second of silence a new packet from another port moves the connection there."""
        table = self.table()
        [player] = self.silent(table)
        connection, events = player.connection, len(table.events)
        self.assertTrue(self.moved(player))
        self.assertEqual(table.events[events:], [("received", 100, b"x")])
        self.assertEqual((connection.source, connection.is_open), (player.source, True))
        player.pass_time(1.0)
        self.assertGreater(player.client.heard_at, table.now - 0.2)
        table.disconnect(connection)
        player.hear()
        self.assertEqual(player.client.state, State.DISCONNECTED)

    def test_spoken_to_lately(self) -> None:
        """A connection that is not silent does not move."""
        table = self.table()
        [player] = self.silent(table)
        at_home = player.source
        player.send(b"here")
        self.assertFalse(self.moved(player))
        self.assertEqual(table.server.connections[0].source, at_home)

    def test_replayed(self) -> None:
        """A packet that was accepted, or is older than one that was, moves no connection."""
        table = self.table()
        [player] = self.silent(table)
        held_back = player.client.send(b"late", table.now)
        player.send(b"newer")
        table.pass_time(1.1)
        for datagram in (*player.log[1:], held_back):
            self.assertEqual(table.why(datagram, source(9, 7)), "no_key")
        datagram = player.client.send(b"y", table.now)
        table.receive(datagram, source(9, 7))
        self.assertEqual(table.why(datagram, source(9, 7)), "replayed")
        table.pass_time(1.1)
        self.assertEqual(table.why(datagram, source(9, 8)), "no_key")
        self.assertEqual(table.server.tally.moved, 1)

    def test_secret(self) -> None:
        """Each start draws anew which networks share a bucket, so that no sender can choose."""
        self.patch(roaming, "SOURCE_RATE", Rate(1.0, 1))
        self.patch(roaming, "SOURCE_BUCKETS", 64)
        taken = []
        for seed in (1, 2):
            tried = Roaming(random.Random(seed).randbytes)
            taken.append([tried.take(source(number), 0.0) for number in range(200)])
        self.assertNotEqual(*taken)
        self.assertLessEqual(max(map(sum, taken)), 64)

    def test_other_address(self) -> None:
        """A packet from another address, or to another port of the server, is not tried."""
        table = self.table()
        [player] = self.silent(table)
        for whence in (source(8, 1000), (*source(9, 7)[:2], "other port")):
            datagram = player.client.send(b"x", table.now)
            self.assertEqual(table.why(datagram, whence), "no_key")

    def test_other_kinds(self) -> None:
        """Only numbered packets are tried, and no number that a client can hardly have reached."""
        table = self.table()
        [player] = self.silent(table)
        client = player.client
        self.assertEqual(
            table.why(client._seal(RESPONSE, bytes(308), table.now), source(9, 7)), "no_key"
        )
        client._sequence += 2**16
        self.assertEqual(table.why(client.send(b"x", table.now), source(9, 7)), "no_key")

    def test_disconnects_from_there(self) -> None:
        """A client may also disconnect from another port."""
        table = self.table()
        [player] = self.silent(table)
        table.receive(player.client.disconnect(table.now)[0], source(9, 7))
        self.assertEqual(table.events[-1], ("disconnected", 100))
        self.assertEqual(table.server.connections, [])

    def test_many_at_one_address(self) -> None:
        """Of many silent connections a few are tried for each packet, in turns."""
        table = self.table(slots=40, source_rate=MANY)
        players = self.silent(table, 30)
        opened_with = []
        real = table.server._open
        table.server._open = lambda *given: opened_with.append(given[0]) or real(*given)  # type: ignore[func-returns-value]
        last = players[-1]
        tries = 1
        while not self.moved(last):
            tries += 1
            last.source = source(9, last.source[1] - 1000)
        self.assertEqual(tries, 8)
        self.assertEqual(len(opened_with), 4 * 7 + 2 + 1)

    def test_budget(self) -> None:
        """Noise from the address of a silent client is tried within the rate only."""
        table = self.table()
        [player] = self.silent(table)
        opened_with = []
        real = table.server._open
        table.server._open = lambda *given: opened_with.append(given[0]) or real(*given)  # type: ignore[func-returns-value]
        noise = b"\x25\x40\x00" + bytes(40)
        for n in range(300):
            self.assertEqual(table.why(noise, source(9, 2000 + n)), "no_key")
        self.assertEqual(len(opened_with), 100)
        table.now += 1.0
        self.assertTrue(self.moved(player))

    def test_budget_of_all(self) -> None:
        """Packets of all addresses together are tried within the common rate only."""
        tried = Roaming(bytes)
        taken = [tried.take((f"10.0.{n >> 8}.{n & 255}", 1, "port"), 0.0) for n in range(3000)]
        self.assertEqual(sum(taken), 2000)
