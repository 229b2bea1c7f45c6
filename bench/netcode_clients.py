"""A thousand netcode clients on one socket, each at an address of its own in 127.0.0.0/8.

A server knows clients by address.  With a socket each, a sender in Python would spend its time in
the system; so all share one, and say with each datagram which of the loopback's addresses it comes
from (``IP_PKTINFO`` of Linux).  Datagrams are sealed before the time begins in which they are sent:
the sender has the keys, and only the server is measured.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterator

import numpy as np

from bench.datagrams import Datagrams
from bench.ours import SCHEMA
from playerstate.tokens import connect_token
from playerstate.transports.netcode.client import Client, State
from playerstate.wire.messages import Codec

KEY, PROTOCOL_ID = bytes(range(32)), 0x1122334455667788
LIFETIME = 30
"""Seconds of a token; what a server that is told this takes in, but for its first second."""
TIMEOUT = 60
"""Seconds of silence that are forgiven: a sender that seals does not speak."""
AT_ONCE = 200
BEAT = 0.02
CONNECT_WITHIN = 20.0
_PKTINFO = 8
"""``IP_PKTINFO`` from Linux's ``in.h``; Python has no name for it before 3.14."""
_FIRST = int(ipaddress.IPv4Address("127.1.0.0"))
_CONTROL = np.dtype(
    [
        ("size", "<u8"),
        ("level", "<i4"),
        ("kind", "<i4"),
        ("interface", "<i4"),
        ("source", ">u4"),
        ("destination", ">u4"),
        ("padding", "<u4"),
    ]
)
"""``struct cmsghdr`` with a ``struct in_pktinfo`` in it."""


class NetcodeClients:
    """Clients from session id 1 up.

    Args:
        server: IP address and port.
        count: how many.
    """

    def __init__(self, server: tuple[str, int], count: int) -> None:
        self._server = server
        self._codec = Codec(SCHEMA)
        self._to = struct.pack(
            "<H2s4s8x", socket.AF_INET, struct.pack(">H", server[1]), socket.inet_aton(server[0])
        )
        controls = np.zeros(count, _CONTROL)
        controls["size"] = 28
        controls["kind"] = _PKTINFO
        controls["source"] = _FIRST + np.arange(1, count + 1)
        self._controls = controls
        self._clients: list[Client] = []
        self._welcomed: set[int] = set()
        self._count = count
        self._sequence = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self.socket.bind(("0.0.0.0", 0))
        self.socket.setblocking(False)

    def join(self) -> None:
        """Connect all of them, and have every player welcomed."""
        time.sleep(1.1)  # a server takes no token that may be older than it is, to the second
        for first in range(0, self._count, AT_ONCE):
            some = range(first, min(first + AT_ONCE, self._count))
            self._clients += [self._client(index + 1) for index in some]
            self._wait_for(some, self._connect)
            join = self._codec.encode_join(1, 0)
            for index in some:
                self._send(index, self._clients[index].send(join, time.monotonic()))
            self._wait_for(some, lambda index: index in self._welcomed)

    def rounds(self, count: int) -> Datagrams:
        """A sealed MOVE of each client in turn, so many times round."""
        now = time.monotonic()
        sealed = [client.send(move, now) for move in self._moves(count) for client in self._clients]
        return Datagrams(
            np.frombuffer(b"".join(sealed), np.uint8),
            [len(datagram) for datagram in sealed],
            self._to,
            np.tile(self._controls, count),
        )

    def _moves(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            self._sequence += 1
            yield self._codec.encode_move(self._sequence, (float(self._sequence), 1.0))

    def _client(self, session_id: int) -> Client:
        host, port = self._server
        token = connect_token(
            session_id,
            key=KEY,
            protocol_id=PROTOCOL_ID,
            addresses=[f"{host}:{port}"],
            expires=LIFETIME,
            timeout=TIMEOUT,
        )
        return Client(token, time.monotonic())

    def _connect(self, index: int) -> bool:
        """Do what is due of a client; whether it is connected."""
        client = self._clients[index]
        if (datagram := client.due(time.monotonic())) is not None:
            self._send(index, datagram)
        return client.state == State.CONNECTED

    def _wait_for(self, some: range, is_done: Callable[[int], bool]) -> None:
        deadline = time.monotonic() + CONNECT_WITHIN
        while [index for index in some if not is_done(index)]:
            assert time.monotonic() < deadline, "the server accepts no client"
            time.sleep(BEAT)
            self._hear()

    def _send(self, index: int, datagram: bytes) -> None:
        info = self._controls[index].tobytes()[16:28]
        self.socket.sendmsg([datagram], [(socket.IPPROTO_IP, _PKTINFO, info)], 0, self._server)

    def _hear(self) -> None:
        try:
            while True:
                data, [(_, _, info)], _, source = self.socket.recvmsg(2048, 64)
                index = int.from_bytes(info[8:12], "big") - _FIRST - 1
                client = self._clients[index]
                if client.receive(data, source, time.monotonic()) is not None:
                    self._welcomed.add(index)
        except BlockingIOError:
            return
