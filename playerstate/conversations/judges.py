"""The judges of a gateway: which moves pass all of them, and whose reason counts for the others.

A judge is foreign code.  Where it fails for several moves it is asked again about each alone, so
that no player's move is rejected because of another's.  Reactor thread only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from zope.interface import Invalid
from zope.interface.verify import verifyObject

from playerstate.arguments import shown
from playerstate.interfaces import IMoveJudge, IStatefulJudge
from playerstate.ledger import Judged, Outcome
from playerstate.log import PrintableLogger
from playerstate.state.schema import StateSchema

MOST_JUDGES = 16
"""The most judges of one gateway: each may add one reason to the counters."""
FAILURE_LOGGED_EVERY = 60.0
"""Seconds between two log entries about one judge that fails."""

_REASON = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}", re.ASCII)
_TAKEN = {reason for counter, reason in (outcome.value for outcome in Outcome) if reason}
_PASSES, _FAILED, _REJECTED = range(3)
_log = PrintableLogger()

Verdicts = npt.NDArray[np.int8]


def checked(judges: Iterable[IMoveJudge], schema: StateSchema) -> tuple[IMoveJudge, ...]:
    """Check judges, once for each gateway.

    Raises:
        TypeError: one of them is no judge, or its reason is no text; the message names it.
        ValueError: there are too many, a reason is no identifier or is taken, or a judge does not
            fit the schema.
    """
    if IMoveJudge.providedBy(judges):
        raise TypeError(f"judges {shown(judges)} is one judge: pass a list, judges=[...]")
    found = tuple(judges)
    if len(found) > MOST_JUDGES:
        raise ValueError(f"{len(found)} judges are more than {MOST_JUDGES}: join some of them")
    for judge in found:
        try:
            verifyObject(IMoveJudge, judge)
        except Invalid as error:
            raise TypeError(f"judge {shown(judge)}: {error}") from None
        _check_reason(judge)
        if IStatefulJudge.providedBy(judge):
            judge.prepare(schema)
    return found


def _check_reason(judge: IMoveJudge) -> None:
    reason = judge.reason
    if not isinstance(reason, str):
        raise TypeError(f"judge {shown(judge)}: its reason {shown(reason)} is not a str")
    if not _REASON.fullmatch(reason):
        raise ValueError(
            f"judge {shown(judge)}: its reason {reason!r} is not a name of at most 32 ASCII"
            " letters, digits and underscores, not beginning with a digit"
        )
    if reason in _TAKEN:
        raise ValueError(
            f"judge {shown(judge)}: the reason {reason!r} has another meaning: choose another name"
        )


@attrs.frozen(eq=False)
class Moves:
    """Moves that are judged; see `IMoveJudge.passing`."""

    slots: npt.NDArray[np.intp]
    before: npt.NDArray[np.void]
    after: npt.NDArray[np.void]
    seconds: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.slots)

    def at(self, which: Any) -> Moves:
        """Those of these positions."""
        return Moves(*(each[which] for each in self._columns()))

    def read_only(self) -> Moves:
        """The same, in arrays through which nothing can be changed."""
        views = tuple(each.view() for each in self._columns())
        for view in views:
            view.flags.writeable = False
        return Moves(*views)

    def _columns(self) -> tuple[Any, ...]:
        return self.slots, self.before, self.after, self.seconds


class Judges:
    """Judges, in their order.

    Args:
        judges: at least one, checked.
        seconds: returns the time, on a clock that never steps.
        version: returns a number that changes with each change of a player.

    Attributes:
        outcomes: what becomes of a move by its verdict, an index: `APPLIED` first, then
            ``judge_failed``, then the reason of each judge.
    """

    def __init__(
        self,
        judges: tuple[IMoveJudge, ...],
        seconds: Callable[[], float],
        version: Callable[[], int],
    ) -> None:
        self._judges = judges
        # The same, with None for those that need not know what is applied.
        self._stateful = [IStatefulJudge(judge, None) for judge in judges]
        self._seconds = seconds
        self._version = version
        self._logged_at = [-math.inf] * len(judges)
        self.outcomes: tuple[Outcome | Judged, ...] = (
            Outcome.APPLIED,
            Outcome.JUDGE_FAILED,
            *(Judged(str(judge.reason)) for judge in judges),
        )

    def verdicts(self, moves: Moves) -> Verdicts:
        """Judge moves, at least one.

        Each judge is asked about those that all judges before it passed.

        Returns:
            For each move, the index of its outcome in `outcomes`.
        """
        version = self._version()
        verdicts = np.zeros(len(moves), np.int8)
        asked = np.arange(len(moves))
        moves = moves.read_only()
        for number in range(len(self._judges)):
            answers = self._ask(number, moves)
            if self._version() != version:
                return np.full(len(verdicts), _FAILED, np.int8)
            if not answers.any():
                continue
            verdicts[asked[answers == _REJECTED]] = _REJECTED + number
            verdicts[asked[answers == _FAILED]] = _FAILED
            passes = answers == _PASSES
            asked, moves = asked[passes], moves.at(passes)
            if not len(asked):
                break
        return verdicts

    def applied(self, slots: npt.NDArray[np.intp]) -> None:
        """Moves that passed all judges are applied: of these players, those judged last."""
        for number, judge in enumerate(self._stateful):
            if judge is not None:
                try:
                    judge.applied(slots)
                except Exception:  # the moves are applied all the same
                    self._failed(number)

    def _ask(self, number: int, moves: Moves) -> Verdicts:
        """Ask one judge about moves; again about each alone, if it fails."""
        version = self._version()
        try:
            answer = self._judges[number].passing(
                moves.slots, moves.before, moves.after, moves.seconds
            )
            passes = _checked_answer(answer, len(moves))
            if self._version() != version:
                raise RuntimeError("a judge must not change players: the rows are outdated now")
        except Exception:  # a judge may raise anything, and the moves that it passes must go on
            self._failed(number)
        else:
            return np.where(passes, np.int8(_PASSES), np.int8(_REJECTED))
        if len(moves) == 1 or self._version() != version:
            return np.full(len(moves), _FAILED, np.int8)
        alone = (moves.at(slice(at, at + 1)) for at in range(len(moves)))
        return np.concatenate([self._ask(number, move) for move in alone])

    def _failed(self, number: int) -> None:
        """Log the present exception as the failure of one judge, unless one was just logged."""
        now = self._seconds()
        if now - self._logged_at[number] >= FAILURE_LOGGED_EVERY:
            self._logged_at[number] = now
            _log.failure("a judge failed: {judge}", judge=shown(self._judges[number]))


def _checked_answer(answer: object, moves: int) -> npt.NDArray[np.bool_]:
    """A judge's answer as an array.

    Raises:
        TypeError: it is no array of bools.
        ValueError: it has not one bool for each move.
    """
    passes = np.asarray(answer)
    if passes.dtype != np.bool_:
        raise TypeError(f"the answer of a judge is an array of bool, not of {passes.dtype}")
    if passes.shape != (moves,):
        raise ValueError(
            f"the answer of a judge about {moves} moves has shape ({moves},), not {passes.shape}"
        )
    return passes
