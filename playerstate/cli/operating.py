"""Take a store in hand for a command, or say in one line why not and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import click

from playerstate.interfaces import (
    IHeldStore,
    IStoreContent,
    IStoreOperations,
    StoreInUse,
    StoreUnusable,
)
from playerstate.live.leftover import NotALiveFile, read_leftover
from playerstate.live.names import RECOVERING
from playerstate.state.schema import StateSchema
from playerstate.stores import operate_store


@contextmanager
def operating(url: str) -> Iterator[IStoreOperations]:
    """What can be done with the store at a URL, beside a server or without one.

    Raises:
        click.ClickException: in place of a `StoreUnusable`.
    """
    try:
        yield operate_store(url)
    except StoreUnusable as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def holding(url: str, by_web: bool = False, create: bool = False) -> Iterator[IHeldStore]:
    """The store at a URL, which no server can use meanwhile.

    Args:
        url: the store's.
        by_web: whether a server's web endpoint can do what the command does.
        create: whether the store need not exist.

    Raises:
        click.ClickException: in place of a `StoreUnusable`; a server that holds the store is named.
    """
    with operating(url) as operations:
        try:
            held = operations.hold(create)
        except StoreInUse as error:
            instead = (
                "let the server there do it, by --web URL --token-file FILE, or stop it first"
                if by_web
                else "stop the server there first"
            )
            raise click.ClickException(f"{url} is in use by {error.holder}; {instead}") from error
        with closing(held):
            yield held


def check_fits(url: str, store: IStoreContent, schema: StateSchema) -> None:
    """Check that a store has the columns of a state class.

    Raises:
        click.ClickException: it has not; the message says what to do.
        StoreUnusable: it could never have.
    """
    if plan := store.plan(schema):
        name = schema.state_class.__qualname__
        raise click.ClickException(
            f"{url} is not as {name} needs it: {'; '.join(plan)}; name the server's class by"
            f" --state, or run `playerstate migrate {url}` first"
        )


def live_file_of(store: IStoreContent, given: str | None) -> str | None:
    """The live file of a store: the given one, else the store's default; None without any."""
    path: str | None = given or store.live_path
    return path


def check_saved(url: str, store: IStoreContent, live_file: str | None) -> None:
    """Check that no live file of the store has players whose newest state may be unsaved.

    Otherwise what the command writes would be taken for newer than these states, which would be
    lost, or players whom it deletes would come back.

    Raises:
        click.ClickException: there is one, or it cannot be read; the message says what to do.
    """
    path = live_file_of(store, live_file)
    for name in () if path is None else (path, path + RECOVERING):
        try:
            leftover = read_leftover(name)
        except (FileNotFoundError, NotADirectoryError, NotALiveFile):
            continue
        except OSError as error:
            raise click.ClickException(
                f"cannot read the live file {name}: {error.strerror}; make it readable"
            ) from error
        if leftover.unsaved and leftover.identity == store.identity():
            raise click.ClickException(
                f"the last server on {url} did not stop cleanly: {name} holds {leftover.unsaved:,}"
                f" players whose newest state may be unsaved; save them first, by `playerstate live"
                f" apply {name} {url}`"
            )
