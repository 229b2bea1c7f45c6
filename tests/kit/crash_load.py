"""Players who move as fast as they can, and remember what they sent and what they were told."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time

from playerstate import PlayerState, StateSchema
from playerstate.wire.messages import (
    LEAVE,
    Codec,
    Gone,
    Receipt,
    Refused,
    Welcome,
    encode_numbered,
)

PATIENCE = 20.0

TWISTD = "from twisted.scripts.twistd import run; run()"

State = tuple[float, float]
_HEAD = struct.Struct("<QI")


class Process:
    """``twistd -n playerstate`` in a process of its own, from its first line on.

    Unlike `tests.kit.processes.Server` it may be killed before it listens.

    Args:
        directory: where it runs.
        options: of the plugin, beside ``--listen``.
        command: what is put before the interpreter.
        environment: variables beside those of this process.
        preexec: Python that runs before twistd.
    """

    def __init__(
        self,
        directory: str,
        *options: str,
        command: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        preexec: str = "",
    ) -> None:
        script = f"{preexec}\n{TWISTD}"
        plugin = ("playerstate", "--listen", "udp:0", *options)
        self._process = subprocess.Popen(
            [*command, sys.executable, "-u", "-c", script, "-n", "--pidfile=server.pid", *plugin],
            cwd=directory,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._pidfile = os.path.join(directory, "server.pid")
        self.lines: list[str] = []
        self._arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._arrived.put(line.rstrip("\n"))
        self._arrived.put(None)

    def wait_for(self, pattern: str, within: float = PATIENCE) -> re.Match[str]:
        """Wait for a log line that was not waited for before, and return its match."""
        deadline = time.monotonic() + within
        while True:
            try:
                line = self._arrived.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} in time: {self.lines}") from None
            if line is None:
                self._arrived.put(None)
                raise AssertionError(f"ended before {pattern!r}: {self.lines}")
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found

    def listening(self) -> tuple[str, int]:
        """Wait until it listens; its address."""
        found = self.wait_for(r"listening on udp ([\d.]+):(\d+)")
        return found[1], int(found[2])

    @property
    def output(self) -> str:
        """All it printed until now."""
        while not self._arrived.empty():
            if (line := self._arrived.get()) is None:
                self._arrived.put(None)
                break
            self.lines.append(line)
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ended(self, within: float = PATIENCE) -> int:
        """Wait for its end; return its exit status."""
        status = self._process.wait(within)
        self._reading.join(within)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status

    def kill(self) -> None:
        """End it at once, if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
        self.ended()
        # One that is killed cannot remove it, and its number may be another's by now.
        if os.path.exists(self._pidfile):
            os.unlink(self._pidfile)


