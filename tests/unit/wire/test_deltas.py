"""DELTA: its bytes, what it restores, and what it saves on real and simulated movement."""

from __future__ import annotations

import csv
import math
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate import StateSchema, text, within
from playerstate.client import MOVE_EVERY, Client, Phase
from playerstate.client.core import MOVES_REMEMBERED
from playerstate.conversations.gateway import Gateway
from playerstate.testing import SteppedService
from playerstate.transports.plain import PlainService
from playerstate.wire.deltas import BASE_WITHIN, Delta, DeltaCodec
from playerstate.wire.messages import DELTA, MOVE, Codec, Malformed
from tests.kit.players import GatewayTestCase, at
from tests.kit.support import LAW

TRACKS = Path(__file__).parents[4] / "shared" / "data" / "real-tracks.csv"
RESOLUTION = 1 / 64


@attrs.frozen
class Walker:
    """Two coordinates on a grid."""

    x: float = attrs.field(default=0.0, metadata=within(-4096, 4096, resolution=RESOLUTION))
    y: float = attrs.field(default=0.0, metadata=within(-4096, 4096, resolution=RESOLUTION))


@attrs.frozen
class Avatar:
    """A field of each kind, two of them on grids."""

    x: float = attrs.field(default=0.0, metadata=within(-10, 10, resolution=0.25))
    hp: int = 100
    angle: float = attrs.field(default=0.0, metadata=within(0, 1, resolution=0.3))
    zone: str = attrs.field(default="spawn", metadata=text(8))


WALKER = StateSchema.of(Walker)
AVATAR = StateSchema.of(Avatar)
CODEC = DeltaCodec(WALKER)
AVATARS = DeltaCodec(AVATAR)
ORIGIN = (0.0, 0.0)
SPAWN = b"spawn\0\0\0"


class BytesTests(SynchronousTestCase):
    """The bytes of the wire format, written out."""

    def test_encode(self) -> None:
        """Type, 16 bits of the sequence, 8 of the base's, zigzag steps of 1/64."""
        for values, entries in (
            ((0.0, 0.0), "00 00"),
            ((1 / 64, -1 / 64), "02 01"),
            ((1.0, -1.0), "8001 7f"),
            ((63 / 64, -64 / 64), "7e 7f"),
            ((4096.0, -4096.0), "808020 ffff1f"),
        ):
            message = CODEC.encode(0x12345, 0x12344, ORIGIN, values)
            assert message is not None
            self.assertEqual(message.hex(), bytes.fromhex("05 4523 44" + entries).hex())

    def test_in_full(self) -> None:
        """A field without a resolution goes in full, as in a MOVE."""
        message = AVATARS.encode(7, 5, (0.0, 1, 0.0, SPAWN), (0.5, -2, 0.3, b"mill\0\0\0\0"))
        expected = bytes.fromhex("05 0700 05 04 feffffffffffffff 02") + b"mill\0\0\0\0"
        self.assertEqual(message, expected)

    def test_decode(self) -> None:
        """The same read again, at any place."""
        message = b"prefix" + bytes.fromhex("05 4523 44 8001 01")
        self.assertEqual(CODEC.decode(message, 6), Delta(0x2345, 0x44, (64, -1)))

    def test_base_too_far_back(self) -> None:
        """A base whose low 8 bits would name another is none."""
        self.assertIsNotNone(CODEC.encode(BASE_WITHIN, 1, ORIGIN, ORIGIN))
        self.assertIsNone(CODEC.encode(BASE_WITHIN + 1, 1, ORIGIN, ORIGIN))
        self.assertIsNone(CODEC.encode(5, 5, ORIGIN, ORIGIN))

    def test_off_the_grid(self) -> None:
        """A value that the grid does not have cannot be said by steps."""
        self.assertIsNone(CODEC.encode(2, 1, ORIGIN, (0.001, 0.0)))

    def test_malformed(self) -> None:
        """What cannot be read says why."""
        for tail, reason in (
            ("", "too_short"),
            ("00", "too_short"),
            ("00 80", "too_short"),
            ("00 00 00", "too_long"),
            ("00 " + "ff" * 9 + "7f", "value"),
            ("00 " + "80" * 10 + "00", "value"),
        ):
            with self.assertRaises(Malformed) as caught:
                CODEC.decode(bytes.fromhex("05 0100 00" + tail))
            self.assertEqual(caught.exception.reason, reason, tail)
        with self.assertRaises(Malformed) as caught:
            AVATARS.decode(bytes.fromhex("05 0100 00 00 00"))
        self.assertEqual(caught.exception.reason, "too_short")

    def test_longest_step(self) -> None:
        """A step takes 64 bits at most, and far too many lead out of every field."""
        delta = CODEC.decode(bytes.fromhex("05 0100 00 00" + "ff" * 9 + "01"))
        self.assertEqual(delta.entries, (0, -(2**63)))
        self.assertRaises(Malformed, CODEC.restore, delta, ORIGIN)

    def test_out_of_bounds(self) -> None:
        """A value outside its field is refused as in a MOVE; -0.0 is taken in as 0.0."""
        self.assertRaises(Malformed, CODEC.restore, Delta(1, 0, (64 * 4096 + 1, 0)), ORIGIN)
        restored = CODEC.restore(Delta(1, 0, (-64, 0)), (1.0, 0.0))
        self.assertEqual(math.copysign(1.0, restored[0]), 1.0)

    def test_numbers(self) -> None:
        """The sequence is the one nearest to the highest, the base the one nearest below it."""
        for low, highest, whole in (
            (0x0001, 0x0000, 0x0001),
            (0x0001, 0xFFFF, 0x10001),
            (0xFFFF, 0x10001, 0xFFFF),
            (0x7FFF, 0x10000, 0x17FFF),
            (0x8001, 0x10000, 0x8001),
        ):
            self.assertEqual(Delta(low, 0, ()).sequence_after(highest), whole, (low, highest))
        self.assertEqual(Delta(0, 0xFE, ()).base_of(0x101), 0xFE)
        self.assertEqual(Delta(0, 0x01, ()).base_of(0x101), 0x101)


