"""``python -m tests.proof.offsite --minutes N``: off-site copies while a server is under load.

A real server saves very many players again and again, with Litestream beside it, set up as
``docs/operations.md`` says.  Then both are killed and their disk is lost.  What Litestream restores
must have all that RECEIPTs called saved before it was due off site, and the server must start on
it.  The same must hold a second time, for the restored database and the same replica.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import attrs
import numpy as np

from playerstate.stores.sqlite.writer import LOG_BYTES
from tests.kit.crash_load import Process
from tests.kit.litestream import S3, Litestream, missing
from tests.kit.throng import Throng

TRANSFER = 2.0
"""Seconds that Litestream may take to write a commit to the replica once its turn has come: far
more than it needs, since other tests may have the processors meanwhile."""
SAVE_WITHIN = 2.0
"""Seconds, of the server: a sweep every 1.2 s finds that everybody has moved."""
QUEUE = 32_768
BUSY = "is busy: database is locked"
ALLOWED = (BUSY, "takes rows again")
"""Parts of warnings that a server may log beside Litestream, whose checkpoints take the lock."""


@attrs.frozen
class Look:
    """What the files were at one moment.

    Attributes:
        files: the numbers of the database, its log and its index.
        log_bytes: of the write-ahead log.
        local_bytes: of what Litestream keeps beside the database.
        processor: seconds that the server and Litestream have had.
    """

    files: tuple[int, int, int]
    log_bytes: int
    local_bytes: int
    processor: tuple[float, float]

    def __str__(self) -> str:
        server, litestream = self.processor
        return (
            f"log {self.log_bytes / 2**20:.1f} MiB, local copy {self.local_bytes / 2**20:.1f} MiB,"
            f" processor {server:.1f} s and {litestream:.1f} s"
        )


class OffSite:
    """One run.

    Args:
        kind: of the replica, ``file`` or ``s3``.
        directory: an empty one.
        players: how many are in the game.
        stored: how many are in the database.
        save_within: seconds, of the server.
        say: is given each line that tells how it goes.
    """

    def __init__(
        self,
        kind: str,
        directory: str,
        players: int,
        stored: int,
        save_within: float,
        say: Callable[[str], None],
    ) -> None:
        self._say = say
        self._directory = Path(directory)
        self._disk = self._directory / "disk"
        self._database = str(self._disk / "players.db")
        self._stored = stored
        self._options = ("--max-players", str(players), "--queue-size", str(QUEUE))
        self._options += ("--save-within", str(save_within), "--idle-timeout", "600")
        self._server: Process | None = None
        self._throng = Throng(players, apart=max(1, stored // players))
        self._s3 = S3(self._directory) if kind == "s3" else None
        self._litestream = Litestream(kind, self._database, self._directory, self._s3)

    def close(self) -> None:
        """End everything."""
        self._throng.close()
        self._litestream.kill()
        if self._server is not None:
            self._server.kill()
        if self._s3 is not None:
            self._s3.close()

    def run(self, seconds: float) -> list[str]:
        """Play for about so long, and lose the disk twice; what is wrong."""
        self._disk.mkdir()
        if self._stored:
            self._fill()
        wrong: list[str] = []
        shortest = self._litestream.delay + TRANSFER + 2 * SAVE_WITHIN
        for turn, length in enumerate((max(seconds, shortest), shortest)):
            address = self._serve()
            self._litestream.start()
            self._throng.join(address)
            wrong += self._play(length)
            wrong += self._lose_disk(f"loss {turn + 1}")
        address = self._serve()
        self._throng.join(address)
        assert self._server is not None
        self._server.signal(signal.SIGTERM)
        if (status := self._server.ended()) != -signal.SIGTERM:
            wrong.append(f"the server ended with {status}")
        return wrong

    def _serve(self) -> tuple[str, int]:
        self._server = Process(str(self._disk), *self._options)
        return self._server.listening()

    def _fill(self) -> None:
        """Let the database hold many more players than are in the game."""
        self._serve()
        assert self._server is not None
        self._server.signal(signal.SIGTERM)
        self._server.ended()
        with contextlib.closing(apsw.Connection(self._database)) as connection:
            connection.execute(
                "INSERT INTO player_state WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
                " SELECT i + 1 FROM n WHERE i < ?) SELECT i, random() / 7.0, 0.0, 1 FROM n",
                (self._stored,),
            )

    def _play(self, seconds: float) -> list[str]:
        """Move once a second; what was wrong with the files meanwhile."""
        end, looks = time.monotonic() + seconds, []
        while time.monotonic() < end:
            self._throng.move(1.0)
            looks.append(self._look())
            self._say(f"{looks[-1]}")
        # The log and its index are made at the first commit.
        first, *rest = looks[-1 - len(looks) // 2 :]
        wrong = [
            f"{look} has other files than {first}" for look in rest if look.files != first.files
        ]
        highest = max(look.log_bytes for look in looks)
        if highest > LOG_BYTES:
            wrong.append(f"the log has grown to {highest} bytes")
        return wrong

    def _look(self) -> Look:
        assert self._server is not None
        statuses = [os.stat(f"{self._database}{end}") for end in ("", "-wal", "-shm")]
        database, log, index = (status.st_ino for status in statuses)
        return Look(
            (database, log, index),
            statuses[1].st_size,
            _bytes_below(self._disk / ".players.db-litestream"),
            (_processor(self._server.pid), _processor(self._litestream.pid)),
        )

    def _lose_disk(self, what: str) -> list[str]:
        """Kill everything, lose the disk and restore it; what is missing."""
        assert self._server is not None
        moment = time.monotonic()
        self._litestream.kill()
        self._server.kill()
        wrong = [f"{what}: {line}" for line in self._complaints()]
        busy = self._server.output.count(BUSY)
        shutil.rmtree(self._disk)
        self._disk.mkdir()
        begun = time.monotonic()
        self._litestream.restore()
        restored = time.monotonic() - begun
        numbers = self._numbers()
        due = self._throng.saved_until(moment - self._litestream.delay - TRANSFER)
        if missing := (numbers < due).sum():
            wrong.append(f"{what}: the newest saved state of {missing} players is missing")
        if not due.any():
            wrong.append(f"{what}: nothing was due off site")
        self._say(
            f"{what}: restored in {restored:.1f} s, with all that was saved"
            f" {self._throng.age_of(numbers, moment):.1f} s before; the server found the database"
            f" locked {busy} times"
        )
        return wrong

    def _complaints(self) -> list[str]:
        """Warnings of either program that need an explanation."""
        assert self._server is not None
        lines = [line for line in self._server.output.splitlines() if "#info]" not in line]
        unusual = ("#warn]", "#error]", "#critical]", "Traceback", "Unhandled")
        return [
            line
            for line in lines
            if any(sign in line for sign in unusual) and not any(part in line for part in ALLOWED)
        ] + self._litestream.complaints()

    def _numbers(self) -> np.ndarray:
        """By player, the number of the move that the restored database has."""
        with contextlib.closing(apsw.Connection(self._database)) as connection:
            rows = connection.execute("SELECT session_id, y FROM player_state")
            there = dict(rows)
        return np.array([there.get(int(session_id), 0) for session_id in self._throng.ids])


def _bytes_below(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # Litestream removes what it has copied
            total += path.stat().st_size
    return total


def _processor(pid: int) -> float:
    """Seconds of a processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run as the command line says; 0 if all was there."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.offsite")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long")
    parser.add_argument("--replica", choices=("file", "s3"), default="file", help="its kind")
    parser.add_argument("--players", type=int, default=20_000, help="in the game")
    parser.add_argument("--stored", type=int, default=0, help="players in the database before")
    parser.add_argument("--save-within", type=float, default=SAVE_WITHIN, help="of the server")
    options = parser.parse_args()
    if reason := missing(options.replica):
        parser.error(reason)
    with tempfile.TemporaryDirectory(prefix="offsite-") as directory:
        run = OffSite(
            options.replica,
            directory,
            options.players,
            options.stored,
            options.save_within,
            _say,
        )
        try:
            wrong = run.run(options.minutes * 60.0)
        finally:
            run.close()
    for line in wrong:
        _say(line)
    _say("failed" if wrong else "all that was due off site is there")
    return 1 if wrong else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
