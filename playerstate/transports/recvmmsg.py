"""Many datagrams a system call: Linux's ``recvmmsg(2)``, in place of Twisted's reading one by one.

Half of what a small datagram costs is the call that reads it.  `BatchReader` asks for all that
wait, `DATAGRAMS` at most, into memory that is made once, and a `BatchProtocol` gets them together.
The GIL is kept meanwhile: the call never waits, and to give the GIL away would cost more than that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port
from twisted.logger import Logger

DATAGRAMS = 128
"""Read in one turn of the reactor at most: what comes of them is the work of half a millisecond."""
ADDRESSES_REMEMBERED = 65_536
"""Senders whose addresses need not be spelled out again; forgotten together when there are more."""

_PASSED_OVER = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ECONNREFUSED})
_log = Logger()


class BatchProtocol(DatagramProtocol):
    """A protocol that takes in together what came at the same time."""

    noisy = False

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """A datagram came in by itself."""
        self.datagrams_received([datagram], [address])

    def datagrams_received(self, datagrams: list[bytes], addresses: list[Any]) -> None:
        """Take in datagrams, in the order in which they came, each with its sender's address."""
        raise NotImplementedError


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
    """``struct mmsghdr``: where a datagram goes, and how long it was."""

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
    """Have a Twisted port read many datagrams a call from now on, where the system can."""
    if _recvmmsg is not None and isinstance(port, Port):
        port.doRead = BatchReader(port, _recvmmsg).read  # type: ignore[method-assign]


class BatchReader:
    """Reads the datagrams of one port.  Reactor thread only.

    Args:
        port: bound, and its protocol, a `BatchProtocol`, started.
        recvmmsg: the C library's.
    """

    def __init__(self, port: Port, recvmmsg: Callable[..., int]) -> None:
        self._recvmmsg = recvmmsg
        self._fd = port.fileno()
        self._received = port.protocol.datagrams_received
        self._size = size = port.maxPacketSize
        is_ipv6 = port.addressFamily == socket.AF_INET6
        self._read_address = _read_ipv6 if is_ipv6 else _read_ipv4
        self._name_size = 28 if is_ipv6 else 16
        self._data = ctypes.create_string_buffer(size * DATAGRAMS)
        names = ctypes.create_string_buffer(self._name_size * DATAGRAMS)
        self._names = np.frombuffer(names, f"V{self._name_size}")
        self._vectors = (_IOVector * DATAGRAMS)()
        self._messages = (_Message * DATAGRAMS)()
        data, first_name = ctypes.addressof(self._data), ctypes.addressof(names)
        for number, (vector, message) in enumerate(zip(self._vectors, self._messages, strict=True)):
            vector.base, vector.length = data + number * size, size
            name = first_name + number * self._name_size
            message.header = _Header(name, self._name_size, ctypes.pointer(vector), 1)
        self._lengths = np.frombuffer(self._messages, np.uint32).reshape(DATAGRAMS, -1)[
            :, _Message.received.offset // 4
        ]
        self._view = memoryview(self._data)
        self._addresses: dict[bytes, tuple[str, int]] = {}

    def read(self) -> None:
        """Read what waits, and give it to the protocol; what that raises is logged."""
        count = self._recvmmsg(self._fd, self._messages, DATAGRAMS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in _PASSED_OVER:
                return
            raise OSError(number, os.strerror(number))
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
        except Exception:  # as with Twisted's own reading, a bug keeps nobody from reading on
            _log.failure("datagrams could not be taken in")

    def _address(self, name: bytes) -> tuple[str, int]:
        address = self._addresses.get(name)
        if address is None:
            if len(self._addresses) == ADDRESSES_REMEMBERED:
                self._addresses.clear()
            address = self._addresses[name] = self._read_address(name)
        return address


def _read_ipv4(name: bytes) -> tuple[str, int]:
    """IP address and port of a ``struct sockaddr_in``."""
    return socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4])


def _read_ipv6(name: bytes) -> tuple[str, int]:
    """IP address and port of a ``struct sockaddr_in6``."""
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), int.from_bytes(name[2:4])
