"""One player on a reactor, over both transports."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel, capturedLogs, formatEvent

from playerstate import InvalidState, PlayerState, StateSchema, within
from playerstate.client import (
    Client,
    Netcode,
    NotPlaying,
    Phase,
    Plain,
    PlainLink,
    PlainPort,
    PlayerClient,
    Progress,
    SentAway,
)
from playerstate.client.netcode import AGAIN_AFTER, SILENT_FOR, SPREAD
from playerstate.interfaces import StoreBusy
from playerstate.tokens import connect_token
from playerstate.transports.netcode.tokens import MalformedToken
from playerstate.wire.messages import DELTA, Gone, GoneReason, Refused, RefusedReason
from tests.kit.players import run_of
from tests.kit.playing import HOST, KEY, NETCODE, PLAIN, PROTOCOL_ID, Game, PlayingTestCase

HERE, THERE = PlayerState(1.0, 2.0), PlayerState(3.0, 4.0)


@attrs.frozen
class Walker:
    """Two coordinates on a grid."""

    x: float = attrs.field(default=0.0, metadata=within(-10, 10, resolution=0.25))
    y: float = attrs.field(default=0.0, metadata=within(-10, 10, resolution=0.3))


class PlayerTestCase(PlayingTestCase):
    """Tests of a player in a game."""

    def joined(self, game: Game, make: Any, **options: Any) -> PlayerClient:
        """A player who is in the game."""
        player: PlayerClient = make(game, **options)
        joining = player.join()
        game.pass_time(1.0)
        self.successResultOf(joining)
        return player


class Life:
    """What a player does when nothing goes wrong, over either transport.

    Attributes:
        make: makes a player of a game.
    """

    make: Any

    def test_join(self) -> None:
        """The Deferred fires with where the player stands, and the player can move."""
        game = self.game()
        player = self.make(game)
        joining = player.join()
        self.assertNoResult(joining)
        self.assertFalse(player.is_playing)
        game.pass_time(1.0)
        self.assertEqual(self.successResultOf(joining), PlayerState())
        self.assertTrue(player.is_playing)
        self.assertFalse(player.restored)

    def test_move(self) -> None:
        """A move is where the player stands, here at once and then on the server."""
        game = self.game()
        player = self.joined(game, self.make)
        player.move(HERE)
        self.assertEqual(player.state, HERE)
        game.pass_time(0.1)
        self.assertEqual(game.stepped.service.state(42), HERE)

    def test_leave(self) -> None:
        """The Deferred fires when the last move is saved; then no port is open, no call waits."""
        game = self.game()
        calls = len(game.reactor.getDelayedCalls())
        player = self.joined(game, self.make)
        player.move(HERE)
        leaving = player.leave()
        self.assertFalse(player.is_playing)
        self.assertNoResult(leaving)
        game.pass_time(1.0)
        self.assertIsNone(self.successResultOf(leaving))
        self.assertEqual(game.stepped.store.load(42).values, attrs.astuple(HERE))
        self.assertEqual(game.players_ports(), [])
        self.assertEqual(len(game.reactor.getDelayedCalls()), calls)

    def test_reconnects(self) -> None:
        """Told that the way to the server is another, the player goes on by it."""
        game = self.game()
        player = self.joined(game, self.make)
        player.move(HERE)
        player.reconnect()
        player.reconnect()  # once more while that is under way
        game.pass_time(7.0)  # a netcode server may have to see the old connection time out
        self.assertEqual(len(game.players_ports()), 1)
        self.assertEqual(player.state, HERE)
        player.move(THERE)
        game.pass_time(0.2)
        self.assertEqual(game.stepped.service.state(42), THERE)

    def test_comes_back(self) -> None:
        """The next game begins where the last one ended, and counts on."""
        game = self.game()
        player = self.joined(game, self.make)
        player.move(HERE)
        player.leave()
        game.pass_time(1.0)
        joining = player.join()
        game.pass_time(1.0)
        self.assertEqual(self.successResultOf(joining), HERE)
        self.assertTrue(player.restored)
        self.assertEqual(player.progress.sent, 1)

    def test_progress(self) -> None:
        """What was sent, applied and saved is told apart."""
        game = self.game(save_within=5.0)
        player = self.joined(game, self.make)
        player.move(HERE)
        player.move(THERE)
        self.assertEqual(player.progress, Progress(2, 0, 0))
        game.pass_time(1.0)
        self.assertEqual(player.progress, Progress(2, 2, 0))
        game.pass_time(5.0)
        self.assertEqual(player.progress, Progress(2, 2, 2))

    def test_deltas(self) -> None:
        """Fields with a resolution go out as steps, and stand on the grid on both sides."""
        game = self.game(state=Walker)
        player = self.joined(game, self.make)
        kinds = set()
        send = player._link.send

        def note(message: bytes, now: float) -> None:
            kinds.add(message[0])
            send(message, now)

        self.patch(player._link, "send", note)
        for number in range(40):
            player.move(Walker(number / 7, -number / 7))
            game.pass_time(0.05)
        self.assertEqual(game.stepped.service.state(42), player.state)
        self.assertEqual(player.state.x % 0.25, 0.0)
        self.assertIn(DELTA, kinds)

    def test_many_deferreds(self) -> None:
        """Leaving while joining is told to both who wait."""
        game = self.game()
        player = self.make(game)
        joining, leaving = player.join(), player.leave()
        game.pass_time(1.0)
        self.assertEqual(self.successResultOf(joining), PlayerState())
        self.successResultOf(leaving)


class Trouble:
    """Silence, and being sent away."""

    make: Any

    def test_joins_again(self) -> None:
        """After a silence the player is in again, where the player says."""
        game = self.game()
        player = self.joined(game, self.make)
        game.is_cut = True
        player.move(THERE)
        game.pass_time(12.0)
        self.assertTrue(player.is_playing)
        game.is_cut = False
        game.pass_time(6.0)
        self.assertEqual(game.stepped.service.state(42), THERE)
        self.assertEqual(player.progress.applied, player.progress.sent)

    def test_moves_in_the_dark(self) -> None:
        """Moves that are made while nothing gets through are no error; the last one counts."""
        game = self.game()
        player = self.joined(game, self.make)
        game.is_cut = True
        for x in range(200):
            player.move(PlayerState(float(x), 0.0))
            game.pass_time(0.0625)
        game.is_cut = False
        game.pass_time(6.0)
        self.assertEqual(game.stepped.service.state(42), PlayerState(199.0, 0.0))

    def test_server_started_anew(self) -> None:
        """A server that stops, and one whose store cannot load now, is joined again."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, self.make, on_end=ends.append)
        player.move(HERE)
        game.pass_time(2.0)
        load = game.stepped.store.load

        def busy(session_id: int) -> Any:
            raise StoreBusy("locked")

        self.patch(game.stepped.store, "load", busy)
        registry = run_of(game.gateway).registry
        registry.end(registry.current[42], GoneReason.SHUTTING_DOWN)
        self.successResultOf(game.stepped.service.leave(42))
        game.pass_time(4.0)
        self.assertTrue(player.is_playing)
        self.assertNotIn(42, registry.current)
        self.assertGreater(game.stepped.service.ledger.snapshot().joins_refused["store"], 1)
        self.patch(game.stepped.store, "load", load)
        game.pass_time(10.0)
        player.move(THERE)
        game.pass_time(0.2)
        self.assertEqual(game.stepped.service.state(42), THERE)
        self.assertEqual(ends, [])

    def test_woken(self) -> None:
        """Who was moved from elsewhere while nothing got through takes that over, and is told."""
        game = self.game()
        states: list[Any] = []
        player = self.joined(game, self.make, on_overruled=states.append)
        player.move(HERE)
        game.pass_time(0.2)
        game.is_cut = True
        player.move(HERE)
        game.pass_time(0.1)
        service = game.stepped.service
        game.gateway.kick(42)
        game.pass_time(0.2)
        service.join(42)
        game.pass_time(0.1)
        service.update(42, THERE)
        service.leave(42)
        game.pass_time(4.0)
        game.is_cut = False
        game.pass_time(10.0)
        self.assertEqual(states, [THERE])
        self.assertEqual((service.state(42), player.state), (THERE, THERE))
        player.move(HERE)
        game.pass_time(0.2)
        self.assertEqual(service.state(42), HERE)

    def test_taken_for_gone(self) -> None:
        """Who is told of a silence, and is there after all, comes back by itself."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, self.make, on_end=ends.append)
        player.move(HERE)
        game.pass_time(0.5)
        nonce = player._client.nonce
        silence = run_of(game.gateway).silence
        silence._timeout = 2.0
        game.pass_time(3.0)
        silence._timeout = 30.0
        game.pass_time(5.0)
        self.assertNotEqual(player._client.nonce, nonce)
        self.assertEqual((ends, player.is_playing), ([], True))
        self.assertEqual(game.stepped.service.state(42), HERE)
        player.move(THERE)
        game.pass_time(0.5)
        self.assertEqual(game.stepped.service.state(42), THERE)

    def test_sent_away(self) -> None:
        """Who is kicked is told why, once, and is out of the game."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, self.make, on_end=ends.append)
        game.gateway.kick(42)
        game.pass_time(1.0)
        [why] = ends
        assert isinstance(why, SentAway)
        assert isinstance(why.answer, Gone)
        self.assertEqual(why.answer.reason, GoneReason.KICKED)
        self.assertEqual(str(why), "sent away: kicked, or no longer known to the server")
        self.assertFalse(player.is_playing)
        self.assertEqual(game.players_ports(), [])

    def test_sent_away_is_logged(self) -> None:
        """Who is told of no end finds it in the log."""
        game = self.game()
        self.joined(game, self.make)
        with capturedLogs() as logs:
            game.gateway.kick(42)
            game.pass_time(1.0)
        told = [formatEvent(event) for event in logs if event["log_level"] >= LogLevel.warn]
        self.assertEqual(
            told, ["the game is over: sent away: kicked, or no longer known to the server"]
        )

    def test_refused(self) -> None:
        """A JOIN that is refused fails with the reason, and the player may try again."""
        game = self.game(max_players=1)
        other = self.joined(game, self.make, session_id=7)
        player = self.make(game)
        joining = player.join()
        game.pass_time(1.0)
        why = self.failureResultOf(joining, SentAway).value
        self.assertEqual(why.answer.reason, RefusedReason.FULL)
        self.assertEqual(str(why), "refused: the server is full")
        other.leave()
        game.pass_time(1.0)
        joining = player.join()
        game.pass_time(1.0)
        self.successResultOf(joining)

    def test_sent_away_at_leaving(self) -> None:
        """Whose leaving ends otherwise is told that by the Deferred alone."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, self.make, on_end=ends.append)
        player.move(HERE)
        game.pass_time(0.1)
        self.patch(game.stepped, "settle", lambda: None)
        leaving = player.leave()
        game.pass_time(0.2)
        player._link.take(
            b"\x84" + player._client._nonce.to_bytes(4, "little") + b"\x04",
            game.reactor.seconds(),
        )
        player._link.notify()
        self.failureResultOf(leaving, SentAway)
        self.assertEqual(ends, [])

    def test_cancel_join(self) -> None:
        """Who gives up joining says nothing more, and may begin anew."""
        game = self.game()
        game.is_cut = True
        player = self.make(game)
        joining = player.join()
        joining.addTimeout(3.0, game.reactor)
        game.pass_time(4.0)
        self.failureResultOf(joining)
        self.assertEqual(game.players_ports(), [])
        game.is_cut = False
        joining = player.join()
        game.pass_time(8.0)
        self.successResultOf(joining)

    def test_cancel_leave(self) -> None:
        """Who gives up leaving is out of the game here, whatever the server thinks."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, self.make, on_end=ends.append)
        game.is_cut = True
        leaving = player.leave()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.assertEqual((game.players_ports(), ends), ([], []))

    def test_cancel_one_of_two(self) -> None:
        """Where leaving is given up while joining still waits, the joining has failed."""
        game = self.game()
        game.is_cut = True
        player = self.make(game)
        joining, leaving = player.join(), player.leave()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.failureResultOf(joining, CancelledError)

    def test_no_port(self) -> None:
        """Where the system has no port to give, the joining fails."""

        def refuse(*given: Any) -> None:
            raise CannotListenError("0.0.0.0", 0, OSError(24, "Too many open files"))

        game = self.game()
        self.patch(game.reactor, "listenUDP", refuse)
        self.failureResultOf(self.make(game).join(), CannotListenError)

    def test_noise(self) -> None:
        """What is no message, or comes from elsewhere, is passed over."""
        game = self.game()
        player = self.joined(game, self.make)
        [number] = game.players_ports()
        for datagram in (b"", b"short", bytes(100)):
            for port in (PLAIN, NETCODE, 6666):
                game.reactor.ports[number].receive(datagram, (HOST, port))
        player._link.take(b"\x80", game.reactor.seconds())
        player.move(HERE)
        game.pass_time(0.1)
        self.assertEqual(game.stepped.service.state(42), HERE)


