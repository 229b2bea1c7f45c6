"""The netcode transport with a gateway behind it, over ports in memory."""

from __future__ import annotations

import itertools
import random
import struct
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel

from playerstate import NotOnline, NotRunning
from playerstate.conversations.gateway import Gateway
from playerstate.conversations.intake import BATCH_MIN
from playerstate.testing import EPOCH, MemoryPort
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.client import Client, State
from playerstate.transports.netcode.packets import RESPONSE
from playerstate.transports.netcode.run import IDLE_GRACE, LOG_EVERY, READ_WITHIN
from playerstate.transports.netcode.service import NetcodeService
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.plain import PlainService
from playerstate.transports.udp import LISTEN_AGAIN_FIRST
from tests.kit.netcode import KEY, PROTOCOL_ID, make_token
from tests.kit.players import (
    GONE,
    RECEIPT,
    REFUSED,
    WELCOME,
    ServiceTestCase,
    at,
    read_answer,
    run_of,
)
from tests.kit.players import Client as PlainClient

PORT = 40_000
ADDRESS = Address.parse(f"127.0.0.1:{PORT}")
KICKED, IDLE, ELSEWHERE, CLOSED = range(1, 5)


class NetcodePlayer:
    """A player behind a netcode client.

    Args:
        case: the test.
        token: for `make_token`.
    """

    def __init__(
        self,
        case: NetcodeServiceTestCase,
        session_id: int,
        host: int = 1,
        port: MemoryPort | None = None,
        **token: Any,
    ) -> None:
        self.case = case
        self.port = case.port if port is None else port
        self.session_id = session_id
        self.address = (f"192.0.2.{host}", 1000 + host)
        token.setdefault("created_at", int(case.wall_clock()))
        token.setdefault("addresses", (ADDRESS,))
        self.client = Client(make_token(session_id, **token).pack(), case.now)
        self.heard: list[tuple[Any, ...]] = []

    def turn(self) -> None:
        """Hear, and send what is due."""
        self.hear()
        datagram = self.client.due(self.case.now)
        if datagram is not None:
            self.port.receive(datagram, self.address)
        self.hear()

    def hear(self) -> None:
        """Take in what was sent here; the messages in it are kept, and the end of it all."""
        others = []
        for datagram, address in self.port.take():
            if address != self.address:
                others.append((datagram, address))
                continue
            was = self.client.state
            message = self.client.receive(datagram, self.client.server, self.case.now)
            if message is not None:
                self.heard.append(read_answer(message))
            if was == State.CONNECTED and self.client.state == State.DISCONNECTED:
                self.heard.append(("disconnected",))
        self.port.sent.extend(others)

    def connect(self) -> None:
        """Get in."""
        for _ in range(8):
            self.turn()
            self.case.advance(0.05)
        self.case.assertEqual(self.client.state, State.CONNECTED)

    def send(self, message: bytes) -> None:
        """Send a message."""
        self.port.receive(self.client.send(message, self.case.now), self.address)
        self.hear()

    def join(self, nonce: int = 1) -> None:
        """A JOIN."""
        self.send(struct.pack("<BBIIIQ", 1, 1, 0, nonce, 0, 0).ljust(116, b"\0"))

    def move(self, sequence: int, x: float, y: float = 0.0) -> None:
        """A MOVE."""
        self.send(struct.pack("<BIdd", 2, sequence, x, y))

    def leave(self, sequence: int) -> None:
        """A LEAVE."""
        self.send(struct.pack("<BI31x", 3, sequence))

    def disconnect(self) -> None:
        """The client goes."""
        for datagram in self.client.disconnect(self.case.now):
            self.port.receive(datagram, self.address)

    def names(self) -> list[str]:
        """The names of what was heard since the last time."""
        heard, self.heard = self.heard, []
        return [answer[0] for answer in heard]


