"""Erase a player from the live files of a store."""

from __future__ import annotations

import contextlib
import glob

import click

from playerstate.live.erasing import erase_player
from playerstate.live.leftover import MAGIC, NotALiveFile
from playerstate.live.names import held


def erase_everywhere(path: str | None, session_id: int) -> dict[str, int]:
    """Erase a player from a live file, and from those that were set aside.

    All are locked before the first is changed.

    Args:
        path: of the live file; None for none.
        session_id: the player's.

    Returns:
        How many rows were erased, by the name of the file; files without any are left out.

    Raises:
        click.ClickException: one is in use, or cannot be changed.
    """
    if path is None:
        return {}
    erased = {}
    with contextlib.ExitStack() as stack:
        name = ""
        try:
            # .recovering, .making, and the dates of those set aside.
            names = [path, *sorted(glob.glob(f"{glob.escape(path)}.*"))]
            files = [
                (name, stack.enter_context(held(name))) for name in names if is_live_file(name)
            ]
            for name, fd in files:
                if rows := erase_player(fd, session_id):
                    erased[name] = rows
        except NotALiveFile as error:
            raise click.ClickException(
                f"{name} is a damaged live file: {error}; remove it if no player in it is missed,"
                " then erase again"
            ) from error
        except OSError as error:
            raise click.ClickException(
                f"cannot change {error.filename or name}: {error.strerror}"
            ) from error
    return erased


def is_live_file(name: str) -> bool:
    """Whether a file is there and begins as a live file does."""
    try:
        with open(name, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        return False
