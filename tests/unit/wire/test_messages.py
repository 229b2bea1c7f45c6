"""The messages, byte for byte as the wire format says, and what is not one."""

from __future__ import annotations

import math
import struct
import sys
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema, text, within
from playerstate.wire.messages import (
    DELTA,
    GONE,
    JOIN,
    LEAVE,
    MAX_JOIN_SIZE,
    MAX_SEQUENCE,
    MOVE,
    PING,
    RECEIPT,
    REFUSED,
    SEEN,
    STATE,
    VERSION,
    WELCOME,
    Codec,
    Gone,
    GoneReason,
    Join,
    Malformed,
    Receipt,
    Refused,
    RefusedReason,
    Seen,
    State,
    Welcome,
    decode_join,
    decode_numbered,
    encode_gone,
    encode_numbered,
    encode_receipt,
    encode_refused,
    encode_state,
    receipts_for,
)
from tests.kit.kinds import plain_values, schemas
from tests.kit.support import LAW, Everything
from tests.kit.wire import ClientCodec, Leave, Move, Ping

PLAIN = StateSchema.of(PlayerState)
CODEC = ClientCodec(PLAIN)

EVERYTHING = StateSchema.of(Everything)
WIDE_CODEC = ClientCodec(EVERYTHING)

XY = bytes.fromhex("000000000000f83f 00000000000004c0")
"""The fields x = 1.5 and y = -2.5."""

EVERY_FIELD = bytes.fromhex(
    "000000000000f83f"  # x = 1.5
    "feffffffffffffff"  # hp = -2
    "01"  # alive
    "c3a9746100000000 0000000000000000"  # zone = "éta"
    "000000000000d0bf"  # angle = -0.25
)
EVERY_VALUE = (1.5, -2, 1, b"\xc3\xa9ta" + bytes(12), -0.25)

PREFIX = bytes.fromhex("2a00000000000000")
"""What the plain transport sets before a message."""


@attrs.frozen
class Bounded:
    """Numbers with bounds."""

    x: float = attrs.field(default=0.0, metadata=within(-10, 10))
    hp: int = attrs.field(default=0, metadata=within(0, 100))


BOUNDED = ClientCodec(StateSchema.of(Bounded))


def refusal(decode: Any, *arguments: Any) -> str:
    """The reason under which the bytes are counted."""
    try:
        decode(*arguments)
    except Malformed as error:
        return error.reason
    raise AssertionError(f"taken for a message: {arguments!r}")


