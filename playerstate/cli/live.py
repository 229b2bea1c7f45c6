"""Show a live file that was set aside, or save its players in a store."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from typing import Any

import click

from playerstate.cli.terminal import say, say_json
from playerstate.interfaces import StoreBusy, StoreUnusable, file_store
from playerstate.live.leftover import Leftover, NotALiveFile, read_leftover
from playerstate.live.names import held, mark_clean
from playerstate.live.recovery import find_unsaved
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema
from playerstate.stores import open_store

AT_ONCE = 4096
"""Rows in one transaction."""


def show(path: str, as_json: bool) -> None:
    """Print the players of a live file that is not in use.

    Raises:
        click.ClickException: it cannot be read, or is in use.
    """
    with ExitStack() as stack:
        leftover, _ = _open(path, stack)
    names = ["session_id", *(field.name for field in leftover.fields), "updated_at"]
    rows = [_plain(row) for row in leftover.records.tolist()]
    if as_json:
        named = [dict(zip(names, row, strict=True)) for row in rows]
        found = {"store": leftover.identity.hex(), "clean": leftover.clean, "rows": named}
        say_json(found)
        return
    state = "all of them saved" if leftover.clean else "perhaps not saved"
    players = "1 player" if len(rows) == 1 else f"{len(rows):,} players"
    say(f"{players}, {state}; the identity of the store is {leftover.identity.hex()}")
    for row in rows:
        cells = (f"{name}={value!r}" for name, value in zip(names, row, strict=True))
        say(" ".join(cells))


def apply(path: str, url: str, schema: StateSchema) -> None:
    """Save the players of a live file in a store, unless it has a newer state of them.

    Raises:
        click.ClickException: one of the two is unusable, or in use.
    """
    with ExitStack() as stack:
        leftover, fd = _open(path, stack)
        try:
            total, outdated, applied = _save(leftover, url, schema)
        except StoreUnusable as error:
            raise click.ClickException(str(error)) from error
        except StoreBusy as error:
            raise click.ClickException(f"{url} is busy: {error}; try again") from error
        mark_clean(fd)
    say(
        f"{applied:,} of {total:,} players applied, {outdated:,} outdated: the store has"
        " the same or a newer state of them"
    )


def _save(leftover: Leftover, url: str, schema: StateSchema) -> tuple[int, int, int]:
    """Save a leftover; return how many players it had, were outdated, and were saved."""
    store = file_store(open_store(url, schema))
    if store is None or not os.path.exists(store.path):
        raise StoreUnusable(f"{url} is no database that exists")
    with ExitStack() as stack:
        identity = store.prepare()
        stack.callback(store.close)
        # The identity is kept, so that a live file beside the store still matches it.
        store.migrate(identity if any(identity) else os.urandom(16))
        reader = stack.enter_context(closing(store.open_reader()))
        rows = find_unsaved(leftover, schema, reader)
        records = rows.view(RowLayout(schema.fields).record)
        writer = stack.enter_context(closing(store.open_writer()))
        left_out = 0
        for start in range(0, len(records), AT_ONCE):
            part = records[start : start + AT_ONCE]
            answer = writer.write(part)
            left_out += len(answer)
            if answer.refused:
                first = min(answer.refused)
                raise StoreUnusable(
                    f"{url} cannot take player {part['session_id'][first]}:"
                    f" {answer.refused[first]}; see to that, and apply the live file again"
                )
        writer.sync()
    applied = len(records) - left_out
    return len(leftover.records), len(leftover.records) - applied, applied


def _open(path: str, stack: ExitStack) -> tuple[Leftover, int]:
    try:
        fd = stack.enter_context(held(path))
        return read_leftover(fd), fd
    except NotALiveFile as error:
        raise click.ClickException(f"{path} is not a live file: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from error
    except StoreUnusable as error:
        raise click.ClickException(str(error)) from error


def _plain(row: tuple[Any, ...]) -> list[Any]:
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in row]
