"""A real server in a process of its own, and a plain UDP client, for tests that need both."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from playerstate import PlayerState, StateSchema
from playerstate.wire.messages import (
    LEAVE,
    PING,
    Codec,
    Gone,
    Receipt,
    Refused,
    State,
    Welcome,
    encode_numbered,
)

PATIENCE = 20.0
"""Seconds after which a test gives up on what should have come long before."""

TWISTD = (
    # Ctrl-C is ignored by what a shell's script starts in the background.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " from twisted.scripts.twistd import run; run()"
)
TWIST = "from twisted.application.twist._twist import Twist; Twist.main()"

EPOLL_WAITS = {"22", "232", "281"}
"""The numbers of the system calls in which an epoll reactor waits, on 64-bit ARM and x86."""

Answer = Welcome | Receipt | Refused | Gone


def run_to_end(
    directory: str, *arguments: str, script: str = TWISTD, by: Sequence[str] = ()
) -> tuple[int, str]:
    """Run ``twistd`` where it is expected to end by itself; its status and all it printed.

    It is run by the command `by`, if there is one, such as ``nice``.
    """
    done = subprocess.run(
        [*by, sys.executable, "-c", script, *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        text=True,
    )
    return done.returncode, done.stdout


class Server:
    """``twistd -n playerstate`` on a free port, with its log at hand.

    Args:
        directory: where it runs, and so where its database is.
        options: of the plugin, beside ``--listen``.
        script: what the interpreter runs: twistd, or twist.
    """

    def __init__(self, directory: str, *options: str, script: str = TWISTD) -> None:
        own = ["-n", "--pidfile=server.pid"] if script == TWISTD else ["--log-format=text"]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-u",
                "-c",
                script,
                *own,
                "playerstate",
                "--listen",
                "udp:0",
                *options,
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        try:
            found = self.wait_for(r"listening on udp ([\d.]+):(\d+)")
        except BaseException:
            self.kill()
            raise
        self.address = (found[1], int(found[2]))

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._arrived.put(line.rstrip("\n"))
        self._arrived.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a log line that was not waited for before, and return its match."""
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._arrived.get(timeout=max(0.01, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"ended before {pattern!r}: {self.lines}")
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found

    def has_said(self, pattern: str) -> None:
        """See that a log line that was waited for, or passed by, matches this."""
        assert any(re.search(pattern, line) for line in self.lines), (pattern, self.lines)

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        """Hold the server stopped at a moment at which its reactor waits for something to do."""
        deadline = time.monotonic() + PATIENCE
        while True:
            os.kill(self.pid, signal.SIGSTOP)
            while self._in_proc("stat").rpartition(")")[2].split()[0] != "T":
                time.sleep(0.001)
            if self._in_proc("syscall").split()[0] in EPOLL_WAITS:
                break
            os.kill(self.pid, signal.SIGCONT)
            assert time.monotonic() < deadline, "the server is never idle"
            time.sleep(0.01)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def _in_proc(self, name: str) -> str:
        with open(f"/proc/{self.pid}/{name}", encoding="ascii") as lines:
            return lines.read()

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """End the server by a signal; return its exit status, with all lines in `lines`."""
        self._process.send_signal(signal_number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of the server; return its exit status."""
        status = self._process.wait(PATIENCE)
        self._reading.join(PATIENCE)
        while (line := self._arrived.get(timeout=PATIENCE)) is not None:
            self.lines.append(line)
        self._arrived.put(None)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status

    def kill(self) -> None:
        """End the server at once, if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._reading.join(PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Player:
    """One player on a blocking socket of its own."""

    def __init__(self, address: tuple[str, int], session_id: int, state: type = PlayerState):
        self._schema = StateSchema.of(state)
        self._codec = Codec(self._schema)
        self._id = struct.pack("<Q", session_id)
        self._nonce = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(address)
        self._socket.settimeout(PATIENCE)
        self.sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._socket.send(self._id + struct.pack("<I", self._nonce) + message)

    def answer(self) -> Answer:
        """The next message for this player."""
        while True:
            datagram = self._socket.recv(2048)
            if datagram[:8] == self._id:
                answer = self._codec.decode_server(datagram[12:])
                if not isinstance(answer, State):
                    return answer
                self.send(self._codec.encode_seen(answer.number, self.sequence))

    def join(self) -> Welcome:
        """Join and be welcomed."""
        nonce = self._nonce = int.from_bytes(os.urandom(4), "little")
        self.send(self._codec.encode_join(nonce, self.sequence))
        while True:
            answer = self.answer()
            if isinstance(answer, Welcome) and answer.nonce == nonce:
                return answer
            if isinstance(answer, Refused):
                raise AssertionError(f"refused: {answer}")

    def move(self, *values: Any) -> None:
        """Send where this player is now."""
        self.sequence += 1
        self.send(self._codec.encode_move(self.sequence, values))

    def wait_applied(self) -> None:
        """Wait until the last move is applied."""
        self.send(encode_numbered(PING, self.sequence))
        while True:
            answer = self.answer()
            if isinstance(answer, Receipt) and answer.applied == self.sequence:
                return

    def wait_saved(self) -> None:
        """Wait for the receipt that says the last move is saved, asking now and then."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._socket.settimeout(0.5)
                answer = self.answer()
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
                self.send(encode_numbered(PING, self.sequence))
                continue
            finally:
                self._socket.settimeout(PATIENCE)
            if isinstance(answer, Receipt) and answer.saved == self.sequence:
                return

    def leave(self) -> None:
        """Leave, and wait until that is saved."""
        self.send(encode_numbered(LEAVE, self.sequence))
        self.wait_saved()
