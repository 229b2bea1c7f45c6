"""The players, in a process of their own: ``python -m bench.udp_sender KIND PLAYERS PORT WINDOW
COUNTER``.

Each line ``SECONDS`` on the standard input is a turn: moves go out as fast as the server takes them
in, with never more on their way than its socket can hold, and the answer is what came of it.
"""

from __future__ import annotations

import math
import queue
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import partial

import attrs
import numpy as np

from bench.children import hold, say
from bench.counter import Counter
from bench.datagrams import AT_ONCE, Datagrams, metrics, moves
from bench.netcode_clients import NetcodeClients
from bench.udp_server import CARBON, CHANGED, NETCODE, NO_OP, OURS, OWNED, SCHEMAS
from playerstate.state.schema import StateSchema
from playerstate.wire.messages import STATE, Codec, State

_HEAD = struct.Struct("<QI")
"""Of a plain datagram: the session id and the nonce."""
JOINS_AT_ONCE = 200
REST = 0.0002
LISTEN_EVERY = 0.01
"""Seconds between two looks for answers while there is no turn."""
DRAIN_WITHIN = 2.0
ANSWER_WITHIN = 10.0
MOST_SEALED = 200_000
"""Netcode datagrams sealed for a second; each can be sent once.  A client's share is within
a server's limit."""


def main() -> None:
    """Join, then send for each turn that the parent requests."""
    kind, players, port, window, path = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    turns: queue.SimpleQueue[str] = queue.SimpleQueue()
    hold(turns.put)
    through, load_for = _LOADS[kind](("127.0.0.1", port), players)
    with through:
        sender = _Sender(through, Counter(path, new=False), window)
        say({"joined": players})
        while True:
            try:
                seconds = float(turns.get(timeout=LISTEN_EVERY))
            except queue.Empty:
                sender.take_answers()
            else:
                say(sender.send(load_for(seconds), seconds))


@attrs.frozen
class Load:
    """What is sent in a turn.

    Attributes:
        datagrams: one for each player, or some.
        next_round: called when all are sent: changes them, or returns false if there are no more.
        answer: called with each datagram that came back, and how many of the round are sent;
            returns what to send in answer, or nothing.
    """

    datagrams: Datagrams
    next_round: Callable[[], bool]
    answer: Callable[[bytes, int], bytes] = lambda datagram, sent: b""


LoadFor = Callable[[float], Load]
"""Makes the load of a turn of so many seconds."""


def _plain(
    server: tuple[str, int], players: int, kind: str = OURS
) -> tuple[socket.socket, LoadFor]:
    through, schema = _connected(server), SCHEMAS[kind]
    join_all(through, players, schema)
    through.setblocking(False)
    load = Walkers(players, schema).load()
    return through, lambda seconds: load


def _no_op(server: tuple[str, int], players: int) -> tuple[socket.socket, LoadFor]:
    load = Walkers(players, SCHEMAS[OURS]).load()
    return _connected(server), lambda seconds: load


def _carbon(server: tuple[str, int], players: int) -> tuple[socket.socket, LoadFor]:
    lines = metrics(players, int(time.time()))
    data = np.frombuffer(b"".join(lines), np.uint8)
    load = Load(Datagrams(data, [len(line) for line in lines]), lambda: True)
    return _connected(server), lambda seconds: load


def _netcode(server: tuple[str, int], players: int) -> tuple[socket.socket, LoadFor]:
    clients = NetcodeClients(server, players)
    clients.join()

    def load_for(seconds: float) -> Load:
        rounds = math.ceil(seconds * MOST_SEALED / players)
        return Load(clients.rounds(rounds), lambda: False)

    return clients.socket, load_for


_LOADS = {
    OURS: _plain,
    OWNED: partial(_plain, kind=OWNED),
    CHANGED: partial(_plain, kind=CHANGED),
    NO_OP: _no_op,
    CARBON: _carbon,
    NETCODE: _netcode,
}


def _connected(server: tuple[str, int]) -> socket.socket:
    through = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    through.connect(server)
    through.setblocking(False)
    return through


def join_all(server: socket.socket, players: int, schema: StateSchema) -> None:
    """Have every player welcomed, from 1 up."""
    codec = Codec(schema)
    server.settimeout(ANSWER_WITHIN)
    for first in range(1, players + 1, JOINS_AT_ONCE):
        some = range(first, min(first + JOINS_AT_ONCE, players + 1))
        for session_id in some:
            server.send(_HEAD.pack(session_id, session_id) + codec.encode_join(session_id, 0))
        for _ in some:
            server.recv(2048)


class Walkers:
    """Players from 1 up, each with a MOVE a round, who go on from where a STATE sets them.

    Attributes:
        data: the MOVEs of this round, of the type `bench.datagrams.MOVES`.
    """

    def __init__(self, players: int, schema: StateSchema) -> None:
        self._codec = Codec(schema)
        self.data = moves(players)
        self.next_round()

    def load(self) -> Load:
        """What they send."""
        sizes = [self.data.itemsize] * len(self.data)
        return Load(Datagrams(self.data, sizes), self.next_round, self.answer)

    def next_round(self) -> bool:
        """All move once more."""
        self.data["sequence"] += 1
        return True

    def answer(self, datagram: bytes, sent: int) -> bytes:
        """The SEEN that answers a STATE, with the highest sequence sent; nothing to others."""
        if datagram[_HEAD.size] != STATE:
            return b""
        session_id, nonce = _HEAD.unpack_from(datagram)
        state = self._codec.decode_server(datagram[_HEAD.size :])
        assert isinstance(state, State)
        move = self.data[session_id - 1]
        if state.is_override:
            move["x"], move["y"] = state.values[:2]
        sequence = int(move["sequence"]) - (session_id > sent)
        return _HEAD.pack(session_id, nonce) + self._codec.encode_seen(state.number, sequence)


class _Sender:
    """One socket's sending, held to a window."""

    def __init__(self, server: socket.socket, counter: Counter, window: int) -> None:
        self._server = server
        self._counter = counter
        self._window = window
        self._load: Load | None = None
        self._next = 0
        self.answers = 0

    def send(self, load: Load, seconds: float) -> dict[str, float]:
        """Send for so long, or as long as there is something; what the server made of it."""
        if load is not self._load:
            self._load, self._next = load, 0
        before = self._counter.read()
        sent, answers = 0, self.answers
        started = time.monotonic()
        is_more = True
        while is_more and time.monotonic() < started + seconds:
            room = self._window - (sent - (self._counter.read().count - before.count))
            if room < min(AT_ONCE, self._window // 2):
                time.sleep(REST)
            else:
                went = load.datagrams.send(self._server, self._next, room)
                sent += went
                self._next += went
                if self._next == len(load.datagrams):
                    self._next = 0
                    is_more = load.next_round()
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
        """Take what came back, receipts and STATEs, and answer the latter."""
        try:
            while True:
                datagram = self._server.recv(2048)
                self.answers += 1
                if self._load is not None and (seen := self._load.answer(datagram, self._next)):
                    self._server.send(seen)
        except BlockingIOError:
            return


if __name__ == "__main__":
    main()
