"""Which lane a player's rows go by."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.saving.partition import Partition
from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema

LAYOUT = RowLayout(StateSchema.of(PlayerState).fields)
IDS = [*range(1, 1001), 2**31, 2**32 + 1, 2**62 + 5, 2**63 - 1]


class PartitionTests(SynchronousTestCase):
    """The hash."""

    def test_one_way(self) -> None:
        """A player alone and rows of many are dealt out alike, each row to one lane."""
        rows = np.zeros(len(IDS), LAYOUT.dtype)
        rows["session_id"] = IDS
        for lanes in (1, 2, 3, 4, 64):
            partition = Partition(lanes)
            for lane in range(lanes):
                expected = [player for player in IDS if partition.lane_of(player) == lane]
                found = partition.of_lane(lane, rows)["session_id"].tolist()
                self.assertEqual(found, expected)

    def test_same_in_every_run(self) -> None:
        """The lanes of these players are known, and never change."""
        lanes = [Partition(4).lane_of(player) for player in (1, 2, 3, 42, 2**63 - 1)]
        self.assertEqual(lanes, [1, 2, 0, 2, 2])

    def test_even(self) -> None:
        """Ids that follow each other are spread evenly, and so are multiples of the lanes."""
        for lanes in (2, 4, 16):
            for step in (1, 2, 4, 16, 1024):
                partition = Partition(lanes)
                found = [partition.lane_of(number * step) for number in range(1, 4001)]
                shares = np.bincount(found, minlength=lanes) / len(found) * lanes
                self.assertTrue(((shares > 0.8) & (shares < 1.2)).all(), (lanes, step, shares))
