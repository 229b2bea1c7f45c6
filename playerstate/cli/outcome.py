"""The outcome of a run, and how it is printed."""

from __future__ import annotations

import math
import time
from typing import Any

import attrs
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from playerstate.cli.table import list_out
from playerstate.cli.terminal import say, say_json

TROUBLES_NAMED = 5
ENOUGH = 0.95
"""The share of a rate that counts as having kept it: a process may stall for a moment."""
SHOW_EVERY = 0.2
"""Seconds between two updates of the progress bar; drawing one takes a millisecond or two."""


@attrs.frozen
class Outcome:
    """The outcome of a run.

    Attributes:
        numbers: counts and measurements, by name.
        troubles: the players that failed, each with the reason, by session id.
        interrupted: whether the run was cut short.
        behind: how the run fell behind the requested rate; empty if it kept up.
    """

    numbers: dict[str, Any]
    troubles: dict[int, str]
    interrupted: bool
    behind: str = ""

    @property
    def ok(self) -> bool:
        """Whether the run was complete and without failures."""
        return not (self.troubles or self.interrupted or self.behind)

    @property
    def status(self) -> int:
        """The exit status: 0 if `ok`, 130 if interrupted, else 1."""
        if self.interrupted:
            return 130
        return 0 if self.ok else 1


def tell(outcome: Outcome, as_json: bool) -> None:
    """Print the numbers to stdout, and the first troubles to stderr."""
    numbers = {**outcome.numbers, "ok": outcome.ok}
    if as_json:
        say_json(numbers)
    else:
        names = [name.replace("_", " ") for name in numbers]
        for line in list_out(names, list(map(_shown, numbers.values()))):
            say(line)
    if outcome.interrupted:
        say("interrupted", err=True)
    if outcome.behind:
        say(outcome.behind, err=True)
    for session_id, trouble in list(outcome.troubles.items())[:TROUBLES_NAMED]:
        say(f"player {session_id} {trouble}", err=True)
    if (unnamed := len(outcome.troubles) - TROUBLES_NAMED) > 0:
        say(f"and {unnamed:,} more players", err=True)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return "-" if value is None else f"{value:,}"


def spread_ms(seconds: list[float | None]) -> dict[str, float] | None:
    """Median, 99th percentile (nearest rank) and maximum, in milliseconds; None without values.

    A None among the seconds was not measured, and is left out.
    """
    ranked = sorted(second for second in seconds if second is not None)
    if not ranked:
        return None
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        name: round(1000 * ranked[math.ceil(rank * len(ranked)) - 1], 2)
        for name, rank in ranks.items()
    }


class Bar:
    """A progress bar on a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=console,
            # Drawing from another thread would delay the sending.
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("")
        self._next = 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: float, total: float) -> None:
        """Show the progress of an activity; cheap while no update is due."""
        now = time.monotonic()
        if now >= self._next and not self._progress.disable:
            self._next = now + SHOW_EVERY
            self._progress.update(
                self._task, description=what, completed=done, total=total, refresh=True
            )
