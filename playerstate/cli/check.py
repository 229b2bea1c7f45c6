"""Check a store and its live file, beside a running server or without one; nothing is changed."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import attrs

from playerstate.cli.done import players
from playerstate.cli.operating import live_file_of, operating
from playerstate.cli.terminal import say, say_json
from playerstate.interfaces import (
    IStoreContent,
    IStoreOperations,
    LiveFileUnusable,
    StoreInUse,
    StoreUnusable,
)
from playerstate.live.leftover import Leftover, NotALiveFile, read_leftover
from playerstate.live.names import RECOVERING, held
from playerstate.state.schema import StateSchema

DAMAGES_NAMED = 10


@attrs.define
class Findings:
    """What a check found.

    Attributes:
        lines: for people.
        numbers: for programs.
        wrong: what an operator has to act upon.
    """

    lines: list[str] = attrs.Factory(list)
    numbers: dict[str, Any] = attrs.Factory(dict)
    wrong: list[str] = attrs.Factory(list)

    def note(self, line: str, **numbers: Any) -> None:
        """Note that something is as it should be."""
        self.lines.append(line)
        self.numbers.update(numbers)

    def warn(self, line: str, **numbers: Any) -> None:
        """Note that something is wrong."""
        self.note(line, **numbers)
        self.wrong.append(line)


def check(url: str, schema: StateSchema, live_file: str | None, as_json: bool) -> None:
    """Check a store, and print what was found.

    A store that no server uses is held meanwhile, so that none begins to use it.

    Args:
        url: the store's.
        schema: of the state class that it is for.
        live_file: of the store, if not the default one.
        as_json: whether to print a JSON object.

    Raises:
        click.ClickException: it cannot be looked into.
        SystemExit: with 1 if something is wrong.
    """
    with operating(url) as store:
        try:
            with closing(store.hold()) as mine:
                found = _look(url, mine, None, schema, live_file)
        except StoreInUse as error:
            found = _look(url, store, error.holder, schema, live_file)
    if as_json:
        say_json({**found.numbers, "wrong": found.wrong, "ok": not found.wrong})
    else:
        for line in found.lines:
            say(line)
        say(f"{len(found.wrong)} found wrong" if found.wrong else "all is well")
    if found.wrong:
        raise SystemExit(1)


def _look(
    url: str,
    store: IStoreContent | IStoreOperations,
    holder: str | None,
    schema: StateSchema,
    live_file: str | None,
) -> Findings:
    found = Findings()
    damage = list(store.check())
    if damage:
        more = f" and {len(damage) - DAMAGES_NAMED} more" if len(damage) > DAMAGES_NAMED else ""
        found.warn(
            f"integrity: damaged: {'; '.join(damage[:DAMAGES_NAMED])}{more}; restore a backup, by"
            f" `playerstate restore {url} FILE`",
            damage=damage[:DAMAGES_NAMED],
        )
        found.numbers |= {"store": url, "held_by": holder}
        return found
    count = store.count()
    used = f"in use by {holder}" if holder else "in use by no server"
    found.note(f"{url}: {players(count)}, {used}", store=url, held_by=holder, players=count)
    found.note("integrity: whole", damage=[])
    _look_at_schema(url, store, schema, found)
    _look_at_live_file(store, holder, live_file_of(store, live_file), found)
    quarantined = store.quarantined()
    line = f"quarantined rows: {quarantined or 'none'}"
    if quarantined:
        found.warn(f"{line}; fix what refuses them", quarantined=quarantined)
    else:
        found.note(line, quarantined=0)
    return found


def _look_at_schema(url: str, store: IStoreContent, schema: StateSchema, found: Findings) -> None:
    name = schema.state_class.__qualname__
    try:
        plan = list(store.plan(schema))
    except StoreUnusable as error:
        found.warn(f"schema: does not fit {name}: {error}", schema=str(error), migration=[])
        return
    if plan:
        line = f"schema: the next start with {name} would: {'; '.join(plan)}"
    else:
        line = f"schema: fits {name}"
    found.note(line, schema="", migration=plan)


def _look_at_live_file(
    store: IStoreContent, holder: str | None, path: str | None, found: Findings
) -> None:
    if path is None:
        found.note("live file: this store has none", live_file=None)
        return
    if holder is not None:
        found.note(f"live file: {path} is its server's own", live_file={"path": path})
        return
    for name in (path + RECOVERING, path):
        try:
            with held(name) as fd:
                leftover = read_leftover(fd)
        except FileNotFoundError:
            continue
        except (NotALiveFile, LiveFileUnusable, OSError) as error:
            # The next start sets a damaged one aside, and is refused by the others.
            why = error.strerror if isinstance(error, OSError) else error
            found.warn(f"live file: {name}: {why}", live_file={"path": name, "error": str(why)})
            return
        _tell_leftover(store, name, leftover, found)
        return
    found.note(f"live file: there is no {path}", live_file={"path": None})


def _tell_leftover(store: IStoreContent, name: str, leftover: Leftover, found: Findings) -> None:
    known: dict[str, Any] = {"path": name, "players": len(leftover.records)}
    if not leftover.unsaved:
        known |= {"clean": leftover.clean, "to_recover": 0}
        found.note(f"live file: {name}: no player in it is unsaved", live_file=known)
        return
    if leftover.identity != store.identity():
        known |= {"clean": False, "to_recover": 0}
        found.warn(
            f"live file: {name} holds {players(leftover.unsaved)} of another store, or of this one"
            " before it was restored: the next start sets it aside",
            live_file=known,
        )
        return
    dates = dict(leftover.records[["session_id", "updated_at"]].tolist())
    stored = store.updated_at(dates)
    newer = [date for who, date in dates.items() if stored.get(who, 0) < date]
    known |= {"clean": False, "to_recover": len(newer)}
    line = f"live file: {name}: the last stop was not clean; of {players(len(dates))} in it,"
    if newer:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(max(newer) / 1e6))
        line += f" the next start recovers {len(newer):,}, the newest of {date} UTC"
    else:
        line += " the store has all"
    found.note(line, live_file=known)
