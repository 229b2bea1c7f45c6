"""The persister: one step at a time, and then its whole life on a real thread."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from playerstate.interfaces import (
    IStateWriter,
    LeftOut,
    Reason,
    Records,
    RowRefused,
    StoreBusy,
    StoreReplaced,
)
from playerstate.saving import batch as batch_module
from playerstate.saving import in_hand
from playerstate.saving import persister as persister_module
from playerstate.saving.batch import newest_of_each
from playerstate.saving.commit import Commit, Dropped
from playerstate.saving.persister import MAX_SLEEP, Persister
from playerstate.saving.refusals import REFUSALS
from playerstate.saving.ring import Ring
from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema
from tests.kit.support import LAW, PATIENCE

SCHEMA = StateSchema.of(PlayerState)
LAYOUT = RowLayout(SCHEMA.fields)

Player = tuple[int, int]
"""Session id and sequence; everything else in a row of these tests follows from the two."""


def rows_of(*players: Player) -> Any:
    """Rows as they lie in the ring."""
    made = np.zeros(len(players), LAYOUT.dtype)
    for index, (session_id, sequence) in enumerate(players):
        made[index] = (
            sequence,
            session_id,
            session_id + 100,
            session_id + 200,
            sequence + 1000,
            sequence,
            SCHEMA.struct.pack(float(session_id), float(sequence)),
            sequence,
        )
    return made


def players_of(records: Records) -> list[Player]:
    """The players of records, each of which must be as `rows_of` made it."""
    found = []
    for session_id, x, y, updated_at in records.tolist():
        assert (x, y) == (session_id, updated_at - 1000)
        found.append((session_id, updated_at - 1000))
    return found


def players_in(commit: Commit) -> list[Player]:
    """The players a commit reports, each of which must be as `rows_of` made it."""
    session_ids = commit.slots.astype(np.int64) - 100
    assert (commit.generations == session_ids + 200).all()
    assert (commit.updated_at == commit.sequences.astype(np.int64) + 1000).all()
    return list(zip(session_ids.tolist(), commit.sequences.tolist(), strict=True))


def outdated(session_id: int, sequence: int, reason: Reason = Reason.NEWER) -> Dropped:
    """What is reported of a row that the writer left out for good."""
    return Dropped(session_id, session_id + 100, sequence + 1000, reason, reason.value)


def quarantined(session_id: int, sequence: int, why: str) -> Dropped:
    """What is reported of a quarantined row."""
    return Dropped(session_id, session_id + 100, sequence + 1000, Reason.REFUSED, why)


class Killed(BaseException):
    """What no ``except Exception`` catches."""


class Listener:
    """Records the persist thread's reports, and on which thread they are made."""

    def __init__(self) -> None:
        self.commits: queue.Queue[Commit] = queue.Queue()
        self.recoveries: queue.Queue[Commit] = queue.Queue()
        self.failures: queue.Queue[tuple[Exception, int]] = queue.Queue()
        self.replacements: list[Exception] = []
        self.holds: list[int] = []
        self.deaths: list[BaseException] = []
        self.beats: queue.Queue[int] = queue.Queue()
        self.synced: bool | None = None
        self.ended = threading.Event()
        self.on_commit: Callable[[Commit], object] = lambda commit: None
        self.on_failure: Callable[[], object] = lambda: None
        self.on_beat: Callable[[], object] = lambda: None
        self.on_end: Callable[[], object] = lambda: None

    def committed(self, commit: Commit) -> None:
        self.on_commit(commit)
        self.commits.put(commit)

    def recovered(self, commit: Commit) -> None:
        self.on_commit(commit)
        self.recoveries.put(commit)

    def failed(self, error: Exception, rows: int) -> None:
        self.on_failure()
        self.failures.put((error, rows))

    def replaced(self, error: Exception) -> None:
        self.replacements.append(error)

    def held(self, number: int) -> None:
        self.holds.append(number)

    def beat(self) -> None:
        self.beats.put(threading.get_ident())
        self.on_beat()

    def died(self, error: BaseException) -> None:
        self.deaths.append(error)

    def thread_ended(self, synced: bool) -> None:
        self.on_end()
        self.synced = synced
        self.ended.set()


