"""Players who move at their pace: ``python -m bench.paced_sender PLAYERS PORT MOVES DIRECTORY``.

Each of them sends so many moves, twenty a second, spread evenly over time.  Move number n has
x = n.  It says when each was sent in an array by number and session id.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from itertools import pairwise

import numpy as np

from bench.datagrams import Datagrams, moves
from bench.leash import hold, say
from bench.udp_sender import join_all

HERTZ = 20
SLICES = 50
"""A period is sent in so many parts, one a millisecond."""


def main() -> None:
    """Join, wait to be told, and send."""
    players, port, times, directory = *map(int, sys.argv[1:4]), sys.argv[4]
    hold()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.connect(("127.0.0.1", port))
        join_all(server, players)
        server.setblocking(False)
        sent_at = _send(server, players, times)
    path = os.path.join(directory, f"sent-{os.getpid()}.npy")
    np.save(path, sent_at)
    say({"sent": players * times, "path": path})


def _send(server: socket.socket, players: int, times: int) -> np.ndarray:
    data = moves(players)
    load = Datagrams(data, [data.itemsize] * players)
    edges = np.linspace(0, players, SLICES + 1).astype(int).tolist()
    sent_at = np.zeros((times + 1, players + 1))
    began = time.monotonic()
    for number in range(1, times + 1):
        data["sequence"] += 1
        data["x"] = number
        for part, (first, end) in enumerate(pairwise(edges)):
            due = began + (number - 1 + part / SLICES) / HERTZ
            time.sleep(max(0.0, due - time.monotonic()))
            sent_at[number, first + 1 : end + 1] = time.monotonic()
            while first < end:
                first += load.send(server, first, end - first)
            _discard_answers(server)
    return sent_at


def _discard_answers(server: socket.socket) -> None:
    try:
        while True:
            server.recv(2048)
    except BlockingIOError:
        return


if __name__ == "__main__":
    main()