class BytesTests(SynchronousTestCase):
    """Each message against bytes written out by hand."""

    def test_types(self) -> None:
        """The type bytes are those of version 1."""
        self.assertEqual(VERSION, 1)
        self.assertEqual((JOIN, MOVE, LEAVE, PING, DELTA, SEEN), (1, 2, 3, 4, 5, 6))
        self.assertEqual((WELCOME, RECEIPT, REFUSED, GONE, STATE), (0x81, 0x82, 0x83, 0x84, 0x85))

    def test_reasons(self) -> None:
        """The reasons are numbered as the wire format numbers them."""
        self.assertEqual(
            {reason.name: reason.value for reason in RefusedReason},
            {"FULL": 1, "VERSION": 2, "FINGERPRINT": 3, "SHUTTING_DOWN": 4, "STORE": 5},
        )
        self.assertEqual(
            {reason.name: reason.value for reason in GoneReason},
            {"KICKED": 1, "IDLE": 2, "JOINED_ELSEWHERE": 3, "SHUTTING_DOWN": 4},
        )

    def test_encode_join(self) -> None:
        """A JOIN bears version, fingerprint, nonce and sequence, and zeros up to a WELCOME."""
        self.assertEqual(
            CODEC.encode_join(0xAABBCCDD, 0x01020304),
            bytes.fromhex("01 01 225fa0c9 ddccbbaa 04030201 0000000000000000") + bytes(226),
        )

    def test_encode_join_unchecked(self) -> None:
        """A JOIN may be told another fingerprint, 0 among them."""
        self.assertEqual(
            CODEC.encode_join(1, 2, fingerprint=0),
            bytes.fromhex("01 01 00000000 01000000 02000000 0000000000000000") + bytes(226),
        )

    def test_decode_join(self) -> None:
        """A JOIN is read with the number of its bytes; what it is padded with is not looked at."""
        data = bytes.fromhex("01 07 0df0adde ddccbbaa 04030201 0900000000000000 ffffff")
        expected = Join(7, 0xDEADF00D, 0xAABBCCDD, 0x01020304, 25, 9)
        self.assertEqual(CODEC.decode_client(data), expected)
        self.assertEqual(decode_join(PREFIX + data, 8), expected)

    def test_encode_move(self) -> None:
        """A MOVE bears its sequence and the fields."""
        self.assertEqual(
            CODEC.encode_move(0x01020304, (1.5, -2.5)), bytes.fromhex("02 04030201") + XY
        )

    def test_encode_move_of_every_kind(self) -> None:
        """Floats take 8 bytes, ints 8, bools 1, texts their size; nothing lies between them."""
        self.assertEqual(
            WIDE_CODEC.encode_move(1, EVERY_VALUE), bytes.fromhex("02 01000000") + EVERY_FIELD
        )

    def test_decode_move(self) -> None:
        """A MOVE is read to its sequence and accepted values."""
        data = bytes.fromhex("02 ffffffff") + XY
        self.assertEqual(CODEC.decode_client(data), Move(MAX_SEQUENCE, (1.5, -2.5)))
        self.assertEqual(CODEC.decode_move(PREFIX + data, 8), (MAX_SEQUENCE, (1.5, -2.5)))

    def test_decode_move_of_every_kind(self) -> None:
        """A MOVE's bools come as 0 or 1 and its texts as their padded bytes."""
        data = bytes.fromhex("02 01000000") + EVERY_FIELD
        self.assertEqual(WIDE_CODEC.decode_client(data), Move(1, EVERY_VALUE))

    def test_leave(self) -> None:
        """A LEAVE bears a sequence."""
        data = bytes.fromhex("03 04030201") + bytes(31)
        self.assertEqual(encode_numbered(LEAVE, 0x01020304), data)
        self.assertEqual(CODEC.decode_client(data), Leave(0x01020304))

    def test_ping(self) -> None:
        """A PING bears a sequence."""
        data = bytes.fromhex("04 04030201") + bytes(4)
        self.assertEqual(encode_numbered(PING, 0x01020304), data)
        self.assertEqual(CODEC.decode_client(data), Ping(0x01020304))

    def test_seen(self) -> None:
        """A SEEN bears a STATE's number and a sequence."""
        data = bytes.fromhex("06 0807060504030201 0c0b0a09") + bytes(13)
        self.assertEqual(CODEC.encode_seen(0x0102030405060708, 0x090A0B0C), data)
        self.assertEqual(CODEC.decode_client(data), Seen(0x0102030405060708, 0x090A0B0C))
        self.assertEqual(CODEC.decode_seen(PREFIX + data, 8), Seen(0x0102030405060708, 0x090A0B0C))

    def test_seen_without_room(self) -> None:
        """A SEEN that would leave no sequence for a move is malformed."""
        data = CODEC.encode_seen(1, MAX_SEQUENCE)
        self.assertEqual(refusal(CODEC.decode_seen, data), "value")

    def test_state(self) -> None:
        """A STATE bears flags, a number and all fields; bit 0 says that it is an override."""
        for is_override, flags in ((True, "01"), (False, "00")):
            data = bytes.fromhex(f"85 {flags} 0807060504030201") + XY
            self.assertEqual(encode_state(is_override, 0x0102030405060708, XY), data)
            self.assertEqual(
                CODEC.decode_server(data), State(is_override, 0x0102030405060708, (1.5, -2.5))
            )

    def test_numbered_after_a_prefix(self) -> None:
        """The sequence of a LEAVE or PING is read behind what a transport set before it."""
        self.assertEqual(
            decode_numbered(PREFIX + bytes.fromhex("04 04030201 00000000"), 8), 0x01020304
        )

    def test_welcome(self) -> None:
        """A WELCOME bears flags, the nonce, the time and the fields; bit 0 says restored."""
        data = bytes.fromhex("81 01 ddccbbaa 0807060504030201 0000000000000000") + XY
        self.assertEqual(CODEC.encode_welcome(0xAABBCCDD, 0x0102030405060708, (1.5, -2.5)), data)
        self.assertEqual(
            CODEC.decode_server(data),
            Welcome(True, 0xAABBCCDD, 0x0102030405060708, (1.5, -2.5)),
        )

    def test_welcome_of_a_new_player(self) -> None:
        """Where nothing was ever saved or moved, the time is 0 and no flag is set."""
        data = bytes.fromhex("81 00 01000000 0000000000000000 0000000000000000") + XY
        self.assertEqual(CODEC.encode_welcome(1, 0, (1.5, -2.5)), data)
        self.assertEqual(CODEC.decode_server(data), Welcome(False, 1, 0, (1.5, -2.5)))

    def test_welcome_from_before_the_epoch(self) -> None:
        """A time before 1970 is sent as 0, and the player is restored all the same."""
        self.assertEqual(
            CODEC.encode_welcome(1, -5, (1.5, -2.5)),
            bytes.fromhex("81 01 01000000 0000000000000000 0000000000000000") + XY,
        )

    def test_welcome_after_an_override(self) -> None:
        """It says that the program set fields of the client's."""
        data = bytes.fromhex("81 03 01000000 0700000000000000 0000000000000000") + XY
        self.assertEqual(CODEC.encode_welcome(1, 7, (1.5, -2.5), is_override=True), data)
        welcome = Welcome(True, 1, 7, (1.5, -2.5), is_override=True)
        self.assertEqual(CODEC.decode_server(data), welcome)

    def test_welcome_with_flags_of_the_future(self) -> None:
        """Flags that this version does not know are passed over."""
        data = bytes.fromhex("81 fc 01000000 0000000000000000 0000000000000000") + XY
        self.assertEqual(CODEC.decode_server(data), Welcome(False, 1, 0, (1.5, -2.5)))

    def test_welcome_of_every_kind(self) -> None:
        """A WELCOME packs its fields as a MOVE does."""
        data = bytes.fromhex("81 01 01000000 0200000000000000 0000000000000000") + EVERY_FIELD
        self.assertEqual(WIDE_CODEC.encode_welcome(1, 2, EVERY_VALUE), data)
        self.assertEqual(WIDE_CODEC.decode_server(data), Welcome(True, 1, 2, EVERY_VALUE))

    def test_receipt(self) -> None:
        """A RECEIPT bears what is applied, then what is saved."""
        data = bytes.fromhex("82 04030201 08070605")
        self.assertEqual(encode_receipt(0x01020304, 0x05060708), data)
        self.assertEqual(CODEC.decode_server(data), Receipt(0x01020304, 0x05060708))

    def test_refused(self) -> None:
        """A REFUSED bears the nonce and a reason."""
        data = bytes.fromhex("83 ddccbbaa 05")
        self.assertEqual(encode_refused(0xAABBCCDD, RefusedReason.STORE), data)
        self.assertEqual(CODEC.decode_server(data), Refused(0xAABBCCDD, RefusedReason.STORE))

    def test_gone(self) -> None:
        """A GONE bears the nonce and a reason."""
        data = bytes.fromhex("84 ddccbbaa 03")
        self.assertEqual(encode_gone(0xAABBCCDD, GoneReason.JOINED_ELSEWHERE), data)
        self.assertEqual(CODEC.decode_server(data), Gone(0xAABBCCDD, GoneReason.JOINED_ELSEWHERE))


