"""The ``playerstate`` command: bots, recorded tracks, stores and their players, options, tokens.

Each command imports its modules when it runs, so that ``--help`` is fast.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from playerstate.cli import player_commands, store_commands
from playerstate.cli.parameters import (
    LAST_ID,
    AboveZero,
    Address,
    Whole,
    json_option,
    login_of,
    read_address,
    read_key_file,
    read_protocol_id,
    read_public,
    state_option,
)
from playerstate.cli.terminal import OneLineErrors

FIRST_ID = 2**62
"""The default first session id of the bots: far from any real player's."""

Command = Callable[..., Any]


def server_options(command: Command) -> Command:
    """Add the options of every command that connects to a server."""
    for option in (
        json_option,
        state_option,
        click.option(
            "--to",
            "server",
            metavar="HOST:PORT",
            callback=read_address,
            default="127.0.0.1:7777",
            show_default=True,
            help="Where the server listens.",
        ),
        click.option(
            "--protocol-id",
            metavar="NUMBER",
            callback=read_protocol_id,
            help="With --netcode: the game's protocol id, the same as the server's.",
        ),
        click.option(
            "--key-file",
            "key",
            metavar="PATH",
            callback=read_key_file,
            help="With --netcode: the server's key, to make tokens with.",
        ),
        click.option(
            "--netcode",
            is_flag=True,
            help="Use netcode, each player on a connection and a socket of its own.",
        ),
    ):
        command = option(command)
    return command


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="playerstate", prog_name="playerstate")
def main() -> None:
    """Try out, inspect and operate a playerstate server.

    The server itself is a Twisted plugin: twistd playerstate --help.
    """


@main.command()
@server_options
@click.option(
    "--players",
    type=Whole(1, 1_000_000),
    default=100,
    show_default=True,
    help="How many bots.",
)
@click.option(
    "--rate",
    type=AboveZero(1000),
    default=20.0,
    show_default=True,
    help="Moves a second of each bot.",
)
@click.option(
    "--seconds",
    type=AboveZero(86_400),
    default=10.0,
    show_default=True,
    help="How long they walk.",
)
@click.option(
    "--first-id",
    type=Whole(1, LAST_ID),
    default=FIRST_ID,
    show_default="2^62, far from any real player's",
    help="The first bot's session id; the others follow it.",
)
@click.option(
    "--teleport",
    "teleported",
    metavar="NUMBER",
    type=Whole(1, 1_000_000),
    help="Start a server in this process, whose program teleports and heals so many of the bots.",
)
def simulate(
    server: Address,
    schema: Any,
    players: int,
    rate: float,
    seconds: float,
    first_id: int,
    teleported: int | None,
    netcode: bool,
    key: bytes | None,
    protocol_id: int | None,
    as_json: bool,
) -> NoReturn:
    """Send bots to a server, and check that they come back.

    They join, walk, leave, and join again; then each must have exactly the state with which it
    left, to the last bit. The exit status is 1 if a bot has another state, or could not play to the
    end. Two runs at a time need different session ids.

    With --teleport the bots play on a server of their own, on a free port of the loopback interface
    and with a temporary store; no other server is contacted. Its program teleports and heals the
    first bots four times a second while they walk. Each must learn of every change and go on from
    there, no earlier move may undo a teleport, and the store must end with the last state. The
    state class is then by default one with x and y, which the client owns, and hp, which the server
    owns; with --state, a teleport sets all fields of the client's, and healing all of the server's.
    """
    from playerstate.cli.outcome import tell
    from playerstate.cli.simulate import simulate, simulate_changes

    login = login_of(netcode, key, protocol_id)
    if first_id + players - 1 > LAST_ID:
        raise click.UsageError(f"--first-id {first_id}: only {LAST_ID - first_id + 1} ids follow")
    ids = range(first_id, first_id + players)
    if teleported is None:
        outcome = simulate(server, login, schema, ids, rate, seconds)
    else:
        schema = _check_own_server(schema, teleported, players)
        outcome = simulate_changes(schema, ids, teleported, rate, seconds)
    tell(outcome, as_json)
    raise SystemExit(outcome.status)


def _check_own_server(schema: Any, teleported: int, players: int) -> Any:
    """Check the options beside --teleport; return the schema of the state class to use.

    Raises:
        click.UsageError: one of them is of no use, or there are too few bots.
    """
    from playerstate.cli.program import Hero
    from playerstate.state.schema import StateSchema

    given = click.get_current_context().get_parameter_source
    for name, option in (("server", "--to"), ("netcode", "--netcode")):
        if given(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--teleport starts a server of its own: {option} is of no use with it"
            )
    if teleported > players:
        raise click.UsageError(f"--teleport {teleported}: there are only {players} bots")
    return StateSchema.of(Hero) if given("schema") is ParameterSource.DEFAULT else schema


