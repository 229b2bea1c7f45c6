"""Bytes to messages and back: protocol version 1.  No addresses, no identity, no state.

Integers and floats are little-endian.  A message begins with its type byte; the transport knows
its player.  Bytes that cannot be read raise `Malformed`, with the reason they are counted under.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.arguments import MAX_SEQUENCE
from playerstate.state.field import InvalidState
from playerstate.state.schema import StateSchema

VERSION = 1

JOIN, MOVE, LEAVE, PING, DELTA, SEEN = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
WELCOME, RECEIPT, REFUSED, GONE, STATE = 0x81, 0x82, 0x83, 0x84, 0x85

MAX_JOIN_SIZE = 1200
"""Bytes of the longest message; only a JOIN or a PING with its padding is that long."""
STATES_PAID = 3
"""How many STATEs a client can have paid for in advance; a JOIN pays for as many as it has room."""

_JOIN = struct.Struct("<BBIIIQ")
_NUMBERED = struct.Struct("<BI")
_NUMBERED_SIZES = {0x03: 36, 0x04: 9}
"""Bytes of a LEAVE, and the fewest of a PING, padded with zeros so that no answer is longer.  A
PING gets one RECEIPT and a LEAVE two, each with its transport's overhead."""
_SEEN = struct.Struct("<BQI")
_STATE = struct.Struct("<BBQ")
_RECEIPT = struct.Struct("<BII")
_ANSWER = struct.Struct("<BIB")
_OVERHEADS = (12, 18)
"""Bytes that each transport adds to a message, before and behind it."""
_UNASKED = (_ANSWER.size + max(_OVERHEADS)) + 2 * (_RECEIPT.size + max(_OVERHEADS))
"""Bytes by which a JOIN is longer than its WELCOME: they pay for a GONE and two RECEIPTs, with
their transport's overhead, that the server sends later unasked."""

_RESTORED = 0x01
_OVERRIDE = 0x01


class RefusedReason(IntEnum):
    """Why a JOIN was refused."""

    FULL = 1
    VERSION = 2
    FINGERPRINT = 3
    SHUTTING_DOWN = 4
    STORE = 5


class GoneReason(IntEnum):
    """Why a conversation is over."""

    KICKED = 1
    IDLE = 2
    JOINED_ELSEWHERE = 3
    SHUTTING_DOWN = 4


