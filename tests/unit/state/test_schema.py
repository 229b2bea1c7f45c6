"""State classes: what can be packed, what a field takes, and every form of one state."""

from __future__ import annotations

import math
import struct
import sys
import zlib
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import (
    MAX_FIELDS_BYTES,
    InvalidState,
    SchemaError,
    StateSchema,
    text,
    within,
)
from tests.kit.support import LAW, field, made

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
FLOAT_MAX = sys.float_info.max


@attrs.frozen
class Avatar:
    """A state with a field of each kind, with and without bounds."""

    x: float = attrs.field(default=350.0, metadata=within(0, 4096, resolution=1 / 64))
    y: float = 200.0
    hp: int = attrs.field(default=100, metadata=within(0, 100))
    gold: int = 0
    alive: bool = True
    zone: str = attrs.field(default="spawn", metadata=text(16))


class CompileTests(SynchronousTestCase):
    """What `StateSchema.of` reads from a class."""

    def test_fields_in_order(self) -> None:
        """The fields are the class's attributes, in their order, with kind, size and bounds."""
        self.assertEqual(
            [
                (each.name, each.kind, each.size, each.low, each.high, each.resolution)
                for each in StateSchema.of(Avatar).fields
            ],
            [
                ("x", "float", 8, 0.0, 4096.0, 0.015625),
                ("y", "float", 8, -FLOAT_MAX, FLOAT_MAX, None),
                ("hp", "int", 8, 0, 100, None),
                ("gold", "int", 8, INT64_MIN, INT64_MAX, None),
                ("alive", "bool", 1, 0, 1, None),
                ("zone", "text", 16, None, None, None),
            ],
        )

    def test_schema_of_a_schema(self) -> None:
        """A schema is its own schema, so that callers may pass either."""
        schema = StateSchema.of(PlayerState)
        self.assertIs(StateSchema.of(schema), schema)

    def test_string_annotations(self) -> None:
        """Annotations that are strings name the same types."""

        @attrs.frozen
        class Quoted:
            x: "float" = 1.0  # noqa: UP037
            name: "str" = attrs.field(default="a", metadata=text(4))  # noqa: UP037

        schema = StateSchema.of(Quoted)
        self.assertEqual(schema.canonical, "x:float,name:text(4)")

    def test_inherited_fields_come_first(self) -> None:
        """A class that extends another has the other's fields before its own."""

        @attrs.frozen
        class Deep(PlayerState):
            z: float = 3.0

        schema = StateSchema.of(Deep)
        self.assertEqual(schema.state(schema.values(Deep(1.0, 2.0))), Deep(1.0, 2.0, 3.0))

    def test_keyword_only_class(self) -> None:
        """A class built by keyword alone is restored as any other."""

        @attrs.frozen(kw_only=True)
        class Keyed:
            x: float = 1.0
            y: float = 2.0

        schema = StateSchema.of(Keyed)
        self.assertEqual(schema.state((3.0, 4.0)), Keyed(x=3.0, y=4.0))

    def test_keyword_only_field(self) -> None:
        """One keyword-only field among others keeps its place in the row."""
        mixed = made(a=field(float, 1.0, kw_only=True), b=field(float, 2.0))
        schema = StateSchema.of(mixed)
        self.assertEqual(schema.state((3.0, 4.0)), mixed(4.0, a=3.0))

    def test_private_attribute(self) -> None:
        """A private attribute is packed under its name and restored through its alias."""
        for keyword_only in (False, True):
            private = made(_x=field(float, 1.0, kw_only=keyword_only))
            schema = StateSchema.of(private)
            self.assertEqual(schema.canonical, "_x:float")
            self.assertEqual(schema.state(schema.values(private(x=2.0))), private(x=2.0))

    def test_spawn_is_accepted_defaults(self) -> None:
        """The spawn is the defaults as accepted packed values, without a negative zero."""
        self.assertEqual(
            StateSchema.of(Avatar).spawn,
            (350.0, 200.0, 100, 0, 1, b"spawn" + bytes(11)),
        )
        (spawn,) = StateSchema.of(made(x=field(float, -0.0))).spawn
        self.assertEqual(math.copysign(1.0, spawn), 1.0)

    def test_packed_little_endian_without_padding(self) -> None:
        """A row's fields are little-endian, one behind the other, as the wire says."""
        schema = StateSchema.of(Avatar)
        packed = schema.struct.pack(*schema.values(Avatar(1.0, -2.0, 3, -4, False, "héllo")))
        self.assertEqual(
            packed,
            bytes.fromhex("000000000000f03f")
            + bytes.fromhex("00000000000000c0")
            + bytes.fromhex("0300000000000000")
            + bytes.fromhex("fcffffffffffffff")
            + b"\0"
            + "héllo".encode().ljust(16, b"\0"),
        )
        self.assertEqual(schema.size, len(packed))

    def test_as_many_bytes_as_allowed(self) -> None:
        """A player may pack to exactly the limit."""
        schema = StateSchema.of(made(note=field(str, "", text(MAX_FIELDS_BYTES))))
        self.assertEqual(schema.size, 1024)


