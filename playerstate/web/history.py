"""The last ten minutes, one row a second, so that charts are full at once.

Reactor thread only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from playerstate.ledger import Snapshot
from playerstate.players.run import Run
from playerstate.players.service import PlayerStateService

EVERY = 1.0
"""Seconds between two rows."""
ROWS = 600
"""Rows that are kept."""
COLUMNS = (
    *("at", "moves", "commits", "commit_rows", "commit_seconds", "players_online"),
    *("queue_depth", "oldest_unsaved_seconds"),
)
"""What a row has, in order."""

Row = tuple[float | None, ...]


class History:
    """Rows of a service, from the first `follow` on.

    Args:
        service: the players' service.
        wall_clock: seconds since the Unix epoch.

    Attributes:
        rows: the rows, oldest first.
        taken: how many rows were ever taken.
    """

    def __init__(
        self, service: PlayerStateService, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._service = service
        self._wall_clock = wall_clock
        self._run: Run | None = None
        self.rows: deque[Row] = deque(maxlen=ROWS)
        self.taken = 0

    def follow(self) -> None:
        """Take rows of the present run, until that ends; does nothing if that is done already.

        Raises:
            NotRunning: there is none.
        """
        run = self._service.run
        if run is not self._run:
            self._run = run
            self._before, self._at = self._service.ledger.snapshot(), run.clock.seconds()
            run.clock.every(EVERY, self._take)

    def since(self, taken: int) -> list[Row]:
        """The rows that were taken after so many."""
        new = min(self.taken - taken, len(self.rows))
        return [self.rows[at] for at in range(len(self.rows) - new, len(self.rows))]

    def _take(self) -> None:
        now, at = self._service.ledger.snapshot(), self._service.clock.seconds()
        self.rows.append(row(self._before, now, at - self._at, self._wall_clock()))
        self.taken += 1
        self._before, self._at = now, at


def row(before: Snapshot, now: Snapshot, seconds: float, wall_clock: float) -> Row:
    """The row of the time between two snapshots.

    Args:
        before: the earlier one.
        now: the later one.
        seconds: between them.
        wall_clock: of the later one.
    """
    commits = now.commits - before.commits
    return (
        round(wall_clock, 3),
        round((now.applied - before.applied) / seconds, 3) if seconds > 0 else 0.0,
        commits,
        (now.committed - before.committed) / commits if commits else None,
        (now.commit_seconds - before.commit_seconds) / commits if commits else None,
        now.players_online,
        now.queue_depth,
        round(now.oldest_unsaved_seconds, 3),
    )
