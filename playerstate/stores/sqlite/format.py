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

import apsw

from playerstate.interfaces import StoreUnusable
from playerstate.state.field import Field
from playerstate.state.kind import Column
from playerstate.state.schema import StateSchema, folded
from playerstate.stores.sqlite.columns import definition, held_in, quoted, type_of
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
    _missing(connection, path, schema)  # refuse it before the mode is changed
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
    missing = _missing(connection, path, schema)
    for field, before in missing:
        if before is None:
            connection.execute(f"ALTER TABLE player_state ADD COLUMN {definition(field)}")
        else:
            connection.execute(
                f"ALTER TABLE player_state RENAME COLUMN {quoted(before)} TO {quoted(field.name)}"
            )
    return _in_words(missing, "added", "renamed")


def plan_migration(connection: apsw.Connection, path: str, schema: StateSchema) -> list[str]:
    """What `migrate_database` would change in a database of players, in words; empty if nothing.

    Raises:
        StoreUnusable: as `migrate_database`.
    """
    plan = _in_words(_missing(connection, path, schema), "add", "rename")
    tables = ("player_store", "player_mark")
    return plan + [
        f"add table {name}" for name in tables if not connection.table_exists("main", name)
    ]


def _in_words(missing: list[tuple[Field, str | None]], add: str, rename: str) -> list[str]:
    added = [field.name for field, before in missing if before is None]
    renamed = [f"{before} to {field.name}" for field, before in missing if before is not None]
    return [
        f"{verb} columns {', '.join(names)}"
        for verb, names in ((add, added), (rename, renamed))
        if names
    ]


def _missing(
    connection: apsw.Connection, path: str, schema: StateSchema
) -> list[tuple[Field, str | None]]:
    """The fields that have no column yet, each with the name of its old one, if it has one.

    Raises:
        StoreUnusable: an existing column does not fit its field.
    """
    columns = {folded(name): declared for name, declared in read_columns(connection).items()}
    if not columns:
        return []
    missing = []
    for field in schema.stored:
        names = (field.name, *field.was)
        name = next((name for name in names if folded(name) in columns), None)
        if name != field.name:
            missing.append((field, name))
        if name is None:
            continue
        held = columns[folded(name)]
        if held != type_of(field).declared:
            raise StoreUnusable(
                f"{path}: field {field.name} is {field.kind.name} now, but its column holds"
                f" {held_in(held)}; it was left as it is: give the field a new name (the"
                " old column stays), or convert the column first"
            )
        elif field.kind.column is Column.TEXT:  # SQLite does not bound its length
            _check_text_fits(connection, path, field, name)
    return missing


def _check_text_fits(connection: apsw.Connection, path: str, field: Field, name: str) -> None:
    longest = connection.execute(f"SELECT max(octet_length({quoted(name)})) FROM player_state").get
    if longest is not None and longest > field.kind.size:
        raise StoreUnusable(
            f"{path}: field {field.name} is {field.kind.canonical} now, but its column holds a text"
            f" of {longest} bytes; it was left as it is: make the field text({longest}), or shorten"
            " what is stored"
        )
