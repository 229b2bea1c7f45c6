"""The plain transport: a datagram is the session id and a message.

It believes the session id as sent, pinned to the address that joined, and so is for loopback and
trusted networks only.
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from playerstate.gateway import Gateway
from playerstate.messages import JOIN, MAX_JOIN_SIZE
from playerstate.service import MAX_SESSION_ID
from playerstate.transports.recvmmsg import DATAGRAMS, BatchProtocol
from playerstate.transports.strangers import Strangers
from playerstate.transports.udp import UDPPort

MAX_DATAGRAM = 8 + MAX_JOIN_SIZE

JOINS_A_TURN, JOINS_A_FULL_TURN = 8, 2
"""JOINs taken in in one turn of the reactor: a millisecond's work where all that waited was read,
and less where more waits, perhaps from players who are in."""

_ID = struct.Struct("<Q")


class PlainProtocol(BatchProtocol):
    """Carries messages between one UDP port and a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._unpack_id = _ID.unpack_from
        self._strangers: Strangers[tuple[int, Any, bytes]] = Strangers()
        self._later: IDelayedCall | None = None

    def datagrams_received(self, datagrams: list[bytes], addresses: list[Any]) -> None:
        """See `BatchProtocol`."""
        unpack_id, session_ids, peers, messages = self._unpack_id, [], [], []
        for datagram, address in zip(datagrams, addresses, strict=True):
            size = len(datagram)
            if size < 9:
                self._gateway.malformed("too_short")
            elif size > MAX_DATAGRAM:
                self._gateway.malformed("too_long")
            elif not 1 <= (session_id := unpack_id(datagram)[0]) <= MAX_SESSION_ID:
                self._gateway.malformed("session_id")
            else:
                session_ids.append(session_id)
                peers.append(address)
                messages.append(datagram)
        budget = JOINS_A_TURN if len(datagrams) < DATAGRAMS else JOINS_A_FULL_TURN
        joins = [message[8] for message in messages].count(JOIN)
        if joins and (joins > budget or self._strangers):
            session_ids, peers, messages = self._set_joins_apart(session_ids, peers, messages)
        self._gateway.received_many(self, session_ids, peers, messages, 8)
        if self._strangers:
            self._let_in(budget)

    def _set_joins_apart(
        self, session_ids: list[int], peers: list[Any], messages: list[bytes]
    ) -> tuple[list[int], list[Any], list[bytes]]:
        """Have the JOINs wait; return the rest."""
        rest = []
        for item in zip(session_ids, peers, messages, strict=True):
            _, peer, message = item
            if message[8] != JOIN:
                rest.append(item)
            elif not self._strangers.put(peer[0], peer[1], item):
                self._gateway.service.ledger.joins_limited += 1
        return (
            [session_id for session_id, _, _ in rest],
            [peer for _, peer, _ in rest],
            [message for _, _, message in rest],
        )

    def _let_in(self, budget: int) -> None:
        """Take in some of the JOINs that wait; the rest when the port was read again."""
        for _ in range(budget):
            if not self._strangers:
                return
            session_id, peer, message = self._strangers.take()
            self._gateway.received_many(self, [session_id], [peer], [message], 8)
        if self._strangers and (self._later is None or not self._later.active()):
            self._later = self._gateway.service.clock.callLater(0.0, self._let_in, JOINS_A_TURN)

    def stopProtocol(self) -> None:
        """The port is closed; those who wait to be let in ask again, or another server."""
        super().stopProtocol()
        self._strangers = Strangers()
        if self._later is not None and self._later.active():
            self._later.cancel()

    def send(self, session_id: int, peer: Any, message: bytes) -> None:
        """Send a message to an address; what the system will not take is counted, and lost."""
        try:
            self._write(_ID.pack(session_id) + message, peer)
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
