"""The row as the table, the ring, the live file and the store see it."""

from __future__ import annotations

import struct

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.state.default import PlayerState
from playerstate.state.layout import FIELDS_AT, RowLayout
from playerstate.state.schema import MAX_FIELDS_BYTES, StateSchema, text
from tests.kit.support import LAW, Everything

PAGE = 4096


def layout_of(text_bytes: int) -> RowLayout:
    """The layout of a class whose fields take so many bytes."""
    note = attrs.field(type=str, default="", metadata=text(text_bytes))
    return RowLayout(StateSchema.of(attrs.make_class("Note", {"note": note})).fields)


class RowLayoutTests(SynchronousTestCase):
    """One half, byte by byte."""

    def test_bytes(self) -> None:
        """Each part of a half lies at the offset that the module's table gives it."""
        layout = RowLayout(StateSchema.of(PlayerState).fields)
        packed = layout.struct.pack(1, 2, 3 | 4 << 32, 5, 6, 1.5, -2.5, 7)
        self.assertEqual(packed[:FIELDS_AT], struct.pack("<QqIIqQ", 1, 2, 3, 4, 5, 6))
        self.assertEqual(packed[FIELDS_AT : FIELDS_AT + 16], struct.pack("<dd", 1.5, -2.5))
        self.assertEqual(packed[FIELDS_AT + 16 :], struct.pack("<Q", 7))

    def test_header(self) -> None:
        """The half's struct and its dtype are the same bytes."""
        layout = RowLayout(StateSchema.of(PlayerState).fields)
        slot_and_generation = (2**32 - 1) | 7 << 32
        packed = layout.struct.pack(
            *(2**64 - 1, -(2**62), slot_and_generation, 2**62, 2**64 - 2, 1.0, 2.0, 2**64 - 3)
        )
        (half,) = np.frombuffer(packed, layout.dtype)
        self.assertEqual(half["version"], 2**64 - 1)
        self.assertEqual(half["session_id"], -(2**62))
        self.assertEqual(half["slot"], 2**32 - 1)
        self.assertEqual(half["generation"], 7)
        self.assertEqual(half["updated_at"], 2**62)
        self.assertEqual(half["sequence"], 2**64 - 2)
        self.assertEqual(half["fields"].tobytes(), struct.pack("<dd", 1.0, 2.0))
        self.assertEqual(half["version_again"], 2**64 - 3)

    def test_fields(self) -> None:
        """The fields alone are packed and unpacked where a half has them."""
        schema = StateSchema.of(Everything)
        layout = RowLayout(schema.fields)
        values = schema.values(Everything(1.5, -7, False, "wood", 2.5))
        packed = layout.struct.pack(1, 2, 3, 4, 5, *values, 1)
        self.assertEqual(layout.fields.unpack_from(packed, FIELDS_AT), values)
        self.assertEqual(layout.fields.size, schema.size)

    def test_padding(self) -> None:
        """What lies between the fields and the second version is zero."""
        layout = layout_of(20)
        packed = layout.struct.pack(2**64 - 1, -1, -1, -1, 2**64 - 1, b"\xff" * 20, 2**64 - 1)
        self.assertEqual(packed, b"\xff" * 60 + bytes(128 - 68) + b"\xff" * 8)

    def test_sizes(self) -> None:
        """A half takes the next power of two of bytes, from 64 to 2,048."""
        for size, half in (
            *((1, 64), (15, 64), (16, 64), (17, 128), (80, 128), (81, 256), (208, 256), (209, 512)),
            *((464, 512), (465, 1024), (976, 1024), (977, 2048), (MAX_FIELDS_BYTES, 2048)),
        ):
            layout = layout_of(size)
            self.assertEqual(layout.size, half, size)
            self.assertEqual(layout.struct.size, half)
            self.assertEqual(layout.dtype.itemsize, half)
            self.assertEqual(layout.record.itemsize, half)
            self.assertEqual(layout.dtype["fields"].itemsize, size)

    def test_versions_at_both_ends(self) -> None:
        """The versions are the first and the last 8 bytes, whatever lies between."""
        for size in (1, 16, 17, MAX_FIELDS_BYTES):
            layout = layout_of(size)
            packed = layout.struct.pack(5, 0, 0, 0, 0, b"\0" * size, 6)
            self.assertEqual(packed[:8] + packed[-8:], struct.pack("<QQ", 5, 6))

    @settings(LAW, max_examples=60)
    @given(st.integers(1, MAX_FIELDS_BYTES), st.integers(0, 100_000))
    def test_both_halves_in_one_page(self, size: int, slot: int) -> None:
        """Both halves of a slot lie in one page, and each word of a half on a word."""
        layout = layout_of(size)
        first = 2 * slot * layout.size
        last = first + 2 * layout.size - 1
        self.assertEqual(first // PAGE, last // PAGE)
        for name in ("version", "session_id", "updated_at", "sequence", "version_again"):
            self.assertEqual(layout.dtype.fields[name][1] % 8, 0, name)

    def test_record(self) -> None:
        """A store sees the session id, each field under its name, and ``updated_at``."""
        schema = StateSchema.of(Everything)
        layout = RowLayout(schema.fields)
        values = schema.values(Everything(1.5, -8, True, "héllo", -2.5))
        packed = bytearray(layout.struct.pack(2**64 - 1, 42, 1 | 2 << 32, 99, 3, *values, 2**63))
        used = FIELDS_AT + layout.fields.size
        packed[used:-8] = b"\xff" * (layout.size - 8 - used)
        (record,) = np.frombuffer(packed, layout.record)
        self.assertEqual(
            layout.record.names,
            ("session_id", "x", "hp", "alive", "zone", "angle", "updated_at"),
        )
        self.assertEqual(record.item(), (42, 1.5, -8, 1, "héllo".encode(), -2.5, 99))
