"""How SQLite keeps what a kind of field wants kept: the type of its column, and the way in and out.

The tables are STRICT, so a column holds what its type says and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from playerstate.state.kind import Column
from playerstate.state.kinds import KINDS
from playerstate.state.schema import Field


@attrs.frozen
class ColumnType:
    """One type of column.

    Attributes:
        declared: its name in SQLite.
        check: a constraint on it, of which ``{name}`` is the column's; empty for none.
        literal: a plain value as SQL writes it.
        bound: how a record's value is bound to a statement.
        raw: how it is selected where it may hold bytes that are no text, of which ``{name}`` is the
            column's.
        restored: what makes a plain value of what was selected; None where it is one.
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
    # STRICT tables know INT and INTEGER for the same thing, which tells a bool from an int.
    Column.BOOLEAN: ColumnType(
        "INT",
        check=" CHECK ({name} IN (0, 1))",
        literal=lambda value: repr(int(value)),
        restored=bool,
    ),
    # A record has a text as its UTF-8 bytes.
    Column.TEXT: ColumnType(
        "TEXT", literal=_quoted_text, bound="CAST(? AS TEXT)", raw="CAST({name} AS BLOB)"
    ),
}
_BY_DECLARED = {each.declared: each for each in _TYPES.values()}
_HELD = {_TYPES[kind.column].declared: kind.name for kind in KINDS}


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def type_of(field: Field) -> ColumnType:
    """The type of a field's column."""
    return _TYPES[field.kind.column]


def held_in(declared: str) -> str:
    """What a column of this declared type holds, in a word: a kind's name, if it is one of ours."""
    return _HELD.get(declared, declared)


def definition(field: Field) -> str:
    """A field's column, as CREATE TABLE and ADD COLUMN write it."""
    name, column = quoted(field.name), type_of(field)
    default, check = column.literal(field.default), column.check.format(name=name)
    return f"{name} {column.declared} NOT NULL DEFAULT {default}{check}"


def raw(name: str, declared: str) -> str:
    """How a column of this declared type is selected where it may hold bytes that are no text."""
    column = _BY_DECLARED.get(declared)
    return (column.raw if column else "{name}").format(name=quoted(name))
