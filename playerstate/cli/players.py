"""Change, kick, erase or prune players of a store that no server uses."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np

from playerstate.cli.done import players, tell_done
from playerstate.cli.live_files import erase_everywhere
from playerstate.cli.operating import check_fits, check_saved, holding, live_file_of
from playerstate.players.changes import Change
from playerstate.state.field import Field, InvalidState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema

DAY = 86_400 * 10**6
"""Microseconds."""


def set_fields(
    url: str,
    session_id: int,
    fields: Sequence[tuple[str, str]],
    schema: StateSchema,
    create: bool,
    live_file: str | None,
    as_json: bool,
) -> None:
    """Change fields of a stored player.

    Args:
        url: the store's.
        session_id: the player's.
        fields: names and texts of the new values.
        schema: of the store's players.
        create: whether the player may be new.
        live_file: of the store, if not the default one.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: nothing was changed.
    """
    known = {field.name: field for field in schema.stored}
    try:
        named = _parse(fields, known)
        change = Change.of(schema, named)
    except InvalidState as error:
        hint = "" if error.field in known else "; --state names the server's state class"
        raise click.ClickException(f"{error}{hint}") from error
    with holding(url, by_web=True) as store:
        check_fits(url, store, schema)
        check_saved(url, store, live_file)
        stored = store.load(schema, [session_id]).get(session_id)
        if stored is None and not create:
            raise click.ClickException(f"{url} holds no player {session_id}; --create makes one")
        try:
            before = schema.spawn if stored is None else schema.restore(stored.values)
        except InvalidState as error:
            raise click.ClickException(
                f"{url}: player {session_id} as stored: {error}; mend the row by hand"
            ) from error
        after = change.of_values(before)
        updated_at = time.time_ns() // 1000
        if stored is not None:
            updated_at = max(updated_at, stored.updated_at + 1)
        record = np.zeros(1, RowLayout(schema.fields).record)
        kept = [
            value
            for field, value in zip(schema.fields, after, strict=True)
            if not field.is_transient
        ]
        record[0] = (session_id, *kept, updated_at)
        if refused := store.write(schema, record).refused:
            raise click.ClickException(f"{url} refuses player {session_id}: {refused[0]}")
    names = [field.name for field in schema.fields]
    old = dict(zip(names, schema.decode(before), strict=True))
    new = dict(zip(names, schema.decode(after), strict=True))
    changes = ", ".join(f"{name} {old[name]!r} -> {new[name]!r}" for name in named)
    tell_done(
        f"player {session_id} of {url}: {changes}",
        {
            "session_id": session_id,
            "created": stored is None,
            "before": {name: old[name] for name in named},
            "after": {name: new[name] for name in named},
        },
        as_json,
    )


def _parse(fields: Sequence[tuple[str, str]], known: Mapping[str, Field]) -> dict[str, Any]:
    named = {}
    for name, value in fields:
        if name not in known:
            raise InvalidState(name, value, f"one of the fields {', '.join(known)}")
        kind = known[name].kind
        try:
            named[name] = kind.parse(value)
        except ValueError:
            raise InvalidState(name, value, kind.allowed) from None
    return named


def kick(url: str, session_id: int, as_json: bool) -> None:
    """Say that a player is in no game, if no server holds the store.

    Raises:
        click.ClickException: a server holds it, or the store has no such player.
    """
    with holding(url, by_web=True) as store:
        if session_id not in store.updated_at([session_id]):
            raise click.ClickException(f"{url} holds no player {session_id}")
    line = f"no server runs on {url}: player {session_id} is in no game"
    tell_done(line, {"session_id": session_id, "kicked": False}, as_json)


def erase(url: str, session_id: int, live_file: str | None, as_json: bool) -> None:
    """Erase a player: from the store, its live files, and its quarantined rows.

    Args:
        url: the store's.
        session_id: the player's.
        live_file: of the store, if not the default one.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: a server holds the store, or not all is erased.
    """
    with holding(url, by_web=True) as store:
        # First: what is left in a live file would come back into the store.
        live = erase_everywhere(live_file_of(store, live_file), session_id)
        erased = store.erase(session_id)
    parts = []
    if erased.stored:
        parts.append("the store")
    parts += live
    if erased.quarantined:
        parts.append("the quarantined rows")
    if parts:
        line = f"player {session_id} erased from {url}: {', '.join(parts)}"
    else:
        line = f"{url} has nothing of player {session_id}"
    tell_done(
        line,
        {
            "session_id": session_id,
            "stored": erased.stored,
            "live_files": live,
            "quarantined": erased.quarantined,
        },
        as_json,
    )


def prune(url: str, idle_days: float, dry_run: bool, live_file: str | None, as_json: bool) -> None:
    """Delete the players who have not changed for some days.

    Args:
        url: the store's.
        idle_days: how many.
        dry_run: whether only to say how many they are.
        live_file: of the store, if not the default one.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: none was deleted.
    """
    before = time.time_ns() // 1000 - int(idle_days * DAY)
    with holding(url) as store:
        check_saved(url, store, live_file)
        count = store.idle(before) if dry_run else store.prune(before)
        left = store.count()
    what = "would be deleted" if dry_run else "deleted"
    line = f"{url}: {players(count)} idle for {idle_days:g} days {what}; {left:,} left"
    numbers = {"store": url, "pruned": count, "players": left, "dry_run": dry_run}
    tell_done(line, numbers, as_json)
