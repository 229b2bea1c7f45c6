"""The ``playerstate`` command."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import unittest
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import apsw
import attrs
import click
import numpy as np
from click.testing import CliRunner, Result
from rich.cells import cell_len
from rich.console import Console
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from playerstate import PlayerState, StateSchema, open_store, text, within
from playerstate.cli import FIRST_ID, LAST_ID, crowd, main, outcome
from playerstate.cli.crowd import SLICE, Crowd, NoAnswer, Turns
from playerstate.cli.outcome import Bar, Outcome, spread_ms, tell
from playerstate.cli.replay import BadTracks, play, read_tracks
from playerstate.cli.simulate import stepper, visit_twice, walk_for
from playerstate.client import Client, Link, PlainLink, PlainPort
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import Stored
from playerstate.state.layout import RowLayout
from playerstate.stores.sqlite import files as sqlite_files
from playerstate.stores.sqlite.browser import SQLiteBrowser
from playerstate.testing import SteppedService
from playerstate.tokens import create_key
from playerstate.transports.plain import PlainService
from playerstate.wire.messages import (
    DELTA,
    MOVE,
    GoneReason,
    RefusedReason,
    encode_gone,
    encode_refused,
)
from tests.kit.arguments import commands, given, prepare
from tests.kit.databases import take
from tests.kit.processes import PATIENCE, Server

SERVER, CLIENT = ("127.0.0.1", 7777), ("127.0.0.1", 49_152)
TRACKS = Path(__file__).parents[4] / "shared" / "data" / "real-tracks.csv"
LONGEST = 20_000
"""Slices after which a test gives up: 80 s of the clock that moves when told."""


@attrs.frozen
class Avatar:
    """One field of each kind."""

    x: float = attrs.field(default=0.5, metadata=within(0, 1))
    hp: int = attrs.field(default=3, metadata=within(0, 3))
    alive: bool = True
    zone: str = attrs.field(default="spawn", metadata=text(8))


@attrs.frozen
class Walker:
    """Two coordinates on grids, one of a step that binary numbers do not have."""

    x: float = attrs.field(default=5.0, metadata=within(0, 100, resolution=1 / 64))
    y: float = attrs.field(default=5.0, metadata=within(0, 100, resolution=0.3))


WIDE = [f"f_{number}" for number in range(60)]
"""The fields of a class that no terminal has room for."""
_PLAIN: list[Any] = [-123456.789, 7, True, "A long name, of more than a column holds"]
Wide = attrs.make_class(
    "Wide",
    {
        name: attrs.field(
            default=_PLAIN[number % 4],
            type=type(_PLAIN[number % 4]),
            metadata=text(48) if number % 4 == 3 else {},
        )
        for number, name in enumerate(WIDE)
    },
    frozen=True,
)


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments, prog_name="playerstate")


class World:
    """A server and its players in one process, on a clock that moves when told.

    Args:
        players: how many.
        state: the state class.
        lost: whether a datagram gets lost.
        options: of the service.

    Attributes:
        saves: whether the persist thread gets on with its work.
        shown: what the crowd showed.
    """

    def __init__(
        self,
        players: int,
        state: type = PlayerState,
        lost: Callable[[bytes], bool] = lambda datagram: False,
        **options: Any,
    ) -> None:
        self.stepped = SteppedService(state, **options)
        self.schema = StateSchema.of(state)
        self.lost = lost
        self.saves = True
        self.shown: list[str] = []
        self.reactor = self.stepped.reactor
        gateway = Gateway(self.stepped.service, jitter=lambda: 0.5)
        PlainService(gateway, SERVER[1], reactor=self.reactor).startService()
        draw_nonce = partial(random.Random(1).getrandbits, 32)
        port = PlainPort(SERVER, self.reactor, self.reactor.seconds)
        lines: dict[int, Link] = {
            i: PlainLink(Client.of(self.schema, draw_nonce), port, i) for i in range(1, players + 1)
        }
        self.crowd = Crowd(lines, self.reactor, self.reactor.seconds, self._show)

    def _show(self, what: str, done: float, total: float) -> None:
        if self.shown[-1:] != [what]:
            self.shown.append(what)

    def close(self) -> None:
        """Close the ports."""
        for port in list(self.reactor.ports.values()):
            port.stopListening()

    def carry(self) -> None:
        """Bring what was sent to the other side."""
        for here, there in ((CLIENT, SERVER), (SERVER, CLIENT)):
            if here[1] not in self.reactor.ports:
                continue  # the players' port is open while somebody plays
            for datagram, _ in self.reactor.ports[here[1]].take():
                if there[1] in self.reactor.ports and not self.lost(datagram):
                    self.reactor.ports[there[1]].receive(datagram, here)

    def run(self, course: Coroutine[Deferred[Any], Any, Any]) -> Any:
        """Let time pass until the course has ended; its result, or the failure raised."""
        results: list[Any] = []
        running = Deferred.fromCoroutine(course)
        running.addBoth(results.append)
        for _ in range(LONGEST):
            if results:
                break
            self.reactor.advance(SLICE)
            if self.saves:
                self.stepped.settle()
            self.carry()
        [result] = results
        if isinstance(result, Outcome):
            return result
        result.raiseException()

    def visit(self, seconds: float = 1.0, rate: float = 20) -> Outcome:
        """Run the course of ``playerstate simulate``, at so many moves a second of each."""
        step = stepper(self.schema, random.Random(1))
        walk = partial(walk_for, seconds=seconds, moves_a_second=rate, step=step)
        found: Outcome = self.run(visit_twice(self.crowd, self.schema, walk))
        return found


class WorldTestCase(SynchronousTestCase):
    """Tests with a world."""

    def world(self, players: int, state: type = PlayerState, **options: Any) -> World:
        """A world that ends with the test."""
        world = World(players, state, **options)
        self.addCleanup(world.close)
        return world


class VisitTests(WorldTestCase):
    """Bots join, walk, leave, come back and leave again."""

    def test_all_is_well(self) -> None:
        """Everyone joins, moves at the rate, and comes back to where they left."""
        found = self.world(3).visit(seconds=2.0)
        numbers = found.numbers
        self.assertTrue(found.ok)
        self.assertEqual(found.status, 0)
        self.assertEqual((numbers["players"], numbers["joined"], numbers["mismatches"]), (3, 3, 0))
        self.assertApproximates(numbers["moves_sent"], 120, 3)
        self.assertEqual(numbers["applied_at_leave"], numbers["moves_sent"])
        self.assertEqual(numbers["lost_moves"], 0)
        self.assertGreater(numbers["receipts"], 3)

    def test_every_kind_of_field(self) -> None:
        """Any state class can walk, and is compared in full."""
        world = self.world(2, Avatar)
        self.assertTrue(world.visit().ok)
        self.assertNotEqual(world.stepped.store.load(1).values, attrs.astuple(Avatar()))

    def test_grid(self) -> None:
        """Where a field has a resolution, bots stand on its grid, whatever gets lost."""
        rng = random.Random(7)
        kinds = set()

        def lost(datagram: bytes) -> bool:
            kinds.add(datagram[12])
            return rng.random() < 0.1

        found = self.world(5, Walker, lost=lost).visit(seconds=3.0)
        self.assertEqual((found.troubles, found.numbers["lost_moves"]), ({}, 0))
        self.assertIn(DELTA, kinds)

    def test_shows_how_far(self) -> None:
        """The display is told what is being done."""
        world = self.world(1)
        world.visit()
        self.assertEqual(world.shown, ["joining", "walking", "leaving", "joining", "leaving"])

    def test_lossy_network(self) -> None:
        """However many datagrams get lost, no player is taken to have strayed."""
        rng = random.Random(7)
        world = self.world(10, lost=lambda datagram: rng.random() < 0.3)
        found = world.visit()
        self.assertEqual((found.troubles, found.numbers["lost_moves"]), ({}, 0))

    def test_stray(self) -> None:
        """A player who comes back to another place is named, with both places."""
        world = self.world(2)
        load = world.stepped.store.load

        def elsewhere(session_id: int) -> Stored | None:
            stored = load(session_id)
            return Stored((0.0, 1.5), 7) if stored and session_id == 2 else stored

        world.stepped.store.load = elsewhere
        found = world.visit()
        self.assertEqual(found.status, 1)
        self.assertEqual(found.numbers["mismatches"], 1)
        self.assertRegex(found.troubles[2], r"^came back to \(0\.0, 1\.5\), not to \(3")

    def test_full(self) -> None:
        """Who is refused is named, and the others play on."""
        found = self.world(3, max_players=2).visit()
        self.assertEqual(found.numbers["joined"], 2)
        self.assertEqual(found.troubles, {3: "was refused: the server is full"})

    def test_all_refused(self) -> None:
        """Where nobody gets in, nobody walks."""
        world = self.world(2)
        world.lost = lambda datagram: bool(datagram[12] < 0x80)
        for i in (1, 2):
            refused = encode_refused(0, RefusedReason.FINGERPRINT)
            world.crowd.clients[i]._draw_nonce = lambda: 0
            world.reactor.callLater(1.0, world.crowd.links[i].take, refused, 1.0)
        found = world.visit()
        self.assertEqual(found.numbers["seconds"], 0.0)
        self.assertIsNone(found.numbers["join_ms"])
        self.assertIn("another state class", found.troubles[1])

    def test_one_unanswered(self) -> None:
        """Who gets no answer while others do is named in the end."""
        world = self.world(2, lost=lambda datagram: datagram[0] == 2)
        self.assertEqual(world.visit().troubles, {2: "got no answer to its JOIN"})

    def test_no_server(self) -> None:
        """Where nothing is heard for some seconds there is no server."""
        world = self.world(2, lost=lambda datagram: True)
        with self.assertRaises(NoAnswer):
            world.visit()
        self.assertApproximates(world.reactor.seconds(), crowd.ANSWER_WITHIN, 0.1)

    def test_not_applied(self) -> None:
        """Who cannot get the last move applied is named."""
        world = self.world(1, lost=lambda datagram: datagram[12] == MOVE)
        found = world.visit()
        self.assertGreater(found.numbers["lost_moves"], 0)
        self.assertRegex(found.troubles[1], "its last move, [0-9]+, was not applied in time")

    def test_not_saved(self) -> None:
        """Who is not saved is named."""
        world = self.world(1)
        world.saves = False
        self.assertRegex(world.visit().troubles[1], "was not saved in time")

    def test_sent_away(self) -> None:
        """Who is sent away is named, with the reason; nobody left is no reason to walk on."""
        world = self.world(1)
        client = world.crowd.clients[1]

        def send_away(reason: int) -> None:
            message = encode_gone(client._nonce, GoneReason.KICKED)[:-1] + bytes([reason])
            world.crowd.links[1].take(message, world.reactor.seconds())

        world.reactor.callLater(0.5, send_away, 77)
        found = world.visit(seconds=30.0)
        self.assertEqual(found.troubles, {1: "was sent away: reason 77"})
        self.assertLess(found.numbers["seconds"], 1.0)

    def test_more_than_it_can_send(self) -> None:
        """Where the rate is not reached, the outcome says what was, and is not well."""
        self.patch(crowd, "MOST_A_SLICE", 1)
        found = self.world(2).visit(seconds=2.0, rate=200)
        self.assertEqual((found.troubles, found.numbers["moves_per_second_asked"]), ({}, 400.0))
        self.assertApproximates(found.numbers["moves_per_second"], 250, 5)
        self.assertIn("reached 250 of the 400 moves a second asked for", found.behind)
        self.assertEqual((found.ok, found.status), (False, 1))

    def test_held_up(self) -> None:
        """A process that is held up for a moment makes up for it."""
        world = self.world(2)
        world.reactor.callLater(1.0, world.reactor.advance, 0.5)
        found = world.visit(seconds=2.0)
        self.assertEqual((found.behind, found.ok), ("", True))

    def test_interrupted(self) -> None:
        """Cut short, the players leave, and what there is gets told."""
        world = self.world(2)
        world.reactor.callLater(0.5, setattr, world.crowd, "interrupted", True)
        found = world.visit(seconds=30.0)
        self.assertEqual((found.status, found.ok), (130, False))
        self.assertLess(world.reactor.seconds(), 2.0)
        self.assertGreater(found.numbers["applied_at_leave"], 0)
        self.assertEqual(found.numbers["lost_moves"], 0)
        self.assertEqual(len(world.stepped.service.table), 0)

    def test_interrupted_before_any_answer(self) -> None:
        """Cut short before a server was heard, there is nobody to leave."""
        world = self.world(2, lost=lambda datagram: True)
        world.reactor.callLater(0.1, setattr, world.crowd, "interrupted", True)
        self.assertEqual(world.visit().status, 130)
        self.assertLess(world.reactor.seconds(), 0.2)


class StepTests(SynchronousTestCase):
    """Where bots walk."""

    def test_stays_within_bounds(self) -> None:
        """Numbers walk within their bounds, bools flip, and texts change."""
        schema = StateSchema.of(Avatar)
        step = stepper(schema, random.Random(1))
        values, seen = schema.spawn, set()
        for _ in range(500):
            before, values = values, step(values)
            schema.accept(*values)
            self.assertNotEqual(values[2:], before[2:])
            seen.add(values[1])
        self.assertEqual(seen, {0, 1, 2, 3})


class TurnsTests(SynchronousTestCase):
    """Who has a turn when."""

    def test_evenly(self) -> None:
        """Turns come one by one, and begin anew after the last."""
        turns = Turns([7, 8], 1.0, 10.0)
        due = [turns.due(now) for now in (10.0, 10.5, 10.6, 11.0, 12.0)]
        self.assertEqual(due, [[], [7], [], [8], [7, 8]])

    def test_bounded(self) -> None:
        """Turns that were missed are made up for little by little."""
        turns = Turns([7], 0.001, 0.0)
        self.assertEqual(len(turns.due(1.0)), crowd.MOST_A_SLICE)
        self.assertEqual(len(turns.due(1.0)), crowd.MOST_A_SLICE)


class TracksTestCase(SynchronousTestCase):
    """Tests that write a file of tracks."""

    def tracks(self, *lines: str) -> Path:
        """The path of a file with these lines."""
        path = Path(self.mktemp())
        path.write_text("\n".join(lines), encoding="utf-8")
        return path


class ReadTracksTests(TracksTestCase):
    """What a file of tracks may hold."""

    def refused(self, *lines: str, state: type = Avatar) -> str:
        """What is wrong with a file, after its name."""
        path = self.tracks(*lines)
        with self.assertRaises(BadTracks) as caught:
            read_tracks(path, StateSchema.of(state))
        return caught.exception.message.removeprefix(str(path))

    def test_rows(self) -> None:
        """Rows become moves in order of time; a field without a column keeps its default."""
        schema = StateSchema.of(Avatar)
        path = self.tracks(
            "\ufefft,session_id,zone,alive,hp", "1.5,7,b,0,2", "", '0.5,8,"ö,",TRUE,1'
        )
        first, second = read_tracks(path, schema)
        self.assertEqual((first.at, first.session_id), (0.5, 8))
        self.assertEqual(schema.state(first.values), Avatar(0.5, 1, True, "ö,"))
        self.assertEqual(schema.state(second.values), Avatar(0.5, 2, False, "b"))

    def test_field_called_t(self) -> None:
        """The column ``t`` is the time, whatever the state class has."""
        schema = StateSchema.of(attrs.make_class("Timed", {"t": attrs.field(default=9, type=int)}))
        [move] = read_tracks(self.tracks("t,session_id", "0.5,1"), schema)
        self.assertEqual((move.at, move.values), (0.5, (9,)))

    def test_columns(self) -> None:
        """The first line must name the columns, each once, and no other."""
        self.assertIn("there is no session_id", self.refused(""))
        self.assertIn("there is no t", self.refused("session_id,x", "1,2"))
        self.assertIn("Avatar has no 'q', 'r'", self.refused("t,session_id,q,r", "0,1,2,3"))
        self.assertIn("a column is named twice", self.refused("t,session_id,x,x", "0,1,0,0"))

    def test_values(self) -> None:
        """A value that its field does not take is named with its line and column."""
        head = "t,session_id,x,hp,alive,zone"
        good = "0,1,0,0,1,a"
        for row, wrong in (
            ("0,1,abc,0,1,a", ", line 3: x = 'abc': must be a finite number from 0.0 to 1.0"),
            ("0,1,2,0,1,a", ", line 3: x = 2.0: must be a finite number from 0.0 to 1.0"),
            ("0,1,0,0.5,1,a", ", line 3: hp = '0.5': must be a whole number from 0 to 3"),
            ("0,1,0,0,yes,a", ", line 3: alive = 'yes': must be True or False"),
            ("0,1,0,0,1,too long a", ", line 3: zone = 'too long a': must be text of at most 8"),
            ("nan,1,0,0,1,a", ", line 3: t = 'nan': must be a finite number of seconds"),
            ("0,0,0,0,1,a", ", line 3: session_id = '0': must be from 1 to 2**63 - 1"),
            ("0,1,0", ", line 3: columns = 3: must be 6, as in the first line"),
        ):
            self.assertTrue(self.refused(head, good, row).startswith(wrong), row)

    def test_no_moves(self) -> None:
        """A file without a move is refused."""
        self.assertEqual(self.refused("t,session_id,x"), " has no moves")

    def test_no_text(self) -> None:
        """A file that is no UTF-8 is refused."""
        path = Path(self.mktemp())
        path.write_bytes(b"t,session_id\n\xff")
        with self.assertRaises(BadTracks):
            read_tracks(path, StateSchema.of(Avatar))


class PlayTests(TracksTestCase, WorldTestCase):
    """Recorded tracks, played."""

    lines = ("t,session_id,x,y", "10,1,1,1", "10.5,2,2,2", "11,1,3,-0.0")

    def play(self, world: World, speed: float = 1.0) -> Outcome:
        """Play three moves of two players, which take a second."""
        moves = read_tracks(self.tracks(*self.lines), world.schema)
        found: Outcome = world.run(play(world.crowd, moves, speed))
        return found

    def test_saved(self) -> None:
        """Every player ends at the last row, saved."""
        world = self.world(2)
        found = self.play(world)
        self.assertTrue(found.ok)
        self.assertEqual(
            found.numbers,
            {"players": 2, "moves": 3, "seconds": 1.0, "seconds_asked": 1.0, "saved": 2},
        )
        self.assertEqual(world.stepped.store.load(1).values, (3.0, 0.0))
        self.assertEqual(world.stepped.store.load(2).values, (2.0, 2.0))

    def test_speed(self) -> None:
        """Twice the speed takes half the time."""
        self.assertEqual(self.play(self.world(2), speed=2.0).numbers["seconds"], 0.5)

    def test_faster_than_it_can_send(self) -> None:
        """Where the speed is not reached, the outcome says which was, and is not well."""
        world = self.world(2)
        rows = [f"{number / 1000},{1 + number % 2},1,1" for number in range(1000)]
        moves = read_tracks(self.tracks("t,session_id,x,y", *rows), world.schema)
        self.patch(import_module("playerstate.cli.replay"), "MOST_A_SLICE", 1)
        found = world.run(play(world.crowd, moves, 2.0))
        self.assertEqual((found.numbers["seconds_asked"], found.numbers["seconds"]), (0.5, 4.0))
        self.assertIn("reached 0.25 times the recorded speed, of the 2.00 asked", found.behind)
        self.assertEqual((found.ok, found.status, found.numbers["saved"]), (False, 1, 2))

    def test_lossy_network(self) -> None:
        """However many datagrams get lost, the last move of each player is saved."""
        rng = random.Random(3)
        world = self.world(2, lost=lambda datagram: rng.random() < 0.3)
        self.assertEqual(self.play(world).numbers["saved"], 2)

    def test_refused(self) -> None:
        """A player who is refused is not saved; the other's moves are played."""
        found = self.play(self.world(2, max_players=1))
        self.assertEqual((found.numbers["moves"], found.numbers["saved"]), (2, 1))
        self.assertEqual(found.status, 1)

    def test_one_unanswered(self) -> None:
        """The moves of a player who gets no answer do not hold up the others'."""
        world = self.world(2, lost=lambda datagram: datagram[0] == 2)
        found = self.play(world)
        self.assertEqual(found.troubles, {2: "got no answer to its JOIN"})
        self.assertEqual(found.numbers["saved"], 1)

    def test_interrupted(self) -> None:
        """Cut short, the players leave, saved where they are."""
        world = self.world(2)
        world.reactor.callLater(0.5, setattr, world.crowd, "interrupted", True)
        found = self.play(world)
        self.assertEqual((found.status, found.numbers["saved"]), (130, 2))
        self.assertEqual(world.stepped.store.load(1).values, (1.0, 1.0))


