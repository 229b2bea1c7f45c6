"""The persister: one step at a time, and then its whole life on a real thread."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from playerstate import persister as persister_module
from playerstate.interfaces import IStateWriter, Records, RowRefused, StoreBusy
from playerstate.persister import Commit, Persister, newest_of_each
from playerstate.ring import Ring
from playerstate.schema import RowLayout, StateSchema
from playerstate.state import PlayerState
from tests.support import LAW, PATIENCE

SCHEMA = StateSchema.of(PlayerState)
LAYOUT = RowLayout(SCHEMA)

Player = tuple[int, int]
"""Session id and sequence; everything else in a row of these tests follows from the two."""


def rows_of(*players: Player) -> Any:
    """Rows as they lie in the ring."""
    made = np.zeros(len(players), LAYOUT.dtype)
    for index, (session_id, sequence) in enumerate(players):
        made[index] = (
            session_id,
            session_id + 100,
            session_id + 200,
            sequence + 1000,
            sequence,
            SCHEMA.struct.pack(float(session_id), float(sequence)),
        )
    return made


def players_of(records: Records) -> list[Player]:
    """The players of records, each of which must be as `rows_of` made it."""
    found = []
    for session_id, x, y, updated_at in records.tolist():
        assert (x, y) == (session_id, updated_at - 1000)
        found.append((session_id, updated_at - 1000))
    return found


class Listener:
    """Notes what the persist thread tells, and on which thread."""

    def __init__(self) -> None:
        self.commits: queue.Queue[Commit] = queue.Queue()
        self.failures: queue.Queue[tuple[Exception, int]] = queue.Queue()
        self.beats: queue.Queue[int] = queue.Queue()
        self.ended = threading.Event()
        self.on_end: Callable[[], object] = lambda: None

    def committed(self, commit: Commit) -> None:
        self.commits.put(commit)

    def failed(self, error: Exception, rows: int) -> None:
        self.failures.put((error, rows))

    def beat(self) -> None:
        self.beats.put(threading.get_ident())

    def thread_ended(self) -> None:
        self.on_end()
        self.ended.set()


@implementer(IStateWriter)
class Writer:
    """Fails as the test told the store, and otherwise notes what it is given."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.closed = False

    def write(self, records: Records) -> npt.NDArray[np.intp]:
        assert not self.closed
        self.store.attempts.append(records.tobytes())
        self.store.time += self.store.write_seconds
        if self.store.write_errors:
            error = self.store.write_errors.popleft()
            if error is not None:
                raise error
        self.store.on_write()
        self.store.written.append(players_of(records))
        self.store.dtypes.add(records.dtype)
        return np.array(self.store.left_out, np.intp)

    def maintain(self) -> None:
        assert not self.closed
        self.store.upkeeps += 1
        self.store.time += self.store.upkeep_seconds
        if self.store.upkeep_errors:
            raise self.store.upkeep_errors.popleft()

    def interrupt(self) -> None:
        self.store.interrupted.set()

    def close(self) -> None:
        self.closed = True
        if self.store.close_errors:
            raise self.store.close_errors.popleft()


class Store:
    """Opens writers, and is where they keep what happened.

    Attributes:
        writers: every writer opened.
        attempts: the bytes of each batch that was to be written.
        written: the players of each batch that was written.
        left_out: positions that the next writes leave out.
        on_open, on_write: called when a writer is opened, and when it writes.
        open_errors, write_errors, upkeep_errors, close_errors: raised by the next such calls.
        time: seconds on the persister's clock.
    """

    def __init__(self) -> None:
        self.writers: list[Writer] = []
        self.attempts: list[bytes] = []
        self.written: list[list[Player]] = []
        self.dtypes: set[np.dtype[Any]] = set()
        self.left_out: list[int] = []
        self.upkeeps = 0
        self.open_errors: deque[Exception] = deque()
        self.write_errors: deque[Exception | None] = deque()
        self.upkeep_errors: deque[Exception] = deque()
        self.close_errors: deque[Exception] = deque()
        self.on_open: Callable[[], object] = lambda: None
        self.on_write: Callable[[], object] = lambda: None
        self.interrupted = threading.Event()
        self.time = 0.0
        self.write_seconds = 0.0
        self.upkeep_seconds = 0.0

    def open_writer(self) -> Writer:
        """One more writer."""
        self.on_open()
        if self.open_errors:
            raise self.open_errors.popleft()
        self.writers.append(Writer(self))
        return self.writers[-1]