class FingerprintTests(SynchronousTestCase):
    """The canonical text and its CRC-32, as the wire format has them."""

    def test_default_state(self) -> None:
        """The default state's text and fingerprint are those of the wire format."""
        schema = StateSchema.of(PlayerState)
        self.assertEqual(schema.canonical, "x:float,y:float")
        self.assertEqual(schema.fingerprint, 0xC9A05F22)

    def test_each_kind(self) -> None:
        """Each kind, a text's size and a resolution stand in the text; bounds do not."""
        schema = StateSchema.of(Avatar)
        self.assertEqual(
            schema.canonical,
            "x:float/0.015625,y:float,hp:int,gold:int,alive:bool,zone:text(16)",
        )
        self.assertEqual(schema.fingerprint, zlib.crc32(schema.canonical.encode()))

    def test_whole_resolution(self) -> None:
        """A resolution given as an int is the same grid as the float of its value."""
        whole = StateSchema.of(made(x=field(float, 0.0, within(resolution=2))))
        broken = StateSchema.of(made(x=field(float, 0.0, within(resolution=2.0))))
        self.assertEqual(whole.canonical, "x:float/2.0")
        self.assertEqual(whole.fingerprint, broken.fingerprint)


class SchemaErrorTests(SynchronousTestCase):
    """A class that cannot be packed is refused, and the field named."""

    def refused(self, name: str, metadata_or_field: Any) -> str:
        """The message with which a class is refused because of the field of this name."""
        error = self.assertRaises(SchemaError, StateSchema.of, made(**{name: metadata_or_field}))
        self.assertTrue(str(error).startswith(f"Made.{name}: "), str(error))
        return str(error)

    def test_not_an_attrs_class(self) -> None:
        """Only an attrs class is a state class; an instance of one is not."""
        for wrong in (int, object(), PlayerState(), None, "PlayerState"):
            error = self.assertRaises(SchemaError, StateSchema.of, wrong)
            self.assertIn("is not an attrs class: decorate it with attrs.frozen", str(error))

    def test_no_field(self) -> None:
        """A class without fields is refused by its name."""
        error = self.assertRaises(SchemaError, StateSchema.of, made())
        self.assertEqual(str(error), "Made has no field: give it at least one")

    def test_unknown_annotation(self) -> None:
        """An annotation that names nothing is refused, and the name shown."""
        error = self.assertRaises(SchemaError, StateSchema.of, made(x=field("flaot", 1.0)))
        self.assertIn("'flaot'", str(error))
        self.assertIn("allowed: float, int, bool, or str with metadata=text(n)", str(error))

    def test_annotation_without_such_attribute(self) -> None:
        """An annotation that looks into a type for what is not there is refused likewise."""
        self.assertRaises(SchemaError, StateSchema.of, made(x=field("float.none", 1.0)))

    def test_annotation_that_is_no_expression(self) -> None:
        """An annotation that cannot be parsed is refused likewise."""
        self.assertRaises(SchemaError, StateSchema.of, made(x=field("1 +", 1.0)))

    def test_kinds(self) -> None:
        """Any type but the four is refused, and the four named."""
        for kind in (bytes, list, complex, float | None, Any, None, np.float64):
            message = self.refused("x", field(kind, 1.0))
            self.assertIn("allowed: float, int, bool, or str with metadata=text(n)", message)

    def test_not_in_the_constructor(self) -> None:
        """A field that the constructor does not set could not be restored."""
        self.assertIn("init=False", self.refused("x", field(float, 1.0, init=False)))

    def test_no_default(self) -> None:
        """Every field has a default, for that is where a player spawns."""
        self.assertIn("has no default", self.refused("x", field(float)))

    def test_factory(self) -> None:
        """A default made by a factory is refused: it is no constant."""
        self.assertIn("factory", self.refused("x", field(float, attrs.Factory(float))))

    def test_text_without_size(self) -> None:
        """A str states its size."""
        self.assertIn("str needs metadata=text(n)", self.refused("zone", field(str, "a")))

    def test_text_size(self) -> None:
        """A text's size is a whole number from 1."""
        for size in (0, -1, True, 1.5, "16", None):
            self.assertIn("bytes from 1", self.refused("zone", field(str, "", text(size))))

    def test_text_of_another_kind(self) -> None:
        """Only a str has a size."""
        for kind, default in ((float, 0.0), (int, 0), (bool, False)):
            message = self.refused("x", field(kind, default, text(4)))
            self.assertIn(f"text(n) is for str, not {kind.__name__}", message)

    def test_bounds_of_text_and_bool(self) -> None:
        """Only numbers have bounds and a resolution."""
        for metadata in (within(0), within(None, 1), within(resolution=1.0)):
            both = {**metadata, **text(4)}
            self.assertIn("within() is for float and int", self.refused("z", field(str, "", both)))
            message = self.refused("b", field(bool, False, metadata))
            self.assertIn("within() is for float and int, not bool", message)

    def test_bound_of_an_int(self) -> None:
        """An int's bound is an int, even where a float would be whole."""
        for metadata in (within(0.0), within(None, 10.0)):
            message = self.refused("hp", field(int, 1, metadata))
            self.assertIn("of an int must be an int", message)

    def test_bound_the_field_cannot_hold(self) -> None:
        """A bound is a number that the field itself can hold."""
        for bound in (math.nan, math.inf, -math.inf, "1", True, 10**400, Decimal(1)):
            for metadata in (within(bound), within(None, bound)):
                message = self.refused("x", field(float, 1.0, metadata))
                self.assertIn("is not a number the field can hold", message)
        for bound in (INT64_MIN - 1, INT64_MAX + 1, False):
            message = self.refused("hp", field(int, 1, within(bound)))
            self.assertIn(f"bound {bound!r} is not a number the field can hold", message)

    def test_bounds_that_allow_nothing(self) -> None:
        """The lower bound is not above the upper one."""
        self.assertIn(
            "no value lies within 2 and 1", self.refused("hp", field(int, 1, within(2, 1)))
        )

    def test_resolution_of_an_int(self) -> None:
        """A resolution is for floats."""
        message = self.refused("hp", field(int, 1, within(resolution=2)))
        self.assertIn("a resolution is for float", message)

    def test_resolution(self) -> None:
        """A resolution is a finite number above 0."""
        for resolution in (0, 0.0, -1.0, math.nan, math.inf, True, "1"):
            message = self.refused("x", field(float, 1.0, within(resolution=resolution)))
            self.assertIn(f"resolution {resolution!r} is not above 0", message)

    def test_resolution_beyond_floats(self) -> None:
        """A whole resolution that no float can hold is refused, not an error of its own."""
        self.refused("x", field(float, 1.0, within(resolution=10**400)))

    def test_default_of_another_type(self) -> None:
        """A default of another type is refused, with what the field takes."""
        for kind, default, metadata, allowed in (
            (float, "1", None, "a finite number"),
            (float, None, None, "a finite number"),
            (int, 1.5, None, "a whole number of 64 bits"),
            (int, INT64_MAX + 1, None, "a whole number of 64 bits"),
            (bool, 1, None, "True or False"),
            (str, b"a", text(4), "text of at most 4 bytes of UTF-8, without NUL"),
            (str, "ééé", text(4), "text of at most 4 bytes of UTF-8, without NUL"),
        ):
            message = self.refused("x", field(kind, default, metadata))
            self.assertIn(f"the default x = {default!r}: must be {allowed}", message)

    def test_default_out_of_bounds(self) -> None:
        """A player cannot spawn where no update could bring them."""
        for kind, default, metadata in (
            (float, -0.5, within(0.0)),
            (float, math.nan, None),
            (float, -math.inf, None),
            (int, 101, within(0, 100)),
        ):
            message = self.refused("x", field(kind, default, metadata))
            self.assertIn(f"the default x = {default!r}: must be ", message)

    def test_second_field_is_the_one_named(self) -> None:
        """Of several fields, the one that is wrong is named."""
        error = self.assertRaises(
            SchemaError, StateSchema.of, made(a=field(int, 1), b=field(int, 1, within(5)))
        )
        self.assertTrue(str(error).startswith("Made.b: the default b = 1"), str(error))

    def test_reserved_names(self) -> None:
        """The store's own columns cannot be fields, in whatever case."""
        for name in ("session_id", "updated_at", "Session_ID", "oid", "rowid", "_ROWID_"):
            self.assertIn("column of the store's own", self.refused(name, field(float, 1.0)))

    def test_names_that_differ_in_case(self) -> None:
        """Two fields whose columns SQL could not tell apart are refused, and both named."""
        error = self.assertRaises(
            SchemaError, StateSchema.of, made(hp=field(int, 1), Hp=field(int, 1))
        )
        self.assertTrue(str(error).startswith("Made.Hp: differs from hp only in case"), str(error))

    def test_too_many_bytes(self) -> None:
        """A player of more bytes than a datagram may carry is refused, from first to last."""
        error = self.assertRaises(
            SchemaError,
            StateSchema.of,
            made(alive=field(bool, True), note=field(str, "", text(MAX_FIELDS_BYTES))),
        )
        self.assertEqual(
            str(error), "Made packs to 1025 bytes, from alive to note; at most 1024 are allowed"
        )


