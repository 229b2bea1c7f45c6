"""A netcode transport between its start and its stop: the core, its timer, and the gateway.

The core returns events, and the run handles them in order: first it passes on the payloads that
came before an event, and last it sends the outgoing datagrams.

A client's id is its player's session id, and each payload is one message.  The first is a JOIN, as
on any transport; when the connection ends, the player leaves.  When the gateway ends a
conversation, the connection ends as well: GONE is sent first, and the disconnect packets after the
client has had time to read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from playerstate.conversations.gateway import Gateway
from playerstate.log import PrintableLogger
from playerstate.sparing import SparingLogger
from playerstate.transports.admission import Admission
from playerstate.transports.netcode.connections import Connection, Source
from playerstate.transports.netcode.events import Connected, Event, Replaced
from playerstate.transports.netcode.protocol import NetcodeProtocol
from playerstate.transports.netcode.server import Server
from playerstate.transports.netcode.tally import SUMMARY, Tally
from playerstate.transports.recvmmsg import DATAGRAMS
from playerstate.transports.udp import UDPPort
from playerstate.wire.messages import GoneReason

TICK = 0.05
"""Seconds between two ticks: keep-alives that are due, and clients that are silent."""
LOG_EVERY = 60.0
"""Seconds between two lines of the log that sum up the counters."""
READ_WITHIN = 0.25
"""Seconds from a GONE to the disconnect packets: some frames of a client, which reads its socket
once a frame."""
REQUESTS_A_TURN, REQUESTS_A_LOADED_TURN = 16, 16
"""Requests processed in one turn of the reactor, and in each 10 ms under load."""
IDLE_LOOK_EVERY = 1.0
"""Seconds between two checks for clients without a payload."""
IDLE_GRACE = 5.0
"""Seconds beyond the gateway's idle timeout after which a client without a payload is disconnected.
The gateway ends idle conversations; this ends connections without a conversation."""

OnConnect = Callable[[int, bytes], object]
Sleep = Callable[[Any, float], Deferred[Any]]
_log = PrintableLogger()


def _pass_over(datagrams: list[bytes], sources: list[Source], now: float) -> None:
    """Discard datagrams that arrive after the last answer."""


class Run:
    """What a started `NetcodeService` is made of; a restart makes another.  Reactor thread only.

    Args:
        gateway: of a started service; this is one of its transports.
        server: the core, at its start.
        ports: the bound ports, each with its protocol.
        on_connect, sleep: see `NetcodeService`.
        reactor: passed to `sleep`.

    Attributes:
        server: the core.
        ports: the bound ports.
    """

    def __init__(
        self,
        gateway: Gateway,
        server: Server,
        ports: Sequence[tuple[UDPPort, NetcodeProtocol]],
        *,
        on_connect: OnConnect | None,
        sleep: Sleep,
        reactor: Any,
    ) -> None:
        self._gateway = gateway
        self.server = server
        self.ports = [port for port, _ in ports]
        self._protocols = [protocol for _, protocol in ports]
        self._on_connect = on_connect
        self._sleep = sleep
        self._reactor = reactor
        clock = gateway.service.clock
        self._seconds = clock.seconds
        self._lines = SparingLogger(_log, clock.seconds)
        self._idle_look_at = self._seconds() + IDLE_LOOK_EVERY
        self._admission = Admission(
            clock, self._let_in, REQUESTS_A_TURN, REQUESTS_A_LOADED_TURN, self._has_room
        )
        self._logged = Tally()
        for protocol in self._protocols:
            protocol.receive = self.receive
        self._repetitions = [
            clock.every(TICK, self._tick),
            clock.every(LOG_EVERY, self._log_tally),
        ]

    def stop(self) -> Deferred[Any]:
        """End, once every client has had time to read its last answer: all players are saved.

        The player state service may have stopped by then, and its clock with it; hence `sleep`.

        Returns:
            A Deferred that fires when the ports are closed.
        """
        self._admission.close()
        for protocol in self._protocols:
            protocol.receive = _pass_over
        if not (self.server.connections or self.server.is_ending):
            return self._disconnect_all()
        return self._sleep(self._reactor, READ_WITHIN).addCallback(self._disconnect_all)

    def _disconnect_all(self, _: object = None) -> Deferred[Any]:
        self.server.stop(self._seconds())
        self.transmit()
        for repetition in self._repetitions:
            repetition.cancel()
        self._log_tally()
        return DeferredList([port.close() for port in self.ports])

    def send(self, session_id: int, peer: Any, nonce: int, message: bytes) -> None:
        """Send a message to a client; does nothing if its connection ended.  See `Transport`."""
        self.server.send(peer, message, self._seconds())
        self.transmit()

    def end(self, session_id: int, peer: Any) -> None:
        """Disconnect a client that was sent GONE; see `Transport`."""
        self.server.disconnect(peer, self._seconds(), READ_WITHIN)
        self.transmit()

    def transmit(self) -> None:
        """Send the core's datagrams; one that the system does not accept is counted, and lost."""
        for datagram, (host, port, route) in self.server.datagrams_to_send():
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
                self._lines.failure(
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
                self.server.disconnect(connection, self._seconds())
        else:
            self._gateway.lost(connection.client_id, connection)

    def _tell_program(self, connection: Connection) -> None:
        if self._on_connect is None:
            return
        try:
            self._on_connect(connection.client_id, connection.user_data)
        except Exception:
            # The program's own hook: an error in it must cost one client, not the port.
            self._lines.failure(
                "on_connect failed; player {id} is disconnected", id=connection.client_id
            )
            self.server.disconnect(connection, self._seconds())

    def receive(self, datagrams: list[bytes], sources: list[Source], now: float) -> None:
        """Receive datagrams that were read together."""
        looks_right = self.server.requests.looks_right
        came_from: list[Source] = []
        requests: list[bytes] = []
        for datagram, source in zip(datagrams, sources, strict=True):
            if datagram[:1] != b"\0" or not looks_right(datagram):
                self._receive_one(datagram, source, now)
            else:
                came_from.append(source)
                requests.append(datagram)
        if requests and (dropped := self._admission.came(came_from, requests)):
            self.server.tally.ignored["requests_limited"] += dropped
        self._take_in()
        self.transmit()
        if self._admission:
            self._admission.turn(len(datagrams) >= DATAGRAMS)

    def _receive_one(self, datagram: bytes, source: Source, now: float) -> None:
        try:
            events = self.server.receive(datagram, source, now)
        except Exception:  # a bug with one datagram must not stop the next
            self._lines.failure("a netcode datagram could not be handled")
            return
        if events:
            self._carry_out(events)

    def _let_in(self, source: Any, datagram: bytes) -> None:
        """Process a request that has waited."""
        self._receive_one(datagram, source, self._seconds())
        self.transmit()

    def _has_room(self) -> bool:
        """Whether the rate limit of all sources has room for one more request."""
        return self.server.requests.has_room(self._seconds())

    def _take_in(self) -> None:
        """Pass the received payloads to the gateway, all together."""
        clients, payloads = self.server.payloads()
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
        self._carry_out(self.server.tick(now))
        if self._idle_look_at <= now:
            self._idle_look_at = now + IDLE_LOOK_EVERY
            self._end_idle(now)
        self.transmit()

    def _end_idle(self, now: float) -> None:
        silent_since = now - self._gateway.idle_timeout - IDLE_GRACE
        for connection in self.server.connections:
            if connection.payload_at <= silent_since:
                self.server.disconnect(connection, now)

    def _log_tally(self) -> None:
        tally = self.server.tally
        if fields := tally.since(self._logged):
            _log.info(
                "netcode: {clients} connected now, {half_open} half-open; " + SUMMARY,
                clients=len(self.server.connections),
                half_open=self.server.half_open,
                **fields,
            )
        self._logged = tally.copy()
