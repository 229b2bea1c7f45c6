"""State classes: what can be packed, what a field takes, and every form of one state."""

from __future__ import annotations

import math
import sys
import zlib
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
from attrs import validators
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.state.default import PlayerState
from playerstate.state.kind import Kind
from playerstate.state.kinds import Bool, Float, Int, Text
from playerstate.state.layout import RowLayout
from playerstate.state.schema import (
    MAX_FIELDS_BYTES,
    InvalidState,
    SchemaError,
    StateSchema,
    text,
    transient,
    was,
    within,
)
from tests.kit.kinds import holds, kinds, packed_values, plain_values, schema_of
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
        """The fields are the class's attributes, in their order, with their kinds and defaults."""
        self.assertEqual(
            [(each.name, each.kind, each.default) for each in StateSchema.of(Avatar).fields],
            [
                ("x", Float(0.0, 4096.0, resolution=1 / 64), 350.0),
                ("y", Float(), 200.0),
                ("hp", Int(0, 100), 100),
                ("gold", Int(), 0),
                ("alive", Bool(), True),
                ("zone", Text(16), "spawn"),
            ],
        )

    def test_default_of_its_own_type(self) -> None:
        """A default is kept as the plain value that its field has for it."""
        (x, alive) = StateSchema.of(made(x=field(float, 350), alive=field(bool, np.True_))).fields
        self.assertEqual((type(x.default), x.default), (float, 350.0))
        self.assertIs(alive.default, True)

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
        self.assertEqual(schema.fingerprint, 0xDD527E9E)
        self.assertEqual(schema.fingerprint, zlib.crc32(schema.canonical.encode()))

    def test_whole_resolution(self) -> None:
        """A resolution given as an int is the same grid as the float of its value."""
        whole = StateSchema.of(made(x=field(float, 0.0, within(resolution=2))))
        broken = StateSchema.of(made(x=field(float, 0.0, within(resolution=2.0))))
        self.assertEqual(whole.canonical, "x:float/2.0")
        self.assertEqual(whole.fingerprint, broken.fingerprint)


FOUR = "allowed: float, int, bool, or str with metadata=text(n)"

