"""One player on a reactor, over both transports."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel, capturedLogs, formatEvent

from playerstate import InvalidState, PlayerState, within
from playerstate.client import (
    NotPlaying,
    Progress,
    SentAway,
)
from playerstate.client import player as module
from playerstate.interfaces import StoreBusy
from playerstate.log import PrintableLogger
from playerstate.sparing import SparingLogger
from playerstate.wire.messages import DELTA, Gone, GoneReason, RefusedReason
from tests.kit.players import run_of
from tests.kit.playing import (
    HERE,
    HOST,
    NETCODE,
    PLAIN,
    THERE,
    Game,
    PlayingTestCase,
)


@attrs.frozen
class Walker:
    """Two coordinates on a grid."""

    x: float = attrs.field(default=0.0, metadata=within(-10, 10, resolution=0.25))
    y: float = attrs.field(default=0.0, metadata=within(-10, 10, resolution=0.3))


class Life:
    """What a player does when nothing goes wrong, over either transport.

    Attributes:
        make: makes a player of a game.
    """

    make: Any

    def test_join(self) -> None:
        """The Deferred fires with the player's state, and the player can move."""
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
        """A move is the player's state, in the client at once and then on the server."""
        game = self.game()
        player = self.joined(game, self.make)
        player.move(HERE)
        self.assertEqual(player.state, HERE)
        game.pass_time(0.1)
        self.assertEqual(game.stepped.service.state(42), HERE)

    def test_leave(self) -> None:
        """The Deferred fires when the last move is saved; no port and no call is left then."""
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
        """After `reconnect` the player goes on over another port."""
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
        """The next game begins with the state of the last, and its sequences go on."""
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
        """It tells what was sent, applied and saved."""
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
        """Fields with a resolution are sent as DELTAs, and are on their grid on both sides."""
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

    def test_leave_while_joining(self) -> None:
        """A player who leaves while joining has both Deferreds fire."""
        game = self.game()
        player = self.make(game)
        joining, leaving = player.join(), player.leave()
        game.pass_time(1.0)
        self.assertEqual(self.successResultOf(joining), PlayerState())
        self.successResultOf(leaving)


