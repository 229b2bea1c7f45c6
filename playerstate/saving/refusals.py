"""Rows that the store refuses: how often, and which are to be set aside.  Persist thread."""

from __future__ import annotations

import attrs

from playerstate.interfaces import RowRefused
from playerstate.saving.ring import Rows

REFUSALS = 3
"""Times a row must be refused by name, or by itself, before it is set aside."""


@attrs.frozen(eq=False)
class Refused:
    """One row, as an array of one, and what the store refused it with."""

    row: Rows
    error: RowRefused

    @property
    def session_id(self) -> int:
        """Whose row it is."""
        return int(self.row["session_id"][0])


@attrs.define
class _Count:
    """How often a row was refused, and how many rows had been committed before the first time."""

    rows_committed: int
    times: int = 0


class Refusals:
    """Counts, by player, how often the rows were refused that will be given to the store again."""

    def __init__(self) -> None:
        self._counts: dict[int, _Count] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def judge(
        self, refused: list[Refused], committed_before: int, committed: int, always: bool
    ) -> tuple[list[Refused], list[Refused]]:
        """Tell the rows that are to come again from those that never will do.

        A row is given up when it was refused `REFUSALS` times, and others were committed since the
        first: while no other row is committed it may be the store that is at fault.

        Args:
            refused: what the store refused of the batch just written; counts are kept of these
                alone.
            committed_before: rows that had been committed before this batch.
            committed: rows that have been now.
            always: whether a row may be given up though no other was committed.

        Returns:
            Those to come again, and those to be given up.
        """
        before, self._counts = self._counts, {}
        again: list[Refused] = []
        given_up: list[Refused] = []
        for one in refused:
            count = before.get(one.session_id) or _Count(committed_before)
            count.times += 1
            self._counts[one.session_id] = count
            is_hopeless = count.times >= REFUSALS and (always or committed > count.rows_committed)
            (given_up if is_hopeless else again).append(one)
        return again, given_up

    def forget(self, settled: list[Refused]) -> None:
        """These are settled: they will not come again."""
        for one in settled:
            del self._counts[one.session_id]
