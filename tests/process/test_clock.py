"""A wall clock that steps, under a real server: nothing stands still, and nothing is refused.

``libfaketime`` answers a server's questions for the time of day from a file that the test rewrites;
monotonic clocks are left alone, as a step of the real clock leaves them.
"""

from __future__ import annotations

import glob
import os
import random
import signal
import time

import apsw
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate.wire.messages import Gone, GoneReason
from tests.kit.crash_load import Crowd, Process

PLACES = "/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1"
HOUR = 3600
YEAR = 365 * 24 * HOUR
SAVE_WITHIN = 0.5
SLACK = 10.0
"""Seconds that may pass beyond what is promised: the persist thread's beat, and a busy machine."""


class SteppingClockTests(SynchronousTestCase):
    """The wall clock goes back an hour and forward a year."""

    def setUp(self) -> None:
        """An empty directory, and a clock that can be set."""
        found = [path for place in PLACES for path in glob.glob(place)]
        if not found:
            raise SkipTest("libfaketime is not installed")
        self.library = found[0]
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.set_clock(0)

    def set_clock(self, seconds: int) -> None:
        """Step the server's wall clock to so many seconds from the real one."""
        self.offset = seconds
        path = f"{self.directory}/clock"
        with open(f"{path}.new", "w") as file:
            file.write(f"{seconds:+d}\n")
        os.replace(f"{path}.new", path)

    def serve(self, *options: str) -> Process:
        """A server under that clock."""
        server = Process(
            self.directory,
            "--save-within",
            str(SAVE_WITHIN),
            *options,
            environment={
                "LD_PRELOAD": self.library,
                "FAKETIME_TIMESTAMP_FILE": f"{self.directory}/clock",
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )
        self.addCleanup(server.kill)
        return server

    def crowd(self, server: Process, players: int = 5) -> Crowd:
        """Players on that server."""
        crowd = Crowd(players, random.Random(3))
        self.addCleanup(crowd.close)
        crowd.connect(server.listening())
        self.assertEqual(crowd.join(), [])
        return crowd

    def updated_at(self) -> dict[int, int]:
        """When each player in the database last changed."""
        connection = apsw.Connection(
            f"{self.directory}/players.db", flags=apsw.SQLITE_OPEN_READONLY
        )
        try:
            return dict(connection.execute("SELECT session_id, updated_at FROM player_state"))
        finally:
            connection.close()

    def saved_in_time(self, crowd: Crowd, server: Process) -> None:
        """Everybody moves once more, and is told in time that it is applied and saved."""
        begin = time.monotonic()
        crowd.play(0.1, rest=0.01)
        wanted = dict(crowd.sequence)
        while crowd.applied != wanted:
            self.assertLess(time.monotonic() - begin, SLACK, server.output)
            crowd.listen()
            time.sleep(0.01)
        while crowd.saved != wanted:
            self.assertLess(time.monotonic() - begin, SAVE_WITHIN + SLACK, server.output)
            crowd.listen()
            time.sleep(0.01)

    def test_saves_and_receipts(self) -> None:
        """Moves are applied, told and saved in time whatever the clock does, and never refused."""
        server = self.serve()
        crowd = self.crowd(server)
        self.saved_in_time(crowd, server)
        before = self.updated_at()
        for step in (-HOUR, YEAR, 0):
            self.set_clock(step)
            self.saved_in_time(crowd, server)
            after = self.updated_at()
            for session_id in crowd.session_ids:
                self.assertGreater(after[session_id], before[session_id], f"step {step}")
            before = after
        # The clock was believed when it went on: it is the server's that steps, not the test's.
        self.assertGreater(max(before.values()) / 1e6, time.time() + YEAR / 2)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.ended(), -signal.SIGTERM)
        self.assertIn("0 malformed, 0 rejected", server.output)
        self.assertIn(" 0 pending", server.output)
        self.assertNotIn("newer state", server.output)
        # A server that starts in the past of its rows goes on above them.
        self.set_clock(-HOUR)
        server = self.serve()
        crowd.connect(server.listening())
        self.assertEqual(crowd.join(), [])
        self.saved_in_time(crowd, server)
        for session_id, updated_at in self.updated_at().items():
            self.assertGreater(updated_at, before[session_id])

    def test_time_outs(self) -> None:
        """One who is silent has left after the time-out, not sooner and not later."""
        for step in (-HOUR, YEAR):
            self.set_clock(0)
            server = self.serve("--idle-timeout", "2", "--store", f"sqlite:{step}.db")
            crowd = self.crowd(server, players=1)
            crowd.play(0.1, rest=0.01)
            begin = time.monotonic()
            time.sleep(0.5)
            self.set_clock(step)
            gone = None
            while gone is None:
                self.assertLess(time.monotonic() - begin, 2.0 + 1.0 + SLACK, f"step {step}")
                time.sleep(0.02)
                for answer in crowd.answers(1):
                    if isinstance(answer, Gone):
                        gone = answer
            self.assertEqual(gone.reason, GoneReason.IDLE)
            self.assertGreater(time.monotonic() - begin, 1.5, f"step {step}")
            server.signal(signal.SIGTERM)
            self.assertEqual(server.ended(), -signal.SIGTERM)

    def test_killed_between_steps(self) -> None:
        """What a run in the future left is recovered by a run in the past, and grows on."""
        self.set_clock(YEAR)
        server = self.serve("--save-within", "60")
        crowd = self.crowd(server)
        crowd.play(0.3, rest=0.01)
        server.kill()
        crowd.listen()
        self.set_clock(-HOUR)
        server = self.serve()
        crowd.connect(server.listening())
        self.assertEqual(crowd.join(), [])
        self.assertIn("did not stop cleanly", server.output)
        before = self.updated_at()
        self.saved_in_time(crowd, server)
        for session_id, updated_at in self.updated_at().items():
            self.assertGreater(updated_at, before[session_id])