class Malformed(ValueError):
    """The bytes are no message; ``reason`` is the name they are counted under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@attrs.frozen
class Join:
    """Load or spawn this player.

    Attributes:
        version: of the protocol.
        fingerprint: of the client's schema; 0 for "do not check".
        nonce: names the conversation; the answer repeats it.
        sequence: the highest number this client has used for this player, 0 for none.
        size: bytes of the whole message; the answer is never longer.
        secret: of the conversation to move to the sender's address; 0 for none.
    """

    version: int
    fingerprint: int
    nonce: int
    sequence: int
    size: int
    secret: int = 0


@attrs.frozen
class Welcome:
    """The player's current state.

    Attributes:
        restored: whether the state was ever saved or changed.
        nonce: the JOIN's.
        updated_at: microseconds since the Unix epoch; 0 for never.
        values: packed values.
        secret: lets a JOIN from another address move this conversation there.
    """

    restored: bool
    nonce: int
    updated_at: int
    values: tuple[Any, ...]
    secret: int = 0


@attrs.frozen
class Receipt:
    """The highest sequence applied, and the highest saved."""

    applied: int
    saved: int


@attrs.frozen
class Seen:
    """The client has seen the STATE with this number, and all before it.

    Attributes:
        number: the STATE's.
        sequence: the highest number that the client had used for a move when it saw the STATE.
    """

    number: int
    sequence: int


@attrs.frozen
class State:
    """The player's state, changed by the program around the server.

    Attributes:
        is_override: whether fields of the client's were set: it goes on from these values.
        number: of the change; larger with each change of this player.
        values: packed values of all fields.
    """

    is_override: bool
    number: int
    values: tuple[Any, ...]


@attrs.frozen
class Refused:
    """The JOIN with this nonce was refused."""

    nonce: int
    reason: int


@attrs.frozen
class Gone:
    """The conversation with this nonce is over."""

    nonce: int
    reason: int


def encode_numbered(kind: int, sequence: int, size: int = 0) -> bytes:
    """A LEAVE or a PING, padded to pay for its answer; a PING may be longer, to pay for more."""
    return _NUMBERED.pack(kind, sequence).ljust(max(size, _NUMBERED_SIZES[kind]), b"\0")


def encode_state(is_override: bool, number: int, fields: bytes) -> bytes:
    """A STATE of packed fields."""
    return _STATE.pack(STATE, _OVERRIDE if is_override else 0, number) + fields


def receipts_for(size: int) -> float:
    """How many RECEIPTs a message of this many bytes pays for, on any transport."""
    return min((size + before) / (_RECEIPT.size + before) for before in _OVERHEADS)


def encode_receipt(applied: int, saved: int) -> bytes:
    """A RECEIPT."""
    return _RECEIPT.pack(RECEIPT, applied, saved)


def encode_refused(nonce: int, reason: RefusedReason) -> bytes:
    """A REFUSED."""
    return _ANSWER.pack(REFUSED, nonce, reason)


def encode_gone(nonce: int, reason: GoneReason) -> bytes:
    """A GONE."""
    return _ANSWER.pack(GONE, nonce, reason)


def decode_join(data: bytes, at: int = 0) -> Join:
    """The JOIN from `at` to the end of `data`."""
    size = len(data) - at
    if size < _JOIN.size:
        raise Malformed("too_short")
    if size > MAX_JOIN_SIZE:
        raise Malformed("too_long")
    _, version, fingerprint, nonce, sequence, secret = _JOIN.unpack_from(data, at)
    if sequence == MAX_SEQUENCE:  # no move could follow
        raise Malformed("value")
    return Join(version, fingerprint, nonce, sequence, size, secret)


def decode_numbered(data: bytes, at: int = 0) -> int:
    """The sequence of the LEAVE or PING from `at` to the end of `data`."""
    if len(data) <= at:
        raise Malformed("too_short")
    size = _NUMBERED_SIZES.get(data[at], _NUMBERED.size)
    if data[at] == PING:
        size = min(max(size, len(data) - at), MAX_JOIN_SIZE)
    _check_size(data, at, size)
    sequence: int = _NUMBERED.unpack_from(data, at)[1]
    return sequence


def _check_size(data: bytes, at: int, size: int) -> None:
    if len(data) - at != size:
        raise Malformed("too_short" if len(data) - at < size else "too_long")


class Codec:
    """The messages that carry fields, for one schema.

    Attributes:
        moved: the fields that a MOVE carries.
        move_size, welcome_size, state_size, seen_size: bytes of a MOVE, of a WELCOME, of a STATE,
            and of a SEEN, which is as long, to pay for the next STATE.
        state_costs: how many RECEIPTs have the bytes of a STATE, on any transport.
        ping_size: bytes of a PING that pays for a STATE beside its RECEIPT.
        join_size: the least bytes of a JOIN that can be welcomed.
    """

    def __init__(self, schema: StateSchema) -> None:
        self._schema = schema
        self.moved = schema.moved
        self._read = schema.moved.read
        self._unpack_fields = schema.struct.unpack_from
        self._move = struct.Struct("<BI" + schema.moved.struct.format[1:])
        self._welcome = struct.Struct("<BBIQQ" + schema.struct.format[1:])
        self._layouts: dict[int, np.dtype[np.void]] = {}
        self.move_size = self._move.size
        self.welcome_size = self._welcome.size
        self.state_size = _STATE.size + schema.struct.size
        self.seen_size = max(_SEEN.size, self.state_size)
        self.state_costs = max(
            (self.state_size + before) / (_RECEIPT.size + before) for before in _OVERHEADS
        )
        self.ping_size = math.ceil(
            (1 + self.state_costs) * (_RECEIPT.size + max(_OVERHEADS)) - max(_OVERHEADS)
        )
        self._state_bytes = self.state_size + max(_OVERHEADS)
        self.join_size = self.welcome_size + _UNASKED
        self.join_size += self._state_bytes * self.states_paid_by(MAX_JOIN_SIZE)

    def encode_join(
        self, nonce: int, sequence: int, fingerprint: int | None = None, secret: int = 0
    ) -> bytes:
        """A JOIN, padded to pay for its WELCOME; with the schema's fingerprint by default."""
        if fingerprint is None:
            fingerprint = self._schema.fingerprint
        join = _JOIN.pack(JOIN, VERSION, fingerprint, nonce, sequence, secret)
        return join.ljust(self.join_size, b"\0")

    def states_paid_by(self, size: int) -> int:
        """How many STATEs a JOIN of this many bytes pays for in advance."""
        left = size - self.welcome_size - _UNASKED
        return max(0, min(STATES_PAID, left // self._state_bytes))

    def encode_seen(self, number: int, sequence: int) -> bytes:
        """A SEEN, padded to pay for the next STATE."""
        return _SEEN.pack(SEEN, number, sequence).ljust(self.seen_size, b"\0")

    def decode_seen(self, data: bytes, at: int = 0) -> Seen:
        """The SEEN from `at` to the end of `data`.

        Raises:
            Malformed: ``too_short``, ``too_long``, or ``value`` if it leaves no number for a move.
        """
        _check_size(data, at, self.seen_size)
        _, number, sequence = _SEEN.unpack_from(data, at)
        if sequence == MAX_SEQUENCE:
            raise Malformed("value")
        return Seen(number, sequence)

    def encode_move(self, sequence: int, values: tuple[Any, ...]) -> bytes:
        """A MOVE to this state, given as packed values; it carries the client's fields."""
        return self._move.pack(MOVE, sequence, *self.moved.of(values))

    def encode_welcome(
        self, nonce: int, updated_at: int, values: tuple[Any, ...], secret: int = 0
    ) -> bytes:
        """A WELCOME of packed values."""
        flags = _RESTORED if updated_at else 0
        return self._welcome.pack(WELCOME, flags, nonce, max(updated_at, 0), secret, *values)

    def decode_move(self, data: bytes, at: int = 0) -> tuple[int, tuple[Any, ...]]:
        """The sequence and the accepted values of the MOVE from `at` to the end of `data`.

        The values are those of the client's fields, `StateSchema.moved`.

        Raises:
            Malformed: ``too_short``, ``too_long``, or ``value`` for one outside its field.
        """
        if len(data) - at != self.move_size:
            _check_size(data, at, self.move_size)
        try:
            return self._read(data, at + 1)
        except InvalidState:
            raise Malformed("value") from None

    def decode_moves(self, data: Sequence[bytes], at: int) -> npt.NDArray[np.void]:
        """The ``sequence`` and the ``fields``, not yet accepted, of many MOVEs of the right size.

        The fields are the client's, `StateSchema.moved`.

        Args:
            data: the messages.
            at: the offset in each at which the MOVE begins, which ends with the message.
        """
        layout = self._layouts.get(at)
        if layout is None:
            layout = self._layouts[at] = self._layout(at)
        return np.frombuffer(bytearray().join(data), layout)

    def _layout(self, at: int) -> np.dtype[np.void]:
        return np.dtype(
            {
                "names": ["sequence", "fields"],
                "formats": ["<u4", self.moved.dtype],
                "offsets": [at + 1, at + 5],
                "itemsize": at + self.move_size,
            }
        )

    def decode_server(self, data: bytes) -> Welcome | Receipt | State | Refused | Gone:
        """Any message from a server.

        Raises:
            Malformed: the bytes are none.
        """
        kind = data[0] if data else None
        if kind == WELCOME:
            _check_size(data, 0, self.welcome_size)
            _, flags, nonce, updated_at, secret, *values = self._welcome.unpack(data)
            return Welcome(bool(flags & _RESTORED), nonce, updated_at, tuple(values), secret)
        if kind == RECEIPT:
            _check_size(data, 0, _RECEIPT.size)
            return Receipt(*_RECEIPT.unpack(data)[1:])
        if kind == STATE:
            _check_size(data, 0, self.state_size)
            _, flags, number = _STATE.unpack_from(data)
            fields = self._unpack_fields(data, _STATE.size)
            return State(bool(flags & _OVERRIDE), number, fields)
        if kind in (REFUSED, GONE):
            _check_size(data, 0, _ANSWER.size)
            return (Refused if kind == REFUSED else Gone)(*_ANSWER.unpack(data)[1:])
        raise Malformed("too_short" if kind is None else "unknown_type")
