"""What became of rows: the commit report, which the persist thread makes and the reactor thread
reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.saving.ring import Rows

NAMED_AT_MOST = 20
"""Players named in one log line."""

_why = attrgetter("why")


class NotSaved(Exception):
    """An applied update did not reach the store; the message says whose and why."""


@attrs.frozen
class Dropped:
    """A row that the store does not hold and will not be given again.

    Attributes:
        session_id, slot, updated_at: of the row.
        why: in words.
        outdated: whether the store holds a newer one; else it can never take this one, and the
            row is quarantined.
    """

    session_id: int
    slot: int
    updated_at: int
    why: str
    outdated: bool

    @classmethod
    def of(cls, row: np.void, why: str, *, outdated: bool) -> Dropped:
        """This row, dropped for this reason."""
        ids = int(row["session_id"]), int(row["slot"]), int(row["updated_at"])
        return cls(*ids, why, outdated)


@attrs.frozen(eq=False)
class Commit:
    """A commit report: what became of rows in the persister's hands.

    The arrays have one element a player.

    Attributes:
        slots, generations, sequences, updated_at: columns of the rows committed.
        dropped: rows that were not, and are settled all the same.
        superseded: rows for which the persister also held a newer one of the same player.
        read: every row below this cursor of the ring is settled.
        seconds: how long the writes took.
        maintenance_seconds: how long the writer's maintenance took before them.
    """

    slots: npt.NDArray[np.intp]
    generations: npt.NDArray[np.uint32]
    sequences: npt.NDArray[np.uint64]
    updated_at: npt.NDArray[np.int64]
    dropped: tuple[Dropped, ...]
    superseded: int
    read: int
    seconds: float
    maintenance_seconds: float

    @classmethod
    def of(
        cls,
        saved: list[Rows],
        dropped: list[Dropped],
        superseded: int,
        read: int,
        seconds: float,
        maintenance_seconds: float,
    ) -> Commit:
        """The report of these pieces of a batch, with their columns copied out.

        The copying is the persist thread's, so that the reactor thread has them ready.
        """
        return cls(
            slots=_column(saved, "slot", np.intp),
            generations=_column(saved, "generation", np.uint32),
            sequences=_column(saved, "sequence", np.uint64),
            updated_at=_column(saved, "updated_at", np.int64),
            dropped=tuple(dropped),
            superseded=superseded,
            read=read,
            seconds=seconds,
            maintenance_seconds=maintenance_seconds,
        )

    @property
    def settled(self) -> int:
        """How many rows that were handed over are settled by this."""
        return len(self.slots) + len(self.dropped) + self.superseded


def _column(pieces: list[Rows], name: str, dtype: type[Any]) -> npt.NDArray[Any]:
    return np.concatenate([*(piece[name] for piece in pieces), np.empty(0, dtype)], dtype=dtype)


def by_reason(dropped: Iterable[Dropped]) -> Iterator[tuple[str, list[int]]]:
    """Why rows were dropped, and the session ids of those, a reason at a time."""
    for why, rows in itertools.groupby(sorted(dropped, key=_why), key=_why):
        yield why, [row.session_id for row in rows]


def not_saved(dropped: Iterable[Dropped]) -> NotSaved:
    """Why the players were not saved whose rows were dropped."""
    reasons = (f"{why}: not saved for player {named(ids)}" for why, ids in by_reason(dropped))
    return NotSaved("; ".join(reasons))


def named(session_ids: list[int]) -> str:
    """Some players' ids for a log line."""
    shown = ", ".join(map(str, session_ids[:NAMED_AT_MOST]))
    more = len(session_ids) - NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
