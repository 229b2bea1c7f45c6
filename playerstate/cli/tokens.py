"""Make keys and connect tokens, to try out a server and for scripts."""

from __future__ import annotations

import os
import stat
from typing import Any

import click

from playerstate.cli.terminal import say
from playerstate.tokens import KeyUnusable, connect_token, create_key


def make_key(path: str) -> None:
    """Write a new key.

    Raises:
        click.ClickException: the file exists already, or cannot be written.
    """
    try:
        create_key(path)
    except KeyUnusable as error:
        raise click.ClickException(f"{path}: {error}") from error
    say(f"{path}: a new key; give a copy to the login service only")


def make_token(out: str, session_id: int, **options: Any) -> None:
    """Write a connect token, and overwrite an earlier one.

    Args:
        out: the file.
        session_id: of the token's player.
        options: for `connect_token`.

    Raises:
        click.ClickException: there are too many addresses, or the file cannot be written.
    """
    try:
        token = connect_token(session_id, **options)
    except ValueError as error:
        raise click.ClickException(f"--public: {error}") from error
    try:
        # Truncate and set the mode only once it is known to be a regular file, not a device.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK
        with open(os.open(out, flags, 0o600), "wb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise click.ClickException(f"--out {out}: not a regular file; name another")
            os.fchmod(file.fileno(), 0o600)
            file.truncate()
            file.write(token)
    except OSError as error:
        raise click.ClickException(
            f"--out {out}: cannot be written: {error.strerror}; name another file"
        ) from error
    say(
        f"{out}: player {session_id} may connect once within {options['expires']} s; each"
        " connection needs a token of its own"
    )
