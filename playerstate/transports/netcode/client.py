"""The client's side of netcode 1.02, without a socket and without a clock.

The caller passes received datagrams to `Client.receive`, calls `Client.due` some 20 times a second
for protocol packets to send, and seals payloads by `Client.send`.  The client tries the servers of
its token in order: it sends each a request ten times a second, returns the challenge, and is
connected on the first keep-alive.

A token is good for one connection.  After a lost connection, the caller needs another token and
another `Client`.
"""

from __future__ import annotations

import math
from enum import IntEnum

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from playerstate.transports.netcode.packets import (
    CHALLENGE,
    DENIED,
    DISCONNECT,
    DISCONNECTS,
    KEEP_ALIVE,
    KEEP_ALIVE_BODY,
    MAX_PAYLOAD,
    NUMBERED,
    PAYLOAD,
    RESPONSE,
    SPEAK_EVERY,
    TO_CLIENT,
    Ignored,
    Seals,
    check_body,
    read_header,
)
from playerstate.transports.netcode.replay import ReplayWindow
from playerstate.transports.netcode.requests import make_request
from playerstate.transports.netcode.tokens import ConnectToken

_NOTHING = KEEP_ALIVE_BODY.pack(0, 0)


class State(IntEnum):
    """A client's state, numbered as in the standard: 0 and below are final."""

    TOKEN_EXPIRED = -6
    CONNECTION_TIMED_OUT = -4
    RESPONSE_TIMED_OUT = -3
    REQUEST_TIMED_OUT = -2
    DENIED = -1
    DISCONNECTED = 0
    SENDING_REQUEST = 1
    SENDING_RESPONSE = 2
    CONNECTED = 3


class Client:
    """One connection of one client, from the request to its end.

    All times are seconds on a clock that never steps.

    Args:
        token: the 2,048 bytes of a connect token.
        now: the time.

    Raises:
        MalformedToken: the bytes are no connect token.

    Attributes:
        state: see `State`.
        server: IP address and port of the server that it is trying or connected to.
        slot, slots: its slot on the server and how many there are, once it is connected.
        heard_at: when a good packet of the server last arrived, or the client began to try it.
    """

    def __init__(self, token: bytes, now: float) -> None:
        self._token = ConnectToken.unpack(token)
        self._request = make_request(self._token)
        self._seals = Seals(self._token.protocol_id)
        self._sealer = ChaCha20Poly1305(self._token.client_to_server_key)
        self._opener = ChaCha20Poly1305(self._token.server_to_client_key)
        self._timeout = self._token.timeout_seconds
        # One sequence for all packets to all servers, since the keys are the same for all of
        # them.  Requests, which are not sealed, count as well.
        self._sequence = 0
        self._next_address = 0
        self.slot = self.slots = 0
        self.state = State.SENDING_REQUEST
        self._challenge = b""
        self._spoke_at = -math.inf
        self._turn_to_next(now)

    def due(self, now: float) -> bytes | None:
        """The packet to send now to `server`, if any; also checks the time-outs."""
        self._look_at_clock(now)
        if self.state <= State.DISCONNECTED or now < self._spoke_at + SPEAK_EVERY:
            return None
        if self.state == State.SENDING_REQUEST:
            self._sequence += 1
            self._spoke_at = now
            return self._request
        if self.state == State.SENDING_RESPONSE:
            return self._seal(RESPONSE, self._challenge, now)
        return self._seal(KEEP_ALIVE, _NOTHING, now)

    def send(self, payload: bytes, now: float) -> bytes:
        """Return the datagram that carries 1 to 1,200 bytes to the server.

        Raises:
            ValueError: the client is not connected, or the payload is shorter or longer.
        """
        if self.state != State.CONNECTED:
            raise ValueError(f"not connected, so nothing can be sent: {self.state.name}")
        if not 1 <= len(payload) <= MAX_PAYLOAD:
            raise ValueError(f"a payload has 1 to {MAX_PAYLOAD} bytes, not {len(payload)}")
        return self._seal(PAYLOAD, payload, now)

    def disconnect(self, now: float) -> list[bytes]:
        """End the connection; return the disconnect packets to send, none if it ended already."""
        if self.state <= State.DISCONNECTED:
            return []
        said = [self._seal(DISCONNECT, b"", now) for _ in range(DISCONNECTS)]
        self.state = State.DISCONNECTED
        return said

    def receive(self, datagram: bytes, source: tuple[str, int], now: float) -> bytes | None:
        """Receive a datagram; return its payload, if it carries one that is new.

        Args:
            datagram: any bytes.
            source: its sender; datagrams of others than `server` are ignored.
            now: the time.
        """
        if source != self.server or self.state <= State.DISCONNECTED or not datagram:
            return None
        try:
            kind, body = self._open(datagram)
        except Ignored:
            return None
        self._take(kind, body, now)
        return body if kind == PAYLOAD and self.state == State.CONNECTED else None

    def _open(self, datagram: bytes) -> tuple[int, bytes]:
        kind, sequence, body_at = read_header(datagram, TO_CLIENT)
        if kind in NUMBERED and not self._window.is_new(sequence):
            raise Ignored("replayed")
        body = self._seals.open(self._opener, datagram, sequence, body_at)
        if kind in NUMBERED:
            self._window.note(sequence)
        check_body(kind, body)
        return kind, body

    def _take(self, kind: int, body: bytes, now: float) -> None:
        if self.state == State.CONNECTED:
            if kind in (KEEP_ALIVE, PAYLOAD):
                self.heard_at = now
            elif kind == DISCONNECT:
                self.state = State.DISCONNECTED
        elif kind == DENIED:
            self._give_up(State.DENIED, now)
        elif kind == CHALLENGE and self.state == State.SENDING_REQUEST:
            self._challenge = body
            self.heard_at = now
            self.state = State.SENDING_RESPONSE
        elif kind == KEEP_ALIVE and self.state == State.SENDING_RESPONSE:
            self.slot, self.slots = KEEP_ALIVE_BODY.unpack(body)
            self.heard_at = now
            self.state = State.CONNECTED

    def _look_at_clock(self, now: float) -> None:
        lasts = self._token.expires_at - self._token.created_at
        if self.state in _TIMED_OUT and 0 < self._timeout <= now - self.heard_at:
            self._give_up(_TIMED_OUT[self.state], now)
        elif State.DISCONNECTED < self.state < State.CONNECTED and now - self._began_at >= lasts:
            self.state = State.TOKEN_EXPIRED

    def _give_up(self, why: State, now: float) -> None:
        """Try the next server; end if it was connected, or no server is left."""
        has_next = self._next_address < len(self._token.addresses)
        if self.state != State.CONNECTED and has_next:
            self._turn_to_next(now)
        else:
            self.state = why

    def _turn_to_next(self, now: float) -> None:
        address = self._token.addresses[self._next_address]
        self._next_address += 1
        self.server = (str(address.ip), address.port)
        self._window = ReplayWindow()
        self._challenge = b""
        self._began_at = self.heard_at = now
        self._spoke_at = -math.inf
        self.state = State.SENDING_REQUEST

    def _seal(self, kind: int, body: bytes, now: float) -> bytes:
        datagram = self._seals.seal(self._sealer, kind, self._sequence, body)
        self._sequence += 1
        self._spoke_at = now
        return datagram


_TIMED_OUT = {
    State.SENDING_REQUEST: State.REQUEST_TIMED_OUT,
    State.SENDING_RESPONSE: State.RESPONSE_TIMED_OUT,
    State.CONNECTED: State.CONNECTION_TIMED_OUT,
}
