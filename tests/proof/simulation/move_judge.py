"""A judge of moves, as a game may have one: it rejects some states, and fails at others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from zope.interface import implementer

from playerstate.interfaces import IMoveJudge
from playerstate.live.table import LiveTable
from playerstate.state.schema import StateSchema
from tests.proof.simulation.store import Broken
from tests.proof.simulation.world import World


def verdict(x: float, every: int) -> str:
    """Why a move to this x is rejected; empty where it passes, or `every` is 0.

    Every so many states are rejected, and of another every as many the judge fails.
    """
    if not every:
        return ""
    return {0: MoveJudge.reason, 1: "judge_failed"}.get(math.floor(x) % every, "")


@implementer(IMoveJudge)
class MoveJudge:
    """Judges by `verdict`, and looks at what it is given.

    Args:
        world: where what does not hold is said.
        schema: the players'.
        every: see `verdict`.
        table: returns the live table.
    """

    reason = "unlucky"

    def __init__(
        self, world: World, schema: StateSchema, every: int, table: Callable[[], LiveTable]
    ) -> None:
        self._world = world
        self._owned = [field.name for field in schema.fields if field.is_server_owned]
        self._every = every
        self._table = table

    def passing(
        self,
        slots: npt.NDArray[np.intp],
        before: npt.NDArray[np.void],
        after: npt.NDArray[np.void],
        seconds: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.bool_]:
        """See `IMoveJudge`."""
        self._look(slots, before, after, seconds)
        verdicts = [verdict(x, self._every) for x in after["x"].tolist()]
        if "judge_failed" in verdicts:
            raise Broken("this move cannot be judged")
        return np.array([not each for each in verdicts])

    def _look(self, slots: Any, before: Any, after: Any, seconds: Any) -> None:
        """It is asked about players who are there, once each, and of rows as they are."""
        check, table = self._world.check, self._table()
        check(len(set(slots.tolist())) == len(slots) > 0, "moves of", slots, "are judged together")
        check(
            not any(each.flags.writeable for each in (slots, before, after, seconds)), "writeable"
        )
        check(bool((np.isfinite(seconds) & (seconds >= 0)).all()), "judged after", seconds)
        for slot, row, new in zip(slots.tolist(), before, after, strict=True):
            name = ("player", table.session_id(slot), "at", slot, "is judged as")
            is_there = table.slots.get(int(row["session_id"])) == slot
            is_newest = int(row["updated_at"]) == table.updated_at(slot) < int(new["updated_at"])
            check(is_there and is_newest, *name, row, new)
            kept = all(row[field] == new[field] for field in ("session_id", *self._owned))
            check(kept, *name, row, "and then", new)
