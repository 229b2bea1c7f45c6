"""Classes with checks of their own: held to exactly, or refused at start."""

from __future__ import annotations

import abc
import itertools
import math
import struct
import sys
from typing import Any

import attrs
from attrs import setters, validators
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.state.field import InvalidState
from playerstate.state.kind import Kind
from playerstate.state.kinds import Bool, Float, Int, Text
from playerstate.state.schema import SchemaError, StateSchema, text, within
from playerstate.testing import SteppedService
from playerstate.wire.messages import MOVE, Codec, Malformed
from tests.kit.kinds import plain_of
from tests.kit.support import LAW, field, made


@attrs.frozen
class Odd:
    """A validator that raises something odd, also when it is shown."""

    error: type[Exception]

    def __call__(self, *_: Any) -> None:
        """Validate."""
        raise self.error

    def __repr__(self) -> str:
        """What a message would show of it."""
        raise self.error


class OwnChecksTests(SynchronousTestCase):
    """What a class checks by itself is held to everywhere, or the class is refused."""

    def schema(self, kind: Any, default: Any, validator: Any, metadata: Any = None) -> StateSchema:
        """The schema of a class with one field under this validator."""
        return StateSchema.of(made(v=field(kind, default, metadata, validator=validator)))

    def test_bounds(self) -> None:
        """Validators that say bounds are bounds."""
        low, high = sys.float_info.max * -1, sys.float_info.max
        for kind, validator, expected in (
            (int, validators.ge(0), (0, 2**63 - 1)),
            (int, validators.gt(0), (1, 2**63 - 1)),
            (int, validators.le(9), (-(2**63), 9)),
            (int, validators.lt(9), (-(2**63), 8)),
            (int, validators.gt(0.5), (1, 2**63 - 1)),
            (int, validators.lt(9.5), (-(2**63), 9)),
            (int, validators.in_(range(1, 6)), (1, 5)),
            (int, validators.in_([3, 1, 2]), (1, 3)),
            (float, validators.ge(0), (0.0, high)),
            (float, validators.gt(0.0), (5e-324, high)),
            (float, validators.lt(2.0), (low, math.nextafter(2.0, 0.0))),
            (float, validators.ge(2**53 + 1), (2.0**53 + 2, high)),
            (float, validators.gt(2**53 + 3), (2.0**53 + 4, high)),
            (float, validators.le(2**53 + 3), (low, 2.0**53 + 2)),
            (float, validators.lt(-(2**53) - 1), (low, -(2.0**53) - 2)),
            (int, validators.in_(range(5, -1, -1)), (0, 5)),
            (int, validators.in_(range(-(2**63), 2**63)), (-(2**63), 2**63 - 1)),
            (int, validators.and_(validators.ge(0), validators.le(7)), (0, 7)),
            (int, [validators.instance_of(int), validators.ge(0)], (0, 2**63 - 1)),
            (int, validators.optional(validators.ge(0)), (0, 2**63 - 1)),
        ):
            default = kind(min(max(1, math.ceil(expected[0])), math.floor(expected[1])))
            (read,) = self.schema(kind, default, validator).fields
            self.assertEqual((read.kind.low, read.kind.high), expected, validator)

    def test_with_within(self) -> None:
        """The narrower of both holds."""
        schema = self.schema(int, 5, validators.ge(3), within(0, 9))
        self.assertEqual(schema.fields[0].kind, Int(3, 9))
        self.assertRaises(InvalidState, schema.accept, 2)

    def test_text(self) -> None:
        """A length in characters that no text of so many bytes has is held to already."""
        self.schema(str, "a", validators.max_len(4), text(4))
        error = self.assertRaises(
            SchemaError, self.schema, str, "a", validators.max_len(4), text(5)
        )
        self.assertIn("use text(4)", str(error))

    def test_restored_outside(self) -> None:
        """What was saved under wider bounds is restored, whatever the validators say now."""
        schema = self.schema(int, 1, validators.ge(0))
        state = schema.state((-5,))
        self.assertEqual(state.v, -5)
        self.assertIsInstance(state, schema.state_class)
        self.assertRaises(InvalidState, schema.values, state)

    def test_refused(self) -> None:
        """Validators that say something else are refused, by the field's name."""
        for kind, default, validator, metadata in (
            (int, 1, lambda *_: None, None),
            (int, 1, validators.in_([1, 3]), None),
            (int, 1, validators.in_([]), None),
            (int, 1, validators.ge(math.nan), None),
            (float, 1.0, validators.in_([1.0, 2.0]), None),
            (float, 1.0, validators.instance_of(int), None),
            (float, 1.0, validators.not_(validators.ge(3.0)), None),
            (int, 1, validators.or_(validators.ge(3), validators.le(1)), None),
            (bool, True, validators.in_([True]), None),
            (str, "a", validators.matches_re("a*"), text(4)),
            (str, "a", validators.min_len(1), text(4)),
            (int, 1, validators.in_(itertools.count()), None),
            (int, 1, validators.in_(range(0, 2**62, 2)), None),
            (int, 1, validators.in_(range(0)), None),
            (int, 1, validators.in_([[1], [2]]), None),
            (int, 1, validators.instance_of("int"), None),
            (int, 1, validators.le(10**400), None),
            (float, 1.0, validators.ge(-(10**5000)), None),
            (int, 1, validators.deep_iterable(validators.ge(0)), None),
            (int, 1, Odd(ZeroDivisionError), None),
            (str, "a", validators.max_len("4"), text(4)),
        ):
            error = self.assertRaises(SchemaError, self.schema, kind, default, validator, metadata)
            self.assertIn("Made.v: ", str(error))

    def test_default_outside(self) -> None:
        """A default that its validator refuses is refused at start."""
        error = self.assertRaises(SchemaError, self.schema, int, -1, validators.ge(0))
        self.assertIn("at least 0", str(error))

    def test_own_building(self) -> None:
        """A class that does more than attrs when it is built is refused, a subclass as well."""

        def hook(self: Any) -> None:
            """Nothing yet."""

        def start(self: Any, x: float = 0.0) -> None:
            """Not by attrs."""

        def new(cls: Any, *args: Any) -> Any:
            return object.__new__(cls)

        def put(self: Any, name: str, value: Any) -> None:
            object.__setattr__(self, name, abs(value))

        def get(self: Any, name: str) -> Any:
            return object.__getattribute__(self, name)

        for name, method in (
            ("__attrs_post_init__", hook),
            ("__attrs_pre_init__", hook),
            ("__init__", start),
            ("__new__", new),
            ("__setattr__", put),
            ("__getattribute__", get),
        ):
            own = type("Own", (made(x=field(float, 0.0)),), {name: method})
            error = self.assertRaises(SchemaError, StateSchema.of, own)
            self.assertIn(name, str(error))

    def test_metaclass(self) -> None:
        """So is one whose metaclass builds it in its own way."""

        class Counting(type):
            def __call__(cls, *args: Any, **kwargs: Any) -> Any:
                return super().__call__(*args, **kwargs)

        own = Counting("Own", (made(x=field(float, 0.0)),), {})
        error = self.assertRaises(SchemaError, StateSchema.of, own)
        self.assertIn("has a metaclass with a __call__ of its own", str(error))

    def test_property(self) -> None:
        """A property in place of a field is refused, since it may hold another value."""
        halved = property(lambda self: 0.5, lambda self, value: None)
        own = type("Own", (made(x=field(float, 0.0)),), {"x": halved})
        error = self.assertRaises(SchemaError, StateSchema.of, own)
        self.assertEqual(str(error), "Own has a property x in place of its field")

    def test_not_built(self) -> None:
        """A class that cannot be built from its own defaults is refused, by what it raised."""
        bases = (made(x=field(float, 0.0)), abc.ABC)
        own = abc.ABCMeta("Own", bases, {"go": abc.abstractmethod(lambda self: None)})
        error = self.assertRaises(SchemaError, StateSchema.of, own)
        self.assertIn("Own cannot be built from its defaults: TypeError(", str(error))

    def test_every_way_to_define(self) -> None:
        """However attrs makes a class, its states are those that it builds itself."""
        for options in (
            {"frozen": True, "cache_hash": True, "slots": True},
            {"frozen": True, "cache_hash": True, "slots": False},
            {"unsafe_hash": True, "cache_hash": True, "slots": False},
            {"slots": False},
            {"eq": False},
            {"order": True},
            {"kw_only": True, "frozen": True},
            {"weakref_slot": False, "slots": True},
            {"on_setattr": setters.validate},
            {"on_setattr": lambda state, attribute, value: 1 / 0},
        ):
            fields = {
                "x": field(float, 0.0, validator=validators.ge(0)),
                "_n": field(int, 1, validator=validators.le(9)),
            }
            with self.subTest(options=options):
                state_class = attrs.make_class("Made", fields, **options)
                schema = StateSchema.of(state_class)
                state, own = schema.state((2.5, 3)), state_class(x=2.5, n=3)
                self.assertEqual(object.__getstate__(state), object.__getstate__(own))
                if options.get("eq", True):
                    self.assertEqual(state, own)
                if state_class.__hash__ not in (None, object.__hash__):
                    self.assertEqual(hash(state), hash(own))
                self.assertEqual(schema.values(state), (2.5, 3))

    def test_value_that_cannot_be_shown(self) -> None:
        """A value that cannot be shown is refused as any other."""
        schema = StateSchema.of(made(x=field(float, 0.0)))
        for value in (10**5000, Odd(KeyError)):
            error = self.assertRaises(InvalidState, schema.values, schema.state_class(value))
            self.assertEqual(str(error), f"x = a {type(value).__name__}: must be a finite number")