class WatchedRing(Ring):
    """A ring that says when it was looked into and found empty."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, LAYOUT.dtype)
        self.found_empty: queue.Queue[None] = queue.Queue()
        self.on_empty: Callable[[], object] = lambda: None

    def take(self) -> Any:
        """See `Ring.take`."""
        taken = super().take()
        if not len(taken):
            self.found_empty.put(None)
            self.on_empty()
        return taken


class PersisterTestCase(SynchronousTestCase):
    """A persister between a ring of 16 rows and a store that does as it is told."""

    def setUp(self) -> None:
        """Make them."""
        self.ring = WatchedRing(16)
        self.store = Store()
        self.listener = Listener()
        self.jitter = 1.0
        self.persister = Persister(
            self.ring,
            LAYOUT.record,
            self.store.open_writer,
            self.listener,
            lambda: self.store.time,
            lambda: self.jitter,
        )

    def push(self, *players: Player) -> None:
        """Push rows."""
        rows = rows_of(*players)
        self.assertEqual(self.ring.push(rows, np.arange(len(rows))), len(rows))

    def commit(self) -> Commit:
        """The one commit told and not yet looked at."""
        self.assertEqual(self.listener.commits.qsize(), 1)
        return self.listener.commits.get_nowait()

    def failure(self) -> tuple[Exception, int]:
        """The one failure told and not yet looked at."""
        self.assertEqual(self.listener.failures.qsize(), 1)
        return self.listener.failures.get_nowait()


class CommitTests(PersisterTestCase):
    """A step that goes well."""

    def test_fake_writer(self) -> None:
        """The writer of these tests is a complete `IStateWriter`."""
        verifyObject(IStateWriter, Writer(self.store))

    def test_nothing_to_do(self) -> None:
        """With an empty ring a step does nothing, and opens no writer."""
        self.assertIsNone(self.persister.step())
        self.assertEqual(self.store.writers, [])
        self.assertTrue(self.listener.commits.empty())

    def test_commit(self) -> None:
        """A step writes what is in the ring, and says that there may be more at once."""
        self.push((1, 10), (2, 20))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 10), (2, 20)]])
        self.assertIsNone(self.persister.step())

    def test_records(self) -> None:
        """The writer sees records, under the schema's names."""
        self.push((1, 10))
        self.persister.step()
        self.assertEqual(self.store.dtypes, {LAYOUT.record})

    def test_sorted(self) -> None:
        """A batch is sorted by session id, whatever the order of its rows."""
        self.push((3, 1), (1, 2), (2, 3))
        self.persister.step()
        self.assertEqual(self.store.written, [[(1, 2), (2, 3), (3, 1)]])

    def test_newest_row_of_each_player(self) -> None:
        """Of several rows of one player, the one pushed last is written."""
        self.push((2, 1), (1, 1), (2, 2), (1, 2), (2, 3))
        self.persister.step()
        self.assertEqual(self.store.written, [[(1, 2), (2, 3)]])
        self.assertEqual(self.commit().superseded, 3)

    def test_report(self) -> None:
        """A commit reports slot, generation, sequence and age of each row, and the cursor."""
        self.push((1, 10), (2, 20))
        self.ring.take()
        self.push((4, 40), (3, 30), (4, 41))
        self.persister.step()
        commit = self.commit()
        self.assertEqual(commit.slots.tolist(), [103, 104])
        self.assertEqual(commit.generations.tolist(), [203, 204])
        self.assertEqual(commit.sequences.tolist(), [30, 41])
        self.assertEqual(commit.updated_at.tolist(), [1030, 1041])
        self.assertEqual(commit.guarded.tolist(), [])
        self.assertEqual(commit.guarded_slots.tolist(), [])
        self.assertEqual(commit.guarded_at.tolist(), [])
        self.assertEqual(commit.superseded, 1)
        self.assertEqual(commit.read, 5)

    def test_guarded_rows(self) -> None:
        """Invariant 4: rows that the writer left out are reported as guarded, not as committed."""
        self.push((1, 10), (2, 20), (3, 30), (4, 40))
        self.store.left_out = [3, 1]
        self.persister.step()
        commit = self.commit()
        self.assertEqual(commit.slots.tolist(), [101, 103])
        self.assertEqual(commit.sequences.tolist(), [10, 30])
        self.assertEqual(
            sorted(zip(commit.guarded, commit.guarded_slots, commit.guarded_at, strict=True)),
            [(2, 102, 1020), (4, 104, 1040)],
        )
        self.assertEqual(commit.superseded, 0)

    def test_all_guarded(self) -> None:
        """Invariant 4: a batch all of which was left out is a commit of no rows."""
        self.push((1, 10))
        self.store.left_out = [0]
        self.assertEqual(self.persister.step(), 0.0)
        commit = self.commit()
        self.assertEqual((len(commit.slots), commit.guarded.tolist()), (0, [1]))

    def test_report_outlives_the_ring(self) -> None:
        """What a commit reports does not change when the ring's places are used again."""
        self.push((1, 10))
        self.persister.step()
        commit = self.commit()
        for number in range(20):
            self.push((9, number))
            self.ring.take()
        self.assertEqual(commit.sequences.tolist(), [10])

    def test_one_writer(self) -> None:
        """One writer serves every batch."""
        for sequence in range(3):
            self.push((1, sequence))
            self.persister.step()
        self.assertEqual(len(self.store.writers), 1)
        self.assertFalse(self.store.writers[0].closed)

    def test_seconds(self) -> None:
        """A commit says how long its write took, and the upkeep before it."""
        self.store.write_seconds, self.store.upkeep_seconds = 0.25, 4.0
        self.push((1, 1))
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.seconds, commit.upkeep_seconds), (0.25, 0.0))
        self.push((1, 2))
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.seconds, commit.upkeep_seconds), (0.25, 4.0))

    def test_upkeep_after_each_commit(self) -> None:
        """The writer is given time for its upkeep after each commit, and at no other time."""
        self.persister.step()
        self.assertEqual(self.store.upkeeps, 0)
        self.store.write_errors.append(StoreBusy("locked"))
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(self.store.upkeeps, 0)
        self.persister.step()
        self.assertEqual(self.store.upkeeps, 1)

    def test_close(self) -> None:
        """Closing closes the writer, once; without one there is nothing to close."""
        self.persister.close()
        self.push((1, 1))
        self.persister.step()
        self.persister.close()
        self.assertTrue(self.store.writers[0].closed)
        self.persister.close()
        self.assertEqual(len(self.store.writers), 1)


