"""Which refused rows are to come again, and which are given up."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import RowRefused
from playerstate.saving.refusals import REFUSALS, Refusals, Refused
from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema

LAYOUT = RowLayout(StateSchema.of(PlayerState).fields)


def refused(session_id: int) -> Refused:
    """A row of this player, refused."""
    row = np.zeros(1, LAYOUT.dtype)
    row["session_id"] = session_id
    return Refused(row, RowRefused("hp"))


class RefusalsTests(SynchronousTestCase):
    """The counts."""

    def setUp(self) -> None:
        """Begin with none."""
        self.refusals = Refusals()

    def judge(
        self, *players: int, before: int = 0, now: int = 1, always: bool = False
    ) -> list[int]:
        """Have these refused once more; return the players who are given up."""
        again, given_up = self.refusals.judge([refused(p) for p in players], before, now, always)
        self.assertCountEqual([one.session_id for one in again + given_up], players)
        return [one.session_id for one in given_up]

    def test_given_up(self) -> None:
        """A row is given up when it was refused for the last time."""
        found = [self.judge(1, 2) for _ in range(REFUSALS)]
        self.assertEqual(found, [[]] * (REFUSALS - 1) + [[1, 2]])

    def test_store_at_fault(self) -> None:
        """While the store has taken no other row since, none is given up; then all are."""
        for _ in range(2 * REFUSALS):
            self.assertEqual(self.judge(1, before=7, now=7), [])
        self.assertEqual(self.judge(1, before=7, now=8), [1])

    def test_always(self) -> None:
        """What a process before left is given up all the same."""
        found = [self.judge(1, now=0, always=True) for _ in range(REFUSALS)]
        self.assertEqual(found[-1], [1])

    def test_counts_of_these_alone(self) -> None:
        """A player who was not among the last refused begins anew."""
        for _ in range(REFUSALS - 1):
            self.judge(1)
        self.judge(2)
        self.assertEqual(len(self.refusals), 1)
        self.assertEqual(self.judge(1, 2), [])

    def test_forget(self) -> None:
        """Settled players are no longer counted; the others are."""
        one, other = refused(1), refused(2)
        self.refusals.judge([one, other], 0, 1, False)
        self.refusals.forget([one])
        self.assertEqual(len(self.refusals), 1)
