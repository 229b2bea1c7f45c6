"""The layout of one player's row in memory, in the ring and in the live file.

A row has a header, the packed fields and, at its head and its tail, the *version* under which it
was written.  The live table keeps two such *halves* for each slot and writes them in turn, the tail
version after everything else.  So a process that is killed between any two machine instructions
leaves at least one whole half: a half is whole if its two versions are equal, and of two whole
halves the one with the higher version is the newer.  Versions only grow.

====== ===== ==================================================================
offset type  what
====== ===== ==================================================================
0      u64   version; 0 for a half never written
8      i64   session id; 0 once the player is released
16     u32   slot in the live table
20     u32   generation: number of the join that the row belongs to
24     i64   ``updated_at``, microseconds since the Unix epoch; 0 for never
32     u64   sequence: the highest applied in this generation
40     ...   fields, packed; zero padded
-8     u64   version again
====== ===== ==================================================================

The size of a half is a power of two, from 64 to 2,048 bytes, so that both halves of a slot lie in
one page of 4,096 bytes and the rows of a table are evenly spaced.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from playerstate.state.schema import Field

FIELDS_AT = 40
_OWN_BYTES = FIELDS_AT + 8


class RowLayout:
    """The layout of rows with these fields.

    Attributes:
        size: of a half, in bytes.
        struct: packs a half: version, session id, slot and generation as one i64, ``updated_at``,
            sequence, the fields, version.
        write: writes a half: ``write(buffer, at, version, session_id, slot_and_generation,
            updated_at, sequence, values)``.
        fields: packs and unpacks the fields, which begin at `FIELDS_AT`.
        dtype: a half, with the fields as one block of bytes.
        head: a half, with everything but the tail version as one block of bytes.
        named: session id, each field by name, ``updated_at``.
        record: the part that a store sees: `named` without the transient fields.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        formats = "".join(field.kind.format for field in fields)
        self.fields = struct.Struct("<" + formats)
        used = _OWN_BYTES + self.fields.size
        self.size = 1 << (used - 1).bit_length()
        padding = self.size - used
        self.struct = struct.Struct(f"<QqqqQ{formats}{padding}xQ")
        self.write = _compile_write(self.struct, len(fields))
        self.dtype = np.dtype(
            {
                "names": [
                    *("version", "session_id", "slot", "generation", "updated_at", "sequence"),
                    *("fields", "version_again"),
                ],
                "formats": [
                    *("<u8", "<i8", "<u4", "<u4", "<i8", "<u8"),
                    *(f"V{self.fields.size}", "<u8"),
                ],
                "offsets": [0, 8, 16, 20, 24, 32, FIELDS_AT, self.size - 8],
                "itemsize": self.size,
            }
        )
        self.head = np.dtype(
            {
                "names": ["head"],
                "formats": [f"V{self.size - 8}"],
                "offsets": [0],
                "itemsize": self.size,
            }
        )
        placed, at = [], FIELDS_AT
        for field in fields:
            placed.append((field, at))
            at += field.kind.size
        self.named = self._named(placed)
        self.record = self._named([(field, at) for field, at in placed if not field.is_transient])

    def _named(self, placed: Sequence[tuple[Field, int]]) -> np.dtype[np.void]:
        return np.dtype(
            {
                "names": ["session_id", *(field.name for field, _ in placed), "updated_at"],
                "formats": ["<i8", *(field.kind.dtype for field, _ in placed), "<i8"],
                "offsets": [8, *(at for _, at in placed), 24],
                "itemsize": self.size,
            }
        )


def _compile_write(half: struct.Struct, fields: int) -> Callable[..., None]:
    """Compile the function that writes one half.

    It runs for every move: passing the values by name takes half the time of unpacking them into
    the call.
    """
    values = "".join(f"v{index}, " for index in range(fields))
    head = "version, session_id, slot_and_generation, updated_at, sequence"
    source = (
        f"def write(buffer, at, {head}, values):\n"
        f"    {values}= values\n"
        f"    pack_into(buffer, at, {head}, {values}version)\n"
    )
    scope: dict[str, Any] = {"pack_into": half.pack_into}
    exec(compile(source, "<playerstate layout>", "exec"), scope)
    write: Callable[..., None] = scope["write"]
    return write
