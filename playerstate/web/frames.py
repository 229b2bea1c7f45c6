"""The frames of the feed: bytes that a page in a browser reads as typed arrays.

A frame is a head of 8 bytes and a body.  The head is a ``u32``, the length of the body, a byte, the
kind of frame, and three zero bytes.  The length is a multiple of 8, so that every array lies where
a typed array may begin; a body of JSON is filled up with spaces, any other with zeros.  All numbers
are little-endian.

==== ========= =================================================================
kind body      when
==== ========= =================================================================
S    JSON      first: what does not change while the feed is open
G    JSON      at each tick: the gauges and counters
P    binary    at each tick, after G: the players
E    JSON      last: why the server ends the feed
==== ========= =================================================================

The body of P is two ``u32``, the number of players `n` and the stride, and then columns: ``i64[n]``
session ids, ``f32[n]`` of the first axis, ``f32[n]`` of the second, ``u32[n]`` slots, ``u8[n]``
flags.  Without axes the two columns of ``f32`` are missing.  A stride above 1 says that the players
are a sample: those whose slot is a multiple of it, and the one who is followed.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

FORMAT = 1
"""The format of the feed; it is raised when an older page could not read the frames any more."""

_HEAD = struct.Struct("<IB3x")
_COUNTS = struct.Struct("<II")
_ALIGNED = 8
_F32_MAX = float(np.finfo(np.float32).max)


class Kind(enum.IntEnum):
    """The kinds of frames, by their byte."""

    START = ord("S")
    GAUGES = ord("G")
    PLAYERS = ord("P")
    END = ord("E")


class Flag(enum.IntFlag):
    """What the flags of a player say."""

    UNSAVED = 1
    """The store does not hold the newest state."""
    LEAVING = 2
    """The player is not online, and in the table only until saved."""


@attrs.frozen(eq=False)
class Seen:
    """Players as the feed shows them; all arrays have one element a player.

    Attributes:
        session_ids: of the players.
        axes: the values of the two axes, one array each; empty where the class has no two floats.
        slots: of the players, which stay theirs while they are in the table.
        flags: of each, see `Flag`.
        stride: 1 where these are all players; else a power of two, see this module.
    """

    session_ids: npt.NDArray[np.int64]
    axes: tuple[npt.NDArray[np.float64], ...]
    slots: npt.NDArray[np.intp]
    flags: npt.NDArray[np.uint8]
    stride: int


def json_frame(kind: Kind, body: Any) -> bytes:
    """A frame whose body is JSON."""
    text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return _framed(kind, text, b" ")


def players_frame(seen: Seen) -> bytes:
    """The frame of these players; a value that no ``f32`` can hold becomes the nearest that can."""
    columns = [
        seen.session_ids.astype("<i8"),
        *(np.clip(axis, -_F32_MAX, _F32_MAX).astype("<f4") for axis in seen.axes),
        seen.slots.astype("<u4"),
        seen.flags.astype("u1"),
    ]
    counts = _COUNTS.pack(len(seen.slots), seen.stride)
    return _framed(
        Kind.PLAYERS, b"".join([counts, *(column.tobytes() for column in columns)]), b"\0"
    )


def _framed(kind: Kind, body: bytes, fill: bytes) -> bytes:
    body += fill * (-len(body) % _ALIGNED)
    return _HEAD.pack(len(body), kind) + body
