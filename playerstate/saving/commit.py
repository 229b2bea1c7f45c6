"""The commit report, in which a persist thread tells the reactor thread what became of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.interfaces import Reason
from playerstate.saving.ring import Rows

NAMED_AT_MOST = 20
"""Most players named in one log line, and most reasons of one commit that get a line each."""

_why = attrgetter("why")


class NotSaved(Exception):
    """An applied update did not reach the store; the message names the players and the reasons."""


@attrs.frozen
class Dropped:
    """A row that the store does not hold and will not be given again.

    Attributes:
        session_id, slot, updated_at: of the row.
        reason: why the store left the row out.
        why: the reason in words.
    """

    session_id: int
    slot: int
    updated_at: int
    reason: Reason
    why: str

    @classmethod
    def of(cls, row: np.void, reason: Reason, why: str) -> Dropped:
        """Make one of a row in the ring's dtype."""
        ids = int(row["session_id"]), int(row["slot"]), int(row["updated_at"])
        return cls(*ids, reason, why)

    @property
    def outdated(self) -> bool:
        """Whether the store left the row out as newer or fenced; otherwise it can never take it."""
        return self.reason is not Reason.REFUSED


@attrs.frozen(eq=False)
class Commit:
    """A commit report: what became of the rows that a persister held.

    The arrays have one element a player.

    Attributes:
        slots, generations, sequences, updated_at: columns of the committed rows.
        dropped: rows that were not committed, and are settled all the same.
        superseded: rows for which the persister also held a newer one of the same player.
        read: every row below this cursor of the ring is settled.
        seconds: how long the writes took.
        maintenance_seconds: how long the writer's last maintenance before them took.
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
        """Make the report of these pieces of a batch.

        The columns are copied here, on the persist thread, to save the reactor thread the work.
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
        """How many rows this report settles."""
        return len(self.slots) + len(self.dropped) + self.superseded


def _column(pieces: list[Rows], name: str, dtype: type[Any]) -> npt.NDArray[Any]:
    return np.concatenate([*(piece[name] for piece in pieces), np.empty(0, dtype)], dtype=dtype)


def by_reason(dropped: Sequence[Dropped]) -> Iterator[tuple[str, list[int]]]:
    """Each reason with the session ids it concerns; reasons beyond `NAMED_AT_MOST` as one."""
    players: dict[str, list[int]] = {}
    for row in sorted(dropped, key=_why):
        players.setdefault(row.why, []).append(row.session_id)
    reasons = iter(players.items())
    yield from itertools.islice(reasons, NAMED_AT_MOST)
    if rest := list(itertools.chain.from_iterable(ids for _, ids in reasons)):
        yield f"{len(players) - NAMED_AT_MOST} other reasons", rest


def not_saved(dropped: Sequence[Dropped]) -> NotSaved:
    """The error of a caller whose rows were dropped: the players, by reason."""
    reasons = (f"{why}: not saved for player {named(ids)}" for why, ids in by_reason(dropped))
    return NotSaved("; ".join(reasons))


def named(session_ids: list[int]) -> str:
    """The first `NAMED_AT_MOST` session ids, for a log line, and how many more there are."""
    shown = ", ".join(map(str, session_ids[:NAMED_AT_MOST]))
    more = len(session_ids) - NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
