"""What an operator does with a SQLite database, beside its server or without one."""

from __future__ import annotations

import os

from zope.interface import implementer

from playerstate.interfaces import IStoreOperations, StoreUnusable
from playerstate.stores.sqlite.content import SQLiteContent
from playerstate.stores.sqlite.held import SQLiteHeld


@implementer(IStoreOperations)
class SQLiteOperations(SQLiteContent):
    """See `IStoreOperations`."""

    def hold(self, create: bool = False) -> SQLiteHeld:
        """See `IStoreOperations.hold`."""
        if not (create or os.path.exists(self.path)):
            raise StoreUnusable(f"{self.path} does not exist")
        return SQLiteHeld(self.path)
