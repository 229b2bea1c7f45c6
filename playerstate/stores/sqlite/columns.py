"""How SQLite keeps each kind of field: the column's type, and how values are bound and restored.

The tables are STRICT, so a column holds values of its type only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from playerstate.state.field import Field
from playerstate.state.kind import Column


@attrs.frozen
class ColumnType:
    """One type of column.

    Attributes:
        declared: its name in SQLite.
        check: a constraint on it, in which ``{name}`` stands for the column's name; may be empty.
        literal: converts a plain value to an SQL literal.
        bound: the SQL expression to which a record's value is bound.
        raw: the SQL expression that selects it as bytes if it may hold bytes that are not UTF-8, in
            which ``{name}`` stands for the column's name.
        restored: converts a selected value to a plain value; None if it is one already.
    """

    declared: str
    check: str = ""
    literal: Callable[[Any], str] = repr
    bound: str = "?"
    raw: str = "{name}"
    restored: Callable[[Any], Any] | None = None


def _quoted_text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_TYPES: Mapping[Column, ColumnType] = {
    Column.REAL: ColumnType("REAL"),
    Column.INTEGER: ColumnType("INTEGER"),
    # In STRICT tables INT and INTEGER are the same, so INT can mark a bool.
    Column.BOOLEAN: ColumnType(
        "INT",
        check=" CHECK ({name} IN (0, 1))",
        literal=lambda value: repr(int(value)),
        restored=bool,
    ),
    # A record holds a text as its UTF-8 bytes.
    Column.TEXT: ColumnType(
        "TEXT", literal=_quoted_text, bound="CAST(? AS TEXT)", raw="CAST({name} AS BLOB)"
    ),
}
_BY_DECLARED = {each.declared: each for each in _TYPES.values()}
_COLUMNS = {each.declared: column for column, each in _TYPES.items()}


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def type_of(field: Field) -> ColumnType:
    """The type of a field's column."""
    return _TYPES[field.kind.column]


def column_of(declared: str) -> Column | None:
    """The type of column that has this name in SQLite; None if it is none of ours."""
    return _COLUMNS.get(declared)


def definition(field: Field) -> str:
    """The definition of a field's column, for CREATE TABLE and ADD COLUMN."""
    name, column = quoted(field.name), type_of(field)
    default, check = column.literal(field.default), column.check.format(name=name)
    return f"{name} {column.declared} NOT NULL DEFAULT {default}{check}"


def raw(name: str, declared: str) -> str:
    """The expression that selects a column of this type, even if its bytes are not UTF-8."""
    column = _BY_DECLARED.get(declared)
    return (column.raw if column else "{name}").format(name=quoted(name))


def restored_from(declared: str) -> Callable[[Any], Any] | None:
    """What makes a plain value of one that was selected as `raw`; None if it is one already."""
    column = _BY_DECLARED.get(declared)
    if column is None:
        return None
    if column is _TYPES[Column.TEXT]:
        return _readable
    return column.restored


def _readable(text: bytes) -> str:
    return text.decode(errors="backslashreplace")
