"""One UDP port, as every transport wants it: bound, with a large buffer, its drops counted."""

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
from playerstate.transports.recvmmsg import BatchProtocol, read_many

RECEIVE_BUFFER = 4 * 2**20
"""Bytes asked of the system for datagrams that wait to be read."""
MAX_THROUGHPUT = 16 * 2**10
"""Bytes read in one turn of the reactor, where they are read one by one; with Twisted's 256 KiB, a
flood would hold up every timer for as long as it takes to work through that."""
DROPS_LOOK_EVERY = 10.0
LOOK_EVERY = 1.0
"""Seconds between two looks whether the socket is still alive."""
LISTEN_AGAIN_FIRST = 0.1
LISTEN_AGAIN_LONGEST = 5.0
"""Seconds to wait before a port that was lost is bound again, doubled each time; a port that has
lived for the longest begins at the first."""

_SO_RCVBUFFORCE = 33
"""From Linux's ``asm-generic/socket.h``; Python has no name for it."""
_log = PrintableLogger()


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

    Where the system closes the port it is bound again, at the same number, until that succeeds.

    Attributes:
        host: the IP address bound.
        number: the number of the port bound.

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
        self._reactor = reactor
        self._clock = service.clock
        self._ledger = service.ledger
        self._protocol = protocol
        self._asked = number, interface, max_datagram
        self._name = name
        self._is_closing = False
        self._delay = LISTEN_AGAIN_FIRST
        self._retry: IDelayedCall | None = None
        self._listen()
        protocol.lost = self._lost
        self._looks = [
            self._clock.every(DROPS_LOOK_EVERY, self._note_drops),
            self._clock.every(LOOK_EVERY, self._look),
        ]

    def _listen(self) -> None:
        number, interface, max_datagram = self._asked
        # Twisted cuts what is longer without a word: one byte more shows that it was.
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
            " ({asked} asked for)",
            host=self.host,
            port=self.number,
            name=self._name,
            granted=granted,
            asked=RECEIVE_BUFFER,
        )

    def close(self) -> Deferred[None]:
        """Close the port; the Deferred fires when that is done."""
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
        """The port is closed; unless that was asked for, listen again soon."""
        self._is_open = False
        if self._is_closing:
            return
        if self._clock.seconds() - self._open_since >= LISTEN_AGAIN_LONGEST:
            self._delay = LISTEN_AGAIN_FIRST
        self._log(
            "the system closed the port; players are not heard. Listening again in {delay:g} s"
        )
        self._listen_later()

    def _listen_later(self) -> None:
        self._retry = self._clock.callLater(self._delay, self._listen_again)
        self._delay = min(2 * self._delay, LISTEN_AGAIN_LONGEST)

    def _listen_again(self) -> None:
        try:
            self._listen()
        except CannotListenError as error:
            self._log(
                "cannot listen again: {error}; players are not heard. Free the port, or bring the"
                " address back. Trying again in {delay:g} s",
                error=error.socketError,
            )
            self._listen_later()
        else:
            self._log("listening again; players are heard")

    def _log(self, what: str, **values: object) -> None:
        """Say what became of the port, and how long until it is bound again where it is lost."""
        _log.critical(
            "udp {host}:{port}, {name}: " + what,
            host=self.host,
            port=self.number,
            name=self._name,
            delay=self._delay,
            **values,
        )

    def _look(self) -> None:
        """Let go of a socket that is dead without the reactor having been told."""
        if not self._is_open:
            return
        port, fd = self._port, self._port.fileno()
        if _file_of(fd) != self._file:
            try:
                port.stopReading()
            except OSError:
                # epoll has forgotten the descriptor, and Twisted's reactor stumbles over that; it
                # would take the next socket of this number for one that it reads already.
                port.reactor._reads.discard(fd)
            # The number may be another file's by now, which is not ours to close.
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
    """Which file a descriptor stands for, or None where it is closed."""
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
    """Ask for a large receive buffer; return what was granted, in bytes."""
    try:
        handle.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:  # it takes CAP_NET_ADMIN; without it the system's limit holds
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    granted = handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted // 2  # Linux doubles it, for its own bookkeeping


def _kernel_drops(fd: int) -> int:
    """Datagrams that the system dropped for want of buffer, where it tells: in ``/proc/net``."""
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
