"""Memory of a player online, and whether it grows with time."""

from __future__ import annotations

from contextlib import ExitStack

from bench.children import child
from bench.figures import OURS, Figure, Outcome, Target, median
from bench.memory_of import (
    EMBEDDED,
    HOUR,
    LIVE_FILE,
    MOVES_A_SECOND,
    OBJECTS,
    SQLITEDICT,
    UDP,
    WARM_SHARE,
)
from bench.rivals import has, missing
from bench.stage import Stage

NAMES = {
    EMBEDDED: OURS,
    LIVE_FILE: f"{OURS}, with the live file",
    UDP: f"{OURS}, with the live file and UDP conversations",
    OBJECTS: "a dict of attrs objects",
    SQLITEDICT: "sqlitedict",
}
ROUNDS = 3
PLAYERS_OF_AN_HOUR = 100
HOUR_SECONDS = 3_600.0
QUICK_SECONDS = 60.0
PAGES_GROWTH = 256 * 1024
"""Bytes, a few pages, by which the memory of a process differs from moment to moment."""


def run(stage: Stage) -> Outcome:
    """Measure each kind in fresh processes."""
    sizes = (1_000,) if stage.quick else (1_000, 100_000)
    rounds = 1 if stage.quick else ROUNDS
    kinds = [kind for kind in NAMES if kind != SQLITEDICT or has(SQLITEDICT)]
    figures: list[Figure] = []
    for size in sizes:
        values: dict[str, list[float]] = {kind: [] for kind in kinds}
        # Fresh processes differ by a few pages only, which count only if there are few players.
        for turn in range(rounds if size == 1_000 else 1):
            stage.say(f"{size:,} players, round {turn + 1}")
            answers = _ask(stage, {kind: [size] for kind in kinds})
            for kind, answer in answers.items():
                values[kind].append(answer)
        setting = f"{size:,} players"
        figures += [Figure(NAMES[kind], setting, "bytes", values[kind]) for kind in kinds]
    seconds = QUICK_SECONDS if stage.quick else HOUR_SECONDS
    stage.say(f"moves of {seconds:g} s")
    grown = _ask(stage, {HOUR: [PLAYERS_OF_AN_HOUR, seconds]})[HOUR]
    moves = int(seconds) * MOVES_A_SECOND * PLAYERS_OF_AN_HOUR
    setting = f"growth over {seconds / 60:g} minutes' worth of moves, {moves:,} of them"
    figures.append(Figure(OURS, setting, "bytes", [grown]))
    notes = [
        "bytes a player: what a fresh process holds alone, mapped files included, with all players"
        " less with one of them",
        f"growth: after a first {WARM_SHARE:.0%} of the time",
        "the allocator takes memory in steps, which are up to 200 bytes a player where there are"
        " 1,000",
        "sqlitedict keeps no player in memory: it reads and unpickles each from its file",
    ]
    return Outcome(figures, _targets(figures, sizes, grown), missing(SQLITEDICT), notes)


def _ask(stage: Stage, kinds: dict[str, list[object]]) -> dict[str, float]:
    """Bytes by kind; the processes run at the same time, since no time is measured."""
    with ExitStack() as stack:
        asked = {
            kind: stack.enter_context(child("memory_of", kind, stage.directory, *arguments))
            for kind, arguments in kinds.items()
        }
        return {kind: float(process.hear()["bytes"]) for kind, process in asked.items()}


def _targets(figures: list[Figure], sizes: tuple[int, ...], grown: float) -> list[Target]:
    targets = [
        Target(
            f"{NAMES[kind]}, {size:,} players",
            median(figures, NAMES[kind], f"{size:,} players"),
            limit,
            unit="bytes",
        )
        for size in sizes
        for kind, limit in ((LIVE_FILE, 384), (UDP, 1024))
    ]
    return [*targets, Target("growth with time", grown, PAGES_GROWTH, unit="bytes")]
