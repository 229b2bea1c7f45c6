"""The benchmark's arithmetic and its reports; nothing here is timed."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.kit.support import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def bench(name: str) -> ModuleType:
    """A module of the benchmark, which is no part of the wheel: from the checkout.

    Only for as long as the import takes is the checkout on the path, and at its end, so that
    `playerstate` stays what is installed.
    """
    sys.path.append(str(ROOT))
    try:
        return importlib.import_module(f"bench.{name}")
    finally:
        sys.path.remove(str(ROOT))


figures = bench("figures")
report = bench("report")


def figure(contender: str, *values: float, setting: str = "rows", unit: str = "ns") -> Any:
    """What this contender needed."""
    return figures.Figure(contender, setting, unit, values)


def results(*targets: Any, missing: tuple[str, ...] = ()) -> Any:
    """A run of one case with two contenders."""
    outcome = figures.Outcome(
        [figure("playerstate", 2.0, 2.0), figure("deque", 8.0, 8.0)],
        targets,
        missing,
        ["a word on it"],
    )
    return report.Results(["one machine"], {"hand-over": outcome}, {}, False)


class FigureTests(SynchronousTestCase):
    """Medians, spreads and ratios."""

    def test_median_and_quartiles(self) -> None:
        """The spread of many rounds is that of their middle half."""
        found = figure("a", 5.0, 1.0, 2.0, 3.0, 100.0)
        self.assertEqual(found.median, 3.0)
        self.assertEqual(found.spread, (2.0, 5.0))

    def test_few_rounds(self) -> None:
        """The spread of few rounds is all of them."""
        self.assertEqual(figure("a", 5.0, 1.0).spread, (1.0, 5.0))

    def test_ratio_of_times(self) -> None:
        """Of times, the shorter is better."""
        self.assertEqual(figures.times_better(figure("a", 2.0), figure("b", 8.0)), 4.0)

    def test_ratio_of_rates(self) -> None:
        """Of rates, the higher is better."""
        ours, rival = figure("a", 2.0, unit="rows/s"), figure("b", 8.0, unit="rows/s")
        self.assertEqual(figures.times_better(ours, rival), 0.25)

    def test_ratio_by_rounds(self) -> None:
        """A round that was disturbed for both sides leaves the ratio as it is."""
        ours, rival = figure("a", 1.0, 50.0, 1.0), figure("b", 4.0, 200.0, 4.0)
        self.assertEqual(figures.times_better(ours, rival), 4.0)

    def test_ratio_of_what_is_missing(self) -> None:
        """There is no ratio to a rival that was not run."""
        self.assertIsNone(figures.ratio([figure("playerstate", 1.0)], "culsans put", "rows"))

    def test_number(self) -> None:
        """Three digits count."""
        shown = [figures.number(value) for value in (0.0, 0.01234, 0.5, 2.756, 27.56, 275.6, 1e6)]
        self.assertEqual(shown, ["0", "0.0123", "0.50", "2.76", "27.6", "276", "1,000,000"])


class TargetTests(SynchronousTestCase):
    """Whether a target is reached, and by how much not."""

    def test_reached(self) -> None:
        """A limit counts as reached, from either side."""
        self.assertTrue(figures.Target("a", 9.0, 9.0).is_reached)
        self.assertTrue(figures.Target("a", 9.0, 9.0, at_least=True).is_reached)
        self.assertEqual(figures.Target("a", 9.0, 9.0).verdict, "reached")

    def test_goal(self) -> None:
        """What is beyond the limit is told."""
        self.assertEqual(figures.Target("a", 2.0, 9.0, goal=2.76).verdict, "reached, and the goal")
        self.assertEqual(figures.Target("a", 3.0, 9.0, goal=2.76).verdict, "reached")

    def test_missed(self) -> None:
        """A miss is told as a part of the limit."""
        self.assertEqual(figures.Target("a", 12.0, 8.0).verdict, "missed by 50%")
        self.assertEqual(figures.Target("a", 2.0, 8.0, at_least=True).verdict, "missed by 75%")
        self.assertEqual(figures.Target("a", 3.0, 0.0, unit="ms").verdict, "missed by 3.00 ms")

    def test_not_measured(self) -> None:
        """What was not measured is not reached, and says so."""
        target = figures.Target("a", None, 8.0)
        self.assertFalse(target.is_reached)
        self.assertEqual(target.verdict, "not measured")


class RoundTests(SynchronousTestCase):
    """Taking turns."""

    def interleaved(self, costs: dict[str, float], seconds: float) -> tuple[dict[str, Any], str]:
        """Contenders that take so long a turn; what they got, and the order they came in."""
        now, order = 0.0, ""

        def measure(name: str) -> float:
            nonlocal now, order
            now += costs[name]
            order += name
            return costs[name]

        found = bench("rounds").interleave(
            {name: lambda name=name: measure(name) for name in costs},
            seconds,
            most=4,
            clock=lambda: now,
        )
        return found, order

    def test_in_turn(self) -> None:
        """Each has a turn before any has the next."""
        found, order = self.interleaved({"a": 1.0, "b": 1.0}, 100.0)
        self.assertEqual(order, "abababab")
        self.assertEqual(found, {"a": [1.0] * 4, "b": [1.0] * 4})

    def test_slow_one_sits_out(self) -> None:
        """One that has used up its share no longer keeps the other waiting."""
        _, order = self.interleaved({"a": 1.0, "b": 10.0}, 20.0)
        self.assertEqual(order, "abaaa")

    def test_no_time(self) -> None:
        """Each is measured once, whatever it takes."""
        _, order = self.interleaved({"a": 1.0, "b": 1.0}, 0.0)
        self.assertEqual(order, "ab")


class ReportTests(SynchronousTestCase):
    """What is printed and written."""

    def test_ratio_beside_the_rival(self) -> None:
        """A rival's line says how many times better ours is."""
        found = report.text("hand-over", results().outcomes["hand-over"])
        self.assertRegex(found, r"deque +8\.00 ns .* 4\.00 x")
        self.assertIn("note: a word on it", found)

    def test_missing_rival_is_named(self) -> None:
        """A rival that is not installed is named, with what installs it."""
        lacking = ("culsans is not installed: pip install culsans",)
        found = results(missing=lacking)
        self.assertIn(
            f"missing: {lacking[0]}", report.text("hand-over", found.outcomes["hand-over"])
        )
        self.assertIn(lacking[0], report.markdown(found))

    def test_summary(self) -> None:
        """The end tells how many targets are reached, and each that is not."""
        missed, reached = figures.Target("too slow", 2.0, 1.0), figures.Target("fine", 1.0, 2.0)
        found = report.summary(results(missed, reached)).splitlines()
        self.assertEqual(found[0], "1 of 2 targets reached")
        self.assertEqual(len(found), 2)
        self.assertIn("too slow", found[1])

    def test_markdown_replaces_its_part(self) -> None:
        """Only what stands between the markers is written anew."""
        page = f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\nAfter.\n"
        found = report.replaced(page, report.markdown(results()))
        self.assertNotIn("old", found)
        self.assertTrue(found.startswith("# Before\n"))
        self.assertTrue(found.endswith("\n\nAfter.\n"))
        self.assertEqual(report.replaced(found, report.markdown(results())), found)

    def test_page_has_the_part(self) -> None:
        """The page of the documentation has the markers, once each."""
        page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
        self.assertEqual((page.count(report.BEGIN), page.count(report.END)), (1, 1))

    def test_json(self) -> None:
        """An outcome goes through JSON's plain values and comes back."""
        outcome = results(figures.Target("a", 1.0, 2.0)).outcomes["hand-over"]
        self.assertEqual(figures.Outcome.from_json(outcome.to_json()), outcome)