NUMBERS = {
    "ge": validators.ge,
    "gt": validators.gt,
    "le": validators.le,
    "lt": validators.lt,
}
WHOLE = st.sampled_from([0, 1, -1, 5, 2**53 + 1, -(2**53) - 3, 2**63 - 1, 10**400]) | st.integers(
    -20, 20
)
REAL = WHOLE | st.sampled_from([0.0, -0.0, 0.5, -1.5, 1e300, math.inf, math.nan, 5e-324])


@st.composite
def number_checks(draw: st.DrawFn) -> Any:
    """A validator for numbers, of those that attrs has."""
    kind = draw(st.sampled_from([*NUMBERS, "in", "range", "and", "or", "not", "optional", "type"]))
    if kind in NUMBERS:
        return NUMBERS[kind](draw(REAL))
    if kind == "in":
        return validators.in_(draw(st.lists(st.integers(-3, 3), max_size=5)))
    if kind == "range":
        low, width = draw(st.integers(-5, 5)), draw(st.integers(0, 9))
        return validators.in_(range(low, low + width, draw(st.sampled_from([1, 1, 2, -1]))))
    if kind == "type":
        return validators.instance_of(draw(st.sampled_from([int, float, (int, float), bool])))
    inner = draw(number_checks())
    if kind == "and":
        return validators.and_(inner, draw(number_checks()))
    if kind == "or":
        return validators.or_(inner, draw(number_checks()))
    return (validators.not_ if kind == "not" else validators.optional)(inner)


