"""Recovery: the rows that a previous process left in its live file and the store does not have.

Reactor thread, at start.  The rows found are saved before any player can join;
`playerstate.live.file` says how they came to be left.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred

from playerstate.interfaces import IStateReader, Stored
from playerstate.live.leftover import Leftover
from playerstate.log import PrintableLogger
from playerstate.state.field import InvalidState
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema, folded

_log = PrintableLogger()

Left = dict[int, tuple[int, tuple[Any, ...]]]
"""By session id, the ``updated_at`` and the packed values that a player had in a leftover."""


def find_unsaved(
    leftover: Leftover | None, schema: StateSchema, reader: IStateReader
) -> npt.NDArray[np.void]:
    """Return and log the rows that are newer than the store's, as rows of today's state class."""
    if leftover is None:
        return np.zeros(0, RowLayout(schema.fields).dtype)
    rows, carried = as_rows(leftover, schema)
    records = rows.view(RowLayout(schema.fields).named)
    newer = np.ones(len(rows), np.bool_)
    unread: list[Exception] = []
    for index, session_id in enumerate(rows["session_id"].tolist()):
        try:
            found = reader.load(session_id)
        except Exception as error:  # the row is written then, and the store's guard compares
            unread.append(error)
            continue
        if isinstance(found, Deferred):  # likewise
            found.addErrback(lambda _: None)
            found.cancel()
            continue
        newer[index] = found is None or found.updated_at < rows["updated_at"][index]
        if found is not None and newer[index]:
            _keep_stored(records[index], found, carried[index], schema)
    if unread:
        _log.warn(
            "{players} players in the live file could not be compared with the store: {error};"
            " they are saved, unless the store finds that it has newer states",
            players=len(unread),
            error=unread[-1],
        )
    _log_found(rows[newer], len(rows))
    return rows[newer]


def as_rows(
    leftover: Leftover, schema: StateSchema
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
    """The leftover as rows of today's state class; fields are matched by name.

    A new field gets its default, unless `playerstate.state.schema.was` names one that the leftover
    has.  So does a field of another type, and a text that is too long
    today: the store's own migration has allowed that before, or refused the start.

    Returns:
        The rows; and which values come from the leftover, a 2-D array of one line a row and one
        column a field.
    """
    layout = RowLayout(schema.fields)
    rows = np.zeros(len(leftover.records), layout.dtype)
    records = rows.view(layout.named)
    records["session_id"] = leftover.records["session_id"]
    records["updated_at"] = leftover.records["updated_at"]
    carried = np.zeros((len(rows), len(schema.fields)), np.bool_)
    before = {folded(field.name): field for field in leftover.fields}
    for place, field in enumerate(schema.fields):
        names = map(folded, (field.name, *field.was))
        old = next((before[name] for name in names if name in before), None)
        records[field.name] = field.encode(field.default)
        if old is not None:
            values = leftover.records[old.name]
            fits = carried[:, place] = field.kind.carried(values, old.kind)
            records[field.name][fits] = values[fits]
    return rows, carried


def what_is_left(leftover: Leftover | None, schema: StateSchema) -> Left:
    """The players of the leftover, if the store does not keep all of their fields."""
    if leftover is None or len(schema.stored) == len(schema.fields):
        return {}
    rows, _ = as_rows(leftover, schema)
    dates = zip(rows["session_id"].tolist(), rows["updated_at"].tolist(), strict=True)
    values = map(schema.struct.unpack, rows["fields"].tolist())
    return {who: (date, packed) for (who, date), packed in zip(dates, values, strict=True)}


def _keep_stored(
    record: np.void, found: Stored, carried: npt.NDArray[np.bool_], schema: StateSchema
) -> None:
    """Take the stored value for each field that the leftover does not have."""
    stored = dict(zip(schema.stored, found.values, strict=True))
    for field, is_carried in zip(schema.fields, carried, strict=True):
        if field in stored and not is_carried:
            with suppress(InvalidState):  # a bad stored value must not prevent the start
                record[field.name] = field.encode(stored[field])


def _log_found(rows: npt.NDArray[np.void], players: int) -> None:
    if not len(rows):
        _log.warn(
            "the last run did not stop cleanly: the store has all of the {players} players in"
            " its live file",
            players=players,
        )
        return
    newest = int(rows["updated_at"].max())
    _log.warn(
        "the last run did not stop cleanly: of {players} players in its live file, {rows} are"
        " newer than in the store, the newest of {newest} UTC; they are saved before any player"
        " can join",
        players=players,
        rows=len(rows),
        newest=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(newest / 1e6)),
    )
