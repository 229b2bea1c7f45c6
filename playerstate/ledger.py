"""The counters of one service, and the identities that tie them.

An *update* is a MOVE, a DELTA or a call of ``update``.  Each is *received* once and ends as exactly
one of *applied*, *stale*, *malformed* and *rejected*; any other message that came to nothing is
counted with them.  `Ledger.take_in` counts all of these, and nothing else does.

Each applied update ends as *committed*, *superseded* by a newer update of the same player before it
reached the store, *outdated*, left out because the store held a newer one, or *abandoned* by a stop
that gave up; until then it is *pending*.  So does each update *recovered* from what a process
before left, or a stop before.  `Snapshot.imbalance` checks both sums, which come out over any
number of stops and starts.

Reactor thread only.  A snapshot is a value, and may go anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import attrs

Counts = dict[str, int]


class Outcome(Enum):
    """What becomes of an update, or of another message that comes to nothing.

    The value is the counter it is counted by, and the reason where that is kept by reason.
    """

    APPLIED = ("applied", "")
    STALE = ("stale", "")
    TOO_SHORT = ("malformed", "too_short")
    TOO_LONG = ("malformed", "too_long")
    SESSION_ID = ("malformed", "session_id")
    UNKNOWN_TYPE = ("malformed", "unknown_type")
    VALUE = ("malformed", "value")
    NOT_ONLINE = ("rejected", "not_online")
    NOT_JOINED = ("rejected", "not_joined")
    OTHER_ADDRESS = ("rejected", "other_address")
    OTHER_CONVERSATION = ("rejected", "other_conversation")
    UNKNOWN_BASE = ("rejected", "unknown_base")
    LEAVING = ("rejected", "leaving")
    STOPPING = ("rejected", "stopping")

    @classmethod
    def malformed(cls, reason: str) -> Outcome:
        """That of what is malformed for this reason."""
        return cls(("malformed", reason))


_APPLIED, _STALE = Outcome.APPLIED, Outcome.STALE


@attrs.frozen(slots=False)
class Gauges:
    """What is measured at the moment, not counted.

    Attributes:
        players_online: players who joined and did not leave.
        players_leaving: players who left and are not yet saved.
        pending: applied updates that are neither committed nor superseded nor left out.
        queue_depth: rows in the ring.
        queue_size: rows it can hold.
        degraded: why rows have not got into the store for longer than they may, or why a live file
            that was lost cannot be made anew; empty if all is well.
        degraded_seconds: for how long that has lasted.
        oldest_unsaved_seconds: age of the first update not yet committed of the player who has
            waited longest; 0 where everything is committed.
    """

    players_online: int = 0
    players_leaving: int = 0
    pending: int = 0
    queue_depth: int = 0
    queue_size: int = 0
    degraded: str = ""
    degraded_seconds: float = 0.0
    oldest_unsaved_seconds: float = 0.0


@attrs.define(slots=False)
class Counters:
    """What is counted; each number only grows.

    Attributes:
        received: updates, and other messages that came to nothing.
        applied: updates that are now in the live table.
        recovered: updates that a process before this one left, and that the store did not have.
        stale: updates not above the highest applied, and other messages of the past.
        malformed: by reason, messages that cannot be read or carry a value outside its field.
        rejected: by reason, messages that are well formed but have no business here.
        swept: rows handed to the persist thread.
        superseded: updates overtaken by a newer one before they were saved.
        committed: rows committed to the store.
        outdated: rows left out because the store held a newer one, or the player was another
            server's.
        quarantined: rows that the store can never take.
        abandoned: updates whose saving a stop gave up; the next start may find them again.
        thread_deaths: persist threads that died and were followed by another.
        overflows: sweeps that did not fit into the ring.
        commits: transactions.
        commit_seconds, commit_seconds_max, commit_seconds_last: how long they took.
        commit_rows_max, commit_rows_last: how many rows they had.
        age_at_commit_seconds_max: the greatest age an update had when it was committed.
        store_errors: by kind, errors of the store; the batch was kept each time.
        joins: conversations and joins begun; restored: those who found a stored or live state.
        joins_refused: by reason, JOINs over the wire.
        joins_limited: JOINs dropped unread, since their source had too many waiting.
        leaves: players who left and were saved.
        receipts: receipts sent.
        unsent: messages that the system would not take; as good as lost on the way.
        kernel_drops: datagrams the system dropped because the socket's buffer was full.
    """

    received: int = 0
    applied: int = 0
    recovered: int = 0
    stale: int = 0
    malformed: Counts = attrs.field(factory=dict)
    rejected: Counts = attrs.field(factory=dict)
    swept: int = 0
    superseded: int = 0
    committed: int = 0
    outdated: int = 0
    quarantined: int = 0
    abandoned: int = 0
    thread_deaths: int = 0
    overflows: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    commit_seconds_max: float = 0.0
    commit_seconds_last: float = 0.0
    commit_rows_max: int = 0
    commit_rows_last: int = 0
    age_at_commit_seconds_max: float = 0.0
    store_errors: Counts = attrs.field(factory=dict)
    joins: int = 0
    restored: int = 0
    joins_refused: Counts = attrs.field(factory=dict)
    joins_limited: int = 0
    leaves: int = 0
    receipts: int = 0
    unsent: int = 0
    kernel_drops: int = 0


@attrs.define(slots=False)
class Ledger(Counters):
    """The counters of one service, for all of its runs; who meets an event raises its counter."""

    gauges: Callable[[], Gauges] = attrs.field(default=Gauges, eq=False, repr=False)

    def take_in(self, outcome: Outcome, number: int = 1) -> None:
        """Count what was received, and what became of it: the first of the two sums holds."""
        self.received += number
        if outcome is _APPLIED:
            self.applied += number
        elif outcome is _STALE:
            self.stale += number
        else:
            counter, reason = outcome.value
            count(getattr(self, counter), reason, number)

    def commit(
        self, rows: int, outdated: int, quarantined: int, superseded: int, seconds: float
    ) -> None:
        """Count one commit, and what was settled with it."""
        self.commits += 1
        self.committed += rows
        self.outdated += outdated
        self.quarantined += quarantined
        self.superseded += superseded
        self.commit_seconds += seconds
        self.commit_seconds_last = seconds
        self.commit_seconds_max = max(self.commit_seconds_max, seconds)
        self.commit_rows_last = rows
        self.commit_rows_max = max(self.commit_rows_max, rows)

    def snapshot(self) -> Snapshot:
        """All counters and gauges as they are now."""
        counters = {
            field.name: _copied(getattr(self, field.name)) for field in attrs.fields(Counters)
        }
        return Snapshot(**counters, **attrs.asdict(self.gauges()))


def count(counts: Counts, reason: str, number: int = 1) -> None:
    """Raise one of the counters that are kept by reason."""
    counts[reason] = counts.get(reason, 0) + number


@attrs.frozen(slots=False)
class Snapshot(Counters, Gauges):
    """The ledger at one moment: every counter and every gauge."""

    def imbalance(self) -> list[str]:
        """The identities that do not hold, each in words; empty when the books balance."""
        malformed, rejected = sum(self.malformed.values()), sum(self.rejected.values())
        pending = self.pending
        taken_in = self.applied + self.stale + malformed + rejected
        settled = (
            self.committed + self.superseded + self.outdated + self.quarantined + self.abandoned
        )
        wrong = []
        if self.received != taken_in:
            wrong.append(
                f"received {self.received} != applied {self.applied} + stale {self.stale}"
                f" + malformed {malformed} + rejected {rejected}"
            )
        if self.applied + self.recovered != settled + pending:
            wrong.append(
                f"applied {self.applied} + recovered {self.recovered}"
                f" != committed {self.committed} + superseded {self.superseded}"
                f" + outdated {self.outdated} + quarantined {self.quarantined}"
                f" + abandoned {self.abandoned} + pending {pending}"
            )
        return wrong

    def summary(self, before: Snapshot) -> str:
        """One line for the log: what happened since `before`, and how things stand."""
        commits = self.commits - before.commits
        mean = 1000 * (self.commit_seconds - before.commit_seconds) / commits if commits else 0.0
        return (
            f"{self.players_online} players online;"
            f" {self.applied - before.applied} updates applied, {self.stale - before.stale} stale,"
            f" {_since(self.malformed, before.malformed)} malformed,"
            f" {_since(self.rejected, before.rejected)} rejected;"
            f" {self.committed - before.committed} rows saved in {commits} commits"
            f" (mean {mean:.1f} ms; since the start at most"
            f" {self.age_at_commit_seconds_max:.1f} s old),"
            f" {self.superseded - before.superseded} superseded,"
            f" {self.pending} pending, oldest unsaved {self.oldest_unsaved_seconds:.1f} s;"
            f" queue {self.queue_depth}/{self.queue_size},"
            f" {self.overflows - before.overflows} overflows;"
            f" {_since(self.store_errors, before.store_errors)} store errors;"
            f" {self.kernel_drops - before.kernel_drops} dropped by the kernel"
        )


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _since(now: Counts, before: Counts) -> str:
    """How many there were since `before`, and why: ``3 (stopping 1, not_joined 2)``."""
    risen = {reason: number - before.get(reason, 0) for reason, number in now.items()}
    reasons = ", ".join(f"{reason} {number}" for reason, number in risen.items() if number)
    return f"{sum(risen.values())} ({reasons})" if reasons else "0"
