"""The slots of connected clients."""

from __future__ import annotations

from playerstate.transports.netcode.packets import (
    DENIED,
)
from tests.kit.netcode import (
    MANY,
    ServerTestCase,
    opened,
    request_of,
    source,
)


class SlotTests(ServerTestCase):
    """Which slot a client gets."""

    def test_slots(self) -> None:
        """A client gets the lowest free slot; a slot that became free is used again."""
        table = self.table(source_rate=MANY)
        players = [table.connected(n, n) for n in (1, 2, 3)]
        self.assertEqual([player.client.slot for player in players], [0, 1, 2])
        table.disconnect(players[1].connection)
        self.assertEqual(table.connected(4, 4).client.slot, 1)
        self.assertEqual(table.connected(5, 5).client.slot, 3)

    def test_many(self) -> None:
        """A server may have more than 256 slots."""
        table = self.table(slots=300, source_rate=MANY)
        for n in range(300):
            token = self.token(table, 1 + n)
            player = table.player(token, ("192.0.2.1", 1000 + n, "port"))
            player.turn()
            player.client._spoke_at = -1.0
            player.turn()
        self.assertEqual(len(table.server.connections), 300)
        self.assertEqual((player.client.slot, player.client.slots), (299, 300))
        token = self.token(table, 301)
        [answer] = table.receive(request_of(token), source(2))
        self.assertEqual(opened(answer, token)[0], DENIED)