class ArgumentTests(SynchronousTestCase):
    """The command line."""

    def setUp(self) -> None:
        """Find the parser."""
        self.parse = bench("arguments").parse

    def test_all_cases(self) -> None:
        """Without names all cases are run, in full."""
        found = self.parse([])
        self.assertEqual(found.cases, tuple(bench("cases").CASES))
        self.assertFalse(found.quick)

    def test_some(self) -> None:
        """Named cases are run, in their own order, and the rest is told as asked for."""
        found = self.parse(["udp", "flush", "--quick", "--json", "-", "--plot", "charts"])
        self.assertEqual(found.cases, ("flush", "udp"))
        self.assertEqual((found.quick, found.json, found.plot), (True, "-", "charts"))

    def test_unknown_case(self) -> None:
        """A case that there is not ends it, with those that there are."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit):
            self.parse(["flushes"])
        self.assertIn("there is no case flushes; there are hand-over, flush,", said.getvalue())

    def test_cases_have_modules(self) -> None:
        """Each case names a module that is there."""
        for case in bench("cases").CASES.values():
            self.assertTrue((ROOT / (case.module.replace(".", "/") + ".py")).is_file(), case)


class RivalTests(SynchronousTestCase):
    """Which rivals are there."""

    def setUp(self) -> None:
        """Find the module."""
        self.rivals = bench("rivals")

    def test_missing(self) -> None:
        """A package that is not installed is named with its command; one that is, is not."""
        self.patch(self.rivals, "REMEDIES", {"no_such_rival": "pip install it", "json": "never"})
        found = self.rivals.missing("no_such_rival", "json")
        self.assertEqual(found, ["no_such_rival is not installed: pip install it"])
        self.assertFalse(self.rivals.has("no_such_rival"))
        self.assertTrue(self.rivals.has("json"))

    def test_compiler(self) -> None:
        """Without a compiler, or the header, the remedy is told."""
        self.patch(self.rivals, "find_compiler", lambda: None)
        self.assertIn("there is no cc", self.rivals.missing_for_c()[0])
        self.patch(self.rivals, "find_compiler", lambda: "cc")
        self.patch(self.rivals, "HEADERS", ())
        self.assertIn("apt-get install libsqlite3-dev", self.rivals.missing_for_c()[0])


class AgeTests(SynchronousTestCase):
    """How old updates are when they are committed."""

    def test_ages(self) -> None:
        """A commit holds each player's moves since the last, the superseded ones too."""
        recorded = bench("recorded")
        sent_at = np.zeros((5, 3))
        sent_at[:, 1] = [math.nan, 1.0, 2.0, 3.0, 4.0]
        sent_at[:, 2] = [math.nan, 1.5, 2.5, 3.5, 4.5]
        commits = [
            recorded.Committed(4.0, np.array([1, 2]), np.array([2, 1])),
            recorded.Committed(5.0, np.array([1]), np.array([4])),
        ]
        found = sorted(recorded.ages(commits, sent_at, 1).tolist())
        self.assertEqual(found, [1.0, 2.0, 2.0, 2.5, 3.0])

    def test_first(self) -> None:
        """Moves before the first that counts do not count; nor do rows that came twice."""
        recorded = bench("recorded")
        sent_at = np.array([[math.nan] * 2, [0.0, 1.0], [0.0, 2.0]])
        commit = recorded.Committed(4.0, np.array([1]), np.array([2]))
        self.assertEqual(recorded.ages([commit, commit], sent_at, 2).tolist(), [2.0])


