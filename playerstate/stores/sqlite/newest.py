"""When each player in a database last changed, compared in bulk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import apsw
import numpy as np
import numpy.typing as npt

ROWS_A_PART = 4096

Ints = npt.NDArray[np.int64]
Newest = Ints
"""Session id and ``updated_at`` of each player, one row each, in the order of session ids."""

_SELECT = "SELECT session_id, CAST(updated_at AS INTEGER) FROM player_state"


def read_newest(connection: apsw.Connection, session_ids: Sequence[int] | None = None) -> Newest:
    """Read when players last changed.

    Args:
        connection: to the database.
        session_ids: of these players only, as many as one statement takes; None for all.
    """
    where = ""
    if session_ids is not None:
        where = f" WHERE session_id IN ({','.join('?' * len(session_ids))})"
    rows = connection.execute(f"{_SELECT}{where} ORDER BY session_id", session_ids)
    # As arrays, in parts: freeing a million objects at once would hold up every other thread.
    parts = [np.zeros((0, 2), np.int64)]
    while part := list(itertools.islice(rows, ROWS_A_PART)):
        parts.append(np.array(part, np.int64))
    return np.concatenate(parts)


def missed(held: Newest, there: Newest) -> Ints:
    """Session ids in `held` that `there` lacks, or has only an older state of."""
    is_there, updated_at = find(held[:, 0], there)
    ids: Ints = held[~(is_there & (updated_at >= held[:, 1])), 0]
    return ids


def find(session_ids: Ints, there: Newest) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Whether `there` has each of these players, and if so their ``updated_at``."""
    if not len(there):
        return np.zeros(len(session_ids), np.bool_), np.zeros(len(session_ids), np.int64)
    places = np.searchsorted(there[:, 0], session_ids)
    found = there[np.minimum(places, len(there) - 1)]
    return found[:, 0] == session_ids, found[:, 1]
