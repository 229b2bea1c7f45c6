"""The link over netcode: tokens, and one path after another."""

from __future__ import annotations

import attrs
from twisted.internet.defer import CancelledError, Deferred

from playerstate import PlayerState
from playerstate.client import (
    Netcode,
    SentAway,
)
from playerstate.client.netcode import AGAIN_AFTER, SILENT_FOR, SPREAD
from playerstate.transports.netcode.tokens import MalformedToken
from playerstate.wire.messages import GoneReason, Refused, RefusedReason
from tests.kit.playing import (
    HERE,
    HOST,
    NETCODE,
    THERE,
    Game,
    PlayingTestCase,
)


class TokenTests(PlayingTestCase):
    """When tokens are requested, and what happens without one."""

    def test_one_each(self) -> None:
        """One token is requested, and another one some time after a lost connection."""
        game = self.game()
        self.joined(game, Game.encrypted)
        self.assertEqual(game.tokens, 1)
        [connection] = game.netcode._run.server.connections
        game.disconnect(connection)
        game.pass_time(AGAIN_AFTER - 0.1)
        self.assertEqual(game.tokens, 1)
        game.pass_time(0.2)
        self.assertEqual(game.tokens, 2)

    def test_silence(self) -> None:
        """A silent server is tried on another path before the time-out, with backoffs later."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        game.is_cut = True
        game.pass_time(SILENT_FOR - 0.1)
        self.assertEqual(game.tokens, 1)
        game.pass_time(0.2)
        self.assertEqual(game.tokens, 2)
        game.pass_time(60.0)
        self.assertLess(game.tokens, 15)
        self.assertLessEqual(len(game.players_ports()), 2)
        game.is_cut = False
        game.pass_time(7.0)
        player.move(HERE)
        game.pass_time(0.2)
        self.assertEqual(game.stepped.service.state(42), HERE)

    def test_spread(self) -> None:
        """Clients that lose their server at one moment spread their token requests over a second.

        So do clients that it disconnected together.
        """
        for ends, first in ((False, SILENT_FOR), (True, AGAIN_AFTER)):
            game = self.game(slots=16)
            draws = [n / 16 for n in range(16)]
            game.jitter = iter(draws + [0.0] * 16).__next__
            for session_id in range(1, 17):
                self.joined(game, Game.encrypted, session_id=session_id)
            token, asked = game.token, []
            self.patch(game, "token", lambda n: asked.append(n) or token(n))  # noqa: B023
            if ends:
                for connection in game.netcode._run.server.connections:
                    game.disconnect(connection)
                game.carry()
            game.is_cut = True
            game.pass_time(first - 0.1)
            self.assertEqual(asked, [])
            for quarter in range(4):
                game.pass_time(SPREAD / 4)
                self.assertLess(abs(len(asked) - 4 * (quarter + 1)), 4)
            game.pass_time(0.2)
            self.assertEqual(sorted(asked), list(range(1, 17)))

    def test_no_token_in_a_short_silence(self) -> None:
        """A failed token request in a short silence does not end the game; requests back off."""
        game = self.game()
        tokens, asked, ends = [game.token()], [], []

        def ask() -> bytes:
            asked.append(game.reactor.seconds())
            return tokens.pop()

        player = game.player(Netcode(ask, game.jitter), on_end=ends.append)
        player.join()
        game.pass_time(1.0)
        game.is_cut = True
        game.pass_time(4.0)
        game.is_cut = False
        player.move(HERE)
        game.pass_time(10.0)
        self.assertEqual((ends, game.stepped.service.state(42)), ([], HERE))
        self.assertLess(len(asked), 5)

    def test_deferred(self) -> None:
        """The token function may return a Deferred."""
        game = self.game()
        asked: list[Deferred[bytes]] = []

        def ask() -> Deferred[bytes]:
            asked.append(Deferred())
            return asked[-1]

        joining = game.player(Netcode(ask, game.jitter)).join()
        game.pass_time(1.0)
        self.assertNoResult(joining)
        asked[0].callback(game.token())
        game.pass_time(1.0)
        self.successResultOf(joining)

    def test_cancelled(self) -> None:
        """A join that is cancelled before the token arrives cancels the token request."""
        game = self.game()
        asked: Deferred[bytes] = Deferred()
        joining = game.player(Netcode(lambda: asked)).join()
        joining.cancel()
        self.failureResultOf(joining, CancelledError)
        self.assertTrue(asked.called)

    def test_none(self) -> None:
        """An error of the token function fails the join."""
        game = self.game()
        joining = game.player(Netcode(lambda: 1 // 0)).join()  # type: ignore[arg-type]
        self.failureResultOf(joining, ZeroDivisionError)

    def test_malformed(self) -> None:
        """Bytes that are no token fail the join."""
        game = self.game()
        self.failureResultOf(game.player(Netcode(lambda: b"no token")).join(), MalformedToken)

    def test_no_more(self) -> None:
        """Without a token for the next connection the game ends, with the function's error."""
        game = self.game()
        tokens, ends = [game.token()], []
        player = game.player(Netcode(tokens.pop, game.jitter), on_end=ends.append)
        player.join()
        game.pass_time(1.0)
        game.is_cut = True
        game.pass_time(6.0)
        [why] = ends
        self.assertIsInstance(why, IndexError)
        self.assertFalse(player.is_playing)


