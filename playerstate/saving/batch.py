"""A batch of rows: the newest of each player, and how much of it has been written.

Persist thread.
"""

from __future__ import annotations

import attrs
import numpy as np

from playerstate.interfaces import LeftOut, Reason, RowRefused
from playerstate.saving.commit import Dropped
from playerstate.saving.refusals import Refused
from playerstate.saving.ring import Rows


def newest_of_each(rows: Rows) -> Rows:
    """The last row of each session id, sorted by session id.

    Sorting makes a large batch fast: a table keyed by session id is then written page after page.
    """
    ids = rows["session_id"]
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    last = np.ones(len(rows), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=last[:-1])
    # As blocks of bytes: numpy would move structured rows field by field.
    blocks = rows.view(np.dtype((np.void, rows.itemsize)))
    newest: Rows = blocks[order[last]].view(rows.dtype)
    return newest


@attrs.define(eq=False)
class Written:
    """How much of a batch has been written.

    Attributes:
        left: pieces not tried yet, or failed.
        saved: committed pieces, without the rows that the store left out.
        dropped: rows that the store left out for good.
        refused: rows that the store refused.
        error: the error that ended the writing before the end of the batch, if any.
        seconds: how long the writing took.
    """

    left: list[Rows]
    saved: list[Rows] = attrs.field(factory=list)
    dropped: list[Dropped] = attrs.field(factory=list)
    refused: list[Refused] = attrs.field(factory=list)
    error: BaseException | None = None
    seconds: float = 0.0

    def took(self, left_out: LeftOut) -> None:
        """Note that the store took the last of the pieces, except for what it left out.

        Raises:
            ValueError: the store reports as left out a record twice, or one that it was not given.
        """
        piece = self.left[-1]
        if len(left_out):
            piece = self._without(piece, left_out)
        self.left.pop()
        if len(piece):
            self.saved.append(piece)

    def _without(self, piece: Rows, left_out: LeftOut) -> Rows:
        named = [*left_out.newer.tolist(), *left_out.fenced.tolist(), *left_out.refused]
        if len(set(named)) < len(named) or not all(0 <= at < len(piece) for at in named):
            raise ValueError(
                f"the store reports positions {sorted(named)[:20]} of {len(piece)} records as left"
                " out; it must report existing positions, each once"
            )
        for reason, positions in (
            (Reason.NEWER, left_out.newer),
            (Reason.FENCED, left_out.fenced),
        ):
            self.dropped += [Dropped.of(row, reason, reason.value) for row in piece[positions]]
        for at in sorted(left_out.refused):
            self.refused.append(Refused(piece[at : at + 1], RowRefused(left_out.refused[at])))
        return np.delete(piece, named)

    def refuses(self, error: RowRefused) -> None:
        """Note that the store refused the last of the pieces; a piece of several rows is halved."""
        piece = self.left.pop()
        if len(piece) == 1:
            self.refused.append(Refused(piece, error))
        else:
            middle = len(piece) // 2
            self.left += [piece[middle:], piece[:middle]]

    def rest(self) -> Rows | None:
        """The rows to be written again; None where the whole batch is settled."""
        kept = [*self.left, *(one.row for one in self.refused)]
        return newest_of_each(np.concatenate(kept, dtype=kept[0].dtype)) if kept else None
