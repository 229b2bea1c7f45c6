"""A persister between a ring and a scripted store, and what records its reports."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from playerstate.interfaces import IStateWriter, LeftOut, Reason, Records, RowRefused
from playerstate.saving.commit import Commit, Dropped
from playerstate.saving.persister import Persister
from playerstate.saving.ring import Ring
from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema

SCHEMA = StateSchema.of(PlayerState)
LAYOUT = RowLayout(SCHEMA.fields)

T = TypeVar("T")

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


Settled = tuple[list[Player], tuple[Dropped, ...]]
"""The players whose rows were committed, and the rows that were dropped."""


def settled_by(commit: Commit) -> Settled:
    """What a commit reports."""
    return players_in(commit), commit.dropped


def outdated(session_id: int, sequence: int, reason: Reason = Reason.NEWER) -> Dropped:
    """What is reported of a row that the writer left out for good."""
    return Dropped(session_id, session_id + 100, sequence + 1000, reason, reason.value)


def quarantined(session_id: int, sequence: int, why: str) -> Dropped:
    """What is reported of a quarantined row."""
    return Dropped(session_id, session_id + 100, sequence + 1000, Reason.REFUSED, why)


class Killed(BaseException):
    """What no ``except Exception`` catches."""


def raising(*errors: BaseException | None) -> Callable[..., object]:
    """A function that raises these errors, one a call, and nothing from then on."""
    left = deque(errors)

    def call(*_: object) -> None:
        if left and (error := left.popleft()) is not None:
            raise error

    return call


def drained(reports: queue.Queue[T]) -> list[T]:
    """The reports made since the last look."""
    return [reports.get_nowait() for _ in range(reports.qsize())]


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
        self.store.on_quarantine()
        assert records.dtype == LAYOUT.record
        self.store.quarantined += zip(players_of(records), reasons, strict=True)

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
        quarantined: the players quarantined, each with the reason.
        bad: players who can never be written, and why.
        older: players of whom the store holds newer rows.
        left_out, fenced: positions that the next writes leave out, since the store holds newer
            states of these players, or since they are another server's.
        names_bad: whether it says which players are bad, and takes the others with the same write.
        is_synced: whether everything written is on disk.
        on_open, on_write, on_quarantine, on_sync, on_maintain: called when a writer is opened, and
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
        self.quarantined: list[tuple[Player, str]] = []
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
        self.on_quarantine: Callable[[], object] = lambda: None
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
        (commit,) = drained(self.listener.commits)
        return commit

    def commits(self) -> list[Settled]:
        """The commits reported since the last look."""
        return [settled_by(commit) for commit in drained(self.listener.commits)]

    def recovery(self) -> Commit:
        """The one recovery reported since the last look."""
        (commit,) = drained(self.listener.recoveries)
        return commit

    def recoveries(self) -> list[Settled]:
        """The recoveries reported since the last look."""
        return [settled_by(commit) for commit in drained(self.listener.recoveries)]

    def failure(self) -> tuple[Exception, int]:
        """The one failure reported since the last look."""
        (failure,) = drained(self.listener.failures)
        return failure

    def failures(self) -> list[tuple[str, int]]:
        """The failures reported since the last look: the message, and how many rows are kept."""
        return [(str(error), rows) for error, rows in drained(self.listener.failures)]
