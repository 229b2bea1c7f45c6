"""A real Prometheus watches real servers: figures to the unit, and an alert for each fault.

`PLAYERSTATE_WATCHED_SECONDS` says for how long the servers are watched before anything is wrong,
and `PLAYERSTATE_WATCHED_PLAYERS` how many players of one of them move twenty times a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import apsw
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.kit.crash_load import Process
from tests.kit.deploy import DEPLOY, queries
from tests.kit.prometheus import SCRAPE_EVERY, Prometheus, found, plain
from tests.kit.throng import Throng

SECONDS = int(os.environ.get("PLAYERSTATE_WATCHED_SECONDS", "10"))
PLAYERS = int(os.environ.get("PLAYERSTATE_WATCHED_PLAYERS", "200"))
SAVE_WITHIN = 2
FIRES_WITHIN = 90.0
"""Seconds from a fault to its alert; the slowest rule waits for thirty."""
ROOM = 6 * 2**20
"""Bytes of the disk that is to be full."""
FLOOD = 60_000
"""Datagrams that are sent to a server that does not read."""

DIES = """
import os
from playerstate.stores.sqlite.writer import SQLiteWriter
write = SQLiteWriter.write
def dying(self, records):
    if os.path.exists("die"):
        os.unlink("die")
        raise SystemExit("out of memory, say")
    return write(self, records)