class NetcodeServiceTestCase(ServiceTestCase):
    """Tests that speak netcode to a gateway.

    Attributes:
        steady: the clock by which the end of a stop is waited for, if not the reactor's.
    """

    steady: Clock | None = None

    def open(
        self,
        *,
        on_connect: Any = None,
        idle_timeout: float = 30.0,
        age: float = 40.0,
        listen: tuple[tuple[int, str], ...] = ((PORT, "127.0.0.1"),),
        addresses: frozenset[Address] = frozenset(),
        **settings: Any,
    ) -> None:
        """Start a server that has run for a while."""
        self.stepped = self.start()
        self.service = self.stepped.service
        self.gateway = Gateway(self.service, idle_timeout=idle_timeout, jitter=lambda: 0.0)
        settings.setdefault("slots", 4)
        self.netcode = NetcodeService(
            self.gateway,
            NetcodeSettings(KEY, PROTOCOL_ID, addresses, **settings),
            listen,
            on_connect=on_connect,
            reactor=self.stepped.reactor,
            wall_clock=self.wall_clock,
            random_bytes=random.Random(1).randbytes,
            sleep=lambda _, seconds: deferLater(self.steady or self.stepped.reactor, seconds),
        )
        self.netcode.startService()
        self.port = self.stepped.reactor.ports[self.netcode.ports[0]]
        self.addCleanup(self.port.stopListening)
        self.stepped.reactor.advance(age)

    def wall_clock(self) -> float:
        """Seconds since the Unix epoch."""
        return EPOCH + self.now

    @property
    def now(self) -> float:
        """The time."""
        return self.stepped.reactor.seconds()

    def advance(self, seconds: float) -> None:
        """Let time pass in steps of 10 ms, and the persist thread work in between."""
        for _ in range(round(seconds / 0.01)):
            self.stepped.reactor.advance(0.01)
            self.stepped.settle()

    def play(self, seconds: float, *players: NetcodePlayer) -> None:
        """Let time pass for these players too."""
        for _ in range(round(seconds / 0.05)):
            self.advance(0.05)
            for player in players:
                player.turn()

    def joined(self, session_id: int = 42, host: int = 1, **token: Any) -> NetcodePlayer:
        """A player who is in the game."""
        player = NetcodePlayer(self, session_id, host, **token)
        player.connect()
        player.join()
        self.assertEqual(player.names(), [WELCOME])
        return player


class ConversationTests(NetcodeServiceTestCase):
    """Messages through the transport."""

    def test_conversation(self) -> None:
        """Join, move, hear the receipts, leave; the same messages as on the plain transport."""
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

    def test_nonsense(self) -> None:
        """A payload that is no message is malformed, and counted as on any transport."""
        self.open()
        player = self.joined()
        player.send(b"\xee")
        self.assertEqual(self.service.ledger.malformed, {"unknown_type": 1})
        self.assertEqual(player.client.state, State.CONNECTED)

    def test_no_identity_but_the_token(self) -> None:
        """Two players are told apart by their connections."""
        self.open()
        first, second = self.joined(1, 1), self.joined(2, 2)
        first.move(1, 1.0)
        second.move(1, 2.0)
        self.assertEqual(self.service.state(1), at(1.0))
        self.assertEqual(self.service.state(2), at(2.0))

    def test_full_game(self) -> None:
        """A client for whom the game has no place is REFUSED, as on any transport."""
        self.open(slots=10)
        self.service.run.joins._max_players = 1
        self.joined(1, 1)
        player = NetcodePlayer(self, 2, 2)
        player.connect()
        player.join()
        self.assertEqual(player.names(), [REFUSED])


