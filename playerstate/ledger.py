"""The counters of one service, and the identities between them.

An *update* is a MOVE, a DELTA, or a call of ``update``, ``change`` or ``edit``; a call that changes
nothing is none, nor is an ``edit`` whose player could not be loaded.  Each is *received* once and
ends as exactly one of *applied*, *stale*, *malformed* and *rejected*; any other message that had no
effect is counted with them.  `Ledger.take_in` counts all of these, and nothing else does.

Each applied update ends as *committed*; *superseded* by a newer update of the same player before it
reached the store; *outdated*, left out because the store held a newer row or another server has the
player; *quarantined*, because the store can never take it; or *abandoned* by a stop that gave up.
Until then it is *pending*.  The same holds for each update *recovered* from what a previous process
or an earlier stop left.  `Snapshot.imbalance` checks both sums, which hold over any number of stops
and starts.

Reactor thread only.  A snapshot is an immutable value, and may be used on any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import attrs

Counts = dict[str, int]


class Outcome(Enum):
    """What becomes of an update, or of another message that has no effect.

    The value is the name of the counter, and the reason where it is counted by reason.
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
    SERVER_OWNED = ("rejected", "server_owned")
    UNKNOWN_BASE = ("rejected", "unknown_base")
    NOT_SEEN = ("rejected", "not_seen")
    JUDGE_FAILED = ("rejected", "judge_failed")
    LEAVING = ("rejected", "leaving")
    STOPPING = ("rejected", "stopping")

    @classmethod
    def malformed(cls, reason: str) -> Outcome:
        """The outcome of a message that is malformed for this reason."""
        return cls(("malformed", reason))


_APPLIED, _STALE = Outcome.APPLIED, Outcome.STALE


@attrs.frozen
class Judged:
    """What becomes of a move that a judge rejects.

    Attributes:
        reason: the judge's; see `playerstate.interfaces.IMoveJudge`.
    """

    reason: str

    @property
    def value(self) -> tuple[str, str]:
        """As that of an `Outcome`."""
        return "rejected", self.reason


@attrs.frozen(slots=False)
class Gauges:
    """Values measured at one moment, not counted.

    Attributes:
        players_online: players who joined and have not left.
        players_leaving: players who left and are not saved yet, or are edited while offline.
        pending: applied or recovered updates that are not settled yet: neither committed nor
            superseded, outdated, quarantined or abandoned.
        queue_depth: rows in the rings.
        queue_size: rows that the rings can hold.
        degraded: why rows have not reached the store for longer than allowed, or why a lost live
            file cannot be made anew; empty if all is well.
        degraded_seconds: for how long that has lasted.
        oldest_unsaved_seconds: age of the first uncommitted update of the player who has waited
            longest; 0 where everything is committed.
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
    """The counters; each number only grows.

    Attributes:
        received: updates, and other messages that had no effect.
        applied: updates written to the live table.
        recovered: updates that a previous process left and that the store did not have.
        stale: updates not above the highest sequence applied, and other late messages.
        malformed: by reason, messages that cannot be read or carry a value outside its field.
        rejected: by reason, messages that are well formed but not accepted.
        swept: rows handed to the persist threads.
        superseded: updates overtaken by a newer one before they were saved.
        committed: rows committed to the store.
        outdated: rows left out because the store held a newer one, or because another server has
            taken the player over.
        quarantined: rows that the store can never take.
        abandoned: updates whose saving a stop gave up; the next start may recover them.
        thread_deaths: persist threads that died of an error.
        overflows: sweeps that did not fit into a ring.
        commits: transactions, as the persist threads report them.
        commit_seconds, commit_seconds_max, commit_seconds_last: how long the writes took.
        commit_rows_max, commit_rows_last: how many rows they committed.
        age_at_commit_seconds_max: the greatest age of an update when it was committed.
        store_errors: by kind, errors of the store; the batch was kept each time.
        joins: conversations and joins begun.
        restored: joins that found a stored or live state.
        joins_refused: by reason, refused JOINs.
        joins_limited: JOINs dropped unread because too many from the same source were waiting.
        leaves: players who left and were saved.
        receipts: receipts sent.
        states: STATEs sent, repeated ones included.
        unsent: messages that the system did not accept for sending; the same as lost in transit.
        kernel_drops: datagrams that the system dropped because the socket's buffer was full.
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
    states: int = 0
    unsent: int = 0
    kernel_drops: int = 0


@attrs.define(slots=False)
class Ledger(Counters):
    """The counters of one service, over all its runs; the code that sees an event counts it."""

    gauges: Callable[[], Gauges] = attrs.field(default=Gauges, eq=False, repr=False)

    def take_in(self, outcome: Outcome | Judged, number: int = 1) -> None:
        """Count `number` received messages and what became of them, so that the first sum holds."""
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
        """Count one commit report, and the rows settled by it."""
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
        """Return all counters and gauges as they are now."""
        counters = {
            field.name: _copied(getattr(self, field.name)) for field in attrs.fields(Counters)
        }
        return Snapshot(**counters, **attrs.asdict(self.gauges()))


def count(counts: Counts, reason: str, number: int = 1) -> None:
    """Raise the counter of this reason."""
    counts[reason] = counts.get(reason, 0) + number


@attrs.frozen(slots=False)
class Snapshot(Counters, Gauges):
    """The ledger at one moment: every counter and every gauge."""

    def imbalance(self) -> list[str]:
        """The identities that do not hold, each as text; empty when all hold."""
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
        """One line for the log: what happened since `before`, and the present gauges."""
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
    """How many were counted since `before`, by reason: ``3 (stopping 1, not_joined 2)``."""
    risen = {reason: number - before.get(reason, 0) for reason, number in now.items()}
    reasons = ", ".join(f"{reason} {number}" for reason, number in risen.items() if number)
    return f"{sum(risen.values())} ({reasons})" if reasons else "0"
