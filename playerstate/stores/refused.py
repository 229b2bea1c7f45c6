"""Players a store can never take, kept in a file where somebody may find them."""

from __future__ import annotations

import json
import os
import time

from twisted.logger import Logger

from playerstate.interfaces import Records
from playerstate.schema import StateSchema

MOST_BYTES = 64 * 2**20

_log = Logger()


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

    def add(self, record: Records, reason: str) -> None:
        """Keep this one record.  Persist thread.

        Raises:
            OSError: the file cannot be written.
        """
        session_id, *packed, updated_at = record[0].tolist()
        names = (field.name for field in self._schema.fields)
        entry = {
            "session_id": session_id,
            **dict(zip(names, self._schema.decode(tuple(packed)), strict=True)),
            "updated_at": updated_at,
            "reason": reason,
            "refused_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        line = json.dumps(entry) + "\n"
        others = [kept for kept in self._lines() if _whose(kept) != session_id]
        if sum(map(len, others)) + len(line) > MOST_BYTES:
            _log.error("{path} is full; not in it: {line}", path=self._path, line=line.strip())
            return
        # A new file takes the old one's place, so that a crash leaves the one or the other.
        with open(f"{self._path}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines([*others, line])
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self._path}.new", self._path)

    def _lines(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                return [line.rstrip("\n") + "\n" for line in file]
        except FileNotFoundError:
            return []


def _whose(line: str) -> object:
    """The session id of an entry; None for a line that is none, which somebody wrote by hand."""
    try:
        return json.loads(line)["session_id"]
    except (ValueError, TypeError, LookupError):
        return None
