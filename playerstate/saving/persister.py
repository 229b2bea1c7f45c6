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

from playerstate.interfaces import IStateWriter, RowRefused, StoreBusy, StoreReplaced
from playerstate.saving.ring import Ring

MAX_SLEEP = 1.0
"""Seconds the thread sleeps at most: each time it wakes it tells the reactor that time passes."""

FIRST_RETRY = 0.05
LAST_RETRY = 1.0
"""Seconds before a batch is tried again, and before a thread goes on that follows one that died:
doubled from the first to the last, each with jitter."""

REFUSALS = 3
"""Times a row must be refused alone before it is set aside."""

Rows = npt.NDArray[np.void]


@attrs.frozen
class Unsaved:
    """A row that the store does not hold and will not be given again.

    Attributes:
        session_id, slot, updated_at: of the row.
        why: in words.
        guarded: whether the store holds a newer one; else it can never take this one.
    """

    session_id: int
    slot: int
    updated_at: int
    why: str
    guarded: bool


@attrs.frozen(eq=False)
class Commit:
    """What became of rows in the persister's hands.

    The arrays have one element a player.

    Attributes:
        slots, generations, sequences, updated_at: columns of the rows committed.
        unsaved: rows that were not, and are settled all the same.
        superseded: rows for which the persister also held a newer one of the same player.
        read: every row below this cursor of the ring is settled.
        seconds: how long the writes took.
        upkeep_seconds: how long the writer's own upkeep took before them.
    """

    slots: npt.NDArray[np.intp]
    generations: npt.NDArray[np.uint32]
    sequences: npt.NDArray[np.uint64]
    updated_at: npt.NDArray[np.int64]
    unsaved: tuple[Unsaved, ...]
    superseded: int
    read: int
    seconds: float
    upkeep_seconds: float


