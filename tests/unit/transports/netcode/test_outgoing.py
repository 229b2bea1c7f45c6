"""The datagrams that a server sends: numbered, and in order."""

from __future__ import annotations

from playerstate.transports.netcode.client import State
from playerstate.transports.netcode.packets import (
    DISCONNECT,
)
from tests.kit.netcode import (
    TICK,
    ServerTestCase,
    opened,
)


class OutgoingTests(ServerTestCase):
    """Keep-alives and disconnect packets."""

    def test_server_disconnects(self) -> None:
        """Ten disconnect packets, each under its own number; nothing is sent after them."""
        table = self.table()
        player = table.connected()
        connection = player.connection
        sequence = connection.sequence
        table.sent.clear()
        table.disconnect(connection)
        sent = [opened(datagram, player.token) for datagram, _ in table.sent]
        self.assertEqual(sent, [(DISCONNECT, sequence + n, b"") for n in range(10)])
        self.assertEqual(table.events, [("connected", 42)])
        player.hear()
        self.assertEqual(player.client.state, State.DISCONNECTED)
        table.disconnect(connection)
        table.send(connection, b"x")
        self.assertEqual(len(table.sent), 0)

    def test_keep_alives(self) -> None:
        """A silent connection carries ten keep-alives a second each way, a busy one none."""
        table = self.table()
        player = table.connected()
        before = player.connection.sequence
        table.pass_time(1.0)
        self.assertIn(player.connection.sequence - before, (7, 8, 9, 10))
        before = player.connection.sequence
        for _ in range(30):
            table.send(player.connection, b"x")
            table.pass_time(TICK)
        self.assertEqual(player.connection.sequence - before, 30)
