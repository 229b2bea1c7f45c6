"""The plain transport: a datagram is the session id, the nonce, and a message.

It believes the session id as sent, pinned to the address that joined, and so is for loopback and
trusted networks only.  The nonce keeps what is late of one conversation out of the next.
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from playerstate.gateway import Gateway
from playerstate.messages import MAX_JOIN_SIZE
from playerstate.service import MAX_SESSION_ID
from playerstate.transports.recvmmsg import BatchProtocol
from playerstate.transports.udp import UDPPort

_HEAD = struct.Struct("<QI")

MAX_DATAGRAM = _HEAD.size + MAX_JOIN_SIZE


class PlainProtocol(BatchProtocol):
    """Carries messages between one UDP port and a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._unpack_head = _HEAD.unpack_from

    def startProtocol(self) -> None:
        """The port is bound."""
        assert self.transport is not None
        self._write = self.transport.write

    def datagrams_received(self, datagrams: list[bytes], addresses: list[Any]) -> None:
        """See `BatchProtocol`."""
        unpack_head, session_ids, nonces, peers, messages = self._unpack_head, [], [], [], []
        for datagram, address in zip(datagrams, addresses, strict=True):
            size = len(datagram)
            if size <= _HEAD.size:
                self._gateway.malformed("too_short")
                continue
            if size > MAX_DATAGRAM:
                self._gateway.malformed("too_long")
                continue
            session_id, nonce = unpack_head(datagram)
            if not 1 <= session_id <= MAX_SESSION_ID:
                self._gateway.malformed("session_id")
                continue
            session_ids.append(session_id)
            nonces.append(nonce)
            peers.append(address)
            messages.append(datagram)
        self._gateway.received_many(self, session_ids, peers, messages, _HEAD.size, nonces)

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Send a message to an address; what the system will not take is counted, and lost."""
        try:
            self._write(_HEAD.pack(session_id, nonce) + message, peer)
        except OSError:
            self._gateway.service.ledger.unsent += 1

    def end(self, session_id: int, peer: Any) -> None:
        """Nothing is kept of an address."""


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
        protocol = PlainProtocol(self._gateway)
        self._port = UDPPort(
            reactor,
            self._gateway.service,
            protocol,
            self._number,
            self._interface,
            MAX_DATAGRAM,
            "plain",
        )
        self._gateway.start()
        super().startService()

    @property
    def port(self) -> int:
        """The number of the port bound."""
        return self._port.number

    def stopService(self) -> Deferred[None]:
        """Save every player, tell them, and close the port."""
        if not self.running:
            return succeed(None)
        super().stopService()
        return self._gateway.close().addCallback(lambda _: self._port.close())
