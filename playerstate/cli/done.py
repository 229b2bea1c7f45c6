"""How a command tells what it did, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from playerstate.cli.terminal import say, say_json


def tell_done(line: str, numbers: Mapping[str, Any], as_json: bool, err: bool = False) -> None:
    """Print what a command did: the line, or the numbers as one JSON object.

    Args:
        line: for people.
        numbers: for programs.
        as_json: which of the two.
        err: whether stdout is taken by something else.
    """
    if as_json:
        say_json(numbers)
    else:
        say(line, err=err)


def players(count: int) -> str:
    """A number of players, in words."""
    return "1 player" if count == 1 else f"{count:,} players"


@contextlib.contextmanager
def new_file(path: str, force: bool) -> Iterator[str]:
    """Yield a temporary name beside `path`; the file made under it then takes the name `path`.

    If the block raises, that file is removed, and `path` stays as it was.

    Args:
        path: of the file to write.
        force: whether it may replace an older file.

    Raises:
        click.ClickException: it exists, or cannot be written.
    """
    part = f"{path}.{os.getpid()}.part"
    try:
        if os.path.lexists(path) and not (force and os.path.isfile(path)):
            instead = " or give --force" if os.path.isfile(path) else ""
            raise click.ClickException(f"{path} exists; name another file{instead}")
        try:
            yield part
            os.replace(part, path)
            _sync_directory(path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise click.ClickException(f"cannot write {path!r}: {error}") from error


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