@st.composite
def checked_fields(draw: st.DrawFn) -> Any:
    """A field with a check of its own, perhaps."""
    kind = draw(st.sampled_from([int, float, bool, str]))
    if kind is str:
        check = draw(
            st.sampled_from([validators.max_len, validators.min_len]).flatmap(
                lambda make: st.integers(0, 6).map(make)
            )
            | st.just(validators.matches_re("[a-z]*"))
            | st.none()
        )
        return field(str, draw(st.sampled_from(["", "ab"])), text(4), validator=check)
    check = draw(number_checks() | st.none())
    if kind is bool:
        return field(bool, draw(st.booleans()), validator=check)
    default = kind(draw(st.integers(-3, 6)))
    metadata = draw(st.sampled_from([None, None, within(-10, 10)]))
    return field(kind, default, metadata, validator=check)


PACKED: dict[type[Kind], st.SearchStrategy[Any]] = {
    Int: st.integers(-12, 12) | st.integers(-(2**63), 2**63 - 1),
    Float: st.floats()
    | st.integers(-12, 12).map(float)
    | st.sampled_from([2.0**53, 2.0**53 + 2, -(2.0**53) - 4, 5e-324, -0.0]),
    Bool: st.integers(0, 3),
    Text: st.binary(min_size=4, max_size=4) | st.sampled_from([b"ab\0\0", b"abcd", b"AB\0\0"]),
}
"""What a client may put into a field."""


