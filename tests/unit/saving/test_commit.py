"""The commit report, and how dropped rows reach the log and the callers."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.interfaces import Reason
from playerstate.saving.commit import NAMED_AT_MOST, Commit, Dropped, by_reason, named, not_saved
from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema

LAYOUT = RowLayout(StateSchema.of(PlayerState).fields)


def dropped(session_id: int, why: str, reason: Reason = Reason.REFUSED) -> Dropped:
    """A row of this player that was dropped."""
    return Dropped(session_id, session_id, 1, reason, why)


class CommitTests(SynchronousTestCase):
    """The report."""

    def test_columns(self) -> None:
        """It has the columns of all pieces, in their order, apart from where they came from."""
        rows = np.zeros(3, LAYOUT.dtype)
        rows["slot"], rows["generation"] = (5, 6, 7), (1, 2, 3)
        rows["sequence"], rows["updated_at"] = (10, 20, 30), (100, 200, 300)
        commit = Commit.of([rows[:1], rows[1:]], [], 0, 3, 0.5, 0.25)
        rows[:] = np.zeros((), LAYOUT.dtype)
        self.assertEqual(commit.slots.tolist(), [5, 6, 7])
        self.assertEqual(commit.generations.tolist(), [1, 2, 3])
        self.assertEqual(commit.sequences.tolist(), [10, 20, 30])
        self.assertEqual(commit.updated_at.tolist(), [100, 200, 300])
        self.assertEqual((commit.read, commit.seconds, commit.maintenance_seconds), (3, 0.5, 0.25))

    def test_settled(self) -> None:
        """Committed, dropped and superseded rows are settled."""
        rows = np.zeros(3, LAYOUT.dtype)
        commit = Commit.of([rows], [dropped(1, "hp"), dropped(2, "hp")], 4, 9, 0.0, 0.0)
        self.assertEqual(commit.settled, 9)

    def test_nothing_saved(self) -> None:
        """Where all was dropped the columns are empty, and of the same types."""
        commit = Commit.of([], [dropped(1, "hp")], 0, 1, 0.0, 0.0)
        self.assertEqual((commit.slots.dtype, commit.slots.tolist()), (np.intp, []))
        self.assertEqual(commit.sequences.dtype, np.uint64)


class DroppedTests(SynchronousTestCase):
    """Rows that the store does not hold and will not be given again."""

    def test_of_row(self) -> None:
        """It holds the row's player, slot and date."""
        rows = np.zeros(1, LAYOUT.dtype)
        rows["session_id"], rows["slot"], rows["updated_at"] = 42, 7, 99
        self.assertEqual(
            Dropped.of(rows[0], Reason.NEWER, "newer"), Dropped(42, 7, 99, Reason.NEWER, "newer")
        )

    def test_outdated(self) -> None:
        """Only a row that the store can never take is not outdated."""
        found = {reason: dropped(1, "why", reason).outdated for reason in Reason}
        self.assertEqual(found, {Reason.NEWER: True, Reason.FENCED: True, Reason.REFUSED: False})

    def test_by_reason(self) -> None:
        """Players whose rows were dropped for the same reason are named together."""
        rows = [dropped(3, "hp"), dropped(1, "mp"), dropped(2, "hp")]
        self.assertEqual(list(by_reason(rows)), [("hp", [3, 2]), ("mp", [1])])

    def test_many_reasons(self) -> None:
        """Beyond some reasons, the players of the other reasons are named together."""
        rows = [dropped(number, f"reason {number:03}") for number in range(100)]
        found = list(by_reason(rows))
        self.assertEqual(len(found), NAMED_AT_MOST + 1)
        why = f"{100 - NAMED_AT_MOST} other reasons"
        self.assertEqual(found[-1], (why, list(range(NAMED_AT_MOST, 100))))

    def test_not_saved(self) -> None:
        """The error names the reasons, and the players of each."""
        error = not_saved([dropped(1, "hp"), dropped(2, "mp")])
        self.assertEqual(str(error), "hp: not saved for player 1; mp: not saved for player 2")

    def test_named(self) -> None:
        """Of many players some are named, and the others counted."""
        self.assertEqual(named([1, 2]), "1, 2")
        self.assertTrue(named(list(range(NAMED_AT_MOST + 3))).endswith(" and 3 more"))
