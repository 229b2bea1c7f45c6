"""The plain transport: a datagram is the session id and a message.

It believes the session id as sent, pinned to the address that joined, and so is for loopback and
trusted networks only.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from playerstate.gateway import Gateway
from playerstate.messages import MAX_JOIN_SIZE
from playerstate.service import MAX_SESSION_ID

MAX_DATAGRAM = 8 + MAX_JOIN_SIZE
RECEIVE_BUFFER = 4 * 2**20
"""Bytes asked of the system for datagrams that wait to be read."""
MAX_THROUGHPUT = 16 * 2**10
"""Bytes read in one turn of the reactor; with Twisted's 256 KiB, a flood would hold up every timer
for as long as it takes to work through that."""
DROPS_LOOK_EVERY = 10.0

_SO_RCVBUFFORCE = 33
"""From Linux's ``asm-generic/socket.h``; Python has no name for it."""
_ID = struct.Struct("<Q")
_log = Logger()


class PlainProtocol(DatagramProtocol):
    """Carries messages between one UDP port and a gateway."""

    noisy = False

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._received = gateway.received
        self._unpack_id = _ID.unpack_from

    def startProtocol(self) -> None:
        """The port is bound."""
        assert self.transport is not None
        self._write = self.transport.write

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """A datagram came in."""
        size = len(datagram)
        if size < 9:
            return self._gateway.malformed("too_short")
        if size > MAX_DATAGRAM:
            return self._gateway.malformed("too_long")
        session_id = self._unpack_id(datagram)[0]
        if not 1 <= session_id <= MAX_SESSION_ID:
            return self._gateway.malformed("session_id")
        self._received(self, session_id, address, datagram, 8)

    def send(self, session_id: int, peer: Any, message: bytes) -> None:
        """Send a message to an address; what the system will not take is counted, and lost."""
        try:
            self._write(_ID.pack(session_id) + message, peer)
        except OSError:
            self._gateway.service.ledger.unsent += 1


class PlainService(Service):
    """The plain transport on one UDP port.

    Args:
        gateway: whose service is started before this one.
        port: the port's number; 0 for any that is free.
        interface: the address to listen on.
        reactor: provides ``IReactorUDP``; the global reactor by default.
    """

    def __init__(
        self, gateway: Gateway, port: int, interface: str = "127.0.0.1", reactor: Any = None
    ) -> None:
        self._gateway = gateway
        self._number = port
        self._interface = interface
        self._reactor = reactor

    def startService(self) -> None:
        """Bind the port and begin to answer.

        Raises:
            twisted.internet.error.CannotListenError: the port cannot be bound.
        """
        reactor = self._reactor
        if reactor is None:
            from twisted.internet import reactor
        # Twisted cuts what is longer without a word: one byte more shows that it was.
        self._port = reactor.listenUDP(
            self._number, PlainProtocol(self._gateway), self._interface, MAX_DATAGRAM + 1
        )
        self._gateway.start()
        super().startService()
        self._port.maxThroughput = MAX_THROUGHPUT
        granted = _enlarge_buffer(self._port.getHandle())
        self._drops = self._gateway.service.clock.every(DROPS_LOOK_EVERY, self._note_drops)
        address = self._port.getHost()
        _log.info(
            "listening on udp {host}:{port}, plain; receive buffer {granted} bytes"
            " ({asked} asked for)",
            host=address.host,
            port=address.port,
            granted=granted,
            asked=RECEIVE_BUFFER,
        )

    @property
    def port(self) -> int:
        """The number of the port bound."""
        number: int = self._port.getHost().port
        return number

    def stopService(self) -> Deferred[None]:
        """Save every player, tell them, and close the port."""
        if not self.running:
            return succeed(None)
        super().stopService()
        return self._gateway.close().addCallback(self._close_port)

    def _close_port(self, result: object) -> Deferred[None]:
        self._drops.cancel()
        self._note_drops()
        return maybeDeferred(self._port.stopListening)

    def _note_drops(self) -> None:
        self._gateway.service.ledger.kernel_drops = _kernel_drops(self._port.fileno())


def _enlarge_buffer(handle: socket.socket) -> int:
    """Ask for a large receive buffer; return what was granted, in bytes."""
    try:
        handle.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:  # it takes CAP_NET_ADMIN; without it the system's limit holds
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    granted = handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted // 2  # Linux doubles it, for its own bookkeeping


def _kernel_drops(fd: int) -> int:
    """Datagrams that the system dropped for want of buffer, where it tells: in ``/proc/net``."""
    inode = str(os.fstat(fd).st_ino)
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            with open(table) as lines:
                for line in lines:
                    columns = line.split()
                    if columns[9] == inode:
                        return int(columns[-1])
        except OSError:
            continue
    return 0
