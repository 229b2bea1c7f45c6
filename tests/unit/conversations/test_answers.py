"""What the server sends to an address is paid for by what came from there, whoever asks."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import attrs
import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from playerstate import NotOnline, PlayerState, within
from playerstate.client.core import PING_AFTER
from playerstate.state.schema import StateSchema
from playerstate.testing import Address
from playerstate.wire.deltas import DeltaCodec
from playerstate.wire.messages import LEAVE, PING, Codec, encode_numbered
from tests.kit.players import GatewayTestCase, move
from tests.kit.playing import PlayingTestCase


@attrs.define
class Grid:
    """A state that goes out in DELTAs."""

    x: float = attrs.field(default=350.0, metadata=within(resolution=0.015625))
    y: float = attrs.field(default=200.0, metadata=within(resolution=0.015625))


ADDRESSES: list[Address] = [("192.0.2.1", 1001), ("192.0.2.2", 1002), ("192.0.2.3", 1003)]
IN_HAND = 50 + 3 * 21 + 18
"""Bytes that one player's conversation may be owed from before: a WELCOME that waits for the store,
the two RECEIPTs kept in hand and the last one, and a GONE."""
STEP = 0.01

_pick = st.integers(0, 9)
ACTS = [
    *("join", "rejoin", "moved", "secret", "short", "wrong", "again"),
    *("move", "stale", "many", "delta", "ping", "leave", "kick", "program", "wait", "wait"),
]
_ACT = st.tuples(
    st.sampled_from(
        [
            "join",
            "rejoin",
            "moved",
            "secret",
            "short",
            "wrong",
            "move",
            "stale",
            "delta",
            "ping",
            "leave",
            "again",
            "kick",
            "many",
            "program",
            "wait",
            "wait",
        ]
    ),
    _pick,
    _pick,
)


class Meter:
    """A server's port, and what goes through it by address and by time.

    Attributes:
        most_owed: by address, the most that was sent there beyond what had come.
    """

    def __init__(self, case: GatewayTestCase, state: type) -> None:
        self._case = case
        self._port = case.port
        self._state = state
        self._codec = Codec(StateSchema.of(state))
        self._deltas = DeltaCodec(StateSchema.of(state))
        self._traffic: dict[Address, list[tuple[float, int, int]]] = {}
        self._nonces = [1, 1]
        self._numbers = [0, 0]
        self._secrets = {1: 0, 2: 0}
        self._moved = [0, 0]
        self._at = [0, 0]
        self._last = (b"", ADDRESSES[0])

    def say(self, message: bytes, whose: int, place: int, nonce: int | None = None) -> None:
        """A datagram from one of the addresses."""
        nonce = self._nonces[whose] if nonce is None else nonce
        self._bring(struct.pack("<QI", whose + 1, nonce) + message, ADDRESSES[place])

    def _bring(self, datagram: bytes, address: Address) -> None:
        self._last = datagram, address
        self._note(address, len(datagram), 0)
        self._port.receive(datagram, address)
        self.listen()

    def listen(self) -> None:
        """Weigh what the server sent."""
        for datagram, address in self._port.take():
            if datagram[12] == 0x81:
                self._secrets[datagram[0]] = struct.unpack_from("<Q", datagram, 26)[0]
            self._note(address, 0, len(datagram))

    def _note(self, address: Address, came: int, went: int) -> None:
        now = self._case.stepped.reactor.seconds()
        self._traffic.setdefault(address, []).append((now, came, went))

    def act(self, what: str, one: int, other: int) -> None:
        """Do one of the things that anybody on the network can do."""
        whose, number = one % 2, self._numbers[one % 2]
        place = self._at[whose] if other < 6 else other % 3
        nonce = self._nonces[whose]
        if what == "join":
            self._nonces[whose] += 2
            self._at[whose] = other % 3
            self.say(self._codec.encode_join(nonce + 2, number), whose, other % 3)
        elif what in ("rejoin", "moved"):
            where = place if what == "rejoin" else other % 3
            self.say(self._codec.encode_join(nonce, number), whose, where)
        elif what == "secret":
            self._at[whose] = other % 3
            secret = self._secrets[whose + 1]
            self.say(self._codec.encode_join(nonce, number, secret=secret), whose, other % 3)
        elif what == "short":
            join = self._codec.encode_join(nonce + 2, number)
            self._nonces[whose] += 2
            self.say(join[: self._codec.join_size - other], whose, place)
        elif what == "wrong":
            self.say(self._codec.encode_join(nonce, number, fingerprint=7)[:22], whose, place)
        elif what in ("move", "stale"):
            self._numbers[whose] += what == "move"
            self._moved[whose] = self._numbers[whose]
            values = (float(one), float(other))
            self.say(self._codec.encode_move(self._numbers[whose], values), whose, place)
        elif what == "delta":
            self._numbers[whose] += 1
            base = self._moved[whose]
            delta = self._deltas.encode(number + 1, base, (0.0, 0.0), (0.0, 0.0))
            if delta is not None:
                self.say(delta, whose, place)
        elif what == "ping":
            self.say(encode_numbered(PING, number), whose, place)
        elif what == "leave":
            self.say(encode_numbered(LEAVE, number), whose, place)
        elif what == "again":
            self._bring(*self._last)
        elif what == "kick":
            self._case.gateway.kick(whose + 1).addErrback(lambda failure: None)
            self.listen()
        elif what == "program":
            with contextlib.suppress(NotOnline):
                self._case.service.update(whose + 1, self._state(float(one), 3.0))
        elif what == "many":
            self._at_once(whose, place, other)
        else:
            self.wait((one + 1) * (other + 1) * 2)

    def _at_once(self, whose: int, place: int, count: int) -> None:
        """Several MOVEs that wait in the socket together."""
        head = struct.pack("<QI", whose + 1, self._nonces[whose])
        datagrams = []
        for _ in range(count + 1):
            self._numbers[whose] += 1
            datagrams.append(head + self._codec.encode_move(self._numbers[whose], (1.0, 2.0)))
        self._note(ADDRESSES[place], sum(map(len, datagrams)), 0)
        self._port.receive_many(datagrams, [ADDRESSES[place]] * len(datagrams))
        self.listen()

    def wait(self, steps: int) -> None:
        """Let time pass."""
        for _ in range(steps):
            self._case.stepped.reactor.advance(STEP)
            self._case.stepped.settle()
            self.listen()

    def check(self) -> None:
        """No address got more than it sent, from the beginning on and over any second."""
        for address, traffic in self._traffic.items():
            balance = 0
            for number, (start, came, went) in enumerate(traffic):
                balance += came - went
                self._case.assertGreaterEqual(balance, 0, (address, traffic[: number + 1]))
                second = [each for each in traffic[number:] if each[0] < start + 1.0]
                sent, paid = sum(each[2] for each in second), sum(each[1] for each in second)
                self._case.assertLessEqual(sent, paid + 2 * IN_HAND, (address, second))


class HonestTests(PlayingTestCase):
    """Who plays learns what is applied and what is saved."""

    def test_lone_moves(self) -> None:
        """A player who moves once and waits learns that it is saved, each time."""
        for way in ("plain", "encrypted"):
            game = self.game()
            player = getattr(game, way)()
            player.join()
            game.pass_time(1.0)
            for number in range(1, 6):
                player.move(PlayerState(float(number), 0.0))
                game.pass_time(0.5)
                self.assertEqual(player.progress.applied, number)
                game.pass_time(PING_AFTER + 0.5)
                self.assertEqual(player.progress.saved, number)

    def test_deltas(self) -> None:
        """Who plays by DELTAs, which are short, hears of them as often as they pay for."""
        game = self.game(state=Grid)
        player = game.plain()
        player.join()
        game.pass_time(1.0)
        sent = game.gateway.service.ledger.receipts
        for number in range(100):
            player.move(Grid(350.0 + number / 64, 200.0))
            game.pass_time(3 / 64)
        self.assertGreater(game.gateway.service.ledger.receipts - sent, 35)

    def test_pauses(self) -> None:
        """Who stops after some moves learns without a word that all is saved, each time."""
        for pace in (1, 3, 13):  # steps of a 64th of a second
            game = self.game()
            player = game.plain()
            player.join()
            game.pass_time(1.0)
            for _ in range(3):
                for number in range(40):
                    player.move(PlayerState(float(number), 0.0))
                    game.pass_time(pace / 64)
                game.pass_time(PING_AFTER - 1.0)
                self.assertEqual(player.progress.saved, player.progress.applied)


class AnswersTests(GatewayTestCase):
    """Everything that a client, or somebody who forges its address, can ask for."""

    def meter(self, state: type = Grid, **options: Any) -> Meter:
        """A meter at a fresh server."""
        self.open(state=state, save_within=0.2, batch_min=2, **options)
        return Meter(self, state)

    def stop(self, meter: Meter) -> None:
        """Stop the server, which tells everybody, and look back."""
        self.plain.stopService()
        meter.wait(250)
        meter.check()

    def test_mixes(self) -> None:
        """Whatever is sent in whatever order, and a stop at the end."""

        @settings(
            max_examples=150,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(_ACT, min_size=3, max_size=40))
        def play(acts: list[tuple[str, int, int]]) -> None:
            meter = self.meter(idle_timeout=2.0)
            for act in acts:
                meter.act(*act)
            meter.wait(250)
            self.stop(meter)

        play()

    def test_many(self) -> None:
        """Moves that are taken in together pay as one alone does."""
        self.open(batch_min=2)
        clients = [self.joined(number, host=number) for number in range(1, 5)]
        for sequence in range(1, 12):
            move = struct.pack("<BIdd", 2, sequence, 1.0, 2.0)
            datagrams = [client.framed(move) for client in clients]
            self.port.receive_many(datagrams, [client.address for client in clients])
            self.advance(0.1)
        self.advance(4.0)
        for client in clients:
            receipts = client.receipts()
            self.assertEqual(receipts[-1], (11, 11))
            self.assertGreater(len(receipts), 8)
            self.assertLessEqual(len(receipts), 12)

    def test_program(self) -> None:
        """What the program around the server does brings no more than was paid for from there."""
        self.open()
        client = self.joined()
        for whence, most in (("there", 3), ("elsewhere", 1), ("anew", 1)):
            for number in range(20):
                client.move(self.service.progress(42).applied + 1, float(number))
                self.advance(0.05 if number < 15 else 0.0)
            if whence != "there":
                client.address = ("192.0.2.9", len(whence))
                nonce = 1 if whence == "elsewhere" else 2
                client.join(nonce, secret=client.secret if nonce == 1 else 0)
            client.heard()
            first = self.service.progress(42).applied + 1
            for sequence in range(first, first + 30):
                move(self.service, 42, sequence, (float(sequence), 0.0))
                self.advance(0.2)
            self.assertEqual(len(client.receipts()), most, whence)

    def test_storms(self) -> None:
        """One kind, or two in turn, for some seconds at any pace."""
        storms = (
            ["move"],
            ["delta"],
            ["ping"],
            ["leave"],
            ["join"],
            ["move", "ping"],
            ["join", "leave"],
            ["join", "move", "leave"],
            ["join", "move", "kick"],
            ["moved"],
            ["secret", "move"],
            ["secret", "delta", "delta"],
            ["program"],
            ["move", "program", "program"],
        )
        for storm in storms:
            for pace in (1, 11, 60):
                meter = self.meter()
                meter.act("join", 0, 0)
                meter.wait(20)
                for number in range(max(240 // pace, 20)):
                    for what in storm:
                        meter.act(what, 0, number % 3 if what in ("join", "secret") else 0)
                    meter.wait(pace)
                self.stop(meter)