coordinates = st.floats(-4096, 4096)


class LawTests(SynchronousTestCase):
    """What a DELTA restores is what was sent."""

    @settings(LAW, max_examples=300)
    @given(
        base=st.tuples(coordinates, coordinates),
        place=st.tuples(coordinates, coordinates),
        number=st.integers(1, 2**32 - 1),
        back=st.integers(1, 255),
    )
    def test_restored(
        self, base: tuple[float, float], place: tuple[float, float], number: int, back: int
    ) -> None:
        """Any place on the grid, from any base on it or beside it."""
        place = CODEC.snap(place)
        message = CODEC.encode(number, number - back, base, place)
        assert message is not None
        delta = CODEC.decode(message)
        self.assertEqual(delta.sequence_after(number - 1), number)
        self.assertEqual(delta.base_of(number), number - back)
        self.assertEqual(CODEC.restore(delta, base), place)

    @settings(LAW, max_examples=300)
    @given(x=st.floats(-10, 10), angle=st.floats(0, 1))
    def test_snap(self, x: float, angle: float) -> None:
        """A snapped value is within half a step, within its bounds, and stays where it is."""
        values = AVATARS.snap((x, 1, angle, SPAWN))
        self.assertLessEqual(abs(values[0] - x), 0.125)
        self.assertLessEqual(abs(values[2] - angle), 0.3)
        self.assertEqual(AVATAR.accept(*values), values)
        self.assertEqual(AVATARS.snap(values), values)

    def test_snap_at_bounds_off_the_grid(self) -> None:
        """At a bound that the grid does not have, it is the grid's last value before it."""
        field = attrs.field(default=0.5, type=float, metadata=within(0.1, 1.1, resolution=0.3))
        codec = DeltaCodec(StateSchema.of(attrs.make_class("Between", {"x": field})))
        for given_x, x in ((0.1, 0.3), (0.14, 0.3), (0.5, 0.6), (1.04, 0.9), (1.1, 0.9)):
            self.assertAlmostEqual(codec.snap((given_x,))[0], x)

    def test_snap_to_zero(self) -> None:
        """What is nearest to 0 becomes 0.0, and never the negative zero that no state has."""
        for x in (-0.0, -1e-300, -0.1, 0.1):
            self.assertEqual(math.copysign(1.0, AVATARS.snap((x, 1, 0.0, SPAWN))[0]), 1.0)

    @settings(LAW, max_examples=300)
    @given(tail=st.binary(max_size=30))
    def test_noise(self, tail: bytes) -> None:
        """Anything is read, or malformed; what is read restores to a state, or is malformed."""
        for codec, base in ((CODEC, ORIGIN), (AVATARS, (0.0, 1, 0.0, SPAWN))):
            try:
                delta = codec.decode(bytes((DELTA,)) + tail)
                codec.restore(delta, base)
            except Malformed:
                continue


