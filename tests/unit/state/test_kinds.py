"""Each kind of field, as one table: its form, what it takes and in which words it refuses."""

from __future__ import annotations

import math
import struct
import sys
from decimal import Decimal
from typing import Any, NoReturn

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.state.compiling import compile_accept
from playerstate.state.field import Field, InvalidState
from playerstate.state.kind import Column, Kind
from playerstate.state.kinds import KINDS, Bool, Float, Int, Text, of_canonical
from tests.kit.kinds import holds, kinds, packed_values
from tests.kit.support import LAW

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
FLOAT_MAX = sys.float_info.max


class Odd:
    """What raises something odd when it is asked for a number."""

    def __float__(self) -> float:
        """A number."""
        raise ZeroDivisionError

    __index__ = __float__


@attrs.frozen
class Case:
    """What is expected of one kind.

    Attributes:
        form: size, `struct` format, numpy type, canonical text, column.
        allowed: in words.
        taken: plain values and what each is packed as.
        refused: plain values.
        accepted: packed values that are taken in as they are.
        rejected: packed values.
    """

    kind: Kind
    form: tuple[int, str, str, str, Column]
    allowed: str
    taken: list[tuple[Any, Any]] = attrs.field(factory=list)
    refused: list[Any] = attrs.field(factory=list)
    accepted: list[Any] = attrs.field(factory=list)
    rejected: list[Any] = attrs.field(factory=list)


DOUBLE = (8, "d", "<f8", "float", Column.REAL)
LONG = (8, "q", "<i8", "int", Column.INTEGER)

CASES = [
    Case(
        Float(),
        DOUBLE,
        "a finite number",
        taken=[
            (3, 3.0),
            (True, 1.0),
            (np.float32(3.5), 3.5),
            (np.int8(3), 3.0),
            (Decimal("3.5"), 3.5),
            (FLOAT_MAX, FLOAT_MAX),
            (-FLOAT_MAX, -FLOAT_MAX),
        ],
        refused=[
            *(math.nan, math.inf, -math.inf, 10**400, Decimal("sNaN")),
            *("1.0", b"1.0", bytearray(b"1"), None, 1j, [1.0], Odd()),
        ],
        accepted=[5e-324, -5e-324, 0.1, 0.0, FLOAT_MAX, -FLOAT_MAX],
        rejected=[math.nan, math.inf, -math.inf],
    ),
    Case(
        Float(0.25, 0.75),
        DOUBLE,
        "a finite number from 0.25 to 0.75",
        taken=[(2.0, 2.0)],
        refused=[math.nan, math.inf],
        accepted=[0.25, 0.5, 0.75],
        rejected=[math.nextafter(0.25, 0), math.nextafter(0.75, 1), math.nan, -math.inf],
    ),
    Case(
        Float(low=0.0, resolution=1 / 64),
        (8, "d", "<f8", "float/0.015625", Column.REAL),
        "a finite number, at least 0.0",
        accepted=[0.0, 0.01, FLOAT_MAX],
        rejected=[-5e-324, math.inf, math.nan],
    ),
    Case(
        Float(high=0.0),
        DOUBLE,
        "a finite number, at most 0.0",
        accepted=[-FLOAT_MAX, -5e-324, 0.0],
        rejected=[5e-324, -math.inf, math.nan],
    ),
    Case(
        Int(),
        LONG,
        "a whole number of 64 bits",
        taken=[
            (INT64_MIN, INT64_MIN),
            (INT64_MAX, INT64_MAX),
            (np.int64(INT64_MIN), INT64_MIN),
            (np.uint8(255), 255),
            (True, 1),
        ],
        refused=[
            *(INT64_MIN - 1, INT64_MAX + 1, np.uint64(2**63)),
            *(1.0, "1", None, Decimal(1), Odd()),
        ],
        accepted=[INT64_MIN, -1, 0, INT64_MAX],
    ),
    Case(
        Int(-3, 7),
        LONG,
        "a whole number from -3 to 7",
        taken=[(8, 8), (INT64_MIN, INT64_MIN)],
        refused=[INT64_MAX + 1],
        accepted=[-3, 0, 7],
        rejected=[-4, 8, INT64_MIN, INT64_MAX],
    ),
    Case(
        Int(high=9),
        LONG,
        "a whole number, at most 9",
        accepted=[INT64_MIN, 9],
        rejected=[10, INT64_MAX],
    ),
    Case(
        Int(low=0),
        LONG,
        "a whole number, at least 0",
        accepted=[0, INT64_MAX],
        rejected=[-1, INT64_MIN],
    ),
    Case(
        Bool(),
        (1, "B", "u1", "bool", Column.BOOLEAN),
        "True or False",
        taken=[(True, 1), (False, 0), (np.True_, 1), (np.False_, 0)],
        refused=[0, 1, 2, "True", None],
        accepted=[0, 1],
        rejected=[2, 255],
    ),
    Case(
        Text(4),
        (4, "4s", "S4", "text(4)", Column.TEXT),
        "text of at most 4 bytes of UTF-8, without NUL",
        taken=[
            ("", b"\0\0\0\0"),
            ("ab", b"ab\0\0"),
            ("éa", b"\xc3\xa9a\0"),
            ("abcd", b"abcd"),
        ],
        refused=["abcde", "ééé", "a\0b", "a\0", "\ud800", b"ab", 1, None],
        accepted=[b"\0\0\0\0", b"a\0\0\0", b"\xc3\xa9\0\0", b"abcd"],
        rejected=[b"\xff\0\0\0", b"a\0b\0", b"\0a\0\0", b"abc\xc3", b"\xed\xa0\x80\0"],
    ),
]