class TickTests(SynchronousTestCase):
    """How late a tick of the reactor is."""

    def test_late(self) -> None:
        """Each tick is as late as the reactor stood still, the one that is due now included."""
        clock, module = Clock(), bench("ticks")
        self.patch(module.time, "monotonic", clock.seconds)
        ticks = module.Ticks(clock)
        clock.advance(5.0)  # not counted
        ticks.begin()
        for seconds in (0.001, 0.251):
            clock.advance(seconds)
        clock.rightNow += 0.501
        found = ticks.end()
        self.assertEqual([round(late, 6) for late in found], [0.0, 0.25, 0.5])
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        ticks.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class RowTests(SynchronousTestCase):
    """What the contenders are given."""

    def test_same_players(self) -> None:
        """All players are in it, in an order that no sorting gives, and all of them move."""
        rows = bench("ours").Rows(100)
        before = rows.tuples()
        rows.change()
        after = rows.tuples()
        ids = [row[0] for row in after]
        self.assertEqual(sorted(ids), list(range(1, 101)))
        self.assertNotEqual(ids, sorted(ids))
        for old, new in zip(before, after, strict=True):
            self.assertGreater(new[3], old[3])
            self.assertNotEqual(new[1:3], old[1:3])

    def test_statement(self) -> None:
        """The statement that all contenders run fits the table that ours makes."""
        ours = bench("ours")
        store = ours.new_database(self.mktemp())
        self.addCleanup(store.close)
        import apsw

        connection = apsw.Connection(store.path)
        self.addCleanup(connection.close)
        sql = bench("upsert").SQL
        for x, updated_at in ((1.0, 5), (2.0, 4), (3.0, 6)):
            connection.execute(sql, (7, x, 0.0, updated_at))
        rows = list(connection.execute("SELECT session_id, x, updated_at FROM player_state"))
        self.assertEqual(rows, [(7, 3.0, 6)])

    def test_datagrams(self) -> None:
        """A datagram of the sender is the session id, the nonce and a MOVE."""
        datagrams, ours = bench("datagrams"), bench("ours")
        from playerstate.wire.messages import Codec

        data = datagrams.moves(2)
        data["sequence"], data["x"], data["y"] = 9, 1.0, 2.0
        codec = Codec(ours.SCHEMA)
        for index, move in enumerate(data):
            found = move.tobytes()
            self.assertEqual(int.from_bytes(found[:8], "little"), index + 1)
            self.assertEqual(int.from_bytes(found[8:12], "little"), index + 1)
            self.assertEqual(codec.decode_move(found, 12), (9, (1.0, 2.0)))

    def test_forgeries(self) -> None:
        """Forged requests are unsealed up to the rate and refused beyond it; none has an effect."""
        forged = bench("forged")
        self.patch(forged, "COUNT", 3)
        found = forged.Forgeries()
        found.beyond_the_rate()
        found.unsealed()
        found.unsealing_alone()
        self.assertEqual(set(found._server.tally.ignored), {"unseal_failed", "request_rate"})

    def test_controls(self) -> None:
        """A datagram can say where it goes and whence it comes, and is sent as it lies there."""
        datagrams = bench("datagrams")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(PATIENCE)
            clients = bench("netcode_clients").NetcodeClients(server.getsockname(), 2)
            self.addCleanup(clients.socket.close)
            load = datagrams.Datagrams(
                np.frombuffer(b"onetwo", np.uint8), [3, 3], clients._to, clients._controls
            )
            self.assertEqual(load.send(clients.socket, 0, 2), 2)
            port = clients.socket.getsockname()[1]
            self.assertEqual(server.recvfrom(10), (b"one", ("127.1.0.1", port)))
            self.assertEqual(server.recvfrom(10), (b"two", ("127.1.0.2", port)))