class GatewayTests(GatewayTestCase):
    """DELTAs on their way into the table, for the default state: fields in full."""

    def setUp(self) -> None:
        """A player whose MOVE 5 was shown as applied."""
        super().setUp()
        self.open()
        self.player = self.joined(1)
        self.player.move(5, 1.0, 2.0)
        self.show()

    def show(self) -> None:
        """Let a RECEIPT be sent."""
        self.stepped.reactor.advance(0.2)
        self.player.heard()

    def delta(self, sequence: int, base: int, x: float, y: float = 0.0) -> None:
        """Send a DELTA."""
        head = struct.pack("<BHB", DELTA, sequence & 0xFFFF, base & 0xFF)
        self.player.send(head + struct.pack("<dd", x, y))

    def applied(self) -> int:
        """The highest number applied."""
        return self.service.progress(1).applied

    def test_applied(self) -> None:
        """A DELTA from a state that was shown is applied like a MOVE."""
        self.delta(6, 5, 3.0)
        self.assertEqual((self.applied(), self.service.state(1)), (6, at(3.0)))
        self.assertEqual(self.books.applied, 2)

    def test_stale(self) -> None:
        """One that is not above the highest applied is stale, whatever its base."""
        self.delta(5, 4, 3.0)
        self.delta(4, 3, 3.0)
        self.assertEqual((self.books.stale, self.applied()), (2, 5))
        self.assertEqual(self.service.state(1), at(1.0, 2.0))

    def test_unknown_base(self) -> None:
        """One whose base was never shown is refused, and changes nothing."""
        self.player.move(6, 9.0)
        self.delta(7, 6, 3.0)  # applied, but not shown
        self.delta(7, 4, 3.0)
        self.assertEqual(self.books.rejected, {"unknown_base": 2})
        self.assertEqual(self.service.state(1), at(9.0))

    def test_last_two(self) -> None:
        """The last two states shown are bases, and none before them."""
        for sequence in (6, 7):
            self.player.move(sequence, float(sequence))
            self.show()
        self.delta(8, 6, 3.0)
        self.delta(9, 7, 4.0)
        self.delta(10, 5, 5.0)
        self.assertEqual((self.applied(), self.books.rejected), (9, {"unknown_base": 1}))

    def test_shown_again(self) -> None:
        """A state shown twice takes the place of no other."""
        self.player.move(6, 6.0)
        self.show()
        for _ in range(2):
            self.player.ping(6)
            self.show()
        self.delta(7, 5, 3.0)
        self.assertEqual(self.applied(), 7)

    def test_delta_is_no_base(self) -> None:
        """A state that came by a DELTA is none, though it was shown."""
        self.delta(6, 5, 3.0)
        self.show()
        self.delta(7, 6, 4.0)
        self.assertEqual(self.books.rejected, {"unknown_base": 1})

    def test_corrected(self) -> None:
        """A state that the program has changed since is none: the client has another."""
        self.player.move(6, 6.0)
        self.service.update(1, at(7.0))
        self.stepped.reactor.advance(0.2)
        ((_, number, *_),) = self.player.states()
        self.player.seen(number, 6)
        self.delta(7, 6, 4.0)
        self.assertEqual(self.books.rejected, {"unknown_base": 1})
        self.player.move(8, 8.0)
        self.show()
        self.delta(9, 8, 4.0)
        self.assertEqual(self.applied(), 9)

    def test_number_of_the_join(self) -> None:
        """The state that a conversation begins with is none."""
        self.player.join(nonce=9, sequence=5)
        self.player.ping(5)
        self.show()
        self.delta(6, 5, 3.0)
        self.assertEqual(self.books.rejected, {"unknown_base": 1})

    def test_number_of_the_programs_join(self) -> None:
        """Nor is the state that a number stands for which the program gave, but a MOVE's is."""
        self.service.join(1, sequence=3)
        self.show()
        self.delta(4, 3, 3.0)
        self.player.move(5, 5.0)
        self.show()
        self.delta(6, 5, 3.0)
        self.assertEqual((self.applied(), self.books.rejected), (6, {"unknown_base": 1}))

    def test_joined_again_by_the_program(self) -> None:
        """A join that leaves the number alone makes no base of what was none."""
        self.player.move(6, 6.0)
        self.service.update(1, at(7.0))
        self.service.join(1)
        self.show()
        self.delta(7, 6, 4.0)
        self.assertEqual(self.books.rejected, {"unknown_base": 1})

    def test_number_again(self) -> None:
        """A MOVE's state is one, though a DELTA bore its number before the program's join."""
        self.delta(6, 5, 3.0)
        self.service.join(1, sequence=0)
        self.player.move(6, 6.0)
        self.show()
        self.delta(7, 6, 4.0)
        self.assertEqual((self.applied(), self.books.rejected), (7, {}))

    def test_leaving(self) -> None:
        """One above the LEAVE's number is refused, one up to it applied."""
        self.player.leave(6)
        self.delta(7, 5, 3.0)
        self.delta(6, 5, 4.0)
        self.assertEqual(self.books.rejected, {"leaving": 1})
        self.assertEqual(self.applied(), 6)

    def test_not_joined(self) -> None:
        """From nobody, or from elsewhere, it is refused like a MOVE."""
        stranger = self.client(1, host=9)
        head = struct.pack("<BHBdd", DELTA, 6, 5, 3.0, 0.0)
        stranger.send(head)
        self.client(2, host=2).send(head)
        self.assertEqual(self.books.rejected, {"other_address": 1, "not_joined": 1})

    def test_taken_offline(self) -> None:
        """The DELTAs of a player whom the program took offline are refused."""
        self.player.heard()
        self.service.leave(1)
        self.assertEqual([answer[0] for answer in self.player.heard()], ["gone"])
        self.delta(6, 5, 3.0)
        self.assertEqual(self.player.heard(), [])
        self.assertEqual(self.books.rejected, {"not_joined": 1})

    def test_malformed(self) -> None:
        """Bad bytes and values are counted as such, and change nothing."""
        self.player.send(struct.pack("<BHBd", DELTA, 6, 5, 3.0))
        self.delta(6, 5, math.nan)
        self.assertEqual(self.books.malformed, {"too_short": 1, "value": 1})
        self.assertEqual(self.applied(), 5)

    def test_last_numbers(self) -> None:
        """The highest numbers there are."""
        top = 2**32 - 1
        self.player.move(top - 1, 1.0)
        self.show()
        self.delta(top, top - 1, 2.0)
        self.assertEqual(self.applied(), top)
        self.delta(0, top - 1, 3.0)
        self.assertEqual(self.books.malformed, {"value": 1})


