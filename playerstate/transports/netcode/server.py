"""The server's side of netcode 1.02: what datagrams do to its connections, and what it sends.

A client is unknown, then *half-open*, its request answered by a challenge, then *connected*.  Its
state is where it is stored: nowhere, in `Handshake.half_open`, or in the `Roster`, both by source.
A datagram that breaks a rule raises `Ignored` before it has changed anything of a client.

The server makes no callbacks.  Events are returned; payloads and outgoing datagrams are queued
until they are taken.  So the caller may call the server again while it handles them, even after an
error: the server is between two datagrams then, and never in the middle of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from playerstate.transports.netcode.connections import Connection, Source
from playerstate.transports.netcode.events import (
    Connected,
    Disconnected,
    Event,
    Replaced,
    TimedOut,
)
from playerstate.transports.netcode.handshake import Handshake
from playerstate.transports.netcode.outgoing import Outgoing
from playerstate.transports.netcode.packets import (
    DISCONNECT,
    KEEP_ALIVE,
    MAX_PAYLOAD,
    NUMBERED,
    PAYLOAD,
    RESPONSE,
    SPEAK_EVERY,
    TO_SERVER,
    Ignored,
    Seals,
    check_body,
    read_header,
)
from playerstate.transports.netcode.roaming import may_be_next
from playerstate.transports.netcode.roster import Roster
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.stalls import Stalls
from playerstate.transports.netcode.tally import Tally

_NOTHING: tuple[Event, ...] = ()


class Server:
    """One server, from its start to its stop; a restart creates another one.

    Every `now` is seconds on a clock that never steps.  After each call, take `payloads` and
    `datagrams_to_send`: a call adds one payload at most, and at most eleven datagrams a client, a
    keep-alive and ten disconnects.

    Args:
        settings: how clients are let in.
        now: the time of the start.
        wall_clock: seconds since the Unix epoch; it may step.
        random_bytes: returns so many random bytes, fit for keys.

    Attributes:
        tally: the counters.
        requests: the checks of requests.
    """

    def __init__(
        self,
        settings: NetcodeSettings,
        *,
        now: float,
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.tally = Tally()
        self._seals = Seals(settings.protocol_id)
        self._open = self._seals.open
        self._outgoing = Outgoing(self._seals, settings.slots)
        self._roster = Roster(settings.slots, random_bytes)
        self._connections = self._roster.by_source
        self._handshake = Handshake(
            settings,
            self._roster,
            self._seals,
            self._outgoing,
            self.tally,
            now=now,
            wall_clock=wall_clock,
            random_bytes=random_bytes,
        )
        self.requests = self._handshake.requests
        self._half_open = self._handshake.half_open
        self._stalls = Stalls()
        self._events: list[Event] = []
        self._senders: list[Connection] = []
        self._payloads: list[bytes] = []
        self._ending: deque[tuple[float, Connection]] = deque()
        self._payload_interval = settings.payload_rate.interval
        self._payload_patience = settings.payload_rate.patience

    @property
    def connections(self) -> list[Connection]:
        """The connected clients."""
        return list(self._connections.values())

    @property
    def half_open(self) -> int:
        """How many clients were challenged and have not answered yet."""
        return len(self._half_open)

    def receive(self, datagram: bytes, source: Source, now: float) -> Sequence[Event]:
        """Receive a datagram of any content, from any source.

        Returns:
            The events, in order.  All `payloads` came before them.
        """
        try:
            if len(datagram) < 2:
                raise Ignored("too_short")
            if datagram[0] == 0:
                self._handshake.receive_request(datagram, source, now)
            elif (connection := self._connections.get(source)) is None:
                if source in self._half_open:
                    self._receive_response(datagram, source, now)
                else:
                    self._receive_from_elsewhere(datagram, source, now)
            else:
                self._receive_packet(connection, datagram, now)
        except Ignored as ignored:
            self.tally.ignored[ignored.reason] += 1
        return self._take_events() if self._events else _NOTHING

    def payloads(self) -> tuple[list[Connection], list[bytes]]:
        """Take the payloads since the last call: each one's sender, and its 1 to 1,200 bytes."""
        taken = self._senders, self._payloads
        self._senders, self._payloads = [], []
        return taken

    def datagrams_to_send(self) -> list[tuple[bytes, Source]]:
        """Take the datagrams to be sent, in order, each with its destination."""
        return self._outgoing.take()

    def send(self, connection: Connection, payload: bytes, now: float) -> None:
        """Send 1 to 1,200 bytes to a client; does nothing if its connection ended.

        A client that has sent nothing yet may have missed the keep-alive that connects it, and
        would discard the payload: the keep-alive is sent again first.
        """
        if not connection.is_open:
            return
        if not connection.is_confirmed:
            self._outgoing.say_alive(connection, now)
        self._outgoing.say_payload(connection, payload, now)

    def disconnect(self, connection: Connection, now: float, after: float = 0.0) -> None:
        """End a client's connection and send it disconnect packets; harmless if it ended already.

        Args:
            connection: the client's, or one that was replaced; from now on, packets from it are
                not accepted and payloads to it are not sent.
            now: the time.
            after: seconds until the disconnect packets are sent, so that the client reads earlier
                payloads before: the reference client discards unread ones when it is disconnected.
                All delays above 0 must be the same.
        """
        if not connection.is_open:
            return
        self.tally.ended += 1
        connection.is_open = False
        if self._connections.get(connection.source) is connection:
            self._roster.remove(connection)
        if after > 0:
            self._ending.append((now + after, connection))
        else:
            self._outgoing.say_disconnected(connection, now)

    @property
    def is_ending(self) -> bool:
        """Whether disconnect packets are still to be sent to a client."""
        return bool(self._ending)

    def tick(self, now: float) -> Sequence[Event]:
        """Send due keep-alives and time out silent clients; 20 times a second is enough.

        Time during which the process stalled does not count as a client's silence.

        Returns:
            The events, in order.
        """
        self._stalls.forgive(now, self._connections.values(), self._half_open.values())
        while self._ending and self._ending[0][0] <= now:
            self._outgoing.say_disconnected(self._ending.popleft()[1], now)
        for connection in self.connections:
            if connection.spoke_at + SPEAK_EVERY <= now:
                self._outgoing.say_alive(connection, now)
            if connection.heard_at + connection.timeout <= now:
                self._time_out(connection)
        self._handshake.lapse(now)
        return self._take_events()

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def stop(self, now: float) -> None:
        """Disconnect every client."""
        for connection in self.connections:
            self.disconnect(connection, now)
        while self._ending:
            self._outgoing.say_disconnected(self._ending.popleft()[1], now)
        self._half_open.clear()

    def _receive_response(self, datagram: bytes, source: Source, now: float) -> None:
        admitted = self._handshake.receive_response(datagram, source, now)
        if admitted is None:
            return
        before, there = admitted.before, admitted.there
        if before is not None:
            self.tally.replaced += 1
            self._roster.remove(before)
            self._events.append(Replaced(before))
        if there is not None and there is not before:
            self._time_out(there)
        connection = self._roster.add(admitted.half, source, now)
        self.tally.connected += 1
        self._outgoing.say_alive(connection, now)
        self._events.append(Connected(connection))

    def _receive_from_elsewhere(self, datagram: bytes, source: Source, now: float) -> None:
        """Receive a packet of a connected client whose port has changed; see `roaming`."""
        silent = self._roster.roaming.silent(source, now)
        if not silent:
            raise Ignored("no_key")
        kind, sequence, body_at = read_header(datagram, TO_SERVER)
        if kind not in NUMBERED:
            raise Ignored("no_key")
        maybe = [connection for connection in silent if may_be_next(connection, sequence)]
        if not maybe or not self._roster.roaming.take(source, now):
            raise Ignored("no_key")
        for connection in maybe:
            try:
                self._open(connection.opener, datagram, sequence, body_at)
            except Ignored:
                continue
            self.tally.moved += 1
            self._roster.move(connection, source)
            return self._receive_packet(connection, datagram, now)
        raise Ignored("no_key")

    def _receive_packet(self, connection: Connection, datagram: bytes, now: float) -> None:
        kind, sequence, body_at = read_header(datagram, TO_SERVER)
        window = connection.window
        is_numbered = kind != RESPONSE  # of the kinds that a server accepts
        if not is_numbered and connection.source in self._half_open:
            return self._receive_response(datagram, connection.source, now)
        # The first part of `ReplayWindow.is_new`, inlined: this is the hottest path of a server.
        if is_numbered and sequence <= window.newest and not window.is_new(sequence):
            raise Ignored("replayed")
        body = self._open(connection.opener, datagram, sequence, body_at)
        if is_numbered:
            window.note(sequence)
        if kind == PAYLOAD and 0 < len(body) <= MAX_PAYLOAD:
            connection.heard_at = connection.payload_at = now
            connection.is_confirmed = True
            # `limits.Buckets.take`, inlined for the same reason.
            full_at = connection.payloads_full_at
            if full_at < now:
                full_at = now
            elif full_at - now > self._payload_patience:
                raise Ignored("payload_rate")
            connection.payloads_full_at = full_at + self._payload_interval
            self._senders.append(connection)
            self._payloads.append(body)
            return
        check_body(kind, body)
        if kind == KEEP_ALIVE:
            connection.heard_at = now
            connection.is_confirmed = True
        elif kind == DISCONNECT:
            self.tally.disconnected += 1
            connection.is_open = False
            self._roster.remove(connection)
            self._events.append(Disconnected(connection))
        else:
            # A repeat of the response that connected the client: its keep-alive is on its way.
            self._handshake.open_challenge(body)
            raise Ignored("address_connected")

    def _time_out(self, connection: Connection) -> None:
        self.tally.timed_out += 1
        connection.is_open = False
        self._roster.remove(connection)
        self._events.append(TimedOut(connection))