class Crowd:
    """Players on sockets of their own, over all lives of a server.

    Args:
        players: how many.
        random_source: where the states come from.
        first: the first of their session ids, which follow each other.

    Attributes:
        applied: by player, the highest sequence that a RECEIPT called applied, or that a WELCOME
            brought back.
        saved: the same of what was called saved.
        told: RECEIPTs read.
    """

    def __init__(self, players: int, random_source: random.Random, first: int = 1) -> None:
        self._codec = Codec(StateSchema.of(PlayerState))
        self._random = random_source
        self.session_ids = range(first, first + players)
        self.states: dict[int, dict[int, State]] = {i: {} for i in self.session_ids}
        self.numbers: dict[int, dict[State, int]] = {i: {} for i in self.session_ids}
        self.sequence = dict.fromkeys(self.session_ids, 0)
        self.applied = dict.fromkeys(self.session_ids, 0)
        self.saved = dict.fromkeys(self.session_ids, 0)
        self.told = 0
        self._sockets: dict[int, socket.socket] = {}
        self._nonces: dict[int, int] = {}

    def connect(self, address: tuple[str, int]) -> None:
        """A fresh socket for everybody."""
        self.close()
        for session_id in self.session_ids:
            self._sockets[session_id] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._sockets[session_id].connect(address)

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()

    def _send(self, session_id: int, message: bytes) -> None:
        # A socket of a server that is gone says so once.
        with contextlib.suppress(OSError):
            self._sockets[session_id].send(
                _HEAD.pack(session_id, self._nonces.get(session_id, 0)) + message
            )

    def join(self) -> list[str]:
        """Everybody joins, asking again while the store is busy; what is wrong with the answers.

        Each must stand where a state puts them that they sent, and that is no older than any they
        were told of.
        """
        waiting = set(self.session_ids)
        deadline = time.monotonic() + PATIENCE
        wrong: list[str] = []
        nonces = self._nonces = {i: self._random.getrandbits(32) for i in waiting}
        while waiting:
            if time.monotonic() > deadline:
                return [*wrong, f"players {sorted(waiting)} were not welcomed in time"]
            for session_id in waiting:
                join = self._codec.encode_join(nonces[session_id], self.sequence[session_id])
                self._send(session_id, join)
            time.sleep(0.01)
            for session_id in list(waiting):
                for answer in self.answers(session_id):
                    if isinstance(answer, Welcome) and session_id in waiting:
                        wrong += self._judge(session_id, answer)
                        waiting.remove(session_id)
                    elif isinstance(answer, Refused) and answer.reason != 5:
                        wrong.append(f"player {session_id} was refused: {answer}")
        return wrong

    def _judge(self, session_id: int, welcome: Welcome) -> list[str]:
        state = welcome.values
        promised = self.applied[session_id]
        if not welcome.restored:
            return [f"player {session_id} was forgotten after move {promised}"] if promised else []
        number = self.numbers[session_id].get(state)
        if number is None:
            return [f"player {session_id} never sent {state}"]
        if number < promised:
            newest = self.sequence[session_id]
            return [f"player {session_id} stands at move {number}, {promised} of {newest} applied"]
        self.applied[session_id] = self.saved[session_id] = number
        return []

    def move(self) -> None:
        """Everybody moves."""
        for session_id in self.session_ids:
            self.sequence[session_id] = sequence = self.sequence[session_id] + 1
            state = (self._random.uniform(-1e9, 1e9), float(sequence))
            self.states[session_id][sequence] = state
            self.numbers[session_id][state] = sequence
            self._send(session_id, self._codec.encode_move(sequence, state))

    def leave(self) -> None:
        """Everybody leaves, without waiting for an answer."""
        for session_id in self.session_ids:
            self._send(session_id, encode_numbered(LEAVE, self.sequence[session_id]))

    def send_noise(self) -> None:
        """Everybody sends what is no message, or comes from where they have not joined."""
        for session_id in self.session_ids:
            noise = self._random.randbytes(self._random.randrange(60))
            move = self._codec.encode_move(self._random.getrandbits(32), (0.0, 0.0))
            self._send(session_id, self._random.choice((noise, move)))

    def forget(self) -> None:
        """Let go of what was sent before the newest that is called saved."""
        for session_id, states in self.states.items():
            for number in [n for n in states if n < self.saved[session_id]]:
                self.numbers[session_id].pop(states.pop(number), None)

    def answers(self, session_id: int) -> list[Welcome | Receipt | Refused | Gone]:
        """What came in for one player."""
        answers = []
        while True:
            try:
                datagram = self._sockets[session_id].recv(2048, socket.MSG_DONTWAIT)
            except OSError:
                return answers
            answers.append(self._codec.decode_server(datagram[12:]))

    def listen(self) -> None:
        """Note what was said to anybody."""
        for session_id in self.session_ids:
            for answer in self.answers(session_id):
                if isinstance(answer, Receipt):
                    self.told += 1
                    self.applied[session_id] = max(self.applied[session_id], answer.applied)
                    self.saved[session_id] = max(self.saved[session_id], answer.saved)

    def play(self, seconds: float, rest: float = 0.0005) -> None:
        """Move and listen for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.move()
            self.listen()
            time.sleep(rest)
