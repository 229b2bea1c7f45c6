"""Players a store can never take, kept in a file where somebody may find them."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from playerstate.interfaces import Records
from playerstate.log import PrintableLogger
from playerstate.printable import printable_json
from playerstate.state.schema import StateSchema

MOST_BYTES = 64 * 2**20

_BEGINS = '{"session_id": '

_log = PrintableLogger()


class RefusedFile:
    """``<database>.refused.jsonl``: one JSON object a line, one line a player.

    Each has ``session_id``, the fields by name, ``updated_at`` in microseconds since the Unix
    epoch, the ``reason``, and ``refused_at`` in UTC.  A later entry of a player takes the place of
    the earlier.  At `MOST_BYTES` no more are taken; the log then has what they would have said.

    Args:
        database: path of the database.
        schema: of the players.
    """

    def __init__(self, database: str, schema: StateSchema) -> None:
        self._path = f"{database}.refused.jsonl"
        self._schema = schema
        # Whose entries there are; None until the file was looked at.
        self._known: set[int | None] | None = None

    def add(self, records: Records, reasons: Sequence[str]) -> None:
        """Keep these records, one a player, by one write and one sync.  Persist thread.

        Args:
            records: as the store sees them.
            reasons: why each was refused.

        Raises:
            OSError: the file cannot be written; it is as it was.
        """
        lines = {
            record[0]: self._line(record, reason)
            for record, reason in zip(records.tolist(), reasons, strict=True)
        }
        if self._known is None or not self._known.isdisjoint(lines):
            before = self._lines()
            self._known = set(map(_whose, before))
            others = [kept for kept in before if _whose(kept) not in lines]
            fitting = self._fitting(sum(map(len, others)), lines)
            if fitting or len(others) < len(before):
                self._replace([*others, *fitting.values()])
                self._known = {*map(_whose, others), *fitting}
        elif fitting := self._fitting(self._size(), lines):
            self._append("".join(fitting.values()))
            self._known.update(fitting)

    def _line(self, record: tuple[Any, ...], reason: str) -> str:
        session_id, *packed, updated_at = record
        names = (field.name for field in self._schema.fields)
        entry = {
            "session_id": session_id,
            **dict(zip(names, self._schema.decode(tuple(packed)), strict=True)),
            "updated_at": updated_at,
            "reason": reason,
            "refused_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return printable_json(entry) + "\n"

    def _fitting(self, taken: int, lines: dict[int, str]) -> dict[int, str]:
        """The lines for which there is room beside so many bytes; the log has the others."""
        fitting = {}
        for session_id, line in lines.items():
            if taken + len(line) <= MOST_BYTES:
                taken += len(line)
                fitting[session_id] = line
            else:
                _log.error("{path} is full; not in it: {line}", path=self._path, line=line.strip())
        return fitting

    def _replace(self, lines: list[str]) -> None:
        """Put a new file in the old one's place, so that a crash leaves the one or the other."""
        with open(f"{self._path}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._path}.new", self._path)

    def _append(self, lines: str) -> None:
        """Write more lines, all of them or nothing, whatever was done to the file meanwhile."""
        data = lines.encode()
        with open(self._path, "a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except FileNotFoundError:
            return 0

    def _lines(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                lines = list(file)
        except FileNotFoundError:
            return []
        last = lines[-1] if lines else ""
        if last.startswith(_BEGINS) and last[-1] != "\n" and _whose(last) is None:
            del lines[-1]  # cut short by a kill: the row was not settled, and comes again
        return [line.rstrip("\n") + "\n" for line in lines]


def _whose(line: str) -> int | None:
    """The session id of an entry; None for a line that is none, which somebody wrote by hand."""
    try:
        session_id = json.loads(line)["session_id"]
    except (ValueError, TypeError, LookupError):
        return None
    return session_id if isinstance(session_id, int) else None