class OutcomeTests(SynchronousTestCase):
    """How it is told."""

    def test_percentiles(self) -> None:
        """Percentiles are those of the nearest rank, without what was not measured."""
        seconds = [i / 1000 for i in range(200, 0, -1)]
        self.assertEqual(spread_ms([*seconds, None]), {"p50": 100.0, "p99": 198.0, "max": 200.0})
        self.assertIsNone(spread_ms([None]))

    def test_table(self) -> None:
        """People get a line for each number."""
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        numbers = {"moves_sent": 1200, "join_ms": {"p50": 1.5, "max": 2.0}, "leave_ms": None}
        tell(Outcome(numbers, {}, interrupted=False), as_json=False)
        self.assertEqual(
            [line.rstrip().split(maxsplit=2) for line in stdout.getvalue().splitlines()],
            [
                ["moves", "sent", "1,200"],
                ["join", "ms", "p50 1.5, max 2.0"],
                ["leave", "ms", "-"],
                ["ok", "yes"],
            ],
        )

    def test_troubles_are_bounded(self) -> None:
        """The first few in trouble are named, the others counted."""
        troubles = dict.fromkeys(range(1, 8), "was kicked")
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.patch(sys, "stdout", io.StringIO())
        tell(Outcome({}, troubles, interrupted=False), as_json=False)
        lines = stderr.getvalue().splitlines()
        self.assertEqual([lines[0], lines[-1]], ["player 1 was kicked", "and 2 more players"])
        self.assertEqual(len(lines), 6)

    def test_bar(self) -> None:
        """The bar shows what is being done, on a terminal."""
        drawn = io.StringIO()
        terminal = Console(file=drawn, force_terminal=True)
        self.patch(outcome, "Console", lambda stderr: terminal)
        with Bar() as bar:
            bar.show("walking", 1.0, 4.0)
            bar.show("leaving", 1.0, 4.0)
        self.assertIn("walking", drawn.getvalue())
        self.assertNotIn("leaving", drawn.getvalue())

    def test_no_terminal(self) -> None:
        """Elsewhere the bar prints nothing."""
        drawn = io.StringIO()
        self.patch(outcome, "Console", lambda stderr: Console(file=drawn))
        with Bar() as bar:
            bar.show("walking", 1.0, 4.0)
        self.assertEqual(drawn.getvalue(), "")


