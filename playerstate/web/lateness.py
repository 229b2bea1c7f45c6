"""How late the reactor thread is: a call that is due ten times a second, and when it is made.

What keeps the reactor thread busy delays every move by as much.  It is measured only where its
figures can be asked for: without the web endpoint no such call is made.  Reactor thread only.
"""

from __future__ import annotations

from playerstate.players.run import Run
from playerstate.players.service import PlayerStateService

LOOK_EVERY = 0.1
"""Seconds between two calls."""


class Lateness:
    """Observes how late each call is made, in the ledger's histogram.

    Args:
        service: the players' service.
    """

    def __init__(self, service: PlayerStateService) -> None:
        self._service = service
        self._run: Run | None = None

    def follow(self) -> None:
        """Observe the present run, until that ends; does nothing if that is done already.

        Raises:
            NotRunning: there is none.
        """
        run = self._service.run
        if run is not self._run:
            self._run = run
            self._plan(run)

    def _plan(self, run: Run) -> None:
        due = run.clock.seconds() + LOOK_EVERY
        run.clock.callLater(LOOK_EVERY, self._look, run, due)

    def _look(self, run: Run, due: float) -> None:
        late = run.clock.seconds() - due
        self._service.ledger.histograms.reactor_lateness.observe(late)
        self._plan(run)
