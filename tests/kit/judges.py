"""Judges for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from zope.interface import implementer

from playerstate.interfaces import IMoveJudge, IStatefulJudge


@implementer(IMoveJudge)
class Asked:
    """A judge that answers as told, and keeps what it was asked.

    Args:
        reason: see `IMoveJudge.reason`.
        answer: called with the rows before and after; by default all pass.

    Attributes:
        asked: of each call, the slots, the rows before and after as dicts, and the seconds.
    """

    def __init__(
        self,
        reason: Any = "rule",
        answer: Callable[[Any, Any], Any] = lambda before, after: np.ones(len(after), bool),
    ) -> None:
        self.reason = reason
        self.answer = answer
        self.asked: list[tuple[list[int], list[Any], list[Any], list[float]]] = []

    def passing(self, slots: Any, before: Any, after: Any, seconds: Any) -> Any:
        """See `IMoveJudge.passing`."""
        self.asked.append((slots.tolist(), _dicts(before), _dicts(after), seconds.tolist()))
        return self.answer(before, after)


@implementer(IStatefulJudge)
class Told(Asked):
    """One that is told what is applied.

    Attributes:
        schemas: those it was prepared for.
        told: the slots of each call.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.schemas: list[Any] = []
        self.told: list[list[int]] = []

    def prepare(self, schema: Any) -> None:
        """See `IStatefulJudge.prepare`."""
        self.schemas.append(schema)

    def applied(self, slots: Any) -> None:
        """See `IStatefulJudge.applied`."""
        self.told.append(slots.tolist())


def _dicts(rows: Any) -> list[dict[str, Any]]:
    return [dict(zip(rows.dtype.names, row, strict=True)) for row in rows.tolist()]
