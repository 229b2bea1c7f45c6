"""Players who move at their pace: ``python -m bench.paced_sender KIND PLAYERS PORT MOVES
DIRECTORY``.

Each of them sends so many moves, twenty a second, spread evenly over time.  Move number n has
x = n.  It says when each was sent in an array by number and session id.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from bench.children import hold, say
from bench.datagrams import Datagrams, moves
from bench.netcode_clients import NetcodeClients
from bench.udp_sender import join_all
from bench.udp_server import NETCODE, OURS, SCHEMAS

HERTZ = 20
SLICES = 50
"""A period is sent in so many parts, one a millisecond."""


def main() -> None:
    """Join, wait to be told, and send."""
    kind, players, port, times, directory = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    hold()
    through, next_period = _PERIODS[kind](("127.0.0.1", port), players)
    with through:
        sent_at = _send(through, next_period, players, times)
    path = os.path.join(directory, f"sent-{os.getpid()}.npy")
    np.save(path, sent_at)
    say({"sent": players * times, "path": path})


NextPeriod = Callable[[], Datagrams]
"""The next move of each player."""


def _plain(server: tuple[str, int], players: int) -> tuple[socket.socket, NextPeriod]:
    through = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    through.connect(server)
    join_all(through, players, SCHEMAS[OURS])
    through.setblocking(False)
    data = moves(players)
    load = Datagrams(data, [data.itemsize] * players)

    def next_period() -> Datagrams:
        data["sequence"] += 1
        data["x"] += 1.0
        return load

    data["x"] = 0.0
    return through, next_period


def _netcode(server: tuple[str, int], players: int) -> tuple[socket.socket, NextPeriod]:
    clients = NetcodeClients(server, players)
    clients.join()
    return clients.socket, lambda: clients.rounds(1)


_PERIODS = {OURS: _plain, NETCODE: _netcode}


def _send(
    through: socket.socket, next_period: NextPeriod, players: int, times: int
) -> np.ndarray[Any, Any]:
    edges = np.linspace(0, players, SLICES + 1).astype(int).tolist()
    sent_at = np.zeros((times + 1, players + 1))
    began = time.monotonic()
    for number in range(1, times + 1):
        load = next_period()
        for part, (first, end) in enumerate(pairwise(edges)):
            due = began + (number - 1 + part / SLICES) / HERTZ
            time.sleep(max(0.0, due - time.monotonic()))
            sent_at[number, first + 1 : end + 1] = time.monotonic()
            while first < end:
                first += load.send(through, first, end - first)
            discard_answers(through)
    return sent_at


def discard_answers(server: socket.socket) -> None:
    """Take what has come in, and forget it."""
    try:
        while True:
            server.recv(2048)
    except BlockingIOError:
        return


if __name__ == "__main__":
    main()