class FailureTests(PersisterTestCase):
    """A step that fails."""

    def test_busy(self) -> None:
        """Invariant 3: while the store is busy, the batch and the writer are kept."""
        self.push((2, 1), (1, 1), (2, 2))
        error = StoreBusy("locked")
        self.store.write_errors.extend([error, error])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 3))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 3))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1), (2, 2)]])
        self.assertEqual(len(set(self.store.attempts)), 1)
        self.assertEqual(len(self.store.writers), 1)
        self.assertEqual(self.commit().superseded, 1)

    def test_other_errors(self) -> None:
        """Invariant 3: any other error closes the writer; the same rows go to a new one."""
        for number, error in enumerate((OSError("disk"), RowRefused("hp"), ZeroDivisionError())):
            self.push((1, number))
            self.store.write_errors.append(error)
            self.assertGreater(self.persister.step(), 0.0)
            self.assertEqual(self.failure(), (error, 1))
            self.assertEqual([writer.closed for writer in self.store.writers], [True])
            self.assertEqual(self.persister.step(), 0.0)
            self.assertEqual(self.store.written, [[(1, number)]])
            self.assertEqual([writer.closed for writer in self.store.writers], [True, False])
            self.persister.close()
            self.store.writers.clear()
            self.store.written.clear()

    def test_writer_that_does_not_close(self) -> None:
        """A writer that fails to close is told of, and let go of all the same."""
        self.push((1, 1))
        write_error, close_error = OSError("disk"), OSError("close")
        self.store.write_errors.append(write_error)
        self.store.close_errors.append(close_error)
        self.persister.step()
        told = [self.listener.failures.get_nowait() for _ in range(2)]
        self.assertEqual(told, [(write_error, 1), (close_error, 0)])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(len(self.store.writers), 2)

    def test_store_that_does_not_open(self) -> None:
        """Invariant 3: a store that cannot be opened is tried again with the same rows."""
        self.push((1, 1))
        error = OSError("gone")
        self.store.open_errors.extend([error, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 1))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_rows_pushed_meanwhile(self) -> None:
        """Invariant 11: while a batch is in hand, nothing more is taken from the ring."""
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.persister.step()
        self.push((1, 2), (2, 2))
        self.assertEqual(self.ring.depth, 2)
        self.persister.step()
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.assertEqual(self.commit().read, 1)
        self.persister.step()
        self.assertEqual(self.store.written[1:], [[(1, 2), (2, 2)]])

    def test_batch_survives_close(self) -> None:
        """Invariant 3: a batch in hand is kept though the writer was closed."""
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.persister.step()
        self.persister.close()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_upkeep_fails(self) -> None:
        """A failed upkeep is told as an error of no rows; the commit stands, and the writer."""
        self.push((1, 1))
        error = OSError("checkpoint")
        self.store.upkeep_errors.append(error)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 0))
        self.assertEqual(self.commit().sequences.tolist(), [1])
        self.push((1, 2))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.upkeeps, 2)
        self.assertEqual(len(self.store.writers), 1)

    def test_upkeep_that_fails_takes_time_too(self) -> None:
        """The time of a failed upkeep is reported as any other."""
        self.store.upkeep_seconds = 2.0
        self.store.upkeep_errors.append(OSError("checkpoint"))
        self.push((1, 1))
        self.persister.step()
        self.commit()
        self.push((1, 2))
        self.persister.step()
        self.assertEqual(self.commit().upkeep_seconds, 2.0)


