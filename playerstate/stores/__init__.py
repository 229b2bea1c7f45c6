"""Stores, and how a URL finds the one that is meant.

A store is named by a URL, ``SCHEME:REST``.  Its factory is a Twisted plugin that provides
`playerstate.interfaces.IStoreFactory`; a file in any ``twisted/plugins/`` directory on the path
adds one.
"""

from __future__ import annotations

import attrs
from twisted.plugin import IPlugin, getPlugins
from twisted.python.reflect import namedAny
from zope.interface import implementer

from playerstate.interfaces import IStateStore, IStoreBrowser, IStoreFactory, StoreUnusable
from playerstate.state.schema import StateSchema


@implementer(IPlugin, IStoreFactory)
@attrs.frozen
class StoreFactory:
    """A factory that names its module as a string, so that finding it imports nothing.

    Args:
        scheme: of the URLs.
        module: has ``open_url(url, schema)`` and ``browse_url(url)``, which `open` and `browse`
            become.
    """

    scheme: str
    module: str

    def open(self, url: str, schema: StateSchema) -> IStateStore:
        """See `IStoreFactory.open`."""
        store: IStateStore = namedAny(self.module).open_url(url, schema)
        return store

    def browse(self, url: str) -> IStoreBrowser:
        """See `IStoreFactory.browse`."""
        browser: IStoreBrowser = namedAny(self.module).browse_url(url)
        return browser


def open_store(url: str, state: type | StateSchema) -> IStateStore:
    """The store that a URL names, as yet untouched: ``sqlite:players.db``, ``memory:``.

    Args:
        url: ``SCHEME:REST``; the rest is the store's own, see its module.
        state: the state class, or its schema.

    Raises:
        StoreUnusable: there is no store of that scheme, or it cannot read the URL.
        SchemaError: the state class cannot be packed.
        TypeError: the URL is no text; a path is none.
    """
    return _find_factory(url).open(url, StateSchema.of(state))


def browse_store(url: str) -> IStoreBrowser:
    """Look into the store that a URL names, without its state class.

    Raises:
        StoreUnusable: there is no store of that scheme, or nothing to look into.
        TypeError: the URL is no text; a path is none.
    """
    return _find_factory(url).browse(url)


def _find_factory(url: str) -> IStoreFactory:
    if not isinstance(url, str):
        raise TypeError(f"a store is named by a URL, as in 'sqlite:players.db', not by {url!r}")
    scheme, colon, rest = url.partition(":")
    if scheme == "sqlite" and rest.startswith("//"):
        raise StoreUnusable(
            f"{url!r}: no slashes belong after sqlite: but those of the path; write"
            f" sqlite:{rest.lstrip('/')} for a file of the working directory, or"
            f" sqlite:/{rest.lstrip('/')} for one from the root folder"
        )
    factories = {factory.scheme: factory for factory in getPlugins(IStoreFactory)}
    if not colon or scheme not in factories:
        found = ", ".join(f"{scheme}:" for scheme in sorted(factories))
        raise StoreUnusable(f"no store is called {url!r}: a store is SCHEME:REST, with {found}")
    return factories[scheme]