class SizeTests(SynchronousTestCase):
    """Every message has one length, but for the JOIN."""

    def test_sizes(self) -> None:
        """A MOVE is 5 bytes and the fields, a WELCOME 22 bytes and the fields."""
        self.assertEqual((CODEC.move_size, CODEC.welcome_size), (21, 38))
        self.assertEqual((WIDE_CODEC.move_size, WIDE_CODEC.welcome_size), (46, 63))

    def test_join_pays(self) -> None:
        """A JOIN has the bytes of a WELCOME, a GONE, two RECEIPTs and three STATEs, with heads."""
        self.assertEqual(CODEC.join_size, 38 + (6 + 18) + 2 * (9 + 18) + 3 * (26 + 18))
        self.assertEqual(WIDE_CODEC.join_size, 63 + (6 + 18) + 2 * (9 + 18) + 3 * (51 + 18))
        self.assertEqual(len(CODEC.encode_join(1, 0)), CODEC.join_size)
        self.assertEqual(len(WIDE_CODEC.encode_join(1, 0)), WIDE_CODEC.join_size)

    def test_states_paid(self) -> None:
        """A JOIN pays for three STATEs at most, and for fewer where it has no room."""
        for size, expected in ((116, 0), (159, 0), (160, 1), (247, 2), (248, 3), (1200, 3)):
            self.assertEqual(CODEC.states_paid_by(size), expected, size)
        for fields, expected in ((254, 3), (255, 2), (348, 2), (349, 1), (536, 1), (537, 0)):
            wide = attrs.make_class(
                "Wide", {"note": attrs.field(default="", type=str, metadata=text(fields))}
            )
            codec = Codec(StateSchema.of(wide))
            join = len(codec.encode_join(1, 0))
            self.assertLessEqual(join, MAX_JOIN_SIZE)
            self.assertEqual(codec.states_paid_by(join), expected, fields)

    def test_state_costs(self) -> None:
        """So many RECEIPTs as `state_costs` says are no shorter than a STATE, by any transport."""
        for codec in (CODEC, WIDE_CODEC):
            for before in (12, 18):
                paid = codec.state_costs * (9 + before)
                self.assertGreaterEqual(paid, codec.state_size + before)
            self.assertGreaterEqual(receipts_for(codec.ping_size), 1 + codec.state_costs)
            self.assertLess(receipts_for(codec.ping_size - 1), 1 + codec.state_costs)

    def test_seen_pays(self) -> None:
        """A SEEN is as long as the next STATE, also where the fields have a byte alone."""
        flag = attrs.make_class("Flag", {"up": attrs.field(default=False, type=bool)})
        for codec in (CODEC, WIDE_CODEC, Codec(StateSchema.of(flag))):
            self.assertGreaterEqual(len(codec.encode_seen(1, 2)), codec.state_size)

    def test_receipts_for(self) -> None:
        """A message pays for RECEIPTs that are no longer, by either transport."""
        for size in range(5, 1200):
            for before in (12, 18):
                paid = receipts_for(size) * (9 + before)
                self.assertLessEqual(paid, size + before + 1e-9)
                self.assertGreater(paid, 0.7 * (size + before))
        self.assertEqual(receipts_for(9), 1.0)

    def test_widest(self) -> None:
        """The JOIN of 1,024 bytes of fields, the most there may be, is within its limit."""
        wide = attrs.make_class(
            "Wide", {"note": attrs.field(default="", type=str, metadata=text(1024))}
        )
        join = ClientCodec(StateSchema.of(wide)).encode_join(1, 0)
        self.assertEqual(len(join), 1124)
        self.assertEqual(CODEC.decode_client(join).size, 1124)

    def test_join_lengths(self) -> None:
        """A JOIN has 22 to 1,200 bytes."""
        self.assertEqual(MAX_JOIN_SIZE, 1200)
        for size in (22, 23, 1199, 1200):
            join = CODEC.decode_client(b"\x01".ljust(size, b"\0"))
            self.assertEqual(join, Join(0, 0, 0, 0, size))
        for size in (1, 2, 13):
            self.assertEqual(
                refusal(CODEC.decode_client, b"\x01".ljust(size, b"\0")), "too_short", size
            )
        for size in (1201, 9000):
            self.assertEqual(
                refusal(CODEC.decode_client, b"\x01".ljust(size, b"\0")), "too_long", size
            )

    def test_join_lengths_after_a_prefix(self) -> None:
        """What a transport sets before a JOIN does not count."""
        prefixed = PREFIX + b"\x01".ljust(1200, b"\0")
        self.assertEqual(decode_join(prefixed, 8).size, 1200)
        self.assertEqual(refusal(decode_join, prefixed + b"\0", 8), "too_long")
        self.assertEqual(refusal(decode_join, prefixed[: 8 + 13], 8), "too_short")

    def test_one_byte_short(self) -> None:
        """A message that lacks its last byte is too short, whatever its type."""
        for decode, data in self.whole_messages():
            if data[0] != PING:
                self.assertEqual(refusal(decode, data[:-1]), "too_short", data)

    def test_ping_lengths(self) -> None:
        """A PING has 9 to 1,200 bytes."""
        for size in (9, 10, 1200):
            self.assertEqual(len(encode_numbered(PING, 1, size)), size)
            self.assertEqual(CODEC.decode_client(encode_numbered(PING, 1, size)), Ping(1))
        self.assertEqual(refusal(CODEC.decode_client, encode_numbered(PING, 1)[:-1]), "too_short")

    def test_type_alone(self) -> None:
        """A message of its type byte alone is too short, whatever its type."""
        for decode, data in self.whole_messages():
            self.assertEqual(refusal(decode, data[:1]), "too_short", data)

    def test_one_byte_long(self) -> None:
        """A message with a byte behind it is too long, whatever its type."""
        for decode, data in self.whole_messages():
            self.assertEqual(refusal(decode, data + b"\0"), "too_long", data)

    def whole_messages(self) -> list[tuple[Any, bytes]]:
        """One message of each type with a fixed length, and what reads it."""
        return [
            (CODEC.decode_client, CODEC.encode_move(1, (1.0, 2.0))),
            (WIDE_CODEC.decode_client, WIDE_CODEC.encode_move(1, EVERY_VALUE)),
            (CODEC.decode_client, encode_numbered(LEAVE, 1)),
            (CODEC.decode_client, encode_numbered(PING, 1, MAX_JOIN_SIZE)),
            (CODEC.decode_client, CODEC.encode_seen(1, 2)),
            (CODEC.decode_server, encode_state(True, 1, XY)),
            (CODEC.decode_server, CODEC.encode_welcome(1, 2, (1.0, 2.0))),
            (WIDE_CODEC.decode_server, WIDE_CODEC.encode_welcome(1, 2, EVERY_VALUE)),
            (CODEC.decode_server, encode_receipt(1, 2)),
            (CODEC.decode_server, encode_refused(1, RefusedReason.FULL)),
            (CODEC.decode_server, encode_gone(1, GoneReason.IDLE)),
        ]

    def test_lengths_after_a_prefix(self) -> None:
        """What a transport sets before a MOVE or a PING does not count."""
        move, ping = CODEC.encode_move(1, (1.0, 2.0)), encode_numbered(PING, 1)
        seen, longest = CODEC.encode_seen(1, 2), encode_numbered(PING, 1, MAX_JOIN_SIZE)
        self.assertEqual(refusal(CODEC.decode_move, PREFIX + move[:-1], 8), "too_short")
        self.assertEqual(refusal(CODEC.decode_move, PREFIX + move + b"\0", 8), "too_long")
        self.assertEqual(refusal(decode_numbered, PREFIX + ping[:-1], 8), "too_short")
        self.assertEqual(refusal(decode_numbered, PREFIX + longest + b"\0", 8), "too_long")
        self.assertEqual(refusal(CODEC.decode_seen, PREFIX + seen[:-1], 8), "too_short")
        self.assertEqual(refusal(CODEC.decode_seen, PREFIX + seen + b"\0", 8), "too_long")

    def test_prefix_alone(self) -> None:
        """A datagram that ends before its message does is too short, and nothing worse."""
        self.assertEqual(refusal(decode_join, PREFIX[:3], 8), "too_short")
        self.assertEqual(refusal(CODEC.decode_move, PREFIX[:3], 8), "too_short")
        self.assertEqual(refusal(decode_numbered, PREFIX[:3], 8), "too_short")


