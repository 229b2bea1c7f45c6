"""Which rows of what a process left are newer than the store's."""

from __future__ import annotations

from typing import Any

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import Stored
from playerstate.live import recovery
from playerstate.live.leftover import Leftover
from playerstate.state.layout import RowLayout
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
