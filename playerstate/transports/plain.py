"""The plain transport: a datagram is the session id, the nonce, and a message.

It believes the session id as sent, pinned to the address that joined, and so is for loopback and
trusted networks only.  The nonce keeps what is late of one conversation out of the next.
"""

from __future__ import annotations

import struct
from itertools import compress
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

_HEAD = struct.Struct("<QI")

MAX_DATAGRAM = _HEAD.size + MAX_JOIN_SIZE
JOINS_A_TURN, JOINS_A_FULL_TURN = 8, 2
"""JOINs taken in in one turn of the reactor: a millisecond's work where all that waited was read,
and less where more waits, perhaps from players who are in."""

_Batch = tuple[list[int], list[int], list[Any], list[bytes]]
"""Session ids, nonces, peers and datagrams, side by side."""


class PlainProtocol(BatchProtocol):
    """Carries messages between one UDP port and a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._unpack_head = _HEAD.unpack_from
        self._strangers: Strangers[tuple[int, int, Any, bytes]] = Strangers()
        self._later: IDelayedCall | None = None

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
        batch = session_ids, nonces, peers, messages
        budget = JOINS_A_TURN if len(datagrams) < DATAGRAMS else JOINS_A_FULL_TURN
        joins = [message[_HEAD.size] for message in messages].count(JOIN)
        if joins and (joins > budget or self._strangers):
            batch = self._set_joins_apart(batch)
        self._take_in(batch)
        if self._strangers:
            self._let_in(budget)

    def _take_in(self, batch: _Batch) -> None:
        session_ids, nonces, peers, messages = batch
        self._gateway.received_many(self, session_ids, peers, messages, _HEAD.size, nonces)

    def _set_joins_apart(self, batch: _Batch) -> _Batch:
        """Have the JOINs wait; return the rest."""
        is_join = [message[_HEAD.size] == JOIN for message in batch[3]]
        for item in compress(zip(*batch, strict=True), is_join):
            peer = item[2]
            if not self._strangers.put(peer[0], peer[1], item):
                self._gateway.service.ledger.joins_limited += 1
        rest = [not join for join in is_join]
        session_ids, nonces, peers, messages = batch
        return (
            list(compress(session_ids, rest)),
            list(compress(nonces, rest)),
            list(compress(peers, rest)),
            list(compress(messages, rest)),
        )

    def _let_in(self, budget: int) -> None:
        """Take in some of the JOINs that wait; the rest when the port was read again."""
        for _ in range(budget):
            if not self._strangers:
                return
            session_id, nonce, peer, message = self._strangers.take()
            self._take_in(([session_id], [nonce], [peer], [message]))
        if self._strangers and (self._later is None or not self._later.active()):
            self._later = self._gateway.service.clock.callLater(0.0, self._let_in, JOINS_A_TURN)

    def stopProtocol(self) -> None:
        """The port is closed; those who wait to be let in ask again, or another server."""
        super().stopProtocol()
        self._strangers = Strangers()
        if self._later is not None and self._later.active():
            self._later.cancel()

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
