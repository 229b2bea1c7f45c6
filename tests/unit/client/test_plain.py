"""The link over plain UDP, and the port that links share."""

from __future__ import annotations

from playerstate import PlayerState, StateSchema
from playerstate.client import (
    Client,
    Phase,
    Plain,
    PlainLink,
    PlainPort,
)
from tests.kit.playing import (
    HERE,
    HOST,
    PLAIN,
    THERE,
    Game,
    PlayingTestCase,
)


class PlainTests(PlayingTestCase):
    """The link and the port over plain UDP."""

    def test_unsent(self) -> None:
        """A datagram that the system does not send is lost; the client repeats it."""

        def refuse(datagram: bytes, address: object) -> None:
            raise OSError(105, "No buffer space available")

        game = self.game()
        joining = game.plain().join()
        [number] = game.players_ports()
        port = game.reactor.ports[number]
        port.take()
        self.patch(port, "write", refuse)
        game.pass_time(1.0)
        self.assertNoResult(joining)
        del port.write
        game.pass_time(1.0)
        self.successResultOf(joining)

    def test_reconnect(self) -> None:
        """The conversation goes on over another port at once, without another JOIN."""
        game = self.game()
        player = self.joined(game, Game.plain)
        player.move(HERE)
        [before] = game.players_ports()
        player.reconnect()
        [after] = game.players_ports()
        self.assertNotEqual(after, before)
        player.move(THERE)
        game.pass_time(0.1)
        player.move(PlayerState(5.0, 6.0))
        game.pass_time(0.1)
        self.assertEqual(game.stepped.service.state(42), PlayerState(5.0, 6.0))
        self.assertEqual(game.stepped.service.ledger.snapshot().joins, 1)

    def test_other_source_port(self) -> None:
        """A port changed by a router costs a second or two, and no other conversation."""
        game = self.game()
        player = self.joined(game, Game.plain)
        player._link._port.reopen()
        for number in range(40):
            player.move(PlayerState(float(number), 0.0))
            game.pass_time(0.0625)
        self.assertEqual(game.stepped.service.state(42), PlayerState(39.0, 0.0))
        self.assertEqual(game.stepped.service.ledger.snapshot().joins, 1)

    def test_sent_after_closing(self) -> None:
        """On a closed link nothing is sent, and nothing raises."""
        game = self.game()
        player = game.plain()
        player._link.send(b"\x04", 0.0)
        self.successResultOf(player._link.close(0.0))

    def test_players_apart(self) -> None:
        """On a shared port, a message reaches the player with its session id."""
        game = self.game()
        port = PlainPort((HOST, PLAIN), game.reactor, game.reactor.seconds)
        links = [
            PlainLink(Client.of(StateSchema.of(PlayerState), lambda: 1), port, number)
            for number in (5, 6)
        ]
        for link in links:
            link.client.join(0.0)
            link.open(game.reactor.seconds())
        [number] = game.players_ports()
        [(_, _), (datagram, _)] = game.reactor.ports[number].take()
        game.reactor.ports[PLAIN].receive(datagram, (HOST, number))
        game.carry()
        self.assertEqual([link.client.phase for link in links], [Phase.JOINING, Phase.ONLINE])
        game.reactor.ports[number].receive((7).to_bytes(12, "little") + b"\x82", (HOST, PLAIN))
        links[0].close(0.0)
        self.assertEqual(game.players_ports(), [number])
        links[1].close(0.0)
        self.assertEqual(game.players_ports(), [])

    def test_value(self) -> None:
        """Routes with the same server and player are equal."""
        self.assertEqual(Plain((HOST, 1), 2), Plain((HOST, 1), 2))