class FieldTests(SynchronousTestCase):
    """What each kind of field takes."""

    def one(self, kind: Any, default: Any, metadata: Any = None) -> tuple[type, StateSchema]:
        """A class of one field, called x."""
        state_class = made(x=field(kind, default, metadata))
        return state_class, StateSchema.of(state_class)

    def assert_refuses(self, schema: StateSchema, values: Any, allowed: str) -> None:
        """Each value is refused, with the field, the value and what is allowed."""
        for value in values:
            error = self.assertRaises(
                InvalidState, lambda value=value: schema.values(schema.state_class(value))
            )
            self.assertEqual(error.field, "x")
            self.assertIs(error.value, value)
            self.assertEqual(error.allowed, allowed)
            self.assertEqual(str(error), f"x = {value!r}: must be {allowed}")

    def test_float_takes_numbers(self) -> None:
        """A float field takes what has a float value: ints, numpy's numbers, decimals."""
        state_class, schema = self.one(float, 0.0)
        for value in (3, True, np.float32(3.5), np.int8(3), Decimal("3.5"), FLOAT_MAX, -FLOAT_MAX):
            (packed,) = schema.values(state_class(value))
            self.assertIs(type(packed), float)
            self.assertEqual(packed, value)

    def test_float_refuses_what_is_not_finite(self) -> None:
        """NaN, the infinities and numbers beyond floats are not within a float field."""
        _, schema = self.one(float, 0.0)
        beyond = (math.nan, math.inf, -math.inf, 10**400, Decimal("sNaN"))
        self.assert_refuses(schema, beyond, "a finite number")

    def test_float_refuses_what_is_no_number(self) -> None:
        """Text is no number, even where it reads like one."""
        _, schema = self.one(float, 0.0)
        self.assert_refuses(
            schema, ("1.0", b"1.0", bytearray(b"1"), None, 1j, [1.0]), "a finite number"
        )

    def test_negative_zero(self) -> None:
        """A negative zero is taken in as 0.0, by `values` and by `accept`."""
        state_class, schema = self.one(float, -1.0, within(-1.0, 0.0))
        for (packed,) in (schema.values(state_class(-0.0)), schema.accept(-0.0)):
            self.assertEqual(math.copysign(1.0, packed), 1.0)

    def test_other_floats_are_kept_to_the_bit(self) -> None:
        """No other float is changed by being accepted, however small."""
        _, schema = self.one(float, 0.0)
        for value in (5e-324, -5e-324, 0.1, FLOAT_MAX, -FLOAT_MAX):
            self.assertEqual(struct.pack("d", *schema.accept(value)), struct.pack("d", value))

    def test_many(self) -> None:
        """Many rows are accepted or not as each is, and those that are not stay as they are."""
        state_class = attrs.make_class(
            "Mixed",
            {
                "x": attrs.field(default=0.0, type=float, metadata=within(-1.0, 1.0)),
                "level": attrs.field(default=1, type=int, metadata=within(0, 9)),
                "n": attrs.field(default=1, type=int),
                "free": attrs.field(default=0.0, type=float),
                "alive": attrs.field(default=True, type=bool),
                "zone": attrs.field(default="", type=str, metadata=text(4)),
            },
        )
        schema = StateSchema.of(state_class)
        good = (-0.0, 3, INT64_MIN, -0.0, 1, b"wood")
        changes = [
            *((0, value) for value in (1.0, -1.0, 1.5, -1.5, math.nan, math.inf, 0.25)),
            *((1, value) for value in (0, 9, 10, -1)),
            *((2, value) for value in (2**63 - 1, 0)),
            *((3, value) for value in (5e-324, FLOAT_MAX, math.inf, -math.inf, math.nan)),
            *((4, value) for value in (0, 1, 2, 255)),
            *((5, value) for value in (b"", b"a", b"\xff", b"a\0b", b"\0a", "\u00fc".encode())),
        ]
        rows = [good, *((*good[:at], value, *good[at + 1 :]) for at, value in changes)]
        packed = [schema.struct.pack(*row) for row in rows]
        packed.append(bytes.fromhex("010000000000f07f") + packed[0][8:])  # a signaling NaN
        expected = []
        for row in packed:
            try:
                expected.append(schema.struct.pack(*schema.accept(*schema.struct.unpack(row))))
            except InvalidState:
                expected.append(None)
        many = np.frombuffer(bytearray().join(packed), schema.dtype)
        accepted = schema.accept_many(many).tolist()
        self.assertEqual(accepted, [row is not None for row in expected])
        self.assertTrue({True, False} <= set(accepted))
        after = [row.tobytes() for row in many]
        self.assertEqual(after, [new or old for new, old in zip(expected, packed, strict=True)])

    def test_float_bounds_are_inclusive(self) -> None:
        """A bound itself is within; the next float beyond it is not."""
        _, schema = self.one(float, 0.5, within(0.25, 0.75))
        self.assertEqual(schema.accept(0.25), (0.25,))
        self.assertEqual(schema.accept(0.75), (0.75,))
        for value in (math.nextafter(0.25, 0), math.nextafter(0.75, 1), math.nan):
            error = self.assertRaises(InvalidState, schema.accept, value)
            self.assertEqual(error.allowed, "a finite number from 0.25 to 0.75")

    def test_one_bound(self) -> None:
        """A field bound on one side says so, and is bound on no other."""
        _, low = self.one(float, 1.0, within(0))
        self.assertEqual(low.fields[0].allowed, "a finite number, at least 0.0")
        self.assertEqual(low.accept(FLOAT_MAX), (FLOAT_MAX,))
        self.assertRaises(InvalidState, low.accept, math.inf)
        self.assertRaises(InvalidState, low.accept, -5e-324)
        _, high = self.one(int, 1, within(high=9))
        self.assertEqual(high.fields[0].allowed, "a whole number, at most 9")
        self.assertEqual(high.accept(INT64_MIN), (INT64_MIN,))
        self.assertRaises(InvalidState, high.accept, 10)

    def test_int_limits(self) -> None:
        """An int field holds 64 bits with a sign, and no more."""
        state_class, schema = self.one(int, 0)
        for value in (INT64_MIN, INT64_MAX, np.int64(INT64_MIN), np.uint8(255)):
            (packed,) = schema.values(state_class(value))
            self.assertIs(type(packed), int)
            self.assertEqual(packed, value)
        beyond = (INT64_MIN - 1, INT64_MAX + 1, np.uint64(2**63))
        self.assert_refuses(schema, beyond, "a whole number of 64 bits")

    def test_int_refuses_what_is_not_whole(self) -> None:
        """A float is no whole number, even where its value is whole."""
        _, schema = self.one(int, 0)
        self.assert_refuses(schema, (1.0, "1", None, Decimal(1)), "a whole number of 64 bits")

    def test_int_bounds_are_inclusive(self) -> None:
        """A bound itself is within; the next number beyond it is not."""
        _, schema = self.one(int, 5, within(-3, 7))
        self.assertEqual((schema.accept(-3), schema.accept(7)), ((-3,), (7,)))
        self.assert_refuses(schema, (-4, 8), "a whole number from -3 to 7")

    def test_bool(self) -> None:
        """A bool field takes True and False, numpy's too, and packs them as 1 and 0."""
        state_class, schema = self.one(bool, False)
        for value, packed in ((True, 1), (False, 0), (np.True_, 1), (np.False_, 0)):
            self.assertEqual(schema.values(state_class(value)), (packed,))
            self.assertIs(schema.state((packed,)).x, bool(value))

    def test_bool_refuses_numbers(self) -> None:
        """0 and 1 are numbers, not truth values."""
        _, schema = self.one(bool, False)
        self.assert_refuses(schema, (0, 1, 2, "True", None), "True or False")

    def test_packed_bool_above_one(self) -> None:
        """A packed bool other than 0 and 1 is not accepted."""
        _, schema = self.one(bool, False)
        error = self.assertRaises(InvalidState, schema.accept, 2)
        self.assertEqual((error.value, error.allowed), (2, "True or False"))

    def test_text_is_padded(self) -> None:
        """A text is packed with zeros behind it, and unpacked without them."""
        state_class, schema = self.one(str, "", text(4))
        for value, packed in (
            ("", b"\0\0\0\0"),
            ("ab", b"ab\0\0"),
            ("éa", b"\xc3\xa9a\0"),
            ("abcd", b"abcd"),
        ):
            self.assertEqual(schema.values(state_class(value)), (packed,))
            self.assertEqual(schema.state((packed,)), state_class(value))

    def test_text_refused(self) -> None:
        """Too many bytes, a NUL, a lone surrogate and what is no text are refused."""
        _, schema = self.one(str, "", text(4))
        self.assert_refuses(
            schema,
            ("abcde", "ééé", "a\0b", "a\0", "\ud800", b"ab", 1, None),
            "text of at most 4 bytes of UTF-8, without NUL",
        )

    def test_packed_text(self) -> None:
        """Packed text is accepted where it is UTF-8 with zeros behind it only."""
        _, schema = self.one(str, "", text(4))
        for packed in (b"\0\0\0\0", b"a\0\0\0", b"\xc3\xa9\0\0", b"abcd"):
            self.assertEqual(schema.accept(packed), (packed,))
        for packed in (b"\xff\0\0\0", b"a\0b\0", b"\0a\0\0", b"abc\xc3", b"\xed\xa0\x80\0"):
            error = self.assertRaises(InvalidState, schema.accept, packed)
            self.assertEqual((error.field, error.value), ("x", packed))


