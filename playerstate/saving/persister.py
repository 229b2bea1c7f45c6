"""The persist thread: drains the ring into the writer, a batch at a time.

Rules.

- A batch taken from the ring belongs to the `Persister`, not to its thread's stack, and leaves it
  only by a commit: a failed write keeps it.
- A batch holds the newest row of each player, sorted by session id.  Rows of one player come out of
  the ring in the order of their making, so the newest is the last.
- The thread sleeps on one event.  It clears the event *before* it looks into the ring, so a row
  pushed after the look has its event still set: no wake-up is lost.
- It speaks to the reactor thread through `PersistListener` alone.

`Persister.step` is one turn without any waiting, and what tests drive; `Persister.run` is the
thread's whole life.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import numpy as np

from playerstate.interfaces import (
    IStateWriter,
    LeftOut,
    RowRefused,
    StoreBusy,
    StoreReplaced,
)
from playerstate.saving.commit import Commit, Dropped
from playerstate.saving.refusals import Refusals, Refused
from playerstate.saving.ring import Ring, Rows

MAX_SLEEP = 1.0
"""Seconds the thread sleeps at most: each time it wakes it tells the reactor that time passes."""

FIRST_RETRY = 0.05
LAST_RETRY = 1.0
"""Seconds before a batch is tried again, and before a thread goes on that follows one that died:
doubled from the first to the last, each with jitter."""


class PersistListener(Protocol):
    """What the persist thread tells.  Every method is called on the persist thread."""

    def committed(self, commit: Commit) -> None:
        """Rows are in the store, or settled otherwise."""

    def recovered(self, commit: Commit) -> None:
        """The same of rows that a process before this one left; those committed are on disk."""

    def failed(self, error: Exception, rows: int) -> None:
        """So many rows are kept after this error; 0 where the writer's maintenance met it."""

    def replaced(self, error: Exception) -> None:
        """The store is not the one that was opened; the persister is held, as by `hold`."""

    def held(self) -> None:
        """The writer is closed after `Persister.hold`, until `Persister.resume`."""

    def beat(self) -> None:
        """The thread woke by itself; at most `MAX_SLEEP` passed since the last."""

    def died(self, error: BaseException) -> None:
        """The thread is about to end by an error; what it held is kept for the next thread."""

    def thread_ended(self, synced: bool) -> None:
        """The thread is about to end as it was told to, with its writer closed.

        Args:
            synced: whether everything committed is known to be on disk.
        """


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
class _Written:
    """How far the writing of a batch came.

    Attributes:
        saved: the pieces that are committed, without what the store left out.
        dropped: rows that the store left out since it holds newer ones.
        refused: rows that the store refused.
        left: pieces that were not tried, or failed.
        error: what ended the writing before the end of the batch.
        seconds: how long it took.
    """

    saved: list[Rows] = attrs.field(factory=list)
    dropped: list[Dropped] = attrs.field(factory=list)
    refused: list[Refused] = attrs.field(factory=list)
    left: list[Rows] = attrs.field(factory=list)
    error: Exception | None = None
    seconds: float = 0.0


