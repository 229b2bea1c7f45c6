"""Rows that the store refuses: how often, and when they are quarantined.  Persist thread only."""

from __future__ import annotations

import attrs

from playerstate.interfaces import RowRefused
from playerstate.saving.ring import Rows

REFUSALS = 3
"""How often a row must be refused, by name or alone in a write, before it is given up."""


@attrs.frozen(eq=False)
class Refused:
    """One row, as an array of one, and the error with which the store refused it."""

    row: Rows
    error: RowRefused

    @property
    def session_id(self) -> int:
        """The player of the row."""
        return int(self.row["session_id"][0])


@attrs.define
class _Count:
    """How often a row was refused, and how many rows were committed before the first refusal."""

    rows_committed: int
    times: int = 0


class Refusals:
    """Counts by player the refusals of rows that will be given to the store again."""

    def __init__(self) -> None:
        self._counts: dict[int, _Count] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def judge(
        self, refused: list[Refused], committed_before: int, committed: int, always: bool
    ) -> tuple[list[Refused], list[Refused]]:
        """Separate the rows to write again from those to give up.

        A row is given up once it was refused `REFUSALS` times and other rows were committed since
        the first refusal: while no other row is committed, the store may be at fault.

        Args:
            refused: what the store refused of the batch just written; counts are kept for these
                alone.
            committed_before: how many rows had been committed before this batch.
            committed: how many have been committed with it.
            always: whether to give up a row even if no other was committed.

        Returns:
            The rows to write again, and the rows to give up.
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
        """Drop the counts of these rows, which are settled."""
        for one in settled:
            del self._counts[one.session_id]
