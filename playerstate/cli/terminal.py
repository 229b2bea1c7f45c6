"""How the commands print: by the line, without control characters that a terminal would act on."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from playerstate.printable import one_line, printable_json

_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class OneLineErrors(click.Group):
    """A group that reports an error in one line, as ``twistd playerstate`` does."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """See `click.Command.make_context`."""
        with _one_line_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """See `click.Command.invoke`."""
        with _one_line_errors():
            return super().invoke(ctx)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        if isinstance(error, _HELP):
            raise
        # For a usage error, click would print three lines of usage before the message.
        raise _OneLine(one_line(error.format_message()), error.exit_code) from error


class _OneLine(click.ClickException):
    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.exit_code = exit_code  # type: ignore[misc]


def say(line: str, err: bool = False) -> None:
    """Print a line to stdout, or to stderr.

    Raises:
        click.ClickException: stdout cannot be written, as on a full disk.
    """
    if err:
        click.echo(one_line(line), err=True)
        return
    with output():
        click.echo(one_line(line))


@contextmanager
def output() -> Iterator[TextIO]:
    """Stdout, to write more to it than lines.

    Raises:
        click.ClickException: it cannot be written, as on a full disk.
    """
    try:
        yield sys.stdout
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        # The buffered text would fail again, with a traceback, at the end of the process.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until then
        raise click.ClickException(f"cannot write the output: {error.strerror}") from error


def say_json(value: Any) -> None:
    """Print a value as JSON, on one line."""
    say(printable_json(value))


def screen() -> tuple[int, int] | None:
    """Columns and lines of the terminal on stdout; None if stdout is no terminal."""
    if not sys.stdout.isatty():
        return None
    columns, lines = shutil.get_terminal_size()
    return columns, lines
