"""The netcode transport with a gateway behind it: messages, connections and their ends."""

from __future__ import annotations

import itertools
import struct
from typing import Any

from twisted.logger import LogLevel

from playerstate import NotOnline
from playerstate.conversations.intake import BATCH_MIN
from playerstate.transports.netcode.client import State
from playerstate.transports.netcode.packets import RESPONSE
from playerstate.transports.netcode.run import IDLE_GRACE, LOG_EVERY, READ_WITHIN
from playerstate.transports.plain import PlainService
from tests.kit.netcode_service import (
    ELSEWHERE,
    IDLE,
    KICKED,
    NetcodePlayer,
    NetcodeServiceTestCase,
    join_message,
    move_message,
)
from tests.kit.players import GONE, RECEIPT, REFUSED, WELCOME, at, run_of
from tests.kit.players import Client as PlainClient


class ConversationTests(NetcodeServiceTestCase):
    """Messages over the transport."""

    def test_conversation(self) -> None:
        """A player joins, moves, gets receipts and leaves, by the plain transport's messages."""
        self.open()
        player = self.joined()
        player.move(1, 5.0, 6.0)
        self.assertEqual(self.service.state(42), at(5.0, 6.0))
        self.play(7.0, player)
        self.assertIn((RECEIPT, 1, 1), player.heard)
        player.leave(1)
        self.play(0.2, player)
        self.assertEqual(player.client.state, State.CONNECTED)
        self.assertRaises(NotOnline, self.service.state, 42)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 6.0)})

    def test_joins_again(self) -> None:
        """A player who left may join again on the same connection."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        player.leave(1)
        self.play(0.2, player)
        player.names()
        player.join(2)
        self.assertEqual(player.names(), [WELCOME])

    def test_malformed(self) -> None:
        """A payload that is no message is counted as malformed, as on any transport."""
        self.open()
        player = self.joined()
        player.send(b"\xee")
        self.assertEqual(self.service.ledger.malformed, {"unknown_type": 1})
        self.assertEqual(player.client.state, State.CONNECTED)

    def test_no_identity_but_the_token(self) -> None:
        """A player is identified by its connection."""
        self.open()
        first, second = self.joined(1, 1), self.joined(2, 2)
        first.move(1, 1.0)
        second.move(1, 2.0)
        self.assertEqual(self.service.state(1), at(1.0))
        self.assertEqual(self.service.state(2), at(2.0))

    def test_full_game(self) -> None:
        """A client for which the game has no room is REFUSED, as on any transport."""
        self.open(slots=10)
        self.service.run.joins._max_players = 1
        self.joined(1, 1)
        player = NetcodePlayer(self, 2, 2)
        player.connect()
        player.join()
        self.assertEqual(player.names(), [REFUSED])

    def test_too_long(self) -> None:
        """A datagram longer than any valid one is ignored, even if the system has cut it."""
        self.open()
        player = self.joined()
        datagram = player.client.send(bytes(1200), self.now)
        self.port.receive(datagram.ljust(1226, b"\0"), player.address)
        self.port.receive(bytes(60_000), player.address)
        self.assertEqual(self.netcode.tally.ignored, {"too_long": 1, "bad_length": 1})

    def test_longest(self) -> None:
        """The longest valid packet reaches the gateway whole."""
        self.open()
        player = NetcodePlayer(self, 42)
        player.connect()
        for number in (2**16, 2**60):  # the second takes all 8 bytes that a number may have
            player.client._sequence = number
            join = struct.pack("<BBIIIQ", 1, 1, 0, 7, 0, 0)
            player.send(join.ljust(1200, b"\0"))
            self.assertEqual(player.names(), [WELCOME])
        self.assertEqual(self.netcode.tally.ignored, {})

    def test_unsent(self) -> None:
        """A datagram that the system does not send is counted, and lost."""
        self.open()
        player = self.joined()

        def write(*_: object) -> None:
            raise OSError(105, "No buffer space available")

        protocol = self.port._protocol
        self.patch(protocol, "_write", write)
        self.service.ledger.unsent = 0
        self.gateway.kick(42)
        self.advance(0.4)
        self.assertEqual(self.service.ledger.unsent, 11)
        player.hear()
        self.assertEqual(player.client.state, State.CONNECTED)


class TogetherTests(NetcodeServiceTestCase):
    """Packets that arrive together."""

    def setUp(self) -> None:
        """Enough players that their moves are processed as a batch."""
        super().setUp()
        self.open(slots=2 * BATCH_MIN)
        self.players = [self.joined(n, n, timeout=60) for n in range(1, BATCH_MIN + 3)]

    def send(self, *packets: tuple[NetcodePlayer, bytes]) -> None:
        """Let these packets arrive together."""
        addresses = [player.address for player, _ in packets]
        self.port.receive_many([packet for _, packet in packets], addresses)

    def moves(self, sequence: int) -> list[tuple[NetcodePlayer, bytes]]:
        """A MOVE of each player."""
        return [
            (player, player.client.send(move_message(sequence, 5.0, number), self.now))
            for number, player in enumerate(self.players)
        ]

    def test_moves(self) -> None:
        """Each player's move is applied, all in one batch."""
        called = []
        many = self.service.table.apply_many
        self.patch(
            self.service.table, "apply_many", lambda *a: called.append(len(a[0])) or many(*a)
        )
        self.send(*self.moves(1))
        self.assertEqual(called, [len(self.players)])
        for number, player in enumerate(self.players):
            self.assertEqual(self.service.state(player.session_id), at(5.0, number))

    def test_order(self) -> None:
        """A move that a client sent before it disconnected is applied and saved."""
        *moves, last = self.moves(1)
        player = last[0]
        goodbyes = [(player, packet) for packet in player.client.disconnect(self.now)]
        self.send(*moves, last, *goodbyes)
        self.assertRaises(NotOnline, self.service.state, player.session_id)
        self.advance(0.2)
        stored = {player.session_id: (5.0, float(len(moves)))}
        self.assertEqual(self.stored(self.stepped), stored)
        self.assertEqual(self.service.ledger.snapshot().rejected, {})

    def test_ended_by_its_message(self) -> None:
        """A client whose first message ends its connection does not join by its second."""
        player = self.players[0]
        self.successResultOf(self.service.leave(player.session_id))
        join = join_message(7)
        said = (move_message(1, 5.0), join)
        self.send(*((player, player.client.send(message, self.now)) for message in said))
        self.assertNotIn(
            player.session_id, {c.client_id for c in self.netcode._run.server.connections}
        )
        self.assertNotIn(player.session_id, run_of(self.gateway).registry.current)
        self.assertNotIn(player.session_id, self.service.table.slots)

    def test_bug(self) -> None:
        """A bug in the handling of one packet does not stop the others."""
        receive = self.netcode._run.server.receive

        def stumble(datagram: bytes, *arguments: Any) -> None:
            if not datagram:
                raise ZeroDivisionError
            receive(datagram, *arguments)

        self.patch(self.netcode._run.server, "receive", stumble)
        self.send((self.players[0], b""), *self.moves(1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.service.ledger.applied, len(self.players))


class LeavingTests(NetcodeServiceTestCase):
    """A lost connection is a leave, and the end of a conversation ends its connection."""

    def test_disconnect(self) -> None:
        """A client that disconnects leaves, and is saved."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        player.disconnect()
        self.assertRaises(NotOnline, self.service.state, 42)
        self.advance(0.2)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})
        self.assertEqual(self.service.ledger.leaves, 1)

    def test_silence(self) -> None:
        """A client that is silent for the token's timeout leaves, and is saved."""
        self.open()
        player = self.joined(timeout=5)
        player.move(1, 5.0)
        self.advance(4.9)
        self.assertEqual(self.service.state(42), at(5.0))
        self.advance(0.3)
        self.assertRaises(NotOnline, self.service.state, 42)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})

    def test_bug_at_a_time_out(self) -> None:
        """A bug in the time-out of one client does not stop that of the next."""
        self.open()
        for number in (1, 2):
            self.joined(number, number, timeout=5)
        lost = self.gateway.lost

        def stumble(session_id: int, *arguments: Any) -> None:
            if session_id == 1:
                raise ZeroDivisionError
            lost(session_id, *arguments)

        self.patch(self.gateway, "lost", stumble)
        self.advance(6.0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertRaises(NotOnline, self.service.state, 2)
        self.assertEqual(self.netcode.tally.timed_out, 2)

    def test_bug_in_replacing(self) -> None:
        """A replaced connection ends, even if the gateway fails to say why."""
        self.open()
        before = self.joined()
        self.play(1.0, before)
        self.patch(self.gateway, "lost", lambda *_: 1 / 0)
        NetcodePlayer(self, 42, 7, seed=1).connect()
        before.hear()
        self.assertEqual(before.client.state, State.DISCONNECTED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.netcode._run.server.connections), 1)

    def test_comes_back(self) -> None:
        """With a fresh token the player joins again, in the same state."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        player.disconnect()
        again = NetcodePlayer(self, 42, 7, seed=1)
        again.connect()
        again.join(2)
        self.assertEqual(again.heard[0][-2:], (5.0, 0.0))

    def test_kicked(self) -> None:
        """GONE goes first, then the disconnect packets."""
        self.open()
        player = self.joined()
        self.gateway.kick(42)
        self.play(READ_WITHIN - 0.05, player)
        self.assertEqual(player.heard, [(GONE, 1, KICKED)])
        self.play(0.15, player)
        self.assertEqual(player.heard, [(GONE, 1, KICKED), ("disconnected",)])
        self.assertEqual(self.netcode.tally.ended, 1)

    def test_gone_is_read(self) -> None:
        """A client that discards unread packets when it is disconnected has read the GONE before.

        It reads once a frame, as the reference client in C does, at any rate and moment.
        """
        self.open()
        for session_id, (hertz, late) in enumerate(itertools.product((10, 20, 60), (0.0, 0.5)), 1):
            player = self.joined(session_id, session_id)
            self.advance(0.05 + late / hertz)
            self.gateway.kick(session_id)
            self.assertEqual(self.seen(player, hertz), [(GONE, 1, KICKED)])

    def test_idle(self) -> None:
        """A player who only keeps the connection alive is idle, and is disconnected."""
        self.open(idle_timeout=3.0)
        player = self.joined()
        self.play(5.0, player)
        self.assertEqual(player.heard, [(GONE, 1, IDLE), ("disconnected",)])

    def test_never_joins(self) -> None:
        """A client that never sends a payload is disconnected some time after the idle timeout."""
        self.open(idle_timeout=3.0)
        player = NetcodePlayer(self, 42)
        player.connect()
        self.play(2.5 + IDLE_GRACE, player)
        self.assertEqual(player.client.state, State.CONNECTED)
        self.play(2.0, player)
        self.assertEqual(player.heard, [("disconnected",)])

    def test_joined_elsewhere(self) -> None:
        """A player who joins over the plain transport has their netcode client disconnected."""
        self.open()
        plain = PlainService(self.gateway, 7777, reactor=self.stepped.reactor)
        plain.startService()
        player = self.joined()
        other = PlainClient(self.stepped.reactor.ports[7777])
        other.join(2)
        self.assertEqual(other.heard()[0][0], WELCOME)
        self.play(0.4, player)
        self.assertEqual(player.heard, [(GONE, 1, ELSEWHERE), ("disconnected",)])
        other.move(1, 9.0)
        self.assertEqual(self.service.state(42), at(9.0))
        plain.stopService()
        self.advance(0.2)


class ComingBackTests(NetcodeServiceTestCase):
    """A player whose old connection still exists."""

    def again(self, host: int = 7, seed: int = 1) -> NetcodePlayer:
        """The same player at another address, in the game."""
        again = NetcodePlayer(self, 42, host, seed=seed)
        again.connect()
        again.join(1 + seed)
        return again

    def test_crashed(self) -> None:
        """A restarted client joins at once, and the player is where the old client left them."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        self.advance(1.0)
        began = self.now
        again = self.again()
        self.assertEqual(again.heard[0][-2:], (5.0, 0.0))
        self.assertLess(self.now - began, 1.0)

    def test_late_move(self) -> None:
        """A late move of the old client is ignored, whatever its number."""
        self.open()
        player = self.joined()
        player.move(1000, 5.0)
        late = player.client.send(move_message(2000, 99.0), self.now)
        self.advance(1.0)
        again = self.again()
        self.port.receive(late, player.address)
        again.move(1, 6.0)
        self.assertEqual(self.service.state(42), at(6.0))

    def test_two_devices(self) -> None:
        """The first device is told that its player joined elsewhere, then disconnected."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        self.play(1.5, player)
        player.names()
        again = self.again()
        self.assertEqual(again.names(), [WELCOME])
        self.play(0.4, player, again)
        self.assertEqual(player.heard, [(GONE, 1, ELSEWHERE), ("disconnected",)])
        again.move(1, 6.0)
        self.assertEqual(self.service.state(42), at(6.0))
        self.assertEqual(self.netcode.tally.replaced, 1)

    def test_other_port(self) -> None:
        """A client whose port changes stays in the same conversation."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        self.advance(1.1)
        player.address = (player.address[0], 9999)
        player.move(2, 6.0)
        self.assertEqual(self.service.state(42), at(6.0))
        self.play(1.0, player)
        self.assertEqual((self.netcode.tally.moved, self.service.ledger.joins), (1, 1))
        self.assertEqual(player.names()[-1], RECEIPT)

    def test_process_stalled(self) -> None:
        """A client whose packets waited while the process stalled is not disconnected."""
        self.open(idle_timeout=60.0)
        player = self.joined(timeout=1)
        datagram = player.client.send(move_message(1, 5.0), self.now)
        idler = NetcodePlayer(self, 43, 2, timeout=60)
        idler.connect()
        self.stepped.reactor.advance(50.0)
        self.port.receive(datagram, player.address)
        self.assertEqual(self.service.state(42), at(5.0))
        self.advance(0.5)
        self.assertEqual(self.service.state(42), at(5.0))
        self.stepped.reactor.advance(50.0)
        self.assertIn(43, {c.client_id for c in self.netcode._run.server.connections})