class OptionTests(SynchronousTestCase):
    """Options, and what is said of bad ones."""

    def refused(self, *arguments: str) -> str:
        """The one line that refuses them."""
        result = run(*arguments)
        self.assertEqual(result.exit_code, 2, result.output)
        [line] = result.stderr.splitlines()
        return line

    def test_help(self) -> None:
        """Every command has its help."""
        self.assertIn("simulate", run("--help").stdout)
        for command in ("simulate", "replay", "show"):
            self.assertIn(f"playerstate {command} [OPTIONS]", run(command, "--help").stdout)

    def test_version(self) -> None:
        """The version is that of the package."""
        try:
            installed = version("playerstate")
        except PackageNotFoundError:
            raise unittest.SkipTest("the package is not installed") from None
        self.assertEqual(run("--version").stdout, f"playerstate, version {installed}\n")

    def test_to(self) -> None:
        """An address is HOST:PORT."""
        for bad in ("here", ":1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1]"):
            self.assertIn("is not HOST:PORT", self.refused("simulate", "--to", bad))

    def test_to_nowhere(self) -> None:
        """A name that cannot be looked up is refused."""
        self.assertIn("no address found for '..'", self.refused("simulate", "--to", "..:1"))

    def test_state(self) -> None:
        """A state class that cannot be had is named."""
        self.assertIn("nowhere:Avatar", self.refused("simulate", "--state", "nowhere:Avatar"))

    def test_ids(self) -> None:
        """Session ids end somewhere."""
        line = self.refused("simulate", "--first-id", str(LAST_ID), "--players", "2")
        self.assertIn("only 1 ids follow", line)

    def test_numbers(self) -> None:
        """A number that is none, or is out of bounds, is told with its option and in one line."""
        for command in (
            ("simulate", "--rate"),
            ("simulate", "--seconds"),
            ("replay", __file__, "--speed"),
        ):
            for value in ("nan", "inf", "-inf", "-1", "0", "", "soon", "1e400"):
                with self.subTest(command=command, value=value):
                    line = self.refused(*command, value)
                    self.assertIn(f"Invalid value for '{command[-1]}': {value!r} is not a nu", line)
                    self.assertIn("above 0, and at most ", line)

    def test_every_parameter(self) -> None:
        """What nobody means is refused in one line that names it, and makes no file."""
        prepare()
        os.mkdir("dir")
        before = sorted(os.listdir())
        deep = "/".join(["y" * 200] * 25)
        files = ("dir", "/dev/null", "/dev/full", "x" * 300, deep, "")
        numbers = ("nan", "inf", "-1", "1e400", "9" * 30, "a\udcff")
        for command, parameters in commands():
            for tried in parameters:
                is_new_file = tried.name in ("path", "out")
                for value in (*files, *(() if is_new_file else numbers)):
                    with self.subTest(command=command, parameter=tried.name, value=value):
                        result = run(*command, *given(tried, parameters, value))
                        self.assertIsInstance(result.exception, SystemExit)
                        self.assertNotEqual(result.exit_code, 0, result.output)
                        [line] = result.stderr.splitlines()
                        self.assertTrue(line.startswith("Error: "), line)
                        if isinstance(tried.type, (click.IntRange, click.FloatRange)):
                            name = tried.opts[0] if isinstance(tried, click.Option) else "SESSION"
                            self.assertIn(name, line)
                            self.assertIn(f": {value!r} is not a ", line)
                            self.assertIn(f" {tried.type.max}.", line)
        self.assertEqual(sorted(os.listdir()), before)
        for device in ("/dev/null", "/dev/full"):
            self.assertEqual(os.stat(device).st_mode & 0o777, 0o666)

    def test_netcode(self) -> None:
        """netcode needs a key and a protocol id, and plain UDP has no use for them."""
        key = self.mktemp()
        create_key(key)
        for command in (["simulate"], ["replay", __file__]):
            for extra in ([], ["--key-file", key], ["--protocol-id", "1"]):
                self.assertIn(
                    "--netcode needs --key-file and --protocol-id",
                    self.refused(*command, "--netcode", *extra),
                )
                if extra:
                    self.assertIn("are of no use without --netcode", self.refused(*command, *extra))

    def test_key_file(self) -> None:
        """A key that cannot be used is told, with what makes one."""
        line = self.refused("simulate", "--netcode", "--key-file", "none", "--protocol-id", "1")
        self.assertIn("none: there is no such file; `playerstate key none` creates one", line)

    def test_protocol_id(self) -> None:
        """A protocol id has 64 bits."""
        line = self.refused("simulate", "--netcode", "--protocol-id", "0x10000000000000000")
        self.assertIn("must be a number of up to 64 bits", line)

    def test_no_such(self) -> None:
        """There is no other command and no other option."""
        self.assertEqual(self.refused("dance"), "Error: No such command 'dance'.")
        self.assertIn("No such option", self.refused("simulate", "--dance"))

    def test_bad_tracks(self) -> None:
        """A file that cannot be replayed is a wrong argument."""
        path = self.mktemp()
        Path(path).write_text("t,session_id,z\n0,1,2\n")
        self.assertIn("PlayerState has no 'z'", self.refused("replay", path))


