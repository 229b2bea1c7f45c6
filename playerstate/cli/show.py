"""What a store holds, beside a running server or without one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from playerstate.interfaces import StoreUnusable
from playerstate.printable import printable
from playerstate.schema import RESERVED_NAMES
from playerstate.stores import browse_store

LATEST = 100
"""Players shown where neither one nor all are asked for."""
_WIDE = 10_000
"""Columns of what is no terminal: nothing is folded that another program may read."""


def show(url: str, session_id: int | None, show_all: bool, as_json: bool) -> None:
    """Print players of a store.

    Raises:
        click.ClickException: there is no such store, or no such player.
    """
    try:
        with closing(browse_store(url)) as browser:
            players = browser.count()
            if session_id is None:
                rows = list(browser.latest(None if show_all else LATEST))
            elif (found := browser.find(session_id)) is not None:
                rows = [found]
            else:
                raise click.ClickException(f"{url} holds no player {session_id}")
    except StoreUnusable as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        named = [dict(zip(browser.columns, row, strict=True)) for row in rows]
        click.echo(json.dumps({"players": players, "rows": named}))
    else:
        _print(players, browser.columns, rows)


def _print(players: int, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    noun = "player" if players == 1 else "players"
    latest = f", the latest {len(rows)}:" if 1 < len(rows) < players else ""
    console.print(f"{players:,} {noun}{latest}", highlight=False)
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in RESERVED_NAMES)
    table.add_column("age", no_wrap=True)
    updated = columns.index("updated_at")
    now = time.time()
    for row in rows:
        cells = [
            f"{value:.10g}" if isinstance(value, float) else printable(str(value)) for value in row
        ]
        cells[updated] = _date(row[updated])
        table.add_row(*map(escape, cells), _age(now - row[updated] / 1e6))
    console.print(table)


def _date(updated_at: int) -> str:
    """Microseconds since the Unix epoch, as UTC in ISO 8601."""
    return datetime.fromtimestamp(updated_at // 10**6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
