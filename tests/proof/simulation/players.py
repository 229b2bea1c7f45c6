"""One player and the counters, as the model keeps them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import attrs

from playerstate.interfaces import Stored

Values = tuple[Any, ...]
"""Packed values."""


@attrs.define(eq=False)
class Player:
    """One player.

    Attributes:
        values, updated_at: the newest state applied.
        history: every state ever applied that may still be seen, by ``updated_at``.
        applied_at: what was applied by this process, as (``updated_at``, when).
        slot: where in the live table; None for one who is not in it.
        leaving: whether in it only until saved.
        never_joined: whether in it only to be edited; without meaning for one who is not in it.
        sequence: the highest applied in this conversation.
        numbers: by sequence, the first ``updated_at`` that bore it; the store holds that state or a
            newer one before the sequence is called saved.
        saved: the highest sequence ever called saved in this conversation.
        given_up, given_up_at: the newest ``updated_at`` that was settled without being stored, and
            when that was.
        elsewhere: the newest ``updated_at`` that another program wrote.
        overrides: the numbers of the program's changes to the client's fields.
        unseen: whether no client has seen the newest of them; False where a process cannot know.
        was_online: whether the live file of the process before holds the player; None for perhaps.
            False once the player came in again.
        left_at: the newest ``updated_at`` when that process died.
        came_by: ``move``, ``delta`` or ``override``: how the newest state of the client's fields
            came; ``join`` where a join or a SEEN gave it its number.
        before: what was the newest state before this one.
        torn: the update that was being written when the process died.
    """

    session_id: int
    values: Values
    updated_at: int = 0
    history: dict[int, Values] = attrs.field(factory=dict)
    applied_at: list[tuple[int, float]] = attrs.field(factory=list)
    slot: int | None = None
    leaving: bool = False
    never_joined: bool = False
    sequence: int = 0
    numbers: dict[int, int] = attrs.field(factory=dict)
    saved: int = 0
    given_up: int = 0
    given_up_at: float = -math.inf
    elsewhere: int = 0
    overrides: list[int] = attrs.field(factory=list)
    unseen: bool = False
    was_online: bool | None = False
    left_at: int = 0
    came_by: str = ""
    torn: Stored | None = None
    before: Stored | None = None

    @property
    def may_leave(self) -> bool:
        """Whether a leave finds this player: online, or leaving already."""
        return self.slot is not None and not self.never_joined

    @property
    def is_overridden(self) -> bool:
        """Whether the program set fields of the client's, and no move came since."""
        return self.updated_at > 0 and self.updated_at % 2 == 1

    @property
    def override(self) -> int:
        """The number of the newest override, 0 where there was none."""
        return max((each for each in self.overrides if each <= self.updated_at), default=0)

    @property
    def newest(self) -> Stored | None:
        """What a store should hold of this player."""
        return Stored(self.values, self.updated_at) if self.updated_at else None

    def take(self, newest: Stored | None, spawn: Values) -> None:
        """From here on, this is the newest state."""
        self.values = spawn if newest is None else newest.values
        self.updated_at = 0 if newest is None else newest.updated_at


@attrs.define
class Counts:
    """What the ledger of the running process must say."""

    received: int = 0
    applied: int = 0
    stale: int = 0
    states: int = 0
    joins: int = 0
    restored: int = 0
    malformed: Counter[str] = attrs.field(factory=Counter)
    rejected: Counter[str] = attrs.field(factory=Counter)
    joins_refused: Counter[str] = attrs.field(factory=Counter)

    def refuse(self, reason: str) -> list[object]:
        """A message has no business here; return its answers, which are none."""
        self.received += 1
        self.rejected[reason] += 1
        return []

    def outdate(self) -> list[object]:
        """A message is late; return its answers, which are none."""
        self.received += 1
        self.stale += 1
        return []

    def malform(self, reason: str) -> list[object]:
        """A message cannot be read; return its answers, which are none."""
        self.received += 1
        self.malformed[reason] += 1
        return []
