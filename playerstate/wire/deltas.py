"""DELTA: a state as steps away from a *base*, a state that both ends know.

====== ===== ==================================================================
offset type  what
====== ===== ==================================================================
0      u8    0x05
1      u16   low 16 bits of the sequence
3      u8    low 8 bits of the base's sequence
4            one entry for each field
====== ===== ==================================================================

The entry of a field with a resolution is a number of steps on the field's grid, as a zigzag varint
(LEB128, seven bits a byte, the lowest first); its value is ``(round(base / resolution) + steps) *
resolution``, where halves are rounded to even.  The entry of any other field is its value in full.
All is little-endian; `playerstate.conversations.receipts` says which states are bases.
"""

from __future__ import annotations

import struct
from typing import Any

import attrs

from playerstate.state.field import InvalidState
from playerstate.state.schema import StateSchema
from playerstate.wire.messages import DELTA, Malformed

BASE_WITHIN = 256
"""A base must be fewer than this many sequences back, or its low 8 bits would be ambiguous."""

_HEAD = struct.Struct("<BHB")
_MOST_STEPS = 2**64 - 1
"""The largest zigzag number; more than 64 bits are malformed."""


@attrs.frozen
class Delta:
    """A received DELTA, not yet resolved.

    Attributes:
        sequence: low 16 bits of its sequence.
        base: low 8 bits of the base's sequence.
        entries: one for each of the client's fields: steps, or a packed value.
    """

    sequence: int
    base: int
    entries: tuple[Any, ...]

    def sequence_after(self, highest: int) -> int:
        """The whole sequence: the one nearest to `highest` of those with these low bits."""
        return highest + ((self.sequence - highest + 0x8000) & 0xFFFF) - 0x8000

    def base_of(self, sequence: int) -> int:
        """The whole sequence of the base, given the DELTA's own."""
        return sequence - ((sequence - self.base) & 0xFF)


class DeltaCodec:
    """The DELTAs of one schema."""

    def __init__(self, schema: StateSchema) -> None:
        self._moved = schema.moved
        self._accept = schema.moved.accept
        kinds = [field.kind for field in schema.moved.fields]
        self._resolutions = tuple(kind.resolution for kind in kinds)
        self._whole = tuple(struct.Struct("<" + kind.format) for kind in kinds)
        self._snaps = [
            (place, field.kind.snapped)
            for place, field in enumerate(schema.fields)
            if field.kind.resolution and not field.is_server_owned
        ]

    def snap(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values, each rounded to its field's grid, so that a DELTA carries them exactly."""
        snapped = list(values)
        for index, snap in self._snaps:
            snapped[index] = snap(snapped[index])
        return tuple(snapped)

    def encode(
        self, sequence: int, base: int, base_values: tuple[Any, ...], values: tuple[Any, ...]
    ) -> bytes | None:
        """The DELTA from one state to another; None if a DELTA cannot express it.

        Args:
            sequence: the DELTA's sequence.
            base: the base's sequence, below it and fewer than `BASE_WITHIN` back.
            base_values: the packed values of the base, a whole state.
            values: those of the state, on the grid.
        """
        if not 0 < sequence - base < BASE_WITHIN:
            return None
        message = bytearray(_HEAD.pack(DELTA, sequence & 0xFFFF, base & 0xFF))
        try:
            for resolution, whole, before, value in zip(
                self._resolutions,
                self._whole,
                self._moved.of(base_values),
                self._moved.of(values),
                strict=True,
            ):
                if resolution is None:
                    message += whole.pack(value)
                else:
                    origin = round(before / resolution)
                    steps = round(value / resolution) - origin
                    if (origin + steps) * resolution != value:
                        return None
                    _put_varint(message, steps << 1 if steps >= 0 else (-steps << 1) - 1)
        except OverflowError:  # more steps than 64 bits count
            return None
        return bytes(message)

    def decode(self, data: bytes, at: int = 0) -> Delta:
        """Read the DELTA from `at` to the end of `data`.

        Raises:
            Malformed: ``too_short``, ``too_long``, or ``value`` for a step of more than 64 bits.
        """
        if len(data) - at < _HEAD.size:
            raise Malformed("too_short")
        _, sequence, base = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        entries: list[Any] = []
        for resolution, whole in zip(self._resolutions, self._whole, strict=True):
            if resolution is None:
                if len(data) - at < whole.size:
                    raise Malformed("too_short")
                entries += whole.unpack_from(data, at)
                at += whole.size
            else:
                number, at = _take_varint(data, at)
                entries.append((number >> 1) ^ -(number & 1))
        if at != len(data):
            raise Malformed("too_long")
        return Delta(sequence, base, tuple(entries))

    def restore(self, delta: Delta, base_values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The accepted packed values of a DELTA's fields, those of the client.

        Args:
            delta: the DELTA.
            base_values: the packed values of its base, a whole state.

        Raises:
            Malformed: ``value``, for one outside its field.
        """
        entries = zip(self._resolutions, self._moved.of(base_values), delta.entries, strict=True)
        try:
            values = (
                entry if resolution is None else (round(before / resolution) + entry) * resolution
                for resolution, before, entry in entries
            )
            return self._accept(*values)
        except (InvalidState, OverflowError):
            raise Malformed("value") from None


def _put_varint(message: bytearray, number: int) -> None:
    if number > _MOST_STEPS:
        raise OverflowError
    while number > 0x7F:
        message.append(number & 0x7F | 0x80)
        number >>= 7
    message.append(number)


def _take_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at this offset, and the offset behind it."""
    number = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if number > _MOST_STEPS or shift > 63:
            raise Malformed("value")
        if byte < 0x80:
            return number, at
        shift += 7
    raise Malformed("too_short")
