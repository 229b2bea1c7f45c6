"""``python -m bench.flood``: the cost of a flood for the players online, and for new players.

A server, 500 honest players at 20 Hz, and a flooder that sends all it can, each a process, over
loopback only.  Meanwhile a new player tries to join four times a second, from 127.0.0.3.
Ctrl-C ends all of them.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

import attrs

from bench.children import child
from bench.counter import Counter
from bench.flooder import KINDS, REQUESTS
from bench.netcode_clients import KEY, PROTOCOL_ID
from bench.ours import SCHEMA
from bench.udp_server import NETCODE, OURS
from playerstate.tokens import connect_token
from playerstate.transports.netcode.client import Client, State
from playerstate.wire.messages import Codec

PLAYERS, HERTZ = 500, 20
PLACES = 100_000
LOGIN_EVERY, ASK_AGAIN, PATIENCE = 0.25, 0.2, 2.0
"""Seconds between two logins, between two datagrams of one, and until it has failed."""
NEW_ID = 9_000_000


@attrs.frozen
class Found:
    """What a flood has cost: datagrams lost, in percent; logins; MiB; seconds of the reactor."""

    lost: float
    logins: int
    asked: int
    grown: float
    cpu: float
    flood: float


def main() -> int:
    """Run the floods; print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each flood")
    parser.add_argument("--rounds", type=int, default=3, help="of each, for the median")
    parser.add_argument("--kind", action="append", choices=[*KINDS, REQUESTS, "none"])
    arguments = parser.parse_args()
    if not (1.0 <= arguments.seconds <= 60.0 and 1 <= arguments.rounds <= 20):
        parser.error("--seconds is from 1 to 60, --rounds from 1 to 20")
    print("| flood | datagrams/s | honest datagrams lost | logins | memory | reactor thread |")
    print("|---|---|---|---|---|---|", flush=True)
    try:
        for kind in arguments.kind or ["none", *KINDS, REQUESTS]:
            rounds = [_flood(kind, arguments.seconds) for _ in range(arguments.rounds)]
            mean = Found(*map(statistics.median, zip(*map(attrs.astuple, rounds), strict=True)))
            print(
                f"| {kind} | {mean.flood:,.0f} | {mean.lost:.2f} % |"
                f" {mean.logins:.0f} of {mean.asked:.0f} | +{mean.grown:.0f} MiB |"
                f" {mean.cpu:.0f} % |",
                flush=True,
            )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _flood(kind: str, seconds: float) -> Found:
    transport = NETCODE if kind == REQUESTS else OURS
    moves = round(HERTZ * (seconds + 1.0))
    with (
        tempfile.TemporaryDirectory(prefix="playerstate-flood-") as directory,
        child("udp_server", transport, PLACES, directory) as server,
    ):
        said = server.hear()
        counter = Counter(said["counter"], new=False)
        address = ("127.0.0.1", said["port"])
        sender = ("paced_sender", transport, PLAYERS, said["port"], moves, directory)
        with child(*sender) as players:
            deadline = time.monotonic() + 60.0
            while counter.read().count < PLAYERS and time.monotonic() < deadline:
                time.sleep(0.05)
            before, began = counter.read(), time.monotonic()
            resident = _resident(server.pid)
            if kind == "none":
                sent, logins = 0, _Logins(transport, address).run(seconds)
            else:
                with child("flooder", kind, said["port"], seconds) as flooder:
                    logins = _Logins(transport, address).run(seconds)
                    sent = flooder.hear()["sent"]
            after, elapsed = counter.read(), time.monotonic() - began
            grown = (_resident(server.pid) - resident) / 2**20
            honest = players.hear()["sent"]
            time.sleep(0.5)
            lost = 100.0 * max(0, honest - counter.read().count) / honest
    cpu = 100.0 * (after.cpu - before.cpu) / elapsed
    return Found(lost, *logins, grown, cpu, sent / seconds)


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class _Login:
    """One player that tries to join."""

    def __init__(self, transport: str, server: tuple[str, int], session_id: int) -> None:
        self.began = self._asked = time.monotonic()
        self._server = server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.3", 0))
        self.socket.setblocking(False)
        self._client: Client | None = None
        self._join = struct.pack("<QI", session_id, 1) + Codec(SCHEMA).encode_join(1, 0)
        self._asked -= ASK_AGAIN
        if transport == NETCODE:
            token = connect_token(
                session_id,
                key=KEY,
                protocol_id=PROTOCOL_ID,
                addresses=[f"{server[0]}:{server[1]}"],
                expires=30,
            )
            self._client = Client(token, self.began)

    def turn(self) -> bool:
        """Send what is due and read the socket; return whether the player has joined."""
        now = time.monotonic()
        if self._client is not None:
            if (datagram := self._client.due(now)) is not None:
                self.socket.sendto(datagram, self._server)
        elif now - self._asked >= ASK_AGAIN:
            self._asked = now
            self.socket.sendto(self._join, self._server)
        try:
            data, source = self.socket.recvfrom(2048)
        except BlockingIOError:
            return False
        if self._client is None:
            return data[:8] == self._join[:8]
        self._client.receive(data, source, now)
        return self._client.state == State.CONNECTED


class _Logins:
    """New players, one after the other."""

    def __init__(self, transport: str, server: tuple[str, int]) -> None:
        self._transport = transport
        self._server = server

    def run(self, seconds: float) -> tuple[int, int]:
        """Let new players try for so long; return how many joined, and how many tried."""
        now = began = time.monotonic()
        asked = done = 0
        waiting: list[_Login] = []
        with selectors.DefaultSelector() as selector:
            while now < began + seconds or waiting:
                if now < began + seconds and now >= began + asked * LOGIN_EVERY:
                    asked += 1
                    login = _Login(self._transport, self._server, NEW_ID + asked)
                    waiting.append(login)
                    selector.register(login.socket, selectors.EVENT_READ)
                selector.select(0.01)
                now = time.monotonic()
                for login in list(waiting):
                    is_in = login.turn()
                    if is_in or now - login.began > PATIENCE:
                        done += is_in
                        waiting.remove(login)
                        selector.unregister(login.socket)
                        login.socket.close()
        return done, asked


if __name__ == "__main__":
    sys.exit(main())