class TogetherTests(NetcodeServiceTestCase):
    """Packets that come at the same time."""

    def setUp(self) -> None:
        """Enough players that their moves are taken in at once."""
        super().setUp()
        self.open(slots=2 * BATCH_MIN)
        self.players = [self.joined(n, n, timeout=60) for n in range(1, BATCH_MIN + 3)]

    def send(self, *packets: tuple[NetcodePlayer, bytes]) -> None:
        """These arrive together."""
        addresses = [player.address for player, _ in packets]
        self.port.receive_many([packet for _, packet in packets], addresses)

    def moves(self, sequence: int) -> list[tuple[NetcodePlayer, bytes]]:
        """A MOVE of each player."""
        return [
            (player, player.client.send(struct.pack("<BIdd", 2, sequence, 5.0, number), self.now))
            for number, player in enumerate(self.players)
        ]

    def test_moves(self) -> None:
        """Each player's is applied."""
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
        """What a client said before it disconnected is taken in, and saved."""
        *moves, last = self.moves(1)
        player = last[0]
        goodbyes = [(player, packet) for packet in player.client.disconnect(self.now)]
        self.send(*moves, last, *goodbyes)
        self.assertRaises(NotOnline, self.service.state, player.session_id)
        self.advance(0.2)
        stored = {player.session_id: (5.0, float(len(moves)))}
        self.assertEqual(self.stored(self.stepped), stored)
        self.assertEqual(self.service.ledger.snapshot().rejected, {})

    def test_ended_by_what_it_said(self) -> None:
        """A client that is let go of for its first word does not come back by its second."""
        player = self.players[0]
        self.successResultOf(self.service.leave(player.session_id))
        join = struct.pack("<BBIIIQ", 1, 1, 0, 7, 0, 0).ljust(116, b"\0")
        said = (struct.pack("<BIdd", 2, 1, 5.0, 0.0), join)
        self.send(*((player, player.client.send(message, self.now)) for message in said))
        self.assertNotIn(
            player.session_id, {c.client_id for c in self.netcode._run.server.connections}
        )
        self.assertNotIn(player.session_id, run_of(self.gateway).registry.current)
        self.assertNotIn(player.session_id, self.service.table.slots)

    def test_bug(self) -> None:
        """One packet's bug keeps nobody from taking in the others."""
        receive = self.netcode._run.server.receive

        def stumble(datagram: bytes, *arguments: Any) -> None:
            if not datagram:
                raise ZeroDivisionError
            receive(datagram, *arguments)

        self.patch(self.netcode._run.server, "receive", stumble)
        self.send((self.players[0], b""), *self.moves(1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.service.ledger.applied, len(self.players))


class HookTests(NetcodeServiceTestCase):
    """The program's hook, between packets that came at the same time."""

    def test_sees_what_was_said_before(self) -> None:
        """What others said before a client was let in is applied when the program is told."""
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
        move = first.client.send(struct.pack("<BIdd", 2, 1, 5.0, 0.0), self.now)
        self.port.receive_many([move, response], [first.address, second.address])
        self.assertEqual(seen, [at(5.0)])


class LeavingTests(NetcodeServiceTestCase):
    """A connection that ends is a leave, and an ended conversation ends the connection."""

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
        """So does one that falls silent for the token's timeout."""
        self.open()
        player = self.joined(timeout=5)
        player.move(1, 5.0)
        self.advance(4.9)
        self.assertEqual(self.service.state(42), at(5.0))
        self.advance(0.3)
        self.assertRaises(NotOnline, self.service.state, 42)
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})

    def test_bug_in_letting_go(self) -> None:
        """A bug in letting go of one client keeps nobody from letting go of the next."""
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
        """A connection that was replaced ends, whatever goes wrong in saying why."""
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
        """With a fresh token the player is back, where they stood."""
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

    def test_goodbye_is_read(self) -> None:
        """A client that drops what it has not read when it is disconnected has read why.

        It reads once in a frame, as the reference's in C does, at whatever rate and moment.
        """
        self.open()
        for session_id, (hertz, late) in enumerate(itertools.product((10, 20, 60), (0.0, 0.5)), 1):
            player = self.joined(session_id, session_id)
            self.advance(0.05 + late / hertz)
            self.gateway.kick(session_id)
            self.assertEqual(self.seen(player, hertz), [(GONE, 1, KICKED)])

    def test_goodbye_is_read_at_a_stop(self) -> None:
        """So it is at a stop, which waits for that."""
        for hertz in (10, 20, 60):
            self.open()
            player = self.joined()
            player.move(1, 5.0)
            stopped = self.netcode.stopService()
            self.assertIn((GONE, 1, CLOSED), self.seen(player, hertz))
            self.assertEqual(player.client.state, State.DISCONNECTED)
            self.successResultOf(stopped)
            self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})

    def test_receipt_is_read_at_a_stop(self) -> None:
        """So is the RECEIPT of one who left just before."""
        for hertz in (10, 20, 60):
            self.open()
            player = self.joined()
            player.leave(0)
            self.stepped.settle()
            stopped = self.netcode.stopService()
            self.assertIn((RECEIPT, 0, 0), self.seen(player, hertz))
            self.assertEqual(player.client.state, State.DISCONNECTED)
            self.successResultOf(stopped)

    def test_refusal_is_read_at_a_stop(self) -> None:
        """So is the answer to a JOIN that came too late, though nobody is left to be told GONE."""
        for hertz in (10, 20, 60):
            self.open()
            last, late = self.joined(42, 1), NetcodePlayer(self, 43, 2)
            late.connect()
            last.move(1, 5.0)
            stopped = self.netcode.stopService()
            late.join()
            last.disconnect()
            self.stepped.settle()
            self.assertFalse(self.netcode._run.server.is_ending)
            self.assertEqual(self.seen(late, hertz), [(REFUSED, 1, CLOSED)])
            self.successResultOf(stopped)

    def test_stop_while_the_clock_is_set_back(self) -> None:
        """The reactor's timers stand still while its clock is set back; the stop does not."""
        self.steady = Clock()
        self.open()
        self.joined()
        stopped = self.netcode.stopService()
        self.stepped.settle()
        self.successResultOf(self.stepped.stop())
        self.steady.advance(READ_WITHIN - 0.01)
        self.assertNoResult(stopped)
        self.steady.advance(0.01)
        self.successResultOf(stopped)

    def test_stop_of_nobody(self) -> None:
        """Where nobody is connected, nobody is waited for."""
        self.open()
        self.successResultOf(self.netcode.stopService())

    def test_stop_of_the_service_first(self) -> None:
        """The service whose clock it is may be stopped by then; the last words are said."""
        self.open()
        player = self.joined()
        stopped = self.netcode.stopService()
        self.successResultOf(self.stepped.stop())
        self.assertNoResult(stopped)
        self.advance(0.5)
        self.successResultOf(stopped)
        player.hear()
        self.assertEqual(player.names()[-2:], [GONE, "disconnected"])

    def test_nothing_is_begun_in_a_stop(self) -> None:
        """What comes between the last GONE and the end is not answered: it could not be read."""
        self.open()
        self.joined()
        idler = NetcodePlayer(self, 43, 2)
        idler.connect()
        stopped = self.netcode.stopService()
        self.advance(0.1)
        self.assertTrue(self.netcode._run.server.is_ending)
        idler.join()
        self.play(0.4, idler)
        self.assertEqual(idler.names(), ["disconnected"])
        self.successResultOf(stopped)

    def seen(self, player: NetcodePlayer, hertz: int) -> list[tuple[Any, ...]]:
        """What a program sees that reads once in a frame, and nothing of a frame that ends it."""
        seen: list[tuple[Any, ...]] = []
        for _ in range(hertz):
            player.hear()
            heard, player.heard = player.heard, []
            if ("disconnected",) in heard:
                return seen
            seen += heard
            self.advance(1 / hertz)
        return seen

    def test_idle(self) -> None:
        """A player who only keeps the connection alive is idle to the game, and let go."""
        self.open(idle_timeout=3.0)
        player = self.joined()
        self.play(5.0, player)
        self.assertEqual(player.heard, [(GONE, 1, IDLE), ("disconnected",)])

    def test_never_joins(self) -> None:
        """Who connects and says nothing is disconnected some time after the idle timeout."""
        self.open(idle_timeout=3.0)
        player = NetcodePlayer(self, 42)
        player.connect()
        self.play(2.5 + IDLE_GRACE, player)
        self.assertEqual(player.client.state, State.CONNECTED)
        self.play(2.0, player)
        self.assertEqual(player.heard, [("disconnected",)])

    def test_joined_elsewhere(self) -> None:
        """A player who joins over the plain transport has their netcode client let go."""
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

    def test_stop(self) -> None:
        """At a stop each hears a last RECEIPT and GONE, then the disconnects; half-open ones
        nothing.
        """
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        idler = NetcodePlayer(self, 43, 2)
        idler.connect()
        stopped = self.netcode.stopService()
        self.advance(0.5)
        self.successResultOf(stopped)
        for one in (player, idler):
            one.hear()
        self.assertEqual(player.names()[-3:], [RECEIPT, GONE, "disconnected"])
        self.assertEqual(idler.names(), ["disconnected"])
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})
        self.assertEqual(self.stepped.reactor.ports, {})


