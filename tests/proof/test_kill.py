"""SIGKILL under load: whoever was told that a move is applied finds it applied."""

from __future__ import annotations

import os
import random
import signal
import time

import apsw
from twisted.trial.unittest import SynchronousTestCase

from playerstate.live.names import RECOVERING
from tests.kit.crash_load import Crowd, Process

KILLS = int(os.environ.get("PROOF_KILLS", "3"))
"""Times in a row that a server is killed."""
SEED = int(os.environ.get("PROOF_SEED", "20240229"))
PLAYERS = 60


class KillTests(SynchronousTestCase):
    """A real server under real load, killed at random moments, time and again."""

    def setUp(self) -> None:
        """An empty directory, and players."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.random = random.Random(SEED)
        self.crowd = Crowd(PLAYERS, self.random)
        self.addCleanup(self.crowd.close)

    def serve(self, *options: str) -> Process:
        """A server; it need not be listening yet."""
        server = Process(self.directory, *options)
        self.addCleanup(server.kill)
        return server

    def check(self, wrong: list[str], what: object, server: Process) -> None:
        """Fail with what tells how to see it again."""
        self.assertEqual(wrong, [], f"seed {SEED}, {what}: {server.output}")

    def rows(self) -> dict[int, tuple[float, float]]:
        """What the database holds."""
        connection = apsw.Connection(f"{self.directory}/players.db")
        try:
            self.assertEqual(connection.pragma("integrity_check"), "ok")
            rows = connection.execute("SELECT session_id, x, y FROM player_state")
            return {session_id: (x, y) for session_id, x, y in rows}
        finally:
            connection.close()

    def test_killed_in_a_row(self) -> None:
        """At each start everybody stands where they really were, and no earlier than they know."""
        recovered = 0
        for turn in range(KILLS):
            # The slow one leaves nearly everything to the live file, the fast one is often amid a
            # commit.
            options = ("--save-within", self.random.choice(("0.1", "0.5", "60")))
            what = f"kill {turn}, {options}"
            if turn % 3 == 2:
                self.kill_during_recovery(options)
            server = self.serve(*options)
            self.crowd.connect(server.listening())
            self.check(self.crowd.join(), what, server)
            recovered += "did not stop cleanly" in server.output
            told = self.crowd.told
            begin = time.monotonic()
            self.crowd.play(self.random.uniform(0.15, 0.6))
            while self.crowd.told == told and time.monotonic() - begin < 10.0:
                self.crowd.play(0.02)
            server.signal(signal.SIGKILL)
            server.kill()
            # What was sent before its death arrives all the same.
            self.crowd.listen()
            self.assertGreater(self.crowd.told, told, f"seed {SEED}, {what}: {server.output}")
        server = self.serve()
        self.crowd.connect(server.listening())
        self.check(self.crowd.join(), "the end", server)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.ended(), -signal.SIGTERM)
        # Else a start that was killed had done it already.
        self.assertGreaterEqual(recovered, KILLS // 3, f"seed {SEED}")
        # Everybody's restored state is what the database holds after a clean stop.
        places = {
            session_id: self.crowd.states[session_id][number]
            for session_id, number in self.crowd.applied.items()
        }
        self.assertEqual(self.rows(), places, f"seed {SEED}")
        self.assertEqual(
            [n for n in os.listdir(self.directory) if n.endswith(RECOVERING) or "live." in n], []
        )

    def kill_during_recovery(self, options: tuple[str, ...]) -> None:
        """Starts that end before they are done with what the last run left."""
        for delay in (None, self.random.uniform(0.0, 0.005)):
            server = self.serve(*options)
            if delay is None:
                # At any time from the start of the interpreter on.
                time.sleep(self.random.uniform(0.2, 0.9))
            else:
                server.wait_for("did not stop cleanly|listening on")
                time.sleep(delay)
            server.signal(signal.SIGKILL)
            server.kill()

    def test_stopped_in_vain(self) -> None:
        """Killed while it stops, beside a store that takes nothing, a server loses nothing."""
        server = self.serve("--save-within", "0.3")
        self.crowd.connect(server.listening())
        self.check(self.crowd.join(), "start", server)
        self.crowd.play(0.2)
        holder = apsw.Connection(f"{self.directory}/players.db")
        self.addCleanup(holder.close)
        holder.execute("BEGIN IMMEDIATE")
        self.crowd.play(0.5)
        server.wait_for("is busy")
        server.signal(signal.SIGTERM)
        server.wait_for("stopping: ")
        server.kill()
        self.crowd.listen()
        holder.execute("ROLLBACK")
        server = self.serve()
        self.crowd.connect(server.listening())
        self.check(self.crowd.join(), "again", server)
