"""The plain transport: a datagram is the session id, the nonce, and a message.

It trusts the session id as sent, pinned to the address that joined, and so is for loopback and
trusted networks only.  The nonce keeps late datagrams of one conversation out of the next.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import compress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from playerstate.arguments import MAX_SESSION_ID
from playerstate.conversations.gateway import Gateway
from playerstate.players.errors import NotRunning
from playerstate.transports.admission import Admission
from playerstate.transports.recvmmsg import DATAGRAMS, BatchProtocol
from playerstate.transports.udp import UDPPort
from playerstate.wire.messages import JOIN, MAX_JOIN_SIZE

_HEAD = struct.Struct("<QI")
_HEAD_AND_TYPE = struct.Struct("<QIB")

MAX_DATAGRAM = _HEAD.size + MAX_JOIN_SIZE
"""Bytes of the longest valid datagram."""
JOINS_A_TURN, JOINS_A_LOADED_TURN = 8, 5
"""JOINs admitted in one turn of the reactor, a millisecond's work, and in each 10 ms under load."""

_Batch = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[Any], Sequence[bytes]]
"""Session ids, nonces, message types, peers and datagrams, as parallel sequences."""


class PlainProtocol(BatchProtocol):
    """Carries messages between one UDP port and a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._admission = Admission(
            gateway.service.clock, self._let_in, JOINS_A_TURN, JOINS_A_LOADED_TURN
        )

    def datagrams_received(self, datagrams: list[bytes], addresses: list[Any]) -> None:
        """See `BatchProtocol`."""
        is_loaded = len(datagrams) >= DATAGRAMS
        batch = self._read(datagrams, addresses)
        joins = batch[2].count(JOIN)
        if joins and (is_loaded or joins > JOINS_A_TURN or self._admission):
            batch = self._set_joins_apart(batch)
        self._take_in(batch)
        if self._admission:
            self._admission.turn(is_loaded)

    def _read(self, datagrams: Sequence[bytes], addresses: Sequence[Any]) -> _Batch:
        """Read the heads of datagrams; count and leave out those without a valid one.

        In bulk, for valid and invalid ones alike, since this is done for every datagram.
        """
        malformed = self._gateway.malformed
        sizes = list(map(len, datagrams))
        if sizes and (min(sizes) <= _HEAD.size or max(sizes) > MAX_DATAGRAM):
            if too_short := sum(size <= _HEAD.size for size in sizes):
                malformed("too_short", too_short)
            if too_long := sum(size > MAX_DATAGRAM for size in sizes):
                malformed("too_long", too_long)
            fits = [_HEAD.size < size <= MAX_DATAGRAM for size in sizes]
            datagrams = list(compress(datagrams, fits))
            addresses = list(compress(addresses, fits))
        if not datagrams:
            return (), (), (), (), ()
        session_ids, nonces, kinds = zip(*map(_HEAD_AND_TYPE.unpack_from, datagrams), strict=True)
        batch = session_ids, nonces, kinds, addresses, datagrams
        if min(session_ids) >= 1 and max(session_ids) <= MAX_SESSION_ID:
            return batch
        is_valid = [1 <= session_id <= MAX_SESSION_ID for session_id in session_ids]
        malformed("session_id", is_valid.count(False))
        return _chosen(batch, is_valid)

    def _take_in(self, batch: _Batch) -> None:
        session_ids, nonces, _, peers, messages = batch
        self._gateway.received_many(self, session_ids, peers, messages, _HEAD.size, nonces)

    def _set_joins_apart(self, batch: _Batch) -> _Batch:
        """Queue the JOINs; return the rest."""
        is_join = [kind == JOIN for kind in batch[2]]
        _, _, _, peers, messages = _chosen(batch, is_join)
        self._gateway.service.ledger.joins_limited += self._admission.came(peers, messages)
        if len(messages) == len(is_join):
            return (), (), (), (), ()
        return _chosen(batch, [not join for join in is_join])

    def _let_in(self, peer: Any, message: bytes) -> None:
        self._take_in(self._read([message], [peer]))

    def stopProtocol(self) -> None:
        """The port is closed; clients whose JOIN waits send it again, or ask another server."""
        super().stopProtocol()
        self._admission.close()

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Send a message to an address; one that the system refuses is counted, and lost."""
        try:
            self._write(_HEAD.pack(session_id, nonce) + message, peer)
        except OSError:
            self._gateway.service.ledger.unsent += 1

    def end(self, session_id: int, peer: Any) -> None:
        """Does nothing: the transport has no state of a peer."""


def _chosen(batch: _Batch, which: Sequence[bool]) -> _Batch:
    """The chosen part of a batch."""
    session_ids, nonces, kinds, peers, messages = (tuple(compress(each, which)) for each in batch)
    return session_ids, nonces, kinds, peers, messages


class PlainService(Service):
    """The plain transport on one UDP port.

    Args:
        gateway: its service must be started before this one.
        port: the port's number; 0 for any free port.
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
        self._port: UDPPort | None = None

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
        """The number of the bound port.

        Raises:
            NotRunning: the transport was never started.
        """
        return self._last_port().number

    def _last_port(self) -> UDPPort:
        """The port that was bound, even if it has been closed since."""
        if self._port is None:
            raise NotRunning("the plain transport was never started")
        return self._port

    def stopService(self) -> Deferred[None]:
        """Save and notify every player, and close the port."""
        if not self.running:
            return succeed(None)
        super().stopService()
        port = self._last_port()
        return self._gateway.close().addCallback(lambda _: port.close())
