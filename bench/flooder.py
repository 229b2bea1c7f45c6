"""A flood, in a process of its own: ``python -m bench.flooder KIND PORT SECONDS``.

Sends all it can from 127.0.0.2, from one socket, round and round.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable

import numpy as np

from bench.children import hold, say
from bench.datagrams import Datagrams
from bench.forged import Forgeries
from bench.ours import SCHEMA
from playerstate.wire.messages import LEAVE, PING, Codec, encode_numbered

COUNT = 50_000
FIRST_ID = 1_000_000
_codec = Codec(SCHEMA)


def _to(session_id: int, nonce: int, message: bytes) -> bytes:
    return struct.pack("<QI", session_id, nonce) + message


def _join(session_id: int, nonce: int, version: int | None = None) -> bytes:
    join = bytearray(_codec.encode_join(nonce, 5))
    if version is not None:
        join[1] = version
    return _to(session_id, nonce, bytes(join))


def _spoofed(session_id: int, nonce: int) -> bytes:
    return _to(session_id, nonce, _codec.encode_move(9, (1.0, 1.0)))


def _replayed(number: int, message: bytes) -> bytes:
    """What one of the 500 players said, who are all in by the nonce of their number."""
    session_id = 1 + number % 500
    return _to(session_id, session_id, message)


def _storm(number: int) -> bytes:
    """JOIN, a MOVE that is stale, LEAVE, of a hundred players in turn."""
    session_id = FIRST_ID + number // 3 % 100
    kind = number % 3
    nonce = number - kind + 1
    if kind == 0:
        return _join(session_id, nonce)
    if kind == 1:
        return _to(session_id, nonce, _codec.encode_move(1, (1.0, 1.0)))
    return _to(session_id, nonce, encode_numbered(LEAVE, 5))


KINDS: dict[str, Callable[[int], bytes]] = {
    "garbage": lambda number: random.randbytes(33),
    "spoofed moves": lambda number: _to(
        1 + number % 500, number, _codec.encode_move(9, (1.0, 1.0))
    ),
    "JOINs of new ids": lambda number: _join(FIRST_ID + number, number + 1),
    "JOINs of one id": lambda number: _join(FIRST_ID, number + 1),
    "JOINs of a wrong version": lambda number: _join(FIRST_ID + number, number + 1, 99),
    "JOIN, MOVE, LEAVE": _storm,
    "replayed moves": lambda number: _replayed(number, _codec.encode_move(1, (1.0, 1.0))),
    "LEAVEs": lambda number: _replayed(number, encode_numbered(LEAVE, 5)),
    "PINGs": lambda number: _replayed(number, encode_numbered(PING, 5)),
}
"""Of the plain transport; netcode's is ``requests``."""
REQUESTS = "requests"


def main() -> None:
    """Send for so long, and say how many went."""
    kind, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    hold()
    if kind == REQUESTS:
        made = Forgeries().requests
    else:
        made = [KINDS[kind](number) for number in range(COUNT)]
    load = Datagrams(np.frombuffer(b"".join(made), np.uint8), [len(one) for one in made])
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as through:
        through.bind(("127.0.0.2", 0))
        through.connect(("127.0.0.1", port))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                sent += load.send(through, sent % len(load), len(load))
            except OSError:  # its own buffer is full
                os.sched_yield()
    say({"sent": sent})


if __name__ == "__main__":
    main()
