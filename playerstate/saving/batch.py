"""A batch of rows: the newest of each player, and how far the writing of it came.

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

    Sorting is what makes a large batch fast: a table keyed by session id is then written page
    after page.
    """
    ids = rows["session_id"]
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    last = np.ones(len(rows), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=last[:-1])
    # As blocks of bytes, since numpy would move them field by field.
    blocks = rows.view(np.dtype((np.void, rows.itemsize)))
    newest: Rows = blocks[order[last]].view(rows.dtype)
    return newest


@attrs.define(eq=False)
class Written:
    """How far the writing of a batch came.

    Attributes:
        left: pieces that were not tried, or failed.
        saved: the pieces that are committed, without what the store left out.
        dropped: rows that the store left out for good.
        refused: rows that it refused.
        error: what ended the writing before the end of the batch.
        seconds: how long it took.
    """

    left: list[Rows]
    saved: list[Rows] = attrs.field(factory=list)
    dropped: list[Dropped] = attrs.field(factory=list)
    refused: list[Refused] = attrs.field(factory=list)
    error: BaseException | None = None
    seconds: float = 0.0

    def took(self, left_out: LeftOut) -> None:
        """The store took the last of the pieces, but for what it left out.

        Raises:
            ValueError: it says that it left out a record twice, or one that it was not given.
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
                f"of {len(piece)} records the store left out {sorted(named)[:20]}, by its word:"
                " positions that are there, each once, are to be told"
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
        """The store refused the last of the pieces: its row, or a row in one of its halves."""
        piece = self.left.pop()
        if len(piece) == 1:
            self.refused.append(Refused(piece, error))
        else:
            middle = len(piece) // 2
            self.left += [piece[middle:], piece[:middle]]

    def rest(self) -> Rows | None:
        """What is to come again; None where all of the batch is settled."""
        kept = [*self.left, *(one.row for one in self.refused)]
        return newest_of_each(np.concatenate(kept, dtype=kept[0].dtype)) if kept else None
