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
import numpy.typing as npt

from playerstate.interfaces import IStateWriter, StoreBusy
from playerstate.ring import Ring

MAX_SLEEP = 1.0
"""Seconds the thread sleeps at most: each time it wakes it tells the reactor that time passes."""

FIRST_RETRY = 0.05
LAST_RETRY = 1.0
"""Seconds before a batch is tried again: doubled from the first to the last, each with jitter."""

Rows = npt.NDArray[np.void]


@attrs.frozen(eq=False)
class Commit:
    """What the writer has just committed.

    The arrays have one element a player; those left out by the guard are not among them.

    Attributes:
        slots, generations, sequences, updated_at: columns of the rows committed.
        guarded: session ids of players whose row was left out: the store holds a newer one.
        guarded_slots, guarded_at: slots and ``updated_at`` of those rows.
        superseded: rows of the batch for which it also held a newer one.
        read: the ring's read cursor after this batch: every row below it is settled.
        seconds: how long the write took.
        upkeep_seconds: how long the writer's own upkeep took before it.
    """

    slots: npt.NDArray[np.uint32]
    generations: npt.NDArray[np.uint32]
    sequences: npt.NDArray[np.uint64]
    updated_at: npt.NDArray[np.int64]
    guarded: npt.NDArray[np.int64]
    guarded_slots: npt.NDArray[np.uint32]
    guarded_at: npt.NDArray[np.int64]
    superseded: int
    read: int
    seconds: float
    upkeep_seconds: float


class PersistListener(Protocol):
    """What the persist thread tells.  Every method is called on the persist thread."""

    def committed(self, commit: Commit) -> None:
        """A batch is in the store."""

    def failed(self, error: Exception, rows: int) -> None:
        """The batch of so many rows, or the writer's upkeep (0 rows), met this error."""

    def beat(self) -> None:
        """The thread woke by itself; at most `MAX_SLEEP` passed since the last."""

    def thread_ended(self) -> None:
        """The thread is about to end, with its writer closed."""


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
    return rows[order[last]]


class Persister:
    """Drains one ring into one writer.

    Args:
        ring: whose consumer this is.
        record: the dtype under which a store sees a row.
        open_writer: makes the writer; called on the persist thread.
        listener: is told what happens.
        monotonic: seconds that never step.
        jitter: a number from 0 to 1, to spread retries.
    """

    def __init__(
        self,
        ring: Ring,
        record: np.dtype[Any],
        open_writer: Callable[[], IStateWriter],
        listener: PersistListener,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
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
        self._taken: Rows | None = None
        self._batch: Rows | None = None
        self._attempts = 0
        self._upkeep_seconds = 0.0

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

    @property
    def told_to_end(self) -> bool:
        """Whether the thread is to end."""
        return self._finishing or self._abandoned.is_set()

    def run(self) -> None:
        """The thread's life: step, sleep until woken, until told to end."""
        while not self._abandoned.is_set():
            self._wake.clear()
            finishing = self._finishing  # before the look: what was pushed before it is then seen
            retry_after = self.step()
            if retry_after is None:
                if finishing:
                    break
                self._wake.wait(MAX_SLEEP)
                self._listener.beat()
            elif retry_after:
                # Not the event that sweeps set: they must not hurry a store that is busy.
                self._abandoned.wait(retry_after)
                self._listener.beat()
        self.close()
        self._listener.thread_ended()

    def step(self) -> float | None:
        """Take what is in the ring, or the batch still in hand, and try to commit it once.

        Returns:
            Seconds to wait before the next step: 0 after a commit, more after a failure; None
            where there was nothing to do.
        """
        if self._taken is None:
            taken = self._ring.take()
            if not len(taken):
                return None
            self._taken = taken
        try:
            self._attempt(self._taken)
        except Exception as error:  # whatever it was, the batch is kept and the listener told
            self._listener.failed(error, len(self._taken))
            if not isinstance(error, StoreBusy):
                self._close_writer()
            return self._back_off()
        self._taken = self._batch = None
        self._attempts = 0
        self._maintain()
        return 0.0

    def close(self) -> None:
        """Close the writer.  On the persist thread, or with that thread ended."""
        self._close_writer()

    def _attempt(self, taken: Rows) -> None:
        if self._batch is None:
            self._batch = newest_of_each(taken)
        batch = self._batch
        if self._writer is None:
            self._writer = self._open_writer()
        if self._abandoned.is_set():
            raise StoreBusy("abandoned before the write began")
        started = self._monotonic()
        left_out = self._writer.write(batch.view(self._record))
        seconds = self._monotonic() - started
        guarded = batch[left_out]
        committed = np.delete(batch, left_out) if len(left_out) else batch
        commit = Commit(
            slots=committed["slot"],
            generations=committed["generation"],
            sequences=committed["sequence"],
            updated_at=committed["updated_at"],
            guarded=guarded["session_id"],
            guarded_slots=guarded["slot"],
            guarded_at=guarded["updated_at"],
            superseded=len(taken) - len(batch),
            read=self._ring.read,
            seconds=seconds,
            upkeep_seconds=self._upkeep_seconds,
        )
        self._listener.committed(commit)

    def _maintain(self) -> None:
        assert self._writer is not None
        started = self._monotonic()
        try:
            self._writer.maintain()
        except Exception as error:  # the rows are committed; upkeep is due again after the next
            self._listener.failed(error, 0)
        self._upkeep_seconds = self._monotonic() - started

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
