"""What every store must do, whatever it keeps the players in: tests for any store to pass.

A subclass says how its store is opened, and where the store allows it how a connection is cut and
how a player's rows come to be refused.  Its store then has every test here::

    class MyStoreTests(StoreContract):
        def open(self, schema):
            return open_store(f"mine:{self.directory}", schema)

It needs no reactor: what a store answers by a Deferred is waited for by `StoreContract.turn`.
"""

from __future__ import annotations

from playerstate.stores.contract.kept import KeptTests
from playerstate.stores.contract.migrated import MigratedTests
from playerstate.stores.contract.refused import RefusedTests
from playerstate.stores.contract.saved import SavedTests
from playerstate.stores.contract.together import TogetherTests


class StoreContract(KeptTests, SavedTests, RefusedTests, MigratedTests, TogetherTests):
    """The tests; a subclass says how its store is opened.  See `StoreTestCase` for what else.

    A test that does not concern a store is skipped: a store with one lane has no writers side by
    side, and one that has no columns no migration.
    """
