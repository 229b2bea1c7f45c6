"""Which rows of what a process left are newer than the store's."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import Stored
from playerstate.live import recovery
from playerstate.live.leftover import Leftover
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema, was
from tests.kit.players import SCHEMA


class Reader:
    """Holds an old state of everybody."""

    def load(self, session_id: int) -> Stored:
        """See `IStateReader.load`."""
        return Stored((1.0, 2.0), 5)

    def close(self) -> None:
        """See `IStateReader.close`."""


class CostTests(SynchronousTestCase):
    """What it costs to compare many."""

    def layouts(self, players: int) -> int:
        """How many layouts are compiled to find so many unsaved players."""
        layout = RowLayout(SCHEMA.fields)
        records = np.zeros(players, layout.dtype).view(layout.record)
        records["session_id"] = np.arange(1, players + 1)
        records["updated_at"] = 10
        compiled: list[Any] = []

        def compile_layout(fields: Any) -> RowLayout:
            compiled.append(fields)
            return RowLayout(fields)

        patched = self.patch(recovery, "RowLayout", compile_layout)
        leftover = Leftover(bytes(16), False, tuple(SCHEMA.fields), records)
        self.assertEqual(len(recovery.find_unsaved(leftover, SCHEMA, Reader())), players)
        patched.restore()
        return len(compiled)

    def test_layout(self) -> None:
        """The layout is not compiled again for each row."""
        self.assertEqual(self.layouts(50), self.layouts(1))


class RenamedTests(SynchronousTestCase):
    """Rows of a class in which a field had another name."""

    def recovered(self, before: str, *names: str) -> Any:
        """What becomes of 5.0 in a field of this name, in a field that had these names."""
        field = attrs.field(default=1.0, type=float, metadata=was(*names))
        schema = StateSchema.of(attrs.make_class("Made", {"health": field}))
        old = StateSchema.of(
            attrs.make_class("Old", {before: attrs.field(default=0.0, type=float)})
        )
        records = np.zeros(1, RowLayout(old.fields).dtype).view(RowLayout(old.fields).record)
        records[0] = (1, 5.0, 10)
        rows, _ = recovery.as_rows(Leftover(bytes(16), False, old.fields, records), schema)
        return rows.view(RowLayout(schema.fields).named)["health"].item()

    def test_old_name(self) -> None:
        """The value of the field's old name is recovered."""
        self.assertEqual(self.recovered("HP", "life", "hp"), 5.0)

    def test_another_name(self) -> None:
        """A name that the field never had is none of it."""
        self.assertEqual(self.recovered("hp", "life"), 1.0)