DECLARED_WRONG: dict[str, list[Any]] = {
    FOUR: [
        field(kind, 1.0) for kind in (bytes, list, complex, float | None, Any, None, np.float64)
    ],
    # The constructor must set it, to a constant.
    "init=False": [field(float, 1.0, init=False)],
    "has no default": [field(float)],
    "factory": [field(float, attrs.Factory(float))],
    "has a converter": [field(int, 1, converter=abs)],
    # A text states its size, a whole number from 1, and nothing else has one.
    "str needs metadata=text(n), where n is its size in bytes, at least 1": [
        field(str, "a"),
        *(field(str, "", text(size)) for size in (0, -1, True, 1.5, "16", None)),
    ],
    "text(n) is for str, not float": [field(float, 0.0, text(4))],
    "text(n) is for str, not int": [field(int, 0, text(4))],
    "text(n) is for str, not bool": [field(bool, False, text(4))],
    # Numbers alone have bounds, which the field itself can hold; of an int they are ints.
    "within() is for float and int, text(n) for str": [
        field(str, "", {**metadata, **text(4)})
        for metadata in (within(0), within(None, 1), within(resolution=1.0))
    ],
    "within() is for float and int, not bool": [
        field(bool, False, metadata)
        for metadata in (within(0), within(None, 1), within(resolution=1.0))
    ],
    "bound 0.0 of an int must be an int": [field(int, 1, within(0.0))],
    "bound 10.0 of an int must be an int": [field(int, 1, within(None, 10.0))],
    "is not a number the field can hold": [
        field(float, 1.0, metadata)
        for bound in (math.nan, math.inf, -math.inf, "1", True, 10**400, Decimal(1))
        for metadata in (within(bound), within(None, bound))
    ],
    **{
        f"bound {bound!r} is not a number the field can hold": [field(int, 1, within(bound))]
        for bound in (INT64_MIN - 1, INT64_MAX + 1, False)
    },
    "no value lies within 2 and 1": [
        field(int, 1, within(2, 1)),
        field(float, 1.0, within(2, 1)),
        field(int, 1, within(2), validator=validators.le(1)),
    ],
    # A resolution is a finite number above 0, of a float.
    "a resolution is for float": [field(int, 1, within(resolution=2))],
    **{
        f"resolution {resolution!r} is not above 0": [
            field(float, 1.0, within(resolution=resolution))
        ]
        for resolution in (0, 0.0, -1.0, math.nan, math.inf, True, "1", 10**400)
    },
}
"""Fields that no state class may declare, by what the line says of them."""


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

    def test_declarations(self) -> None:
        """What a field cannot be declared as is refused, and the line says what it is to be."""
        for words, fields in DECLARED_WRONG.items():
            for each in fields:
                with self.subTest(words=words, field=each):
                    self.assertIn(words, self.refused("x", each))

    def test_default_of_another_type(self) -> None:
        """A default of another type is refused, with what the field takes; so is one out of bounds:
        a player cannot spawn where no update could bring them.
        """
        for kind, default, metadata, allowed in (
            (float, "1", None, "a finite number"),
            (float, None, None, "a finite number"),
            (float, math.nan, None, "a finite number"),
            (float, -math.inf, None, "a finite number"),
            (float, -0.5, within(0.0), "a finite number, at least 0.0"),
            (int, 1.5, None, "a whole number of 64 bits"),
            (int, INT64_MAX + 1, None, "a whole number of 64 bits"),
            (int, 101, within(0, 100), "a whole number from 0 to 100"),
            (bool, 1, None, "True or False"),
            (str, b"a", text(4), "text of at most 4 bytes of UTF-8, without NUL"),
            (str, "ééé", text(4), "text of at most 4 bytes of UTF-8, without NUL"),
        ):
            message = self.refused("x", field(kind, default, metadata))
            self.assertIn(f"the default x = {default!r}: must be {allowed}", message)

    def test_second_field_is_the_one_named(self) -> None:
        """Of several fields, the one that is wrong is named."""
        error = self.assertRaises(
            SchemaError, StateSchema.of, made(a=field(int, 1), b=field(int, 1, within(5)))
        )
        self.assertTrue(str(error).startswith("Made.b: the default b = 1"), str(error))

    def test_reserved_names(self) -> None:
        """The store's own columns cannot be fields, in whatever case."""
        for name in ("session_id", "updated_at", "Session_ID", "oid", "rowid", "_ROWID_"):
            self.assertIn(
                "the store has a column of this name", self.refused(name, field(float, 1.0))
            )

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
        self.assertEqual((error.field, error.value), ("hp", 101))
        self.assertEqual(str(error), "hp = 101: must be a whole number from 0 to 100")

    def test_value_of_another_type(self) -> None:
        """A state of which a value is of another type, or too long, is refused by the field."""
        schema = StateSchema.of(Avatar)
        for name, value in (("x", "1.0"), ("hp", 1.0), ("alive", 1), ("zone", 17 * "a")):
            wrong = attrs.evolve(Avatar(), **{name: value})
            error = self.assertRaises(InvalidState, schema.values, wrong)
            self.assertEqual((error.field, error.value), (name, value))

    def test_negative_zero(self) -> None:
        """A negative zero is taken in as 0.0, by `values` and by `accept`."""
        schema = StateSchema.of(made(x=field(float, -1.0, within(-1.0, 0.0))))
        for (packed,) in (schema.values(schema.state_class(-0.0)), schema.accept(-0.0)):
            self.assertEqual(math.copysign(1.0, packed), 1.0)

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


classes = st.lists(kinds, min_size=1, max_size=6)


