"""Players who walk about, twenty moves a second each: ``python -m bench.walkers PLAYERS PORT``."""

from __future__ import annotations

import socket
import sys
import time
from itertools import count, pairwise

import numpy as np

from bench.children import hold, say
from bench.datagrams import Datagrams, moves
from bench.paced_sender import HERTZ, SLICES, discard_answers
from bench.udp_sender import join_all

SIDE = 1000.0
"""Of the square that they start in."""
STEP = 0.5
TURN = 0.1
"""The standard deviation of the turn that a walker takes at each move, in radians."""


def main() -> None:
    """Join, say so, and walk until the parent ends."""
    players, port = map(int, sys.argv[1:3])
    hold()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as through:
        through.connect(("127.0.0.1", port))
        join_all(through, players)
        through.setblocking(False)
        say({"joined": players})
        _walk(through, players)


def _walk(through: socket.socket, players: int) -> None:
    data = moves(players)
    load = Datagrams(data, [data.itemsize] * players)
    edges = np.linspace(0, players, SLICES + 1).astype(int).tolist()
    random = np.random.default_rng(1)
    data["x"], data["y"] = random.uniform(0, SIDE, (2, players))
    heading = random.uniform(0, 2 * np.pi, players)
    began = time.monotonic()
    for number in count():
        data["sequence"] += 1
        heading += random.normal(0, TURN, players)
        data["x"] += STEP * np.cos(heading)
        data["y"] += STEP * np.sin(heading)
        for part, (first, end) in enumerate(pairwise(edges)):
            due = began + (number + part / SLICES) / HERTZ
            time.sleep(max(0.0, due - time.monotonic()))
            while first < end:
                first += load.send(through, first, end - first)
            discard_answers(through)


if __name__ == "__main__":
    main()
