"""Which rows of a batch are written."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.saving.batch import newest_of_each
from tests.kit.persisting import LAYOUT, rows_of
from tests.kit.support import LAW


class NewestOfEachTests(SynchronousTestCase):
    """Which rows of a batch are written."""

    def test_no_rows(self) -> None:
        """Of no rows there are none."""
        self.assertEqual(len(newest_of_each(rows_of())), 0)

    @settings(LAW, max_examples=100)
    @given(st.lists(st.integers(1, 6) | st.integers(1, 2**63 - 1 - 200), max_size=40))
    def test_as_a_dict_would(self, session_ids: list[int]) -> None:
        """It is what a dict keeps to which the rows were put in order, sorted by session id."""
        players = list(zip(session_ids, range(len(session_ids)), strict=True))
        rows = np.zeros(len(players), LAYOUT.dtype)
        rows["session_id"] = session_ids
        rows["sequence"] = range(len(session_ids))
        newest = newest_of_each(rows)
        self.assertEqual(
            list(zip(newest["session_id"].tolist(), newest["sequence"].tolist(), strict=True)),
            sorted(dict(players).items()),
        )
