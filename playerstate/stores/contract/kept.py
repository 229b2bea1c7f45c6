"""Every value of a state class comes back as it was saved."""

from __future__ import annotations

import math
import random
import sys
from typing import Any

import numpy as np

from playerstate.interfaces import (
    Stored,
)
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import (
    EVERYTHING,
    PLAIN,
    any_values,
    state_class,
)


class KeptTests(StoreTestCase):
    """Values that are saved, and come back."""

    def assert_kept(self, schema: StateSchema, *plain: Any) -> None:
        """These values come back as they are, and of the same types."""
        self.start(schema)
        self.write((7, *plain, 1))
        values = self.stored(7).values
        self.assertEqual(values, plain)
        self.assertEqual([type(value) for value in values], [type(value) for value in plain])

    def test_unknown_player(self) -> None:
        """A player who was never saved is None."""
        self.start()
        self.assertIsNone(self.load(42))

    def test_load(self) -> None:
        """A player comes back as saved, with the time of the update."""
        self.start()
        self.write((42, 1.5, -2.5, 1_700_000_000_000_000))
        self.assertEqual(self.load(42), Stored((1.5, -2.5), 1_700_000_000_000_000))

    def test_each_player(self) -> None:
        """Each player of a batch comes back under their own id."""
        self.start()
        self.assertEqual(self.write((1, 1.0, 1.5, 11), (2, 2.0, 2.5, 12), (3, 3.0, 3.5, 13)), [])
        self.assertEqual(self.load(1), Stored((1.0, 1.5), 11))
        self.assertEqual(self.load(2), Stored((2.0, 2.5), 12))
        self.assertEqual(self.load(3), Stored((3.0, 3.5), 13))
        self.assertIsNone(self.load(4))

    def test_rows_of_the_service(self) -> None:
        """Rows of the live table are written as they lie, header and padding between."""
        self.start(EVERYTHING)
        layout = RowLayout(EVERYTHING.fields)
        rows = np.zeros(2, layout.dtype)
        rows["session_id"] = (5, 6)
        rows["slot"] = rows["generation"] = 0xFFFFFFFF
        rows["sequence"] = 2**64 - 1
        rows["updated_at"] = (50, 60)
        packed = EVERYTHING.struct.pack(*EVERYTHING.spawn)
        rows["fields"] = np.frombuffer(packed * 2, f"V{EVERYTHING.size}")
        self.opened_writer().write(rows.view(layout.record))
        spawn = (1.5, 100, True, "spawn", -0.25)
        self.assertEqual(self.load(5), Stored(spawn, 50))
        self.assertEqual(self.load(6), Stored(spawn, 60))

    def test_order_of_fields(self) -> None:
        """Values come in the order of the state class."""
        self.start(EVERYTHING)
        self.write((1, 9.0, 8, False, "seven", 6.0, 5))
        self.assertEqual(self.stored(1).values, (9.0, 8, False, "seven", 6.0))

    def test_one_field(self) -> None:
        """A state of one field is kept as a tuple of one value."""
        self.assert_kept(StateSchema.of(state_class(score=0)), 5)

    def test_kinds(self) -> None:
        """Each kind of field comes back as its own type."""
        self.assert_kept(EVERYTHING, 1.25, -7, False, "cave", 0.5)

    def test_whole_floats(self) -> None:
        """A float without a fraction stays a float."""
        self.assert_kept(PLAIN, 3.0, -1e15)

    def test_zeros(self) -> None:
        """Zeros, False and the empty text are values as any other."""
        self.assert_kept(EVERYTHING, 0.0, 0, False, "", 0.0)

    def test_extreme_floats(self) -> None:
        """Floats keep every bit: the greatest, the least, the smallest, and those in between."""
        floats = (
            sys.float_info.max,
            -sys.float_info.max,
            sys.float_info.min,
            5e-324,
            -5e-324,
            0.1 + 0.2,
            math.nextafter(1.0, 2.0),
            float(2**63),
            1e300,
        )
        schema = StateSchema.of(state_class(**{f"f{i}": 0.0 for i in range(len(floats))}))
        self.assert_kept(schema, *floats)

    def test_extreme_ints(self) -> None:
        """Ints keep all of their 64 bits, either way, beyond what a float could hold."""
        ints = (2**63 - 1, -(2**63), -1, 2**53 + 1, -(2**53) - 1)
        schema = StateSchema.of(state_class(**{f"i{i}": 0 for i in range(len(ints))}))
        self.assert_kept(schema, *ints)

    def test_bools(self) -> None:
        """Bools come back as bools, both of them."""
        self.assert_kept(StateSchema.of(state_class(a=True, b=False)), False, True)

    def test_texts(self) -> None:
        """Texts come back to the letter, whatever they look like and up to their last byte."""
        texts = (
            "",
            " a ",
            "007",
            "1e3",
            "NULL",
            'it\'s "quoted"; -- %s ? :x',
            "line\nbreak\ttab",
            "Größe",
            "\u0065\u0301",  # two code points for what one could say
            "\U0001f409" * 8,
            "a" * 32,
            "\x01\x7f",
        )
        schema = StateSchema.of(state_class(**{f"t{i}": "" for i in range(len(texts))}))
        self.assert_kept(schema, *texts)

    def test_any_values(self) -> None:
        """Whatever a state class accepts comes back the same."""
        self.start(EVERYTHING)
        draw = random.Random(1)
        players = [(draw.randrange(1, 2**63), *any_values(draw), 1) for _ in range(300)]
        for player in players:
            self.write(player)
        for session_id, *plain, updated_at in players:
            self.assertEqual(self.load(session_id), Stored(tuple(plain), updated_at))

    def test_extreme_ids(self) -> None:
        """The least and the greatest session id are players as any other."""
        self.start()
        self.write((1, 1.0, 1.0, 1), (2**63 - 1, 2.0, 2.0, 2))
        self.assertEqual(self.load(1), Stored((1.0, 1.0), 1))
        self.assertEqual(self.load(2**63 - 1), Stored((2.0, 2.0), 2))

    def test_extreme_times(self) -> None:
        """Times are compared as numbers over all 64 bits, those before 1970 too."""
        self.start()
        self.write((1, 0.0, 0.0, -(2**63)), (2, 0.0, 0.0, 2**63 - 1))
        self.assertEqual(self.stored(1).updated_at, -(2**63))
        self.assertEqual(self.stored(2).updated_at, 2**63 - 1)
        self.assertEqual(self.write((1, 1.0, 1.0, -5), (2, 1.0, 1.0, 2**63 - 2)), [1])
        self.assertEqual(self.write((1, 2.0, 2.0, -6)), [0])
        self.assertEqual(self.load(1), Stored((1.0, 1.0), -5))