class OnConnectTests(NetcodeServiceTestCase):
    """The program's `on_connect`."""

    def test_user_data(self) -> None:
        """It gets the session id and the token's 256 bytes, before the first message."""
        told: list[tuple[int, bytes, int]] = []
        self.open(on_connect=lambda *who: told.append((*who, self.service.ledger.joins)))
        self.joined(user_data=b"team blue")
        self.assertEqual(told, [(42, b"team blue".ljust(256, b"\0"), 0)])

    def test_fails(self) -> None:
        """If it raises, that is logged, and only this client is disconnected."""
        self.open(on_connect=lambda session_id, _: 1 / (session_id - 42))
        other = self.joined(1, 1)
        player = NetcodePlayer(self, 42, 2)
        for _ in range(8):
            player.turn()
            self.advance(0.05)
        self.assertEqual(player.client.state, State.DISCONNECTED)
        self.assertEqual(len(self.told("on_connect failed; player 42", LogLevel.critical)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(other.client.state, State.CONNECTED)
        self.assertEqual(self.service.ledger.joins, 1)

    def test_sees_earlier_moves(self) -> None:
        """When it is called, the moves that arrived before the client connected are applied."""
        seen = []

        def on_connect(session_id: int, user_data: bytes) -> None:
            if session_id == 2:
                seen.append(self.service.state(1))

        self.open(on_connect=on_connect)
        first, second = self.joined(1, 1, timeout=60), NetcodePlayer(self, 2, 2)
        response = None
        while response is None:
            second.hear()
            datagram = second.client.due(self.now)
            if datagram is not None and datagram[0] & 0x0F == RESPONSE:
                response = datagram
            elif datagram is not None:
                self.port.receive(datagram, second.address)
            self.advance(0.05)
        move = first.client.send(move_message(1, 5.0), self.now)
        self.port.receive_many([move, response], [first.address, second.address])
        self.assertEqual(seen, [at(5.0)])


class LogTests(NetcodeServiceTestCase):
    """The line in the log each minute."""

    def test_minute(self) -> None:
        """It sums up the counters, with the reasons; without a change there is no line."""
        self.open(age=0.0)
        self.advance(LOG_EVERY - 1.0)
        self.assertEqual(self.told("half-open"), [])
        player = self.joined()
        for _ in range(3):
            self.port.receive(b"\x15\0" + bytes(30), ("192.0.2.9", 1))
        self.port.receive(b"\0" + bytes(99), ("192.0.2.9", 1))
        self.play(1.0, player)
        [line] = self.told("half-open")
        self.assertEqual(
            line,
            "netcode: 1 connected now, 0 half-open; 1 connected, 0 disconnected, 0 timed out,"
            " 0 ended by the server, 0 of them replaced, 0 moved to another port;"
            " 1 challenged, 0 denied without a free slot;"
            " 4 datagrams ignored (no_key 3, bad_length 1)",
        )
        self.play(LOG_EVERY, player)
        lines = len(self.told("half-open"))
        self.play(LOG_EVERY, player)
        self.assertEqual(len(self.told("half-open")), lines)
