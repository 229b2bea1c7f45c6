"""What a process before left in its live file, and the store does not have.

Reactor thread, at start.  The rows found are saved before anybody joins; `playerstate.live.file`
says how they were left.
"""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred

from playerstate.interfaces import IStateReader, Stored
from playerstate.live.file import Leftover
from playerstate.log import PrintableLogger
from playerstate.state.layout import RowLayout
from playerstate.state.schema import InvalidState, StateSchema, folded

_log = PrintableLogger()


def find_unsaved(
    leftover: Leftover | None, schema: StateSchema, reader: IStateReader
) -> npt.NDArray[np.void]:
    """The rows that are newer than the store's, of today's state class; the log tells of them."""
    if leftover is None:
        return np.zeros(0, RowLayout(schema.fields).dtype)
    rows, carried = as_rows(leftover, schema)
    records = rows.view(RowLayout(schema.fields).record)
    newer = np.ones(len(rows), np.bool_)
    for index, session_id in enumerate(rows["session_id"].tolist()):
        try:
            found = reader.load(session_id)
        except Exception:  # then it is written, and the writer's guard compares
            continue
        if isinstance(found, Deferred):  # likewise
            found.addErrback(lambda _: None)
            found.cancel()
            continue
        newer[index] = found is None or found.updated_at < rows["updated_at"][index]
        if found is not None and newer[index]:
            _keep_stored(records[index], found, carried[index], schema)
    _tell(rows[newer], len(rows))
    return rows[newer]


def as_rows(
    leftover: Leftover, schema: StateSchema
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
    """What remains, as rows of today's state class; fields are found by name.

    A field that is new gets its default.  So does one of another type, and a text that has grown
    too long: the store's own migration has refused or allowed that before.

    Returns:
        The rows; and which values are what was left, one line a row and one column a field.
    """
    layout = RowLayout(schema.fields)
    rows = np.zeros(len(leftover.records), layout.dtype)
    records = rows.view(layout.record)
    records["session_id"] = leftover.records["session_id"]
    records["updated_at"] = leftover.records["updated_at"]
    carried = np.zeros((len(rows), len(schema.fields)), np.bool_)
    before = {folded(field.name): field for field in leftover.fields}
    for place, field in enumerate(schema.fields):
        old = before.get(folded(field.name))
        records[field.name] = field.encode(field.default)
        if old is not None:
            values = leftover.records[old.name]
            fits = carried[:, place] = field.kind.carried(values, old.kind)
            records[field.name][fits] = values[fits]
    return rows, carried


def _keep_stored(
    record: np.void, found: Stored, carried: npt.NDArray[np.bool_], schema: StateSchema
) -> None:
    """Leave fields as they are stored of which the run that left this row says nothing."""
    for place, (field, value) in enumerate(zip(schema.fields, found.values, strict=True)):
        if not carried[place]:
            with suppress(InvalidState):  # what nobody can load is not to keep the service down
                record[field.name] = field.encode(value)


def _tell(rows: npt.NDArray[np.void], players: int) -> None:
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
        " newer than in the store, the newest of {newest} UTC; they are saved before anybody"
        " joins",
        players=players,
        rows=len(rows),
        newest=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(newest / 1e6)),
    )