class StateFormsTests(SynchronousTestCase):
    """States, plain values and packed values of a whole class."""

    def test_state_of_another_class(self) -> None:
        """A state of another class is refused as a whole, under no field's name."""
        error = self.assertRaises(InvalidState, StateSchema.of(PlayerState).values, Avatar())
        self.assertEqual(error.field, "")
        self.assertEqual(str(error), f"state = {Avatar()!r}: must be of class PlayerState")

    def test_first_wrong_field_is_named(self) -> None:
        """Of several wrong values, the first in the order of the fields is named."""
        error = self.assertRaises(
            InvalidState, StateSchema.of(Avatar).accept, 0.0, 0.0, 101, 0, 2, bytes(16)
        )
        self.assertEqual(error.field, "hp")

    def test_plain_values(self) -> None:
        """Plain values are floats, ints, bools and texts, in the order of the fields."""
        schema = StateSchema.of(Avatar)
        plain = (1.0, 2.0, 3, 4, True, "a")
        self.assertEqual(schema.decode(schema.encode(plain)), plain)
        self.assertEqual(list(map(type, schema.decode(schema.spawn))), [*map(type, plain)])

    def test_numbers_need_no_decoding(self) -> None:
        """Where every field is a number, packed values are plain values as they are."""
        values = (1.0, 2.0)
        self.assertIs(StateSchema.of(PlayerState).decode(values), values)

    def test_loaded_values_are_not_bound(self) -> None:
        """Plain values from a store are packed though they lie outside the bounds of updates."""
        schema = StateSchema.of(Avatar)
        stored = (-5.0, 2.0, 1000, 4, True, "a")
        self.assertEqual(schema.decode(schema.encode(stored)), stored)

    def test_loaded_value_that_the_field_cannot_hold(self) -> None:
        """A stored value of another type or size is refused by its field's name."""
        schema = StateSchema.of(Avatar)
        error = self.assertRaises(
            InvalidState, schema.encode, (1.0, 2.0, 3, 4, True, "a text of too many bytes")
        )
        self.assertEqual(error.field, "zone")


