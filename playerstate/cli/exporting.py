"""Write all players of a store to a file, beside a running server or without one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from playerstate.cli.done import new_file, players, tell_done
from playerstate.cli.formats import WRITERS
from playerstate.cli.operating import operating
from playerstate.cli.outcome import Bar
from playerstate.cli.terminal import output
from playerstate.interfaces import IStoreOperations


def export(url: str, path: str, form: str, force: bool, as_json: bool) -> None:
    """Export a store.

    Args:
        url: the store's.
        path: of the file, or ``-`` for stdout.
        form: ``csv`` or ``jsonl``.
        force: whether an older file may be replaced.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: the store cannot be read, or the file not written.
    """
    with operating(url) as store:
        if path == "-":
            with output() as stdout:
                count = _write(store, stdout, form)
        else:
            with new_file(path, force) as part:
                # Players' data: for the user who exports them.
                fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(fd, "w", encoding="utf-8", newline="") as file:
                    count = _write(store, file, form)
                    file.flush()
                    os.fsync(fd)
    line = f"{players(count)} of {url} exported to {path}"
    numbers = {"store": url, "file": path, "format": form, "players": count}
    tell_done(line, numbers, as_json, err=path == "-")


def _write(store: IStoreOperations, file: TextIO, form: str) -> int:
    done = 0

    def counted(rows: Iterable[tuple[Any, ...]], total: int, bar: Bar) -> Iterator[tuple[Any, ...]]:
        nonlocal done
        for row in rows:
            yield row
            done += 1
            bar.show("exporting", done, total)

    with Bar() as bar:
        rows = counted(store.rows(), store.count(), bar)
        WRITERS[form](file, store.columns(), rows)
    return done