class WayTests(SynchronousTestCase):
    """Clients with DELTAs and a server, over a network that loses, delays and reorders."""

    def ways(self) -> Iterator[tuple[str, dict[int, list[tuple[float, float]]]]]:
        """Movement at 20 Hz, by player."""
        source = random.Random(3)
        walks: dict[int, list[tuple[float, float]]] = {}
        for player in range(1, 9):
            x = y = 0.0
            heading, walk = source.uniform(0, math.tau), []
            for _ in range(300):
                heading += source.gauss(0.0, 0.2)
                x, y = x + 0.25 * math.cos(heading), y + 0.25 * math.sin(heading)
                walk.append((x, y))
            walks[player] = walk
        yield "walks", walks
        if TRACKS.exists():
            yield "tracks", read_tracks()

    def test_bytes_and_places(self) -> None:
        """At no, little and much loss: 45 % of the bytes of MOVEs, and each place exact."""
        for name, ways in self.ways():
            for loss in (0.0, 0.05, 0.2):
                rehearsal = Rehearsal(ways, loss)
                share = rehearsal.run()
                rehearsal.close()
                self.assertLessEqual(share, 0.45, f"{name} at {loss:.0%} loss")

    def test_real_tracks(self) -> None:
        """The real tracks are there, where the data is."""
        if not TRACKS.exists():
            raise SkipTest("no real tracks beside the checkout")
        self.assertEqual(len(read_tracks()), 22)


def read_tracks() -> dict[int, list[tuple[float, float]]]:
    """Real movement at 20 Hz, by player."""
    tracks: dict[int, list[tuple[float, float]]] = {}
    with TRACKS.open() as file:
        for row in csv.DictReader(file):
            tracks.setdefault(int(row["session_id"]), []).append((float(row["x"]), float(row["y"])))
    return tracks


