"""The counters, and the identities that tie them (invariant 7)."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate.ledger import SUMMARY, Counters, Gauges, Judged, Ledger, Outcome, Snapshot, count


class LedgerTests(SynchronousTestCase):
    """Counting, and reading what was counted."""

    def test_new_ledger(self) -> None:
        """A new ledger has counted nothing, and its books balance."""
        snapshot = Ledger().snapshot()
        self.assertEqual(snapshot, Snapshot())
        self.assertEqual(snapshot.imbalance(), [])

    def test_commit(self) -> None:
        """A commit is counted in rows and in seconds, with the last and the greatest."""
        ledger = Ledger()
        ledger.commit(rows=10, outdated=1, quarantined=4, superseded=5, seconds=0.5)
        ledger.commit(rows=3, outdated=2, quarantined=3, superseded=0, seconds=0.25)
        self.assertEqual(ledger.commits, 2)
        self.assertEqual(ledger.committed, 13)
        self.assertEqual(ledger.outdated, 3)
        self.assertEqual(ledger.quarantined, 7)
        self.assertEqual(ledger.superseded, 5)
        self.assertEqual(ledger.commit_seconds, 0.75)
        self.assertEqual((ledger.commit_seconds_last, ledger.commit_seconds_max), (0.25, 0.5))
        self.assertEqual((ledger.commit_rows_last, ledger.commit_rows_max), (3, 10))

    def test_count_by_reason(self) -> None:
        """Counters by reason begin with the first of each reason."""
        ledger = Ledger()
        for reason in ("value", "short", "value"):
            count(ledger.malformed, reason)
        self.assertEqual(ledger.malformed, {"value": 2, "short": 1})

    def test_take_in(self) -> None:
        """Whatever a message comes to, it is counted once as that and once as received."""
        for outcome in (*Outcome, Judged("speed")):
            ledger = Ledger()
            ledger.take_in(outcome)
            ledger.take_in(outcome, 2)
            counter, reason = outcome.value
            expected = {reason: 3} if reason else 3
            self.assertEqual((getattr(ledger, counter), ledger.received), (expected, 3))
            books = attrs.evolve(ledger.snapshot(), pending=ledger.applied)
            self.assertEqual(books.imbalance(), [])

    def test_malformed(self) -> None:
        """A reason that nothing is malformed for is no outcome."""
        self.assertIs(Outcome.malformed("value"), Outcome.VALUE)
        self.assertRaises(ValueError, Outcome.malformed, "leaving")

    def test_snapshot_has_every_counter_and_gauge(self) -> None:
        """A snapshot carries each counter, and each gauge as it is at that moment."""
        counters = {
            field.name: {"reason": 1 + index} if field.default == attrs.Factory(dict) else 1 + index
            for index, field in enumerate(attrs.fields(Counters))
        }
        gauges = {field.name: 100 + index for index, field in enumerate(attrs.fields(Gauges))}
        ledger = Ledger(**counters, gauges=lambda: Gauges(**gauges))
        self.assertEqual(attrs.asdict(ledger.snapshot()), {**counters, **gauges})

    def test_snapshot_is_a_value(self) -> None:
        """A snapshot does not change with the ledger, not even by reason."""
        ledger = Ledger()
        count(ledger.rejected, "stopping")
        snapshot = ledger.snapshot()
        count(ledger.rejected, "stopping")
        ledger.received += 1
        self.assertEqual(snapshot.rejected, {"stopping": 1})
        self.assertEqual(snapshot.received, 0)
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            snapshot.received = 5

    def test_ledgers_share_nothing(self) -> None:
        """What one ledger counts by reason, another does not."""
        count(Ledger().malformed, "value")
        self.assertEqual(Ledger().malformed, {})


class BalanceTests(SynchronousTestCase):
    """Invariant 7: the books balance, and an imbalance is told in words."""

    BALANCED = Snapshot(
        received=21,
        applied=10,
        stale=4,
        malformed={"value": 2, "short": 1},
        rejected={"not_online": 3, "stopping": 1},
        recovered=7,
        committed=8,
        superseded=2,
        outdated=1,
        quarantined=4,
        pending=2,
    )

    def test_balanced(self) -> None:
        """Invariant 7: what was received and what was applied is all accounted for."""
        self.assertEqual(self.BALANCED.imbalance(), [])

    def test_received(self) -> None:
        """Invariant 7: each term of what was received counts, and all are named."""
        for change in (
            {"received": 22},
            {"stale": 5},
            {"malformed": {"value": 2}},
            {"rejected": {"not_online": 5, "stopping": 1}},
        ):
            wrong = attrs.evolve(self.BALANCED, **change).imbalance()
            self.assertEqual(len(wrong), 1, change)
            self.assertTrue(wrong[0].startswith("received "), wrong)
        self.assertEqual(
            attrs.evolve(self.BALANCED, received=22).imbalance(),
            ["received 22 != applied 10 + stale 4 + malformed 3 + rejected 4"],
        )

    def test_applied(self) -> None:
        """Invariant 7: each term of what was applied counts, and all are named."""
        for change in (
            {"recovered": 8},
            {"committed": 9},
            {"superseded": 3},
            {"outdated": 0},
            {"quarantined": 5},
            {"abandoned": 1},
            {"pending": 1},
        ):
            wrong = attrs.evolve(self.BALANCED, **change).imbalance()
            self.assertEqual(len(wrong), 1, change)
            self.assertTrue(wrong[0].startswith("applied "), wrong)
        self.assertEqual(
            attrs.evolve(self.BALANCED, pending=3).imbalance(),
            [
                "applied 10 + recovered 7 != committed 8 + superseded 2 + outdated 1"
                " + quarantined 4 + abandoned 0 + pending 3"
            ],
        )

    def test_both(self) -> None:
        """Invariant 7: an update applied but never received breaks both identities."""
        self.assertEqual(len(attrs.evolve(self.BALANCED, applied=11).imbalance()), 2)

    def test_thread_deaths(self) -> None:
        """Threads that died, and how long the store takes nothing, are in no sum."""
        change = {"thread_deaths": 3, "degraded": "locked", "degraded_seconds": 9.0}
        self.assertEqual(attrs.evolve(self.BALANCED, **change).imbalance(), [])


class SummaryTests(SynchronousTestCase):
    """The line for the log."""

    def test_since_before(self) -> None:
        """Counters are told since the earlier snapshot, gauges as they are."""
        before = Snapshot(
            received=100,
            applied=90,
            stale=4,
            malformed={"value": 1},
            rejected={"stopping": 5},
            committed=80,
            superseded=3,
            commits=8,
            commit_seconds=4.0,
            overflows=1,
            store_errors={"StoreBusy": 1},
            kernel_drops=2,
            players_online=9,
            pending=70,
        )
        now = Snapshot(
            received=160,
            applied=140,
            stale=7,
            malformed={"value": 1, "short": 2},
            rejected={"stopping": 10, "not_online": 7},
            committed=120,
            superseded=10,
            commits=10,
            commit_seconds=4.5,
            overflows=2,
            store_errors={"StoreBusy": 3, "OSError": 1},
            kernel_drops=7,
            age_at_commit_seconds_max=2.25,
            players_online=12,
            pending=10,
            oldest_unsaved_seconds=1.23,
            queue_depth=3,
            queue_size=64,
        )
        self.assertEqual(
            SUMMARY.format(**now.since(before)),
            "12 players online;"
            " 50 updates applied, 3 stale, 2 (short 2) malformed,"
            " 12 (stopping 5, not_online 7) rejected;"
            " 40 rows saved in 2 commits (mean 250.0 ms; since the start at most 2.2 s old),"
            " 7 superseded, 10 pending, oldest unsaved 1.2 s; queue 3/64, 1 overflows;"
            " 3 (StoreBusy 2, OSError 1) store errors; 5 dropped by the kernel",
        )

    def test_nothing_happened(self) -> None:
        """Without commits there is no mean to tell, and no division by zero."""
        summary = SUMMARY.format(**Snapshot().since(Snapshot()))
        self.assertIn("0 rows saved in 0 commits (mean 0.0 ms", summary)
        self.assertIn("0 malformed, 0 rejected;", summary)
