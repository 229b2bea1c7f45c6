"""Whether the server is fit for players, and why not."""

from __future__ import annotations

import attrs

from playerstate.players.errors import NotRunning
from playerstate.players.service import PlayerStateService


@attrs.frozen
class Readiness:
    """Whether players are served as promised.

    Attributes:
        ready: whether they are.
        why: why not, in words; empty if they are.
    """

    ready: bool
    why: str


def readiness(service: PlayerStateService) -> Readiness:
    """Whether players may join, and their updates are saved as promised."""
    try:
        run = service.run
    except NotRunning as error:
        return Readiness(False, str(error))
    gauges = run.gauges()
    within = run.options.save_within
    reasons = []
    if not run.accepts:
        reasons.append(f"the service is stopping; {gauges.pending} updates are still to be saved")
    if run.recovering:
        reasons.append("what the last run left is not saved yet")
    if gauges.degraded:
        reasons.append(f"not saved for {gauges.degraded_seconds:.1f} s: {gauges.degraded}")
    if gauges.oldest_unsaved_seconds > within:
        oldest = gauges.oldest_unsaved_seconds
        reasons.append(
            f"the oldest unsaved update is {oldest:.1f} s old; {within:g} s are promised"
        )
    return Readiness(not reasons, "; ".join(reasons))
