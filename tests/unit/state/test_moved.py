"""The client's fields of a state class: what a move carries."""

from __future__ import annotations

import struct
from typing import Any

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate import InvalidState, StateSchema, server_owned, text, transient, within
from playerstate.state.layout import FIELDS_AT, RowLayout
from tests.kit.kinds import declared, kinds, plain_values
from tests.kit.support import LAW


@attrs.frozen
class Fighter:
    """A state of which the client owns where it is, and its name."""

    hp: int = attrs.field(default=100, metadata=within(0, 100) | server_owned())
    x: float = 1.0
    title: str = attrs.field(default="none", metadata=text(8) | server_owned() | transient())
    name: str = attrs.field(default="", metadata=text(4))


@attrs.frozen
class Puppet:
    """A state of which the client owns nothing."""

    x: float = attrs.field(default=1.0, metadata=server_owned())


@st.composite
def states(draw: st.DrawFn) -> tuple[StateSchema, list[tuple[Any, ...]]]:
    """A schema of any fields, some of them server-owned, and two accepted states."""
    made = {}
    for number, kind in enumerate(draw(st.lists(kinds, min_size=1, max_size=8))):
        made[f"f{number}"] = field = declared(kind)
        if draw(st.booleans()):
            field.metadata = dict(field.metadata) | server_owned()
    schema = StateSchema.of(attrs.make_class("Made", made))
    values = [
        schema.encode(tuple(draw(plain_values(field.kind)) for field in schema.fields))
        for _ in range(2)
    ]
    return schema, [schema.accept(*each) for each in values]


class MovedTests(SynchronousTestCase):
    """`StateSchema.moved`."""

    def test_fields(self) -> None:
        """They are those that are not server-owned, in the order of the class."""
        moved = StateSchema.of(Fighter).moved
        self.assertEqual([field.name for field in moved.fields], ["x", "name"])
        self.assertEqual(moved.struct.format, "<d4s")
        self.assertEqual(moved.dtype, np.dtype([("x", "<f8"), ("name", "S4")]))
        self.assertFalse(moved.are_all)
        self.assertTrue(StateSchema.of(attrs.make_class("Plain", {"x": _x()})).moved.are_all)

    def test_canonical(self) -> None:
        """The owner is part of the fingerprint."""
        self.assertEqual(
            StateSchema.of(Fighter).canonical,
            "hp:int server,x:float,title:text(8) server,name:text(4)",
        )

    def test_parts(self) -> None:
        """A state is the client's part and the rest."""
        moved, whole = StateSchema.of(Fighter).moved, (7, 2.0, b"sir", b"ann")
        self.assertEqual(moved.of(whole), (2.0, b"ann"))
        self.assertEqual(moved.put((3.0, b"bob"), whole), (7, 3.0, b"sir", b"bob"))

    def test_accepted(self) -> None:
        """A refused value is named by its own field, alone and among many."""
        moved = StateSchema.of(Fighter).moved
        self.assertEqual(moved.accept(-0.0, b"ann\0"), (0.0, b"ann\0"))
        data = struct.pack("<I d4s", 5, 2.0, b"a\0b\0")
        error = self.assertRaises(InvalidState, moved.read, data, 0)
        self.assertEqual(error.field, "name")
        rows = np.array([(1.0, b"ann"), (np.nan, b"bob")], moved.dtype)
        self.assertEqual(moved.accept_many(rows).tolist(), [True, False])

    def test_none(self) -> None:
        """Where the server owns all, a move carries nothing."""
        moved = StateSchema.of(Puppet).moved
        self.assertEqual((moved.fields, moved.struct.size, moved.accept()), ((), 0, ()))
        self.assertEqual(moved.read(b"\7\0\0\0", 0), (7, ()))
        self.assertEqual((moved.of((5.0,)), moved.put((), (5.0,))), ((), (5.0,)))

    @settings(LAW)
    @given(given=states())
    def test_written(self, given: tuple[StateSchema, list[tuple[Any, ...]]]) -> None:
        """A move writes its fields, and the others as they lie in the slot's other half."""
        schema, (before, after) = given
        layout = RowLayout(schema.fields)
        for first in (0, layout.size):
            buffer = bytearray(2 * layout.size)
            layout.write(buffer, first, 1, 2, 3, 4, 5, before)
            layout.write_move(buffer, first ^ layout.size, 6, 7, 8, 9, 10, schema.moved.of(after))
            expected = bytearray(buffer)
            whole = schema.moved.put(schema.moved.of(after), before)
            layout.write(expected, first ^ layout.size, 6, 7, 8, 9, 10, whole)
            self.assertEqual(buffer, expected)
            found = schema.struct.unpack_from(buffer, (first ^ layout.size) + FIELDS_AT)
            self.assertEqual(schema.struct.pack(*found), schema.struct.pack(*whole))


def _x() -> Any:
    return attrs.field(default=1.0, type=float)
