"""Taking turns: A B C, A B C, so that what else the machine does falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Measure = Callable[[], float]


def interleave(
    contenders: Mapping[str, Measure],
    seconds: float,
    *,
    most: int = 25,
    say: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, list[float]]:
    """Let each contender measure once a round, until the time is used up.

    Each is measured once at least.  One that has used up its share of the time sits out the rest,
    so that a slow rival does not keep the fast ones from being measured often.

    Args:
        contenders: measures that return one value, by name.
        seconds: for all of them.
        most: rounds at most.
        say: is told whose turn it is.
        clock: seconds.

    Returns:
        The values of each, one a round.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    used = dict.fromkeys(contenders, 0.0)
    share = seconds / max(1, len(contenders))
    began = clock()
    for turn in range(most):
        ran = False
        for name, measure in contenders.items():
            last = used[name] / turn if turn else 0.0
            if turn and (used[name] + last > share or clock() - began + last > seconds):
                continue
            started = clock()
            say(f"{name}, round {turn + 1}")
            values[name].append(measure())
            used[name] += clock() - started
            ran = True
        if not ran:
            break
    return values
