"""A judge that limits how fast clients move their players.

Each player has a *budget*, a distance.  For each move that is applied, the seconds since the one
before earn ``per_second`` each, and the distance moved is taken off; what is left is kept for
the next move, up to ``slack``.  So over any time a player moves at most ``per_second`` for each of
its seconds, and ``slack`` once.  A move that costs more than there is does not pass.

Three things must not add to that:

- A long silence: at most `LONGEST` seconds are earned by one move.
- A rejected move takes nothing off, also where another judge rejects it.
- Leaving and joining again: a player new to a slot is taken to have left with nothing, and begins
  with what the time beyond `LONGEST` has earned since, up to ``slack``.

The program may set the player elsewhere: the way is measured from there.  Reactor thread only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from zope.interface import implementer

from playerstate.arguments import shown
from playerstate.interfaces import IStatefulJudge
from playerstate.live.rows import Slots
from playerstate.state.field import Field
from playerstate.state.kinds import Float, Int
from playerstate.state.schema import StateSchema

LONGEST = 3.0
"""The most seconds that count between two moves: as long as the client of this package waits for an
answer before it joins again."""

_MOST = 1e100
"""The greatest distance that may be allowed: sums of a few are finite."""

_Floats = npt.NDArray[np.float64]
_Moves = npt.NDArray[np.void]


@implementer(IStatefulJudge)
class SpeedLimit:
    """Rejects moves that are too fast, with the reason ``speed``.

    Give it to one `Gateway`.  Fields of any number of dimensions make one distance: by Pythagoras.

    Args:
        fields: names of the fields that are the player's place: ``float`` or ``int``, and the
            client's.
        per_second: the distance that a player may move in a second, in the fields' unit.
        slack: the distance that a player may move beyond that, once; it is earned again by
            moving slower.  Moves that the network delays arrive together: slack lets them pass.  By
            default what half a second allows.

    Raises:
        TypeError: a field is no text, or a distance no number; the message names it.
        ValueError: no field is named, or one twice, or a distance is out of range.
    """

    reason = "speed"

    def __init__(self, *fields: str, per_second: float, slack: float | None = None) -> None:
        for name in fields:
            if not isinstance(name, str):
                raise TypeError(f"field {shown(name)} is not a text: write SpeedLimit('x', 'y', …)")
        if not fields:
            raise ValueError("no field is named: write SpeedLimit('x', 'y', per_second=…)")
        if len(set(fields)) < len(fields):
            raise ValueError(f"a field is named twice in {', '.join(fields)}: name each once")
        self._fields = fields
        self._per_second = _distance("per_second", per_second)
        if not self._per_second:
            raise ValueError("per_second 0 lets no player move: make the fields server_owned()")
        self._slack = self._per_second / 2 if slack is None else _distance("slack", slack)
        # By slot: what was left after the last move applied, and what will be after the one judged.
        self._budgets = self._drafts = np.zeros(0, _BUDGET)

    def __repr__(self) -> str:
        names = "".join(f"{name!r}, " for name in self._fields)
        return f"SpeedLimit({names}per_second={self._per_second!r}, slack={self._slack!r})"

    def prepare(self, schema: StateSchema) -> None:
        """See `playerstate.interfaces.IStatefulJudge.prepare`."""
        fields = {field.name: field for field in schema.fields}
        fit = ", ".join(name for name, field in fields.items() if _why_not(field) is None)
        remedy = f"name some of {fit}" if fit else "no field is a number that clients move"
        for name in self._fields:
            why = _why_not(fields[name]) if name in fields else "there is no such field"
            if why is not None:
                raise ValueError(f"field {name!r}: {why}; {remedy}")
        self._budgets = self._drafts = np.zeros(0, _BUDGET)

    def passing(
        self, slots: Slots, before: _Moves, after: _Moves, seconds: _Floats
    ) -> npt.NDArray[np.bool_]:
        """See `playerstate.interfaces.IMoveJudge.passing`."""
        self._fit(slots)
        budgets = self._budgets[slots]
        unknown = budgets["session_id"] != before["session_id"]
        if unknown.any():
            budgets["session_id"][unknown] = before["session_id"][unknown]
            budgets["left"][unknown] = self._left_of_new(before[unknown], seconds[unknown])
        left = np.minimum(budgets["left"], self._slack)
        left += self._per_second * np.minimum(seconds, LONGEST)
        left -= self._distance(before, after)
        budgets["left"] = left
        self._drafts[slots] = budgets
        passes: npt.NDArray[np.bool_] = left >= 0.0
        return passes

    def applied(self, slots: Slots) -> None:
        """See `playerstate.interfaces.IStatefulJudge.applied`."""
        self._budgets[slots] = self._drafts[slots]

    def _fit(self, slots: Slots) -> None:
        """Grow the arrays to these slots."""
        if (missing := int(slots.max(initial=-1)) + 1 - len(self._budgets)) > 0:
            more = np.zeros(len(self._budgets) + missing, _BUDGET)
            self._budgets = np.append(self._budgets, more)
            self._drafts = np.append(self._drafts, more)

    def _left_of_new(self, before: _Moves, seconds: _Floats) -> _Floats:
        """The budget of players who are new to their slots."""
        earned = self._per_second * np.maximum(seconds - LONGEST, 0.0)
        never_changed = before["updated_at"] <= 0
        return np.where(never_changed, self._slack, np.minimum(earned, self._slack))

    def _distance(self, before: _Moves, after: _Moves) -> _Floats:
        distance = np.zeros(len(before))
        with np.errstate(over="ignore"):  # an infinite distance is too far, and that is all
            for name in self._fields:
                distance = np.hypot(distance, _apart(before[name], after[name]))
        return distance


_BUDGET = np.dtype([("session_id", "<i8"), ("left", "<f8")])
"""Of one slot: whose budget it is, and what is left of it."""


def _apart(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How far two columns are apart."""
    low, high = np.minimum(one, other), np.maximum(one, other)
    if high.dtype.kind == "i":  # the difference of two of 64 bits may need one bit more
        low, high = low.astype(np.uint64), high.astype(np.uint64)
    apart: npt.NDArray[Any] = high - low
    return apart


def _why_not(field: Field) -> str | None:
    """Why a field is no part of a place; None if it can be."""
    if not isinstance(field.kind, Float | Int):
        return f"it is {field.kind.canonical}, and only float and int have a speed"
    if field.is_server_owned:
        return "it is server_owned(), and no client moves it"
    return None


def _distance(name: str, value: Any) -> float:
    """A distance, checked."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
    except Exception:  # a class of the caller's may raise anything when it converts
        raise TypeError(f"{name} {shown(value)} is not a number") from None
    if not 0.0 <= number <= _MOST:
        raise ValueError(f"{name} {shown(value)} is not from 0 to {_MOST:g}")
    return number
