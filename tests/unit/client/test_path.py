"""The port of a path to a netcode server."""

from __future__ import annotations

from playerstate.client import (
    Netcode,
)
from playerstate.tokens import connect_token
from tests.kit.playing import (
    HOST,
    KEY,
    NETCODE,
    PROTOCOL_ID,
    PlayingTestCase,
)


class PathTests(PlayingTestCase):
    """One connection, on a port of its own."""

    def test_both_families(self) -> None:
        """A token may name servers of both families; the port is of the present server's."""
        game = self.game()
        token = connect_token(
            42,
            key=KEY,
            protocol_id=PROTOCOL_ID,
            addresses=["[2001:db8::1]:1", f"{HOST}:{NETCODE}"],
            timeout=1,
            wall_clock=game.wall_clock,
        )
        joining = game.player(Netcode(lambda: token)).join()
        [number] = game.players_ports()
        self.assertEqual(game.reactor.ports[number].getHost().host, "::")
        game.pass_time(2.0)
        self.successResultOf(joining)
        [number] = game.players_ports()
        self.assertEqual(game.reactor.ports[number].getHost().host, "0.0.0.0")
