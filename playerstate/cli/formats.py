"""Players as text: CSV, whose first line names the columns, and JSON Lines, one object a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, BinaryIO, TextIO

import attrs
import click

from playerstate.printable import printable_json

FORMATS = ("csv", "jsonl")
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
LONGEST_LINE = 2**20
"""Bytes; no player takes more, and a longer line is of another kind of file."""


@attrs.frozen
class Line:
    """One player of a file, unchecked.

    Attributes:
        number: of the line, from 1.
        cells: by the name of the column; of CSV, the texts.
        why: what is wrong with the line, if it could not be read; empty otherwise.
    """

    number: int
    cells: dict[str, Any]
    why: str = ""


def format_of(path: str, given: str | None) -> str:
    """The format of a file: the given one, else that of its suffix.

    Raises:
        click.UsageError: neither says.
    """
    found = given or _SUFFIXES.get(PurePath(path).suffix.lower())
    if found is None:
        raise click.UsageError(f"{path}: give --format {' or '.join(FORMATS)}")
    return found


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows below their names.  Floats are exact; of bytes, the digits in hex."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(list(map(_cell, row)) for row in rows)


def write_jsonl(file: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write each row as an object.  Floats are exact; of bytes, the digits in hex."""
    for row in rows:
        plain = map(_plain, row)
        file.write(printable_json(dict(zip(columns, plain, strict=True))) + "\n")


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _plain(value)


def read_csv(file: BinaryIO) -> Iterator[Line]:
    """The players of a CSV file; the first that cannot be read as CSV is the last."""
    reader = csv.reader(_texts(file), strict=True)
    columns: list[str] = []
    try:
        columns = next(reader, [])
        if why := _wrong_columns(columns):
            yield Line(1, {}, why)
            return
        for row in reader:
            if len(row) == len(columns):
                yield Line(reader.line_num, dict(zip(columns, row, strict=True)))
            elif row:
                why = f"{len(row)} cells: must be {len(columns)}, as in the first line"
                yield Line(reader.line_num, {}, why)
    except csv.Error as error:
        yield Line(max(reader.line_num, 1), {}, f"it is not CSV: {error}")


def _texts(file: BinaryIO) -> Iterator[str]:
    """The lines of a file, up to the first that is too long.

    A byte that is not UTF-8 becomes a lone surrogate, which no field accepts.
    """
    encoding = "utf-8-sig"
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"a line has more than {LONGEST_LINE} bytes")
        yield line.decode(encoding, "surrogateescape")
        encoding = "utf-8"


def _wrong_columns(columns: Sequence[str]) -> str:
    if "session_id" not in columns:
        return "the first line must name the columns, and there is no session_id"
    twice = next((name for name in columns if columns.count(name) > 1), None)
    return "" if twice is None else f"column {twice!r} is named twice"


def read_jsonl(file: BinaryIO) -> Iterator[Line]:
    """The players of a file of JSON Lines; the first line that is too long is the last."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            yield Line(number, {}, f"it has more than {LONGEST_LINE} bytes")
            return
        if not line.strip():
            continue
        try:
            cells = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            yield Line(number, {}, f"it is not JSON: {error}")
            continue
        if isinstance(cells, dict):
            yield Line(number, cells)
        else:
            yield Line(number, {}, "it is not a JSON object")


WRITERS: dict[str, Callable[[TextIO, Sequence[str], Iterable[Sequence[Any]]], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
}
READERS: dict[str, Callable[[BinaryIO], Iterator[Line]]] = {"csv": read_csv, "jsonl": read_jsonl}
