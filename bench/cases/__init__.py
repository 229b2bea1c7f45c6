"""The cases, one module each, whose ``run(stage)`` measures and returns an `Outcome`."""

from __future__ import annotations

import attrs


@attrs.frozen
class Case:
    """One case of the benchmark.

    Attributes:
        module: the full name of its module.
        title: what it measures, in a few words.
        seconds: that it takes, roughly.
        quick_seconds: the same with ``--quick``.
    """

    module: str
    title: str
    seconds: float
    quick_seconds: float


CASES = {
    "hand-over": Case("bench.cases.hand_over", "hand one update to the persist thread", 12.0, 1.0),
    "flush": Case("bench.cases.flush", "save the players who changed", 38.0, 1.0),
    "busy": Case("bench.cases.busy", "the same while the reactor is busy", 25.0, 1.0),
    "lateness": Case("bench.cases.lateness", "what a flush does to the reactor", 34.0, 1.0),
    "postgresql": Case(
        "bench.cases.postgresql", "save the players who changed to PostgreSQL", 60.0, 4.0
    ),
    "udp": Case("bench.cases.udp", "take moves off UDP", 28.0, 2.5),
    "netcode": Case("bench.cases.netcode", "take moves off netcode", 62.0, 7.0),
    "join": Case("bench.cases.join", "load a player on join", 10.0, 1.0),
    "memory": Case("bench.cases.memory", "memory of a player", 20.0, 2.0),
    "growth": Case("bench.cases.growth", "cost against players online", 25.0, 1.0),
    "standstill": Case(
        "bench.cases.standstill", "reactor during recovery and reopening", 20.0, 2.0
    ),
    "end-to-end": Case("bench.cases.end_to_end", "age of an update at commit", 20.0, 2.0),
}
