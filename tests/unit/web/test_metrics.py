"""The figures as Prometheus reads them."""

from __future__ import annotations

import os

import attrs
from prometheus_client.parser import text_string_to_metric_families

from playerstate import NotOnline, NotRunning, PlayerState
from playerstate.ledger import Outcome, count
from playerstate.stores import open_store
from playerstate.transports.netcode.tally import Tally
from playerstate.web.metrics import KEPT, Metrics, Source
from tests.kit.databases import DirectoryTestCase
from tests.kit.players import ServiceTestCase, at

NAMED = {
    *("queue_depth", "queue_capacity", "queue_overflows_total", "store_errors_total"),
    *("players_online", "players_leaving", "oldest_unsaved_seconds", "save_within_seconds"),
    *("updates_received_total", "updates_applied_total", "updates_committed_total"),
    *("updates_superseded_total", "updates_rejected_total", "updates_pending"),
    *("persist_thread_restarts_total", "kernel_drops_total", "live_file_bytes", "wal_bytes"),
    *("persist_latency_seconds_bucket", "persist_rows_bucket", "age_at_commit_seconds_bucket"),
    *("reactor_lateness_seconds_bucket", "build_info"),
}
"""What operators rely on, without the prefix; more may come, none may go."""


class MetricsTestCase(ServiceTestCase):
    """A service with figures."""

    def begin(self, *sources: Source, **options: object) -> None:
        """Start it."""
        self.stepped = self.start(**options)
        self.service = self.stepped.service
        self.metrics = Metrics(self.service, sources, self.stepped.reactor.seconds)

    def scraped(self) -> dict[tuple[str, ...], float]:
        """The values, by the name without the prefix and the values of the labels."""
        self.stepped.reactor.advance(KEPT)
        families = text_string_to_metric_families(self.metrics.text().decode())
        return {
            (sample.name.removeprefix("playerstate_"), *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


class MetricsTests(MetricsTestCase, DirectoryTestCase):
    """Names, kinds, values."""

    def setUp(self) -> None:
        """A directory, and the log."""
        DirectoryTestCase.setUp(self)
        ServiceTestCase.setUp(self)

    def test_named(self) -> None:
        """Every name that operators rely on is there, or has its type and its help until it is."""
        store = open_store(self.url, PlayerState)
        self.begin(store=store, live_file=f"{self.directory}/live")
        self.addCleanup(self.stepped.stop)
        text = self.metrics.text().decode()
        for name in NAMED:
            with self.subTest(name=name):
                family = name.removesuffix("_bucket")
                self.assertIn(f"# HELP playerstate_{family} ", text)
                self.assertIn(f"# TYPE playerstate_{family} ", text)
        names = {key[0] for key in self.scraped()}
        self.assertEqual(NAMED - names, {"store_errors_total"})

    def test_books(self) -> None:
        """The counters are the ledger's, to the unit, and the gauges those of the moment."""
        self.begin(save_within=5.0, queue_size=64)
        self.stepped.join(42)
        for x in range(10):
            self.service.update(42, at(x))
        self.assertRaises(NotOnline, self.service.update, 43, at(0.0))
        count(self.service.ledger.store_errors, "StoreBusy", 3)
        found, books = self.scraped(), self.service.ledger.snapshot()
        for name, value in (
            ("updates_received_total", books.received),
            ("updates_applied_total", 10),
            ("updates_superseded_total", 9),
            ("updates_pending", 1),
            ("players_online", 1),
            ("queue_capacity", 64),
            ("save_within_seconds", 5),
        ):
            self.assertEqual(found[(name,)], value, name)
        self.assertEqual(found["updates_rejected_total", "not_online"], 1)
        self.assertEqual(found["store_errors_total", "StoreBusy"], 3)

    def test_known_reasons(self) -> None:
        """A reason is there with 0 before it is first counted, so that its first is a rise."""
        self.begin()
        found = self.scraped()
        for outcome in Outcome:
            counter, reason = outcome.value
            if reason:
                self.assertEqual(found[f"updates_{counter}_total", reason], 0)

    def test_histograms(self) -> None:
        """Commits are observed as they are reported: how long, how many rows, how old."""
        self.begin()
        self.metrics.follow()
        for session_id in range(1, 4):
            self.stepped.join(session_id)
            self.service.update(session_id, at(1.0))
        self.stepped.reactor.advance(2.0)
        self.service.flush()
        self.stepped.settle()
        found = self.scraped()
        self.assertEqual(found[("persist_latency_seconds_count",)], 1)
        self.assertEqual(found[("persist_rows_sum",)], 3)
        self.assertEqual(found["persist_rows_bucket", "1.0"], 0)
        self.assertEqual(found["persist_rows_bucket", "10.0"], 1)
        self.assertEqual(found[("age_at_commit_seconds_sum",)], 2)
        self.assertEqual(found["age_at_commit_seconds_bucket", "+Inf"], 1)
        self.assertGreater(found[("reactor_lateness_seconds_count",)], 0)

    def test_files(self) -> None:
        """The live file counts by its blocks, not by its length, most of which is a hole."""
        store = open_store(self.url, PlayerState)
        self.begin(store=store, live_file=f"{self.directory}/live", max_players=100_000)
        self.addCleanup(self.stepped.stop)
        self.stepped.join(42)
        self.service.update(42, at(1.0))
        self.service.flush()
        self.stepped.settle()
        found = self.scraped()
        status = os.stat(f"{self.directory}/live")
        self.assertEqual(found[("live_file_bytes",)], status.st_blocks * 512)
        self.assertLess(found[("live_file_bytes",)], status.st_size)
        self.assertEqual(found[("wal_bytes",)], os.stat(f"{self.path}-wal").st_size)
        os.unlink(f"{self.path}-wal")
        os.unlink(f"{self.directory}/live")
        found = self.scraped()
        self.assertEqual((found[("wal_bytes",)], found[("live_file_bytes",)]), (0, 0))


class SourceTests(MetricsTestCase):
    """Others with figures, and what is kept."""

    def test_without_files(self) -> None:
        """A store without files has no figures of them."""
        self.begin()
        names = {key[0] for key in self.scraped()}
        self.assertFalse({"wal_bytes", "live_file_bytes"} & names)

    def test_netcode(self) -> None:
        """A transport's tally is shown while it runs, by reason."""
        tally: list[Tally] = []

        def source() -> Tally:
            if not tally:
                raise NotRunning("the netcode transport was never started")
            return tally[0]

        self.begin(source)
        self.assertNotIn(("netcode_connected_total",), self.scraped())
        tally.append(Tally(connected=3))
        tally[0].ignored["bad_token"] += 2
        found = self.scraped()
        self.assertEqual(found[("netcode_connected_total",)], 3)
        self.assertEqual(found["netcode_ignored_total", "bad_token"], 2)

    def test_every_tally(self) -> None:
        """No number of a tally is left out."""
        self.begin(Tally)
        names = {key[0] for key in self.scraped()}
        for field in attrs.fields(Tally):
            if field.name != "ignored":
                self.assertIn(f"netcode_{field.name}_total", names)

    def test_kept(self) -> None:
        """However many scrapes there are, the figures are made anew a few times a second only."""
        self.begin()
        text = self.metrics.text()
        self.stepped.join(42)
        self.stepped.reactor.advance(KEPT / 2)
        self.assertIs(self.metrics.text(), text)
        self.assertEqual(self.scraped()[("players_online",)], 1)

    def test_stopped(self) -> None:
        """A service that does not run has its counters still."""
        self.begin()
        self.stepped.join(42)
        self.successResultOf(self.stepped.stop())
        self.assertEqual(self.scraped()[("joins_total",)], 1)