class PlainLifeTests(Life, PlayerTestCase):
    """Over plain UDP."""

    make = staticmethod(Game.plain)


class NetcodeLifeTests(Life, PlayerTestCase):
    """Over netcode."""

    make = staticmethod(Game.encrypted)


class PlainTroubleTests(Trouble, PlayerTestCase):
    """Over plain UDP."""

    make = staticmethod(Game.plain)


class NetcodeTroubleTests(Trouble, PlayerTestCase):
    """Over netcode."""

    make = staticmethod(Game.encrypted)


class MisuseTests(PlayerTestCase):
    """What a player cannot do."""

    def test_move(self) -> None:
        """Who is not in the game cannot move: before it, while joining, while leaving, after it."""
        game = self.game()
        player = game.plain()
        self.assertRaises(NotPlaying, player.move, HERE)
        player.join()
        self.assertRaises(NotPlaying, player.move, HERE)
        game.pass_time(1.0)
        player.leave()
        self.assertRaises(NotPlaying, player.move, HERE)
        game.pass_time(1.0)
        self.assertRaises(NotPlaying, player.move, HERE)

    def test_invalid_state(self) -> None:
        """A state that the server would not take is refused here, and not sent."""
        game = self.game()
        player = self.joined(game, Game.plain)
        self.assertRaises(InvalidState, player.move, PlayerState(float("nan"), 0.0))
        self.assertRaises(InvalidState, player.move, (1.0, 2.0))
        self.assertEqual(player.progress.sent, 0)

    def test_join_twice(self) -> None:
        """Who has joined cannot join."""
        game = self.game()
        player = self.joined(game, Game.plain)
        self.assertRaises(NotPlaying, player.join)

    def test_leave_twice(self) -> None:
        """Who is leaving cannot leave; who is gone has left."""
        game = self.game()
        player = self.joined(game, Game.plain)
        player.leave()
        self.assertRaises(NotPlaying, player.leave)
        game.pass_time(1.0)
        self.assertIsNone(self.successResultOf(player.leave()))

    def test_state(self) -> None:
        """Before the server has said so, nobody knows where the player stands."""
        player = self.game().plain()
        with self.assertRaises(NotPlaying):
            _ = player.state