class BackOffTests(PersisterTestCase):
    """How long to wait before the next try."""

    def waits(self, times: int) -> list[float]:
        """What each of so many failed steps says to wait."""
        self.store.write_errors.extend([StoreBusy("locked")] * times)
        return [self.persister.step() or 0.0 for _ in range(times)]

    def test_grows(self) -> None:
        """Each wait is twice the one before, up to the last."""
        self.push((1, 1))
        self.assertEqual(self.waits(7), [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])

    def test_jitter(self) -> None:
        """Jitter takes off up to half of the wait."""
        self.push((1, 1))
        self.jitter = 0.0
        self.assertEqual(self.waits(7), [0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5])

    def test_begins_anew(self) -> None:
        """After a commit, the waits begin with the first again."""
        self.push((1, 1))
        self.waits(4)
        self.persister.step()
        self.push((1, 2))
        self.assertEqual(self.waits(2), [0.05, 0.1])

    def test_store_away_for_long(self) -> None:
        """However often it failed, the wait is the last one, and a number."""
        self.push((1, 1))
        self.assertEqual(set(self.waits(2000)[5:]), {1.0})

    @settings(LAW, max_examples=50)
    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
    def test_bounds(self, jitters: list[float]) -> None:
        """Whatever the jitter, a wait is between half of its step and all of it."""
        self.push((1, 1))
        for attempt, jitter in enumerate(jitters):
            self.jitter = jitter
            (wait,) = self.waits(1)
            step = min(0.05 * 2**attempt, 1.0)
            self.assertTrue(step / 2 <= wait <= step, (attempt, jitter, wait))
        self.assertEqual(self.persister.step(), 0.0)


class NewestOfEachTests(SynchronousTestCase):
    """Which rows of a batch are written."""

    def test_no_rows(self) -> None:
        """Of no rows there are none."""
        self.assertEqual(len(newest_of_each(rows_of())), 0)

    @settings(LAW, max_examples=100)
    @given(st.lists(st.integers(1, 6) | st.integers(1, 2**63 - 1 - 200), max_size=40))
    def test_as_a_dict_would(self, session_ids: list[int]) -> None:
        """It is what a dict keeps to which the rows were put in order, sorted by session id."""
        players = list(zip(session_ids, range(len(session_ids)), strict=True))
        rows = np.zeros(len(players), LAYOUT.dtype)
        rows["session_id"] = session_ids
        rows["sequence"] = range(len(session_ids))
        newest = newest_of_each(rows)
        self.assertEqual(
            list(zip(newest["session_id"].tolist(), newest["sequence"].tolist(), strict=True)),
            sorted(dict(players).items()),
        )