class ShowTests(SynchronousTestCase):
    """A look into a store."""

    def store(self, players: int, state: type = PlayerState) -> str:
        """The URL of a store whose players changed one second, two seconds ago, and so on."""
        path = os.path.abspath(self.mktemp())
        url, schema = f"sqlite:{path}", StateSchema.of(state)
        store = open_store(url, schema)
        take(store)
        writer = store.open_writer()
        records = np.zeros(players, RowLayout(schema.fields).record)
        records[:] = (0, *schema.spawn, 0)
        records["session_id"] = np.arange(1, players + 1)
        if state is PlayerState:
            records["x"], records["y"] = 0.1, 0.0
        self.now = int(time.time()) * 1_000_000
        records["updated_at"] = self.now - records["session_id"] * 1_000_000
        writer.write(records)
        writer.close()
        store.close()
        return url

    def test_damaged(self) -> None:
        """A database whose pages are damaged is told of in one line."""
        url = self.store(500)
        path = url.partition(":")[2]
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
        result = run("show", url)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is damaged", result.output)
        self.assertNotIn("Traceback", result.output)

    def test_latest(self) -> None:
        """The latest hundred are shown, with how many there are."""
        lines = run("show", self.store(120)).stdout.splitlines()
        self.assertEqual(lines[0], "120 players, the latest 100 (more with --limit N or --all):")
        self.assertEqual(lines[1].split(), ["session_id", "x", "y", "updated_at", "age"])
        self.assertEqual(len(lines), 102)
        self.assertEqual([line.split()[0] for line in lines[2:4]], ["1", "2"])

    def test_all(self) -> None:
        """All are shown where all are asked for."""
        lines = run("show", self.store(120), "--all").stdout.splitlines()
        self.assertEqual((lines[0], len(lines)), ("120 players:", 122))

    def test_limit(self) -> None:
        """As many are shown as are asked for, and how many there are is said."""
        url = self.store(120)
        lines = run("show", url, "--limit", "3").stdout.splitlines()
        self.assertEqual(lines[0], "120 players, the latest 3 (more with --limit N or --all):")
        self.assertEqual([line.split()[0] for line in lines[2:]], ["1", "2", "3"])
        shown = json.loads(run("show", url, "--limit", "3", "--json").stdout)
        self.assertEqual([row["session_id"] for row in shown["rows"]], [1, 2, 3])
        both = run("show", url, "--limit", "3", "--all")
        self.assertEqual(both.stderr, "Error: --limit and --all: give one of them\n")

    def on_a_screen(self, *arguments: str) -> list[str]:
        """The lines of a command on a terminal of 80 columns and 24 lines, in which all fit."""
        self.patch(import_module("playerstate.cli.show"), "screen", lambda: (80, 24))
        lines = run("show", *arguments).stdout.splitlines()
        self.assertLessEqual(max(map(cell_len, lines)), 80)
        return lines

    def test_screen(self) -> None:
        """A terminal gets what fits it, with the prompt that follows."""
        lines = self.on_a_screen(self.store(120))
        self.assertEqual(len(lines), 23)
        self.assertIn("120 players, the latest 21 ", lines[0])

    def test_names_on_each_screen(self) -> None:
        """Of a table longer than the terminal, each screenful has the columns' names."""
        lines = self.on_a_screen(self.store(120), "--all")
        for start in range(len(lines) - 22):
            self.assertIn("session_id", " ".join(lines[start : start + 23]))
        self.assertEqual(len({line for line in lines if "session_id" in line}), 1)
        self.assertEqual(len([line for line in lines if line.rstrip().endswith(("s", "n"))]), 120)

    def test_wide(self) -> None:
        """Columns that do not fit are named, and what is there is whole."""
        lines = self.on_a_screen(self.store(50, Wide), "--limit", "9")
        shown = lines[1].split()
        self.assertEqual((shown[0], shown[-1]), ("session_id", "age"))
        self.assertEqual(shown[1:-1], WIDE[: len(shown) - 2])
        self.assertEqual(lines[2].split()[:2], ["1", "-123456.789"])
        hint = " ".join(lines[11:])
        for name in [*WIDE[len(shown) - 2 :], "updated_at"]:
            self.assertIn(f"{name},", hint.replace(".", ","))
        self.assertTrue(hint.startswith(f"{63 - len(shown)} columns do not fit: "), hint)
        self.assertIn("ID` shows one player in full, --json everything.", hint)

    def test_wide_in_full(self) -> None:
        """One player is a list of all fields."""
        lines = self.on_a_screen(self.store(50, Wide), "2")
        listed = dict(line.split(maxsplit=1) for line in lines)
        self.assertEqual(list(listed), ["session_id", *WIDE, "updated_at"])
        self.assertEqual(listed["f_0"], "-123456.789")
        self.assertEqual(listed["f_59"], "A long name, of more than a column holds")

    def test_piped_in_full(self) -> None:
        """What is no terminal gets all columns, and texts whole."""
        lines = run("show", self.store(2, Wide)).stdout.splitlines()
        self.assertEqual(lines[1].split(), ["session_id", *WIDE, "updated_at", "age"])
        self.assertIn("A long name, of more than a column holds", lines[2])

    def test_columns_of_others(self) -> None:
        """A column that somebody added, and a time beyond the calendar, are shown all the same."""
        url = self.store(2)
        with closing(apsw.Connection(url.partition(":")[2])) as connection:
            connection.execute("ALTER TABLE player_state ADD COLUMN face BLOB")
            connection.execute("UPDATE player_state SET face = x'c0ffee' WHERE session_id = 1")
            connection.execute(f"UPDATE player_state SET updated_at = {2**63 - 1}")
        self.assertIn(f"{2**63 - 1}", run("show", url, "1").stdout)
        self.assertIn("c0ffee", run("show", url).stdout)
        rows = json.loads(run("show", url, "--json").stdout)["rows"]
        self.assertEqual([row["face"] for row in rows], ["c0ffee", None])

    def test_ages(self) -> None:
        """Ages are told in the largest unit that fits, beside the date in UTC."""
        url = self.store(200_000)
        for session_id, age in ((2, "s"), (120, "2 min"), (7_200, "2 h"), (180_000, "2 d")):
            line = run("show", url, str(session_id)).stdout.splitlines()[-1]
            self.assertTrue(line.endswith(f"{age} ago"), line)
            moment = time.gmtime(self.now // 1_000_000 - session_id)
            self.assertIn(time.strftime("%Y-%m-%dT%H:%M:%SZ", moment), line)

    def test_json(self) -> None:
        """In JSON, nothing is rounded."""
        shown = json.loads(run("show", self.store(3), "2", "--json").stdout)
        row = {"session_id": 2, "x": 0.1, "y": 0.0, "updated_at": self.now - 2_000_000}
        self.assertEqual(shown, {"players": 3, "rows": [row]})

    def test_empty(self) -> None:
        """A store without players is no error."""
        result = run("show", self.store(0))
        self.assertEqual((result.exit_code, result.stdout), (0, "0 players\n"))

    def test_one_player(self) -> None:
        """One player is one player."""
        self.assertTrue(run("show", self.store(1)).stdout.startswith("1 player:\nsession_id  1\n"))

    def test_not_to_be_written(self) -> None:
        """A database that this user may only read is shown, and nothing is made beside it."""
        url = self.store(3)
        path = url.partition(":")[2]
        os.unlink(f"{path}.lock")
        os.mkdir("apart")
        os.rename(path, "apart/a?b#c %41.db")
        flags = []
        connect = sqlite_files.apsw.Connection
        self.patch(sqlite_files.os, "access", lambda path, mode: False)
        self.patch(
            sqlite_files.apsw,
            "Connection",
            lambda path, flags_=0, **named: flags.append(named["flags"]) or connect(path, **named),
        )
        with closing(SQLiteBrowser(os.path.abspath("apart/a?b#c %41.db"))) as browser:
            self.assertEqual(browser.count(), 3)
            self.assertEqual(os.listdir("apart"), ["a?b#c %41.db"])
        self.assertEqual([flag & apsw.SQLITE_OPEN_READWRITE for flag in flags], [0])

    def test_no_such_player(self) -> None:
        """A player whom the store does not hold is an error of one line."""
        result = run("show", self.store(1), "7")
        self.assertEqual(result.exit_code, 1)
        self.assertRegex(result.stderr, "^Error: sqlite:.* holds no player 7\n$")

    def test_no_store(self) -> None:
        """A file that is missing is an error of one line, and is not made."""
        path = os.path.abspath(self.mktemp())
        result = run("show", f"sqlite:{path}")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.stderr, f"Error: {path} does not exist\n")
        self.assertFalse(os.path.exists(path))


