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

from playerstate.figures import Histogram, counter, described, gauge, histogram

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
    def reasons(cls, counter: str) -> list[str]:
        """Every reason by which this counter counts; empty for one without reasons."""
        return [
            reason for name, reason in (each.value for each in cls) if reason and name == counter
        ]

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


@described
@attrs.frozen(slots=False)
class Gauges:
    """Values measured at one moment, not counted."""

    players_online: int = gauge("players who joined and have not left", "players_online")
    players_leaving: int = gauge(
        "players who left and are not saved yet, or are edited while offline", "players_leaving"
    )
    pending: int = gauge(
        "applied or recovered updates that are not settled yet: neither committed nor superseded,"
        " outdated, quarantined or abandoned",
        "updates_pending",
    )
    queue_depth: int = gauge("rows in the rings to the persist threads", "queue_depth")
    queue_size: int = gauge("rows that the rings can hold", "queue_capacity")
    degraded: str = gauge(
        "why rows have not reached the store for longer than allowed, or why a lost live file"
        " cannot be made anew; empty if all is well",
        default="",
    )
    degraded_seconds: float = gauge(
        "for how long rows have not reached the store, or the live file has been lost; 0 if all is"
        " well",
        "degraded_seconds",
        default=0.0,
    )
    oldest_unsaved_seconds: float = gauge(
        "age of the first uncommitted update of the player who has waited longest; 0 where"
        " everything is committed",
        "oldest_unsaved_seconds",
        default=0.0,
    )


@described
@attrs.define(slots=False)
class Counters:
    """The counters; each number only grows, but for those of the last commit."""

    received: int = counter(
        "updates received, and other messages that had no effect", "updates_received"
    )
    applied: int = counter("updates written to the live table", "updates_applied")
    recovered: int = counter(
        "updates that a previous process left and that the store did not have", "updates_recovered"
    )
    stale: int = counter(
        "updates not above the highest sequence applied, and other late messages", "updates_stale"
    )
    malformed: Counts = counter(
        "by reason, messages that cannot be read or carry a value outside its field",
        "updates_malformed",
        label="reason",
    )
    rejected: Counts = counter(
        "by reason, messages that are well formed but not accepted",
        "updates_rejected",
        label="reason",
    )
    swept: int = counter("rows handed to the persist threads", "queue_rows")
    superseded: int = counter(
        "updates overtaken by a newer one before they were saved", "updates_superseded"
    )
    committed: int = counter("rows committed to the store", "updates_committed")
    outdated: int = counter(
        "rows left out because the store held a newer one, or because another server has taken the"
        " player over",
        "updates_outdated",
    )
    quarantined: int = counter("rows that the store can never take", "updates_quarantined")
    abandoned: int = counter(
        "updates whose saving a stop gave up; the next start may recover them", "updates_abandoned"
    )
    thread_deaths: int = counter(
        "persist threads that died of an error, and were started again", "persist_thread_restarts"
    )
    live_file_losses: int = counter(
        "times that the live file was removed, replaced or cut while in use", "live_file_losses"
    )
    overflows: int = counter("sweeps that did not fit into a ring", "queue_overflows")
    commits: int = counter("transactions, as the persist threads report them")
    commit_seconds: float = counter("how long all writes took", default=0.0)
    commit_seconds_max: float = counter("how long the longest write took", default=0.0)
    commit_seconds_last: float = counter("how long the last write took", default=0.0)
    commit_rows_max: int = counter("how many rows the largest commit had")
    commit_rows_last: int = counter("how many rows the last commit had")
    age_at_commit_seconds_max: float = counter(
        "the greatest age of an update when it was committed", default=0.0
    )
    store_errors: Counts = counter(
        "by kind, errors of the store; the batch was kept each time", "store_errors", label="kind"
    )
    joins: int = counter("conversations and joins begun", "joins")
    restored: int = counter("joins that found a stored or live state", "joins_restored")
    joins_refused: Counts = counter("by reason, refused JOINs", "joins_refused", label="reason")
    joins_limited: int = counter(
        "JOINs dropped unread because too many from the same source were waiting", "joins_limited"
    )
    leaves: int = counter("players who left and were saved", "leaves")
    receipts: int = counter("receipts sent", "receipts")
    states: int = counter("STATEs sent, repeated ones included", "states")
    unsent: int = counter(
        "messages that the system did not accept for sending; the same as lost in transit",
        "messages_unsent",
    )
    kernel_drops: int = counter(
        "datagrams that the system dropped because the buffer of one of our sockets was full",
        "kernel_drops",
    )