@attrs.frozen
class Plan:
    """One field that Hypothesis made up: its kind, and the numbers that are within it."""

    kind: str
    low: Any
    high: Any
    size: int

    def field(self) -> Any:
        """The attrs field, whose default is its least value."""
        if self.kind == "text":
            return field(str, "", text(self.size))
        if self.kind == "bool":
            return field(bool, False)
        kind = float if self.kind == "float" else int
        return field(kind, self.low, within(self.low, self.high))

    def holds(self, packed: Any) -> bool:
        """Whether a packed value is within the field, said as plainly as can be."""
        if self.kind == "bool":
            return packed in (0, 1)
        if self.kind == "text":
            try:
                plain = packed.decode().rstrip("\0")
            except UnicodeDecodeError:
                return False
            return "\0" not in plain
        return bool(math.isfinite(packed) and self.low <= packed <= self.high)

    def plain(self) -> st.SearchStrategy[Any]:
        """Values within the field."""
        if self.kind == "bool":
            return st.booleans()
        if self.kind == "text":
            characters = st.characters(exclude_characters="\0", codec="utf-8")
            return st.text(characters, max_size=self.size).filter(
                lambda value: len(value.encode()) <= self.size
            )
        if self.kind == "int":
            return st.integers(self.low, self.high)
        return st.floats(self.low, self.high)

    def packed(self) -> st.SearchStrategy[Any]:
        """Packed values that the field may hold or may not."""
        if self.kind == "bool":
            return st.sampled_from([0, 1, 0, 1, 2, 255])
        if self.kind == "text":
            good = self.plain().map(lambda value: value.encode().ljust(self.size, b"\0"))
            return good | st.binary(min_size=self.size, max_size=self.size)
        if self.kind == "int":
            return st.integers(self.low, self.high) | st.integers(INT64_MIN, INT64_MAX)
        return st.floats(self.low, self.high) | st.floats()


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A field of any kind."""
    kind = draw(st.sampled_from(["float", "int", "bool", "text"]))
    number = (
        st.floats(-FLOAT_MAX, FLOAT_MAX) if kind == "float" else st.integers(-(2**63), INT64_MAX)
    )
    low, high = sorted((draw(number), draw(number)))
    return Plan(kind, low, high, draw(st.integers(1, 12)))


classes = st.lists(plans(), min_size=1, max_size=6)


def planned(plan: list[Plan]) -> StateSchema:
    """The schema of a class with these fields."""
    return StateSchema.of(made(**{f"f{index}": each.field() for index, each in enumerate(plan)}))


class SchemaLawTests(SynchronousTestCase):
    """What holds for every state class and every value."""

    @settings(LAW, max_examples=60)
    @given(st.data(), classes)
    def test_every_state_survives_its_row(self, data: st.DataObject, plan: list[Plan]) -> None:
        """A state is the same after it was packed into bytes and unpacked."""
        schema = planned(plan)
        state = schema.state_class(*(data.draw(each.plain()) for each in plan))
        packed = schema.struct.pack(*schema.values(state))
        self.assertEqual(schema.state(schema.struct.unpack(packed)), state)

    @settings(LAW, max_examples=60)
    @given(st.data(), classes)
    def test_every_record_shows_the_state(self, data: st.DataObject, plan: list[Plan]) -> None:
        """A store reads from a record what was packed into the row, field by field."""
        schema = planned(plan)
        layout = RowLayout(schema.fields)
        state = schema.state_class(*(data.draw(each.plain()) for each in plan))
        values = schema.values(state)
        half = layout.struct.pack(1, 7, 0, 8, 0, *values, 1)
        session_id, *fields, updated_at = np.frombuffer(half, layout.record)[0].item()
        self.assertEqual((session_id, updated_at), (7, 8))
        self.assertEqual(schema.state(tuple(fields)), state)

    @settings(LAW, max_examples=100)
    @given(st.data(), classes)
    def test_accepts_what_lies_within(self, data: st.DataObject, plan: list[Plan]) -> None:
        """Packed values are accepted unchanged, or refused by the first field they lie outside."""
        schema = planned(plan)
        packed = tuple(data.draw(each.packed()) for each in plan)
        wrong = [f"f{index}" for index, each in enumerate(plan) if not each.holds(packed[index])]
        if wrong:
            error = self.assertRaises(InvalidState, schema.accept, *packed)
            self.assertEqual(error.field, wrong[0])
        else:
            self.assertEqual(schema.accept(*packed), packed)

    @settings(LAW, max_examples=100)
    @given(st.data(), classes)
    def test_any_bytes(self, data: st.DataObject, plan: list[Plan]) -> None:
        """Whatever the bytes, they are refused or make a state that packs to the same values."""
        schema = planned(plan)
        raw = data.draw(st.binary(min_size=schema.size, max_size=schema.size))
        try:
            values = schema.accept(*schema.struct.unpack(raw))
        except InvalidState:
            return
        self.assertEqual(schema.values(schema.state(values)), values)