@main.command()
@server_options
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--speed",
    type=AboveZero(1_000_000),
    default=1.0,
    show_default=True,
    help="2 for twice as fast as recorded.",
)
def replay(
    server: Address,
    schema: Any,
    file: Path,
    speed: float,
    netcode: bool,
    key: bytes | None,
    protocol_id: int | None,
    as_json: bool,
) -> NoReturn:
    """Play recorded tracks to a server.

    FILE is CSV. Its first line names the columns: t (seconds), session_id, and fields of the state
    class; a field without a column keeps its default. All players join before the first move,
    and the command waits until their last moves are saved. The exit status is 1 if a player was not
    saved.
    """
    from playerstate.cli.outcome import tell
    from playerstate.cli.replay import replay

    login = login_of(netcode, key, protocol_id)
    outcome = replay(server, login, schema, file, speed)
    tell(outcome, as_json)
    raise SystemExit(outcome.status)


@main.command()
@click.argument("store")
@click.argument("session_id", type=Whole(1, LAST_ID), required=False)
@click.option(
    "--limit",
    type=Whole(1, 1_000_000),
    help="How many players.  [default: what fits the screen; 100 where there is none]",
)
@click.option("--all", "show_all", is_flag=True, help="Every player.")
@json_option
def show(
    store: str, session_id: int | None, limit: int | None, show_all: bool, as_json: bool
) -> None:
    """Show the players in a store.

    STORE is its URL, such as sqlite:players.db; a server may be running on it. Shows how many
    players it holds and the players who changed last, or one player alone, as a list. Columns that
    do not fit a terminal are left out and named.
    In JSON, updated_at is in microseconds since 1970, UTC.
    """
    from playerstate.cli.show import show

    if limit is not None and show_all:
        raise click.UsageError("--limit and --all: give one of them")
    show(store, session_id, 0 if show_all else limit, as_json)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("options", metavar="[SERVER OPTION]...", nargs=-1, type=click.UNPROCESSED)
def config(options: tuple[str, ...], as_json: bool) -> None:
    """Show the options that a server would run with, and where each is from.

    The server's options are those of `twistd playerstate`, such as --config FILE. The command line
    is above the PLAYERSTATE_ variables, and these are above the file. Nothing is started. A value
    with which the server would not start is an error.
    """
    from playerstate.cli.config import config

    config(options, as_json)


@main.group(cls=OneLineErrors)
def live() -> None:
    """Show a live file, or save its players.

    A live file is what a server that has ended left, such as players.db.live.
    """


@live.command("show")
@click.argument("file")
@json_option
def live_show(file: str, as_json: bool) -> None:
    """Show the players in a live file.

    FILE is its path, such as that of one that was set aside. It must not be in use by a server.
    """
    from playerstate.cli.live import show

    show(file, as_json)


@live.command("apply")
@click.argument("file")
@click.argument("store")
@state_option
def live_apply(file: str, store: str, schema: Any) -> None:
    """Save the players of a live file in a store.

    FILE is its path, and STORE the store's URL, such as sqlite:players.db. Neither may be in use
    by a server. A player of whom the store has a newer state keeps it. The file stays, and is
    marked as saved.
    """
    from playerstate.cli.live import apply

    apply(file, store, schema)


@main.command()
@click.argument("path", type=click.Path(dir_okay=False))
def key(path: str) -> None:
    """Make the key that seals connect tokens.

    PATH is a new file, which only its owner can read: the game servers take it by --key-file. Give
    a copy to the login service only.
    """
    from playerstate.cli.tokens import make_key

    make_key(path)


@main.command()
@click.argument("session_id", type=Whole(1, LAST_ID))
@click.option(
    "--key-file",
    "key",
    metavar="PATH",
    callback=read_key_file,
    required=True,
    help="The servers' key, made by `playerstate key`.",
)
@click.option(
    "--protocol-id",
    metavar="NUMBER",
    callback=read_protocol_id,
    required=True,
    help="The game's protocol id, the same as the servers'.",
)
@click.option(
    "--public",
    metavar="ADDRESS:PORT",
    callback=read_public,
    multiple=True,
    required=True,
    help="A server's public address; repeat it for several servers.",
)
@click.option(
    "--expires",
    type=Whole(1, 3600),
    default=30,
    show_default=True,
    help="Seconds for which the token is valid.",
)
@click.option(
    "--timeout",
    type=Whole(1, 60),
    default=5,
    show_default=True,
    help="Seconds of silence after which a connection is over.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False), required=True, help="The file to write it to."
)
def token(
    session_id: int,
    key: bytes,
    protocol_id: int,
    public: tuple[str, ...],
    expires: int,
    timeout: int,
    out: str,
) -> None:
    """Make a connect token, as a login service does.

    It lets the player with this SESSION_ID connect once, before it expires. The file has 2048
    bytes, and only its owner can read it.
    """
    from playerstate.cli.tokens import make_token

    make_token(
        out,
        session_id,
        key=key,
        protocol_id=protocol_id,
        addresses=public,
        expires=expires,
        timeout=timeout,
    )


for command in (*player_commands.COMMANDS, *store_commands.COMMANDS):
    main.add_command(command)
