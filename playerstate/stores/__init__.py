"""Stores, and how a store is found by its URL.

A store is named by a URL, ``SCHEME:REST``.  Its factory is a Twisted plugin that provides
`playerstate.interfaces.IStoreFactory`; a file in any ``twisted/plugins/`` directory on the path
adds one.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import attrs
from twisted.plugin import IPlugin, getPlugins
from twisted.python.reflect import namedAny
from zope.interface import implementer

from playerstate.interfaces import (
    IOperatedFactory,
    IStateStore,
    IStoreBrowser,
    IStoreFactory,
    IStoreOperations,
    NotOffered,
    StoreUnusable,
)
from playerstate.state.schema import StateSchema


@implementer(IPlugin, IOperatedFactory)
@attrs.frozen
class StoreFactory:
    """A factory that names its module as a string, so that finding the factory does not import it.

    Args:
        scheme: of the store's URLs.
        module: defines ``open_url(url, schema)`` and ``browse_url(url)``, which `open` and `browse`
            call; and ``operate_url(url)``, if its stores can be operated on.
        extra: the extra of this package that brings what the module imports; empty for none.
    """

    scheme: str
    module: str
    extra: str = ""

    def _load(self) -> Any:
        try:
            return namedAny(self.module)
        except ImportError as error:
            if not self.extra:
                raise
            raise StoreUnusable(
                f"{self.scheme}: needs what is not installed here ({error}); install"
                f" 'playerstate[{self.extra}]'"
            ) from error

    def open(self, url: str, schema: StateSchema) -> IStateStore:
        """See `IStoreFactory.open`."""
        store: IStateStore = self._load().open_url(url, schema)
        return store

    def browse(self, url: str) -> IStoreBrowser:
        """See `IStoreFactory.browse`."""
        browser: IStoreBrowser = self._load().browse_url(url)
        return browser

    def operate(self, url: str) -> IStoreOperations:
        """See `IOperatedFactory.operate`."""
        operate_url = getattr(self._load(), "operate_url", None)
        if operate_url is None:
            raise _not_offered(url)
        operations: IStoreOperations = operate_url(url)
        return operations


def open_store(url: str, state: type | StateSchema) -> IStateStore:
    """Make the store that a URL names, such as ``sqlite:players.db``; no file is touched yet.

    Args:
        url: ``SCHEME:REST``; the store's module defines REST.
        state: the state class, or its schema.

    Raises:
        StoreUnusable: no store has that scheme, or the store cannot parse the URL.
        SchemaError: the state class cannot be packed.
        TypeError: the URL is not a str; a `pathlib.Path` is not accepted.
    """
    return _find_factory(url).open(url, StateSchema.of(state))


def browse_store(url: str) -> IStoreBrowser:
    """Open the store that a URL names for reading, without its state class.

    Raises:
        StoreUnusable: no store has that scheme, or the store cannot be read from outside.
        TypeError: the URL is not a str; a `pathlib.Path` is not accepted.
    """
    return _find_factory(url).browse(url)


def operate_store(url: str) -> IStoreOperations:
    """What an operator can do with the store that a URL names; it need not exist yet.

    Raises:
        StoreUnusable: no store has that scheme, or the store cannot parse the URL.
        NotOffered: these stores cannot be operated on.
        TypeError: the URL is not a str; a `pathlib.Path` is not accepted.
    """
    factory = IOperatedFactory(_find_factory(url), None)
    if factory is None:
        raise _not_offered(url)
    operations: IStoreOperations = factory.operate(url)
    return operations


def without_password(url: str) -> str:
    """A URL, for messages and logs, without any password that may be in it."""
    url = re.sub(r"(?<=//)([^/?#@]*?):[^/?#]*@", r"\1:***@", url)
    return re.sub(r"([?&])([^?&#=]*)=[^&#]*", _without_value, url)


def _without_value(parameter: re.Match[str]) -> str:
    is_secret = unquote(parameter[2]).lower().endswith("password")
    return f"{parameter[1]}{parameter[2]}=***" if is_secret else parameter[0]


def _not_offered(url: str) -> NotOffered:
    return NotOffered(
        f"{without_password(url)}: this store offers no such command; use the tools that come with"
        " the store"
    )


def _find_factory(url: str) -> IStoreFactory:
    if not isinstance(url, str):
        raise TypeError(f"a store is named by a URL, as in 'sqlite:players.db', not by {url!r}")
    scheme, colon, rest = url.partition(":")
    if scheme == "sqlite" and rest.startswith("//"):
        raise StoreUnusable(
            f"{url!r}: the path follows sqlite: without //; write"
            f" sqlite:{rest.lstrip('/')} for a file in the working directory, or"
            f" sqlite:/{rest.lstrip('/')} for an absolute path"
        )
    factories = {factory.scheme: factory for factory in getPlugins(IStoreFactory)}
    if not colon or scheme not in factories:
        found = ", ".join(f"{scheme}:" for scheme in sorted(factories))
        shown = without_password(url)
        raise StoreUnusable(f"no store is called {shown!r}: a store is SCHEME:REST, with {found}")
    return factories[scheme]
