"""The statements that all contenders run, and the C program that saves by the same one."""

from __future__ import annotations

import subprocess

from bench.children import END_WITHIN, ROOT
from bench.ours import new_database
from bench.rivals import find_compiler
from bench.stage import Stage

SQL = (
    'INSERT INTO player_state (session_id,"x","y",updated_at) VALUES (?,?,?,?)'
    ' ON CONFLICT (session_id) DO UPDATE SET "x" = excluded."x", "y" = excluded."y",'
    " updated_at = excluded.updated_at"
    " WHERE excluded.updated_at >= player_state.updated_at"
)
SELECT = 'SELECT "x", "y", updated_at FROM player_state WHERE session_id = ?'
SYNCHRONOUS = "full"
"""Of both sides: a store's default."""
BUILD_SECONDS = 60


def build(stage: Stage) -> str:
    """Compile the C program; its path."""
    program = stage.path("upsert")
    compiler = find_compiler()
    assert compiler is not None
    source = str(ROOT / "bench" / "upsert.c")
    subprocess.run(
        [compiler, "-O2", "-o", program, source, "-lsqlite3"], check=True, timeout=BUILD_SECONDS
    )
    return program


class FromC:
    """The C program at work on a database of its own.

    Args:
        program: what `build` gave.
        path: of the database, which is made.
        players: how many it writes a flush.
        order: ``sorted`` or ``random``.
    """

    def __init__(self, program: str, path: str, players: int, order: str) -> None:
        new_database(path).close()
        self._process = subprocess.Popen(
            [program, path, SYNCHRONOUS, str(players), order, SQL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            text=True,
        )

    def flush(self) -> float:
        """Write all players; seconds that took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()) / 1e9

    def close(self) -> None:
        """End it."""
        try:
            self._process.communicate(timeout=END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
