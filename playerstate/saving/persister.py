"""The persist thread: when it writes, waits, and ends, and the writer that it has open.

`playerstate.saving.in_hand` takes the rows, writes and settles them.

Rules.

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
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from playerstate.interfaces import IStateWriter, StoreBusy, StoreReplaced
from playerstate.saving.in_hand import InHand
from playerstate.saving.listener import PersistListener
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
        maintaining_since: when the present maintenance of the writer began, in `monotonic`'s
            seconds; None without one.
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
        self._calls: deque[Callable[[], object]] = deque()
        self._attempts = 0
        self._died = False
        self._maintenance_seconds = 0.0
        self.maintaining_since: float | None = None
        self._in_hand = InHand(
            ring, record, self._opened, self._is_abandoned, listener, monotonic, recovered
        )

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

    def between_writes(self, call: Callable[[], object]) -> None:
        """Have the thread make this call once, before the next write.  Reactor thread.

        While the persister is held or the store replaced, the call waits; an abandoned persister
        does not make it.  If the call kills the thread, the next thread makes it again.
        """
        self._calls.append(call)
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
    def writing_since(self) -> float | None:
        """When the present write began, in `monotonic`'s seconds; None without one."""
        return self._in_hand.writing_since

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

        A call of `between_writes` comes first, and is a step of its own.  While the persister is
        held or the store was replaced, make the switch that `reopen` requested, if any, and write
        nothing.

        Returns:
            Seconds to wait before the next step: 0 after a commit or a call, more after a failure;
            None where there was nothing to do.
        """
        if self._replaced or self._hold:
            return self._stand_still()
        if self._calls:
            self._calls[0]()
            self._calls.popleft()
            return 0.0
        try:
            if not self._in_hand.save(self._maintenance_seconds):
                return None
        except StoreReplaced as error:
            self._note_replaced(error)
            return MAX_SLEEP
        except Exception as error:  # of any kind: the rows are kept, and the listener is notified
            self._listener.failed(error, len(self._in_hand))
            if not isinstance(error, StoreBusy):
                self._close_writer()
            return self._back_off()
        self._maintain()
        if self._in_hand:
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
        nothing = not self._in_hand and not self._ring.depth
        may_end = self._finishing and nothing and not self._awaits_outcome
        return None if may_end else MAX_SLEEP

    def _sync(self) -> bool:
        """Sync everything committed to disk; return whether that succeeded."""
        try:
            self._opened().sync()
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

    def _opened(self) -> IStateWriter:
        """The open writer; where there is none, one is opened."""
        if (writer := self._writer) is None:
            writer = self._writer = self._open_writer()
        return writer

    def _is_abandoned(self) -> bool:
        return self._abandoned.is_set()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except Exception as error:  # there is nothing more to do with the writer
            self._listener.failed(error, 0)
