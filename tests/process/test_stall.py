"""Processes that are stopped and go on: what waited is read before anybody is taken for gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate.tokens import create_key, read_key
from playerstate.wire.messages import PING, Gone, Receipt, encode_numbered
from tests.kit.processes import PATIENCE, Player, Server
from tests.process.test_netcode import LIFETIME, PROTOCOL_ID, NetcodePlayer

IDLE = 2.0
"""The servers' idle timeout, in seconds, and that of the tokens."""
STOPPED = 3.5
"""Seconds for which a process is stopped: longer than either."""

CLIENT = """
import sys
from twisted.internet import reactor
from playerstate import PlayerState
from playerstate.client import Netcode, Plain, PlayerClient
from playerstate.tokens import connect_token, read_key

transport, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])

def get_token():
    return connect_token(42, key=read_key("key"), protocol_id=int(sys.argv[4]),
                         addresses=[f"{host}:{port}"], expires=int(sys.argv[5]), timeout=2)

def overruled(state):
    walk.cancel()
    print("overruled", state.x, state.y, flush=True)
    player.leave().addCallback(lambda _: reactor.stop())

def step():
    global walk
    walk = reactor.callLater(0.05, step)
    player.move(PlayerState(1.0, 2.0))
    if player.progress.saved and not told:
        told.append(1)
        print("saved", flush=True)

told, walk = [], None
way = Plain((host, port), 42) if transport == "plain" else Netcode(get_token)
player = PlayerClient(reactor, PlayerState, way, on_overruled=overruled)
player.join().addCallback(lambda _: step())
reactor.run()
print("left", player.progress.saved == player.progress.sent, flush=True)
"""


class StallTestCase(SynchronousTestCase):
    """Tests with a server that can be stopped, on both transports."""

    def setUp(self) -> None:
        """A server whose players are soon taken for gone."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        create_key(f"{self.directory}/key")
        self.server = Server(
            self.directory,
            *("--listen", "netcode:0", "--key-file", "key", "--protocol-id", hex(PROTOCOL_ID)),
            *("--max-token-lifetime", str(LIFETIME), "--idle-timeout", str(IDLE)),
            *("--save-within", "0.2"),
        )
        self.addCleanup(self.server.kill)
        found = self.server.wait_for(r"listening on udp ([\d.]+):(\d+), netcode")
        self.netcode = (found[1], int(found[2]))

    def resume(self) -> None:
        """Let the server go on, whatever came of the test."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGCONT)


class ServerTests(StallTestCase):
    """The server is stopped for longer than a player may be silent; its players go on."""

    def setUp(self) -> None:
        """A player on each transport, in the game."""
        super().setUp()
        key = read_key(f"{self.directory}/key")
        self.encrypted = NetcodePlayer(self.netcode, 42, key, timeout=int(IDLE))
        self.addCleanup(self.encrypted.close)
        self.encrypted.connect()  # which takes a while after the server's start
        self.plain = Player(self.server.address, 7)
        self.addCleanup(self.plain.close)
        self.plain.join()
        self.encrypted.join()
        # The server's end has the token's timeout; this one waits, as a patient client would.
        self.encrypted.client._timeout = 60

    def say(self, seconds: float) -> None:
        """Both players speak ten times a second."""
        for _ in range(round(seconds / 0.1)):
            self.plain.send(encode_numbered(PING, self.plain.sequence))
            self.encrypted.send(encode_numbered(PING, self.encrypted.sequence))
            self.encrypted.turn()
            time.sleep(0.08)

    def both_play_on(self) -> None:
        """The conversations of both stand, and the server has had time to end them."""
        self.say(1.0)
        for player in (self.plain, self.encrypted):
            player.sequence += 1
            player.send(player._codec.encode_move(player.sequence, (5.0, 6.0)))
        self.say(0.2)
        while not isinstance(answer := self.plain.answer(), Receipt) or not answer.applied:
            self.assertNotIsInstance(answer, Gone)
        self.encrypted.wait_for(Receipt, applied=1)
        self.assertEqual([a for a in self.encrypted.answers if isinstance(a, Gone)], [])
        self.server.stop()
        self.assertIn(" 0 timed out", "\n".join(self.server.lines))

    def test_stopped(self) -> None:
        """What the players said meanwhile waits in the sockets, and counts."""
        os.kill(self.server.pid, signal.SIGSTOP)
        self.addCleanup(self.resume)
        self.say(STOPPED)
        self.resume()
        self.both_play_on()

    def test_stopped_and_overflown(self) -> None:
        """So it is where the system dropped what they said, since others filled the buffers."""
        os.kill(self.server.pid, signal.SIGSTOP)
        self.addCleanup(self.resume)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            for address in (self.server.address, self.netcode):
                for _ in range(30_000):
                    flood.sendto(bytes(1000), address)
        self.say(STOPPED)
        for _, port in (self.server.address, self.netcode):
            self.assertGreater(_dropped(port), 30)
        self.resume()
        self.both_play_on()

    def test_gone_meanwhile(self) -> None:
        """Who really went while the server was stopped is let go of when it goes on."""
        os.kill(self.server.pid, signal.SIGSTOP)
        self.addCleanup(self.resume)
        time.sleep(STOPPED)
        self.resume()
        while not isinstance(answer := self.plain.answer(), Gone):
            pass
        self.assertEqual(answer.reason, 2)


class ClientTests(StallTestCase):
    """A client of ours is stopped for longer than the server waits, and moved from elsewhere."""

    def wakes(self, transport: str, address: tuple[str, int]) -> None:
        """It comes back by itself, and takes over what it did not know."""
        client = subprocess.Popen(
            [
                *(sys.executable, "-u", "-c", CLIENT, transport),
                *map(str, (*address, PROTOCOL_ID, LIFETIME)),
            ],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self._end, client)
        limit = threading.Timer(2 * PATIENCE, client.kill)  # ends what is waited for below
        limit.start()
        self.addCleanup(limit.cancel)
        assert client.stdout is not None
        self.assertEqual(client.stdout.readline(), "saved\n")
        client.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED)
        other = Player(self.server.address, 42)
        self.addCleanup(other.close)
        self.assertEqual(other.join().values, (1.0, 2.0))
        other.move(5.0, 6.0)
        other.leave()
        client.send_signal(signal.SIGCONT)
        self.assertEqual(client.stdout.readline(), "overruled 5.0 6.0\n")
        self.assertEqual(client.stdout.readline(), "left True\n")
        self.assertEqual(client.wait(PATIENCE), 0)
        self.assertEqual(other.join().values, (5.0, 6.0))

    def _end(self, client: subprocess.Popen[Any]) -> None:
        if client.poll() is None:
            client.kill()
        client.communicate(timeout=PATIENCE)

    def test_plain(self) -> None:
        """Over plain UDP."""
        self.wakes("plain", self.server.address)

    def test_netcode(self) -> None:
        """Over netcode."""
        self.wakes("netcode", self.netcode)


def _dropped(port: int) -> int:
    """Datagrams for a port of this machine that the system dropped."""
    try:
        with open("/proc/net/udp") as lines:
            rows = [line.split() for line in lines]
    except OSError:
        raise SkipTest("this system does not tell what it drops") from None
    return sum(int(row[-1]) for row in rows[1:] if row[1].endswith(f":{port:04X}"))
