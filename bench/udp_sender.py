"""The players, in a process of their own: ``python -m bench.udp_sender KIND PLAYERS PORT WINDOW
COUNTER``.

Each line ``SECONDS`` on the standard input is a turn: moves go out as fast as the server takes them
in, with never more on their way than its socket can hold, and the answer is what came of it.
"""

from __future__ import annotations

import queue
import socket
import sys
import time
from collections.abc import Callable

import numpy as np

from bench.counter import Counter
from bench.datagrams import AT_ONCE, Datagrams, metrics, moves
from bench.leash import hold, say
from bench.ours import SCHEMA
from bench.udp_server import CARBON, OURS
from playerstate.messages import Codec

JOINS_AT_ONCE = 200
REST = 0.0002
DRAIN_WITHIN = 2.0
ANSWER_WITHIN = 10.0


def main() -> None:
    """Join, and send as told."""
    kind, players, port, window, path = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    hold(told.put)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.connect(("127.0.0.1", port))
        if kind == OURS:
            join_all(server, players)
        server.setblocking(False)
        sender = _Sender(server, Counter(path, new=False), window)
        say({"joined": players})
        make = _metrics if kind == CARBON else _moves
        load, next_round = make(players)
        while True:
            say(sender.send(load, next_round, float(told.get())))


def join_all(server: socket.socket, players: int) -> None:
    """Have every player welcomed, from 1 up."""
    codec = Codec(SCHEMA)
    server.settimeout(ANSWER_WITHIN)
    for first in range(1, players + 1, JOINS_AT_ONCE):
        some = range(first, min(first + JOINS_AT_ONCE, players + 1))
        for session_id in some:
            server.send(session_id.to_bytes(8, "little") + codec.encode_join(session_id, 0))
        for _ in some:
            server.recv(2048)


def _moves(players: int) -> tuple[Datagrams, Callable[[], None]]:
    data = moves(players)

    def next_round() -> None:
        data["sequence"] += 1

    next_round()
    return Datagrams(data, [data.itemsize] * players), next_round


def _metrics(players: int) -> tuple[Datagrams, Callable[[], None]]:
    lines = metrics(players, int(time.time()))
    data = np.frombuffer(b"".join(lines), np.uint8)
    return Datagrams(data, [len(line) for line in lines]), lambda: None


class _Sender:
    """One socket's sending, held to a window."""

    def __init__(self, server: socket.socket, counter: Counter, window: int) -> None:
        self._server = server
        self._counter = counter
        self._window = window
        self._next = 0
        self.answers = 0

    def send(
        self, load: Datagrams, next_round: Callable[[], None], seconds: float
    ) -> dict[str, float]:
        """Send for so long; what the server made of it."""
        before = self._counter.read()
        sent, answers = 0, self.answers
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            room = self._window - (sent - (self._counter.read().count - before.count))
            if room < min(AT_ONCE, self._window // 2):
                time.sleep(REST)
            else:
                went = load.send(self._server, self._next, room)
                sent += went
                self._next += went
                if self._next == len(load):
                    self._next = 0
                    next_round()
            self.take_answers()
        self._drain(before.count + sent)
        elapsed = time.monotonic() - started
        time.sleep(0.01)
        after = self._counter.read()
        return {
            "sent": sent,
            "taken": after.count - before.count,
            "answers": self.answers - answers,
            "cpu": after.cpu - before.cpu,
            "elapsed": elapsed,
        }

    def _drain(self, until: int) -> None:
        end = time.monotonic() + DRAIN_WITHIN
        while self._counter.read().count < until and time.monotonic() < end:
            time.sleep(REST)
            self.take_answers()

    def take_answers(self) -> None:
        """Take what came back; receipts."""
        try:
            while True:
                self._server.recv(2048)
                self.answers += 1
        except BlockingIOError:
            return


if __name__ == "__main__":
    main()
