"""What an operator does with a PostgreSQL database, beside its servers or without one."""

from __future__ import annotations

from zope.interface import implementer

from playerstate.interfaces import IStoreOperations
from playerstate.stores.postgresql.content import PostgreSQLContent, not_offered
from playerstate.stores.postgresql.held import PostgreSQLHeld


@implementer(IStoreOperations)
class PostgreSQLOperations(PostgreSQLContent):
    """See `IStoreOperations`."""

    def recognise(self, path: str) -> None:
        """See `IStoreOperations.recognise`."""
        raise not_offered(self.place, "and restores no backup", "restore one by pg_restore")

    def hold(self, create: bool = False) -> PostgreSQLHeld:
        """See `IStoreOperations.hold`."""
        if not create:
            with self.look():
                pass
        return PostgreSQLHeld(self.place)
