"""What is given to the commands, found by looking at what they take: a new option is tried too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from click.testing import CliRunner, Result

from playerstate.cli import main
from playerstate.tokens import create_key


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments, prog_name="playerstate")


def refusal(*arguments: str) -> str:
    """The one line in which a command refuses its arguments, with status 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    return line


def commands(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[click.Parameter]]]:
    """Every command, as what is typed, with the parameters that take a value."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            taken = [
                parameter
                for parameter in command.params
                if not (isinstance(parameter, click.Option) and parameter.is_flag)
            ]
            yield (*path, name), taken


def prepare() -> None:
    """Put the files into the working directory that `given` names."""
    if not Path("key").exists():  # trial gives all tests one directory
        create_key("key")
    Path("tracks").write_text("t,session_id,x\n0,1,1\n")


_GOOD = {
    "store": "sqlite:missing.db",
    "file": "tracks",
    "path": "new-key",
    "session_id": "1",
    "key": "key",
    "protocol_id": "1",
    "public": "192.0.2.1:40000",
    "out": "token",
    "fields": "x=1",
    "idle_days": "1",
}


def given(tried: click.Parameter, parameters: Sequence[click.Parameter], value: str) -> list[str]:
    """The arguments in which one parameter has this value, and those that are required a good one.

    A parameter that is required and new must get a good value above.
    """
    options, arguments = [], []
    for parameter in parameters:
        if parameter is not tried and not parameter.required:
            continue
        assert parameter.name is not None
        text = value if parameter is tried else _GOOD[parameter.name]
        if isinstance(parameter, click.Option):
            options.append(f"{parameter.opts[0]}={text}")
        else:
            arguments.append(text)
    return [*options, "--", *arguments]