class Persister:
    """Drains one ring into one writer.

    Args:
        ring: whose consumer this is.
        record: the dtype under which a store sees a row.
        open_writer: makes the writer; called on the persist thread.
        listener: is told what happens.
        monotonic: seconds that never step.
        jitter: a number from 0 to 1, to spread retries.
        recovered: rows that a process before this one left, to be saved before all others, one a
            player, sorted by session id.

    Attributes:
        writing_since: when the write under way began, in `monotonic`'s seconds; None without one.
        maintaining_since: the same of the writer's maintenance.
    """

    def __init__(
        self,
        ring: Ring,
        record: np.dtype[Any],
        open_writer: Callable[[], IStateWriter],
        listener: PersistListener,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        recovered: Rows | None = None,
    ) -> None:
        self._ring = ring
        self._record = record
        self._open_writer = open_writer
        self._listener = listener
        self._monotonic = monotonic
        self._jitter = jitter
        self._wake = threading.Event()
        self._finishing = False
        self._abandoned = threading.Event()
        self._writer: IStateWriter | None = None
        self._hold = self._is_held = False
        self._taken: Rows | None = recovered
        self._recovering = recovered is not None
        self._batch: Rows | None = None
        self._superseded = 0
        self._read = 0
        self._refusals = Refusals()
        self._rows_committed = 0
        self._attempts = 0
        self._died = False
        self._maintenance_seconds = 0.0
        self.writing_since: float | None = None
        self.maintaining_since: float | None = None

    def wake(self) -> None:
        """There are rows in the ring.  Reactor thread."""
        self._wake.set()

    def finish(self) -> None:
        """End the thread once the ring is empty and the batch committed.  Reactor thread."""
        self._finishing = True
        self._wake.set()

    def abandon(self) -> None:
        """End the thread as soon as it can, with a running write interrupted.  Reactor thread."""
        self._abandoned.set()
        self._wake.set()
        if (writer := self._writer) is not None:
            writer.interrupt()

    def hold(self) -> None:
        """Close the writer, report that by `PersistListener.held`, and wait.  Reactor thread."""
        self._hold = True
        self._wake.set()

    def resume(self) -> None:
        """The store may be opened again.  Reactor thread."""
        self._hold = self._is_held = False
        self._wake.set()

    @property
    def told_to_end(self) -> bool:
        """Whether the thread is to end."""
        return self._finishing or self._abandoned.is_set()

    def run(self) -> None:
        """The thread's life: step, sleep until woken, until told to end.

        After `PersistListener.died` another thread may run it: it rests first, as after a failed
        write, and goes on where the one before stopped.
        """
        try:
            self._rest(self._first_rest())
            self._live()
            synced = not (self._abandoned.is_set() or self._hold) and self._sync()
            self._close_writer()
        except BaseException as error:  # even one from a bug: the listener starts the next thread
            self._died = True
            self._close_writer()
            self._listener.died(error)
        else:
            self._listener.thread_ended(synced)

    def _first_rest(self) -> float:
        """Seconds to wait before the first step."""
        died, self._died = self._died, False
        return self._back_off() if died else 0.0

    def _rest(self, seconds: float) -> None:
        """Wait without listening to sweeps: they must not hurry a store that is busy."""
        if seconds:
            self._abandoned.wait(seconds)
            self._listener.beat()

    def _live(self) -> None:
        while True:
            self._wake.clear()  # before every look: what is set after one of them wakes
            if self._abandoned.is_set():
                break
            finishing = self._finishing  # before the look: what was pushed before it is then seen
            retry_after = self.step()
            if retry_after is None:
                if finishing:
                    break
                self._wake.wait(MAX_SLEEP)
                self._listener.beat()
                self._maintain()
            else:
                self._rest(retry_after)

    def step(self) -> float | None:
        """Take what is in the ring, or the batch still in hand, and try to commit it once.

        Returns:
            Seconds to wait before the next step: 0 after a commit, more after a failure; None
            where there was nothing to do.
        """
        if self._hold:
            return self._stand_still()
        try:
            self._take()
            if self._batch is None:
                return None
            self._settle(self._write(self._batch))
        except StoreReplaced as error:
            self._note_replaced(error)
            return MAX_SLEEP
        except Exception as error:  # whatever it was, the rows are kept and the listener told
            self._listener.failed(error, self._in_hand())
            if not isinstance(error, StoreBusy):
                self._close_writer()
            return self._back_off()
        self._maintain()
        if self._batch is not None:
            return self._back_off()
        self._attempts = 0
        return 0.0

    def _stand_still(self) -> float | None:
        """Do nothing until `resume`, with the writer closed."""
        if not self._is_held:
            self._close_writer()
            self._is_held = True
            self._listener.held()
        nothing = not self._in_hand() and not self._ring.depth
        return None if self._finishing and nothing else MAX_SLEEP

    def _in_hand(self) -> int:
        return sum(len(rows) for rows in (self._batch, self._taken) if rows is not None)

    def _take(self) -> None:
        """Take rows from the ring, if none are in hand or those in hand were refused."""
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

    def _write(self, batch: Rows) -> _Written:
        """Give a batch to the writer, and see how far it comes; nothing of ours changes.

        Where the store refuses a row and cannot say which, it is given ever smaller pieces, until
        the refused rows stand alone.
        """
        written = _Written(left=[batch])
        self.writing_since = started = self._monotonic()
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            while written.left:
                if self._abandoned.is_set():
                    raise StoreBusy("abandoned before the write began")
                self._write_piece(self._writer, written)
            if self._recovering:
                self._writer.sync()
        except Exception as error:  # raised once what is committed has been reported
            written.error = error
        finally:
            self.writing_since = None
        written.seconds = self._monotonic() - started
        return written

    def _write_piece(self, writer: IStateWriter, written: _Written) -> None:
        piece = written.left[-1]
        try:
            left_out = writer.write(piece.view(self._record))
        except RowRefused as error:
            if len(piece) == 1:
                written.refused.append(Refused(written.left.pop(), str(error)))
            else:
                middle = len(piece) // 2
                written.left[-1:] = [piece[middle:], piece[:middle]]
            return
        written.left.pop()
        self._sort_out(piece, left_out, written)

    def _sort_out(self, piece: Rows, left_out: LeftOut, written: _Written) -> None:
        """Note what of a piece is committed, and what the store left out of it, and why."""
        refused = sorted(left_out.refused)
        written.refused += [Refused(piece[at : at + 1], left_out.refused[at]) for at in refused]
        written.dropped += [
            Dropped.of(row, "the store holds a newer state", outdated=True)
            for row in piece[left_out.newer]
        ]
        if refused or len(left_out.newer):
            piece = np.delete(piece, [*refused, *left_out.newer.tolist()])
        written.saved.append(piece)

    def _settle(self, written: _Written) -> None:
        """Let go of what of a batch is settled, and report it; the rest is the batch from now on.

        Raises:
            Exception: what ended the writing, or the quarantine of a row.
        """
        if self._recovering and written.error is not None:
            # What is not known to be on disk is not told of, and the whole batch comes again.
            raise written.error
        before = self._rows_committed
        self._rows_committed += sum(map(len, written.saved))
        error = written.error or self._judge(written, before)
        kept = [*written.left, *(one.row for one in written.refused)]
        self._batch = (
            newest_of_each(np.concatenate(kept, dtype=self._ring.dtype)) if kept else None
        )
        if written.saved or written.dropped:
            self._report(written)
        if error is not None:
            raise error

    def _judge(self, written: _Written, committed_before: int) -> Exception | None:
        """Quarantine the refused rows that never will do; the others stay refused, to come again.

        Returns:
            What kept a row from being quarantined, if anything did.
        """
        again, given_up = self._refusals.judge(
            written.refused, committed_before, self._rows_committed, self._recovering
        )
        for why, refused in again.items():
            self._listener.failed(RowRefused(why), len(refused))
        for why, refused in given_up.items():
            rows = np.concatenate([one.row for one in refused], dtype=self._ring.dtype)
            try:
                assert self._writer is not None
                self._writer.quarantine(rows.view(self._record), why)
            except Exception as error:  # they stay refused, and it is tried again with them
                return error
            # A reason at a time: the quarantine for the next may fail.
            self._refusals.forget(refused)
            written.refused = [one for one in written.refused if one not in refused]
            written.dropped += [Dropped.of(row, why, outdated=False) for row in rows]
        return None

    def _report(self, written: _Written) -> None:
        is_settled = self._batch is None
        if is_settled:
            self._read = self._ring.read
        commit = Commit.of(
            written.saved,
            written.dropped,
            self._superseded,
            self._read,
            written.seconds,
            self._maintenance_seconds,
        )
        self._superseded = 0
        if self._recovering:
            self._recovering = not is_settled
            self._listener.recovered(commit)
        else:
            self._listener.committed(commit)

    def _sync(self) -> bool:
        """Bring everything committed to disk; whether that is known to have been done."""
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            self._writer.sync()
        except StoreReplaced as error:
            self._note_replaced(error)
            return False
        except Exception as error:  # the next start will look into the journal
            self._listener.failed(error, 0)
            return False
        return True

    def _maintain(self) -> None:
        if self._writer is None:
            return
        self.maintaining_since = started = self._monotonic()
        try:
            self._writer.maintain()
        except StoreReplaced as error:
            self._note_replaced(error)
        except Exception as error:  # the rows are committed; maintenance is due again after the next
            self._listener.failed(error, 0)
        finally:
            self.maintaining_since = None
        self._maintenance_seconds = self._monotonic() - started

    def _note_replaced(self, error: StoreReplaced) -> None:
        self._close_writer()
        self._hold = self._is_held = True
        self._listener.replaced(error)

    def _back_off(self) -> float:
        """Exponential back-off with equal jitter: between half of the delay and all of it."""
        delay = min(FIRST_RETRY * 2.0**self._attempts, LAST_RETRY)
        self._attempts = min(self._attempts + 1, 16)
        return delay * (0.5 + self._jitter() / 2)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except Exception as error:  # nothing more can be done with it
            self._listener.failed(error, 0)
