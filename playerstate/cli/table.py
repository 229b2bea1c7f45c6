"""Tables for a terminal of some width, or in full where the output is no terminal.

On a terminal no line wraps: long texts are truncated, and columns that do not fit are left out and
named.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from rich.cells import cell_len, set_cell_size

GAP = "  "
LONGEST_TEXT = 24
"""The most terminal columns that a text takes in a table."""


@attrs.frozen
class Table:
    """A table laid out.

    Attributes:
        header: its first line.
        lines: one a row.
        left_out: the names of the columns that do not fit.
    """

    header: str
    lines: list[str]
    left_out: list[str]


def lay_out(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    is_number: Sequence[bool],
    needed: Sequence[int],
    width: int | None,
) -> Table:
    """Lay out rows.

    Args:
        names: of the columns.
        rows: of texts.
        is_number: which columns hold numbers: these are aligned right, and never truncated.
        needed: the columns, by index, that are never left out.
        width: of the terminal, in columns; None for all in full.
    """
    widths = [
        max(map(cell_len, column)) for column in zip(names, *rows, strict=True)
    ]  # fmt: skip
    if width is not None:
        widths = [
            each if numeric else min(each, LONGEST_TEXT)
            for each, numeric in zip(widths, is_number, strict=True)
        ]
    shown = _fitting(widths, needed, width)

    def line(cells: Sequence[str]) -> str:
        laid = (_cell(cells[i], widths[i], is_number[i]) for i in shown)
        return GAP.join(laid).rstrip()

    left_out = [name for i, name in enumerate(names) if i not in shown]
    return Table(line(names), [line(row) for row in rows], left_out)


def list_out(names: Sequence[str], cells: Sequence[str]) -> list[str]:
    """One row as a list, one line a column, in full."""
    width = max(map(cell_len, names))
    return [
        f"{set_cell_size(name, width)}{GAP}{cell}".rstrip()
        for name, cell in zip(names, cells, strict=True)
    ]


def _fitting(widths: Sequence[int], needed: Sequence[int], width: int | None) -> list[int]:
    """The columns shown, in order: the needed ones, and as many of the others as fit."""
    if width is None:
        return list(range(len(widths)))
    taken: list[int] = []
    used = -len(GAP)
    others = (i for i in range(len(widths)) if i not in needed)
    for i in (*needed, *others):
        if i not in needed and used + len(GAP) + widths[i] > width:
            break
        taken.append(i)
        used += len(GAP) + widths[i]
    return sorted(taken)


def _cell(text: str, width: int, is_number: bool) -> str:
    size = cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…"
    padding = " " * (width - size)
    return padding + text if is_number else text + padding
