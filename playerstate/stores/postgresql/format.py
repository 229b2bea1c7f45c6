"""The format of a PostgreSQL database of players: how it is created, recognised and migrated.

Three tables, in the first schema of the ``search_path``::

    CREATE TABLE player_state (
        session_id bigint PRIMARY KEY,
        "x" double precision NOT NULL DEFAULT '350.0'::double precision,
        ...
        updated_at bigint NOT NULL
    )

``player_refused``, with the quarantined rows; and ``player_store``, of one row, with the version of
this format and the identity that ties live files to the database.  The identity is drawn once: all
servers of a database share it, and so does what is restored from a dump.

The columns follow the state class by the rules of `playerstate.stores.fitting`.  A migration is one
transaction under an advisory lock, so several servers may start at a time: one migrates, and the
others find it done.
"""

from __future__ import annotations

from collections.abc import Sequence

from playerstate.interfaces import StoreUnusable
from playerstate.state.schema import StateSchema
from playerstate.stores.fitting import Change, Held, fit, in_words
from playerstate.stores.postgresql.columns import (
    NAME_BYTES,
    SYSTEM_NAMES,
    column_of,
    definition,
    quoted,
)
from playerstate.stores.postgresql.locks import MIGRATION
from playerstate.stores.postgresql.session import Session
from playerstate.stores.postgresql.url import Place

FORMAT = 1
FILL = 50
"""Per cent of a page that new rows fill: the rest takes the next versions of its rows, so that an
update needs no new entry in the index (a heap-only tuple)."""

_STATE, _STORE, _REFUSED = "player_state", "player_store", "player_refused"

_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass('player_state') AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
_TABLES = {
    _STORE: "CREATE TABLE player_store (id integer PRIMARY KEY CHECK (id = 1),"
    " format integer NOT NULL, identity bytea NOT NULL)",
    _REFUSED: "CREATE TABLE player_refused (session_id bigint PRIMARY KEY, fields json NOT NULL,"
    " updated_at bigint NOT NULL, reason text NOT NULL,"
    " refused_at timestamptz NOT NULL DEFAULT now())",
}


def check_names(schema: StateSchema) -> None:
    """Check that PostgreSQL can have columns of these names.

    Raises:
        StoreUnusable: it cannot; the message names the field.
    """
    for field in schema.stored:
        if field.name in SYSTEM_NAMES:
            raise StoreUnusable(
                f"field {field.name}: every table of PostgreSQL has a column of this name; rename"
                " the field"
            )
        if len(field.name.encode()) > NAME_BYTES:
            raise StoreUnusable(
                f"field {field.name}: a name of PostgreSQL has {NAME_BYTES} bytes at most; rename"
                " the field"
            )


def read_identity(session: Session, place: Place) -> bytes:
    """The identity of the database; 16 zero bytes if it has none.

    Raises:
        StoreUnusable: as `check_ours`.
        psycopg.Error: the server could not read it.
    """
    if not check_ours(session, place):
        return bytes(16)
    found = session.execute("SELECT identity FROM player_store").fetchone()
    return bytes(16) if found is None else bytes(found[0])


def no_players(place: Place) -> StoreUnusable:
    """The error where there should be players."""
    return StoreUnusable(f"{place} holds no players: there is no table player_state")


def check_ours(session: Session, place: Place) -> bool:
    """Whether there are tables of players; False if there are none yet.

    Raises:
        StoreUnusable: they are another program's, or have a newer format than this one.
    """
    encoding, schema = _one(session, "SELECT current_setting('server_encoding'), current_schema()")
    if encoding != "UTF8":
        raise StoreUnusable(
            f"{place} has the encoding {encoding}, which does not hold every text; make a database"
            " by: createdb --encoding UTF8 --template template0 NAME"
        )
    if schema is None:
        raise StoreUnusable(f"{place}: no schema of the search_path exists; create one")
    tables = _tables(session)
    if _STORE not in tables:
        if tables:
            raise StoreUnusable(
                f"{place} has a table {min(tables)} of another program; it was left as it is: name"
                " another database, or another schema by ?options=-csearch_path=NAME"
            )
        return False
    found = session.execute("SELECT format FROM player_store").fetchone()
    if found is not None and found[0] > FORMAT:
        raise StoreUnusable(
            f"{place} has format {found[0]}, this playerstate knows formats up to {FORMAT}; it was"
            " left as it is: install the newer playerstate again"
        )
    return _STATE in tables