class Trouble:
    """Silence, restarts, refusals and cancelled calls, over either transport."""

    make: Any

    def test_joins_again(self) -> None:
        """After a silence the player joins again, with the state of its last move."""
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

    def test_moves_in_a_silence(self) -> None:
        """Moves while no datagram arrives raise nothing; the last one is applied afterwards."""
        game = self.game()
        player = self.joined(game, self.make)
        game.is_cut = True
        for x in range(200):
            player.move(PlayerState(float(x), 0.0))
            game.pass_time(0.0625)
        game.is_cut = False
        game.pass_time(6.0)
        self.assertEqual(game.stepped.service.state(42), PlayerState(199.0, 0.0))

    def test_server_restarts(self) -> None:
        """The player joins again after a server that stops, and one whose store is busy."""
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

    def test_overruled(self) -> None:
        """A client adopts a state that another source set in a silence, and reports it."""
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

    def test_changed(self) -> None:
        """What the program sets reaches the client, which goes on from there and is saved."""
        game = self.game()
        told: list[Any] = []
        player = self.joined(game, self.make, on_change=lambda *change: told.append(change))
        player.move(HERE)
        game.pass_time(0.2)
        service = game.stepped.service
        service.change(42, x=9.0)
        player.move(HERE)
        game.pass_time(0.2)
        self.assertEqual(told, [(attrs.evolve(HERE, x=9.0), True)])
        self.assertEqual(player.state, attrs.evolve(HERE, x=9.0))
        player.move(THERE)
        game.pass_time(0.2)
        self.assertEqual(service.state(42), THERE)
        self.assertEqual(len(told), 1)
        left = player.leave()
        game.pass_time(0.5)
        self.successResultOf(left)

    def test_changed_while_away(self) -> None:
        """A change that was lost on the way comes again once the network works."""
        game = self.game()
        told: list[Any] = []
        player = self.joined(game, self.make, on_change=lambda *change: told.append(change))
        player.move(HERE)
        game.pass_time(0.2)
        game.is_cut = True
        game.stepped.service.change(42, x=9.0)
        for _ in range(20):
            player.move(THERE)
            game.pass_time(0.05)
        game.is_cut = False
        game.pass_time(3.0)
        self.assertEqual(told, [(attrs.evolve(HERE, x=9.0), True)])
        self.assertEqual(game.stepped.service.state(42), attrs.evolve(HERE, x=9.0))

    def test_idle(self) -> None:
        """A player whose conversation ended by idleness joins again by itself."""
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
        """A kicked player is out of the game; the program gets the reason, once."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, self.make, on_end=ends.append)
        game.gateway.kick(42)
        game.pass_time(1.0)
        [why] = ends
        assert isinstance(why, SentAway)
        assert isinstance(why.answer, Gone)
        self.assertEqual(why.answer.reason, GoneReason.KICKED)
        self.assertFalse(player.is_playing)
        self.assertEqual(game.players_ports(), [])

    def test_sent_away_is_logged(self) -> None:
        """Without `on_end` the end is logged."""
        self.patch(module, "_lines", SparingLogger(PrintableLogger()))
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
        other.leave()
        game.pass_time(1.0)
        joining = player.join()
        game.pass_time(1.0)
        self.successResultOf(joining)

    def test_sent_away_at_leaving(self) -> None:
        """If the conversation ends while the player leaves, only the Deferred fails."""
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
        """After a cancelled join nothing is sent, and the player can join again."""
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
        """After a cancelled leave the player is out of the game, as far as the client knows."""
        game = self.game()
        ends: list[Exception] = []
        player = self.joined(game, self.make, on_end=ends.append)
        game.is_cut = True
        leaving = player.leave()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.assertEqual((game.players_ports(), ends), ([], []))

    def test_cancel_one_of_two(self) -> None:
        """If a leave is cancelled while the join waits, both fail."""
        game = self.game()
        game.is_cut = True
        player = self.make(game)
        joining, leaving = player.join(), player.leave()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.failureResultOf(joining, CancelledError)

    def test_no_port(self) -> None:
        """If no port can be opened, the join fails."""

        def refuse(*given: Any) -> None:
            raise CannotListenError("0.0.0.0", 0, OSError(24, "Too many open files"))

        game = self.game()
        self.patch(game.reactor, "listenUDP", refuse)
        self.failureResultOf(self.make(game).join(), CannotListenError)

    def test_noise(self) -> None:
        """Datagrams that hold no message, or come from elsewhere, are ignored."""
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


class PlainLifeTests(Life, PlayingTestCase):
    """Over plain UDP."""

    make = staticmethod(Game.plain)


class NetcodeLifeTests(Life, PlayingTestCase):
    """Over netcode."""

    make = staticmethod(Game.encrypted)


class PlainTroubleTests(Trouble, PlayingTestCase):
    """Over plain UDP."""

    make = staticmethod(Game.plain)


class NetcodeTroubleTests(Trouble, PlayingTestCase):
    """Over netcode."""

    make = staticmethod(Game.encrypted)


class MisuseTests(PlayingTestCase):
    """Calls that are not allowed."""

    def test_move(self) -> None:
        """A player cannot move before the game, while joining, while leaving, and after it."""
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
        """A state that the server would reject is refused by the client, and not sent."""
        game = self.game()
        player = self.joined(game, Game.plain)
        self.assertRaises(InvalidState, player.move, PlayerState(float("nan"), 0.0))
        self.assertRaises(InvalidState, player.move, (1.0, 2.0))
        self.assertEqual(player.progress.sent, 0)

    def test_join_twice(self) -> None:
        """A player who has joined cannot join."""
        game = self.game()
        player = self.joined(game, Game.plain)
        self.assertRaises(NotPlaying, player.join)

    def test_leave_twice(self) -> None:
        """A player who is leaving cannot leave; for one who has left, `leave` does nothing."""
        game = self.game()
        player = self.joined(game, Game.plain)
        player.leave()
        self.assertRaises(NotPlaying, player.leave)
        game.pass_time(1.0)
        self.assertIsNone(self.successResultOf(player.leave()))

    def test_state(self) -> None:
        """The state is unknown before the server's answer."""
        player = self.game().plain()
        with self.assertRaises(NotPlaying):
            _ = player.state