@implementer(IStateWriter)
class Writer:
    """Fails as the test set up the store, and otherwise records what it is given."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.closed = False

    def write(self, records: Records) -> LeftOut:
        assert not self.closed
        self.store.attempts.append(records.tobytes())
        self.store.time += self.store.write_seconds
        if self.store.write_errors:
            error = self.store.write_errors.popleft()
            if error is not None:
                raise error
        self.store.on_write()
        players = players_of(records)
        bad = {
            at: self.store.bad[player]
            for at, player in enumerate(players)
            if player in self.store.bad
        }
        if bad and not self.store.names_bad:
            self.store.refused.append(players)
            raise RowRefused(next(iter(bad.values())))
        self.store.written.append([player for player in players if player not in self.store.bad])
        self.store.dtypes.add(records.dtype)
        self.store.is_synced = False
        older = [index for index, player in enumerate(players) if player in self.store.older]
        return LeftOut([*older, *self.store.left_out], self.store.fenced, bad)

    def quarantine(self, records: Records, reasons: Sequence[str]) -> None:
        assert not self.closed
        self.store.on_set_aside()
        assert records.dtype == LAYOUT.record
        self.store.kept_aside += zip(players_of(records), reasons, strict=True)

    def sync(self) -> None:
        assert not self.closed
        self.store.on_sync()
        self.store.syncs += 1
        self.store.is_synced = True

    def maintain(self) -> None:
        assert not self.closed
        self.store.maintained += 1
        self.store.time += self.store.maintenance_seconds
        if self.store.maintenance_errors:
            raise self.store.maintenance_errors.popleft()
        self.store.on_maintain()

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
        refused: the players of each batch that was refused because one of them is bad.
        kept_aside: the players set aside, each with the reason.
        bad: players who can never be written, and why.
        older: players of whom the store holds newer rows.
        left_out, fenced: positions that the next writes leave out, since the store holds newer
            states of these players, or since they are another server's.
        names_bad: whether it says which players are bad, and takes the others with the same write.
        is_synced: whether everything written is on disk.
        on_open, on_write, on_set_aside, on_sync, on_maintain: called when a writer is opened, and
            when it does these.
        open_errors, write_errors, maintenance_errors, close_errors: raised by the next such calls.
        time: seconds on the persister's clock.
    """

    def __init__(self) -> None:
        self.writers: list[Writer] = []
        self.attempts: list[bytes] = []
        self.written: list[list[Player]] = []
        self.dtypes: set[np.dtype[Any]] = set()
        self.refused: list[list[Player]] = []
        self.kept_aside: list[tuple[Player, str]] = []
        self.bad: dict[Player, str] = {}
        self.older: set[Player] = set()
        self.left_out: list[int] = []
        self.fenced: list[int] = []
        self.maintained = 0
        self.syncs = 0
        self.is_synced = True
        self.open_errors: deque[Exception] = deque()
        self.write_errors: deque[BaseException | None] = deque()
        self.maintenance_errors: deque[Exception] = deque()
        self.close_errors: deque[Exception] = deque()
        self.on_open: Callable[[], object] = lambda: None
        self.on_write: Callable[[], object] = lambda: None
        self.on_set_aside: Callable[[], object] = lambda: None
        self.names_bad = False
        self.on_sync: Callable[[], object] = lambda: None
        self.on_maintain: Callable[[], object] = lambda: None
        self.interrupted = threading.Event()
        self.time = 0.0
        self.write_seconds = 0.0
        self.maintenance_seconds = 0.0

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
    """A persister between a ring of 16 rows and a scripted store."""

    def setUp(self) -> None:
        """Make them."""
        self.ring = WatchedRing(16)
        self.store = Store()
        self.listener = Listener()
        self.jitter = 1.0
        self.persister = self.make()

    def make(self, *recovered: Player) -> Persister:
        """A persister, to which a process before left these players."""
        return Persister(
            self.ring,
            LAYOUT.record,
            self.store.open_writer,
            self.listener,
            lambda: self.store.time,
            lambda: self.jitter,
            rows_of(*recovered) if recovered else None,
        )

    def push(self, *players: Player) -> None:
        """Push rows."""
        rows = rows_of(*players)
        self.assertEqual(self.ring.push(rows, np.arange(len(rows))), len(rows))

    def commit(self) -> Commit:
        """The one commit reported since the last look."""
        self.assertEqual(self.listener.commits.qsize(), 1)
        return self.listener.commits.get_nowait()

    def commits(self) -> list[tuple[list[Player], tuple[Dropped, ...]]]:
        """The commits reported since the last look: the rows committed, and the rows dropped."""
        told = [self.listener.commits.get_nowait() for _ in range(self.listener.commits.qsize())]
        return [(players_in(commit), commit.dropped) for commit in told]

    def failure(self) -> tuple[Exception, int]:
        """The one failure reported since the last look."""
        self.assertEqual(self.listener.failures.qsize(), 1)
        return self.listener.failures.get_nowait()

    def failures(self) -> list[tuple[str, int]]:
        """The failures reported since the last look: the message, and how many rows are kept."""
        told = [self.listener.failures.get_nowait() for _ in range(self.listener.failures.qsize())]
        return [(str(error), rows) for error, rows in told]


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
        self.assertEqual(commit.dropped, ())
        self.assertEqual(commit.superseded, 1)
        self.assertEqual(commit.read, 5)

    def test_outdated_rows(self) -> None:
        """Invariant 4: rows that the writer left out are reported as outdated, not as committed."""
        self.push((1, 10), (2, 20), (3, 30), (4, 40))
        self.store.left_out = [3, 1]
        self.persister.step()
        commit = self.commit()
        self.assertEqual(commit.slots.tolist(), [101, 103])
        self.assertEqual(commit.sequences.tolist(), [10, 30])
        self.assertCountEqual(commit.dropped, [outdated(2, 20), outdated(4, 40)])
        self.assertEqual(commit.superseded, 0)

    def test_fenced_rows(self) -> None:
        """Rows of players whom another server has taken over are reported with that reason."""
        self.push((1, 10), (2, 20), (3, 30))
        self.store.fenced = [1]
        self.assertEqual(self.persister.step(), 0.0)
        commit = self.commit()
        self.assertEqual(players_in(commit), [(1, 10), (3, 30)])
        self.assertEqual(commit.dropped, (outdated(2, 20, Reason.FENCED),))
        self.assertTrue(commit.dropped[0].outdated)

    def test_all_outdated(self) -> None:
        """Invariant 4: a batch all of which was left out is a commit of no rows."""
        self.push((1, 10))
        self.store.left_out = [0]
        self.assertEqual(self.persister.step(), 0.0)
        commit = self.commit()
        self.assertEqual((len(commit.slots), commit.dropped), (0, (outdated(1, 10),)))

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
        """A commit says how long its write took, and the maintenance before it."""
        self.store.write_seconds, self.store.maintenance_seconds = 0.25, 4.0
        self.push((1, 1))
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.seconds, commit.maintenance_seconds), (0.25, 0.0))
        self.push((1, 2))
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.seconds, commit.maintenance_seconds), (0.25, 4.0))

    def test_maintenance_after_each_commit(self) -> None:
        """The writer is given time for its maintenance after each commit, and in no other step."""
        self.persister.step()
        self.assertEqual(self.store.maintained, 0)
        self.store.write_errors.append(StoreBusy("locked"))
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(self.store.maintained, 0)
        self.persister.step()
        self.assertEqual(self.store.maintained, 1)
        self.persister.step()
        self.assertEqual(self.store.maintained, 1)

    def test_writing_since(self) -> None:
        """While a writer is opened and writes, and at no other time, it says since when."""
        seen: list[float | None] = []
        self.store.on_open = lambda: seen.append(self.persister.writing_since)
        self.store.on_write = lambda: seen.append(self.persister.writing_since)
        self.store.on_maintain = lambda: seen.append(self.persister.writing_since)
        self.store.time, self.store.write_seconds = 5.0, 3.0
        self.assertIsNone(self.persister.writing_since)
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(seen, [5.0, 5.0, None])
        self.assertIsNone(self.persister.writing_since)

    def test_writing_since_after_a_failure(self) -> None:
        """A write that failed is over, whatever ended it."""
        self.push((1, 1))
        for error in (StoreBusy("locked"), OSError("disk")):
            self.store.write_errors.append(error)
            self.persister.step()
            self.assertIsNone(self.persister.writing_since)
        self.store.open_errors.append(OSError("gone"))
        self.persister.step()
        self.assertIsNone(self.persister.writing_since)
        self.store.write_errors.append(Killed())
        self.assertRaises(Killed, self.persister.step)
        self.assertIsNone(self.persister.writing_since)

    def test_no_sync(self) -> None:
        """A commit is not synced beyond what the writer itself does."""
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(self.store.syncs, 0)


