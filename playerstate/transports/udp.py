"""One UDP port, as every transport wants it: bound, with a large buffer, its drops counted."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from playerstate.service import PlayerStateService
from playerstate.transports.recvmmsg import BatchProtocol, read_many

RECEIVE_BUFFER = 4 * 2**20
"""Bytes asked of the system for datagrams that wait to be read."""
MAX_THROUGHPUT = 16 * 2**10
"""Bytes read in one turn of the reactor, where they are read one by one; with Twisted's 256 KiB, a
flood would hold up every timer for as long as it takes to work through that."""
DROPS_LOOK_EVERY = 10.0

_SO_RCVBUFFORCE = 33
"""From Linux's ``asm-generic/socket.h``; Python has no name for it."""
_log = Logger()


class UDPPort:
    """A port that is bound as soon as this is made.  Reactor thread only.

    Args:
        reactor: provides ``IReactorUDP``.
        service: a started service, whose clock is used, and whose ledger counts the drops.
        protocol: gets the datagrams.
        number: the port's number; 0 for any that is free.
        interface: the IP address to listen on.
        max_datagram: bytes of the longest datagram that means anything.
        name: of the transport, for the log.

    Raises:
        twisted.internet.error.CannotListenError: it cannot be bound.
    """

    def __init__(
        self,
        reactor: Any,
        service: PlayerStateService,
        protocol: BatchProtocol,
        number: int,
        interface: str,
        max_datagram: int,
        name: str,
    ) -> None:
        # Twisted cuts what is longer without a word: one byte more shows that it was.
        self._port = reactor.listenUDP(number, protocol, interface, max_datagram + 1)
        self._port.maxThroughput = MAX_THROUGHPUT
        read_many(self._port)
        granted = _enlarge_buffer(self._port.getHandle())
        self._ledger = service.ledger
        self._drops = 0
        self._looks = service.clock.every(DROPS_LOOK_EVERY, self._note_drops)
        _log.info(
            "listening on udp {host}:{port}, {name}; receive buffer {granted} bytes"
            " ({asked} asked for)",
            host=self.host,
            port=self.number,
            name=name,
            granted=granted,
            asked=RECEIVE_BUFFER,
        )

    @property
    def host(self) -> str:
        """The IP address bound."""
        host: str = self._port.getHost().host
        return host

    @property
    def number(self) -> int:
        """The number of the port bound."""
        number: int = self._port.getHost().port
        return number

    def close(self) -> Deferred[None]:
        """Close the port; the Deferred fires when that is done."""
        self._looks.cancel()
        self._note_drops()
        return maybeDeferred(self._port.stopListening)

    def _note_drops(self) -> None:
        drops = _kernel_drops(self._port.fileno())
        self._ledger.kernel_drops += drops - self._drops
        self._drops = drops


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
