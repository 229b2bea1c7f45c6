"""Applies the moves that a gateway's judges pass, and puts the players of the others back.

The rows that the moves would make are made once: the judges see them, and those that pass are
written.  Reactor thread only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from playerstate.conversations.conversation import Phase
from playerstate.conversations.judges import Judges, Moves
from playerstate.conversations.last_moves import LastMoves
from playerstate.conversations.registry import Registry
from playerstate.ledger import Judged, Outcome
from playerstate.live.rows import Slots
from playerstate.players.run import Run


class Judging:
    """Lets judges decide on moves.

    Args:
        run: the service's run, whose players move.
        registry: the conversations.
        last_moves: when each player moved last.
        judges: who decides.
    """

    def __init__(self, run: Run, registry: Registry, last_moves: LastMoves, judges: Judges) -> None:
        self._run = run
        self._table = run.table
        self._ledger = run.ledger
        self._registry = registry
        self._last_moves = last_moves
        self._judges = judges

    def apply(
        self,
        slots: Slots,
        sequences: npt.NDArray[np.unsignedinteger[Any]],
        fields: npt.NDArray[np.void],
        now: int,
    ) -> list[tuple[Outcome | Judged, int]]:
        """Do what `LiveTable.apply_many` does with the moves that pass, and put the others back.

        The arguments are those of `LiveTable.apply_many`.

        Returns:
            Each outcome, with the number of moves, which the caller counts.
        """
        table = self._table
        before, after = table.named(slots), table.moved_rows(slots, sequences, fields, now)
        seconds = self._last_moves.seconds(slots)
        verdicts = self._judges.verdicts(Moves(slots, before, after, seconds))
        self._run.guard()  # the judges may have taken their time
        passed = verdicts == 0
        if passed.any():
            self._ledger.superseded += table.put_moved(slots, after, passed)
            self._last_moves.applied(slots[passed])
            self._judges.applied(slots[passed])
        self._put_back(before["session_id"][~passed].tolist())
        numbers = np.bincount(verdicts)
        return [
            (self._judges.outcomes[verdict], int(number))
            for verdict, number in enumerate(numbers)
            if number
        ]

    def _put_back(self, session_ids: list[int]) -> None:
        """Put players back whose moves are rejected.

        One who is leaving is told by the next WELCOME; and each update would delay the leave.
        """
        for session_id in session_ids:
            conversation = self._registry.current.get(session_id)
            # A listener that is told of one player may take another offline, or stop the service.
            if (
                conversation is not None
                and conversation.phase is Phase.PLAYING
                and self._run.accepts
            ):
                self._run.put_back(conversation.slot)
