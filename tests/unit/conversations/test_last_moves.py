"""When each player moved last."""

from __future__ import annotations

import numpy as np

from playerstate.conversations.last_moves import LastMoves
from tests.kit.tables import SPAWN, TableTestCase


class LastMovesTests(TableTestCase):
    """Seconds since the last applied move."""

    def setUp(self) -> None:
        """A wall clock beside the table's."""
        super().setUp()
        self.wall = 1_000_000_000
        self.moves = LastMoves(self.table, lambda: self.time, lambda: self.wall * 1000)

    def since(self, *slots: int) -> list[float]:
        """Seconds since the last move of each."""
        seconds: list[float] = self.moves.seconds(np.array(slots)).tolist()
        return seconds

    def begin(self, session_id: int, updated_at: int = 0) -> int:
        """A player joins, as the store has them."""
        slot = self.table.admit(session_id, SPAWN, updated_at)
        self.moves.begin(slot)
        return slot

    def test_never_changed(self) -> None:
        """A new player's time begins with the JOIN."""
        self.time = 5.0
        slot = self.begin(1)
        self.time = 7.5
        self.assertEqual(self.since(slot), [2.5])

    def test_changed_before(self) -> None:
        """Of one who comes back it began with the last change, but never after the JOIN."""
        self.time = 5.0
        self.begin(1, self.wall - 3_000_000)
        self.begin(2, self.wall + 3_000_000)
        self.begin(3, 2**63 - 1)
        self.assertEqual(self.since(0, 1, 2), [3.0, 0.0, 0.0])

    def test_applied(self) -> None:
        """It begins anew with each applied move, and not with another JOIN of the same player."""
        slots = [self.begin(n) for n in range(1, 4)]
        self.time = 1.0
        self.moves.applied(np.array(slots[:2]))
        self.time = 3.0
        self.moves.begin(slots[0])
        self.assertEqual(self.since(*slots), [2.0, 2.0, 3.0])

    def test_another_player(self) -> None:
        """Another player in the slot has another time."""
        slot = self.begin(1)
        self.time = 3.0
        self.table.release(slot)
        self.assertEqual(self.begin(2), slot)
        self.assertEqual(self.since(slot), [0.0])
