"""End to end: the age of an update when it is committed, from the sender's clock to the store."""

from __future__ import annotations

from contextlib import ExitStack

from bench.children import child
from bench.figures import OURS, Figure, Outcome
from bench.paced_sender import HERTZ
from bench.saving_server import ADBAPI, SAVE_WITHIN
from bench.stage import Stage

NAMES = {OURS: OURS, ADBAPI: "the same service on adbapi"}
MARKS = ("p50", "p99", "max")
CPU = "reactor thread's time on a processor"


def run(stage: Stage) -> Outcome:
    """Let the two stores take turns under the same moves."""
    players, seconds, rounds = (2_000, 1.2, 1) if stage.quick else (5_000, 5.0, 2)
    moves = int(seconds * HERTZ)
    setting = f"{players:,} players at {HERTZ} Hz"
    found: dict[tuple[str, str], list[float]] = {}
    lost = dict.fromkeys(NAMES, 0)
    for turn in range(rounds):
        for kind, name in NAMES.items():
            stage.say(f"{name}, round {turn + 1}")
            with ExitStack() as stack:
                server = stack.enter_context(child("saving_server", kind, players, stage.directory))
                port = server.hear()["port"]
                sender = stack.enter_context(
                    child("paced_sender", OURS, players, port, moves, stage.directory)
                )
                sent = sender.hear()
                answer = server.ask(sent["path"])
            lost[kind] += sent["sent"] - answer["applied"]
            for mark in MARKS:
                found.setdefault((mark, name), []).append(answer[mark])
            found.setdefault((CPU, name), []).append(answer["cpu"] / seconds * 100.0)
    figures = [
        Figure(name, f"{setting}, {mark}", "%" if mark == CPU else "ms", values)
        for (mark, name), values in found.items()
    ]
    figures.sort(key=lambda figure: [*MARKS, CPU].index(figure.setting.rpartition(", ")[2]))
    notes = [
        f"save_within is {SAVE_WITHIN:g} s, of which a sweep waits for 0.6; the age of each update"
        " counts, also if a newer one replaced it before the commit",
        "lost on the way: "
        + ", ".join(f"{lost[kind]:,} of {name}" for kind, name in NAMES.items())
        + f"; sent: {moves * players * rounds:,} to each",
    ]
    return Outcome(figures, notes=notes)