def _tables(session: Session) -> set[str]:
    names = (_STATE, _STORE, _REFUSED)
    found = session.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL",
        (list(names),),
    )
    return {name for (name,) in found}


def _one(session: Session, sql: str) -> tuple[object, ...]:
    found = session.execute(sql).fetchone()
    assert found is not None
    return found


def read_columns(session: Session) -> dict[str, str]:
    """The types of the table's columns, by name in its order; empty without a table."""
    return dict(session.execute(_COLUMNS).fetchall())


def migrate_database(
    session: Session, place: Place, schema: StateSchema, identity: bytes
) -> tuple[bytes, list[str]]:
    """Create or migrate the tables, and give them an identity if they have none; or refuse.

    Returns:
        The identity that they have now; and what was done to the columns, for the log.

    Raises:
        StoreUnusable: they are not ours, have a newer format, or do not fit the schema; nothing was
            changed.
        psycopg.Error: the server could not do it; likewise.
    """
    if check_ours(session, place) and not plan_migration(session, place, schema):
        return read_identity(session, place), []
    with session.transaction():
        session.execute(f"SELECT pg_advisory_xact_lock({MIGRATION})")
        check_ours(session, place)  # now that no other program changes it
        done = _migrate(session, place, schema)
        for name, sql in _TABLES.items():
            if name not in _tables(session):
                session.execute(sql)
        session.execute(
            "INSERT INTO player_store VALUES (1, %s, %s) ON CONFLICT (id)"
            " DO UPDATE SET format = excluded.format",
            (FORMAT, identity),
        )
        return read_identity(session, place), done


def _migrate(session: Session, place: Place, schema: StateSchema) -> list[str]:
    if not read_columns(session):
        columns = ", ".join(definition(field) for field in schema.stored)
        session.execute(
            f"CREATE TABLE player_state (session_id bigint PRIMARY KEY, {columns},"
            f" updated_at bigint NOT NULL) WITH (fillfactor = {FILL})"
        )
        return []
    changes = _fit(session, place, schema)
    for change in changes:
        field = change.field
        if change.before is None:
            session.execute(f"ALTER TABLE player_state ADD COLUMN {definition(field)}")
        else:
            before, after = quoted(change.before), quoted(field.name)
            session.execute(f"ALTER TABLE player_state RENAME COLUMN {before} TO {after}")
    return in_words(changes, "added", "renamed")


def plan_migration(session: Session, place: Place, schema: StateSchema) -> list[str]:
    """What `migrate_database` would change in tables of players, in words; empty if nothing.

    Raises:
        StoreUnusable: as `migrate_database`.
    """
    plan = in_words(_fit(session, place, schema), "add", "rename")
    missing = _TABLES.keys() - _tables(session)
    return plan + [f"add table {name}" for name in _TABLES if name in missing]


def _fit(session: Session, place: Place, schema: StateSchema) -> list[Change]:
    """What has to change until the table fits the schema.

    Raises:
        StoreUnusable: an existing column does not fit its field.
    """

    def longest(names: Sequence[str]) -> Sequence[int | None]:
        sizes = ", ".join(f"max(octet_length({quoted(name)}))" for name in names)
        found = session.execute(f"SELECT {sizes} FROM player_state").fetchone()
        assert found is not None
        return found

    held = [Held(name, each, column_of(each)) for name, each in read_columns(session).items()]
    return fit(str(place), schema, held, longest)
