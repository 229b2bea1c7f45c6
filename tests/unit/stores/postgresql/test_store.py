"""The PostgreSQL store on a real server: what every store must do, and what a URL says."""

from __future__ import annotations

from playerstate import testing
from playerstate.interfaces import IStateStore
from playerstate.state.schema import StateSchema
from tests.kit.postgresql import PostgreSQLTestCase


class PostgreSQLStoreTests(PostgreSQLTestCase, testing.StoreContract):
    """Players in a PostgreSQL database."""

    def open(self, schema: StateSchema) -> IStateStore:
        """A store over the same database each time."""
        return self.make_store(schema)