class FailureTests(PersisterTestCase):
    """A step that fails."""

    def test_busy(self) -> None:
        """Invariant 3: while the store is busy, the batch and the writer are kept."""
        self.push((2, 1), (1, 1), (2, 2))
        error = StoreBusy("locked")
        self.store.write_errors.extend([error, error])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 2))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 2))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1), (2, 2)]])
        self.assertEqual(len(set(self.store.attempts)), 1)
        self.assertEqual(len(self.store.writers), 1)
        self.assertEqual(self.commit().superseded, 1)

    def test_other_errors(self) -> None:
        """Invariant 3: any other error closes the writer; the same rows go to a new one."""
        for number, error in enumerate((OSError("disk"), KeyError(1), ZeroDivisionError())):
            self.push((1, number))
            self.store.write_errors.append(error)
            self.assertGreater(self.persister.step(), 0.0)
            self.assertEqual(self.failure(), (error, 1))
            self.assertEqual([writer.closed for writer in self.store.writers], [True])
            self.assertEqual(self.persister.step(), 0.0)
            self.assertEqual(self.store.written, [[(1, number)]])
            self.assertEqual([writer.closed for writer in self.store.writers], [True, False])
            del self.store.writers[0]
            self.store.written.clear()

    def test_writer_that_does_not_close(self) -> None:
        """A writer that fails to close is reported, and dropped all the same."""
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

    def test_batch_survives_the_writer(self) -> None:
        """Invariant 3: a batch in hand is kept though the writer was closed, twice."""
        self.push((1, 1))
        self.store.write_errors.extend([OSError("disk"), OSError("disk")])
        self.persister.step()
        self.persister.step()
        self.assertEqual([writer.closed for writer in self.store.writers], [True, True])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_bug_before_the_write(self) -> None:
        """Invariant 3: rows taken from the ring outlive an error in looking for the newest."""
        self.push((2, 1), (1, 1), (2, 2))
        bug = ZeroDivisionError()

        def broken(rows: Any) -> Any:
            raise bug

        real = in_hand.newest_of_each
        self.patch(in_hand, "newest_of_each", broken)
        self.assertGreater(self.persister.step(), 0.0)
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("", 3), ("", 3)])
        self.push((3, 1))
        self.patch(in_hand, "newest_of_each", real)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1), (2, 2)], [(3, 1)]])
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ()), ([(3, 1)], ())])

    def test_bug_after_the_write(self) -> None:
        """Invariant 3: where the rest cannot be sorted out, all of it is written again."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        real = batch_module.newest_of_each
        calls = 0

        def broken(rows: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ZeroDivisionError
            return real(rows)

        self.patch(batch_module, "newest_of_each", broken)
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_bug_in_the_writer(self) -> None:
        """Invariant 3: rows are kept where the writer says it left out what it was not given, or
        a row twice."""
        self.push((1, 1), (2, 2))
        for left_out, fenced in (([7], []), ([-1], []), ([0, 0], []), ([1], [1])):
            self.store.left_out, self.store.fenced = left_out, fenced
            self.assertGreater(self.persister.step(), 0.0)
            ((why, kept),) = self.failures()
            self.assertEqual(kept, 2)
            self.assertIn("it must report existing positions, each once", why)
            self.assertEqual(self.commits(), [])
        self.store.left_out, self.store.fenced = [], []
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])

    def test_bug_in_the_listener(self) -> None:
        """Invariant 3: rows whose commit could not be reported are kept until it can."""
        self.push((1, 1), (2, 1), (2, 2))

        def broken(commit: Commit) -> None:
            self.listener.on_commit = lambda commit: None
            raise ZeroDivisionError

        self.listener.on_commit = broken
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("", 2)])
        self.assertEqual(self.persister.step(), 0.0)
        commit = self.commit()
        self.assertEqual(players_in(commit), [(1, 1), (2, 2)])
        self.assertEqual((commit.superseded, commit.read), (1, 3))

    def test_listener_that_cannot_be_told_of_a_failure(self) -> None:
        """Invariant 3: the rows are kept even if the failure itself cannot be reported."""
        self.push((1, 1))
        self.store.write_errors.append(OSError("disk"))

        def broken() -> None:
            self.listener.on_failure = lambda: None
            raise ZeroDivisionError

        self.listener.on_failure = broken
        self.assertRaises(ZeroDivisionError, self.persister.step)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_maintenance_fails(self) -> None:
        """Failed maintenance is reported as an error of no rows; commit and writer stay."""
        self.push((1, 1))
        error = OSError("checkpoint")
        self.store.maintenance_errors.append(error)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 0))
        self.assertEqual(self.commit().sequences.tolist(), [1])
        self.push((1, 2))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.maintained, 2)
        self.assertEqual(len(self.store.writers), 1)

    def test_maintenance_that_fails_takes_time_too(self) -> None:
        """The time of failed maintenance is reported as any other."""
        self.store.maintenance_seconds = 2.0
        self.store.maintenance_errors.append(OSError("checkpoint"))
        self.push((1, 1))
        self.persister.step()
        self.commit()
        self.push((1, 2))
        self.persister.step()
        self.assertEqual(self.commit().maintenance_seconds, 2.0)


class RefusedTests(PersisterTestCase):
    """Rows that the store can never take."""

    def test_one_among_many(self) -> None:
        """A bad row keeps no other from the store, is tried alone, and then is set aside."""
        players = [(number, number * 10) for number in range(1, 9)]
        self.store.bad[6, 60] = "hp must be positive"
        self.push(*players)
        good = [player for player in players if player != (6, 60)]
        self.assertGreater(self.persister.step(), 0.0)
        ((committed, dropped),) = self.commits()
        self.assertCountEqual(committed, good)
        self.assertEqual(dropped, ())
        self.assertCountEqual([player for batch in self.store.written for player in batch], good)
        for refusal in range(1, REFUSALS):
            self.assertEqual(self.store.kept_aside, [])
            self.assertEqual(self.failures(), [("hp must be positive", 1)])
            self.store.attempts.clear()
            wait = self.persister.step()
            self.assertEqual(wait == 0.0, refusal == REFUSALS - 1)
            self.assertEqual(len(self.store.attempts), 1)
            self.assertEqual(self.store.refused[-1], [(6, 60)])
        self.assertEqual(self.store.kept_aside, [((6, 60), "hp must be positive")])
        self.assertEqual(self.commits(), [([], (quarantined(6, 60, "hp must be positive"),))])
        self.assertEqual(self.failures(), [])
        self.assertIsNone(self.persister.step())

    def test_many_named(self) -> None:
        """Where the store names its bad rows, a batch takes one write, however many are bad."""
        self.store.names_bad = True
        players = [(number, 1) for number in range(1, 17)]
        bad = players[::2]
        self.store.bad.update(dict.fromkeys(bad, "hp"))
        asides: list[int] = []
        self.store.on_set_aside = lambda: asides.append(1)
        self.push(*players)
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(len(self.store.attempts), 1)
        self.assertEqual(self.store.written, [players[1::2]])
        self.assertEqual(self.failures(), [("hp", len(bad))])
        for _ in range(REFUSALS - 1):
            self.persister.step()
        self.assertEqual(len(self.store.attempts), REFUSALS)
        self.assertEqual(len(asides), 1)
        self.assertEqual(self.store.kept_aside, [(player, "hp") for player in bad])
        first, second = self.commits()
        self.assertEqual(first, (players[1::2], ()))
        self.assertCountEqual(second[1], [quarantined(*player, "hp") for player in bad])

    def test_own_error(self) -> None:
        """The listener gets the very error that the store raised."""
        error = RowRefused("hp")
        self.store.write_errors.append(error)
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(self.failure(), (error, 1))

    def test_tried_no_more(self) -> None:
        """A row that was set aside is not tried again, and the player's next row is."""
        self.store.bad[1, 1] = "hp"
        self.push((1, 1), (2, 2))
        for _ in range(REFUSALS):
            self.persister.step()
        attempts = len(self.store.attempts)
        self.assertIsNone(self.persister.step())
        self.assertEqual(len(self.store.attempts), attempts)
        self.push((1, 2))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written[-1], [(1, 2)])

    def test_last_reason(self) -> None:
        """A row is set aside with the reason that it was refused for last."""
        self.push((1, 1), (2, 2))
        for reason in ("hp", "mp", "xp"):
            self.store.bad[2, 2] = reason
            self.persister.step()
        self.assertEqual(self.store.kept_aside, [((2, 2), "xp")])

    def test_writer_is_kept(self) -> None:
        """A writer that refuses a row is not closed."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        for _ in range(REFUSALS):
            self.persister.step()
        self.assertEqual([writer.closed for writer in self.store.writers], [False])

    def test_cursor(self) -> None:
        """Rows of the ring count as settled when the bad ones among them are."""
        self.push((1, 1), (2, 2), (1, 3))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.read, commit.superseded), (0, 1))
        self.push((3, 3))
        for _ in range(REFUSALS - 1):
            self.persister.step()
        reads = [self.listener.commits.get_nowait().read for _ in range(2)]
        self.assertEqual(reads, [0, 4])

    def test_ring_is_drained_meanwhile(self) -> None:
        """Rows that come while a bad one waits are committed in the next step, together with it."""
        self.push((1, 1), (3, 3))
        self.store.bad[3, 3] = "hp"
        self.persister.step()
        self.push((2, 2), (4, 4))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.ring.depth, 0)
        (_, (committed, dropped)) = self.commits()
        self.assertCountEqual(committed, [(2, 2), (4, 4)])
        self.assertEqual(dropped, ())

    def test_all_rows(self) -> None:
        """Where the store takes no row at all, none is set aside: the fault may be its own."""
        players = [(1, 1), (2, 2), (3, 3)]
        self.store.bad.update((player, "not today") for player in players)
        self.push(*players)
        for _ in range(4 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.kept_aside, [])
        self.assertEqual(self.commits(), [])
        self.store.bad.clear()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [(players, ())])

    def test_all_rows_until_another(self) -> None:
        """Rows that were refused for long are set aside once the store has taken another."""
        self.store.bad.update({(1, 1): "hp", (2, 2): "mp"})
        self.push((1, 1), (2, 2))
        for _ in range(2 * REFUSALS):
            self.persister.step()
        self.assertEqual(self.store.kept_aside, [])
        self.push((3, 3))
        self.assertEqual(self.persister.step(), 0.0)
        ((committed, dropped),) = self.commits()
        self.assertEqual(committed, [(3, 3)])
        self.assertCountEqual(dropped, [quarantined(1, 1, "hp"), quarantined(2, 2, "mp")])

    def test_all_rows_after_a_commit(self) -> None:
        """What was committed before a row came says nothing about the store as it is now."""
        self.push((9, 9))
        self.persister.step()
        self.commit()
        self.push((1, 1))
        self.store.bad[1, 1] = "hp"
        for _ in range(2 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.kept_aside, [])

    def test_all_outdated(self) -> None:
        """Rows that the store left out are none that it has taken."""
        self.store.bad[1, 1] = "hp"
        self.store.older.add((2, 2))
        self.push((1, 1), (2, 2))
        for _ in range(2 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.kept_aside, [])
        self.assertEqual(self.commits(), [([], (outdated(2, 2),))])

    def test_superseded(self) -> None:
        """A newer row of the player takes a bad one's place, and is committed if it is good."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.persister.step()
        self.push((2, 3))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written[-1], [(2, 3)])
        self.assertEqual(self.store.kept_aside, [])
        first, second = (self.listener.commits.get_nowait() for _ in range(2))
        self.assertEqual((players_in(first), first.superseded), ([(1, 1)], 0))
        self.assertEqual((players_in(second), second.superseded), ([(2, 3)], 1))
        self.assertEqual(second.read, 3)

    def test_good_row_forgives(self) -> None:
        """The refusals of a player whose row was committed are counted from 0 again."""
        self.store.bad.update({(2, 2): "hp", (2, 4): "hp"})
        self.push((1, 1), (2, 2))
        self.persister.step()
        self.persister.step()
        self.push((2, 3))
        self.persister.step()
        self.push((1, 4), (2, 4))
        for _ in range(REFUSALS - 1):
            self.persister.step()
            self.assertEqual(self.store.kept_aside, [])
        self.persister.step()
        self.assertEqual(self.store.kept_aside, [((2, 4), "hp")])

    def test_one_player_who_is_always_bad(self) -> None:
        """A player whose rows are all bad is quarantined in the end, however often they change."""
        self.push((1, 1), (2, 1))
        for number in range(1, 3 * REFUSALS):
            self.store.bad[2, number] = "hp"
            self.persister.step()
            self.push((1, number + 1), (2, number + 1))
        self.assertGreater(len(self.store.kept_aside), 0)

    def test_outdated_and_refused(self) -> None:
        """In one batch some may be committed, some left out and some refused."""
        self.push((1, 1), (2, 2), (3, 3), (4, 4), (5, 5))
        self.store.bad[3, 3] = "hp"
        self.store.older.update({(2, 2), (5, 5)})
        for _ in range(REFUSALS):
            self.persister.step()
        first, second = self.commits()
        self.assertCountEqual(first[0], [(1, 1), (4, 4)])
        self.assertCountEqual(first[1], [outdated(2, 2), outdated(5, 5)])
        self.assertEqual(second, ([], (quarantined(3, 3, "hp"),)))

    def test_busy_while_splitting(self) -> None:
        """What was committed before the store became busy is reported once; the rest later."""
        self.push((1, 1), (2, 2), (3, 3), (4, 4))
        self.store.bad[4, 4] = "hp"
        self.store.write_errors.extend([None, None, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("locked", 2)])
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(3, 3)], ())])
        for _ in range(REFUSALS - 1):
            self.persister.step()
        self.assertEqual(self.commits(), [([], (quarantined(4, 4, "hp"),))])
        self.assertEqual(self.store.written, [[(1, 1), (2, 2)], [(3, 3)]])

    def test_busy_after_a_refusal(self) -> None:
        """A row that was refused alone before the store became busy is kept as well."""
        self.push((1, 1), (2, 2))
        self.store.bad[1, 1] = "hp"
        self.store.write_errors.extend([None, None, OSError("disk")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("disk", 2)])
        self.assertEqual(self.commits(), [])
        self.assertTrue(self.store.writers[0].closed)
        del self.store.bad[1, 1]
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])

    def test_outdated_before_a_failure(self) -> None:
        """Rows that were left out before the store failed are reported once."""
        self.push((1, 1), (2, 2))
        self.store.older.add((1, 1))
        self.store.write_errors.extend([RowRefused("both"), None, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([], (outdated(1, 1),))])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(2, 2)], ())])

    def test_refused_together_only(self) -> None:
        """Rows that are refused only together are all committed, and none is reported."""
        self.push((1, 1), (2, 2))
        self.store.write_errors.append(RowRefused("both"))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])
        self.assertEqual(self.failures(), [])

    def test_abandoned_while_splitting(self) -> None:
        """Abandoned between two pieces, it begins no other, and reports what was committed."""
        self.push((1, 1), (2, 2))
        self.store.write_errors.append(RowRefused("both"))
        self.store.on_write = self.persister.abandon
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])
        self.assertEqual(len(self.store.attempts), 2)
        self.assertEqual([rows for _, rows in self.failures()], [1])

    def test_set_aside_fails(self) -> None:
        """A row that cannot be set aside is kept, and set aside when it can be."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        disk = OSError("disk")

        def fail() -> None:
            self.store.on_set_aside = lambda: None
            raise disk

        self.store.on_set_aside = fail
        for _ in range(REFUSALS - 1):
            self.persister.step()
        self.failures()
        self.push((1, 3))
        self.commits()
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (disk, 1))
        self.assertEqual((self.commits(), self.store.kept_aside), ([([(1, 3)], ())], []))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.kept_aside, [((2, 2), "hp")])
        self.assertEqual(self.commits(), [([], (quarantined(2, 2, "hp"),))])

    def test_each_for_a_reason_of_its_own(self) -> None:
        """Invariant 7: bad rows with a reason each are set aside together, or come again together;
        each is reported once."""
        self.store.names_bad = True
        bad = {(number, number): f"hp {number}" for number in range(2, 12)}
        self.store.bad.update(bad)
        self.push(*bad)
        calls = 0

        def fail_first() -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise OSError("disk")

        self.store.on_set_aside = fail_first
        for number in range(3 * REFUSALS):
            self.push((1, number))
            self.persister.step()
        self.assertEqual(calls, 2)
        dropped = [row for _, rows in self.commits() for row in rows]
        self.assertCountEqual(dropped, [quarantined(*player, why) for player, why in bad.items()])
        self.assertEqual(self.store.kept_aside, list(bad.items()))

    def test_maintenance_while_a_row_waits(self) -> None:
        """A row that waits does not keep the writer from its maintenance."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.assertEqual(self.store.maintained, 1)

    def test_back_off(self) -> None:
        """While a bad row waits, the steps back off as for any other failure."""
        self.push((1, 1))
        self.store.bad[1, 1] = "hp"
        self.assertEqual([self.persister.step() for _ in range(3)], [0.05, 0.1, 0.2])

    def test_finish(self) -> None:
        """Asked to finish, the thread does so, though one of its rows is bad."""
        self.patch(persister_module, "LAST_RETRY", 0.001)
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.finish()
        limit = iter(range(50))
        self.listener.on_beat = lambda: next(limit, None) is None and self.persister.abandon()
        self.persister.run()
        self.assertEqual(self.store.kept_aside, [((2, 2), "hp")])
        self.assertTrue(self.listener.synced)


