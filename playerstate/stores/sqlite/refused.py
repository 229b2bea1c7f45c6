"""Keeps quarantined rows in a file, where an operator finds them."""

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


class RefusedLines:
    """The lines of the file of quarantined rows, without the state class.

    Args:
        database: path of the database.
    """

    def __init__(self, database: str) -> None:
        self._path = f"{database}.refused.jsonl"

    def count(self) -> int:
        """How many players' rows are in the file."""
        return sum(_whose(line) is not None for line in self._lines())

    def remove(self, session_id: int) -> int:
        """Remove every entry of this player.  Persist thread, or any where no store is open.

        Returns:
            How many entries there were.

        Raises:
            OSError: the file cannot be written; it is unchanged.
        """
        before = self._lines()
        others = [kept for kept in before if _whose(kept) != session_id]
        if len(others) < len(before):
            self._replace(others)
        return len(before) - len(others)

    def _replace(self, lines: list[str]) -> None:
        """Replace the file atomically, so that a crash leaves the old or the new one."""
        with open(f"{self._path}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._path}.new", self._path)

    def _lines(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                lines = list(file)
        except FileNotFoundError:
            return []
        last = lines[-1] if lines else ""
        if last.startswith(_BEGINS) and last[-1] != "\n" and _whose(last) is None:
            del lines[-1]  # truncated by a kill before the row was dropped: it is added again
        return [line.rstrip("\n") + "\n" for line in lines]


class RefusedFile(RefusedLines):
    """``<database>.refused.jsonl``: one JSON object per line, one line per player.

    Each has ``session_id``, the fields by name, ``updated_at`` in microseconds since the Unix
    epoch, the ``reason``, and ``refused_at`` in UTC.  A player's later entry replaces the earlier
    one.  A line that would make the file larger than `MOST_BYTES` is logged instead.

    Args:
        database: path of the database.
        schema: of the players.
    """

    def __init__(self, database: str, schema: StateSchema) -> None:
        super().__init__(database)
        self._schema = schema
        # Session ids with an entry; None until the file is first read.
        self._known: set[int | None] | None = None

    def add(self, records: Records, reasons: Sequence[str]) -> None:
        """Add these records, one per player, by one write and one sync.  Persist thread.

        Args:
            records: of the refused players.
            reasons: why the store refused each of them.

        Raises:
            OSError: the file cannot be written; it is unchanged.
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

    def remove(self, session_id: int) -> int:
        """Remove every entry of this player.  Persist thread, or any where no store is open.

        Returns:
            How many entries there were.

        Raises:
            OSError: the file cannot be written; it is unchanged.
        """
        before = self._lines()
        others = [kept for kept in before if _whose(kept) != session_id]
        if len(others) < len(before):
            self._replace(others)
        return len(before) - len(others)

    def _line(self, record: tuple[Any, ...], reason: str) -> str:
        session_id, *packed, updated_at = record
        names = (field.name for field in self._schema.stored)
        entry = {
            "session_id": session_id,
            **dict(zip(names, self._schema.stored_values(tuple(packed)), strict=True)),
            "updated_at": updated_at,
            "reason": reason,
            "refused_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return printable_json(entry) + "\n"

    def _fitting(self, taken: int, lines: dict[int, str]) -> dict[int, str]:
        """The lines that fit into the file beside `taken` bytes; the others are logged."""
        fitting = {}
        for session_id, line in lines.items():
            if taken + len(line) <= MOST_BYTES:
                taken += len(line)
                fitting[session_id] = line
            else:
                # Each of them: it is the only copy of the row.
                _log.error(
                    "{path} is full; this row is not in it: {line}",
                    path=self._path,
                    line=line.strip(),
                )
        return fitting

    def _append(self, lines: str) -> None:
        """Append all lines or none, even if the file was edited meanwhile."""
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


def _whose(line: str) -> int | None:
    """The session id of an entry; None for a line that is no entry, such as one added by hand."""
    try:
        session_id = json.loads(line)["session_id"]
    except (ValueError, TypeError, LookupError):
        return None
    return session_id if isinstance(session_id, int) else None
