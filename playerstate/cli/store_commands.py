"""The commands for a whole store: export, import, backup, restore, check, migrate, prune."""

from __future__ import annotations

from typing import Any

import click

from playerstate.cli.parameters import AboveZero, json_option, live_file_option, state_option

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl"]),
    help="Of the file.  [default: as its suffix says]",
)
FORCE = click.option("--force", is_flag=True, help="Replace an older file.")


@click.command()
@click.argument("store")
@click.argument("path", metavar="FILE")
@FORMAT
@FORCE
@json_option
def export(store: str, path: str, form: str | None, force: bool, as_json: bool) -> None:
    """Write all players of a store to a file.

    STORE is its URL, such as sqlite:players.db; a server may be running on it. FILE is a new file,
    CSV (.csv) or JSON Lines (.jsonl), or - for stdout. It has the players as one moment saw them,
    with every column, updated_at in microseconds since 1970, UTC.
    """
    from playerstate.cli.exporting import export
    from playerstate.cli.formats import format_of

    if path == "-" and as_json:
        raise click.UsageError("--json: stdout has the players; name a file")
    export(store, path, format_of(path, form), force, as_json)


@click.command("import")
@click.argument("store")
@click.argument("file")
@FORMAT
@state_option
@click.option("--create", is_flag=True, help="Make the store if there is none.")
@click.option("--skip-unknown", is_flag=True, help="Ignore columns that are no fields.")
@live_file_option
@json_option
def import_(
    store: str,
    file: str,
    form: str | None,
    schema: Any,
    create: bool,
    skip_unknown: bool,
    live_file: str | None,
    as_json: bool,
) -> None:
    """Save the players of a file in a store: all of them, or none.

    STORE is its URL; no server may be running on it. FILE is CSV or JSON Lines, as `export` writes
    it, or - for stdin. Each player is named by session_id. A field that the file does not give
    keeps what the store has, or its default. Without updated_at, the player changed now. A player
    of whom the store has a newer state keeps it. Bad lines are named, and nothing is saved then.
    """
    from playerstate.cli.formats import format_of
    from playerstate.cli.importing import import_players

    import_players(
        store, file, format_of(file, form), schema, create, skip_unknown, live_file, as_json
    )


@click.command()
@click.argument("store")
@click.argument("path", metavar="FILE")
@FORCE
@json_option
def backup(store: str, path: str, force: bool, as_json: bool) -> None:
    """Back up a store, and verify the copy.

    STORE is its URL; a server may be running on it. FILE is a new file. It is whole or not there.
    """
    from playerstate.cli.copies import backup

    backup(store, path, force, as_json)


@click.command()
@click.argument("store")
@click.argument("file")
@live_file_option
@json_option
def restore(store: str, file: str, live_file: str | None, as_json: bool) -> None:
    """Put a backup in the place of a store.

    STORE is its URL; no server may be running on it. FILE is what `backup` wrote, and stays. It is
    verified first. The store before and its live file are set aside, under names with the date.
    """
    from playerstate.cli.copies import restore

    restore(store, file, live_file, as_json)


@click.command()
@click.argument("store")
@state_option
@live_file_option
@json_option
def check(store: str, schema: Any, live_file: str | None, as_json: bool) -> None:
    """Check a store and its live file; nothing is changed.

    STORE is its URL; a server may be running on it. Reads all of it to find damage, compares its
    columns with the state class, and says what the next start would recover from the live file.
    The exit status is 1 if something is wrong.
    """
    from playerstate.cli.check import check

    check(store, schema, live_file, as_json)


@click.command()
@click.argument("store")
@state_option
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--backup", "copy", metavar="FILE", help="Where to back it up.  [default: beside it]")
@click.option("--no-backup", is_flag=True, help="Do not back it up first.")
@json_option
def migrate(
    store: str, schema: Any, dry_run: bool, copy: str | None, no_backup: bool, as_json: bool
) -> None:
    """Adapt a store to a state class, as the next start of the server would.

    STORE is its URL; no server may be running on it, but for --dry-run. It is backed up first, if
    there is something to change.
    """
    from playerstate.cli.copies import migrate

    if no_backup and copy is not None:
        raise click.UsageError("--backup and --no-backup: give one of them")
    migrate(store, schema, dry_run, copy, not no_backup, as_json)


@click.command()
@click.argument("store")
@click.option(
    "--idle-days",
    type=AboveZero(36_500),
    required=True,
    help="Delete the players who last changed longer ago.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many they are.")
@live_file_option
@json_option
def prune(
    store: str, idle_days: float, dry_run: bool, live_file: str | None, as_json: bool
) -> None:
    """Delete the players who have not changed for long.

    STORE is its URL; no server may be running on it.
    """
    from playerstate.cli.players import prune

    prune(store, idle_days, dry_run, live_file, as_json)


COMMANDS: tuple[click.Command, ...] = (
    export,
    import_,
    backup,
    restore,
    check,
    migrate,
    prune,
)
