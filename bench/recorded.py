"""A store that notes when what was committed, and the ages of updates that follow from it."""

from __future__ import annotations

import time
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.interfaces import IStateStore, IStateWriter, LeftOut, Records

Array = npt.NDArray[Any]


@attrs.frozen(eq=False)
class Committed:
    """One commit: when it was done, whose rows, and the number of the move in each."""

    at: float
    session_ids: Array
    numbers: Array


class RecordedStore:
    """Another store, with a note of each commit.

    The ``x`` of a state is the number of the move that brought it.

    Attributes:
        commits: in their order.
    """

    def __init__(self, store: IStateStore) -> None:
        self._store = store
        self.commits: list[Committed] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open_writer(self) -> Any:
        """See `IStateStore.open_writer`."""
        return _RecordedWriter(self._store.open_writer(), self.commits)


class _RecordedWriter:
    def __init__(self, writer: IStateWriter, commits: list[Committed]) -> None:
        self._writer = writer
        self._commits = commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def write(self, records: Records) -> LeftOut:
        """See `IStateWriter.write`."""
        left_out = self._writer.write(records)
        numbers = records["x"].astype(np.int64)
        ids = records["session_id"].copy()
        self._commits.append(Committed(time.monotonic(), ids, numbers))
        return left_out


def ages(commits: list[Committed], sent_at: Array, first: int) -> Array:
    """How old each update was when a commit held it or a newer one of the same player.

    Args:
        commits: in their order.
        sent_at: when each was sent, by its number and the player's session id.
        first: the number from which on updates count.

    Returns:
        Seconds, one of each update that is committed.
    """
    last = np.full(sent_at.shape[1], first - 1)
    found = [np.empty(0)]
    for commit in commits:
        fresh = np.maximum(commit.numbers - last[commit.session_ids], 0)
        players = np.repeat(commit.session_ids, fresh)
        # Of each player, the numbers from the last committed up to this one.
        within = np.arange(len(players)) - np.repeat(np.cumsum(fresh) - fresh, fresh)
        found.append(commit.at - sent_at[last[players] + 1 + within, players])
        last[commit.session_ids] = np.maximum(last[commit.session_ids], commit.numbers)
    return np.concatenate(found)
