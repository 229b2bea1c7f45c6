"""Very many players of a real server, on one socket, who remember what they were told is saved."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import deque

import numpy as np

from playerstate import PlayerState, StateSchema
from playerstate.wire.messages import RECEIPT, WELCOME, Codec
from tests.kit.support import PATIENCE

_HEAD = struct.Struct("<QI")
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 16 * 2**20
_TOGETHER = 500
"""Players who move between two looks at what came in."""
_REMEMBERED_EVERY, _REMEMBERED = 0.1, 400
"""Seconds between two copies of what is saved, and how many are kept."""
_MOVE = np.dtype(
    [
        ("id", "<u8"),
        ("nonce", "<u4"),
        ("type", "u1"),
        ("sequence", "<u4"),
        ("x", "<f8"),
        ("y", "<f8"),
    ]
)
_RECEIPT = np.dtype(
    [("id", "<u8"), ("nonce", "<u4"), ("type", "u1"), ("applied", "<u4"), ("saved", "<u4")]
)


class Throng:
    """Players whose ``y`` is the number of their newest move.

    Args:
        players: how many.
        apart: the distance between two of their session ids.

    Attributes:
        ids: session ids.
        sent: by player, the number of the newest move.
        saved: by player, the highest number that a RECEIPT called saved, or that a WELCOME brought
            back.
        told: when, on the monotonic clock, `saved` was copied, and the copies; the oldest first,
            of the last forty seconds.
    """

    def __init__(self, players: int, apart: int = 1) -> None:
        self._codec = Codec(StateSchema.of(PlayerState))
        self._random = np.random.default_rng(1)
        self._apart = apart
        self.ids = np.arange(1, players + 1, dtype="<u8") * apart
        self.sent = np.zeros(players, "<u4")
        self.saved = np.zeros(players, "<u4")
        self.told: deque[tuple[float, np.ndarray]] = deque(maxlen=_REMEMBERED)
        self._nonce = 0
        self._moves = np.zeros(players, _MOVE)
        self._moves["id"], self._moves["type"] = self.ids, 2
        self._welcomed = np.zeros(players, bool)
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Give the socket up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def join(self, address: tuple[str, int]) -> np.ndarray:
        """Everybody joins, on a fresh socket; the number of the move that each came back to."""
        self.close()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.connect(address)
        self._nonce = random.getrandbits(32) | 1
        self._moves["nonce"] = self._nonce
        self.saved[:] = 0
        self.told.clear()
        self._welcomed[:] = False
        deadline = time.monotonic() + PATIENCE
        while not self._welcomed.all():
            assert time.monotonic() < deadline, f"{(~self._welcomed).sum()} are not in the game"
            waiting = np.flatnonzero(~self._welcomed)
            for first in range(0, len(waiting), _TOGETHER):
                for place in waiting[first : first + _TOGETHER].tolist():
                    # The sequence is the highest used, so that moves after a return are not stale.
                    join = self._codec.encode_join(self._nonce, int(self.sent[place]))
                    self._socket.send(_HEAD.pack(int(self.ids[place]), self._nonce) + join)
                time.sleep(0.01)
                self.listen()
            time.sleep(0.2)
            self.listen()
        return self.saved.copy()

    def move(self, seconds: float) -> None:
        """Everybody moves once, spread over so long."""
        assert self._socket is not None
        self.sent += 1
        self._moves["sequence"] = self._moves["y"] = self.sent
        self._moves["x"] = self._random.random(len(self.ids))
        datagrams, size = self._moves.tobytes(), self._moves.itemsize
        begun = time.monotonic()
        for first in range(0, len(self.ids), _TOGETHER):
            last = min(first + _TOGETHER, len(self.ids))
            for start in range(first * size, last * size, size):
                self._socket.send(datagrams[start : start + size])
            self.listen()
            time.sleep(max(0.0, begun + seconds * last / len(self.ids) - time.monotonic()))

    def listen(self) -> None:
        """Read what came in."""
        assert self._socket is not None
        receipts = []
        while True:
            try:
                datagram = self._socket.recv(2048, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            kind = datagram[_HEAD.size]
            if kind == RECEIPT:
                receipts.append(datagram)
            elif kind == WELCOME:
                self._welcome(datagram)
        if receipts:
            read = np.frombuffer(b"".join(receipts), _RECEIPT)
            np.maximum.at(self.saved, self._places(read["id"]), read["saved"])
            now = time.monotonic()
            if not self.told or now >= self.told[-1][0] + _REMEMBERED_EVERY:
                self.told.append((now, self.saved.copy()))

    def _welcome(self, datagram: bytes) -> None:
        session_id, nonce = _HEAD.unpack_from(datagram)
        if nonce == self._nonce:
            place = session_id // self._apart - 1
            welcome = self._codec.decode_server(datagram[_HEAD.size :])
            self.saved[place] = welcome.values[1] if welcome.restored else 0
            self._welcomed[place] = True

    def _places(self, ids: np.ndarray) -> np.ndarray:
        return (ids // self._apart - 1).astype(np.intp)

    def saved_until(self, moment: float) -> np.ndarray:
        """What was called saved until then, on the monotonic clock."""
        known = [saved for at, saved in self.told if at <= moment]
        return known[-1] if known else np.zeros_like(self.saved)

    def age_of(self, numbers: np.ndarray, moment: float) -> float:
        """Seconds since the last moment of which all that was called saved is in `numbers`."""
        whole = [at for at, saved in self.told if (numbers >= saved).all()]
        return moment - (whole[-1] if whole else -float("inf"))
