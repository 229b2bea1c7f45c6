"""Back up a store, put a backup in its place, and adapt it to a state class."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import click

from playerstate.cli.done import new_file, players, tell_done
from playerstate.cli.operating import holding, live_file_of, operating
from playerstate.cli.outcome import Bar
from playerstate.cli.terminal import say
from playerstate.interfaces import IStoreContent
from playerstate.live.names import RECOVERING, held, stamp
from playerstate.state.schema import StateSchema


def backup(url: str, path: str, force: bool, as_json: bool) -> None:
    """Back up a store, beside a running server or without one, and verify the copy.

    Args:
        url: the store's.
        path: of the file to write.
        force: whether an older file may be replaced.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: there is no whole copy; an older file stays as it was.
    """
    with operating(url) as store:
        count = _back_up(store, path, force)
    size = os.path.getsize(path)
    line = f"{players(count)} of {url} backed up to {path}, {size:,} bytes, verified"
    numbers = {"store": url, "file": path, "players": count, "bytes": size}
    tell_done(line, numbers, as_json)


def _back_up(store: IStoreContent, path: str, force: bool) -> int:
    with new_file(path, force) as part, Bar() as bar:
        return store.backup(part, lambda done, total: bar.show("copying", done, total))


def restore(url: str, path: str, live_file: str | None, as_json: bool) -> None:
    """Put a backup in the place of a store that no server uses.

    Args:
        url: the store's; it need not exist.
        path: of the backup, which stays.
        live_file: of the store, if not the default one; it is set aside.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: the backup cannot be used, or a server uses the store or the live
            file; nothing has changed.
    """
    with operating(url) as content:
        content.recognise(path)  # before a lock file is made beside a store that is not there
    with holding(url, create=True) as store, contextlib.ExitStack() as stack:
        lives = [
            name
            for name in _live_files(live_file_of(store, live_file))
            if stack.enter_context(_locked(name))
        ]
        with Bar() as bar:
            aside = list(store.restore(path, lambda done, total: bar.show("copying", done, total)))
        for name in lives:
            unique = f"{name}.{stamp()}"
            os.rename(name, unique)
            aside.append(unique)
        count = store.count()
    kept = f"; set aside: {', '.join(aside)}" if aside else ""
    line = f"{players(count)} restored from {path} into {url}{kept}"
    numbers = {"store": url, "file": path, "players": count, "set_aside": aside}
    tell_done(line, numbers, as_json)


def _live_files(path: str | None) -> list[str]:
    return [] if path is None else [path, path + RECOVERING]


@contextlib.contextmanager
def _locked(name: str) -> Iterator[bool]:
    """Lock a live file; whether there is one."""
    if not os.path.exists(name):
        yield False
        return
    try:
        with held(name):
            yield True
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror}") from error


def migrate(
    url: str, schema: StateSchema, dry_run: bool, copy: str | None, backs_up: bool, as_json: bool
) -> None:
    """Adapt a store that no server uses to a state class.

    Args:
        url: the store's.
        schema: of the state class.
        dry_run: whether only to say what would change; a server may use the store then.
        copy: where to back it up; None for a new name beside it.
        backs_up: whether to back it up at all.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: it cannot be adapted, or not backed up; nothing has changed.
    """
    name = schema.state_class.__qualname__
    numbers = {"store": url, "class": name, "dry_run": dry_run}
    if dry_run:
        with operating(url) as store:
            plan = list(store.plan(schema))
        line = f"{url}: to fit {name}: {'; '.join(plan) or 'nothing to do'}; nothing was changed"
        tell_done(line, {**numbers, "changes": plan, "backup": None}, as_json)
        return
    with holding(url) as store:
        plan = list(store.plan(schema))
        if plan and backs_up:
            copy = copy or _copy_name(url)
            _back_up(store, copy, force=False)
            if not as_json:
                say(f"backed up to {copy}")
        else:
            copy = None
        if plan:
            store.migrate(schema)
    line = f"{url}: {'; '.join(plan)}: done" if plan else f"{url} fits {name}: nothing to do"
    tell_done(line, {**numbers, "changes": plan, "backup": copy}, as_json)


def _copy_name(url: str) -> str:
    path = url.partition(":")[2].partition("?")[0]
    return f"{path}.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
