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
from typing import Any

import numpy as np

from playerstate.interfaces import IStateWriter, Reason, RowRefused, StoreBusy, StoreReplaced
from playerstate.saving.batch import Written, newest_of_each
from playerstate.saving.commit import Commit, Dropped
from playerstate.saving.listener import PersistListener
from playerstate.saving.refusals import Refusals, Refused
from playerstate.saving.ring import Ring, Rows

MAX_SLEEP = 1.0
"""Seconds the thread sleeps at most: each time it wakes it tells the reactor that time passes."""

FIRST_RETRY = 0.05
LAST_RETRY = 1.0
"""Seconds before a batch is tried again, and before a thread goes on that follows one that died:
doubled from the first to the last, each with jitter."""


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
        self._replaced = False
        self._hold = self._held = 0
        self._reopen: Callable[[], object] | None = None
        self._awaits_word = False
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

    def hold(self, number: int) -> None:
        """Close the writer, and write nothing until `resume`.  Reactor thread.

        `PersistListener.held` is told when the writer is closed, with this number, which is above 0
        and another each time; not by a thread that ends instead, or has found the same by itself.
        """
        self._hold = number
        self._wake.set()

    def reopen(self, go_over: Callable[[], object]) -> None:
        """Have the thread call this, once, while it stands still.  Reactor thread.

        Neither the writer nor anything else of this is in use then.  A thread that dies of it
        leaves it to the next.
        """
        self._reopen, self._awaits_word = go_over, True
        self._wake.set()

    def put_off(self) -> None:
        """What is there cannot be gone over to just now.  Reactor thread.

        A thread that is to end and has nothing in hand ends then, and not before it has been told.
        """
        self._awaits_word = False
        self._wake.set()

    def resume(self) -> None:
        """The store that was replaced may be opened again.  Reactor thread."""
        self._replaced = self._awaits_word = False
        self._hold = 0
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
            still = self._replaced or self._hold or self._abandoned.is_set()
            synced = not still and self._sync()
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
            elif self._replaced or self._hold:
                self._wake.wait(retry_after)  # `reopen` and `resume` wake
                self._listener.beat()
            else:
                self._rest(retry_after)

    def step(self) -> float | None:
        """Take what is in the ring, or the batch still in hand, and try to commit it once.

        Where the store was replaced, go over to what is there now, if told how.

        Returns:
            Seconds to wait before the next step: 0 after a commit, more after a failure; None
            where there was nothing to do.
        """
        if self._replaced or self._hold:
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
        if self._in_hand():
            return self._back_off()
        self._attempts = 0
        return 0.0

    def _stand_still(self) -> float | None:
        """Write nothing, with the writer closed; go over to another store, if told to."""
        if (number := self._hold) and number != self._held:
            self._close_writer()
            self._held = number
            self._listener.held(number)
        if (go_over := self._reopen) is not None:
            self._reopen = None
            try:
                go_over()
            except BaseException:
                self._reopen = go_over
                raise
            return 0.0
        nothing = not self._in_hand() and not self._ring.depth
        may_end = self._finishing and nothing and not self._awaits_word
        return None if may_end else MAX_SLEEP

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

    def _write(self, batch: Rows) -> Written:
        """Give a batch to the writer, and see how far that comes; the batch stays in hand.

        Where the store refuses a row and cannot say which, it is given ever smaller pieces, until
        the refused rows stand alone.
        """
        written = Written([batch])
        self.writing_since = started = self._monotonic()
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            while written.left:
                if self._abandoned.is_set():
                    raise StoreBusy("abandoned before the write began")
                try:
                    written.took(self._writer.write(written.left[-1].view(self._record)))
                except RowRefused as error:
                    written.refuses(error)
            if self._recovering:
                self._writer.sync()
        except BaseException as error:  # raised once what is committed has been reported
            written.error = error
        self.writing_since = None
        written.seconds = self._monotonic() - started
        return written

    def _settle(self, written: Written) -> None:
        """Report what of a batch is settled, and let go of it; the rest is the batch from now on.

        Where this fails before the report, the whole batch is written again.

        Raises:
            BaseException: what ended the writing, or kept a row from being set aside.
        """
        if self._recovering and written.error is not None:
            raise written.error  # nothing is known to be on disk: all of it comes again
        error = written.error
        committed = self._rows_committed + sum(map(len, written.saved))
        if error is None:
            error = self._set_aside_hopeless(written, committed)
        rest = written.rest()
        if written.saved or written.dropped:
            self._report(written, rest is None)
        self._rows_committed = committed
        self._batch = rest
        if error is not None:
            raise error

    def _set_aside_hopeless(self, written: Written, committed: int) -> Exception | None:
        """Set aside the refused rows that never will do; the others stay refused, to come again.

        They are set aside together: each may have a reason of its own, and a file is not to be
        written for each.

        Returns:
            What kept them from being set aside, if anything did; they stay refused then.
        """
        again, given_up = self._refusals.judge(
            written.refused, self._rows_committed, committed, self._recovering
        )
        error = None
        if given_up:
            assert self._writer is not None
            rows = np.concatenate([one.row for one in given_up], dtype=self._ring.dtype)
            reasons = [str(one.error) for one in given_up]
            try:
                self._writer.quarantine(rows.view(self._record), reasons)
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
            self._tell_refused(again)
        return error

    def _tell_refused(self, refused: list[Refused]) -> None:
        """Tell the listener of rows that are kept, once, however many reasons they have."""
        if not refused:
            return
        error = refused[0].error
        if others := len({str(one.error) for one in refused}) - 1:
            error = RowRefused(f"{error}; and for {others} other reasons")
        self._listener.failed(error, len(refused))

    def _report(self, written: Written, is_settled: bool) -> None:
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
        if self._recovering:
            self._listener.recovered(commit)
            self._recovering = not is_settled
        else:
            self._listener.committed(commit)
        self._superseded = 0

    def _sync(self) -> bool:
        """Bring everything committed to disk; whether that is known to have been done."""
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            self._writer.sync()
        except StoreReplaced as error:
            self._note_replaced(error)
            return False
        except Exception as error:  # the next start will look into the live file
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
        except Exception as error:  # the rows are committed; it is due again after the next
            self._listener.failed(error, 0)
        finally:
            self.maintaining_since = None
        self._maintenance_seconds = self._monotonic() - started

    def _note_replaced(self, error: StoreReplaced) -> None:
        self._replaced = self._awaits_word = True
        self._close_writer()
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
