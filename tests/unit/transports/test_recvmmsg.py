"""Many datagrams a system call: what the protocol gets is what Twisted would give it."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from functools import partial
from typing import Any

from twisted.internet import reactor as untyped
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate.testing import MemoryReactor
from playerstate.transports import recvmmsg
from playerstate.transports.recvmmsg import DATAGRAMS, BatchProtocol, BatchReader, read_many

reactor: Any = untyped
MAX_DATAGRAM = 100


class Notes(BatchProtocol):
    """Notes what it gets, and stumbles over some of it."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Any]] = []

    def datagrams_received(self, datagrams: list[bytes], addresses: list[Any]) -> None:
        """Datagrams came in."""
        if b"stumble" in datagrams:
            raise ZeroDivisionError
        self.got += zip(datagrams, addresses, strict=True)


class ReaderTests(SynchronousTestCase):
    """A bound port, read by hand, and senders."""

    def setUp(self) -> None:
        """A port, if the system can."""
        if recvmmsg._recvmmsg is None:
            raise SkipTest("the system has no recvmmsg")
        self.listen("127.0.0.1", socket.AF_INET)

    def listen(self, interface: str, family: socket.AddressFamily) -> None:
        """Bind another port."""
        self.notes = Notes()
        self.port = reactor.listenUDP(0, self.notes, interface, MAX_DATAGRAM)
        self.addCleanup(self.port.stopListening)
        self.reader = BatchReader(self.port, recvmmsg._recvmmsg)
        self.family = family
        self.server = (interface, self.port.getHost().port)

    def sender(self) -> socket.socket:
        """A socket that sends to the port."""
        sender = socket.socket(self.family, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.connect(self.server)
        return sender

    def test_in_order(self) -> None:
        """Datagrams of all sizes arrive in order, each with its sender."""
        first, second = self.sender(), self.sender()
        for size in (0, 1, 50, 99):
            first.send(b"a" * size)
            second.send(b"b" * size)
        self.reader.read()
        whence = [sender.getsockname()[:2] for sender in (first, second)]
        expected = [
            (letter * size, address)
            for size in (0, 1, 50, 99)
            for letter, address in zip((b"a", b"b"), whence, strict=True)
        ]
        self.assertEqual(self.notes.got, expected)

    def test_ipv6(self) -> None:
        """The same over IPv6."""
        try:
            self.listen("::1", socket.AF_INET6)
        except Exception as error:
            raise SkipTest(f"no IPv6 here: {error}") from None
        sender = self.sender()
        sender.send(b"hello")
        self.reader.read()
        self.assertEqual(self.notes.got, [(b"hello", sender.getsockname()[:2])])

    def test_too_long(self) -> None:
        """A datagram longer than asked for is cut, and hurts none beside it."""
        sender = self.sender()
        sender.send(b"x" * 500)
        sender.send(b"y")
        self.reader.read()
        self.assertEqual([datagram for datagram, _ in self.notes.got], [b"x" * 100, b"y"])

    def test_some_a_turn(self) -> None:
        """One turn reads so many at most; the rest waits for the next."""
        sender = self.sender()
        for number in range(DATAGRAMS + 3):
            sender.send(number.to_bytes(2))
        self.reader.read()
        self.assertEqual(len(self.notes.got), DATAGRAMS)
        self.reader.read()
        numbers = [int.from_bytes(datagram) for datagram, _ in self.notes.got]
        self.assertEqual(numbers, list(range(DATAGRAMS + 3)))

    def test_nothing(self) -> None:
        """A port without a waiting datagram passes nothing on."""
        self.assertIsNone(self.reader.read())
        self.assertEqual(self.notes.got, [])

    def test_refusals(self) -> None:
        """An interrupted call, or one that reports an undelivered answer, ends no reading."""

        def refuse(number: int, *_: object) -> int:
            ctypes.set_errno(number)
            return -1

        for number in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED):
            self.assertIsNone(BatchReader(self.port, partial(refuse, number)).read())

    def test_bug(self) -> None:
        """What the protocol raises is logged, and the next datagrams are still read."""
        sender = self.sender()
        sender.send(b"stumble")
        self.assertIsNone(self.reader.read())
        sender.send(b"on")
        self.reader.read()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([datagram for datagram, _ in self.notes.got], [b"on"])

    def test_addresses_are_bounded(self) -> None:
        """What is remembered of senders does not grow with their number."""
        self.patch(recvmmsg, "ADDRESSES_REMEMBERED", 3)
        senders = [self.sender() for _ in range(8)]
        for sender in senders:
            sender.send(b"x")
        self.reader.read()
        addresses = [address for _, address in self.notes.got]
        self.assertEqual(addresses, [sender.getsockname() for sender in senders])
        self.assertLessEqual(len(self.reader._addresses), 3)

    def test_error(self) -> None:
        """An error of the socket is returned: the reactor lets go of the port then."""
        self.reader._fd = -1
        error = self.reader.read()
        assert error is not None
        self.assertEqual(error.errno, errno.EBADF)

    def test_read_many(self) -> None:
        """A port of Twisted's reads so from then on; any other is left alone."""
        read_many(self.port)
        self.assertIsInstance(self.port.doRead.__self__, BatchReader)
        memory = MemoryReactor().listenUDP(1, Notes(), "127.0.0.1", MAX_DATAGRAM)
        self.addCleanup(memory.stopListening)
        read_many(memory)
        self.assertFalse(hasattr(memory, "doRead"))
        self.patch(recvmmsg, "_recvmmsg", None)
        self.listen("127.0.0.1", socket.AF_INET)
        read_many(self.port)
        self.assertIs(self.port.doRead.__self__, self.port)

    def asked(self, interface: str, family: socket.AddressFamily, *hosts: str) -> None:
        """Each of these addresses is asked, by one sender, and the answers come from it."""
        try:
            self.listen(interface, family)
            sender = socket.socket(socket.AF_INET if "." in hosts[0] else family, socket.SOCK_DGRAM)
            self.addCleanup(sender.close)
            sender.bind((hosts[0], 0))
        except (OSError, CannotListenError) as error:
            raise SkipTest(f"not here: {error}") from None
        sender.settimeout(20.0)
        for host in hosts:
            sender.sendto(host.encode(), (host, self.server[1]))
        self.reader.read()
        peers = [address for _, address in self.notes.got]
        self.assertEqual(len(set(peers)), len(hosts))
        for host, (datagram, peer) in zip(hosts, self.notes.got, strict=True):
            self.notes._write(datagram, peer)
            answer, source = sender.recvfrom(100)
            self.assertEqual((answer.decode(), source[:2]), (host, (host, self.server[1])))

    def test_all_addresses(self) -> None:
        """On a port bound to all addresses an answer leaves from the address that was asked."""
        self.asked("0.0.0.0", socket.AF_INET, "127.0.0.1", "127.0.0.2", "127.9.9.9")

    def test_all_addresses_ipv6(self) -> None:
        """The same over IPv6."""
        self.asked("::", socket.AF_INET6, "::1")

    def test_all_addresses_of_both_kinds(self) -> None:
        """The same for IPv4 on a port of both."""
        self.asked("::", socket.AF_INET6, "127.0.0.1", "127.0.0.2")

    def test_same_sender(self) -> None:
        """A sender that uses an address again is the same peer, whatever arrived in between."""
        self.listen("0.0.0.0", socket.AF_INET)
        sender = self.sender()
        for _ in range(3):
            sender.send(b"x")
            self.sender().send(b"y")
            self.reader.read()
        peers = {peer for datagram, peer in self.notes.got if datagram == b"x"}
        self.assertEqual(len(peers), 1)

    def test_whole_names(self) -> None:
        """All 16 bytes of an IPv6 address count, and so does the scope of a link-local one."""
        local = socket.inet_pton(socket.AF_INET6, "fe80::1:2:3:4")
        name = struct.pack("=H2s4s16sI", socket.AF_INET6, b"\x03\xe9", bytes(4), local, 7)
        name = name.ljust(32, b"\0")
        self.assertEqual(recvmmsg._read_ipv6(name), ("fe80::1:2:3:4", 1001, 0, 7))
        control = struct.pack("@Nii16sI4x", 36, socket.IPPROTO_IPV6, 50, local, 7)
        expected = ("fe80::1:2:3:4", 1001, 0, 7, (41, 50, local + struct.pack("=I", 7)))
        self.assertEqual(recvmmsg._read_ipv6(name + control), expected)
        world = socket.inet_pton(socket.AF_INET6, "2001:db8::1:2")
        control = struct.pack("@Nii16sI4x", 36, socket.IPPROTO_IPV6, 50, world, 7)
        self.assertEqual(recvmmsg._read_ipv6(name + control)[4][2], world + bytes(4))

    def test_all_addresses_without_it(self) -> None:
        """Where answers could leave from a wrong address, that is refused, with the reason."""
        self.listen("0.0.0.0", socket.AF_INET)
        self.patch(recvmmsg, "_recvmmsg", None)
        error = self.assertRaises(CannotListenError, read_many, self.port)
        self.assertIn("listen on each address", str(error))

    def test_other_systems(self) -> None:
        """Where there is no such call, none is found."""
        self.patch(recvmmsg.sys, "platform", "darwin")
        self.assertIsNone(recvmmsg._find_recvmmsg())
