"""Recorded tracks, replayed to a server in their recorded time."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import attrs
import click

from playerstate.arguments import MAX_SESSION_ID
from playerstate.cli.crowd import MOST_A_SLICE, Crowd, run, troubles
from playerstate.cli.outcome import ENOUGH, Outcome
from playerstate.cli.parameters import Address, Login
from playerstate.client import Phase
from playerstate.state.field import InvalidState
from playerstate.state.schema import StateSchema

HELD_UP = 0.5
"""Seconds that a replay may be late without counting as behind."""


class BadTracks(click.ClickException):
    """The file cannot be replayed; nothing was sent."""

    exit_code = 2


@attrs.frozen
class Move:
    """One row of a file.

    Attributes:
        at: seconds.
        session_id: the player's.
        values: the player's new state, as accepted packed values.
    """

    at: float
    session_id: int
    values: tuple[Any, ...]


def replay(
    server: Address, login: Login | None, schema: StateSchema, path: Path, speed: float
) -> Outcome:
    """Replay a file's tracks to a server.

    Args:
        server: its address.
        login: to log in with; None for plain UDP.
        schema: of its state class.
        path: of the file.
        speed: 2.0 for twice as fast as recorded.

    Raises:
        BadTracks: naming the line and the column.
    """
    moves = read_tracks(path, schema)
    session_ids = sorted({move.session_id for move in moves})
    return run(server, login, session_ids, schema, partial(play, moves=moves, speed=speed))


def read_tracks(path: Path, schema: StateSchema) -> list[Move]:
    """The moves of a file, in order of time.

    The first line names the columns: ``t`` in seconds, ``session_id``, and fields of the state; a
    field without a column keeps its default, and so does one that is itself called ``t``.

    Raises:
        BadTracks: naming the line and the column.
    """
    try:
        if path.is_char_device() or path.is_block_device():
            raise BadTracks(f"{path} is a device, which may never end; name a file of tracks")
        with path.open(newline="", encoding="utf-8-sig") as file:
            moves = _read(path, csv.reader(file, strict=True), schema)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTracks(f"{path}: {error}") from error
    return sorted(moves, key=attrgetter("at"))


async def play(crowd: Crowd, moves: Sequence[Move], speed: float) -> Outcome:
    """Have all players join, make their moves in time, and leave saved."""
    clients = crowd.clients
    await crowd.join(clients)
    done = 0 if crowd.online() else len(moves)
    now = start = crowd.seconds()
    while done < len(moves) and not crowd.interrupted:
        now = await crowd.pause()
        reached = moves[0].at + (now - start) * speed
        for move in moves[done : done + MOST_A_SLICE]:
            if move.at > reached:
                break
            client = clients[move.session_id]
            if client.phase is not Phase.GONE:
                crowd.links[move.session_id].move(move.values, now)
            done += 1
        crowd.show("replaying", done, len(moves))
    asked = (moves[-1].at - moves[0].at) / speed
    is_whole = done == len(moves) and bool(now > start)
    await crowd.leave()
    return Outcome(
        numbers={
            "players": len(clients),
            "moves": sum(client.sequence for client in clients.values()),
            "seconds": round(now - start, 2),
            "seconds_asked": round(asked, 2),
            "saved": sum(client.leave_seconds is not None for client in clients.values()),
        },
        troubles=troubles(crowd.links),
        interrupted=crowd.interrupted,
        behind=_behind(now - start, asked, len(moves), speed) if is_whole else "",
    )


def _behind(took: float, asked: float, moves: int, speed: float) -> str:
    """Describe how the replay fell behind its speed; empty if it did not."""
    if asked >= ENOUGH * (took - HELD_UP):
        return ""
    reached = speed * asked / took
    return (
        f"this process reached {reached:,.2f} times the recorded speed, of the {speed:,.2f} asked"
        f" for: {moves:,} moves took {took:,.1f} s, not {asked:,.1f} s; give it a lower --speed, or"
        " share the players among several files and processes"
    )


def _read(path: Path, rows: Any, schema: StateSchema) -> list[Move]:
    columns: list[str] = next(rows, [])
    _check_columns(path, columns, schema)
    moves = []
    for row in rows:
        if not row:
            continue
        try:
            moves.append(_read_row(columns, row, schema))
        except InvalidState as error:
            raise BadTracks(f"{path}, line {rows.line_num}: {error}") from error
    if not moves:
        raise BadTracks(f"{path} has no moves")
    return moves


def _check_columns(path: Path, columns: list[str], schema: StateSchema) -> None:
    fields = [field.name for field in schema.moved.fields]
    known = ["t", "session_id", *fields]
    if missing := {"t", "session_id"}.difference(columns):
        raise BadTracks(
            f"{path}: the first line must name the columns, and there is no {min(missing)};"
            f" it knows {', '.join(known)}"
        )
    if unknown := [column for column in columns if column not in known]:
        raise BadTracks(
            f"{path}: {schema.state_class.__qualname__} has no {', '.join(map(repr, unknown))};"
            f" it has {', '.join(fields)}"
        )
    if len(set(columns)) < len(columns):
        raise BadTracks(f"{path}: a column is named twice")


def _read_row(columns: list[str], row: list[str], schema: StateSchema) -> Move:
    if len(row) != len(columns):
        raise InvalidState("columns", len(row), f"{len(columns)}, as in the first line")
    cells = dict(zip(columns, row, strict=True))
    at = _read_cell("t", cells.pop("t"), _time, "a finite number of seconds")
    session_id = _read_cell(
        "session_id", cells.pop("session_id"), _session_id, "from 1 to 2**63 - 1"
    )
    plain = [
        _read_cell(field.name, cells[field.name], field.kind.parse, field.kind.allowed)
        if field.name in cells
        else field.default
        for field in schema.fields
    ]
    return Move(at, session_id, schema.accept(*schema.encode(tuple(plain))))


def _read_cell(column: str, cell: str, read: Callable[[str], Any], allowed: str) -> Any:
    try:
        return read(cell)
    except ValueError:
        raise InvalidState(column, cell, allowed) from None


def _time(cell: str) -> float:
    seconds = float(cell)
    if not math.isfinite(seconds):
        raise ValueError
    return seconds


def _session_id(cell: str) -> int:
    session_id = int(cell)
    if not 1 <= session_id <= MAX_SESSION_ID:
        raise ValueError
    return session_id