class ProcessTests(SynchronousTestCase):
    """The command in a process of its own, against a real server."""

    def setUp(self) -> None:
        """An empty directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def serve(self) -> str:
        """The address of a server that ends with the test."""
        server = Server(self.directory)
        self.addCleanup(server.kill)
        return "{}:{}".format(*server.address)

    def serve_netcode(self) -> list[str]:
        """The options for a server that listens with netcode, and ends with the test."""
        create_key(f"{self.directory}/key")
        known = ("--key-file", "key", "--protocol-id", "7")
        server = Server(self.directory, "--listen", "netcode:0", *known)
        self.addCleanup(server.kill)
        found = server.wait_for(r"listening on udp ([\d.]+:\d+), netcode")
        return ["--netcode", *known, "--to", found[1]]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A running command that ends with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "playerstate.cli", *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end; its status, and what it printed to stdout and to stderr."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stdout, stderr

    def test_simulate(self) -> None:
        """Bots come back to where they left, and the store holds them far from real players."""
        address = self.serve()
        status, stdout, stderr = self.command(
            "simulate", "--to", address, "--players", "20", "--seconds", "1", "--json"
        )
        self.assertEqual((status, stderr), (0, ""))
        found = json.loads(stdout)
        self.assertTrue(found["ok"])
        self.assertEqual((found["joined"], found["lost_moves"], found["mismatches"]), (20, 0, 0))
        shown = json.loads(run("show", f"sqlite:{self.directory}/players.db", "--json").stdout)
        self.assertEqual(
            sorted(row["session_id"] for row in shown["rows"]),
            list(range(FIRST_ID, FIRST_ID + 20)),
        )

    def test_simulate_netcode(self) -> None:
        """The same over netcode, though the server was started just now."""
        options = self.serve_netcode()
        status, stdout, stderr = self.command(
            "simulate", *options, "--players", "20", "--seconds", "1", "--json"
        )
        self.assertEqual((status, stderr), (0, ""))
        found = json.loads(stdout)
        self.assertTrue(found["ok"])
        self.assertEqual((found["joined"], found["lost_moves"], found["mismatches"]), (20, 0, 0))

    def test_replay_netcode(self) -> None:
        """So can tracks be played."""
        Path(self.directory, "tracks").write_text("t,session_id,x,y\n0,1,1,1\n0.5,2,2,2\n")
        status, stdout, stderr = self.command("replay", "tracks", *self.serve_netcode(), "--json")
        self.assertEqual((status, stderr), (0, ""))
        self.assertEqual(json.loads(stdout)["saved"], 2)

    def test_not_let_in(self) -> None:
        """Where a netcode server keeps silent, one line says what may be the reason."""
        options = self.serve_netcode()
        options[options.index("7")] = "8"
        status, stdout, stderr = self.command("simulate", *options)
        self.assertEqual((status, stdout, len(stderr.splitlines())), (1, "", 1))
        self.assertIn(f"Error: no server accepts players at {options[-1]}; it must have", stderr)

    def test_replay(self) -> None:
        """Real movement, played at eight times its speed, is saved to the last row."""
        if not TRACKS.exists():
            raise unittest.SkipTest("there are no recorded tracks beside the checkout")
        address = self.serve()
        status, stdout, stderr = self.command(
            "replay", str(TRACKS), "--to", address, "--speed", "8", "--json"
        )
        self.assertEqual((status, stderr), (0, ""))
        found = json.loads(stdout)
        self.assertEqual((found["moves"], found["saved"], found["ok"]), (6358, 22, True))
        last = {move.session_id: move for move in read_tracks(TRACKS, StateSchema.of(PlayerState))}
        shown = json.loads(run("show", f"sqlite:{self.directory}/players.db", "--json").stdout)
        self.assertEqual(
            {row["session_id"]: (row["x"], row["y"]) for row in shown["rows"]},
            {session_id: move.values for session_id, move in last.items()},
        )

    def test_no_server(self) -> None:
        """Where no server answers, one line says so, and what to do."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            status, stdout, stderr = self.command("simulate", "--to", address)
        self.assertEqual((status, stdout), (1, ""))
        self.assertEqual(
            stderr,
            f"Error: no server answers at {address}; start one with 'twistd playerstate', or name"
            " another with --to\n",
        )

    def test_interrupt(self) -> None:
        """Ctrl-C ends it with a summary and status 130."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(PATIENCE)
            address = f"127.0.0.1:{server.getsockname()[1]}"
            process = self.start("simulate", "--to", address)
            server.recv(2048)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, stderr.splitlines()[0]), (130, "interrupted"))
        self.assertRegex(stdout, r"(?m)^ *players +100 *$")

    def test_fault_of_ours(self) -> None:
        """A fault in the command itself is not hidden."""
        code = (
            "from playerstate.cli import crowd, main\n"
            "crowd.Crowd.online = lambda self: 1 / 0\n"
            "crowd.Crowd.join = lambda self, ids: crowd.deferLater(self._clock, 0.0)\n"
            "main(['simulate'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertIn("ZeroDivisionError", done.stderr)