class ComingBackTests(NetcodeServiceTestCase):
    """A player whose old connection still stands."""

    def again(self, host: int = 7, seed: int = 1) -> NetcodePlayer:
        """The same player elsewhere, in the game."""
        again = NetcodePlayer(self, 42, host, seed=seed)
        again.connect()
        again.join(1 + seed)
        return again

    def test_crashed(self) -> None:
        """A client that crashed is started again and is back at once, where the player stood."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        self.advance(1.0)
        began = self.now
        again = self.again()
        self.assertEqual(again.heard[0][-2:], (5.0, 0.0))
        self.assertLess(self.now - began, 1.0)

    def test_late_move(self) -> None:
        """What the old client sent late, with whatever number, is nothing to the new one's."""
        self.open()
        player = self.joined()
        player.move(1000, 5.0)
        late = player.client.send(struct.pack("<BIdd", 2, 2000, 99.0, 0.0), self.now)
        self.advance(1.0)
        again = self.again()
        self.port.receive(late, player.address)
        again.move(1, 6.0)
        self.assertEqual(self.service.state(42), at(6.0))

    def test_two_devices(self) -> None:
        """The device before is told that its player joined elsewhere, then disconnected."""
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
        """A client whose port changes plays on in the same conversation."""
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

    def test_process_stood_still(self) -> None:
        """Nobody is disconnected whose packets waited while the process stood still."""
        self.open(idle_timeout=60.0)
        player = self.joined(timeout=1)
        datagram = player.client.send(struct.pack("<BIdd", 2, 1, 5.0, 0.0), self.now)
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
    """The hook."""

    def test_user_data(self) -> None:
        """It is told who came, and the 256 bytes of the token, before the first message."""
        told: list[tuple[int, bytes, int]] = []
        self.open(on_connect=lambda *who: told.append((*who, self.service.ledger.joins)))
        self.joined(user_data=b"team blue")
        self.assertEqual(told, [(42, b"team blue".ljust(256, b"\0"), 0)])

    def test_fails(self) -> None:
        """If it raises, that is logged, and the client is let go; others are not touched."""
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