class TokenTests(PlayerTestCase):
    """Connections, and the tokens that they take."""

    def test_one_each(self) -> None:
        """One token is asked for, and after a lost connection another one, after a while."""
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
        """A server that is silent is asked by another way before the time-out; seldom for long."""
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

    def test_asked_for_apart(self) -> None:
        """All lose the server at one moment, and ask for tokens within the second after a while.

        So they do where it disconnects them all.
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

    def test_short_silence(self) -> None:
        """If it speaks again all goes on by the old way, whatever was begun."""
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
        """So it is if it speaks on the old way just before it answers on the new one."""
        game = self.game()
        line = self.joined(game, Game.encrypted)._link
        game.is_cut = True
        game.pass_time(2.5)
        path, now = line._path, game.reactor.seconds()
        self.assertIsNotNone(line._next)
        path.connection.heard_at = now
        line._turn_to_next(now)
        self.assertIs(line._path, path)
        self.assertEqual((line._next, len(game.players_ports())), (None, 1))

    def test_no_token_in_a_short_silence(self) -> None:
        """That no token is to be had meanwhile is not the end, and it is not asked for for ever."""
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

    def test_other_way(self) -> None:
        """Where the old port is dead the player is back long before a time-out."""
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
        """A router that gives the port another number costs a second, and no token."""
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
        """A program that knows of a change has the player connect again at once, elsewhere."""
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
        """Whatever was under way is let go of; before and after the game there is nothing to do."""
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
        """A program that crashed and was started again has its player back at once."""
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
        """A server that says that it stops, and is started again, has its players back."""
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
        """The device before is told that its player joined elsewhere, and does not come back."""
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

    def test_stood_still(self) -> None:
        """What waits in the socket is read before a server is judged that could not be heard."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        [port] = game.players_ports()
        line = player._link
        for late in (2.0, 20.0):
            spoken = [
                game.netcode._run.server._seals.seal(c.sealer, 4, c.sequence + n, bytes(8))
                for c in game.netcode._run.server.connections
                for n in range(3)
            ]
            now = game.reactor.seconds() + late
            self.patch(line, "_seconds", lambda: now)  # noqa: B023
            line.turn(now)
            for datagram in spoken:
                game.reactor.ports[port].receive(datagram, (HOST, NETCODE))
            line.turn(now + 0.05)
            self.assertEqual((game.tokens, game.players_ports()), (1, [port]))
            for connection in game.netcode._run.server.connections:
                connection.sequence += 3

    def test_disconnected(self) -> None:
        """A server that disconnects without a word is connected to again."""
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

    def test_deferred(self) -> None:
        """A token may be a while in coming."""
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

    def test_given_up_before_the_token(self) -> None:
        """Who gives up while a token is under way takes back the request for it."""
        game = self.game()
        asked: Deferred[bytes] = Deferred()
        joining = game.player(Netcode(lambda: asked)).join()
        joining.cancel()
        self.failureResultOf(joining, CancelledError)
        self.assertTrue(asked.called)

    def test_none(self) -> None:
        """What the token function raises ends the joining."""
        game = self.game()
        joining = game.player(Netcode(lambda: 1 // 0)).join()  # type: ignore[arg-type]
        self.failureResultOf(joining, ZeroDivisionError)

    def test_malformed(self) -> None:
        """So does a token that is none."""
        game = self.game()
        self.failureResultOf(game.player(Netcode(lambda: b"no token")).join(), MalformedToken)

    def test_no_more(self) -> None:
        """Where there is no token for the next connection, the game is over, and why is told."""
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

    def test_leaves_between_connections(self) -> None:
        """Who leaves while the connection is lost is connected once more, and saved."""
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

    def test_gives_up_between_connections(self) -> None:
        """Who gives up then asks for no other token."""
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
        """Where all slots are taken, the server is full."""
        game = self.game(slots=1)
        self.joined(game, Game.encrypted, session_id=7)
        joining = game.encrypted().join()
        game.pass_time(1.0)
        why = self.failureResultOf(joining, SentAway).value
        self.assertIsInstance(why.answer, Refused)
        self.assertEqual(str(why), "refused: the server is full")

    def test_leaving_disconnects(self) -> None:
        """Who has left frees the slot at once."""
        game = self.game()
        player = self.joined(game, Game.encrypted)
        player.leave()
        game.pass_time(1.0)
        self.assertEqual(game.netcode.tally.disconnected, 1)

    def test_both_families(self) -> None:
        """The servers of a token may have addresses of both kinds; the port is then of its kind."""
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


class PlainTests(PlayerTestCase):
    """What is particular to plain UDP."""

    def test_unsent(self) -> None:
        """What the system will not take is as good as lost on the way."""

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
        """The conversation goes on over another port at once, and nothing of it is reset."""
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
        """A router that gives the player another port costs a second or two, and no new JOIN."""
        game = self.game()
        player = self.joined(game, Game.plain)
        player._link._port.reopen()
        for number in range(40):
            player.move(PlayerState(float(number), 0.0))
            game.pass_time(0.0625)
        self.assertEqual(game.stepped.service.state(42), PlayerState(39.0, 0.0))
        self.assertEqual(game.stepped.service.ledger.snapshot().joins, 1)

    def test_sent_after_closing(self) -> None:
        """After the end nothing is sent, and nothing fails."""
        game = self.game()
        player = game.plain()
        player._link.send(b"\x04", 0.0)
        self.successResultOf(player._link.close(0.0))

    def test_players_apart(self) -> None:
        """On a port that many share, a message reaches the player whose session id it bears."""
        game = self.game()
        port = PlainPort((HOST, PLAIN), game.reactor, game.reactor.seconds)
        lines = [
            PlainLink(Client.of(StateSchema.of(PlayerState), lambda: 1), port, number)
            for number in (5, 6)
        ]
        for line in lines:
            line.client.join(0.0)
            line.open(game.reactor.seconds())
        [number] = game.players_ports()
        [(_, _), (datagram, _)] = game.reactor.ports[number].take()
        game.reactor.ports[PLAIN].receive(datagram, (HOST, number))
        game.carry()
        self.assertEqual([line.client.phase for line in lines], [Phase.JOINING, Phase.ONLINE])
        game.reactor.ports[number].receive((7).to_bytes(12, "little") + b"\x82", (HOST, PLAIN))
        lines[0].close(0.0)
        self.assertEqual(game.players_ports(), [number])
        lines[1].close(0.0)
        self.assertEqual(game.players_ports(), [])

    def test_way(self) -> None:
        """A way is a value: the same server and player are the same way."""
        self.assertEqual(Plain((HOST, 1), 2), Plain((HOST, 1), 2))