class ThreadTestCase(PersisterTestCase):
    """Lives the thread's life on a real thread."""

    def start(self) -> None:
        """Start the thread, which is to have ended when the test is over."""
        self.thread = threading.Thread(target=self.persister.run, daemon=True)
        self.thread.start()
        self.addCleanup(self.thread.join, PATIENCE)
        self.addCleanup(self.persister.abandon)

    def end(self) -> None:
        """Wait for the end of the thread."""
        self.assertTrue(self.listener.ended.wait(PATIENCE))
        self.thread.join(PATIENCE)
        self.assertFalse(self.thread.is_alive())

    def run_to_end(self) -> None:
        """Start the thread, which is to end by itself."""
        self.start()
        self.end()

    def idle(self) -> None:
        """Wait until the thread has found the ring empty."""
        self.ring.found_empty.get(timeout=PATIENCE)


class EndTests(ThreadTestCase):
    """How the thread ends."""

    def test_finish(self) -> None:
        """Told to finish, it commits what is in the ring, closes the writer, says so and ends."""
        self.push((1, 1))
        closed: list[bool] = []
        self.listener.on_end = lambda: closed.append(self.store.writers[0].closed)
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(closed, [True])
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_finish_of_nothing(self) -> None:
        """Told to finish with nothing to do, it ends without a writer."""
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(self.store.writers, [])

    def test_finish_while_the_store_fails(self) -> None:
        """Invariant 3: told to finish, it goes on trying until the batch is committed."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1))
        self.store.write_errors.extend([StoreBusy("locked"), OSError("disk"), StoreBusy("locked")])
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.assertEqual(self.listener.beats.qsize(), 3)

    def test_finish_just_after_the_look(self) -> None:
        """Rows pushed before `finish` are committed, though the ring was just found empty."""

        def push_and_finish() -> None:
            self.ring.on_empty = lambda: None
            self.push((1, 1))
            self.persister.wake()
            self.persister.finish()

        self.ring.on_empty = push_and_finish
        self.run_to_end()
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_abandoned_before_it_began(self) -> None:
        """Abandoned before its first step, it takes none."""
        self.push((1, 1))
        self.persister.abandon()
        self.run_to_end()
        self.assertEqual(self.store.attempts, [])
        self.assertEqual(self.ring.depth, 1)

    def test_abandoned_while_the_store_opens(self) -> None:
        """Abandoned while the writer is being opened, it begins no write with it."""
        self.push((1, 1))
        self.store.on_open = self.persister.abandon
        self.run_to_end()
        self.assertEqual(self.store.attempts, [])
        self.assertTrue(self.store.writers[0].closed)

    def test_writer_that_does_not_close_at_the_end(self) -> None:
        """A writer that fails to close does not keep the thread from saying that it ends."""
        self.push((1, 1))
        self.store.close_errors.append(OSError("close"))
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(self.listener.failures.qsize(), 1)

    def test_another_thread_goes_on(self) -> None:
        """Invariant 3: a batch that one thread left in hand is committed by the next."""
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        dead = threading.Thread(target=self.persister.step)
        dead.start()
        dead.join(PATIENCE)
        self.assertEqual((self.store.written, self.ring.depth), ([], 0))
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(self.store.written, [[(1, 1)]])


class ThreadTests(ThreadTestCase):
    """How the thread sleeps and wakes."""

    def test_wakes_once_for_each_push(self) -> None:
        """A push wakes it at once, and once: it looks, commits, looks again and sleeps."""
        self.patch(persister_module, "MAX_SLEEP", 10 * PATIENCE)
        self.start()
        for number in range(3):
            self.idle()
            self.push((1, number))
            self.persister.wake()
            commit = self.listener.commits.get(timeout=PATIENCE)
            self.assertEqual(commit.sequences.tolist(), [number])
        self.idle()
        self.persister.finish()
        self.end()
        self.assertEqual(len(self.store.written), 3)
        self.assertEqual(self.listener.beats.qsize(), 4)  # one a push, one to finish
        self.assertEqual(self.ring.found_empty.qsize(), 1)

    def test_wake_just_after_the_look(self) -> None:
        """No wake-up is lost: a row pushed just when the ring was found empty is saved at once."""
        self.patch(persister_module, "MAX_SLEEP", 10 * PATIENCE)

        def push_and_wake() -> None:
            self.ring.on_empty = lambda: None
            self.push((1, 1))
            self.persister.wake()

        self.ring.on_empty = push_and_wake
        self.start()
        self.listener.commits.get(timeout=PATIENCE)
        self.persister.finish()
        self.end()

    def test_beats(self) -> None:
        """With nothing to do it beats by itself, on its own thread, and sleeps in between."""
        self.patch(persister_module, "MAX_SLEEP", 0.02)
        began = time.monotonic()
        self.start()
        for _ in range(3):
            self.assertEqual(self.listener.beats.get(timeout=PATIENCE), self.thread.ident)
        self.assertGreater(time.monotonic() - began, 0.05)
        self.persister.finish()
        self.end()
        self.assertEqual(self.store.writers, [])

    def test_finish_wakes(self) -> None:
        """Told to finish, it does not sleep to the end."""
        self.patch(persister_module, "MAX_SLEEP", 10 * PATIENCE)
        self.start()
        self.idle()
        self.persister.finish()
        self.end()

    def test_abandon_wakes(self) -> None:
        """Abandoned, it does not sleep to the end."""
        self.patch(persister_module, "MAX_SLEEP", 10 * PATIENCE)
        self.start()
        self.idle()
        self.persister.abandon()
        self.end()

    def test_beats_while_the_store_is_away(self) -> None:
        """Between two tries it beats as well, so that time passes for the reactor."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1))
        self.store.write_errors.extend([StoreBusy("locked")] * 3)
        self.start()
        for _ in range(3):
            self.listener.beats.get(timeout=PATIENCE)
        self.listener.commits.get(timeout=PATIENCE)
        self.persister.finish()
        self.end()

    def test_push_does_not_hurry_a_busy_store(self) -> None:
        """While it waits to try again, pushes do not make it try sooner."""
        self.patch(persister_module, "FIRST_RETRY", 10 * PATIENCE)
        self.patch(persister_module, "LAST_RETRY", 10 * PATIENCE)
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.start()
        self.listener.failures.get(timeout=PATIENCE)
        self.persister.wake()
        with self.assertRaises(queue.Empty):
            self.listener.commits.get(timeout=0.05)

    def test_abandoned_while_it_backs_off(self) -> None:
        """Abandoned between two tries, it ends at once, with nothing called committed."""
        self.patch(persister_module, "FIRST_RETRY", 10 * PATIENCE)
        self.patch(persister_module, "LAST_RETRY", 10 * PATIENCE)
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.start()
        self.listener.failures.get(timeout=PATIENCE)
        self.persister.abandon()
        self.end()
        self.assertTrue(self.store.writers[0].closed)
        self.assertEqual(len(self.store.attempts), 1)
        self.assertTrue(self.listener.commits.empty())

    def test_abandoned_while_it_writes(self) -> None:
        """Abandoned during a write, it interrupts that and ends, with nothing called committed."""
        writing = threading.Event()

        def stall() -> None:
            writing.set()
            if not self.store.interrupted.wait(PATIENCE):
                raise AssertionError("nobody interrupted")
            raise OSError("interrupted")

        self.store.on_write = stall
        self.push((1, 1))
        self.start()
        self.assertTrue(writing.wait(PATIENCE))
        self.persister.abandon()
        self.end()
        error, rows = self.failure()
        self.assertEqual((str(error), rows), ("interrupted", 1))
        self.assertTrue(self.store.writers[0].closed)
        self.assertEqual(len(self.store.attempts), 1)
        self.assertTrue(self.listener.commits.empty())
