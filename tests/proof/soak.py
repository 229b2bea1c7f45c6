"""``python -m tests.proof.soak --minutes N``: a real server under load, with faults.

After each fault the load goes on until the server has caught up; then it is looked at what the
process holds: memory, file descriptors, threads, and the size of the write-ahead log.  None of it
may grow from one such moment to the next, and in the end the database must have everybody where
they really were.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import apsw
import attrs

from tests.kit.crash_load import Crowd, Process

PLAYERS = 40
SAVE_WITHIN = 0.5
CALM = 2.0
FAULT = 2.5
CAUGHT_UP_WITHIN = 20.0
REST = 0.004
"""Seconds between two moves of everybody: some 8,000 moves a second."""
WARM_UP = 3
"""Looks after which nothing may grow any more."""
MEMORY_SLACK = 3 * 2**20
DESCRIPTORS_SLACK = 1
LOG_BYTES = 64 * 2**20


@attrs.frozen
class Look:
    """What a process held at one moment."""

    memory: int
    descriptors: int
    threads: int
    log_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.memory / 2**20:.1f} MiB, {self.descriptors} descriptors,"
            f" {self.threads} threads, log of {self.log_bytes / 2**20:.1f} MiB"
        )


def soak(directory: str, seconds: float, say: Callable[[str], None]) -> list[str]:
    """Soak a server for about so long; what is wrong with it.

    Args:
        directory: an empty one.
        seconds: how long.
        say: is given each line that tells how it goes.
    """
    run = _Soak(directory, say)
    try:
        return run.run(time.monotonic() + seconds)
    finally:
        run.close()


def growth(looks: list[Look]) -> list[str]:
    """What grew after the warm-up."""
    if len(looks) <= WARM_UP:
        return []
    first, last = looks[WARM_UP - 1], looks[-1]
    limits = {
        "memory": first.memory + MEMORY_SLACK,
        "descriptors": first.descriptors + DESCRIPTORS_SLACK,
        "threads": first.threads,
        "log_bytes": LOG_BYTES,
    }
    return [
        f"{name} grew to {getattr(last, name)}, above {most}"
        for name, most in limits.items()
        if getattr(last, name) > most
    ]


class _Soak:
    """One run.

    Args:
        directory, say: as of `soak`.
    """

    def __init__(self, directory: str, say: Callable[[str], None]) -> None:
        self._database = os.path.join(directory, "players.db")
        self._say = say
        self._random = random.Random(1)
        self._server = Process(directory, "--save-within", str(SAVE_WITHIN))
        self._crowd = Crowd(PLAYERS, self._random)
        self._visitors = 0
        self._looks: list[Look] = []
        self._faults = [
            *(self._lock, self._pin, self._no_room, self._stop_and_continue),
            *(self._replace_database, self._remove_log, self._noise),
        ]

    def close(self) -> None:
        """End everything."""
        self._crowd.close()
        self._server.kill()

    def run(self, end: float) -> list[str]:
        """Run until then; what is wrong."""
        self._address = self._server.listening()
        self._crowd.connect(self._address)
        wrong = self._crowd.join()
        turn = 0
        while time.monotonic() < end and not wrong:
            fault = self._faults[turn % len(self._faults)]
            turn += 1
            with fault():
                self._play(FAULT)
            wrong += self._come_and_go()
            self._play(CALM)
            wrong += self._catch_up()
            self._looks.append(self._look())
            self._say(f"{fault.__name__.strip('_'):20} {self._looks[-1]}")
        self._server.signal(signal.SIGTERM)
        status = self._server.ended()
        if status != -signal.SIGTERM:
            wrong.append(f"it ended with {status}")
        return [*wrong, *growth(self._looks), *self._compare(), *self._unexpected()]

    def _play(self, seconds: float) -> None:
        self._crowd.play(seconds, REST)
        self._crowd.forget()

    def _come_and_go(self) -> list[str]:
        """Some are never seen again; the others join anew."""
        self._visitors += PLAYERS
        visitors = Crowd(PLAYERS, self._random, first=1000 + self._visitors)
        visitors.connect(self._address)
        try:
            wrong = visitors.join()
            visitors.play(0.1)
            visitors.leave()
        finally:
            visitors.close()
        return wrong + self._crowd.join()

    def _catch_up(self) -> list[str]:
        """Play until everybody is told that a move from after now is saved."""
        targets = dict(self._crowd.sequence)
        deadline = time.monotonic() + CAUGHT_UP_WITHIN
        while any(self._crowd.saved[i] < number for i, number in targets.items()):
            if time.monotonic() > deadline:
                return [f"not saved within {CAUGHT_UP_WITHIN} s: {self._server.output}"]
            self._play(0.1)
        return []

    def _look(self) -> Look:
        process = f"/proc/{self._server.pid}"
        with open(f"{process}/statm") as file:
            memory = int(file.read().split()[1]) * resource.getpagesize()
        log = f"{self._database}-wal"
        return Look(
            memory,
            len(os.listdir(f"{process}/fd")),
            len(os.listdir(f"{process}/task")),
            os.path.getsize(log) if os.path.exists(log) else 0,
        )

    def _compare(self) -> list[str]:
        """Whether the database has everybody at the newest place that was called applied."""
        connection = apsw.Connection(self._database)
        try:
            rows = connection.execute("SELECT session_id, x, y FROM player_state")
            places = {session_id: (x, y) for session_id, x, y in rows}
        finally:
            connection.close()
        wrong = []
        for session_id in self._crowd.session_ids:
            number = self._crowd.numbers[session_id].get(places.get(session_id, ()))
            if number is None or number < self._crowd.applied[session_id]:
                applied = self._crowd.applied[session_id]
                wrong.append(f"player {session_id} is saved at move {number}, {applied} applied")
        return wrong

    def _unexpected(self) -> list[str]:
        """Log lines that no fault explains."""
        signs = ("Unhandled", "the persist thread died", "stopped with the newest state unsaved")
        lines = self._server.output.splitlines()
        return [line for line in lines if any(sign in line for sign in signs)]

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Another program holds the database's lock."""
        connection = apsw.Connection(self._database)
        try:
            connection.set_busy_timeout(5000)
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()

    @contextlib.contextmanager
    def _pin(self) -> Iterator[None]:
        """Another program keeps a read transaction open."""
        connection = apsw.Connection(self._database)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM player_state").get  # noqa: B018
            yield
        finally:
            connection.close()

    @contextlib.contextmanager
    def _no_room(self) -> Iterator[None]:
        """Files may not grow."""
        limit = resource.RLIMIT_FSIZE
        soft, hard = resource.prlimit(self._server.pid, limit)
        resource.prlimit(self._server.pid, limit, (4096, hard))
        try:
            yield
        finally:
            resource.prlimit(self._server.pid, limit, (soft, hard))

    @contextlib.contextmanager
    def _stop_and_continue(self) -> Iterator[None]:
        """The process does not run for a while."""
        self._server.signal(signal.SIGSTOP)
        try:
            time.sleep(0.5)
        finally:
            self._server.signal(signal.SIGCONT)
        yield

    @contextlib.contextmanager
    def _replace_database(self) -> Iterator[None]:
        """A copy takes the place of the database."""
        copy = f"{self._database}.copy"
        connection = apsw.Connection(self._database)
        try:
            connection.execute("VACUUM INTO ?", (copy,))
        finally:
            connection.close()
        os.replace(copy, self._database)
        yield
        for aside in glob.glob(f"{self._database}-wal.*"):
            os.unlink(aside)

    @contextlib.contextmanager
    def _remove_log(self) -> Iterator[None]:
        """The write-ahead log is deleted."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._database}-wal")
        yield

    @contextlib.contextmanager
    def _noise(self) -> Iterator[None]:
        """Strangers send rubbish."""
        strangers = Crowd(PLAYERS, self._random)
        strangers.connect(self._address)
        try:
            for _ in range(500):
                strangers.send_noise()
            yield
        finally:
            strangers.close()


def main() -> int:
    """Run as long as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.soak")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        wrong = soak(directory, options.minutes * 60.0, _say)
    for line in wrong:
        _say(line)
    _say("failed" if wrong else "all is flat, and everybody is saved")
    return 1 if wrong else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
