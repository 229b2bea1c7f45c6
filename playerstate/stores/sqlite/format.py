"""The format of a SQLite database of players: how it is created, recognised and migrated.

One table, keyed by the session id so that a sorted batch is written page by page::

    CREATE TABLE player_state (
        session_id INTEGER PRIMARY KEY,
        "x" REAL NOT NULL DEFAULT 350.0,
        ...
        updated_at INTEGER NOT NULL
    ) STRICT

and two tables of one row each: ``player_store``, with the identity that ties a live file to the
database, and ``player_mark``, described in `playerstate.stores.sqlite.mark`.

The columns follow the state class.  A new field becomes a column with its default; the column of a
renamed field gets the new name; the column of a removed field stays, with its values; a field whose
type has changed is refused.  ``application_id``
tells the database from those of other programs.  ``user_version`` is the version of this format
only, independent of the state class, so that a game can roll its class back.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from playerstate.interfaces import StoreUnusable
from playerstate.state.schema import StateSchema
from playerstate.stores.fitting import Change, Held, fit, in_words
from playerstate.stores.sqlite.columns import column_of, definition, quoted
from playerstate.stores.sqlite.mark import draw_mark

APPLICATION_ID = 0x706C7374
"""``plst`` in ASCII."""
FORMAT = 1


def read_identity(connection: apsw.Connection, path: str) -> bytes:
    """The identity that the database was given last; 16 zero bytes if it has none.

    Raises:
        StoreUnusable: as `check_ours`.
        apsw.Error: SQLite could not read it.
    """
    if not (check_ours(connection, path) and connection.table_exists("main", "player_store")):
        return bytes(16)
    identity: bytes | None = connection.execute("SELECT identity FROM player_store").get
    return bytes(16) if identity is None else identity


def migrate_database(
    connection: apsw.Connection, path: str, schema: StateSchema, identity: bytes
) -> list[str]:
    """Create or migrate the database and give it an identity, or refuse it unchanged.

    Returns:
        What was done to the columns, for the log; empty if nothing.

    Raises:
        StoreUnusable: it is not ours, has a newer format, or its columns do not fit the schema.
        apsw.Error: SQLite could not write it.
    """
    _fit(connection, path, schema)  # refuse it before the mode is changed
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreUnusable(
            f"{path}: SQLite cannot use its write-ahead log here ({mode} instead); it does not"
            " work on a network file system: put the database on a local disk"
        )
    connection.transaction_mode = "IMMEDIATE"
    with connection:
        if read_columns(connection):
            done = _migrate(connection, path, schema)
        else:
            _create(connection, schema)
            done = []
        connection.execute(
            "CREATE TABLE IF NOT EXISTS player_store"
            " (id INTEGER PRIMARY KEY CHECK (id = 1), identity BLOB NOT NULL) STRICT"
        )
        connection.execute("INSERT OR REPLACE INTO player_store VALUES (1, ?)", (identity,))
        draw_mark(connection)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", FORMAT)
    return done


def check_ours(connection: apsw.Connection, path: str) -> bool:
    """Whether this is a database of players; False for an empty file.

    Raises:
        StoreUnusable: it is another program's, or has a newer format than this one.
    """
    application_id = connection.pragma("application_id")
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application_id == 0 and tables == 0:
        return False
    if application_id != APPLICATION_ID:
        raise StoreUnusable(
            f"{path} is a database of another program; it was left as it is: name another file"
        )
    version = connection.pragma("user_version")
    if version > FORMAT:
        raise StoreUnusable(
            f"{path} has format {version}, this playerstate knows formats up to {FORMAT}; it was"
            " left as it is: install the newer playerstate again"
        )
    return True


def read_columns(connection: apsw.Connection) -> dict[str, str]:
    """The declared types of the table's columns, by name in its order; empty without a table."""
    return dict(connection.execute("SELECT name, type FROM pragma_table_xinfo('player_state')"))


def _create(connection: apsw.Connection, schema: StateSchema) -> None:
    columns = ", ".join(definition(field) for field in schema.stored)
    connection.execute(
        f"CREATE TABLE player_state (session_id INTEGER PRIMARY KEY, {columns},"
        " updated_at INTEGER NOT NULL) STRICT"
    )


def _migrate(connection: apsw.Connection, path: str, schema: StateSchema) -> list[str]:
    changes = _fit(connection, path, schema)
    for change in changes:
        field = change.field
        if change.before is None:
            connection.execute(f"ALTER TABLE player_state ADD COLUMN {definition(field)}")
        else:
            before, after = quoted(change.before), quoted(field.name)
            connection.execute(f"ALTER TABLE player_state RENAME COLUMN {before} TO {after}")
    return in_words(changes, "added", "renamed")


def plan_migration(connection: apsw.Connection, path: str, schema: StateSchema) -> list[str]:
    """What `migrate_database` would change in a database of players, in words; empty if nothing.

    Raises:
        StoreUnusable: as `migrate_database`.
    """
    plan = in_words(_fit(connection, path, schema), "add", "rename")
    tables = ("player_store", "player_mark")
    return plan + [
        f"add table {name}" for name in tables if not connection.table_exists("main", name)
    ]


def _fit(connection: apsw.Connection, path: str, schema: StateSchema) -> list[Change]:
    """What has to change until the table fits the schema.

    Raises:
        StoreUnusable: an existing column does not fit its field.
    """

    def longest(names: Sequence[str]) -> tuple[int | None, ...]:
        sizes = ", ".join(f"max(octet_length({quoted(name)}))" for name in names)
        found: tuple[int | None, ...]
        (found,) = connection.execute(f"SELECT {sizes} FROM player_state")
        return found

    held = [Held(name, each, column_of(each)) for name, each in read_columns(connection).items()]
    # SQLite takes names that differ in case for the same.
    return fit(path, schema, held, longest, ignores_case=True)
