"""One UDP port, as every transport needs it: bound, with a large buffer, its drops counted."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from playerstate.log import PrintableLogger
from playerstate.players.service import PlayerStateService
from playerstate.sparing import SparingLogger
from playerstate.transports.recvmmsg import BatchProtocol, read_many

RECEIVE_BUFFER = 4 * 2**20
"""Bytes of the receive buffer that is requested from the system."""
MAX_THROUGHPUT = 16 * 2**10
"""Bytes read in one turn of the reactor, where datagrams are read one at a time; with Twisted's 256
KiB, a flood would delay every timer by the time that processing them takes."""
DROPS_LOOK_EVERY = 10.0
"""Seconds between two readings of the number of datagrams that the system dropped."""
LOOK_EVERY = 1.0
"""Seconds between two checks that the socket is still alive."""
LISTEN_AGAIN_FIRST, LISTEN_AGAIN_LONGEST = 0.1, 5.0
"""Seconds of backoff before a lost port is bound again, doubled each time up to the longest; reset
once a port has been open for that long."""

LOST_LINES = 10
"""Log lines of a kind a minute about a port that was lost; it is tried more often than that."""

_SO_RCVBUFFORCE = 33
"""From Linux's ``asm-generic/socket.h``; Python has no name for it."""
_log = PrintableLogger()


class UDPPort:
    """A port, bound by the constructor.  Reactor thread only.

    Args:
        reactor: provides ``IReactorUDP``.
        service: a started service: its clock is used, and its ledger counts the drops.
        protocol: receives the datagrams.
        number: the port's number; 0 for any free port.
        interface: the IP address to listen on.
        max_datagram: bytes of the longest valid datagram.
        name: of the transport, for the log.

    If the system closes the port, it is bound again at the same number, with retries until that
    succeeds.

    Attributes:
        host: the bound IP address.
        number: the number of the bound port.

    Raises:
        twisted.internet.error.CannotListenError: the port cannot be bound.
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
        self._reactor = reactor
        self._clock = service.clock
        self._ledger = service.ledger
        self._protocol = protocol
        self._asked = number, interface, max_datagram
        self._name = name
        self._is_closing = False
        self._delay = LISTEN_AGAIN_FIRST
        self._retry: IDelayedCall | None = None
        self._lines = SparingLogger(_log, self._clock.seconds, lines=LOST_LINES)
        self._listen()
        protocol.lost = self._lost
        self._looks = [
            self._clock.every(DROPS_LOOK_EVERY, self._note_drops),
            self._clock.every(LOOK_EVERY, self._look),
        ]

    def _listen(self) -> None:
        number, interface, max_datagram = self._asked
        # Twisted truncates longer datagrams silently: one byte more shows that one was longer.
        port = self._reactor.listenUDP(number, self._protocol, interface, max_datagram + 1)
        port.maxThroughput = MAX_THROUGHPUT
        try:
            read_many(port)
        except CannotListenError:
            port.stopListening()
            raise
        granted = _enlarge_buffer(port.getHandle())
        address = port.getHost()
        self._port = port
        self.host: str = address.host
        self.number: int = address.port
        self._asked = self.number, interface, max_datagram
        self._drops = 0
        self._is_open = True
        self._open_since = self._clock.seconds()
        self._file = _file_of(port.fileno())
        _log.info(
            "listening on udp {host}:{port}, {name}; receive buffer {granted} bytes"
            " ({asked} requested)",
            host=self.host,
            port=self.number,
            name=self._name,
            granted=granted,
            asked=RECEIVE_BUFFER,
        )

    def close(self) -> Deferred[None]:
        """Close the port; the Deferred fires when it is closed."""
        self._is_closing = True
        for look in self._looks:
            look.cancel()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if not self._is_open:
            return succeed(None)
        self._note_drops()
        return maybeDeferred(self._port.stopListening)

    def _lost(self) -> None:
        """The port is closed; unless `close` was called, listen again soon."""
        self._is_open = False
        if self._is_closing:
            return
        if self._clock.seconds() - self._open_since >= LISTEN_AGAIN_LONGEST:
            self._delay = LISTEN_AGAIN_FIRST
        self._log("the system closed the port; nothing is received. Listening again in {delay:g} s")
        self._listen_later()

    def _listen_later(self) -> None:
        self._retry = self._clock.callLater(self._delay, self._listen_again)
        self._delay = min(2 * self._delay, LISTEN_AGAIN_LONGEST)

    def _listen_again(self) -> None:
        try:
            self._listen()
        except CannotListenError as error:
            self._log(
                "cannot listen again: {error}; nothing is received. Free the port, or bring the"
                " address back. Trying again in {delay:g} s",
                error=error.socketError,
            )
            self._listen_later()
        else:
            self._log("listening again; datagrams are received")

    def _log(self, what: str, error: object = "") -> None:
        """Log what happened to the port."""
        self._lines.critical(
            "udp {host}:{port}, {name}: " + what,
            host=self.host,
            port=self.number,
            name=self._name,
            delay=self._delay,
            error=error,
        )

    def _look(self) -> None:
        """Close a port whose socket is dead without the reactor having noticed."""
        if not self._is_open:
            return
        port, fd = self._port, self._port.fileno()
        if _file_of(fd) != self._file:
            try:
                port.stopReading()
            except OSError:
                # epoll has removed the descriptor, so Twisted's reactor fails halfway; it would
                # take the next socket with this number for one that it reads already.
                port.reactor._reads.discard(fd)
            # The number may belong to another file by now, which must not be closed here.
            port.getHandle().detach()
        elif not _is_dead(fd):
            return
        port.connectionLost(Failure(ConnectionLost()))

    def _note_drops(self) -> None:
        if not self._is_open:
            return
        drops = _kernel_drops(self._port.fileno())
        self._ledger.kernel_drops += drops - self._drops
        self._drops = drops


def _file_of(fd: int) -> tuple[int, int] | None:
    """The file of a descriptor, as device and inode; None if the descriptor is closed."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_dead(fd: int) -> bool:
    """Whether a socket was shut down."""
    look = select.poll()
    look.register(fd, 0)
    return any(events & (select.POLLHUP | select.POLLNVAL) for _, events in look.poll(0))


def _enlarge_buffer(handle: socket.socket) -> int:
    """Request a large receive buffer; return the bytes granted."""
    try:
        handle.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:  # it needs CAP_NET_ADMIN; without it the system's limit applies
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    granted = handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted // 2  # Linux doubles it, for its own overhead


def _kernel_drops(fd: int) -> int:
    """Datagrams that the system dropped from a full buffer, by ``/proc/net``; 0 where unknown."""
    if (file := _file_of(fd)) is None:
        return 0
    inode = str(file[1])
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
