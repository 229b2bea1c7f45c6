"""Where a datagram came from, and the way back."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.connections import Source
from playerstate.transports.netcode.protocol import NetcodeProtocol


class SourceTests(SynchronousTestCase):
    """The sources of datagrams on one port."""

    def setUp(self) -> None:
        """A protocol that notes what it receives and sends."""
        self.received: list[tuple[list[bytes], list[Source], float]] = []
        self.sent: list[tuple[bytes, tuple[Any, ...]]] = []
        self.protocol = NetcodeProtocol(lambda: 7.0)
        self.protocol.receive = lambda *batch: self.received.append(batch)
        self.protocol._write = lambda *datagram: self.sent.append(datagram)

    def test_answered(self) -> None:
        """A datagram comes with its time and source, and an answer goes to the whole address.

        An IPv6 address may have a flow, a scope and a local address beside host and port.
        """
        addresses = [("192.0.2.1", 5), ("fe80::1", 5, 0, 2), ("fe80::1", 5, 0, 2, ("local",))]
        self.protocol.datagrams_received([b"a", b"b", b"c"], addresses)
        [(datagrams, sources, now)] = self.received
        self.assertEqual((datagrams, now), ([b"a", b"b", b"c"], 7.0))
        for host, port, route in sources:
            route.transmit(b"answer", host, port)
        self.assertEqual(self.sent, [(b"answer", address) for address in addresses])

    def test_same_source(self) -> None:
        """Two datagrams from one address have equal sources, and from another scope they do not."""
        for _ in range(2):
            self.protocol.datagrams_received(
                [b"a", b"b", b"c"], [("192.0.2.1", 5), ("fe80::1", 5, 0, 2), ("fe80::1", 5, 0, 3)]
            )
        first, second = (sources for _, sources, _ in self.received)
        self.assertEqual(first, second)
        self.assertEqual(len({*first, *second}), 3)
