"""Many datagrams with one system call, so that a sender in Python outruns any server in Python."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.ours import HERO_SCHEMA, SCHEMA
from playerstate.wire.messages import MOVE, Codec

AT_ONCE = 256
_MESSAGE = np.dtype(
    {
        "names": ["name", "name_size", "parts", "part_count", "control", "control_size", "flags"],
        "formats": ["<u8", "<u4", "<u8", "<u8", "<u8", "<u8", "<i4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48],
        "itemsize": 64,
    }
)
"""``struct mmsghdr`` of Linux on 64 bits."""
_send = ctypes.CDLL(None, use_errno=True).sendmmsg

MOVES = np.dtype(
    [
        ("id", "<u8"),
        ("nonce", "<u4"),
        ("kind", "u1"),
        ("sequence", "<u4"),
        ("x", "<f8"),
        ("y", "<f8"),
    ]
)
"""A MOVE of the default state, or of `bench.ours.Hero`, behind the session id and the nonce, which
are one number here."""


class Datagrams:
    """Datagrams that lie one behind the other in one buffer.

    Args:
        buffer: in which they lie; it may be written to between two calls.
        sizes: of each.
        to: where they go, as a ``struct sockaddr_in``; empty where the socket is connected.
        controls: a row of control data a datagram, if it has any.
    """

    def __init__(
        self,
        buffer: np.ndarray[Any, Any],
        sizes: Sequence[int],
        to: bytes = b"",
        controls: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self._buffer = buffer
        self._count = len(sizes)
        ends = np.cumsum(sizes, dtype=np.uint64)
        self._parts = np.empty((self._count, 2), "<u8")
        self._parts[:, 0] = buffer.ctypes.data + ends - np.array(sizes, np.uint64)
        self._parts[:, 1] = sizes
        self._messages = np.zeros(self._count, _MESSAGE)
        self._messages["parts"] = self._parts.ctypes.data + 16 * np.arange(self._count)
        self._messages["part_count"] = 1
        if to:
            self._to = np.frombuffer(to, np.uint8)
            self._messages["name"] = self._to.ctypes.data
            self._messages["name_size"] = len(to)
        if controls is not None:
            self._controls = controls
            self._messages["control"] = controls.ctypes.data + controls.strides[0] * np.arange(
                self._count
            )
            self._messages["control_size"] = controls.itemsize

    def __len__(self) -> int:
        return self._count

    def send(self, through: socket.socket, first: int, count: int) -> int:
        """Send so many from `first` on, no further than the last; return how many went.

        Raises:
            OSError: the system took none.
        """
        count = min(count, self._count - first, AT_ONCE)
        at = self._messages.ctypes.data + first * _MESSAGE.itemsize
        sent: int = _send(through.fileno(), ctypes.c_void_p(at), count, 0)
        if sent < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return sent


def moves(players: int) -> np.ndarray[Any, Any]:
    """A MOVE of each player from 1 up, numbered 0."""
    for schema in (SCHEMA, HERO_SCHEMA):
        assert Codec(schema).move_size + 12 == MOVES.itemsize
    found = np.zeros(players, MOVES)
    found["id"] = np.arange(1, players + 1)
    found["nonce"] = found["id"]
    found["kind"] = MOVE
    found["x"], found["y"] = np.random.default_rng(2).uniform(0.0, 4096.0, (2, players))
    return found


def metrics(players: int, now: int) -> list[bytes]:
    """The same for carbon: two lines a player, of one metric each."""
    return [
        b"player.%d.x %.3f %d\nplayer.%d.y %.3f %d\n"
        % (move["id"], move["x"], now, move["id"], move["y"], now)
        for move in moves(players)
    ]
