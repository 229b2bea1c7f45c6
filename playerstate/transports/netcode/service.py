"""The netcode transport as a service: its ports, its timer, and its calls to the gateway.

The core returns events, and the service handles them in order: first it passes on the payloads that
came before an event, and last it sends the outgoing datagrams.

A client's id is its player's session id, and each payload is one message.  The first is a JOIN, as
on any transport; when the connection ends, the player leaves.  When the gateway ends a
conversation, the connection ends as well: GONE is sent first, and the disconnect packets after the
client has had time to read it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import CannotListenError

from playerstate.clock import sleep_apart
from playerstate.conversations.gateway import Gateway
from playerstate.log import PrintableLogger
from playerstate.transports.admission import Admission
from playerstate.transports.netcode.addresses import Address
from playerstate.transports.netcode.connections import Connection, Source
from playerstate.transports.netcode.events import Connected, Event, Replaced
from playerstate.transports.netcode.packets import MAX_DATAGRAM
from playerstate.transports.netcode.protocol import NetcodeProtocol
from playerstate.transports.netcode.server import Server
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tally import Tally
from playerstate.transports.recvmmsg import DATAGRAMS
from playerstate.transports.udp import UDPPort
from playerstate.wire.messages import GoneReason

TICK = 0.05
"""Seconds between two ticks: keep-alives that are due, and clients that are silent."""
LOG_EVERY = 60.0
READ_WITHIN = 0.25
"""Seconds from a GONE to the disconnect packets: some frames of a client, which reads its socket
once a frame."""
REQUESTS_A_TURN, REQUESTS_A_LOADED_TURN = 16, 16
"""Requests processed in one turn of the reactor, and in each 10 ms under load."""
IDLE_LOOK_EVERY = 1.0
IDLE_GRACE = 5.0
"""Seconds beyond the gateway's idle timeout after which a client without a payload is disconnected.
The gateway ends idle conversations; this ends connections without a conversation."""

OnConnect = Callable[[int, bytes], object]
_log = PrintableLogger()


def _pass_over(datagrams: list[bytes], sources: list[Source], now: float) -> None:
    """Discard datagrams that arrive after the last answer."""


def is_wildcard(interface: str) -> bool:
    """Whether an interface stands for all of the machine's addresses, and so names none.

    Raises:
        ValueError: it is not an IP address.
    """
    return ip_address(interface).is_unspecified


class NetcodeService(Service):
    """The netcode transport on one UDP port or several, which share clients, slots and tokens.

    Args:
        gateway: its service must be started before this one.
        settings: of the server; without addresses, the ports' bound addresses are taken.
        listen: the ports, each by number and interface; number 0 is any free port.
        on_connect: called on the reactor thread with the session id and the 256 bytes of user data
            of a client that connected, before its first message; its result is ignored.  If it
            raises, the failure is logged and the client disconnected: a game that could not handle
            a player's user data does not play with that player.
        reactor: provides ``IReactorUDP``; the global reactor by default.
        wall_clock: seconds since the Unix epoch, by which tokens expire.
        random_bytes: returns so many random bytes, fit for keys.
        sleep: returns a Deferred that fires after so many seconds, even if the wall clock steps.

    Raises:
        ValueError: the settings have no addresses, and a port listens on all interfaces.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: NetcodeSettings,
        listen: Sequence[tuple[int, str]],
        *,
        on_connect: OnConnect | None = None,
        reactor: Any = None,
        wall_clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        sleep: Callable[[Any, float], Deferred[Any]] = sleep_apart,
    ) -> None:
        if not settings.addresses and any(is_wildcard(interface) for _, interface in listen):
            raise ValueError(
                "a server that listens on all interfaces needs the addresses that tokens name it by"
            )
        self._gateway = gateway
        self._settings = settings
        self._listen = listen
        self._on_connect = on_connect
        self._given_reactor = reactor
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._sleep = sleep

    def startService(self) -> None:
        """Bind the ports and begin to answer, with no state of an earlier run.

        Raises:
            twisted.internet.error.CannotListenError: a port cannot be bound; all are closed then.
        """
        reactor = self._given_reactor
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        clock = self._gateway.service.clock
        self._seconds = clock.seconds
        self._ports: list[UDPPort] = []
        protocols = [NetcodeProtocol(self._seconds) for _ in self._listen]
        try:
            for protocol, (number, interface) in zip(protocols, self._listen, strict=True):
                self._ports.append(self._bind(reactor, protocol, number, interface))
        except CannotListenError:
            self._close_ports()
            raise
        bound = (Address.of(port.host, port.number) for port in self._ports)
        settings = self._settings
        if not settings.addresses:
            settings = attrs.evolve(settings, addresses=frozenset(bound))
        self._server = Server(
            settings,
            now=self._seconds(),
            wall_clock=self._wall_clock,
            random_bytes=self._random_bytes,
        )
        self._idle_look_at = self._seconds() + IDLE_LOOK_EVERY
        self._admission = Admission(
            clock, self._let_in, REQUESTS_A_TURN, REQUESTS_A_LOADED_TURN, self._has_room
        )
        self._logged = Tally()
        self._protocols = protocols
        for protocol in protocols:
            protocol.receive = self._receive
        self._gateway.start()
        super().startService()
        self._repetitions = [
            clock.every(TICK, self._tick),
            clock.every(LOG_EVERY, self._log_tally),
        ]
        _log.info(
            "netcode accepts clients whose tokens name {addresses} and live for {lifetime:g} s at"
            " most",
            addresses=" or ".join(map(str, sorted(settings.addresses, key=str))),
            lifetime=settings.max_token_lifetime,
        )

    def _bind(
        self, reactor: Any, protocol: NetcodeProtocol, number: int, interface: str
    ) -> UDPPort:
        service = self._gateway.service
        return UDPPort(reactor, service, protocol, number, interface, MAX_DATAGRAM, "netcode")

    @property
    def ports(self) -> list[int]:
        """The numbers of the bound ports."""
        return [port.number for port in self._ports]

    @property
    def tally(self) -> Tally:
        """The counters since the start."""
        return self._server.tally

    def stopService(self) -> Deferred[Any]:
        """Save and notify every player, disconnect every client, and close the ports."""
        if not self.running:
            return succeed(None)
        super().stopService()
        return self._gateway.close().addCallback(self._finish)

    def _finish(self, result: object) -> Deferred[Any]:
        """All players are saved: end once every client has had time to read its last answer.

        The player state service may have stopped by then, and its clock with it; hence `sleep`.
        """
        self._admission.close()
        for protocol in self._protocols:
            protocol.receive = _pass_over
        if not (self._server.connections or self._server.is_ending):
            return self._disconnect_all()
        return self._sleep(self._reactor, READ_WITHIN).addCallback(self._disconnect_all)

    def _disconnect_all(self, _: object = None) -> Deferred[Any]:
        self._server.stop(self._seconds())
        self._transmit()
        for repetition in self._repetitions:
            repetition.cancel()
        self._log_tally()
        return self._close_ports()

    def _close_ports(self) -> Deferred[Any]:
        return DeferredList([port.close() for port in self._ports])

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Send a message to a client; does nothing if its connection ended.  See `Transport`."""
        self._server.send(peer, message, self._seconds())
        self._transmit()

    def end(self, session_id: int, peer: Any) -> None:
        """Disconnect a client that was sent GONE; see `Transport`."""
        self._server.disconnect(peer, self._seconds(), READ_WITHIN)
        self._transmit()

    def _transmit(self) -> None:
        """Send the core's datagrams; one that the system does not accept is counted, and lost."""
        for datagram, (host, port, route) in self._server.datagrams_to_send():
            try:
                route.transmit(datagram, host, port)
            except OSError:
                self._gateway.service.ledger.unsent += 1

    def _carry_out(self, events: Sequence[Event]) -> None:
        """Handle events, in order."""
        self._take_in()  # payloads that came before the events
        for event in events:
            try:
                self._carry_out_one(event)
            except Exception:  # a bug with one client must not stop the events of the others
                _log.failure(
                    "player {id}: a netcode event could not be handled",
                    id=event.connection.client_id,
                )

    def _carry_out_one(self, event: Event) -> None:
        connection = event.connection
        if isinstance(event, Connected):
            self._tell_program(connection)
        elif isinstance(event, Replaced):
            # The player's other device is sent the reason, and does not join again.
            try:
                self._gateway.lost(connection.client_id, connection, GoneReason.JOINED_ELSEWHERE)
            finally:
                self._server.disconnect(connection, self._seconds())
        else:
            self._gateway.lost(connection.client_id, connection)

    def _tell_program(self, connection: Connection) -> None:
        if self._on_connect is None:
            return
        try:
            self._on_connect(connection.client_id, connection.user_data)
        except Exception:
            # The program's own hook: an error in it must cost one client, not the port.
            _log.failure("on_connect failed; player {id} is disconnected", id=connection.client_id)
            self._server.disconnect(connection, self._seconds())

    def _receive(self, datagrams: list[bytes], sources: list[Source], now: float) -> None:
        """Receive datagrams that were read together."""
        looks_right = self._server.requests.looks_right
        came_from: list[Source] = []
        requests: list[bytes] = []
        for datagram, source in zip(datagrams, sources, strict=True):
            if datagram[:1] != b"\0" or not looks_right(datagram):
                self._receive_one(datagram, source, now)
            else:
                came_from.append(source)
                requests.append(datagram)
        if requests and (dropped := self._admission.came(came_from, requests)):
            self._server.tally.ignored["requests_limited"] += dropped
        self._take_in()
        self._transmit()
        if self._admission:
            self._admission.turn(len(datagrams) >= DATAGRAMS)

    def _receive_one(self, datagram: bytes, source: Source, now: float) -> None:
        try:
            events = self._server.receive(datagram, source, now)
        except Exception:  # a bug with one datagram must not stop the next
            _log.failure("a netcode datagram could not be handled")
            return
        if events:
            self._carry_out(events)

    def _let_in(self, source: Any, datagram: bytes) -> None:
        """Process a request that has waited."""
        self._receive_one(datagram, source, self._seconds())
        self._transmit()

    def _has_room(self) -> bool:
        """Whether the rate limit of all sources has room for one more request."""
        return self._server.requests.has_room(self._seconds())

    def _take_in(self) -> None:
        """Pass the received payloads to the gateway, all together."""
        clients, payloads = self._server.payloads()
        if not clients:
            return
        session_ids = [client.client_id for client in clients]
        self._gateway.received_many(self, session_ids, clients, payloads, 0)
        for client in clients:
            if not client.is_open:
                # A message of this batch ended it; a later JOIN in it must not bring it back.
                self._gateway.lost(client.client_id, client)

    def _tick(self) -> None:
        now = self._seconds()
        self._carry_out(self._server.tick(now))
        if self._idle_look_at <= now:
            self._idle_look_at = now + IDLE_LOOK_EVERY
            self._end_idle(now)
        self._transmit()

    def _end_idle(self, now: float) -> None:
        silent_since = now - self._gateway.idle_timeout - IDLE_GRACE
        for connection in self._server.connections:
            if connection.payload_at <= silent_since:
                self._server.disconnect(connection, now)

    def _log_tally(self) -> None:
        tally = self._server.tally
        if summary := tally.summary(self._logged):
            _log.info(
                "netcode: {clients} connected now, {half_open} half-open; {summary}",
                clients=len(self._server.connections),
                half_open=self._server.half_open,
                summary=summary,
            )
        self._logged = tally.copy()
