"""Save the players of a file in a store that no server uses: all of them, or none."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import click
import numpy as np
import numpy.typing as npt

from playerstate.cli.checking import BadLines, Checking, Given
from playerstate.cli.done import players, tell_done
from playerstate.cli.formats import READERS
from playerstate.cli.operating import check_fits, check_saved, holding, operating
from playerstate.cli.outcome import Bar
from playerstate.cli.terminal import say
from playerstate.interfaces import IHeldStore, Records
from playerstate.state.field import InvalidState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema

AT_ONCE = 4096
"""Lines that are read between two reports of progress."""


def import_players(
    url: str,
    path: str,
    form: str,
    schema: StateSchema,
    create: bool,
    skip_unknown: bool,
    live_file: str | None,
    as_json: bool,
) -> None:
    """Import a file.

    Args:
        url: the store's.
        path: of the file, or ``-`` for stdin.
        form: ``csv`` or ``jsonl``.
        schema: of the store's players.
        create: whether the store may be made.
        skip_unknown: whether columns that are no fields are ignored.
        live_file: of the store, if not the default one.
        as_json: whether to tell of it in JSON.

    Raises:
        click.ClickException: nothing was imported.
    """
    now = time.time_ns() // 1000
    checking = Checking(schema, form == "csv", skip_unknown, now)
    with operating(url) as content:
        is_new = not content.exists()
    if is_new and not create:
        raise click.ClickException(f"there is no store {url} yet; --create makes it")
    with holding(url, create=create) as store, _open(path) as file:
        if not is_new:
            check_fits(url, store, schema)
            check_saved(url, store, live_file)
        with Bar() as bar:
            try:
                records = _read(file, form, checking, schema, None if is_new else store, now, bar)
                checking.finish()
                bar.show("saving", 0, 1)
                if is_new:
                    store.migrate(schema)
                left_out = store.write(schema, records)
                for at, why in sorted(left_out.refused.items()):
                    checking.refuse(int(records["session_id"][at]), f"the store refuses it: {why}")
                checking.finish()
            except BadLines as bad:
                raise _tell_bad(path, bad) from bad
    outdated = len(left_out.newer)
    line = f"{players(len(records) - outdated)} imported from {path} into {url}"
    if outdated:
        line += f"; {outdated:,} outdated: the store has a newer state of them"
    numbers = {
        "store": url,
        "file": path,
        "players": len(records) - outdated,
        "outdated": outdated,
    }
    tell_done(line, numbers, as_json)


def _tell_bad(path: str, bad: BadLines) -> click.ClickException:
    for number, why in bad.named:
        say(f"{path}, line {number}: {why}", err=True)
    lines = "1 line is bad" if bad.count == 1 else f"{bad.count:,} lines are bad"
    return click.ClickException(f"{path}: {lines}; nothing was imported")


@contextlib.contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from error


def _read(
    file: BinaryIO,
    form: str,
    checking: Checking,
    schema: StateSchema,
    store: IHeldStore | None,
    now: int,
    bar: Bar,
) -> Records:
    """The good players of a file as records, sorted; the bad lines are noted."""
    record = RowLayout(schema.fields).record
    parts: list[npt.NDArray[np.void]] = [np.zeros(0, record)]
    # A pipe has no size, and no position.
    size = os.fstat(file.fileno()).st_size if file.seekable() else 0
    lines = READERS[form](file)
    while part := list(itertools.islice(lines, AT_ONCE)):
        given = checking.check(part)
        rows = _rows(given, checking, schema, store, now)
        parts.append(np.array(rows, record))
        if size:
            bar.show("reading", file.tell(), size)
    records = np.concatenate(parts)
    return records[np.argsort(records["session_id"], kind="stable")]


def _rows(
    given: Sequence[Given],
    checking: Checking,
    schema: StateSchema,
    store: IHeldStore | None,
    now: int,
) -> list[tuple[object, ...]]:
    """The stored part of these players' rows; what the file does not give, they keep."""
    partial = [each.session_id for each in given if not each.is_whole]
    there = store.load(schema, partial) if store is not None and partial else {}
    is_stored = [not field.is_transient for field in schema.fields]
    rows = []
    for each in given:
        stored = there.get(each.session_id)
        try:
            before = schema.spawn if stored is None else schema.restore(stored.values)
        except InvalidState as error:
            checking.refuse(each.session_id, f"as the store has the player: {error}")
            continue
        values = itertools.compress(each.change.of_values(before), is_stored)
        rows.append((each.session_id, *values, each.updated_at or now))
    return rows