class HoldTests(PersisterTestCase):
    """A persister that is held."""

    def test_hold(self) -> None:
        """It closes its writer, says so once, and writes nothing until it may go on."""
        self.push((1, 1))
        self.persister.step()
        self.push((1, 2))
        self.persister.hold(1)
        for _ in range(3):
            self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.assertEqual(self.listener.holds, [1])
        self.assertTrue(self.store.writers[0].closed)
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.persister.resume()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1)], [(1, 2)]])

    def test_before_any_writer(self) -> None:
        """One that has no writer says so as well, though no row waits."""
        self.persister.hold(7)
        self.persister.step()
        self.assertEqual((self.listener.holds, self.store.writers), ([7], []))

    def test_each_time(self) -> None:
        """Held again before it took a step in between, it reports that as well."""
        self.persister.hold(1)
        self.persister.step()
        self.persister.resume()
        self.persister.hold(2)
        self.persister.step()
        self.assertEqual(self.listener.holds, [1, 2])

    def test_batch_is_kept(self) -> None:
        """Invariant 3: a batch in hand is kept meanwhile."""
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.persister.step()
        self.persister.hold(1)
        self.persister.step()
        self.assertEqual(self.store.written, [])
        self.persister.resume()
        self.persister.step()
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_finish(self) -> None:
        """Finished without rows it ends, and reports that nothing is known to be on disk."""
        self.persister.hold(1)
        self.persister.finish()
        self.persister.run()
        self.assertIs(self.listener.synced, False)
        self.assertEqual(self.store.syncs, 0)


