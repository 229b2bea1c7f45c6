"""What a process before left in its journal, and the store does not have.

Reactor thread, at start.  The rows found are saved before anybody joins; `playerstate.journal` says
how they were left.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from twisted.internet.defer import Deferred

from playerstate.interfaces import IStateReader, Stored
from playerstate.journal import Remains, as_rows
from playerstate.layout import RowLayout
from playerstate.log import PrintableLogger
from playerstate.schema import StateSchema

_log = PrintableLogger()


def find_unsaved(
    remains: Remains | None, schema: StateSchema, reader: IStateReader
) -> npt.NDArray[np.void]:
    """The rows that are newer than the store's, of today's state class; the log tells of them."""
    rows = as_rows(remains, schema)
    if remains is None:
        return rows
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
            _keep_unknown(rows[index : index + 1], found, remains, schema)
    _tell(rows[newer], len(rows))
    return rows[newer]


def _keep_unknown(
    row: npt.NDArray[np.void], found: Stored, remains: Remains, schema: StateSchema
) -> None:
    """Leave fields as they are stored that the run which left this row did not know."""
    known = {field.name for field in remains.fields}
    record = row.view(RowLayout(schema.fields).record)
    for field, value in zip(schema.fields, found.values, strict=True):
        if field.name not in known:
            record[field.name] = field.encode(value)


def _tell(rows: npt.NDArray[np.void], players: int) -> None:
    if not len(rows):
        _log.warn(
            "the last run did not stop cleanly: the store has all of the {players} players in"
            " its journal",
            players=players,
        )
        return
    newest = int(rows["updated_at"].max())
    _log.warn(
        "the last run did not stop cleanly: of {players} players in its journal, {rows} are"
        " newer than in the store, the newest of {newest} UTC; they are saved before anybody"
        " joins",
        players=players,
        rows=len(rows),
        newest=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(newest / 1e6)),
    )
