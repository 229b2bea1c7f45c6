"""Binary arrays that numpy makes are those that PostgreSQL itself makes."""

from __future__ import annotations

import numpy as np

from playerstate.state.default import PlayerState
from playerstate.state.schema import StateSchema
from playerstate.stores.contract.states import EVERYTHING, records
from playerstate.stores.postgresql.columns import (
    BOOL,
    FLOAT8,
    INT8,
    TEXT,
    from_int8_array,
    literal,
    to_array,
)
from playerstate.stores.postgresql.upsert import BYTES_A_STATEMENT, Upsert
from tests.kit.postgresql import PostgreSQLTestCase
from tests.kit.support import field, made

PLAYERS = (
    (1, 1.5, -7, True, "cave", -0.25, 5),
    (2, 5e-324, 2**63 - 1, False, "", 1e308, 6),
    (2**63 - 1, 0.0, -(2**63), True, "ö" * 8, -1.0, -(2**63)),
)


class ArrayTests(PostgreSQLTestCase):
    """Columns of records, as the server sends the same values."""

    def of_server(self, expression: str) -> bytes:
        """An array as the server sends it."""
        ((found,),) = self.sql(f"SELECT array_send({expression})")
        return bytes(found)

    def test_arrays(self) -> None:
        """Byte by byte, for each type; texts without their padding."""
        batch = records(EVERYTHING, *PLAYERS)
        for name, kept, values in (
            ("session_id", INT8, "1, 2, 9223372036854775807"),
            ("x", FLOAT8, "1.5, 5e-324, 0"),
            ("hp", INT8, "-7, 9223372036854775807, -9223372036854775808"),
            ("alive", BOOL, "true, false, true"),
            ("zone", TEXT, "'cave', '', 'öööööööö'"),
        ):
            made_here = bytes(to_array(batch[name], kept))
            expected = self.of_server(f"ARRAY[{values}]::{kept.declared}[]")
            self.assertEqual(made_here, expected, name)

    def test_int8_back(self) -> None:
        """Integers are read back."""
        numbers = np.array([3, -(2**63), 2**63 - 1])
        self.assertEqual(from_int8_array(bytes(to_array(numbers, INT8))).tolist(), numbers.tolist())

    def test_defaults(self) -> None:
        """A default as SQL is the value, whatever stands in a text."""
        texts = ("it's", "back\\slash", "a % b {c} $1", '"', "\n", "öΩ")
        fields = [
            StateSchema.of(made(t=field(str, text, {"playerstate.text": 32}))).fields[0]
            for text in texts
        ]
        found = self.sql("SELECT " + ", ".join(map(literal, fields)))
        self.assertEqual(found, [texts])
        numbers = (1e300, -0.1, 2**63 - 1, -(2**63), True, False)
        fields = [StateSchema.of(made(n=field(type(n), n))).fields[0] for n in numbers]
        self.assertEqual(self.sql("SELECT " + ", ".join(map(literal, fields))), [numbers])


class PartsTests(PostgreSQLTestCase):
    """How many rows go with one statement."""

    def test_most(self) -> None:
        """Fewer the larger a row is, so that the arrays keep within bounds."""
        small = Upsert(StateSchema.of(PlayerState))
        fields = {f"t{i}": field(str, "", {"playerstate.text": 255}) for i in range(4)}
        large = Upsert(StateSchema.of(made(**fields)))
        self.assertGreater(small.most, large.most)
        self.assertLess(large.most * 1024, BYTES_A_STATEMENT)
        batch = np.zeros(large.most * 2 + 1, [("session_id", "<i8")])
        batch["session_id"] = np.arange(len(batch))
        parts = list(large.parts(batch))
        self.assertEqual([len(part) for _, part in parts], [large.most, large.most, 1])
        self.assertEqual(
            [start for start, _ in parts], [part["session_id"][0] for _, part in parts]
        )
