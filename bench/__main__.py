"""``python -m bench``: run the cases, print what they found, keep it where it is asked for."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import attrs
from rich.console import Console

from bench.arguments import Arguments, parse
from bench.cases import CASES
from bench.children import ChildFailed, child
from bench.figures import Outcome
from bench.machine import machine
from bench.report import Results, markdown, replaced, summary, text
from bench.rivals import missing


def main(arguments: Arguments, console: Console) -> int:
    """Run what was asked for; the exit status."""
    if arguments.list:
        for name, case in CASES.items():
            print(f"{name:<12} {case.title}")
        return 0
    if arguments.plot is not None and (lacking := missing("matplotlib")):
        console.print(f"--plot: {lacking[0]}", markup=False)
        return 2
    results = _run(arguments, console)
    console.print(summary(results), markup=False, highlight=False, soft_wrap=True)
    _keep(results, arguments)
    return 1 if results.failures else 0


def _run(arguments: Arguments, console: Console) -> Results:
    found: dict[str, Outcome] = {}
    failures: dict[str, str] = {}
    on = machine()
    for name in arguments.cases:
        started = time.monotonic()
        try:
            found[name] = _run_case(name, arguments.quick, console)
        except ChildFailed as error:
            failures[name] = str(error)
            console.print(f"{name} failed: {error}", markup=False, soft_wrap=True)
        else:
            console.print(text(name, found[name]), markup=False, highlight=False, soft_wrap=True)
        console.print(f"  ({time.monotonic() - started:.0f} s)\n", markup=False)
    return Results(on, found, failures, arguments.quick)


def _run_case(name: str, quick: bool, console: Console) -> Outcome:
    case = CASES[name]
    seconds = case.quick_seconds if quick else case.seconds
    with (
        tempfile.TemporaryDirectory(prefix="playerstate-bench-") as directory,
        console.status(name) as status,
        child("child", name, seconds, "quick" if quick else "full", directory) as running,
    ):
        while True:
            message = running.hear()
            if "outcome" in message:
                return Outcome.from_json(message["outcome"])
            if "failed" in message:
                raise ChildFailed(message["failed"])
            status.update(f"{name}: {message['progress']}")


def _keep(results: Results, arguments: Arguments) -> None:
    if arguments.json is not None:
        dump = json.dumps(attrs.asdict(results), indent=1)
        if arguments.json == "-":
            print(dump)
        else:
            Path(arguments.json).write_text(dump + "\n")
    if arguments.markdown is not None:
        path = Path(arguments.markdown)
        before = path.read_text() if path.exists() else ""
        path.write_text(replaced(before, markdown(results)))
    if arguments.plot is not None:
        from bench.plot import draw

        draw(results, Path(arguments.plot))


if __name__ == "__main__":
    _arguments = parse(sys.argv[1:])
    # What is asked for as JSON on the standard output is alone there.
    _console = Console(stderr=_arguments.json == "-")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(_arguments, _console))
    except KeyboardInterrupt:
        _console.print("interrupted")
        sys.exit(130)
