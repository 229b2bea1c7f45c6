"""The server's side of netcode 1.02: challenges, connections, and the packets sent to clients.

A client is unknown, then *half-open*, its request answered by a challenge, then *connected*.  Its
state is where it is stored: nowhere, in `Server._half_open`, or in `Server._connections`, both by
source address.  The steps of each rule stand in the order of the standard; a step that fails raises
`Ignored`, and nothing has changed then.

The server makes no callbacks.  Events are returned; payloads and outgoing datagrams are queued
until they are taken.  So the caller may call the server again while it handles them, even after an
error: the server is between two datagrams then, and never in the middle of one.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from playerstate.transports.netcode.connections import Connection, HalfOpen, Source
from playerstate.transports.netcode.events import (
    Connected,
    Disconnected,
    Event,
    Replaced,
    TimedOut,
)
from playerstate.transports.netcode.history import TokenHistory
from playerstate.transports.netcode.outgoing import Outgoing
from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    DISCONNECT,
    KEEP_ALIVE,
    MAX_PAYLOAD,
    NUMBERED,
    PAYLOAD,
    RESPONSE,
    TO_SERVER,
    Ignored,
    Seals,
    check_body,
    read_header,
)
from playerstate.transports.netcode.requests import Requests
from playerstate.transports.netcode.roaming import Roaming, is_silent, may_be_next
from playerstate.transports.netcode.settings import NetcodeSettings
from playerstate.transports.netcode.tally import Tally
from playerstate.transports.netcode.tokens import KEY_BYTES, Challenges, NotSealed

SPEAK_EVERY = 0.1
"""Seconds without sending after which a keep-alive is due: the standard's 10 Hz."""
STALL = 0.25
"""The most seconds of silence that a client is charged with from one tick to the next."""
CATCH_UP = 0.5
"""Seconds that every client has left at least, after the process stalled: datagrams of that time
wait in the sockets, and must be read before a client can time out."""
TAKE_OVER_AFTER = 1.0
"""Seconds before a connection can be replaced by another of the same client: two devices with a
token each replace one another no faster than that."""
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
        self._settings = settings
        self._wall_clock = wall_clock
        self._challenges = Challenges(random_bytes(KEY_BYTES))
        self.requests = self._requests = Requests(settings, now, random_bytes)
        self._roaming = Roaming(random_bytes)
        self._seals = Seals(settings.protocol_id)
        self._open = self._seals.open
        self._events: list[Event] = []
        self._senders: list[Connection] = []
        self._payloads: list[bytes] = []
        self._outgoing = Outgoing(self._seals, settings.slots)
        self._history = TokenHistory(settings.history_size)
        self._half_open: dict[Source, HalfOpen] = {}
        self._connections: dict[Source, Connection] = {}
        self._by_client_id: dict[int, Connection] = {}
        self._ending: deque[tuple[float, Connection]] = deque()
        self._free_slots = list(range(settings.slots))
        self._ticked_at = math.inf
        self._was_late = False
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
                self._receive_request(datagram, source, now)
            elif (connection := self._connections.get(source)) is None:
                self._receive_response(datagram, source, now)
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
            self._drop(connection)
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
        self._forgive(now)
        while self._ending and self._ending[0][0] <= now:
            self._outgoing.say_disconnected(self._ending.popleft()[1], now)
        for connection in self.connections:
            if connection.spoke_at + SPEAK_EVERY <= now:
                self._outgoing.say_alive(connection, now)
            if connection.heard_at + connection.timeout <= now:
                self._time_out(connection)
        lapsed = [source for source, half in self._half_open.items() if half.lapses_at <= now]
        for source in lapsed:
            del self._half_open[source]
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

    def _forgive(self, now: float) -> None:
        """Do not count the time for which the process stalled as silence of any client.

        The first late tick also leaves each client time for its waiting datagrams to be read; if
        every late tick did, a busy server would never time a client out.
        """
        stood_still = now - self._ticked_at - STALL
        self._ticked_at = now
        is_first = not self._was_late
        self._was_late = stood_still > 0
        if not self._was_late:
            return
        for connection in self.connections:
            heard_at = connection.heard_at + stood_still
            if is_first:
                heard_at = max(heard_at, now + CATCH_UP - connection.timeout)
            connection.heard_at = min(heard_at, now)
            connection.payload_at = min(connection.payload_at + stood_still, now)
        for half in self._half_open.values():
            half.lapses_at += stood_still

    def _receive_request(self, datagram: bytes, source: Source, now: float) -> None:
        unix_now = self._wall_clock()
        request = self._requests.read(datagram, now, unix_now)
        there = self._check_free(source, now)
        self._requests.limit(source[0], now)
        token = self._requests.unseal(request)
        before = self._by_client_id.get(token.client_id)
        if before is not None:
            self._check_take_over(before, math.inf, now)
        self._requests.check_usable(token)
        tag = request.tag
        number = self._history.admit(tag, request.expires_at, source, unix_now)
        if before is not None:
            self._check_take_over(before, number, now)
        sealer = ChaCha20Poly1305(token.server_to_client_key)
        if before is None and there is None and not self._free_slots:
            return self._deny(sealer, source)
        if source not in self._half_open and len(self._half_open) >= self._settings.half_open:
            raise Ignored("half_open_full")
        opener = ChaCha20Poly1305(token.client_to_server_key)
        lapses_at = now + token.timeout_seconds
        self._half_open[source] = HalfOpen(token, tag, opener, sealer, number, lapses_at)
        body = self._challenges.make(token.client_id, token.user_data)
        self.tally.challenged += 1
        self._outgoing.say_globally(sealer, CHALLENGE, body, source)

    def _check_free(self, source: Source, now: float) -> Connection | None:
        """Refuse a source where an active client is connected; return a silent one there, if any.

        A restarted client may send from its earlier port, and a router may give a client the port
        of another that has gone.
        """
        there = self._connections.get(source)
        if there is not None and not is_silent(there, now):
            raise Ignored("address_connected")
        return there

    def _receive_response(self, datagram: bytes, source: Source, now: float) -> None:
        half = self._half_open.get(source)
        if half is None:
            return self._receive_from_elsewhere(datagram, source, now)
        there = self._check_free(source, now)
        kind, sequence, body_at = read_header(datagram, TO_SERVER)
        if kind != RESPONSE:
            raise Ignored("not_connected")
        body = self._seals.open(half.opener, datagram, sequence, body_at)
        check_body(kind, body)
        client_id = self._open_challenge(body)
        before = self._by_client_id.get(client_id)
        if before is not None:
            self._check_take_over(before, half.number, now)
        if client_id != half.token.client_id:
            # Otherwise the holder of two tokens could connect as the client of one, under the keys
            # of the other, and use both again.  The standard does not require this check.
            raise Ignored("client_id_differs")
        if before is not None:
            self._replace(before)
        elif there is None and not self._free_slots:
            return self._deny(half.sealer, source)
        if there is not None and there is not before:
            self._time_out(there)
        self._connect(half, source, now)

    def _check_take_over(self, before: Connection, number: int | float, now: float) -> None:
        """Refuse to replace a client's connection that is too young, or whose token is newer.

        A client that presents a fresh token and answers at a new address has given its old
        connection up; the standard makes it wait until that has timed out.
        """
        if number < before.number or now < before.began_at + TAKE_OVER_AFTER:
            raise Ignored("client_id_connected")

    def _replace(self, before: Connection) -> None:
        self.tally.replaced += 1
        self._drop(before)
        self._events.append(Replaced(before))

    def _receive_from_elsewhere(self, datagram: bytes, source: Source, now: float) -> None:
        """Receive a packet of a connected client whose port has changed; see `roaming`."""
        silent = self._roaming.silent(source, now)
        if not silent:
            raise Ignored("no_key")
        kind, sequence, body_at = read_header(datagram, TO_SERVER)
        if kind not in NUMBERED:
            raise Ignored("no_key")
        maybe = [connection for connection in silent if may_be_next(connection, sequence)]
        if not maybe or not self._roaming.take(source, now):
            raise Ignored("no_key")
        for connection in maybe:
            try:
                self._open(connection.opener, datagram, sequence, body_at)
            except Ignored:
                continue
            self.tally.moved += 1
            del self._connections[connection.source]
            self._connections[source] = connection
            connection.source = source  # the same host and local port, so `Roaming` stays valid
            return self._receive_packet(connection, datagram, now)
        raise Ignored("no_key")

    def _open_challenge(self, body: bytes) -> int:
        try:
            return self._challenges.open(body)
        except NotSealed:
            raise Ignored("bad_challenge") from None

    def _connect(self, half: HalfOpen, source: Source, now: float) -> None:
        token = half.token
        connection = Connection(
            client_id=token.client_id,
            user_data=token.user_data,
            source=source,
            slot=heapq.heappop(self._free_slots),
            timeout=token.timeout_seconds,
            opener=half.opener,
            sealer=half.sealer,
            number=half.number,
            began_at=now,
            heard_at=now,
            spoke_at=now,
            payload_at=now,
            payloads_full_at=now,
        )
        self._history.consume(half.tag)
        del self._half_open[source]
        self._connections[source] = self._by_client_id[token.client_id] = connection
        self._roaming.add(connection)
        self.tally.connected += 1
        self._outgoing.say_alive(connection, now)
        self._events.append(Connected(connection))

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
            self._drop(connection)
            self._events.append(Disconnected(connection))
        else:
            # A repeat of the response that connected the client: its keep-alive is on its way.
            self._open_challenge(body)
            raise Ignored("address_connected")

    def _time_out(self, connection: Connection) -> None:
        self.tally.timed_out += 1
        connection.is_open = False
        self._drop(connection)
        self._events.append(TimedOut(connection))

    def _drop(self, connection: Connection) -> None:
        """Accept no more of its packets, and free its slot."""
        self._roaming.remove(connection)
        del self._connections[connection.source]
        del self._by_client_id[connection.client_id]
        heapq.heappush(self._free_slots, connection.slot)

    def _deny(self, sealer: ChaCha20Poly1305, source: Source) -> None:
        self.tally.denied += 1
        self._outgoing.say_globally(sealer, DENIED, b"", source)