class TypeTests(SynchronousTestCase):
    """What begins with another byte."""

    def test_nothing(self) -> None:
        """No bytes at all are too short."""
        self.assertEqual(refusal(CODEC.decode_client, b""), "too_short")
        self.assertEqual(refusal(CODEC.decode_server, b""), "too_short")

    def test_unknown_to_the_server(self) -> None:
        """A server knows what clients say, and not what servers say."""
        for kind in {*range(256)} - {JOIN, MOVE, LEAVE, PING, DELTA, SEEN}:
            data = bytes([kind]) + bytes(20)
            self.assertEqual(refusal(CODEC.decode_client, data), "unknown_type", kind)

    def test_unknown_to_the_client(self) -> None:
        """A client knows what servers say, and not what clients say."""
        for kind in {*range(256)} - {WELCOME, RECEIPT, REFUSED, GONE, STATE}:
            data = bytes([kind]) + bytes(20)
            self.assertEqual(refusal(CODEC.decode_server, data), "unknown_type", kind)

    def test_malformed_says_why(self) -> None:
        """The reason is also the message."""
        error = Malformed("too_short")
        self.assertEqual((error.reason, str(error)), ("too_short", "too_short"))
        self.assertIsInstance(error, ValueError)


class ValueTests(SynchronousTestCase):
    """A MOVE with a value outside its field."""

    def move(self, codec: ClientCodec, packed: bytes) -> Any:
        """The accepted values of a MOVE with these fields."""
        return codec.decode_client(bytes.fromhex("02 01000000") + packed).values

    def assert_refused(self, codec: ClientCodec, packed: bytes) -> None:
        """These fields are refused for their value."""
        self.assertEqual(refusal(self.move, codec, packed), "value", packed)

    def test_not_a_number(self) -> None:
        """NaN is no value of a float, quiet or signalling, in any field."""
        for nan in ("000000000000f87f", "010000000000f07f", "ffffffffffffffff"):
            self.assert_refused(CODEC, bytes.fromhex(nan) + bytes(8))
            self.assert_refused(CODEC, bytes(8) + bytes.fromhex(nan))

    def test_infinite(self) -> None:
        """The infinities are no values of a float."""
        for infinity in ("000000000000f07f", "000000000000f0ff"):
            self.assert_refused(CODEC, bytes.fromhex(infinity) + bytes(8))
            self.assert_refused(CODEC, bytes(8) + bytes.fromhex(infinity))

    def test_greatest(self) -> None:
        """A float without bounds goes up to the greatest finite number, either way."""
        most = bytes.fromhex("ffffffffffffef7f")
        least = bytes.fromhex("ffffffffffffefff")
        self.assertEqual(self.move(CODEC, most + least), (sys.float_info.max, -sys.float_info.max))

    def test_smallest(self) -> None:
        """A subnormal float is taken in as it is."""
        self.assertEqual(self.move(CODEC, b"\x01" + bytes(15)), (5e-324, 0.0))

    def test_negative_zero(self) -> None:
        """-0.0 is taken in as 0.0."""
        values = self.move(CODEC, bytes.fromhex("0000000000000080") * 2)
        self.assertEqual([math.copysign(1, value) for value in values], [1.0, 1.0])

    def test_whole_numbers(self) -> None:
        """An int without bounds takes all 64 bits."""
        for packed, value in (("0000000000000080", -(2**63)), ("ffffffffffffff7f", 2**63 - 1)):
            fields = EVERY_FIELD[:8] + bytes.fromhex(packed) + EVERY_FIELD[16:]
            self.assertEqual(self.move(WIDE_CODEC, fields)[1], value)

    def test_bool(self) -> None:
        """A bool is 0 or 1."""
        for byte in (0, 1):
            fields = EVERY_FIELD[:16] + bytes([byte]) + EVERY_FIELD[17:]
            self.assertEqual(self.move(WIDE_CODEC, fields)[2], byte)
        for byte in (2, 0x80, 0xFF):
            self.assert_refused(WIDE_CODEC, EVERY_FIELD[:16] + bytes([byte]) + EVERY_FIELD[17:])

    def test_text(self) -> None:
        """A text is UTF-8 that fills its bytes or is padded with zeros."""
        for packed in (b"", b"a", "é".encode() * 8, "\U0001f409".encode() * 4):
            fields = EVERY_FIELD[:17] + packed.ljust(16, b"\0") + EVERY_FIELD[33:]
            self.assertEqual(self.move(WIDE_CODEC, fields)[3], packed.ljust(16, b"\0"))

    def test_bad_text(self) -> None:
        """Text that is not UTF-8, or with a zero byte inside, is refused."""
        bad = (
            b"\xff",  # never in UTF-8
            b"\xc3",  # cut off
            b"\xc0\xaf",  # longer than need be
            b"\xed\xa0\x80",  # a surrogate
            b"\xf4\x90\x80\x80",  # above U+10FFFF
            b"a\0b",
            b"\0b",
            b"a" * 15 + b"\xc3",  # cut off by the end of the field
        )
        for packed in bad:
            self.assert_refused(
                WIDE_CODEC, EVERY_FIELD[:17] + packed.ljust(16, b"\0") + EVERY_FIELD[33:]
            )

    def test_bounds(self) -> None:
        """The bounds of a field belong to it, and nothing beyond them does."""
        self.assertEqual(self.move(BOUNDED, struct.pack("<dq", -10.0, 0)), (-10.0, 0))
        self.assertEqual(self.move(BOUNDED, struct.pack("<dq", 10.0, 100)), (10.0, 100))
        for x, hp in (
            (math.nextafter(10.0, 11.0), 0),
            (math.nextafter(-10.0, -11.0), 0),
            (0.0, -1),
            (0.0, 101),
            (0.0, -(2**63)),
            (math.nan, 0),
        ):
            self.assert_refused(BOUNDED, struct.pack("<dq", x, hp))

    def test_size_before_value(self) -> None:
        """A MOVE of a wrong length is counted as that, whatever its fields hold."""
        data = b"\x02" + b"\xff" * 21
        self.assertEqual(refusal(CODEC.decode_client, data), "too_long")


