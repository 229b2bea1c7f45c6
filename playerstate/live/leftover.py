"""What a process that ended left in its live file: the format of the file, and reading it.

A file begins with a header of whole pages:

====== ===== ==================================================================
offset type  what
====== ===== ==================================================================
0      8     ``PSLIVE`` and two zero bytes
8      u32   format of the file, 1
12     u32   bytes of a half, see `playerstate.state.layout`
16     u64   slots
24     u32   bytes of the header
28     u32   1 after a clean stop: everything is in the store
32     16    the store's identity
48     u32   bytes of the schema's text, which follows, in UTF-8
-16    u64   how often the file was checked, plus a random number: exposes a copy
-8     u64   how many slots, from the first, may have been written; 0 for all
====== ===== ==================================================================

The halves of slot 0, 1, ... follow the header.  The file has its full size from the start, and is
never extended or truncated while mapped.  Its slots are allocated in order, each before its first
use, because a write to a mapped hole on a full disk kills the process; the rest of the file is a
hole that is never read.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

import attrs
import numpy as np
import numpy.typing as npt

from playerstate.state.field import Field
from playerstate.state.kinds import of_canonical
from playerstate.state.layout import RowLayout
from playerstate.state.schema import MAX_FIELDS_BYTES

PAGE = 4096
FORMAT = 1
SLOTS_AT_ONCE = 65_536
"""Slots of a leftover that are read at a time."""
MAGIC = b"PSLIVE\0\0"
HEADER = struct.Struct("<8sIIQII16sI")
CLEAN = struct.Struct("<I")
CLEAN_AT = 28
TAIL = struct.Struct("<QQ")


@attrs.frozen(eq=False)
class Leftover:
    """What a process that ended left in its live file.

    Attributes:
        identity: of the store whose live file it was.
        clean: whether the store already had everything in it.
        records: one record for each player who was online or leaving and had changed, sorted by
            session id; of `RowLayout.record` of `fields`.
        fields: of the state class at that time.
    """

    identity: bytes
    clean: bool
    fields: tuple[Field, ...]
    records: npt.NDArray[np.void]

    @property
    def unsaved(self) -> int:
        """How many players there are whose newest state may be unsaved."""
        return 0 if self.clean else len(self.records)


@attrs.frozen(eq=False)
class Header:
    """The header of a live file.

    Attributes:
        identity, clean, fields: see `Leftover`.
        layout: of its rows.
        slots: how many, from the first, may have been written.
        rows_at: where in the file the rows begin.
    """

    identity: bytes
    clean: bool
    fields: tuple[Field, ...]
    layout: RowLayout
    slots: int
    rows_at: int


class NotALiveFile(ValueError):
    """The file is not a live file, or a damaged one; the message says why."""


def read_leftover(path: str | int) -> Leftover:
    """Read the live file of a process that has ended.

    Args:
        path: its name; or an open file, which stays open: a name may pass to another file.

    Raises:
        NotALiveFile: the file is not a live file, or is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb", closefd=isinstance(path, str)) as file:
        header = read_header(file)
        layout, slots = header.layout, header.slots
        file.seek(header.rows_at)
        # As blocks of bytes: numpy drops the padding where it joins structured rows.
        found = [np.zeros(0, f"V{layout.size}")]
        room = np.empty(2 * min(slots, SLOTS_AT_ONCE), layout.dtype)
        # Holes are read too: a file system may report rows that were only mapped as a hole.
        for first in range(0, slots, SLOTS_AT_ONCE):
            count = min(SLOTS_AT_ONCE, slots - first)
            halves = room[: 2 * count]
            if file.readinto(halves.view(np.uint8).data) != halves.nbytes:
                raise NotALiveFile("it was cut while it was being read")
            if not halves["version"].any():
                continue
            rows = _newest_whole(halves)
            online = (rows["session_id"] > 0) & (rows["updated_at"] > 0)
            found.append(rows.view(f"V{layout.size}")[online])
    changed = np.concatenate(found).view(layout.dtype)
    # One row a player: after a power cut, a slot that a player left may still hold an old row.
    ordered = changed[np.lexsort((changed["updated_at"], changed["session_id"]))]
    last = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered["session_id"][1:], ordered["session_id"][:-1], out=last[:-1])
    ordered = ordered[last]
    return Leftover(header.identity, header.clean, header.fields, ordered.view(layout.record))


def read_header(file: BinaryIO) -> Header:
    """Read the header of a live file.

    Raises:
        NotALiveFile: the file is not a live file, or its header is damaged.
        OSError: the file cannot be read.
    """
    file.seek(0)
    start = file.read(HEADER.size)
    if len(start) < HEADER.size or not start.startswith(MAGIC):
        raise NotALiveFile("it does not begin with the header of one")
    _, file_format, size, slots, header_bytes, clean, identity, text_bytes = HEADER.unpack(start)
    if file_format != FORMAT:
        raise NotALiveFile(f"it has format {file_format}, not {FORMAT}")
    if HEADER.size + text_bytes > header_bytes or header_bytes % PAGE:
        raise NotALiveFile("its header is damaged")
    fields = _parse_fields(file.read(text_bytes).decode(errors="replace"))
    try:
        layout = RowLayout(fields)
    except (ValueError, struct.error, OverflowError, MemoryError) as error:
        raise NotALiveFile(f"its schema is damaged: {error}") from None
    if layout.size != size:
        raise NotALiveFile("the size of its rows does not fit its fields")
    if os.fstat(file.fileno()).st_size != header_bytes + 2 * slots * size:
        raise NotALiveFile(f"its size is not that of {slots} slots")
    # Earlier versions wrote no tail: zeros stand there, or the end of the text.
    if file.tell() <= (tail_at := header_bytes - TAIL.size):
        file.seek(tail_at)
        _, used = TAIL.unpack(file.read(TAIL.size))
        slots = min(slots, used or slots)
    return Header(identity, bool(clean), fields, layout, slots, header_bytes)


def _newest_whole(halves: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The newer whole half of each slot that has one."""
    whole = halves["version"] == halves["version_again"]
    versions = np.where(whole, halves["version"], 0).reshape(-1, 2)
    newer = versions.argmax(axis=1)
    chosen = np.arange(len(versions)) * 2 + newer
    rows: npt.NDArray[np.void] = halves[chosen[versions.max(axis=1) > 0]]
    return rows


def _parse_fields(text: str) -> tuple[Field, ...]:
    fields = []
    for part in text.split(","):
        name, _, kind = part.partition(":")
        try:
            field = Field(name, of_canonical(kind))
        except ValueError:
            raise NotALiveFile(f"its schema is damaged at {part!r}") from None
        if not (name.isidentifier() and field.kind.size <= MAX_FIELDS_BYTES):
            raise NotALiveFile(f"its schema is damaged at {part!r}")
        fields.append(field)
    return tuple(fields)