class WireLawTests(SynchronousTestCase):
    """What the wire lets in is what the class can be built with."""

    @settings(LAW, max_examples=300)
    @given(st.data(), st.lists(checked_fields(), min_size=1, max_size=3))
    def test_as_the_class(self, data: st.DataObject, fields: list[Any]) -> None:
        """A MOVE is accepted just where its class takes its values, within `within`."""
        state_class = made(**{f"f{index}": each for index, each in enumerate(fields)})
        try:
            schema = StateSchema.of(state_class)
        except SchemaError as error:
            self.assertIn("Made.f", str(error))
            return
        codec = Codec(schema)
        for _ in range(5):
            packed = tuple(data.draw(PACKED[type(each.kind)]) for each in schema.fields)
            message = struct.pack("<BI", MOVE, 1) + schema.struct.pack(*packed)
            try:
                _, values = codec.decode_move(message)
            except (Malformed, InvalidState):
                accepted = None
            else:
                accepted = schema.state(values)
            self.assertEqual(accepted, self.built(state_class, schema, packed))

    def built(self, state_class: Any, schema: StateSchema, packed: tuple[Any, ...]) -> Any:
        """What the class makes of these values; None where it, or `within`, refuses them."""
        plain = []
        for read, value in zip(schema.fields, packed, strict=True):
            limits = attrs.fields_dict(state_class)[read.name].metadata.get("playerstate.within")
            try:
                plain.append(plain_of(read.kind, value))
            except ValueError:
                return None
            if limits is not None and not limits.low <= value <= limits.high:
                return None
        try:
            return state_class(*plain)
        except (ValueError, TypeError):
            return None

    def test_played(self) -> None:
        """Whatever is let in can be shown, left with and come back to."""
        state_class = attrs.make_class(
            "Made",
            {
                "hp": field(int, 5, validator=[validators.instance_of(int), validators.gt(0)]),
                "x": field(float, 1.0, validator=validators.lt(2**53 + 1)),
                "name": field(str, "", text(4), validator=validators.max_len(4)),
            },
            frozen=True,
            cache_hash=True,
        )
        stepped = SteppedService(state_class)
        codec = Codec(stepped.service.schema)
        for hp, x, name in (
            (1, sys.float_info.min, b"\xc3\xa4\0\0"),
            (2**63 - 1, 2.0**53, b"abcd"),
        ):
            stepped.join(42)
            message = codec.encode_move(1, (hp, x, name))
            _, values = codec.decode_move(message)
            state = stepped.service.schema.state(values)
            stepped.service.update(42, state)
            self.assertEqual(hash(stepped.service.state(42)), hash(state))
            left = stepped.service.leave(42)
            stepped.reactor.advance(0.05)
            stepped.settle()
            self.successResultOf(left)
            self.assertEqual(stepped.join(42).state, state)
        stepped.stop()