class RecoveredTests(PersisterTestCase):
    """What a process before this one left."""

    def recovery(self) -> Commit:
        """The one recovery reported since the last look."""
        self.assertEqual(self.listener.recoveries.qsize(), 1)
        return self.listener.recoveries.get_nowait()

    def test_first(self) -> None:
        """They are saved before any row of the ring, and reported separately."""
        self.persister = self.make((1, 10), (3, 30))
        self.push((2, 5), (3, 31))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 10), (3, 30)]])
        commit = self.recovery()
        self.assertEqual(players_in(commit), [(1, 10), (3, 30)])
        self.assertEqual((commit.read, commit.superseded, commit.dropped), (0, 0, ()))
        self.assertTrue(self.listener.commits.empty())
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(2, 5), (3, 31)], ())])
        self.assertTrue(self.listener.recoveries.empty())

    def test_synced_before_it_is_told(self) -> None:
        """They are reported as saved once they are on disk, and later commits need no sync."""
        self.persister = self.make((1, 10))
        synced: list[bool] = []
        self.listener.on_commit = lambda commit: synced.append(self.store.is_synced)
        self.persister.step()
        self.recovery()
        self.push((2, 2))
        self.persister.step()
        self.assertEqual(synced, [True, False])
        self.assertEqual(self.store.syncs, 1)

    def test_sync_fails(self) -> None:
        """Until they are known to be on disk they are kept, written again, and not reported."""
        self.persister = self.make((1, 10), (2, 20))
        self.store.older.add((2, 20))
        errors: list[Exception] = [StoreBusy("locked"), OSError("disk")]

        def fail() -> None:
            if errors:
                raise errors.pop()

        self.store.on_sync = fail
        for why in ("disk", "locked"):
            self.assertGreater(self.persister.step(), 0.0)
            self.assertEqual([told for told, _ in self.failures()], [why])
            for commit in list(self.listener.recoveries.queue):
                self.assertEqual(players_in(commit), [])
        self.assertEqual(self.persister.step(), 0.0)
        told = [self.listener.recoveries.get_nowait() for _ in range(self.recoveries())]
        self.assertEqual([player for commit in told for player in players_in(commit)], [(1, 10)])
        dropped = [row for commit in told for row in commit.dropped]
        self.assertEqual(dropped, [outdated(2, 20)])
        self.assertIsNone(self.persister.step())

    def recoveries(self) -> int:
        """How many recoveries were reported since the last look."""
        return self.listener.recoveries.qsize()

    def test_busy(self) -> None:
        """While the store is busy they are kept, and the ring is left alone."""
        self.persister = self.make((1, 10))
        self.push((1, 11))
        self.store.write_errors.append(StoreBusy("locked"))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual((self.failures(), self.ring.depth), ([("locked", 1)], 1))
        self.persister.step()
        self.assertEqual(players_in(self.recovery()), [(1, 10)])

    def test_busy_while_splitting(self) -> None:
        """What was written before the store became busy is not reported before it was synced."""
        self.persister = self.make((1, 1), (2, 2))
        synced: list[bool] = []
        self.listener.on_commit = lambda commit: synced.append(self.store.is_synced)
        self.store.write_errors.extend([RowRefused("both"), None, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.persister.step(), 0.0)
        told = [self.listener.recoveries.get_nowait() for _ in range(self.recoveries())]
        players = [player for commit in told for player in players_in(commit)]
        self.assertEqual(sorted(players), [(1, 1), (2, 2)])
        self.assertNotIn(False, synced)

    def test_bad_and_alone(self) -> None:
        """A row that is refused is set aside, though it is the only one: joins wait for it."""
        self.persister = self.make((1, 10))
        self.store.bad[1, 10] = "hp"
        for _ in range(REFUSALS - 1):
            self.assertGreater(self.persister.step(), 0.0)
            self.assertEqual(self.failures(), [("hp", 1)])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.kept_aside, [((1, 10), "hp")])
        commit = self.recovery()
        self.assertEqual((players_in(commit), commit.dropped), ([], (quarantined(1, 10, "hp"),)))
        self.push((1, 11))
        self.persister.step()
        self.assertEqual(self.commits(), [([(1, 11)], ())])

    def test_bad_among_others(self) -> None:
        """The others are reported first, and the recovery lasts until the last one is settled."""
        self.persister = self.make((1, 10), (2, 20))
        self.store.bad[2, 20] = "hp"
        for _ in range(REFUSALS):
            self.persister.step()
        first, second = (self.listener.recoveries.get_nowait() for _ in range(2))
        self.assertEqual((players_in(first), first.dropped), ([(1, 10)], ()))
        self.assertEqual((players_in(second), second.dropped), ([], (quarantined(2, 20, "hp"),)))
        self.assertTrue(self.listener.commits.empty())

    def test_after_the_recovery(self) -> None:
        """Once it is over, a row that stands alone is set aside no more."""
        self.persister = self.make((1, 10))
        self.persister.step()
        self.recovery()
        self.push((2, 2))
        self.store.bad[2, 2] = "hp"
        for _ in range(2 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.kept_aside, [])

    def test_killed(self) -> None:
        """They are kept where the thread dies, and the next thread saves them first."""
        self.persister = self.make((1, 10))
        self.store.write_errors.append(Killed())
        self.persister.run()
        self.assertEqual(len(self.listener.deaths), 1)
        self.push((1, 11))
        self.persister.finish()
        self.persister.run()
        self.assertEqual(self.store.written, [[(1, 10)], [(1, 11)]])
        self.assertEqual(players_in(self.recovery()), [(1, 10)])


