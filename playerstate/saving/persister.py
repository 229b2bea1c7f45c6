"""The persist thread: drains the ring into the writer, a batch at a time.

Rules.

- A batch taken from the ring belongs to the `Persister`, not to its thread's stack, and leaves it
  only when it is settled: a failed write keeps it.
- A batch holds the newest row of each player, sorted by session id.  Rows of one player leave the
  ring in the order in which they were made, so the newest is the last.
- The thread sleeps on one event.  It clears the event *before* it checks the ring, so a row pushed
  after the check leaves the event set: no wake-up is lost.
- It reports to the reactor thread through `PersistListener` alone.

`Persister.step` is one turn without any waiting, which tests call directly; `Persister.run` is the
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
"""Most seconds that the thread sleeps; it sends the reactor a beat each time it wakes."""

FIRST_RETRY = 0.05
LAST_RETRY = 1.0
"""Backoff in seconds before a batch is tried again, and before a thread that replaces a dead one
starts: doubled from the first to the last, each with jitter."""


class Persister:
    """Drains one ring into one writer.

    Args:
        ring: the persister is its consumer.
        record: the dtype in which a store gets rows.
        open_writer: makes the writer; called on the persist thread.
        listener: receives the reports.
        monotonic: seconds that never step.
        jitter: a number from 0 to 1, to spread retries.
        recovered: rows that a previous process left, to be saved before all others, one a player,
            sorted by session id.

    Attributes:
        writing_since: when the present write began, in `monotonic`'s seconds; None without one.
        maintaining_since: the same for the writer's maintenance.
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
        self._awaits_outcome = False
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
        """Wake the thread: there are rows in the ring.  Reactor thread."""
        self._wake.set()

    def finish(self) -> None:
        """End the thread once the ring is empty and the batch is settled.  Reactor thread."""
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

        Once the writer is closed, the thread calls `PersistListener.held` with `number`, which is
        above 0 and different each time.  A thread that ends instead, or that itself finds the store
        replaced, need not call it.
        """
        self._hold = number
        self._wake.set()

    def reopen(self, go_over: Callable[[], object]) -> None:
        """Have the thread call `go_over` once, while it is held.  Reactor thread.

        Neither the writer nor anything else of the persister is in use during the call.  If the
        call kills the thread, the next thread makes it again.
        """
        self._reopen, self._awaits_outcome = go_over, True
        self._wake.set()

    def put_off(self) -> None:
        """Note that the switch to another store is not possible now.  Reactor thread.

        A thread that is to end and has no rows ends only after this or `resume`.
        """
        self._awaits_outcome = False
        self._wake.set()

    def resume(self) -> None:
        """Let the thread open a writer and write again.  Reactor thread."""
        self._replaced = self._awaits_outcome = False
        self._hold = 0
        self._wake.set()

    @property
    def told_to_end(self) -> bool:
        """Whether `finish` or `abandon` was called."""
        return self._finishing or self._abandoned.is_set()

    def run(self) -> None:
        """Run the thread: step, then sleep until woken, until `finish` or `abandon` ends it.

        After `PersistListener.died` another thread may call this: it rests first, as after a failed
        write, and goes on where the dead thread stopped.
        """
        try:
            self._rest(self._first_rest())
            self._live()
            still = self._replaced or self._hold or self._abandoned.is_set()
            synced = not still and self._sync()
            self._close_writer()
        except BaseException as error:  # bugs included: the listener starts the next thread
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
        """Wait, and let no sweep cut it short: sweeps must not hurry a busy store."""
        if seconds:
            self._abandoned.wait(seconds)
            self._listener.beat()

    def _live(self) -> None:
        while True:
            self._wake.clear()  # before each check: a flag set after its check wakes the thread
            if self._abandoned.is_set():
                break
            finishing = self._finishing  # before the step: it takes all rows pushed before `finish`
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
        """Take the rows in the ring, or the batch still held, and try to commit them once.

        While the persister is held or the store was replaced, make the switch that `reopen`
        requested, if any, and write nothing.

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
        except Exception as error:  # of any kind: the rows are kept, and the listener is notified
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
        """Write nothing, with the writer closed; make the switch that `reopen` requested."""
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
        may_end = self._finishing and nothing and not self._awaits_outcome
        return None if may_end else MAX_SLEEP

    def _in_hand(self) -> int:
        return sum(len(rows) for rows in (self._batch, self._taken) if rows is not None)

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
        except BaseException as error:  # raised after the commit report
            written.error = error
        self.writing_since = None
        written.seconds = self._monotonic() - started
        return written

    def _settle(self, written: Written) -> None:
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
            self._report(written, rest is None)
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
        """Sync everything committed to disk; return whether that succeeded."""
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            self._writer.sync()
        except StoreReplaced as error:
            self._note_replaced(error)
            return False
        except Exception as error:  # the live file stays for the next start
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
        self._replaced = self._awaits_outcome = True
        self._close_writer()
        self._listener.replaced(error)

    def _back_off(self) -> float:
        """Exponential backoff in seconds with equal jitter: from half of the delay to all of it."""
        delay = min(FIRST_RETRY * 2.0**self._attempts, LAST_RETRY)
        self._attempts = min(self._attempts + 1, 16)
        return delay * (0.5 + self._jitter() / 2)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except Exception as error:  # there is nothing more to do with the writer
            self._listener.failed(error, 0)
