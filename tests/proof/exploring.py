"""Explores the schedules of a scenario, as many as the environment asks for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.proof.interleaving import RATES, Run, Schedule, Troupe, sampled, systematic

SAMPLED = int(os.environ.get("PROOF_SCHEDULES", "2000"))
REPLAYED = os.environ.get("PROOF_REPLAY")

_log = Logger()


def first_fault(runs: Iterable[Run]) -> tuple[int, Run | None]:
    """How many runs it took to find a faulty one, and that; all of them and None without one."""
    count = 0
    for count, run in enumerate(runs, 1):
        if run.faults:
            return count, run
    return count, None


def explore(
    case: SynchronousTestCase,
    troupe: Troupe,
    names: Sequence[str],
    bound: int,
    share: int,
    rates: Sequence[float] = RATES,
) -> None:
    """Fail the test with the first schedule that does not go well.

    Args:
        case: the test.
        troupe: its threads.
        names: of the threads.
        bound: preemptions up to which every schedule runs.
        share: how many schedules of more are drawn.
        rates: see `sampled`.
    """
    if REPLAYED:
        runs = {"replayed": iter([troupe.replay(Schedule.parse(REPLAYED))])}
    else:
        runs = {
            f"with up to {bound} preemptions": systematic(troupe, bound),
            f"with more than {bound}": sampled(troupe, share, bound + 1, seed=1, rates=rates),
        }
    for which, those in runs.items():
        began = time.perf_counter()
        count, faulty = first_fault(those)
        if faulty is not None:
            case.fail(f"{faulty.scenario(names)}\nPROOF_REPLAY={faulty.schedule}")
        seconds = time.perf_counter() - began
        _log.info(
            "{test}: {count} schedules {which} in {seconds:.1f} s, {rate:.0f}/s",
            test=case.id(),
            count=count,
            which=which,
            seconds=seconds,
            rate=count / seconds,
        )
