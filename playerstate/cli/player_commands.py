"""The commands that a server's web endpoint can carry out: set, kick, erase, flush, top."""

from __future__ import annotations

from typing import Any

import click

from playerstate.cli.parameters import (
    LAST_ID,
    AboveZero,
    Whole,
    json_option,
    live_file_option,
    read_fields,
    read_token_file,
    read_web,
    state_option,
)

WEB_DEFAULT = "http://127.0.0.1:7780"


class StoreOrWeb(click.Command):
    """A command on a player in a STORE, its first argument, or with --web in a running server."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`; with --web an empty STORE is filled in."""
        if any(word == "--web" or word.startswith("--web=") for word in args):
            args = ["", *args]
        return super().parse_args(ctx, args)


store_argument = click.argument("store", metavar="[STORE]")
session_id_argument = click.argument("session_id", type=Whole(1, LAST_ID))
web_option = click.option(
    "--web",
    metavar="URL",
    callback=read_web,
    help=f"In place of STORE: the web endpoint of the server, such as {WEB_DEFAULT}.",
)
token_option = click.option(
    "--token-file",
    "token",
    metavar="FILE",
    callback=read_token_file,
    help="With --web: a file with a token that the server knows.",
)


def _web_of(store: str, web: str | None, token: str | None) -> Any:
    """The server's endpoint; None where the store is meant."""
    from playerstate.cli.web import Web

    if web is not None:
        return Web(web, token)
    if token is not None:
        raise click.UsageError("--token-file is of no use without --web")
    if not store:
        raise click.UsageError("STORE is empty: give a URL such as sqlite:players.db, or --web")
    return None


@click.command("set", cls=StoreOrWeb)
@store_argument
@session_id_argument
@click.argument("fields", metavar="FIELD=VALUE...", nargs=-1, required=True, callback=read_fields)
@web_option
@token_option
@state_option
@click.option("--create", is_flag=True, help="In a store: make the player if there is none.")
@live_file_option
@json_option
def set_(
    store: str,
    session_id: int,
    fields: Any,
    web: str | None,
    token: str | None,
    schema: Any,
    create: bool,
    live_file: str | None,
    as_json: bool,
) -> None:
    """Change fields of a player.

    STORE is its URL, such as sqlite:players.db, if no server is running on it. The server that runs
    is asked by --web: a player in the game is told then, and one who is not is changed all the
    same.
    """
    if (server := _web_of(store, web, token)) is not None:
        from playerstate.cli import by_web

        if create:
            raise click.UsageError("--create is of no use with --web")
        by_web.set_fields(server, session_id, fields, as_json)
        return
    from playerstate.cli.players import set_fields

    set_fields(store, session_id, fields, schema, create, live_file, as_json)


@click.command(cls=StoreOrWeb)
@store_argument
@session_id_argument
@web_option
@token_option
@json_option
def kick(store: str, session_id: int, web: str | None, token: str | None, as_json: bool) -> None:
    """Take a player out of the game; the state is saved.

    The server that runs is asked by --web. Where no server runs on the STORE, no player is in the
    game, and the command says so.
    """
    if (server := _web_of(store, web, token)) is not None:
        from playerstate.cli import by_web

        by_web.kick(server, session_id, as_json)
        return
    from playerstate.cli.players import kick

    kick(store, session_id, as_json)


@click.command(cls=StoreOrWeb)
@store_argument
@session_id_argument
@web_option
@token_option
@live_file_option
@json_option
def erase(
    store: str,
    session_id: int,
    web: str | None,
    token: str | None,
    live_file: str | None,
    as_json: bool,
) -> None:
    """Erase a player for good.

    From the STORE, its live file and those that were set aside, and its quarantined rows; no server
    may be running on it. The server that runs is asked by --web. Backups and exports keep the
    player.
    """
    if (server := _web_of(store, web, token)) is not None:
        from playerstate.cli import by_web

        by_web.erase(server, session_id, as_json)
        return
    from playerstate.cli.players import erase

    erase(store, session_id, live_file, as_json)


def web_required(command: Any) -> Any:
    """Add the options of a command that asks a server, and has no store."""
    url = click.option(
        "--web",
        metavar="URL",
        callback=read_web,
        default=WEB_DEFAULT,
        show_default=True,
        help="The web endpoint of the server.",
    )
    return url(token_option(command))


@click.command()
@web_required
@json_option
def flush(web: str, token: str | None, as_json: bool) -> None:
    """Have a server save all that is unsaved, and wait for it."""
    from playerstate.cli import by_web
    from playerstate.cli.web import Web

    by_web.flush(Web(web, token), as_json)


@click.command()
@web_required
@click.option(
    "--interval",
    type=AboveZero(3600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@json_option
def top(web: str, token: str | None, interval: float, as_json: bool) -> None:
    """Show the figures of a server, live.

    They come from /metrics of its web endpoint. A line with ! is something to look into. Without a
    terminal, or with --json, the figures of one interval are printed once.
    """
    from playerstate.cli.top import PATIENCE, top
    from playerstate.cli.web import Web

    top(Web(web, token, PATIENCE), interval, as_json)


COMMANDS: tuple[click.Command, ...] = (set_, kick, erase, flush, top)