class SchemaLawTests(SynchronousTestCase):
    """What holds for every state class and every value."""

    @settings(LAW, max_examples=60)
    @given(st.data(), classes)
    def test_every_state_survives_its_row(self, data: st.DataObject, drawn: list[Kind]) -> None:
        """A state is the same after it was packed into bytes and unpacked."""
        schema = schema_of(drawn)
        state = schema.state_class(*(data.draw(plain_values(kind)) for kind in drawn))
        packed = schema.struct.pack(*schema.values(state))
        self.assertEqual(schema.state(schema.struct.unpack(packed)), state)

    @settings(LAW, max_examples=60)
    @given(st.data(), classes)
    def test_every_record_shows_the_state(self, data: st.DataObject, drawn: list[Kind]) -> None:
        """A store reads from a record what was packed into the row, field by field."""
        schema = schema_of(drawn)
        layout = RowLayout(schema.fields)
        state = schema.state_class(*(data.draw(plain_values(kind)) for kind in drawn))
        values = schema.values(state)
        half = layout.struct.pack(1, 7, 0, 8, 0, *values, 1)
        session_id, *fields, updated_at = np.frombuffer(half, layout.record)[0].item()
        self.assertEqual((session_id, updated_at), (7, 8))
        self.assertEqual(schema.state(tuple(fields)), state)

    @settings(LAW, max_examples=100)
    @given(st.data(), classes)
    def test_accepts_what_lies_within(self, data: st.DataObject, drawn: list[Kind]) -> None:
        """Packed values are accepted unchanged, or refused by the first field they lie outside."""
        schema = schema_of(drawn)
        packed = tuple(data.draw(packed_values(kind)) for kind in drawn)
        wrong = [f"f{i}" for i, kind in enumerate(drawn) if not holds(kind, packed[i])]
        if wrong:
            error = self.assertRaises(InvalidState, schema.accept, *packed)
            self.assertEqual(error.field, wrong[0])
        else:
            self.assertEqual(schema.accept(*packed), packed)

    @settings(LAW, max_examples=100)
    @given(st.data(), classes)
    def test_any_bytes(self, data: st.DataObject, drawn: list[Kind]) -> None:
        """Whatever the bytes, they are refused or make a state that packs to the same values."""
        schema = schema_of(drawn)
        raw = data.draw(st.binary(min_size=schema.size, max_size=schema.size))
        try:
            values = schema.accept(*schema.struct.unpack(raw))
        except InvalidState:
            return
        self.assertEqual(schema.values(schema.state(values)), values)


class MetadataTests(SynchronousTestCase):
    """What the metadata of a field says beside its kind."""

    def state(self, **metadata: Any) -> type:
        """A class of int fields with this metadata."""
        return made(**{name: field(int, 1, given) for name, given in metadata.items()})

    def test_together(self) -> None:
        """Metadata is joined by |, and read field by field."""
        schema = StateSchema.of(
            self.state(hp=within(0, 9) | transient() | was("life", "Lives"), x={})
        )
        hp, x = schema.fields
        self.assertEqual((hp.kind, hp.is_transient, hp.was), (Int(0, 9), True, ("life", "Lives")))
        self.assertEqual((x.is_transient, x.was), (False, ()))
        self.assertEqual(schema.stored, (x,))

    def test_not_on_the_wire(self) -> None:
        """Neither changes the wire, and so the fingerprint."""
        plain = StateSchema.of(self.state(hp={}, x={}))
        schema = StateSchema.of(self.state(hp=transient(), x=was("y")))
        self.assertEqual(schema.canonical, plain.canonical)
        self.assertEqual(schema.struct.format, plain.struct.format)

    def test_restored(self) -> None:
        """Stored values are those of the stored fields; the others get their default."""
        schema = StateSchema.of(self.state(hp=transient(), x={}))
        self.assertEqual(schema.restore((5,)), (1, 5))
        self.assertEqual(schema.stored_values((5,)), (5,))
        self.assertEqual(schema.with_transients((1, 5), (7, 8)), (7, 5))
        self.assertRaises(InvalidState, schema.restore, ("five",))

    def test_refused(self) -> None:
        """Old names that cannot be, or could belong to two fields, are refused by name."""
        for fields, why in (
            ({"x": was("a b")}, "x: was('a b'): must be the name of a field"),
            ({"x": was("X")}, "x: was('X'): x has that name, or had it"),
            ({"x": was("y"), "y": {}}, "x: was('y'): y has that name, or had it"),
            ({"x": was("z"), "y": was("Z")}, "y: was('Z'): x has that name, or had it"),
            ({"x": transient()}, "has no field to store: leave one without transient()"),
        ):
            error = self.assertRaises(SchemaError, StateSchema.of, self.state(**fields))
            self.assertIn(why, str(error))