_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0)
_ROWS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000)
_LATE = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


@described
@attrs.define(slots=False)
class Histograms:
    """How values are distributed, over all runs."""

    persist_latency: Histogram = histogram(
        "how long the write of each commit took, in seconds", "persist_latency_seconds", _SHORT
    )
    persist_rows: Histogram = histogram("rows that each commit saved", "persist_rows", _ROWS)
    age_at_commit: Histogram = histogram(
        "how old the oldest update of each sweep was once all of the sweep was committed, in"
        " seconds",
        "age_at_commit_seconds",
        _LONG,
    )
    reactor_lateness: Histogram = histogram(
        "how late the reactor thread made a call that is due ten times a second, in seconds",
        "reactor_lateness_seconds",
        _LATE,
    )


@attrs.define(slots=False)
class Ledger(Counters):
    """The counters of one service, over all its runs; the code that sees an event counts it.

    Attributes:
        gauges: measures the gauges of this moment.
        histograms: how the values of commits and delays are distributed.
    """

    gauges: Callable[[], Gauges] = attrs.field(default=Gauges, eq=False, repr=False)
    histograms: Histograms = attrs.field(factory=Histograms, eq=False, repr=False)

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
        self.histograms.persist_latency.observe(seconds)
        self.histograms.persist_rows.observe(rows)

    def note_age(self, seconds: float) -> None:
        """Note how old the oldest update of a sweep is now that the sweep is committed."""
        self.age_at_commit_seconds_max = max(self.age_at_commit_seconds_max, seconds)
        self.histograms.age_at_commit.observe(seconds)

    def snapshot(self) -> Snapshot:
        """Return all counters and gauges as they are now."""
        counters = {
            field.name: _copied(getattr(self, field.name)) for field in attrs.fields(Counters)
        }
        return Snapshot(**counters, **attrs.asdict(self.gauges()))


def count(counts: Counts, reason: str, number: int = 1) -> None:
    """Raise the counter of this reason."""
    counts[reason] = counts.get(reason, 0) + number


SUMMARY = (
    "{players_online} players online; {applied} updates applied, {stale} stale,"
    " {malformed}{malformed_reasons} malformed, {rejected}{rejected_reasons} rejected;"
    " {committed} rows saved in {commits} commits (mean {commit_ms_mean:.1f} ms; since the start at"
    " most {age_at_commit_seconds_max:.1f} s old), {superseded} superseded, {pending} pending,"
    " oldest unsaved {oldest_unsaved_seconds:.1f} s; queue {queue_depth}/{queue_size},"
    " {overflows} overflows; {store_errors}{store_errors_reasons} store errors;"
    " {kernel_drops} dropped by the kernel"
)
"""The format of the log line that sums up a while; `Snapshot.since` gives its fields."""

_RISING = (
    *("applied", "stale", "committed", "commits", "superseded", "overflows"),
    "kernel_drops",
)
_BY_REASON = ("malformed", "rejected", "store_errors")
_PRESENT = (
    *("players_online", "age_at_commit_seconds_max", "pending", "oldest_unsaved_seconds"),
    *("queue_depth", "queue_size"),
)


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

    def since(self, before: Snapshot) -> dict[str, float | str]:
        """What happened since `before`, and the present gauges: the fields of `SUMMARY`."""
        commits = self.commits - before.commits
        seconds = self.commit_seconds - before.commit_seconds
        fields: dict[str, float | str] = {
            name: getattr(self, name) - getattr(before, name) for name in _RISING
        }
        for name in _BY_REASON:
            risen = _risen(getattr(self, name), getattr(before, name))
            fields[name] = sum(risen.values())
            fields[f"{name}_reasons"] = _reasons(risen)
        for name in _PRESENT:
            fields[name] = getattr(self, name)
        fields["commit_ms_mean"] = 1000 * seconds / commits if commits else 0.0
        return fields


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _risen(now: Counts, before: Counts) -> Counts:
    """How many were counted since `before`, for each reason for which there were any."""
    risen = {reason: number - before.get(reason, 0) for reason, number in now.items()}
    return {reason: number for reason, number in risen.items() if number}


def _reasons(risen: Counts) -> str:
    """Behind a sum, what it is made of: `` (stopping 1, not_joined 2)``."""
    reasons = ", ".join(f"{reason} {number}" for reason, number in risen.items())
    return f" ({reasons})" if reasons else ""
