"""Recorded tracks: reading them, and playing them to a server."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from playerstate import StateSchema
from playerstate.cli.outcome import Outcome
from playerstate.cli.replay import BadTracks, play, read_tracks
from tests.kit.world import Avatar, World, WorldTestCase


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