def one_by_one(kind: Kind, packed: list[Any]) -> list[Any]:
    """Each value as it is taken in by itself; None where it is not."""

    def refuse(index: int, value: Any) -> NoReturn:
        raise InvalidState("x", value, kind.allowed)

    accept = compile_accept([kind], refuse)
    found = []
    for value in packed:
        try:
            found += accept(value)
        except InvalidState:
            found.append(None)
    return found


def together(kind: Kind, column: Any) -> list[bool]:
    """Which values of a column are taken in; these are changed to what they are taken in as."""
    good = np.ones(len(column), np.bool_)
    kind.check_column(column, good)
    kind.settle_column(column, good)
    return good.tolist()


def bits(kind: Kind, packed: list[Any]) -> bytes:
    """The values' bytes in a row."""
    return struct.pack("<" + kind.format * len(packed), *packed)


class KindTests(SynchronousTestCase):
    """What the table says, kind after kind."""

    def test_all(self) -> None:
        """The table has every kind there is."""
        self.assertEqual({type(case.kind) for case in CASES}, set(KINDS))

    def test_form(self) -> None:
        """Size, format, numpy type, canonical text and column are these, and agree."""
        for case in CASES:
            kind = case.kind
            with self.subTest(kind=kind):
                form = (kind.size, kind.format, kind.dtype, kind.canonical, kind.column)
                self.assertEqual(form, case.form)
                self.assertEqual(struct.calcsize("<" + kind.format), kind.size)
                self.assertEqual(np.dtype(kind.dtype).itemsize, kind.size)

    def test_taken(self) -> None:
        """A plain value is packed, to the bit and of the packed type, and is plain again."""
        for case in CASES:
            field = Field("x", case.kind)
            for plain, packed in case.taken:
                with self.subTest(kind=case.kind, plain=plain):
                    found = field.encode(plain)
                    self.assertEqual((type(found), found), (type(packed), packed))
                    again = case.kind.decode(found)
                    self.assertIs(type(again), case.kind.plain)
                    self.assertEqual(again, plain)
                    self.assertEqual(case.kind.packed_as_is, again is found)

    def test_refused(self) -> None:
        """What a kind cannot hold is refused, with the field, the value and what is allowed."""
        for case in CASES:
            for value in case.refused:
                with self.subTest(kind=case.kind, value=value):
                    error = self.assertRaises(InvalidState, Field("x", case.kind).encode, value)
                    self.assertEqual((error.field, error.allowed), ("x", case.allowed))
                    self.assertIs(error.value, value)
                    self.assertEqual(str(error), f"x = {value!r}: must be {case.allowed}")

    def test_accepted(self) -> None:
        """Packed values within the bounds are taken in to the bit, the others are not; alone and
        in a column, where the others stay as they are.
        """
        for case in CASES:
            kind, packed = case.kind, [*case.accepted, *case.rejected]
            with self.subTest(kind=kind):
                expected = [*case.accepted, *[None] * len(case.rejected)]
                found = one_by_one(kind, packed)
                self.assertEqual(found, expected)
                self.assertEqual(bits(kind, found[: len(case.accepted)]), bits(kind, case.accepted))
                column = np.frombuffer(bytearray(bits(kind, packed)), kind.dtype)
                good = together(kind, column)
                self.assertEqual(good, [value is not None for value in expected])
                self.assertEqual(column.tobytes(), bits(kind, packed))

    def test_negative_zero(self) -> None:
        """A negative zero is taken in as 0.0, alone and in a column; what is refused stays so."""
        kind = Float(-1.0, 0.0)
        (alone,) = one_by_one(kind, [-0.0])
        self.assertEqual(bits(kind, [alone]), bytes(8))
        column = np.array([-0.0, -0.5, 0.5])
        self.assertEqual(together(kind, column), [True, True, False])
        self.assertEqual(column.tobytes(), bits(kind, [0.0, -0.5, 0.5]))
        beyond = np.array([-0.0])
        self.assertEqual(together(Float(1.0, 2.0), beyond), [False])
        self.assertEqual(beyond.tobytes(), bits(kind, [-0.0]))

    def test_written_down(self) -> None:
        """What somebody wrote is read as its kind, or not at all."""
        for kind, written, plain in (
            (Float(), " 1.5e3", 1500.0),
            (Float(), "7", 7.0),
            (Int(), "-12 ", -12),
            (Bool(), "0", False),
            (Bool(), " TRUE", True),
            (Text(4), " a", " a"),
            (Text(4), "", ""),
        ):
            found = kind.parse(written)
            self.assertEqual((type(found), found), (kind.plain, plain))
        for kind, written in (
            *((Float(), each) for each in ("", "x", "1,5")),
            *((Int(), each) for each in ("", "1.0", "1e3")),
            *((Bool(), each) for each in ("", "yes", "2", "1.0")),
        ):
            self.assertRaises(ValueError, kind.parse, written)

    def test_canonical(self) -> None:
        """A canonical text names the kind it is of; its bounds and its grid are not part of it."""
        for canonical, kind in (
            ("float", Float()),
            ("float/0.015625", Float()),
            ("int", Int()),
            ("bool", Bool()),
            ("text(4)", Text(4)),
            ("text(1024)", Text(1024)),
        ):
            self.assertEqual(of_canonical(canonical), kind)
        for wrong in (
            *("", "flaot", "text", "text()", "text(0)", "text(-1)", "text(x)", "float(8)"),
            *("bool(1)", "int(8)", "text(4", "Text(4)", "float ", f"text({'9' * 5000})"),
        ):
            self.assertRaises(ValueError, of_canonical, wrong)

    def test_carried(self) -> None:
        """Values of another kind are not carried on; a text of another size is where it fits."""
        columns = {
            Float(0.0, 1.0): np.array([0.5, 9.0]),
            Int(): np.array([1, 2]),
            Bool(): np.array([0, 1], "u1"),
            Text(4): np.array([b"ab", b"abcd"]),
        }
        today: tuple[Kind, ...] = (Float(), Int(0, 1), Bool(), Text(9))
        for kind in today:
            for before, values in columns.items():
                expected = [type(before) is type(kind)] * 2
                self.assertEqual(kind.carried(values, before).tolist(), expected)
        self.assertEqual(Text(3).carried(columns[Text(4)], Text(4)).tolist(), [True, False])
        self.assertEqual(Text(3).carried(np.array([], "S4"), Text(4)).tolist(), [])

    def test_snapped(self) -> None:
        """Where there is a grid, a value is put on it, within the bounds; else it stays."""
        grid = Float(-1.1, 1.1, resolution=0.5)
        for value, expected in ((0.2, 0.0), (0.3, 0.5), (1.1, 1.0), (-1.1, -1.0), (0.25, 0.0)):
            self.assertEqual(grid.snapped(value), expected)
        self.assertEqual(Float(resolution=1e-300).snapped(1e300), 1e300)
        for kind, value in ((Float(), 0.3), (Int(), 3), (Bool(), 1), (Text(4), b"ab\0\0")):
            self.assertIs(kind.snapped(value), value)


class KindLawTests(SynchronousTestCase):
    """What holds for every kind and all values."""

    @settings(LAW, max_examples=300)
    @given(st.data(), kinds)
    def test_column_as_one_by_one(self, data: st.DataObject, kind: Kind) -> None:
        """A column of values is taken in just as each of them is alone, and as the kind says."""
        packed = data.draw(st.lists(packed_values(kind), max_size=20))
        found = one_by_one(kind, packed)
        self.assertEqual([value is not None for value in found], [holds(kind, p) for p in packed])
        column = np.frombuffer(bytearray(bits(kind, packed)), kind.dtype)
        self.assertEqual(together(kind, column), [value is not None for value in found])
        expected = [old if new is None else new for old, new in zip(packed, found, strict=True)]
        self.assertEqual(column.tobytes(), bits(kind, expected))

    @settings(LAW, max_examples=100)
    @given(kinds)
    def test_canonical(self, kind: Kind) -> None:
        """A kind read back from its canonical text lies in a row as it did."""
        again = of_canonical(kind.canonical)
        self.assertIs(type(again), type(kind))
        self.assertEqual((again.dtype, again.format), (kind.dtype, kind.format))