uint32 = st.integers(0, MAX_SEQUENCE)


@st.composite
def states(draw: st.DrawFn) -> tuple[StateSchema, tuple[Any, ...]]:
    """The schema of any state class, bounds among its fields, and accepted packed values of it."""
    schema = draw(schemas)
    plain = [draw(plain_values(field.kind)) for field in schema.fields]
    return schema, schema.accept(*schema.encode(tuple(plain)))


class LawTests(SynchronousTestCase):
    """What holds for every state class and all bytes."""

    @LAW
    @given(states(), uint32)
    def test_move_round_trip(self, state: Any, sequence: int) -> None:
        """A MOVE of accepted values is read as it was written, for any state class."""
        schema, values = state
        codec = ClientCodec(schema)
        data = codec.encode_move(sequence, values)
        self.assertEqual(len(data), codec.move_size)
        self.assertEqual(codec.decode_client(data), Move(sequence, values))

    @LAW
    @given(states(), uint32, st.integers(0, 2**63 - 1))
    def test_welcome_round_trip(self, state: Any, nonce: int, updated_at: int) -> None:
        """A WELCOME is read as it was written, for any state class."""
        schema, values = state
        codec = ClientCodec(schema)
        data = codec.encode_welcome(nonce, updated_at, values)
        self.assertEqual(len(data), codec.welcome_size)
        self.assertEqual(
            codec.decode_server(data), Welcome(updated_at != 0, nonce, updated_at, values)
        )

    @LAW
    @given(schemas, uint32, st.integers(0, MAX_SEQUENCE - 1))
    def test_join_round_trip(self, schema: StateSchema, nonce: int, sequence: int) -> None:
        """A JOIN is read as it was written, with its schema's fingerprint, for any state class."""
        codec = ClientCodec(schema)
        self.assertEqual(
            codec.decode_client(codec.encode_join(nonce, sequence)),
            Join(VERSION, schema.fingerprint, nonce, sequence, codec.join_size),
        )

    @LAW
    @given(uint32, uint32)
    def test_small_round_trips(self, first: int, second: int) -> None:
        """LEAVE, PING and RECEIPT are read as they were written."""
        self.assertEqual(CODEC.decode_client(encode_numbered(LEAVE, first)), Leave(first))
        self.assertEqual(CODEC.decode_client(encode_numbered(PING, first)), Ping(first))
        self.assertEqual(CODEC.decode_server(encode_receipt(first, second)), Receipt(first, second))

    @LAW
    @given(schemas, st.binary(max_size=1300), st.integers(0, 8))
    def test_any_bytes(self, schema: StateSchema, data: bytes, at: int) -> None:
        """Any bytes are a message or `Malformed`, and nothing else comes of them."""
        codec = ClientCodec(schema)
        for decode in (codec.decode_client, codec.decode_server):
            self.read(decode, data)
        for decode in (codec.decode_move, decode_join, decode_numbered):
            self.read(decode, data, at)

    @LAW
    @given(schemas, st.data())
    def test_any_fields(self, schema: StateSchema, data: st.DataObject) -> None:
        """A MOVE of any fields is accepted as it stands, but for a zero's sign, or `Malformed`."""
        codec = ClientCodec(schema)
        packed = data.draw(st.binary(min_size=schema.size, max_size=schema.size))
        move = self.read(codec.decode_client, b"\x02\0\0\0\0" + packed)
        if move is not None:
            self.assertEqual(move.values, schema.struct.unpack(packed))
            self.assertEqual(schema.accept(*move.values), move.values)

    def read(self, decode: Any, *arguments: Any) -> Any:
        """The message, or None where the bytes are none."""
        try:
            return decode(*arguments)
        except Malformed as error:
            self.assertIn(error.reason, ("too_short", "too_long", "unknown_type", "value"))
            return None
