"""What an operator does with a SQLite database, beside its server or without one."""

from __future__ import annotations

from zope.interface import implementer

from playerstate.interfaces import IStoreOperations
from playerstate.stores.sqlite.content import SQLiteContent
from playerstate.stores.sqlite.held import SQLiteHeld


@implementer(IStoreOperations)
class SQLiteOperations(SQLiteContent):
    """See `IStoreOperations`."""

    def recognise(self, path: str) -> None:
        """See `IStoreOperations.recognise`."""
        with SQLiteContent(path).look():
            pass

    def hold(self, create: bool = False) -> SQLiteHeld:
        """See `IStoreOperations.hold`."""
        if not create:
            with self.look():  # no lock file beside what is no database of players
                pass
        return SQLiteHeld(self.path)