class PortTests(NetcodeServiceTestCase):
    """The ports and their life."""

    def test_log(self) -> None:
        """At the start the log tells the ports, and who gets in."""
        self.open()
        self.assertEqual(len(self.told(f"listening on udp 127.0.0.1:{PORT}, netcode")), 1)
        [line] = self.told("netcode accepts clients")
        self.assertIn(f"tokens name 127.0.0.1:{PORT} and live for 30 s at most", line)

    def test_public_address(self) -> None:
        """Told under which address it is known, it takes tokens for that one alone."""
        public = Address.parse("203.0.113.7:40000")
        self.open(addresses=frozenset((public,)), listen=((PORT, "0.0.0.0"),))
        self.joined(addresses=(public,))
        player = NetcodePlayer(self, 43, 2)
        player.turn()
        self.assertEqual(player.client.state, State.SENDING_REQUEST)
        self.assertEqual(self.netcode.tally.ignored, {"address_not_listed": 1})

    def test_wildcard(self) -> None:
        """Without such an address it does not listen on all interfaces."""
        for interface in ("0.0.0.0", "::"):
            with self.assertRaises(ValueError) as caught:
                self.open(listen=((PORT, interface),))
            self.assertIn("all interfaces", str(caught.exception))

    def test_any_port(self) -> None:
        """Port 0 is any that is free; tokens name the one bound."""
        self.open(listen=((0, "127.0.0.1"),))
        [number] = self.netcode.ports
        self.assertGreater(number, 0)
        self.joined(addresses=(Address.parse(f"127.0.0.1:{number}"),))

    def test_two_ports(self) -> None:
        """Two ports share clients and tokens; each answers for itself."""
        self.open(listen=((PORT, "127.0.0.1"), (PORT + 1, "127.0.0.1")))
        second = self.stepped.reactor.ports[PORT + 1]
        both = (ADDRESS, Address.parse(f"127.0.0.1:{PORT + 1}"))
        first = self.joined(42, 1, addresses=both)
        again = NetcodePlayer(self, 42, 1, second, addresses=both)
        again.turn()
        self.assertEqual(self.netcode.tally.ignored, {"client_id_connected": 1})
        first.disconnect()
        again.turn()
        self.advance(0.2)
        again.turn()
        self.assertEqual(self.netcode.tally.ignored["token_consumed"], 1)
        other = NetcodePlayer(self, 43, 2, second, addresses=both)
        other.connect()
        other.join()
        self.assertEqual(other.names(), [WELCOME])
        self.successResultOf(second.stopListening())

    def test_cannot_listen(self) -> None:
        """If one port is taken none is kept, and the stop is harmless."""
        self.open()
        calls = len(self.service.clock.getDelayedCalls())
        other = NetcodeService(
            self.gateway,
            NetcodeSettings(KEY, PROTOCOL_ID),
            [(PORT + 1, "127.0.0.1"), (PORT, "127.0.0.1")],
            reactor=self.stepped.reactor,
        )
        self.assertRaises(CannotListenError, other.startService)
        self.assertEqual(list(self.stepped.reactor.ports), [PORT])
        self.assertEqual(len(self.service.clock.getDelayedCalls()), calls)
        self.successResultOf(other.stopService())

    def test_not_started(self) -> None:
        """Before its first start the transport has no ports and no counters, and says so."""
        self.open()
        settings = NetcodeSettings(KEY, PROTOCOL_ID)
        other = NetcodeService(self.gateway, settings, [(PORT + 1, "127.0.0.1")])
        for name in ("ports", "tally"):
            self.assertRaises(NotRunning, getattr, other, name)

    def test_started_again(self) -> None:
        """A service that is started again knows nobody, and takes no token from before."""
        self.open()
        token = make_token(42, created_at=int(self.wall_clock()), addresses=(ADDRESS,)).pack()
        player = self.joined()
        player.client = Client(token, self.now)
        self.netcode.stopService()
        self.advance(0.5)
        self.netcode.startService()
        self.port = player.port = self.stepped.reactor.ports[PORT]
        self.advance(0.1)
        player.turn()
        self.assertEqual(self.netcode.tally.ignored, {"issued_before_start": 1})
        self.successResultOf(self.port.stopListening())

    def test_system_does_not_take_it(self) -> None:
        """What the system will not send is counted, and as good as lost."""
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

    def test_port_is_lost(self) -> None:
        """A port that the system closes is bound again, and its clients play on as they were."""
        self.open(listen=((PORT, "127.0.0.1"), (PORT + 1, "127.0.0.1")))
        other = self.stepped.reactor.ports[PORT + 1]
        self.addCleanup(other.stopListening)
        player = self.joined()
        player.move(1, 5.0)
        self.port.stopListening()
        self.assertEqual(len(self.told(f"127.0.0.1:{PORT}, netcode: the system closed the")), 1)
        self.assertEqual(list(self.stepped.reactor.ports), [PORT + 1])
        self.stepped.reactor.advance(LISTEN_AGAIN_FIRST)
        self.assertEqual(len(self.told(f"127.0.0.1:{PORT}, netcode: listening again")), 1)
        player.port = self.stepped.reactor.ports[PORT]
        player.names()
        player.move(2, 6.0)
        self.assertEqual(self.service.state(42), at(6.0))
        self.play(7.0, player)
        self.assertIn((RECEIPT, 2, 2), player.heard)
        late = NetcodePlayer(self, 43, 2, player.port)
        late.connect()
        self.assertEqual((self.netcode.tally.connected, self.netcode.tally.ended), (2, 0))
        stopped = self.netcode.stopService()
        self.advance(0.5)
        self.successResultOf(stopped)
        self.assertEqual(self.stepped.reactor.ports, {})

    def test_stopped_while_a_port_is_lost(self) -> None:
        """A stop meanwhile saves everybody and ends, and nothing is bound after it."""
        self.open()
        player = self.joined()
        player.move(1, 5.0)
        self.port.stopListening()
        stopped = self.netcode.stopService()
        self.advance(0.5)
        self.successResultOf(stopped)
        self.stepped.reactor.advance(60.0)
        self.assertEqual(self.stepped.reactor.ports, {})
        self.assertEqual(self.stored(self.stepped), {42: (5.0, 0.0)})

    def test_too_long(self) -> None:
        """What the system has cut is told from what was whole, and ignored."""
        self.open()
        player = self.joined()
        datagram = player.client.send(bytes(1200), self.now)
        self.port.receive(datagram.ljust(1226, b"\0"), player.address)
        self.port.receive(bytes(60_000), player.address)
        self.assertEqual(self.netcode.tally.ignored, {"too_long": 1, "bad_length": 1})

    def test_longest(self) -> None:
        """The longest packet there is reaches the gateway whole."""
        self.open()
        player = NetcodePlayer(self, 42)
        player.connect()
        for number in (2**16, 2**60):  # the second takes all 8 bytes that a number may have
            player.client._sequence = number
            join = struct.pack("<BBIIIQ", 1, 1, 0, 7, 0, 0)
            player.send(join.ljust(1200, b"\0"))
            self.assertEqual(player.names(), [WELCOME])
        self.assertEqual(self.netcode.tally.ignored, {})


class TellTests(NetcodeServiceTestCase):
    """The line a minute."""

    def test_minute(self) -> None:
        """It sums up what was ignored by reason; where nothing happened there is none."""
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
