"""Child processes of the benchmark, none of which outlives its parent.

A child's standard input is the reading end of a pipe.  When the parent ends in any way, the child
reads the end of the pipe and exits.  A time limit after which the system ends it applies as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHILD_SECONDS = 240
END_WITHIN = 5.0


def hold(on_line: Callable[[str], None] = lambda _: None, seconds: int = CHILD_SECONDS) -> None:
    """In a child: exit with the parent, or after so many seconds; call `on_line` with its lines."""
    signal.alarm(seconds)
    threading.Thread(target=_listen, args=(on_line,), daemon=True).start()


def _listen(on_line: Callable[[str], None]) -> None:
    for line in sys.stdin:
        on_line(line.strip())
    os._exit(0)


def say(message: dict[str, Any], to: Any = None) -> None:
    """In a child: send the parent a message, on the standard output or another stream."""
    print(json.dumps(message), file=to, flush=True)


class Child:
    """A module of the benchmark in a process of its own.

    Args:
        module: below `bench`.
        arguments: of its command line.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{module}", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # a terminal's Ctrl-C reaches the parent only
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Send a line to the child."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for the child's next message.

        Raises:
            ChildFailed: the child ended first.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"{self._process.args[2]} ended with {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        self.tell(line)
        return self.hear()

    def end(self) -> None:
        """End the child, and with it the processes that it started."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class ChildFailed(Exception):
    """A child ended before it had sent its measurement."""


@contextlib.contextmanager
def child(module: str, *arguments: object) -> Iterator[Child]:
    """A `Child` for as long as the block lasts."""
    started = Child(module, *arguments)
    try:
        yield started
    finally:
        started.end()
