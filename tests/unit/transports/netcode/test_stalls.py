"""Stalls of the process do not count as silence of clients."""

from __future__ import annotations

from tests.kit.netcode import (
    ServerTestCase,
)


class StallTests(ServerTestCase):
    """Ticks that come late."""

    def test_server_stood_still(self) -> None:
        """Time for which the process stalled does not time a client out; later silence does."""
        table = self.table()
        player = table.connected(timeout=5)
        table.pass_time(2.0)
        table.now += 3600.0
        table.tick()
        player.hear()
        table.pass_time(1.0)
        self.assertEqual(len(table.server.connections), 1)
        self.assertLessEqual(player.connection.heard_at, table.now)
        table.pass_time(2.5)
        self.assertEqual(table.server.connections, [])

    def test_read_before_judged(self) -> None:
        """A client whose packets wait in the socket during a stall does not time out."""
        table = self.table()
        player = table.connected(timeout=1)
        half_open = self.half_open(table, 43, timeout=1)
        table.pass_time(0.875)
        waiting = player.client.send(b"x", table.now)
        response = half_open.client.due(table.now)
        assert response is not None
        table.now += 60.0
        table.pass_time(0.25)
        table.receive(waiting, player.source)
        table.pass_time(0.5)
        self.assertEqual([c.client_id for c in table.server.connections], [42])
        table.pass_time(1.0)
        self.assertEqual(table.server.connections, [])

    def test_read_in_time(self) -> None:
        """A client whose packets were read before the late tick is charged with later silence."""
        table = self.table()
        player = table.connected(timeout=5)
        table.now += 60.0
        player.send(b"x")
        table.tick()
        self.assertEqual(player.connection.heard_at, table.now)
        self.assertEqual(player.connection.payload_at, table.now)
        table.pass_time(5.0)
        self.assertEqual(table.server.connections, [])

    def test_half_open_meanwhile(self) -> None:
        """A half-open client whose response waits in the socket is not removed."""
        table = self.table()
        player = self.half_open(table, timeout=1)
        table.pass_time(0.25)
        response = player.client.due(table.now)
        assert response is not None
        table.now += 60.0
        table.tick()
        self.assertEqual(len(table.receive(response, player.source)), 1)
        self.assertEqual(len(table.server.connections), 1)

    def test_busy_server(self) -> None:
        """A server whose ticks are all late still times silent clients out."""
        table = self.table()
        table.connected(timeout=5)
        for _ in range(30):
            table.now += 2.0
            table.tick()
        self.assertEqual(table.server.connections, [])
