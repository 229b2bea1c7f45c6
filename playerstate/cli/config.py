"""``playerstate config``: the options that a server would run with, and where each is from."""

from __future__ import annotations

from collections.abc import Sequence

import click

from playerstate.cli.table import lay_out
from playerstate.cli.terminal import say, say_json
from playerstate.layered import Setting
from playerstate.printable import printable
from playerstate.tap import Options


def config(arguments: Sequence[str], as_json: bool) -> None:
    """Print the options in force; the arguments are those of ``twistd playerstate``.

    Raises:
        click.ClickException: the server would not start with them.
    """
    options = Options()
    try:
        options.parseOptions(arguments)
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise  # of --help
        raise click.ClickException(error.code.removeprefix("playerstate: ")) from error
    settings = options.in_force()
    if as_json:
        say_json(
            {setting.name: {"value": setting.value, "from": setting.source} for setting in settings}
        )
        return
    rows = [
        (setting.name, printable(_shown(setting)), printable(setting.source))
        for setting in settings
    ]
    table = lay_out(("option", "value", "from"), rows, [False] * 3, range(3), None)
    for line in (table.header, *table.lines):
        say(line)


def _shown(setting: Setting) -> str:
    value = setting.value
    if isinstance(value, bool):
        return "on" if value else "off"
    return (" ".join(value) if isinstance(value, list) else value) or "-"
