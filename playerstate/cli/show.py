"""Show a store's players, beside a running server or without one."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import click

from playerstate.cli.table import Table, lay_out, list_out
from playerstate.cli.terminal import say, say_json, screen
from playerstate.interfaces import StoreUnusable
from playerstate.printable import printable
from playerstate.stores import browse_store

LATEST = 100
"""Players shown without --limit where the output is no terminal."""
FEWEST = 5
"""The fewest players shown, even on a screen with room for fewer."""
_OTHER_LINES = 3
"""Lines of a screen besides the players': the count, the columns' names, the prompt."""

Rows = Sequence[tuple[Any, ...]]


def show(url: str, session_id: int | None, limit: int | None, as_json: bool) -> None:
    """Print players of a store.

    Args:
        url: the store's.
        session_id: the one player to show; None for the players who changed last.
        limit: how many of them; 0 for all, None for as many as fit the screen.
        as_json: whether to print a JSON object.

    Raises:
        click.ClickException: there is no such store, or no such player.
    """
    size = None if as_json else screen()
    wanted = limit
    if wanted is None:
        wanted = max(FEWEST, size[1] - _OTHER_LINES) if size else LATEST
    try:
        with closing(browse_store(url)) as browser:
            players = browser.count()
            if session_id is None:
                rows = list(browser.latest(wanted or None))
            elif (found := browser.find(session_id)) is not None:
                rows = [found]
            else:
                raise click.ClickException(f"{url} holds no player {session_id}")
    except StoreUnusable as error:
        raise click.ClickException(str(error)) from error
    columns = browser.columns
    if as_json:
        named = [dict(zip(columns, map(_plain, row), strict=True)) for row in rows]
        say_json({"players": players, "rows": named})
    elif session_id is not None:
        _print_one(columns, rows[0])
    elif len(rows) > 1:
        _print_many(url, players, columns, rows, size, fitting=limit is None)
    else:
        say(_how_many(players, len(rows)))
        for row in rows:
            _print_one(columns, row)


def _how_many(players: int, shown: int) -> str:
    noun = "player" if players == 1 else "players"
    more = f", the latest {shown:,} (more with --limit N or --all)" if shown < players else ""
    return f"{players:,} {noun}{more}" + (":" if shown else "")


def _print_one(columns: Sequence[str], row: Sequence[Any]) -> None:
    cells = [printable(str(_plain(value))) for value in row]
    updated = columns.index("updated_at")
    cells[updated] = f"{_date(row[updated])}, {_age(row[updated])} ago"
    for line in list_out(list(map(printable, columns)), cells):
        say(line)


def _print_many(
    url: str,
    players: int,
    columns: Sequence[str],
    rows: Rows,
    size: tuple[int, int] | None,
    fitting: bool,
) -> None:
    """Print a table, its names once on each screenful; if `fitting`, only one screenful."""
    table = _lay_out(columns, rows, size and size[0])
    hint = []
    if size and table.left_out:
        note = (
            f"{len(table.left_out)} columns do not fit: {', '.join(table.left_out)}."
            f" `playerstate show {url} ID` shows one player in full, --json everything."
        )
        hint = textwrap.wrap(note, size[0])
    lines = table.lines
    every = len(lines)
    if size:
        every = max(FEWEST, size[1] - _OTHER_LINES - len(hint))
        lines = lines[:every] if fitting else lines
    say(_how_many(players, len(lines)))
    for start in range(0, len(lines), every):
        say(table.header)
        for line in lines[start : start + every]:
            say(line)
    if len(lines) > every:
        say(table.header)
    for line in hint:
        say(line)


def _lay_out(columns: Sequence[str], rows: Rows, width: int | None) -> Table:
    updated = columns.index("updated_at")
    cells = [[*map(_shown, row), _age(row[updated])] for row in rows]
    for texts, row in zip(cells, rows, strict=True):
        texts[updated] = _date(row[updated])
    is_number = [not any(isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    names = [*map(printable, columns), "age"]
    needed = (columns.index("session_id"), len(columns))
    return lay_out(names, cells, [*is_number, True], needed, width)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; bytes, which only a column that users added can have, in hex."""
    return value.hex() if isinstance(value, bytes) else value


def _shown(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else printable(str(_plain(value)))


def _date(updated_at: int) -> str:
    """Microseconds since the Unix epoch, as UTC in ISO 8601; as a number beyond year 9999."""
    try:
        return datetime.fromtimestamp(updated_at // 10**6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(updated_at)


def _age(updated_at: int) -> str:
    seconds = time.time() - updated_at / 1e6
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