class PersistListener(Protocol):
    """What the persist thread tells.  Every method is called on the persist thread."""

    def committed(self, commit: Commit) -> None:
        """Rows are in the store, or settled otherwise."""

    def recovered(self, commit: Commit) -> None:
        """The same of rows that a process before this one left; those committed are on disk."""

    def failed(self, error: Exception, rows: int) -> None:
        """So many rows are kept after this error, or the writer's upkeep met it (0 rows)."""

    def replaced(self, error: Exception) -> None:
        """The store is not the one that was opened; the writer waits for `Persister.resume`."""

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
        self._reopen: Callable[[], object] | None = None
        self._awaits_word = False
        self._taken: Rows | None = recovered
        self._recovering = recovered is not None
        self._batch: Rows | None = None
        self._superseded = 0
        self._settled = 0
        self._refusals: dict[int, _Refusal] = {}
        self._rows_committed = 0
        self._attempts = 0
        self._died = False
        self._upkeep_seconds = 0.0
        self.writing_since: float | None = None
        self.upkeep_since: float | None = None

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

    def reopen(self, go_over: Callable[[], object]) -> None:
        """Have the thread call this, once, while it waits for `resume`.  Reactor thread.

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
        self._replaced = False
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
            synced = not (self._abandoned.is_set() or self._replaced) and self._sync()
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
            elif self._replaced:
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
        if self._replaced:
            return self._step_replaced()
        try:
            self._take()
            if self._batch is None:
                return None
            settled = self._save(self._batch)
        except StoreReplaced as error:
            self.writing_since = None
            self._note_replaced(error)
            return MAX_SLEEP
        except Exception as error:  # whatever it was, the rows are kept and the listener told
            self.writing_since = None
            self._listener.failed(error, self._in_hand())
            if not isinstance(error, StoreBusy):
                self._close_writer()
            return self._back_off()
        self._maintain()
        if not settled:
            return self._back_off()
        self._attempts = 0
        return 0.0

    def _step_replaced(self) -> float | None:
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

    def _save(self, batch: Rows) -> bool:
        """Write a batch; where rows are refused, without those that the store names.

        A store that names none is given ever smaller pieces, until the refused rows stand alone.

        Returns:
            Whether all of it is settled; what is not is the batch from now on.
        """
        pieces = [batch]
        refused: list[tuple[Rows, str, RowRefused]] = []
        saved: list[Rows] = []
        unsaved: list[Unsaved] = []
        told = not self._recovering
        rows_committed = self._rows_committed
        self.writing_since = started = self._monotonic()
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            while pieces:
                piece = pieces[-1]
                if self._abandoned.is_set():
                    raise StoreBusy("abandoned before the write began")
                try:
                    left_out = self._writer.write(piece.view(self._record))
                except RowRefused as error:
                    if named := sorted(error.reasons):
                        refused += [(piece[at : at + 1], error.reasons[at], error) for at in named]
                        pieces[-1:] = [good] if len(good := np.delete(piece, named)) else []
                    elif len(piece) == 1:
                        refused.append((pieces.pop(), str(error), error))
                    else:
                        middle = len(piece) // 2
                        pieces[-1:] = [piece[middle:], piece[:middle]]
                    continue
                guarded = [_guarded(row) for row in piece[left_out]]
                saved.append(np.delete(piece, left_out) if len(left_out) else piece)
                unsaved += guarded
                pieces.pop()
                self._rows_committed += len(saved[-1])
            if self._recovering:
                self._writer.sync()
                told = True
            self._judge_refused(refused, unsaved, rows_committed)
        finally:
            self.writing_since = None
            # What is told of has left our hands, and nothing else: after an error before that, the
            # whole batch is written again.
            if told:
                kept = [*pieces, *(row for row, *_ in refused)]
                rest = (
                    newest_of_each(np.concatenate(kept, dtype=self._ring.dtype)) if kept else None
                )
                if saved or unsaved:
                    self._report(saved, unsaved, rest is None, self._monotonic() - started)
                self._batch = rest
        return self._batch is None

    def _judge_refused(
        self,
        refused: list[tuple[Rows, str, RowRefused]],
        unsaved: list[Unsaved],
        rows_committed: int,
    ) -> None:
        """Count how often each row was refused alone; set aside, off the list, who never will do.

        While no other row is committed it may be the store that is at fault, not the row.  They are
        set aside together: each may have a reason of its own, and a file is not to be written for
        each.
        """
        before, self._refusals = self._refusals, {}
        for row, *_ in refused:
            session_id = int(row["session_id"][0])
            refusal = before.get(session_id) or _Refusal(rows_committed)
            refusal.times += 1
            self._refusals[session_id] = refusal
        kept: dict[str, tuple[RowRefused, int]] = {}
        given_up: list[tuple[Rows, str, RowRefused]] = []
        waiting: list[tuple[Rows, str, RowRefused]] = []
        for one in refused:
            row, _, error = one
            refusal = self._refusals[int(row["session_id"][0])]
            others = self._recovering or self._rows_committed > refusal.rows_committed
            if refusal.times >= REFUSALS and others:
                given_up.append(one)
            else:
                waiting.append(one)
                told, count = kept.get(str(error), (error, 0))
                kept[str(error)] = told, count + 1
        if given_up:
            assert self._writer is not None
            rows = np.concatenate([row for row, *_ in given_up], dtype=self._ring.dtype)
            self._writer.set_aside(rows.view(self._record), [why for _, why, _ in given_up])
            unsaved += [_unsaved(row[0], why, guarded=False) for row, why, _ in given_up]
            refused[:] = waiting
            for session_id in rows["session_id"].tolist():
                del self._refusals[session_id]
        for error, count in kept.values():
            self._listener.failed(error, count)

    def _report(
        self, saved: list[Rows], unsaved: list[Unsaved], settled: bool, seconds: float
    ) -> None:
        if settled:
            self._settled = self._ring.read
        commit = Commit(
            slots=_column(saved, "slot", np.intp),
            generations=_column(saved, "generation", np.uint32),
            sequences=_column(saved, "sequence", np.uint64),
            updated_at=_column(saved, "updated_at", np.int64),
            unsaved=tuple(unsaved),
            superseded=self._superseded,
            read=self._settled,
            seconds=seconds,
            upkeep_seconds=self._upkeep_seconds,
        )
        if self._recovering:
            self._listener.recovered(commit)
            self._recovering = not settled
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
        except Exception as error:  # the next start will look into the journal
            self._listener.failed(error, 0)
            return False
        return True

    def _maintain(self) -> None:
        if self._writer is None:
            return
        self.upkeep_since = started = self._monotonic()
        try:
            self._writer.maintain()
        except StoreReplaced as error:
            self._note_replaced(error)
        except Exception as error:  # the rows are committed; upkeep is due again after the next
            self._listener.failed(error, 0)
        finally:
            self.upkeep_since = None
        self._upkeep_seconds = self._monotonic() - started

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


@attrs.define
class _Refusal:
    """How often a row was refused alone, and how many rows had been committed before the first."""

    rows_committed: int
    times: int = 0


def _column(pieces: list[Rows], name: str, dtype: type[Any]) -> npt.NDArray[Any]:
    """One column of all pieces, as an array of its own: the reactor thread is to have it ready."""
    return np.concatenate([*(piece[name] for piece in pieces), np.empty(0, dtype)], dtype=dtype)


def _unsaved(row: np.void, why: str, guarded: bool) -> Unsaved:
    ids = int(row["session_id"]), int(row["slot"]), int(row["updated_at"])
    return Unsaved(*ids, why, guarded)


def _guarded(row: np.void) -> Unsaved:
    return _unsaved(row, "the store holds a newer state", guarded=True)