class ConnectionTests(PlayingTestCase):
    """Lost connections, and the paths that replace them."""

    def test_short_silence(self) -> None:
        """If the server is heard again, the old path stays and the other is dropped."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        [before] = game.players_ports()
        game.is_cut = True
        game.pass_time(2.5)
        self.assertEqual((game.tokens, len(game.players_ports())), (2, 2))
        game.is_cut = False
        player.move(HERE)
        game.pass_time(3.0)
        self.assertEqual(game.players_ports(), [before])
        tally = game.netcode.tally
        self.assertEqual((tally.connected, tally.ended, game.tokens), (1, 0, 2))

    def test_spoke_at_the_last_moment(self) -> None:
        """So it does if the server is heard there just before it answers on the other path."""
        game = self.game()
        link = self.joined(game, Game.encrypted)._link
        game.is_cut = True
        game.pass_time(2.5)
        path, now = link._path, game.reactor.seconds()
        self.assertIsNotNone(link._next)
        path.connection.heard_at = now
        link._turn_to_next(now)
        self.assertIs(link._path, path)
        self.assertEqual((link._next, len(game.players_ports())), (None, 1))

    def test_other_path(self) -> None:
        """If the old port is dead, the player is back long before the time-out."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        player.move(HERE)
        game.pass_time(2.0)
        game.cut_ports.update(game.players_ports())
        game.pass_time(SILENT_FOR + 0.75)
        player.move(THERE)
        game.pass_time(0.1)
        self.assertEqual(game.stepped.service.state(42), THERE)
        self.assertEqual((game.netcode.tally.replaced, game.netcode.tally.timed_out), (1, 0))
        self.assertTrue(player.is_playing)
        self.assertEqual(len(game.players_ports()), 1)

    def test_other_source_port(self) -> None:
        """A port changed by a router costs a second of silence, and no token."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        [port] = game.players_ports()
        game.translated[port] = 9999
        for number in range(40):
            player.move(PlayerState(float(number), 0.0))
            game.pass_time(0.0625)
        self.assertEqual(game.stepped.service.state(42), PlayerState(39.0, 0.0))
        self.assertEqual((game.tokens, game.netcode.tally.moved), (1, 1))

    def test_reconnect(self) -> None:
        """`reconnect` connects at once from another port, whether the old one is dead or not."""
        for is_dead in (False, True):
            game = self.game()
            ends: list[Exception] = []
            player = self.joined(game, Game.encrypted, on_end=ends.append)
            player.move(HERE)
            game.pass_time(2.0)
            before = game.players_ports()
            if is_dead:
                game.cut_ports.update(before)
            player.reconnect()
            game.pass_time(0.5)
            player.move(THERE)
            game.pass_time(0.5)
            self.assertEqual(game.stepped.service.state(42), THERE)
            self.assertEqual((game.tokens, game.netcode.tally.replaced), (2, 1))
            self.assertNotEqual(game.players_ports(), before)
            self.assertEqual((ends, player.is_playing), ([], True))
            game.close()

    def test_reconnect_at_any_time(self) -> None:
        """It drops what is pending; before and after the game it does nothing."""
        game = self.game()
        asked: list[Deferred[bytes]] = []

        def ask() -> Deferred[bytes]:
            asked.append(Deferred())
            return asked[-1]

        player = game.player(Netcode(ask, game.jitter))
        player.reconnect()
        self.assertEqual(asked, [])
        player.join()
        player.reconnect()
        self.assertEqual([each.called for each in asked], [True, False])
        game.is_cut = True
        asked[1].callback(game.token())
        game.pass_time(0.5)
        player.reconnect()
        self.assertEqual(game.players_ports(), [])
        game.is_cut = False
        asked[2].callback(game.token())
        game.pass_time(1.0)
        self.assertTrue(player.is_playing)
        player.reconnect()
        player.reconnect()
        leaving = player.leave()
        game.pass_time(1.0)
        self.successResultOf(leaving)
        self.assertTrue(all(each.called for each in asked))
        self.assertEqual(game.players_ports(), [])

    def test_crashed(self) -> None:
        """A program that crashed and was restarted has its player back at once."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        player.move(HERE)
        game.pass_time(2.0)
        game.cut_ports.update(game.players_ports())
        again = game.encrypted(draw_nonce=iter(range(100, 200)).__next__)
        joining = again.join()
        game.pass_time(0.5)
        self.assertEqual(self.successResultOf(joining), HERE)

    def test_restart(self) -> None:
        """A server that stops and is started again has its players back."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, Game.encrypted, on_end=ends.append)
        player.move(HERE)
        game.pass_time(1.0)
        stopped = game.netcode.stopService()
        game.pass_time(1.0)
        self.successResultOf(stopped)
        self.assertNotIn(NETCODE, game.reactor.ports)
        game.netcode.startService()
        for _ in range(24):
            player.move(THERE)
            game.pass_time(0.5)
        self.assertEqual(ends, [])
        self.assertEqual(game.stepped.service.state(42), THERE)
        self.assertEqual(len(game.players_ports()), 1)

    def test_two_devices(self) -> None:
        """The first device is told that its player joined elsewhere, and does not reconnect."""
        game = self.game()
        ends: list[Exception] = []
        self.joined(game, Game.encrypted, on_end=ends.append)
        game.pass_time(2.0)
        again = self.joined(game, Game.encrypted, draw_nonce=iter(range(100, 200)).__next__)
        game.pass_time(5.0)
        [why] = ends
        assert isinstance(why, SentAway)
        self.assertEqual(why.answer.reason, GoneReason.JOINED_ELSEWHERE)
        self.assertEqual((again.is_playing, game.tokens), (True, 2))

    def test_stalled(self) -> None:
        """After a stall the waiting packets are read before the server counts as silent."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        [port] = game.players_ports()
        link = player._link
        for late in (2.0, 20.0):
            spoken = [
                game.netcode._run.server._seals.seal(c.sealer, 4, c.sequence + n, bytes(8))
                for c in game.netcode._run.server.connections
                for n in range(3)
            ]
            now = game.reactor.seconds() + late
            self.patch(link, "_seconds", lambda: now)  # noqa: B023
            link.turn(now)
            for datagram in spoken:
                game.reactor.ports[port].receive(datagram, (HOST, NETCODE))
            link.turn(now + 0.05)
            self.assertEqual((game.tokens, game.players_ports()), (1, [port]))
            for connection in game.netcode._run.server.connections:
                connection.sequence += 3

    def test_disconnected(self) -> None:
        """After a disconnect without a GONE the client connects again."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        player.move(HERE)
        game.pass_time(0.1)
        [connection] = game.netcode._run.server.connections
        game.disconnect(connection)
        game.gateway.lost(42, connection)
        game.pass_time(2.0)
        self.assertEqual(game.tokens, 2)
        self.assertEqual(game.stepped.service.state(42), HERE)
        self.assertTrue(player.is_playing)

    def test_leaves_between_connections(self) -> None:
        """A player who leaves while the connection is lost is connected once more, and saved."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        player.move(THERE)
        game.is_cut = True
        game.pass_time(5.2)
        leaving = player.leave()
        game.is_cut = False
        game.pass_time(3.0)
        self.successResultOf(leaving)
        self.assertEqual(game.stepped.store.load(42).values, attrs.astuple(THERE))

    def test_cancelled_between_connections(self) -> None:
        """After a leave that is cancelled then, no token is requested."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        game.is_cut = True
        game.pass_time(5.2)
        leaving = player.leave()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        asked = game.tokens
        game.pass_time(20.0)
        self.assertEqual((game.tokens, game.players_ports()), (asked, []))

    def test_denied(self) -> None:
        """A denied connection counts as a full server."""
        game = self.game(slots=1)
        self.joined(game, Game.encrypted, session_id=7)
        joining = game.encrypted().join()
        game.pass_time(1.0)
        why = self.failureResultOf(joining, SentAway).value
        self.assertIsInstance(why.answer, Refused)
        self.assertEqual(why.answer.reason, RefusedReason.FULL)

    def test_leaving_disconnects(self) -> None:
        """A player who has left frees the slot at once."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        player.leave()
        game.pass_time(1.0)
        self.assertEqual(game.netcode.tally.disconnected, 1)