class Rehearsal:
    """Players who walk their ways, with DELTAs, through a bad network.

    Args:
        ways: where each is at every step.
        loss: the share of datagrams that is lost, each way; what arrives may be overtaken.
    """

    STEP = 0.05

    def __init__(self, ways: dict[int, list[tuple[float, float]]], loss: float) -> None:
        self._ways = ways
        self._loss = loss
        self._random = random.Random(7)
        self._stepped = SteppedService(Walker)
        PlainService(
            Gateway(self._stepped.service, jitter=self._random.random),
            1,
            reactor=self._stepped.reactor,
        ).startService()
        self._port = self._stepped.reactor.ports[1]
        codec, deltas = Codec(WALKER), DeltaCodec(WALKER)
        self._clients = {
            player: Client(codec, lambda: self._random.getrandbits(32), deltas=deltas)
            for player in ways
        }
        self._sent: dict[int, dict[int, tuple[Any, ...]]] = {player: {} for player in ways}
        self._air: list[tuple[float, int, bytes, bool]] = []
        self._bytes = self._as_moves = self._deltas = 0
        self._seen: dict[int, int] = {}

    def run(self) -> float:
        """Bytes of MOVEs, DELTAs and PINGs, as a share of those that MOVEs alone would take."""
        for client in self._clients.values():
            client.join(self._now)
        while any(client.phase is Phase.JOINING for client in self._clients.values()):
            self._pass()
        for step in range(max(map(len, self._ways.values()))):
            for player, way in self._ways.items():
                if step < len(way):
                    self._move(player, way[step])
            self._pass()
        self._stepped.service.flush()
        self._stepped.settle()
        assert self._deltas > 0
        assert self._stepped.service.ledger.snapshot().imbalance() == []
        return self._bytes / self._as_moves

    def close(self) -> None:
        """Let go of what the system gave."""
        self._port.getHandle().close()

    @property
    def _now(self) -> float:
        return self._stepped.reactor.seconds()

    def _move(self, player: int, place: tuple[float, float]) -> None:
        client = self._clients[player]
        message = client.move(WALKER.accept(*place), self._now)
        self._sent[player][client.sequence] = client.values
        self._deltas += message[0] == DELTA
        self._as_moves += Codec(WALKER).move_size
        assert message[0] in (MOVE, DELTA)
        self._send(player, message, True)

    def _send(self, player: int, message: bytes, to_server: bool) -> None:
        if to_server and message[0] != 0x01:
            self._bytes += len(message)
        if self._random.random() >= self._loss:
            due = self._now + self._random.choice((0.005, 0.01, 0.03, 0.08))
            self._air.append((due, player, message, to_server))

    def _pass(self) -> None:
        """One step of time."""
        for _ in range(5):
            self._stepped.reactor.advance(self.STEP / 5)
            for player, client in self._clients.items():
                for message in client.due(self._now):
                    self._send(player, message, True)
            for datagram, _ in self._port.take():
                self._send(struct.unpack_from("<Q", datagram)[0], datagram[12:], False)
            arrived = sorted(entry for entry in self._air if entry[0] <= self._now)
            self._air = [entry for entry in self._air if entry[0] > self._now]
            for _, player, message, to_server in arrived:
                if to_server:
                    self._port.receive(
                        struct.pack("<QI", player, self._clients[player].nonce) + message,
                        ("192.0.2.1", player),
                    )
                    self._compare(player)
                else:
                    self._clients[player].received(message, self._now)

    def _compare(self, player: int) -> None:
        """Whatever was applied last is what was sent under that number, to the last bit."""
        service = self._stepped.service
        if player not in service.table.slots:
            return
        sequence = service.progress(player).applied
        if sequence in self._sent[player]:
            state = WALKER.values(service.state(player))
            assert state == self._sent[player][sequence], (player, sequence)


