"""How PostgreSQL keeps each kind of field, and columns of records as its binary arrays.

An array is a header of five 32-bit numbers, big-endian: the dimensions, whether there are nulls,
the oid of the elements' type, their number, and the index of the first; then each element as its
length and its bytes (PostgreSQL's ``array_send``, and ``float8send`` and so on of the elements).
numpy writes them in bulk, from the columns of the packed rows.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.state.field import Field
from playerstate.state.kind import Column

_HEADER = struct.Struct(">iiIii")
_LENGTH = ">i4"


@attrs.frozen
class ColumnType:
    """One type of column.

    Attributes:
        declared: its name, as ``format_type`` gives it.
        oid: of the type.
        array_oid: of the type of its arrays.
        element: the numpy type of an element in binary; empty for one of varying length.
    """

    declared: str
    oid: int
    array_oid: int
    element: str = ""


FLOAT8 = ColumnType("double precision", 701, 1022, ">f8")
INT8 = ColumnType("bigint", 20, 1016, ">i8")
BOOL = ColumnType("boolean", 16, 1000, "u1")
TEXT = ColumnType("text", 25, 1009)

_TYPES: Mapping[Column, ColumnType] = {
    Column.REAL: FLOAT8,
    Column.INTEGER: INT8,
    Column.BOOLEAN: BOOL,
    Column.TEXT: TEXT,
}
_COLUMNS = {each.declared: column for column, each in _TYPES.items()}

NAME_BYTES = 63
"""The longest name of a column; PostgreSQL cuts what is longer."""
SYSTEM_NAMES = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
"""Columns that every table of PostgreSQL has."""


def type_of(field: Field) -> ColumnType:
    """The type of a field's column."""
    return _TYPES[field.kind.column]


def column_of(declared: str) -> Column | None:
    """The type of column that has this name in PostgreSQL; None if it is none of ours."""
    return _COLUMNS.get(declared)


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(field: Field) -> str:
    """The default of a field as SQL, whatever the server's settings of strings are."""
    value = field.default
    if field.kind.column is Column.BOOLEAN:
        return "true" if value else "false"
    if field.kind.column is not Column.TEXT:
        return f"'{value!r}'::{type_of(field).declared}"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"E'{escaped}'"


def definition(field: Field) -> str:
    """The definition of a field's column, for CREATE TABLE and ADD COLUMN."""
    declared = type_of(field).declared
    return f"{quoted(field.name)} {declared} NOT NULL DEFAULT {literal(field)}"


def to_array(column: npt.NDArray[Any], kept: ColumnType) -> bytes | bytearray:
    """A column of records as a binary array; it has one value at least.

    Args:
        column: of any stride.
        kept: the type of its elements.
    """
    header = _HEADER.pack(1, 0, kept.oid, len(column), 1)
    if not kept.element:
        return header + _texts(column)
    cell = np.dtype([("bytes", _LENGTH), ("value", kept.element)])
    made = bytearray(_HEADER.size + len(column) * cell.itemsize)
    made[: _HEADER.size] = header
    cells = np.frombuffer(made, cell, offset=_HEADER.size)
    cells["bytes"] = cell["value"].itemsize
    cells["value"] = column
    return made


def _texts(column: npt.NDArray[np.bytes_]) -> bytes:
    """The elements of an array of texts, without the zeros that pad them."""
    sizes = np.strings.str_len(column)
    cell = np.dtype([("bytes", _LENGTH), ("value", column.dtype)])
    cells = np.empty(len(column), cell)
    cells["bytes"] = sizes
    cells["value"] = column
    # All bytes of all cells, of which those behind a text's end are left out.
    all_bytes = cells.view(np.uint8).reshape(len(column), cell.itemsize)
    head = cell["bytes"].itemsize
    used = np.arange(cell.itemsize) < (sizes + head)[:, np.newaxis]
    return all_bytes[used].tobytes()


def from_int8_array(data: bytes) -> npt.NDArray[np.int64]:
    """The values of a binary array of 64-bit integers without nulls."""
    cell = np.dtype([("bytes", _LENGTH), ("value", INT8.element)])
    values: npt.NDArray[np.int64] = np.frombuffer(data, cell, offset=_HEADER.size)["value"]
    return values.astype(np.int64)