class ProgramTests(SynchronousTestCase):
    """The program that changes players, and the players who are told of it."""

    def setUp(self) -> None:
        """A server with a program, and players who have joined it."""
        self.ours, self.sender = bench("ours"), bench("udp_sender")
        from playerstate import Gateway
        from playerstate.testing import SteppedService
        from playerstate.transports.plain import PlainService

        self.stepped = stepped = SteppedService(self.ours.Hero)
        gateway = Gateway(stepped.service, idle_timeout=3600.0, jitter=lambda: 0.5)
        PlainService(gateway, 7777, reactor=stepped.reactor).startService()
        self.port = stepped.reactor.ports[7777]
        self.addCleanup(self.port.stopListening)
        self.program = bench("program").Program(stepped.reactor, stepped.service, 200)
        self.walkers = self.sender.Walkers(200, self.ours.HERO_SCHEMA)
        codec = self.walkers._codec
        for player in range(1, 201):
            self.receive(self.sender._HEAD.pack(player, player) + codec.encode_join(player, 0))

    def receive(self, datagram: bytes) -> None:
        """A datagram arrives at the server."""
        self.port.receive(datagram, ("127.0.0.1", 5000))

    def send(self) -> None:
        """Every player moves."""
        for move in self.walkers.data:
            self.receive(move.tobytes())

    def test_share(self) -> None:
        """So many are changed a second, half of them moved, and all again before one twice."""
        self.program.start()
        for _ in range(20):
            self.stepped.reactor.advance(0.05)
        self.assertEqual(self.program.changes, 2)
        for _ in range(100 * 20):
            self.stepped.reactor.advance(0.05)
        self.program.stop()
        self.assertEqual(self.program.changes, 202)
        service = self.stepped.service
        hurt = sum(service.state(player).hp != 100 for player in range(1, 201))
        moved = sum(service.state(player).x != 350.0 for player in range(1, 201))
        self.assertApproximates(hurt, 100, 3)
        self.assertApproximates(moved, 100, 3)

    def test_rest(self) -> None:
        """What falls into a rest is not made up for."""
        for _ in range(2):
            self.program.start()
            for _ in range(20):
                self.stepped.reactor.advance(0.05)
            self.program.stop()
            self.stepped.reactor.advance(100.0)
        self.assertEqual(self.program.changes, 4)

    def test_told(self) -> None:
        """A player who was moved goes on from there once the STATE is answered."""
        service = self.stepped.service
        self.send()
        service.change(7, x=1.0, y=2.0)
        self.walkers.next_round()
        self.send()
        self.assertEqual(service.ledger.rejected, {"not_seen": 1})
        self.stepped.reactor.advance(0.1)
        answers = [self.walkers.answer(datagram, 200) for datagram, _ in self.port.take()]
        [seen] = [answer for answer in answers if answer]
        self.receive(seen)
        self.walkers.next_round()
        self.send()
        self.assertEqual(service.state(7), self.ours.Hero(1.0, 2.0, 100))
        self.assertEqual((service.progress(7).applied, service.ledger.stale), (3, 0))

    def test_not_sent_yet(self) -> None:
        """Who has not sent the move of this round answers with the last round's."""
        self.send()
        self.stepped.service.change(7, hp=50)
        self.walkers.next_round()
        self.stepped.reactor.advance(0.1)
        states = [datagram for datagram, _ in self.port.take() if datagram[12] == 0x85]
        [of_six, of_seven] = [self.walkers.answer(states[0], sent) for sent in (6, 7)]
        codec = self.walkers._codec
        self.assertEqual(codec.decode_seen(of_six, 12).sequence, 1)
        self.assertEqual(codec.decode_seen(of_seven, 12).sequence, 2)
