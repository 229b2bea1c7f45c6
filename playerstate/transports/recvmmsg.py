"""Many datagrams a system call: Linux's ``recvmmsg(2)``, in place of Twisted's reading one by one.

Half of the cost of a small datagram is the call that reads it.  `BatchReader` reads all that wait,
`DATAGRAMS` at most, into memory that is allocated once, and passes them to a `BatchProtocol`
together.  The GIL is held meanwhile: the call never blocks, and releasing the GIL would cost more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any

import numpy as np
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port

from playerstate.log import PrintableLogger
from playerstate.sparing import SparingLogger

DATAGRAMS = 128
"""The most read in one turn of the reactor: processing them takes half a millisecond."""
ADDRESSES_REMEMBERED = 65_536
"""Senders whose parsed addresses are cached; the cache is cleared when it is full."""

_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
"""From Linux's ``in.h`` and ``in6.h``; Python has no name for the first before 3.14."""
_CONTROL = struct.Struct("@Nii")
"""``struct cmsghdr``."""
_PASSED_OVER = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ECONNREFUSED})
_log = PrintableLogger()


Address = tuple[Any, ...]
"""Where a datagram came from, passed back to send: host and port; for a link-local IPv6 sender its
flow and scope as well; on a port that is bound to all addresses also the control message that names
the local address that the sender used."""


class BatchProtocol(DatagramProtocol):
    """A protocol that receives datagrams in batches.

    Attributes:
        lost: called when the port is closed, by the program or by the system.
    """

    noisy = False
    lost: Callable[[], object] | None = None

    def startProtocol(self) -> None:
        """The port is bound, for the first time or again."""
        port: Any = self.transport
        self._write: Callable[[bytes, Address], object] = port.write
        if is_for_all_addresses(port):
            self._write = partial(_send, port.getHandle(), port.write)

    def stopProtocol(self) -> None:
        """The port is closed: sending fails from now on."""
        self._write = _refuse
        if self.lost is not None:
            self.lost()

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """Receive a single datagram."""
        self.datagrams_received([datagram], [address])

    def datagrams_received(self, datagrams: list[bytes], addresses: list[Any]) -> None:
        """Receive datagrams, in the order of arrival, each with its sender's address."""
        raise NotImplementedError


def is_wildcard(interface: str) -> bool:
    """Whether an interface stands for all of the machine's addresses, and so names none.

    Raises:
        ValueError: it is not an IP address.
    """
    return ip_address(interface).is_unspecified


def is_for_all_addresses(port: Any) -> bool:
    """Whether this is a Twisted port that is bound to all addresses of the machine."""
    return isinstance(port, Port) and is_wildcard(port.interface or "0.0.0.0")


def _send(
    handle: socket.socket, write: Callable[..., object], datagram: bytes, address: Address
) -> None:
    """Send from the local address that the peer used, if it is known."""
    if len(address) < 5:
        write(datagram, address)
    else:
        to = address[:4] if ":" in address[0] else address[:2]
        handle.sendmsg([datagram], [address[4]], 0, to)


def _refuse(datagram: bytes, address: Address) -> None:
    raise OSError(errno.ENOTCONN, "the port is closed")


class _IOVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IOVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """``struct mmsghdr``: where a datagram is stored, and its length."""

    _fields_ = (("header", _Header), ("received", ctypes.c_uint32))


def _find_recvmmsg() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[..., int] = ctypes.PyDLL(None, use_errno=True).recvmmsg
    except (OSError, AttributeError):
        return None
    return found


_recvmmsg = _find_recvmmsg()


def read_many(port: Any) -> None:
    """Make a Twisted port read many datagrams a call from now on, where the system can.

    Raises:
        CannotListenError: the system cannot, and the port is bound to all addresses.
    """
    if _recvmmsg is not None and isinstance(port, Port):
        port.doRead = BatchReader(port, _recvmmsg).read  # type: ignore[method-assign]
    elif is_for_all_addresses(port):
        raise CannotListenError(
            port.interface,
            port.getHost().port,
            OSError(
                errno.ENOSYS,
                "without recvmmsg an answer might be sent from another address than the client"
                " used; listen on each address of this machine separately",
            ),
        )


