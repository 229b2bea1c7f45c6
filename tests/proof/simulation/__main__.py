"""``python -m tests.proof.simulation``: run seeds; the exit status tells of failures."""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback

from twisted.logger import globalLogBeginner

from tests.proof.simulation.simulation import run_seed
from tests.proof.simulation.world import Failed

PROGRESS_EVERY = 5.0
SHOWN = 5
"""Failing seeds shown at most."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.simulation")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first")
    parser.add_argument("--verbose", action="store_true", help="show each step, and tracebacks")
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo(
        [lambda event: None], redirectStandardIO=False, discardBuffer=True
    )
    gc.freeze()
    verbose = (lambda line: _say(line)) if options.verbose else None
    started = told = time.monotonic()
    failed = []
    for number, seed in enumerate(range(options.first, options.first + options.seeds), 1):
        try:
            run_seed(seed, verbose)
        except Failed as error:
            failed.append(seed)
            _say(traceback.format_exc() if options.verbose else str(error))
            if len(failed) == SHOWN:
                break
        now = time.monotonic()
        if now - told >= PROGRESS_EVERY or number == options.seeds:
            told = now
            _say(f"{number} seeds, {number / (now - started):.1f} a second, failed: {failed}")
    if failed:
        _say(f"again: python -m tests.proof.simulation --seeds 1 --from {failed[0]} --verbose")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


sys.exit(main())
