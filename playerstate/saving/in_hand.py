"""The rows in hand: taken from the ring, written as one batch, and kept until they are settled.

Rules.

- Rows taken from the ring belong to an `InHand`, not to the stack of the persist thread, and leave
  it only when they are settled: a failed write keeps them, and so does the death of the thread.
- A batch holds the newest row of each player, sorted by session id.  Rows of one player leave the
  ring in the order in which they were made, so the newest is the last.

Persist thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from playerstate.interfaces import IStateWriter, Reason, RowRefused, StoreBusy
from playerstate.saving.batch import Written, newest_of_each
from playerstate.saving.commit import Commit, Dropped
from playerstate.saving.listener import PersistListener
from playerstate.saving.refusals import Refusals, Refused
from playerstate.saving.ring import Ring, Rows


class InHand:
    """Takes the rows of one ring, has a writer write them, and reports what became of them.

    Its length is the number of rows in hand.

    Args:
        ring: the consumer of which this is.
        record: the dtype in which a store gets rows.
        opened: gives the open writer, and opens one where there is none.
        is_abandoned: whether no further write is to begin.
        listener: receives the reports.
        monotonic: seconds that never step.
        recovered: rows that a previous process left, to be saved before all others, one a player,
            sorted by session id.

    Attributes:
        writing_since: when the present write began, in `monotonic`'s seconds; None without one.
    """

    def __init__(
        self,
        ring: Ring,
        record: np.dtype[Any],
        opened: Callable[[], IStateWriter],
        is_abandoned: Callable[[], bool],
        listener: PersistListener,
        monotonic: Callable[[], float],
        recovered: Rows | None,
    ) -> None:
        self._ring = ring
        self._record = record
        self._opened = opened
        self._is_abandoned = is_abandoned
        self._listener = listener
        self._monotonic = monotonic
        self._taken: Rows | None = recovered
        self._recovering = recovered is not None
        self._batch: Rows | None = None
        self._superseded = 0
        self._read = 0
        self._refusals = Refusals()
        self._rows_committed = 0
        self.writing_since: float | None = None

    def __len__(self) -> int:
        return sum(len(rows) for rows in (self._batch, self._taken) if rows is not None)

    def save(self, maintenance_seconds: float) -> bool:
        """Take what the ring holds, or the batch still in hand, and try to commit it once.

        Args:
            maintenance_seconds: how long the writer's last maintenance took, for the report.

        Returns:
            Whether there was anything to write.

        Raises:
            BaseException: what kept rows from being written, settled or quarantined, after the
                report of the others; the rows it concerns stay in hand.
        """
        self._take()
        if self._batch is None:
            return False
        self._settle(self._write(self._batch), maintenance_seconds)
        return True

    def _take(self) -> None:
        """Add rows from the ring to the batch, if it is empty or holds rows that were refused."""
        if self._taken is None and (self._batch is None or self._refusals):
            taken = self._ring.take()
            self._taken = taken if len(taken) else None
        if self._taken is None:
            return
        rows = (
            self._taken
            if self._batch is None
            else np.concatenate((self._batch, self._taken), dtype=self._ring.dtype)
        )
        batch = newest_of_each(rows)
        self._superseded += len(rows) - len(batch)
        self._batch, self._taken = batch, None

    def _write(self, batch: Rows) -> Written:
        """Give a batch to the writer, and return how much was written; the batch is kept.

        Where the store refuses a row and cannot name it, it is given ever smaller pieces, until
        each refused row is alone.
        """
        written = Written([batch])
        self.writing_since = started = self._monotonic()
        try:
            writer = self._opened()
            while written.left:
                if self._is_abandoned():
                    raise StoreBusy("abandoned before the write began")
                try:
                    written.took(writer.write(written.left[-1].view(self._record)))
                except RowRefused as error:
                    written.refuses(error)
            if self._recovering:
                writer.sync()
        except BaseException as error:  # raised after the commit report
            written.error = error
        self.writing_since = None
        written.seconds = self._monotonic() - started
        return written

    def _settle(self, written: Written, maintenance_seconds: float) -> None:
        """Report the settled rows of a batch, and drop them; the other rows are the next batch.

        If this fails before the report, the whole batch is written again.

        Raises:
            BaseException: what ended the writing, or prevented a row from being quarantined.
        """
        if self._recovering and written.error is not None:
            raise written.error  # nothing is known to be on disk: all of it is written again
        error = written.error
        committed = self._rows_committed + sum(map(len, written.saved))
        if error is None:
            error = self._quarantine_hopeless(written, committed)
        rest = written.rest()
        if written.saved or written.dropped:
            self._report(written, rest is None, maintenance_seconds)
        self._rows_committed = committed
        self._batch = rest
        if error is not None:
            raise error

    def _quarantine_hopeless(self, written: Written, committed: int) -> Exception | None:
        """Quarantine the refused rows to give up; the others stay refused, to be written again.

        They are quarantined in one call, so that rows with different reasons do not cost a file
        write each.

        Returns:
            The error that prevented it, if any; all of the rows stay refused then.
        """
        again, given_up = self._refusals.judge(
            written.refused, self._rows_committed, committed, self._recovering
        )
        error = None
        if given_up:
            rows = np.concatenate([one.row for one in given_up], dtype=self._ring.dtype)
            reasons = [str(one.error) for one in given_up]
            try:
                self._opened().quarantine(rows.view(self._record), reasons)
            except Exception as failure:
                error = failure
            else:
                self._refusals.forget(given_up)
                written.refused = again
                written.dropped += [
                    Dropped.of(row, Reason.REFUSED, why)
                    for row, why in zip(rows, reasons, strict=True)
                ]
        if error is None:
            self._report_refused(again)
        return error

    def _report_refused(self, refused: list[Refused]) -> None:
        """Report the refused rows that are kept: one failure, however many reasons there are."""
        if not refused:
            return
        error = refused[0].error
        if others := len({str(one.error) for one in refused}) - 1:
            error = RowRefused(f"{error}; and for {others} other reasons")
        self._listener.failed(error, len(refused))

    def _report(self, written: Written, is_settled: bool, maintenance_seconds: float) -> None:
        if is_settled:
            self._read = self._ring.read
        commit = Commit.of(
            written.saved,
            written.dropped,
            self._superseded,
            self._read,
            written.seconds,
            maintenance_seconds,
        )
        if self._recovering:
            self._listener.recovered(commit)
            self._recovering = not is_settled
        else:
            self._listener.committed(commit)
        self._superseded = 0