class ReplacedTests(PersisterTestCase):
    """A store that is no longer the one that was opened."""

    def replace(self) -> None:
        """Commit a row, and find in the maintenance that the store was replaced."""
        self.error = StoreReplaced("gone")
        self.store.maintenance_errors.append(self.error)
        self.push((1, 1))
        self.assertEqual(self.persister.step(), 0.0)
        self.commits()

    def test_told(self) -> None:
        """It is reported, not as a failure, and the writer is closed."""
        self.replace()
        self.assertEqual(self.listener.replacements, [self.error])
        self.assertEqual(self.failures(), [])
        self.assertTrue(self.store.writers[0].closed)

    def test_waits(self) -> None:
        """Nothing is taken, opened or written before it may resume; then a new writer is."""
        self.replace()
        self.push((1, 2))
        for _ in range(3):
            self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.assertEqual((len(self.store.writers), len(self.store.attempts)), (1, 1))
        self.assertEqual(self.ring.depth, 1)
        self.persister.resume()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual([writer.closed for writer in self.store.writers], [True, False])
        self.assertEqual(self.commits(), [([(1, 2)], ())])

    def test_found_by_a_write(self) -> None:
        """A write that finds it is reported as such, and its rows go to the next writer."""
        error = StoreReplaced("gone")
        self.store.write_errors.append(error)
        self.push((1, 1))
        self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.assertEqual(self.listener.replacements, [error])
        self.assertEqual((self.failures(), self.commits()), ([], []))
        self.assertTrue(self.store.writers[0].closed)
        self.assertIsNone(self.persister.writing_since)
        self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.persister.resume()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_found_by_the_last_sync(self) -> None:
        """So is what the sync at the end finds; nothing is known to be on disk then."""

        def fail() -> None:
            raise error

        error = StoreReplaced("gone")
        self.store.on_sync = fail
        self.push((1, 1))
        self.persister.finish()
        self.persister.run()
        self.assertEqual(self.listener.replacements, [error])
        self.assertEqual(self.failures(), [])
        self.assertIs(self.listener.synced, False)
        self.assertTrue(self.store.writers[0].closed)

    def test_row_that_waits(self) -> None:
        """A row in hand goes to the store that took the place."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.push((3, 3))
        self.store.maintenance_errors.append(StoreReplaced("gone"))
        while not self.listener.replacements:
            self.persister.step()
        self.commits()
        self.store.bad.clear()
        self.store.kept_aside.clear()
        self.push((2, 4))
        self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.persister.resume()
        while self.persister.step() is not None:
            pass
        committed = [player for players, _ in self.commits() for player in players]
        self.assertIn((2, 4), committed)

    def test_finish_waits(self) -> None:
        """Asked to finish, the thread waits for the store that takes the place."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.replace()
        self.push((1, 2))
        self.persister.finish()
        beats = iter(range(5))
        self.listener.on_beat = lambda: next(beats, None) is None and self.persister.resume()
        self.persister.run()
        self.assertEqual(self.commits(), [([(1, 2)], ())])
        self.assertTrue(self.listener.synced)

    def test_abandoned(self) -> None:
        """Abandoned while it waits, the thread ends without opening or writing anything."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.replace()
        self.push((1, 2))
        beats = iter(range(5))
        self.listener.on_beat = lambda: next(beats, None) is None and self.persister.abandon()
        self.persister.run()
        self.assertEqual(len(self.store.writers), 1)
        self.assertEqual(self.commits(), [])
        self.assertIs(self.listener.synced, False)

    def test_found_while_idle(self) -> None:
        """It is found, and waited for, though there is nothing to write."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.push((1, 1))

        def beat() -> None:
            count = self.listener.beats.qsize()
            if count == 1:
                self.store.maintenance_errors.append(StoreReplaced("gone"))
            elif count == 2:
                self.assertEqual(len(self.listener.replacements), 1)
                self.assertTrue(self.store.writers[0].closed)
                self.push((1, 2))
            elif count == 5:
                self.assertEqual(len(self.store.attempts), 1)
                self.persister.resume()
                self.persister.finish()

        self.listener.on_beat = beat
        self.persister.run()
        self.assertEqual(self.store.written, [[(1, 1)], [(1, 2)]])
        self.assertEqual(self.listener.deaths, [])


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
        """Asked to finish, it commits what is in the ring, closes the writer, says so and ends."""
        self.push((1, 1))
        closed: list[bool] = []
        self.listener.on_end = lambda: closed.append(self.store.writers[0].closed)
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(closed, [True])
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.assertTrue(self.store.is_synced)
        self.assertIs(self.listener.synced, True)

    def test_finish_of_nothing(self) -> None:
        """Asked to finish with nothing to do, it syncs earlier commits, and writes nothing."""
        self.persister.finish()
        self.run_to_end()
        self.assertEqual([writer.closed for writer in self.store.writers], [True])
        self.assertEqual((self.store.syncs, self.store.attempts), (1, []))
        self.assertIs(self.listener.synced, True)

    def test_told_to_end(self) -> None:
        """It says whether `finish` or `abandon` was called."""
        self.assertFalse(self.persister.told_to_end)
        self.persister.finish()
        self.assertTrue(self.persister.told_to_end)
        abandoned = self.make()
        self.assertFalse(abandoned.told_to_end)
        abandoned.abandon()
        self.assertTrue(abandoned.told_to_end)

    def test_sync_fails(self) -> None:
        """Where the last sync fails, the thread ends all the same, and says that it did."""
        self.push((1, 1))

        def fail() -> None:
            raise OSError("disk")

        self.store.on_sync = fail
        self.persister.finish()
        self.run_to_end()
        self.assertIs(self.listener.synced, False)
        self.assertEqual(self.failures(), [("disk", 0)])
        self.assertTrue(self.store.writers[0].closed)

    def test_sync_without_a_writer(self) -> None:
        """What was committed over a writer that is closed is synced over another."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1), (2, 2))
        self.store.write_errors.extend([RowRefused("both"), None, OSError("disk")])
        self.store.older.add((2, 2))
        self.persister.finish()
        self.run_to_end()
        self.assertTrue(self.store.is_synced)
        self.assertIs(self.listener.synced, True)

    def test_store_that_does_not_open_for_the_sync(self) -> None:
        """A store that does not open at the end is not known to be synced."""
        self.store.open_errors.append(OSError("gone"))
        self.persister.finish()
        self.run_to_end()
        self.assertIs(self.listener.synced, False)
        self.assertEqual(self.failures(), [("gone", 0)])

    def test_finish_while_the_store_fails(self) -> None:
        """Invariant 3: asked to finish, it goes on trying until the batch is committed."""
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
        self.assertEqual(self.store.writers, [])
        self.assertIs(self.listener.synced, False)

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


class DeathTests(ThreadTestCase):
    """A thread that ends by an error."""

    def live_and_die(self, error: BaseException) -> None:
        """Have a thread of its own run the persister, and die."""
        self.start()
        self.thread.join(PATIENCE)
        self.assertFalse(self.thread.is_alive())
        self.assertEqual(self.listener.deaths, [error])
        self.assertFalse(self.listener.ended.is_set())
        self.assertTrue(all(writer.closed for writer in self.store.writers))

    def go_on(self) -> None:
        """Have another thread run it to its end."""
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(len(self.listener.deaths), 1)
        self.assertIs(self.listener.synced, True)

    def test_killed_while_it_writes(self) -> None:
        """Invariant 3: the death is reported, the writer closed; the next thread commits."""
        self.push((2, 1), (1, 1), (2, 2))
        error = Killed()
        self.store.write_errors.append(error)
        self.live_and_die(error)
        self.assertEqual(self.commits(), [])
        self.go_on()
        commit = self.commit()
        self.assertEqual(players_in(commit), [(1, 1), (2, 2)])
        self.assertEqual((commit.superseded, commit.read), (1, 3))
        self.assertEqual(len(self.store.writers), 2)

    def test_killed_while_it_splits(self) -> None:
        """Invariant 3: commits before the death are reported once, by the dying thread."""
        self.push((1, 1), (2, 2))
        error = Killed()
        self.store.write_errors.extend([RowRefused("both"), None, error])
        self.live_and_die(error)
        self.assertEqual(self.commits(), [([(1, 1)], ())])
        self.go_on()
        self.assertEqual(self.commits(), [([(2, 2)], ())])

    def test_killed_in_the_maintenance(self) -> None:
        """A death after the commit takes nothing back."""
        self.push((1, 1))
        error = Killed()

        def die() -> None:
            self.store.on_maintain = lambda: None
            raise error

        self.store.on_maintain = die
        self.live_and_die(error)
        self.go_on()
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_killed_in_its_sleep(self) -> None:
        """An error from the listener's beat kills the thread, and is reported."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        error = ZeroDivisionError()

        def die() -> None:
            self.listener.on_beat = lambda: None
            raise error

        self.listener.on_beat = die
        self.live_and_die(error)
        self.push((1, 1))
        self.go_on()
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_killed_in_the_last_sync(self) -> None:
        """A thread that dies at its very end is followed by one that syncs."""
        self.push((1, 1))
        error = Killed()

        def die() -> None:
            self.store.on_sync = lambda: None
            raise error

        self.store.on_sync = die
        self.persister.finish()
        self.live_and_die(error)
        self.go_on()
        self.assertTrue(self.store.is_synced)
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_writer_that_does_not_close(self) -> None:
        """A writer that fails to close does not keep the death from being reported."""
        self.push((1, 1))
        error = Killed()
        self.store.write_errors.append(error)
        self.store.close_errors.append(OSError("close"))
        self.live_and_die(error)
        self.assertEqual(self.failures(), [("close", 0)])
        self.go_on()

    def test_refusals_outlive_it(self) -> None:
        """A bad row is counted over the death of the thread."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.persister.step()
        error = Killed()
        self.store.write_errors.append(error)
        self.live_and_die(error)
        self.commits()
        self.push((3, 3))
        self.go_on()
        (told,) = self.commits()
        self.assertEqual(told, ([(3, 3)], (quarantined(2, 2, "hp"),)))


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
        self.assertEqual(self.store.writers, [])
        self.persister.finish()
        self.end()

    def test_maintenance_while_idle(self) -> None:
        """With nothing to write, the writer is given time for maintenance each time it wakes."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.push((1, 1))
        maintenances: list[int] = []

        def beat() -> None:
            maintenances.append(self.store.maintained)
            if len(maintenances) == 4:
                self.persister.finish()

        self.listener.on_beat = beat
        self.persister.run()
        self.assertEqual(maintenances, [1, 2, 3, 4])

    def test_maintenance_while_idle_fails(self) -> None:
        """Maintenance that fails without rows to write is reported, and the thread lives."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.push((1, 1))

        def beat() -> None:
            self.store.maintenance_errors.append(OSError("checkpoint"))
            self.persister.finish()

        self.listener.on_beat = beat
        self.persister.run()
        self.assertEqual(self.failures(), [("checkpoint", 0)])
        self.assertEqual((self.listener.deaths, self.listener.synced), ([], True))

    def test_finish_wakes(self) -> None:
        """Asked to finish, it does not sleep to the end."""
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


class Accounts(Listener):
    """Accounts for every row, and rejects reports made too early or twice."""

    def __init__(self, store: Store, ring: Ring) -> None:
        super().__init__()
        self.store = store
        self.ring = ring
        self.handed: list[Player] = []
        self.in_ring: list[Player] = []
        self.settled: list[Player] = []
        self.superseded = 0
        self.on_tell: Callable[[], object] = lambda: None

    def committed(self, commit: Commit) -> None:
        """Note a commit."""
        self.on_tell()
        written = {player for players in self.store.written for player in players}
        committed = players_in(commit)
        assert written.issuperset(committed), "told of what was not written"
        dropped = [(row.session_id, row.updated_at - 1000) for row in commit.dropped]
        for player, row in zip(dropped, commit.dropped, strict=True):
            if row.outdated:
                assert player in self.store.older
            else:
                assert (player, row.why) in self.store.kept_aside
        assert not self.store.older.intersection(committed)
        self.settled += committed + dropped
        assert len(set(self.settled)) == len(self.settled), "told of twice"
        self.superseded += commit.superseded
        assert commit.read <= self.ring.read
        newest = dict(self.settled_newest())
        for session_id, sequence in self.in_ring[: commit.read]:
            assert newest[session_id] >= sequence, "called settled and is not"

    def recovered(self, commit: Commit) -> None:
        """Note a recovery."""
        assert self.store.is_synced or not len(commit.slots), "told before it was on disk"
        self.committed(commit)

    def failed(self, error: Exception, rows: int) -> None:
        """Note a failure."""
        self.on_tell()
        super().failed(error, rows)

    def settled_newest(self) -> list[Player]:
        """The newest row of each player that was settled, last."""
        return sorted(self.settled)


class BooksTests(SynchronousTestCase):
    """Every row that was handed over comes out once, whatever goes wrong on the way."""

    FAULTS = (
        *(StoreBusy, OSError, ZeroDivisionError),
        *(RowRefused, StoreReplaced, Killed),
    )

    @settings(LAW, max_examples=100)
    @given(st.data())
    def test_books_balance(self, data: st.DataObject) -> None:
        """Invariant 7: each row ends as committed, dropped or superseded, and as only one."""
        store, ring = Store(), Ring(64, LAYOUT.dtype)
        store.names_bad = data.draw(st.booleans())
        accounts = Accounts(store, ring)
        number = 0

        def rows_with_a_fate(session_ids: list[int]) -> list[Player]:
            nonlocal number
            players = []
            for session_id in session_ids:
                number += 1
                player = (session_id, number)
                fate = data.draw(st.sampled_from(("good", "good", "good", "bad", "older")))
                if fate == "bad":
                    store.bad[player] = f"bad {number}"
                elif fate == "older":
                    store.older.add(player)
                players.append(player)
            accounts.handed += players
            return players

        ids = st.integers(1, 6)
        recovered = rows_with_a_fate(sorted(data.draw(st.sets(ids, max_size=4))))
        persister = Persister(
            *(ring, LAYOUT.record, store.open_writer, accounts, lambda: 0.0, lambda: 1.0),
            recovered=rows_of(*recovered) if recovered else None,
        )
        faults = deque(
            data.draw(
                st.lists(st.none() | st.sampled_from((None, None, *self.FAULTS)), max_size=60)
            )
        )

        def fault(*kinds: type[BaseException]) -> None:
            if faults and (error := faults.popleft()) is not None and error in kinds:
                raise error("as drawn")

        usual = (StoreBusy, OSError, ZeroDivisionError, Killed)
        store.on_open = lambda: fault(*usual)
        store.on_write = lambda: fault(*usual, RowRefused)
        store.on_sync = lambda: fault(*usual)
        store.on_set_aside = lambda: fault(*usual)
        store.on_maintain = lambda: fault(*usual, StoreReplaced)
        accounts.on_tell = lambda: fault(ZeroDivisionError, Killed)

        def push(players: list[Player]) -> None:
            rows = rows_of(*players)
            pushed = ring.push(rows, np.arange(len(rows)))
            self.assertEqual(pushed, len(rows))
            accounts.in_ring += players

        def step() -> float | None:
            try:
                return persister.step()
            except (Killed, ZeroDivisionError):  # the next thread goes on
                return 0.0

        for session_ids in data.draw(st.lists(st.lists(ids, max_size=5), max_size=12)):
            push(rows_with_a_fate(session_ids))
            if data.draw(st.booleans()):
                step()
            if data.draw(st.booleans()):
                persister.resume()
        faults.clear()
        persister.resume()
        for _ in range(2 * REFUSALS):
            number += 1
            accounts.handed.append((99, number))
            push([(99, number)])
            step()
        limit = iter(range(1000))
        while step() is not None:
            next(limit)
        self.assertEqual(len(accounts.settled) + accounts.superseded, len(accounts.handed))
        self.assertLessEqual(set(accounts.settled), set(accounts.handed))
        self.assertEqual(dict(accounts.settled_newest()), dict(sorted(accounts.handed)))
