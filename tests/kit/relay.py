"""A TCP relay on loopback before a server, which cuts connections or falls silent when told to."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Any


class Relay:
    """Passes bytes on between clients and a server, on a thread of its own.

    Args:
        port: of the server.

    Attributes:
        port: of the relay.
        watch: called with what each client sends, before it is passed on; returns what is to
            happen: ``pass``, ``cut`` before it is passed on, ``cut after`` it was, with no answer
            any more, or ``silence``, after which nothing of this connection is passed on.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.watch: Callable[[bytes], str] = lambda data: "pass"
        self._wake, self._woken = socket.socketpair()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._silent: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            reading = [each for each in self._peers if each not in self._silent]
            ready, _, _ = select.select([self._listening, self._woken, *reading], [], [])
            if self._woken in ready:
                break
            for each in ready:
                if each is self._listening:
                    self._accept()
                elif each in self._peers:
                    self._pass_on(each)
        for each in [self._listening, self._wake, self._woken, *self._peers]:
            each.close()

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._server))
        except OSError:
            client.close()
            return
        self._peers[client], self._peers[server] = server, client
        self._clients.add(client)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 20)
        except OSError:
            data = b""
        what = self.watch(data) if data and source in self._clients else "pass"
        if data and what in ("pass", "cut after", "silence"):
            with contextlib.suppress(OSError):
                self._peers[source].sendall(data)
        if what == "silence":
            self._silent |= {source, self._peers[source]}
        elif what != "pass" or not data:
            self._cut(source, wait=what == "cut after")

    def _cut(self, client: socket.socket, wait: bool) -> None:
        """Cut a connection; `wait` for the server to have answered, which is passed on to none."""
        server = self._peers[client]
        if wait:
            with contextlib.suppress(OSError):
                server.settimeout(10.0)
                server.recv(1 << 20)
        for each in (client, server):
            del self._peers[each]
            self._clients.discard(each)
            each.close()

    def close(self) -> None:
        """Cut everything."""
        self._wake.send(b"x")
        self._thread.join()


def once(word: bytes, what: str) -> Callable[[bytes], Any]:
    """What to do with the first message that has this word; all others pass."""
    left = [what]

    def watch(data: bytes) -> str:
        return left.pop() if left and word in data else "pass"

    return watch
