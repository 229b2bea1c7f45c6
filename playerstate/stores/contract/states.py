"""State classes, and records of players, as the tests of stores need them."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import attrs
import numpy as np

from playerstate.interfaces import (
    Records,
)
from playerstate.state.default import PlayerState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema, text


@attrs.frozen
class Everything:
    """A state class with a field of each kind, in an order that no sorting gives."""

    x: float = 1.5
    hp: int = 100
    alive: bool = True
    zone: str = attrs.field(default="spawn", metadata=text(16))
    angle: float = -0.25


PLAIN = StateSchema.of(PlayerState)
EVERYTHING = StateSchema.of(Everything)
IDENTITY = bytes(range(1, 17))
"""What the stores are given."""


def state_class(**fields: Any) -> type:
    """A state class of these fields, each given as its default; text fields hold 32 bytes."""
    return attrs.make_class(
        "Made",
        {
            field: attrs.field(
                default=default,
                type=type(default),
                metadata=text(32) if isinstance(default, str) else {},
            )
            for field, default in fields.items()
        },
        frozen=True,
    )


def records(schema: StateSchema, *players: tuple[Any, ...]) -> Records:
    """Records of players, each given as (session id, plain value of each field, updated_at)."""
    made = np.zeros(len(players), RowLayout(schema.fields).record)
    for index, (session_id, *plain, updated_at) in enumerate(players):
        made[index] = (session_id, *schema.encode(tuple(plain)), updated_at)
    return made


def spawned(schema: StateSchema, ids: Any, updated_at: int = 1) -> Records:
    """Records of many players at their spawn."""
    made = np.zeros(len(ids), RowLayout(schema.fields).record)
    made[:] = (0, *schema.spawn, updated_at)
    made["session_id"] = ids
    return made


def any_values(draw: random.Random) -> tuple[Any, ...]:
    """Values of `Everything`, of any bits that it accepts."""
    letters = "".join(
        chr(draw.choice((draw.randrange(1, 128), draw.randrange(0xE000, 0x110000), 0xF6)))
        for _ in range(draw.randrange(17))
    )
    while len(letters.encode()) > 16:
        letters = letters[:-1]
    return _any_float(draw), _any_int(draw), draw.random() < 0.5, letters, _any_float(draw)


def _any_int(draw: random.Random) -> int:
    return draw.getrandbits(64) - 2**63


def _any_float(draw: random.Random) -> float:
    while True:
        number: float
        (number,) = struct.unpack("<d", draw.randbytes(8))
        if math.isfinite(number):
            return number