class BatchReader:
    """Reads the datagrams of one port.  Reactor thread only.

    Args:
        port: bound, and its protocol, a `BatchProtocol`, started.
        recvmmsg: the C library's function.
    """

    def __init__(self, port: Port, recvmmsg: Callable[..., int]) -> None:
        self._recvmmsg = recvmmsg
        self._fd = port.fileno()
        self._received = port.protocol.datagrams_received
        self._size = size = port.maxPacketSize
        is_ipv6 = port.addressFamily == socket.AF_INET6
        self._read_address = _read_ipv6 if is_ipv6 else _read_ipv4
        self._data = ctypes.create_string_buffer(size * DATAGRAMS)
        # A sender's address, and behind it the control message with the local address.
        name_size, row_size, control_size = (28, 32, 40) if is_ipv6 else (16, 16, 32)
        if not is_for_all_addresses(port):
            control_size = 0
        elif is_ipv6:
            port.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            port.socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._control_size = control_size
        row_size += control_size
        self._rows = ctypes.create_string_buffer(row_size * DATAGRAMS)
        self._names = np.frombuffer(memoryview(self._rows), f"V{row_size}")
        self._vectors = (_IOVector * DATAGRAMS)()
        self._messages: Any = (_Message * DATAGRAMS)()
        data, first_row = ctypes.addressof(self._data), ctypes.addressof(self._rows)
        for number, (vector, message) in enumerate(zip(self._vectors, self._messages, strict=True)):
            vector.base, vector.length = data + number * size, size
            row = first_row + number * row_size
            message.header = _Header(name=row, name_length=name_size, vector_count=1)
            message.header.vectors = ctypes.pointer(vector)
            message.header.control = row + row_size - control_size if control_size else None
        words = np.frombuffer(memoryview(self._messages), np.uint64).reshape(DATAGRAMS, -1)
        self._control_lengths = words[:, _Header.control_length.offset // 8]
        counts = np.frombuffer(memoryview(self._messages), np.uint32).reshape(DATAGRAMS, -1)
        self._lengths = counts[:, _Message.received.offset // 4]
        self._view = memoryview(self._data)
        self._addresses: dict[bytes, Address] = {}
        self._lines = SparingLogger(_log)

    def read(self) -> OSError | None:
        """Read the waiting datagrams and pass them to the protocol; log what that raises.

        Returns:
            The error of an unusable socket, on which the reactor closes the port; else None.
        """
        if self._control_size:
            # The system overwrites the lengths, and perhaps not all of the rows.
            self._control_lengths[:] = self._control_size
            ctypes.memset(self._rows, 0, len(self._rows))
        count = self._recvmmsg(self._fd, self._messages, DATAGRAMS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in _PASSED_OVER:
                return None
            return OSError(number, os.strerror(number))
        view, size = self._view, self._size
        datagrams = [
            view[at : at + length].tobytes()
            for at, length in zip(
                range(0, count * size, size), self._lengths[:count].tolist(), strict=True
            )
        ]
        names = self._names[:count].tolist()
        addresses: list[Any] = list(map(self._addresses.get, names))
        if None in addresses:
            addresses = list(map(self._address, names))
        try:
            self._received(datagrams, addresses)
        except Exception:  # as in Twisted's own reading, a bug must not stop the reading
            self._lines.failure("received datagrams could not be handled")
        return None

    def _address(self, name: bytes) -> Address:
        address = self._addresses.get(name)
        if address is None:
            if len(self._addresses) == ADDRESSES_REMEMBERED:
                self._addresses.clear()
            address = self._addresses[name] = self._read_address(name)
        return address


def _read_ipv4(row: bytes) -> Address:
    """Read a ``struct sockaddr_in``, and the ``struct in_pktinfo`` behind it, if there is one."""
    host, port = socket.inet_ntoa(row[4:8]), int.from_bytes(row[2:4])
    if row[16:] and _CONTROL.unpack_from(row, 16)[1:] == (socket.IPPROTO_IP, _IP_PKTINFO):
        # The system chooses the interface; the address is the one to answer from.
        info = bytes(4) + row[36:40] + bytes(4)
        return host, port, 0, 0, (socket.IPPROTO_IP, _IP_PKTINFO, info)
    return host, port


def _read_ipv6(row: bytes) -> Address:
    """Read a ``struct sockaddr_in6``, and the ``struct in6_pktinfo`` behind it, if there is one."""
    host, port = socket.inet_ntop(socket.AF_INET6, row[8:24]), int.from_bytes(row[2:4])
    scope = int.from_bytes(row[24:28], sys.byteorder)
    if row[32:] and _CONTROL.unpack_from(row, 32)[1:] == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
        asked, interface = row[48:64], row[64:68]
        if not ip_address(asked).is_link_local:
            interface = bytes(4)  # the system chooses; a packet may arrive on another
        control = (socket.IPPROTO_IPV6, _IPV6_PKTINFO, asked + interface)
        return host, port, 0, scope, control
    return (host, port, 0, scope) if scope else (host, port)