SQLiteWriter.write = dying
"""
"""Has the persist thread die once a file of this name is there."""

SUMMED = ("applied", "stale", "committed", "superseded")
"""Counters that are compared with what the log sums up."""


class Watched:
    """A server with players who move, as Prometheus knows it.

    Args:
        directory: where it runs.
        players: how many there are.
        options: of the server, beside its ports.
        others: see `Process`.
    """

    def __init__(self, directory: str, players: int, *options: str, **others: Any) -> None:
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        self.server = Process(
            *(directory, "--web", "tcp:0", "--log-json", "--save-within", str(SAVE_WITHIN)),
            *options,
            **others,
        )
        port = self.server.wait_for(r'answering http on 127\.0\.0\.1:(\d+)"')[1]
        self.instance = f"127.0.0.1:{port}"
        self.address = self.server.listening()
        self.throng = Throng(players)
        self._playing = threading.Thread(target=self._play, daemon=True)
        self._ended = threading.Event()
        self.throng.join(self.address)
        self._playing.start()

    def _play(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):  # the server is gone, or does not read
                self.throng.move(0.05)

    def rest(self) -> None:
        """The players stand still from now on."""
        self._ended.set()
        self._playing.join()

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.rest()
        self.throng.close()
        self.server.kill()


class AlertTests(SynchronousTestCase):
    """What an operator would see."""

    def setUp(self) -> None:
        """A directory; without Prometheus there is nothing to test."""
        found()
        self.directory = os.path.abspath(self.mktemp())

    def serve(self, name: str, players: int = 20, *options: str, **others: Any) -> Watched:
        """A server with players."""
        watched = Watched(os.path.join(self.directory, name), players, *options, **others)
        self.addCleanup(watched.close)
        return watched

    def watch(self, *servers: Watched) -> Prometheus:
        """A Prometheus that has scraped each of them often enough for the rates."""
        directory = os.path.join(self.directory, "prometheus")
        self.prometheus = Prometheus(directory, [server.instance for server in servers])
        self.addCleanup(self.prometheus.close)
        self.prometheus.wait_until(
            lambda: list(self.prometheus.query("count_over_time(up[1m]) > 4").values()),
            60.0,
            "not scraped",
        )
        return self.prometheus

    def netcode(self) -> tuple[tuple[str, ...], list[str]]:
        """Options of a server that listens with netcode, and the command of bots who play there."""
        key = os.path.join(self.directory, "key")
        os.makedirs(self.directory, exist_ok=True)
        playerstate = [sys.executable, "-m", "playerstate.cli"]
        subprocess.run([*playerstate, "key", key], check=True, stdout=subprocess.DEVNULL)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = ("--key-file", key, "--protocol-id", "0x1122")
        bots = [*playerstate, "simulate", "--netcode", "--to", f"127.0.0.1:{port}", *shared]
        return ("--listen", f"netcode:{port}", *shared), [*bots, "--players", "5", "--seconds", "4"]

    def test_quiet(self) -> None:
        """Under load no scrape fails and nothing fires, every query has an answer, and the
        counters agree with the ledger's summaries to the unit."""
        options, bots = self.netcode()
        server = self.serve("quiet", PLAYERS, *options)
        prometheus = self.watch(server)
        fired: set[tuple[str, str]] = set()
        begun = time.monotonic()
        playing = subprocess.Popen(bots, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        while time.monotonic() < begun + SECONDS:
            fired |= prometheus.alerts()
            time.sleep(0.5)
        self.assertEqual(playing.wait(60.0), 0)
        self.assertEqual(fired, set())
        self.assertEqual(prometheus.query("min_over_time(up[10m])"), {server.instance: 1.0})
        for query in queries():
            answer = prometheus.query(plain(query))
            # A rule, and errors by their kind, have no value while nothing is wrong.
            if not re.search(r" (>|==) |store_errors|ignored", query):
                self.assertEqual(set(answer), {server.instance}, query)
        server.rest()
        idle = "playerstate_updates_pending + playerstate_players_leaving == 0"
        prometheus.wait_until(lambda: prometheus.query(idle), 30.0, "never idle")
        time.sleep(2 * SCRAPE_EVERY)  # the scrape after the last change
        scraped = {
            name: prometheus.query(f"playerstate_updates_{name}_total")[server.instance]
            for name in SUMMED
        }
        server.server.signal(signal.SIGTERM)
        self.assertEqual(server.server.ended(), -signal.SIGTERM)
        lines = [json.loads(line) for line in server.server.output.splitlines()]
        sums = [line["fields"] for line in lines if "superseded" in line["fields"]]
        self.assertEqual({n: sum(fields[n] for fields in sums) for n in SUMMED}, scraped)
        self.assertGreater(scraped["applied"], PLAYERS * SECONDS)

    def test_faults(self) -> None:
        """Each rule fires for the server whose fault it is, and none for the one beside them."""
        full = os.path.join(self.directory, "full")
        self.mount(full)
        servers = {
            name: self.serve(name) for name in ("quiet", "down", "locked", "drops", "live", "full")
        }
        servers["thread"] = self.serve("thread", preexec=DIES)
        prometheus = self.watch(*servers.values())
        self.assertEqual(prometheus.alerts(), set())
        servers["down"].server.kill()
        locker = apsw.Connection(os.path.join(servers["locked"].directory, "players.db"))
        self.addCleanup(locker.close)
        locker.execute("BEGIN IMMEDIATE")
        with open(os.path.join(servers["thread"].directory, "die"), "wb"):
            pass
        os.unlink(os.path.join(servers["live"].directory, "players.db.live"))
        self.fill(full)
        self.flood(servers["drops"])
        expected = {
            ("PlayerstateServerDown", "down"),
            ("PlayerstateStoreLocked", "locked"),
            ("PlayerstatePromiseBroken", "locked"),
            ("PlayerstatePersistThreadDied", "thread"),
            ("PlayerstateLiveFileLost", "live"),
            ("PlayerstateDiskFull", "full"),
            ("PlayerstateKernelDrops", "drops"),
        }
        rules = (DEPLOY / "prometheus/playerstate.rules.yml").read_text("utf-8")
        self.assertEqual({name for name, _ in expected}, set(re.findall(r"- alert: (\w+)", rules)))
        names = {server.instance: name for name, server in servers.items()}
        fired: set[tuple[str, str]] = set()

        def all_fired() -> bool:
            fired.update((alert, names[instance]) for alert, instance in prometheus.alerts())
            return fired >= expected

        prometheus.wait_until(all_fired, FIRES_WITHIN, lambda: f"{expected - fired} did not fire")
        # Where a checkpoint makes room in the log, a full disk delays commits only.
        self.assertEqual(fired - {("PlayerstatePromiseBroken", "full")}, expected)

    def mount(self, directory: str) -> None:
        """A small disk of its own."""
        os.makedirs(directory)
        options = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", directory]
        if subprocess.run(options, capture_output=True).returncode:
            raise SkipTest("a disk that fills up can only be mounted by root")
        self.addCleanup(subprocess.run, ["umount", "-l", directory], check=True)

    def fill(self, directory: str) -> None:
        """Leave no room on a disk."""
        path = os.path.join(directory, "filler")
        with open(path, "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass

    def flood(self, watched: Watched) -> None:
        """Send a server more than its buffer holds, while it does not read."""
        watched.server.signal(signal.SIGSTOP)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for _ in range(FLOOD):
                    stranger.sendto(bytes(200), watched.address)
        finally:
            watched.server.signal(signal.SIGCONT)