class ClientTests(SynchronousTestCase):
    """When a client sends which."""

    def setUp(self) -> None:
        """A client that is online."""
        self.codec = Codec(WALKER)
        self.client = Client(self.codec, lambda: 7, deltas=DeltaCodec(WALKER))
        self.client.join(0.0)
        self.client.due(0.0)
        self.client.received(self.codec.encode_welcome(7, 0, (0.0, 0.0)), 0.0)

    def kinds(self, *times: float) -> list[int]:
        """Move at these times; the types of what was sent."""
        return [self.client.move((time, time), time)[0] for time in times]

    def receipt(self, applied: int, now: float) -> None:
        """The server shows this number as applied."""
        self.client.received(struct.pack("<BII", 0x82, applied, 0), now)

    def test_until_a_base(self) -> None:
        """MOVEs until one of them was shown as applied, then DELTAs."""
        self.assertEqual(self.kinds(0.0, 0.1), [MOVE, MOVE])
        self.receipt(1, 0.15)
        self.assertEqual(self.kinds(0.2, 0.3), [DELTA, DELTA])

    def test_number_of_a_delta(self) -> None:
        """A RECEIPT that shows a DELTA's number makes no base."""
        self.kinds(0.0)
        self.receipt(1, 0.1)
        self.kinds(0.2)
        self.receipt(2, 0.3)
        message = self.client.move((1.0, 1.0), 0.4)
        self.assertEqual(message[3], 1)

    def test_move_at_least_each_second(self) -> None:
        """A MOVE comes at least each second."""
        self.kinds(0.0)
        self.receipt(1, 0.1)
        kinds = self.kinds(*(0.1 * step for step in range(2, 32)))
        self.assertEqual(kinds.count(MOVE), 3)
        self.assertEqual(kinds[8], MOVE)
        self.assertEqual(MOVE_EVERY, 1.0)

    def test_step_that_does_not_fit(self) -> None:
        """Where a DELTA is no shorter, or the base too far back, it is a MOVE."""
        self.kinds(0.0)
        self.receipt(1, 0.1)
        far = self.client.move((1e9, 1e9), 0.2)
        self.assertEqual(far[0], DELTA)
        lost = self.client.move((1e300, -1e300), 0.2)
        self.assertEqual(lost[0], MOVE)
        self.client.sequence += 300
        self.assertEqual(self.kinds(0.3), [MOVE])

    def test_on_the_grid(self) -> None:
        """The client knows its place on the grid, whichever goes out."""
        self.client.move((0.01, 1.0), 0.0)
        self.assertEqual(self.client.values, (1 / 64, 1.0))

    def test_fresh_conversation(self) -> None:
        """Another conversation has no base of the one before."""
        self.kinds(0.0)
        self.receipt(1, 0.1)
        self.client.join(0.2)
        self.client.due(0.2)
        self.client.received(self.codec.encode_welcome(7, 0, (0.0, 0.0)), 0.3)
        self.receipt(1, 0.35)
        self.assertEqual(self.kinds(0.4, 0.5), [MOVE, MOVE])

    def test_unshown_move_of_before(self) -> None:
        """Nor does a RECEIPT make a base of a MOVE that the conversation before never saw shown."""
        self.kinds(0.0)
        self.client.join(0.2)
        self.client.due(0.2)
        self.client.received(self.codec.encode_welcome(7, 0, (0.0, 0.0)), 0.3)
        self.receipt(1, 0.35)
        self.assertEqual(self.kinds(0.4, 0.5), [MOVE, MOVE])

    def test_older_receipt(self) -> None:
        """A RECEIPT that was overtaken does not bring an older base back."""
        self.kinds(0.0, 0.1)
        self.receipt(2, 0.15)
        self.receipt(1, 0.16)
        message = self.client.move((1.0, 1.0), 0.2)
        self.assertEqual((message[0], message[3]), (DELTA, 2))

    def test_moves_are_bounded(self) -> None:
        """So many MOVEs may become a base, however many are not shown; the first is forgotten."""
        for shown, kind in ((1, MOVE), (2, DELTA)):
            self.setUp()
            self.kinds(*[0.0] * (MOVES_REMEMBERED + 1))
            self.receipt(shown, 0.1)
            self.assertEqual(self.kinds(0.2), [kind])

    def test_without_deltas(self) -> None:
        """A client that was given none sends MOVEs only, and keeps its values as they are."""
        client = Client(self.codec, lambda: 7)
        client.join(0.0)
        client.received(self.codec.encode_welcome(7, 0, (0.0, 0.0)), 0.0)
        self.assertEqual(client.move((0.01, 1.0), 0.0)[0], MOVE)
        self.assertEqual(client.values, (0.01, 1.0))
