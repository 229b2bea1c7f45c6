"""The live file: what a process that is killed leaves behind, and what the next makes of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import apsw
import attrs
import numpy as np
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate import (
    NotSaved,
    PlayerState,
    PlayerStateService,
    StateSchema,
    open_store,
    text,
    within,
)
from playerstate.cli import main
from playerstate.conversations.gateway import LOOK_EVERY, Gateway
from playerstate.conversations.intake import BATCH_MIN
from playerstate.interfaces import StoreBusy, Stored, StoreReplaced, StoreUnusable
from playerstate.live import file as live_file_module
from playerstate.live import leftover as leftover_module
from playerstate.live import names as names_module
from playerstate.live import table as table_module
from playerstate.live.file import LiveFile
from playerstate.live.leftover import FORMAT, PAGE, NotALiveFile, read_leftover
from playerstate.live.memory import AnonymousMemory
from playerstate.live.names import MAKING, RECOVERING
from playerstate.live.recovery import as_rows
from playerstate.live.table import LiveTable, TableFull
from playerstate.state.kinds import Text
from playerstate.state.layout import RowLayout
from playerstate.state.schema import MAX_FIELDS_BYTES, Field
from playerstate.stores.memory import MemoryStore
from playerstate.stores.sqlite.store import SQLiteStore, SQLiteWriter
from playerstate.testing import FaultyStore, SteppedService
from playerstate.wire.messages import PING, Codec, Receipt, encode_numbered
from tests.kit.crash_live import LiveService, LogLines
from tests.kit.support import UNMEASURED

SCHEMA = StateSchema.of(PlayerState)
IDENTITY = bytes(range(16))
STORED_AT = 1_600_000_000_000_000


class Mute:
    """A transport that sends nothing."""

    def send(self, *message: object) -> None:
        """Drop it."""

    def end(self, *peer: object) -> None:
        """Drop it."""


@attrs.frozen
class Avatar:
    """A state with every kind of field."""

    x: float = attrs.field(default=350.0, metadata=within(resolution=0.015625))
    hp: int = 100
    alive: bool = True
    zone: str = attrs.field(default="spawn", metadata=text(16))


@attrs.frozen
class Wide:
    """A state whose half takes 512 bytes."""

    x: float = 0.0
    notes: str = attrs.field(default="", metadata=text(400))


def write_live_file(path: str, schema: StateSchema, capacity: int, identity: bytes) -> LiveTable:
    """A table in a new live file, without players."""
    live_file = LiveFile(path)
    table = LiveTable(schema, capacity, lambda: 0.0, live_file.open(schema, capacity, identity))
    table.live_file = live_file  # type: ignore[attr-defined]
    return table


def remaining(path: str) -> dict[int, tuple[Any, ...]]:
    """What a live file holds: fields and ``updated_at`` by session id."""
    records = read_leftover(path).records.tolist()
    found = {session_id: tuple(rest) for session_id, *rest in records}
    assert len(found) == len(records), f"a player twice: {records}"
    return found


class FileTests(SynchronousTestCase):
    """The bytes of the file."""

    def test_header(self) -> None:
        """The header is what the module says, byte for byte; the rest is allocated and zero."""
        path = self.mktemp()
        write_live_file(path, StateSchema.of(Avatar), 3, IDENTITY)
        with open(path, "rb") as file:
            content = file.read()
        names = b"x:float/0.015625,hp:int,alive:bool,zone:text(16)"
        expected = (
            b"PSLIVE\0\0"
            + b"\1\0\0\0"  # format
            + b"\x80\0\0\0"  # bytes of a half: 48 and 8 + 8 + 1 + 16, rounded up
            + b"\3\0\0\0\0\0\0\0"  # slots
            + b"\0\x10\0\0"  # bytes of the header
            + b"\0\0\0\0"  # not clean
            + IDENTITY
            + bytes([len(names), 0, 0, 0])
            + names
        )
        looks = content[4096 - 16 : 4096 - 8]  # from a random number
        expected = expected.ljust(4096 - 16, b"\0") + looks + struct.pack("<Q", 3)
        self.assertEqual(content[: len(expected)], expected)
        self.assertEqual(content[len(expected) :], bytes(3 * 2 * 128))
        self.assertEqual(FORMAT, 1)
        self.assertEqual(os.stat(path).st_blocks * 512 >= len(content), True)

    def test_a_row(self) -> None:
        """A half is what the layout says, byte for byte."""
        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 4, IDENTITY)
        table.admit(7, (1.0, 2.0), 5)
        slot = table.admit(42, (350.0, 200.0), 0)
        table.start_generation(slot, 9)
        table.apply(slot, 12, (1.5, -2.5), 1_700_000_000_000_000)
        with open(path, "rb") as file:
            file.seek(PAGE + 2 * 64 * slot)
            first, second = file.read(64), file.read(64)
        # The first write goes into the second half: admit (2), begin (3), apply (4).
        self.assertEqual(
            second,
            struct.pack("<QqIIqQdd", 4, 42, 1, 1, 17 * 10**14, 12, 1.5, -2.5) + b"\4" + bytes(7),
        )
        self.assertEqual(
            first, struct.pack("<QqIIqQdd", 3, 42, 1, 1, 0, 9, 350.0, 200.0) + b"\3" + bytes(7)
        )

    def test_large_schema(self) -> None:
        """A schema's text longer than a page makes the header longer, in whole pages."""
        fields = {f"a_rather_long_name_of_a_flag_{n:04}": True for n in range(400)}
        state = attrs.make_class(
            "Flags", {name: attrs.field(default=True, type=bool) for name in fields}, frozen=True
        )
        schema = StateSchema.of(state)
        path = self.mktemp()
        table = write_live_file(path, schema, 2, IDENTITY)
        slot = table.admit(1, (1,) * 400, 0)
        table.apply(slot, 1, (0, 1) * 200, 77)
        with open(path, "rb") as file:
            header_bytes = struct.unpack_from("<I", file.read(28), 24)[0]
        self.assertEqual(header_bytes % PAGE, 0)
        self.assertGreaterEqual(header_bytes, 52 + len(schema.canonical))
        self.assertEqual(remaining(path), {1: (*(0, 1) * 200, 77)})

    def test_both_halves_in_one_page(self) -> None:
        """Whatever the fields, both halves of a slot lie in one page, and a half in one sector or
        in whole ones."""
        for size in range(1, MAX_FIELDS_BYTES + 1):
            layout = RowLayout([Field("t", Text(size), "")])
            self.assertEqual(layout.size & (layout.size - 1), 0)
            self.assertEqual(layout.size, layout.struct.size)
            self.assertEqual(layout.size, layout.dtype.itemsize)
            self.assertGreaterEqual(layout.size, 48 + size)
            self.assertTrue(layout.size >= 64 and PAGE % (2 * layout.size) == 0, layout.size)
        self.assertEqual(RowLayout(SCHEMA.fields).size, 64)

    def test_clean(self) -> None:
        """`close` says in the header whether everything is in the store, and changes no more."""
        for clean in (False, True):
            path = self.mktemp()
            table = write_live_file(path, SCHEMA, 2, IDENTITY)
            table.apply(table.admit(5, (0.0, 0.0), 0), 1, (1.0, 2.0), 3)
            with open(path, "rb") as file:
                before = file.read()
            table.live_file.close(clean)  # type: ignore[attr-defined]
            with open(path, "rb") as file:
                after = file.read()
            looks = slice(PAGE - 16, PAGE - 8)  # which the last look counts
            after = after[: looks.start] + before[looks] + after[looks.stop :]
            self.assertEqual(after[:28] + after[32:], before[:28] + before[32:])
            self.assertEqual(after[28:32], bytes([clean, 0, 0, 0]))
            self.assertEqual(read_leftover(path).clean, clean)

    def test_recovering_is_held(self) -> None:
        """What is being saved is locked until it is forgotten, and the directory is synced then."""
        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 2, IDENTITY)
        table.apply(table.admit(5, (0.0, 0.0), 0), 1, (1.0, 2.0), 3)
        table.live_file.close(False)  # type: ignore[attr-defined]
        live_file = LiveFile(path)
        self.assertIsNot(live_file.claim(IDENTITY), None)
        with open(path + RECOVERING, "rb") as file:
            with self.assertRaises(BlockingIOError):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            synced: list[tuple[str, bool]] = []
            sync = os.fsync

            def recording(fd: int) -> None:
                there = os.path.exists(path + RECOVERING)
                synced.append((os.readlink(f"/proc/self/fd/{fd}"), there))
                sync(fd)

            self.patch(os, "fsync", recording)
            live_file.discard()
            self.assertEqual(synced, [(os.path.dirname(os.path.realpath(path)), False)])
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_header_is_checked(self) -> None:
        """Each part of the header by itself makes a file no live file."""
        path = self.mktemp()
        write_live_file(path, SCHEMA, 2, IDENTITY)
        with open(path, "rb") as file:
            content = file.read()
        for at, new in (
            (0, b"pslive"),
            (8, b"\2"),
            (12, b"\x80"),
            (16, b"\3"),
            (24, b"\x01"),
            (48, b"\xff\xff"),
        ):
            with open(path, "wb") as file:
                file.write(content[:at] + new + content[at + len(new) :])
            self.assertRaises(NotALiveFile, read_leftover, path)
        # A header that is not of whole pages, in a file of the size it says.
        with open(path, "wb") as file:
            file.write(content[:24] + struct.pack("<I", PAGE + 8) + content[28:] + bytes(8))
        self.assertRaises(NotALiveFile, read_leftover, path)

    def test_read_in_pieces(self) -> None:
        """Rows of every piece are found, in the first and the last slot of it as well."""
        self.patch(leftover_module, "SLOTS_AT_ONCE", 3)
        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 20, IDENTITY)
        for player in range(1, 12):
            slot = table.admit(player, (0.0, 0.0), 0)
            table.apply(slot, 1, (float(player), 2.0), 3)
        found = remaining(path)
        self.assertEqual({k: v[0] for k, v in found.items()}, {n: float(n) for n in range(1, 12)})

    def test_held(self) -> None:
        """A closed live file may be opened again, also by this process, while views of it live."""
        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 2, IDENTITY)
        self.assertRaises(StoreUnusable, LiveFile(path).claim, IDENTITY)
        table.live_file.close(True)  # type: ignore[attr-defined]
        self.assertIs(LiveFile(path).claim(IDENTITY), None)

    def test_in_use_while_it_is_made(self) -> None:
        """Another process that is making a live file of this name keeps it."""
        path = self.mktemp()
        refused: list[str] = []
        allocate = os.posix_fallocate

        def meanwhile(*arguments: int) -> None:
            self.patch(os, "posix_fallocate", allocate)
            error = self.assertRaises(StoreUnusable, LiveFile(path).open, SCHEMA, 2, bytes(16))
            refused.append(str(error))
            allocate(*arguments)

        self.patch(os, "posix_fallocate", meanwhile)
        table = write_live_file(path, SCHEMA, 2, IDENTITY)
        self.assertIn("is in use by another process", refused[0])
        self.assertEqual(os.stat(path).st_nlink, 1)
        self.assertEqual(read_leftover(path).identity, IDENTITY)
        self.assertFalse(os.path.exists(path + MAKING))
        del table

    def test_made_by_another_meanwhile(self) -> None:
        """A start that locked a file which no longer has the name gives up."""
        path = self.mktemp()
        lock = names_module.lock

        def slow(fd: int, name: str) -> None:
            os.rename(path + MAKING, path)
            lock(fd, name)

        self.patch(live_file_module, "lock", slow)
        self.patch(names_module, "lock", slow)
        error = self.assertRaises(StoreUnusable, LiveFile(path).open, SCHEMA, 2, IDENTITY)
        self.assertIn("is in use by another process", str(error))
        self.assertEqual(os.path.getsize(path), 0)

    def test_killed_while_it_is_made(self) -> None:
        """What a start left that was killed is taken for the next, whatever its size."""
        path = self.mktemp()
        with open(path + MAKING, "wb") as file:
            file.write(b"half of it" * 10_000)
        table = write_live_file(path, SCHEMA, 2, IDENTITY)
        self.assertEqual(os.path.getsize(path), PAGE + LiveTable.bytes_needed(SCHEMA, 2))
        self.assertEqual(len(read_leftover(path).records), 0)
        self.assertFalse(os.path.exists(path + MAKING))
        del table

    def test_in_use_while_recovering(self) -> None:
        """Another process that still saves a leftover keeps it, and its new live file."""
        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 2, IDENTITY)
        table.apply(table.admit(5, (0.0, 0.0), 0), 1, (1.0, 2.0), 3)
        table.live_file.close(False)  # type: ignore[attr-defined]
        del table
        first = LiveFile(path)
        self.assertIsNot(first.claim(IDENTITY), None)
        kept = first.open(SCHEMA, 2, IDENTITY)
        number = os.stat(path).st_ino
        other = LiveFile(path)
        with self.assertRaises(StoreUnusable):
            other.claim(bytes(16))
            other.open(SCHEMA, 2, bytes(16))
        self.assertEqual(os.stat(path).st_ino, number)
        self.assertTrue(os.path.exists(path + RECOVERING))
        del kept


class TornWriteTests(SynchronousTestCase):
    """A process killed between any two machine instructions of a write."""

    def torn(self, schema: StateSchema, step: Callable[[LiveTable, int], object]) -> None:
        """Every state of the file that a kill inside `step` may leave shows the old or new row."""
        path = self.mktemp()
        table = write_live_file(path, schema, 2, IDENTITY)
        other = table.admit(9, schema.spawn, 4)
        slot = table.admit(7, schema.spawn, 0)
        table.start_generation(slot, 0)
        # Past 256 writes, so that a version has more than one byte.
        for sequence in range(1, 300):
            table.apply(slot, sequence, schema.spawn, STORED_AT + sequence)
            table.apply(other, sequence, schema.spawn, STORED_AT + sequence)
        with open(path, "rb") as file:
            before = file.read()
            old = remaining(path)
            step(table, slot)
            file.seek(0)
            after = file.read()
            new = remaining(path)
        self.assertNotEqual(old, new)
        size = RowLayout(schema.fields).size
        changed = [at for at in range(len(before)) if before[at] != after[at]]
        start = changed[0] - (changed[0] - PAGE) % size
        self.assertLess(changed[-1], start + size, "more than one half was written")
        was, becomes = before[start : start + size], after[start : start + size]
        images = []
        for at in range(size + 1):
            # struct zeroes what it packs into, in an order that is the C library's affair ...
            images += [bytes(at) + was[at:], was[:at] + bytes(size - at)]
            images.append(was[: at // 2] + bytes(at - at // 2) + was[at:])
            # ... and then writes field after field.
            images.append(becomes[:at] + bytes(size - at))
        seen = {True: 0, False: 0}
        with open(path, "r+b") as file:
            for image in set(images):
                file.seek(start)
                file.write(image)
                file.flush()
                found = remaining(path)
                self.assertIn(found, (old, new))
                seen[found == new] += 1
        self.assertTrue(seen[True] and seen[False], seen)

    def test_apply(self) -> None:
        """A move."""
        for schema, values in (
            (SCHEMA, (1.25, -7.0)),
            (StateSchema.of(Avatar), (3.0, -1, 0, b"harbour".ljust(16, b"\0"))),
            (StateSchema.of(Wide), (3.0, b"n" * 400)),
        ):
            self.torn(
                schema, lambda table, slot, v=values: table.apply(slot, 300, v, STORED_AT * 2)
            )

    def test_release(self) -> None:
        """A player who leaves."""
        self.torn(SCHEMA, lambda table, slot: table.release(slot))

    def test_slot_of_another(self) -> None:
        """A player who takes the slot of one who left: the one or the other, never a mixture."""

        def succeed(table: LiveTable, slot: int) -> None:
            table.admit(8, (9.0, 9.0), STORED_AT)

        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 1, IDENTITY)
        slot = table.admit(7, SCHEMA.spawn, 0)
        table.apply(slot, 1, (1.0, 1.0), STORED_AT)
        table.release(slot)
        with open(path, "rb") as file:
            before = file.read()[PAGE:]
            succeed(table, slot)
            file.seek(0)
            after = file.read()[PAGE:]
        for start in (0, 64):
            if before[start : start + 64] == after[start : start + 64]:
                continue
            for at in range(65):
                image = bytearray(before)
                image[start : start + 64] = after[start : start + at] + bytes(64 - at)
                with open(path, "r+b") as file:
                    file.seek(PAGE)
                    file.write(image)
                self.assertIn(remaining(path), ({}, {8: (9.0, 9.0, STORED_AT)}))

    def test_value_that_cannot_be_packed(self) -> None:
        """Even a write that raises in its middle leaves the row before it."""
        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 1, IDENTITY)
        slot = table.admit(7, SCHEMA.spawn, 0)
        table.apply(slot, 1, (1.0, 1.0), STORED_AT)
        for _ in range(3):
            self.assertRaises(struct.error, table.apply, slot, 2, (2.0, "far"), STORED_AT + 5)
            self.assertEqual(remaining(path), {7: (1.0, 1.0, STORED_AT)})
            self.assertEqual(table.values(slot), (1.0, 1.0))
        table.apply(slot, 3, (3.0, 3.0), STORED_AT + 9)
        self.assertEqual(remaining(path), {7: (3.0, 3.0, STORED_AT + 9)})


class HistoryTests(SynchronousTestCase):
    """Any history of a table can be read back from its live file."""

    STEPS = st.lists(
        st.tuples(
            st.sampled_from(["admit", "begin", "apply", "apply", "apply", "release"]),
            st.integers(1, 6),
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-5, 1000),
        ),
        max_size=60,
    )

    @settings(max_examples=60, deadline=None)
    @given(STEPS)
    def test_random_histories(self, steps: list[tuple[str, int, float, int]]) -> None:
        """A leftover equals a dict model; versions only grow; players who left are gone."""
        path = self.mktemp()
        table = write_live_file(path, SCHEMA, 4, IDENTITY)
        model: dict[int, tuple[float, float, int]] = {}
        sequences: dict[int, int] = {}
        highest = 0
        for number, (step, session_id, value, stamp) in enumerate(steps):
            slot = table.slots.get(session_id)
            if step == "admit" and slot is None:
                try:
                    table.admit(session_id, (value, 0.5), max(stamp, 0))
                except TableFull:
                    self.assertEqual(len(model), 4)
                    continue
                model[session_id] = (value, 0.5, max(stamp, 0))
                sequences[session_id] = 0
            elif slot is None:
                continue
            elif step == "begin":
                table.start_generation(slot, number)
                sequences[session_id] = number
            elif step == "release":
                table.release(slot)
                del model[session_id], sequences[session_id]
            elif step == "apply":
                last = model[session_id][2]
                table.apply(slot, number, (value, -value), stamp)
                model[session_id] = (value, -value, max(stamp, last + 1))
                sequences[session_id] = number
            version = self.check(table, path, model, sequences)
            self.assertGreaterEqual(version, highest)
            highest = version

    def check(
        self,
        table: LiveTable,
        path: str,
        model: dict[int, tuple[float, float, int]],
        sequences: dict[int, int],
    ) -> int:
        """The live file and the table against the model; the highest version in the file."""
        # Who was never saved and never moved stands at the spawn, live file or not.
        self.assertEqual(remaining(path), {k: v for k, v in model.items() if v[2] > 0})
        self.assertEqual(set(table.slots), set(model))
        for session_id, slot in table.slots.items():
            self.assertEqual(table.session_id(slot), session_id)
            self.assertEqual((*table.values(slot), table.updated_at(slot)), model[session_id])
            self.assertEqual(table.sequence(slot), sequences[session_id])
        halves = np.fromfile(path, RowLayout(SCHEMA.fields).dtype, offset=PAGE)
        np.testing.assert_array_equal(halves["version"], halves["version_again"])
        written = halves["version"][halves["version"] > 0]
        self.assertEqual(len(np.unique(written)), len(written))
        return int(written.max(initial=0))

    def test_pages_of_different_ages(self) -> None:
        """Where a power cut left an old page beside a new one, a player who changed slots is one
        player: the one changed last."""
        for later_slot_first in (False, True):
            path = self.mktemp()
            # 32 slots a page: slots 0 and 32 lie in different ones.
            table = write_live_file(path, SCHEMA, 64, IDENTITY)
            slots = [table.admit(100 + n, SCHEMA.spawn, 0) for n in range(33)]
            first, second = (slots[32], slots[0]) if later_slot_first else (slots[0], slots[32])
            table.release(first)
            self.assertEqual(table.admit(42, SCHEMA.spawn, 0), first)
            table.apply(first, 1, (1.0, 1.0), 1000)
            with open(path, "rb") as file:
                old = file.read()
            table.release(first)
            # The slot freed last is given out first.
            table.release(second)
            self.assertEqual(table.admit(42, (1.0, 1.0), 1000), second)
            table.apply(second, 2, (2.0, 2.0), 2000)
            page = PAGE + first * 128 // PAGE * PAGE
            with open(path, "r+b") as file:
                file.seek(page)
                file.write(old[page : page + PAGE])
            self.assertEqual(remaining(path)[42], (2.0, 2.0, 2000))


class NonsenseTests(SynchronousTestCase):
    """Files that are no live files."""

    def live_file(self) -> str:
        """A live file with one player in it."""
        path = self.mktemp()
        table = write_live_file(path, StateSchema.of(Avatar), 4, IDENTITY)
        slot = table.admit(7, StateSchema.of(Avatar).spawn, 0)
        table.apply(slot, 1, (2.0, 3, 0, b"mill".ljust(16, b"\0")), 77)
        return path

    @settings(max_examples=300, deadline=None)
    @given(st.integers(0, 150), st.integers(1, 255))
    def test_damaged_header(self, at: int, mask: int) -> None:
        """A header with one byte wrong is read as something, or is no live file: nothing else."""
        path = self.live_file()
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ mask]))
        with contextlib.suppress(NotALiveFile):
            read_leftover(path)

    def test_open_file(self) -> None:
        """An open live file is read, whatever file has its name now."""
        path = self.live_file()
        fd = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        expected = read_leftover(path).records.tolist()
        os.unlink(path)
        for _ in range(2):
            self.assertEqual(read_leftover(fd).records.tolist(), expected)

    def test_cut_while_it_is_read(self) -> None:
        """A file that is cut after the look at its size is no live file: no row is read twice."""
        path, look = self.live_file(), os.fstat

        def cutting(fd: int) -> os.stat_result:
            found = look(fd)
            os.truncate(path, found.st_size - 4096)
            return found

        patched = self.patch(os, "fstat", cutting)
        self.assertRaisesRegex(NotALiveFile, "cut while", read_leftover, path)
        patched.restore()

    def test_schemas_that_cannot_be(self) -> None:
        """A damaged list of fields is no live file: nothing else."""
        for names in (
            "x:text(99999999999999999999)",
            "x:text(0)",
            "x:float,x:float",
            "session_id:int",
            "updated_at:int",
            "x:float,",
            "x:str",
            "",
            "\0" * 20,
        ):
            path = self.mktemp()
            raw = names.encode()
            header = struct.pack(
                "<8sIIQII16sI", b"PSLIVE\0\0", 1, 64, 2, 4096, 0, IDENTITY, len(raw)
            )
            with open(path, "wb") as file:
                file.write((header + raw).ljust(4096 + 2 * 2 * 64, b"\0"))
            self.assertRaises(NotALiveFile, read_leftover, path)

    def test_any_length(self) -> None:
        """Cut anywhere, it is no live file."""
        path = self.live_file()
        size = os.path.getsize(path)
        for length in [*range(0, 120), 4095, 4096, 4097, 4096 + 128, size - 128, size - 1]:
            cut = self.mktemp()
            shutil.copy(path, cut)
            os.truncate(cut, length)
            self.assertRaises(NotALiveFile, read_leftover, cut)


class FieldsTests(SynchronousTestCase):
    """Rows of yesterday's state class in today's."""

    def rows(self, before: type, values: tuple[Any, ...], today: type) -> dict[str, Any]:
        """One row of `before`, read as `today`."""
        path = self.mktemp()
        schema = StateSchema.of(before)
        table = write_live_file(path, schema, 4, IDENTITY)
        table.apply(table.admit(7, schema.spawn, 0), 1, values, 77)
        schema = StateSchema.of(today)
        rows, _ = as_rows(read_leftover(path), schema)
        record = rows.view(RowLayout(schema.fields).record)
        assert record.dtype.names is not None
        return dict(zip(record.dtype.names, record[0].tolist(), strict=True))

    def test_the_same(self) -> None:
        """Nothing changed: every field is the same, bit for bit."""
        row = self.rows(Avatar, (1 / 3, -(2**63), 0, "Ærø".encode().ljust(16, b"\0")), Avatar)
        self.assertEqual(
            row,
            {"session_id": 7, "x": 1 / 3, "hp": -(2**63), "alive": 0, "zone": "Ærø".encode()}
            | {"updated_at": 77},
        )

    def test_gained_lost_and_moved(self) -> None:
        """Fields are found by name: one that is new has its default, one that is gone is gone."""
        today = attrs.make_class(
            "Today",
            {
                "zone": attrs.field(default="spawn", type=str, metadata=text(16)),
                "mana": attrs.field(default=12, type=int),
                "x": attrs.field(default=0.0, type=float),
            },
            frozen=True,
        )
        row = self.rows(Avatar, (1.5, 3, 0, b"mill".ljust(16, b"\0")), today)
        self.assertEqual(
            row, {"session_id": 7, "zone": b"mill", "mana": 12, "x": 1.5, "updated_at": 77}
        )

    def test_text_of_another_size(self) -> None:
        """A text that fits is kept, whether the field has grown or shrunk."""
        for size in (4, 8, 40):
            today = attrs.make_class(
                "Today",
                {"zone": attrs.field(default="home", type=str, metadata=text(size))},
                frozen=True,
            )
            row = self.rows(Avatar, (1.5, 3, 0, b"mill".ljust(16, b"\0")), today)
            self.assertEqual(row["zone"], b"mill", size)

    def test_field_that_came_back(self) -> None:
        """What the store still holds of a field that the last run did not know is not lost."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        path, live_file = f"{directory}/players.db", f"{directory}/moves.live"
        with_hp = attrs.make_class(
            "WithHp",
            {
                "x": attrs.field(default=0.0, type=float),
                "hp": attrs.field(default=100, type=int),
            },
            frozen=True,
        )
        without = attrs.make_class(
            "Without", {"x": attrs.field(default=0.0, type=float)}, frozen=True
        )
        for state, values, kill in ((with_hp, (1.0, 57), False), (without, (2.0,), True)):
            store = SQLiteStore(path, StateSchema.of(state), "normal")
            stepped = SteppedService(state, store, live_file=live_file)
            stepped.join(7)
            stepped.service.update(7, state(*values))
            if kill:
                shutil.copy(live_file, f"{directory}/kept")
            self.successResultOf(stepped.stop())
        # As if the second run had been killed before anything of it was saved.
        connection = apsw.Connection(path)
        connection.execute("UPDATE player_state SET x = 1.0, updated_at = 5")
        connection.close()
        os.replace(f"{directory}/kept", live_file)
        stepped = SteppedService(
            with_hp, SQLiteStore(path, StateSchema.of(with_hp), "normal"), live_file=live_file
        )
        stepped.settle()
        self.assertEqual(stepped.join(7).state, with_hp(2.0, 57))
        self.successResultOf(stepped.stop())


class KeptStore(FaultyStore):
    """A store that outlives the services on it, as a database does."""

    identity = bytes(16)

    def prepare(self) -> bytes:
        """The identity given last."""
        return self.identity

    def migrate(self, identity: bytes) -> bytes:
        """Keep the identity."""
        self.identity = identity
        return identity


class RecoveryTestCase(SynchronousTestCase):
    """A directory, services in it, and the log."""

    def setUp(self) -> None:
        """An empty directory."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = f"{self.directory}/moves.live"
        self.store = KeptStore(SCHEMA)
        self.log = LogLines()
        self.log.start()
        self.addCleanup(self.log.stop)

    def start(self, store: Any = None, **options: Any) -> SteppedService:
        """A started service; nothing of it survives but files and stores."""
        return SteppedService(
            store=self.store if store is None else store, live_file=self.path, **options
        )

    def kill(self, stepped: SteppedService) -> None:
        """What a SIGKILL leaves: the files, and no lock."""
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(self.path):
                    fcntl.flock(int(name), fcntl.LOCK_UN)
        stepped.service.run.reopening._reader.close()
        stepped.thread.persister._close_writer()
        stepped.store.close()

    def crash(self, **moves: float) -> None:
        """A run that is killed with these players moved and nothing saved."""
        stepped = self.start()
        for name, x in moves.items():
            stepped.join(int(name[1:]))
            stepped.service.update(int(name[1:]), PlayerState(x, 0.0))
        self.kill(stepped)

    def files(self) -> list[str]:
        """Names in the directory."""
        return sorted(os.listdir(self.directory))


class RecoveryTests(RecoveryTestCase):
    """The start after a death."""

    def test_saved_before_anybody_joins(self) -> None:
        """Joins wait, with StoreBusy, until what was left is in the store; then all are there."""
        self.crash(p1=1.0, p2=2.0)
        self.store.failures.extend([StoreBusy("locked")] * 2)
        stepped = self.start()
        self.assertIn("moves.live.recovering", self.files())
        for _ in range(2):
            self.failureResultOf(stepped.service.join(1), StoreBusy)
            stepped.step()
            self.assertEqual(self.store.players, {})
        self.failureResultOf(stepped.service.join(3), StoreBusy)
        self.assertEqual(stepped.service.ledger.snapshot().pending, 2)
        stepped.settle()
        self.assertEqual(self.store.players[2].values, (2.0, 0.0))
        self.assertEqual(self.files(), ["moves.live"])
        joined = stepped.join(1)
        self.assertEqual((joined.state, joined.restored), (PlayerState(1.0, 0.0), True))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
        self.assertEqual(stepped.service.ledger.recovered, 2)
        self.assertEqual(len(self.log.having("did not stop cleanly")), 1)
        self.successResultOf(stepped.stop())

    def test_changed_and_edited(self) -> None:
        """A change and an edit that were applied when the process was killed are recovered."""
        self.store.players[2] = Stored((9.0, 9.0), 5)
        stepped = self.start()
        stepped.join(1)
        stepped.service.change(1, x=1.0)
        stepped.service.edit(2, x=2.0)
        stepped.service.edit(3, create=True, x=3.0)
        self.kill(stepped)
        stepped = self.start()
        stepped.settle()
        found = {player: stored.values for player, stored in self.store.players.items()}
        self.assertEqual(found, {1: (1.0, 200.0), 2: (2.0, 9.0), 3: (3.0, 200.0)})
        self.successResultOf(stepped.stop())

    def test_that_cannot_be_removed(self) -> None:
        """While the old live file cannot be removed, no player can join: it would hide new rows."""
        self.crash(p1=1.0)
        faults = [OSError(30, "Read-only file system")] * 2

        def unlink(path: str) -> None:
            if path.endswith(RECOVERING) and faults:
                raise faults.pop()
            os.remove(path)

        self.patch(os, "unlink", unlink)
        stepped = self.start()
        stepped.settle()
        for _ in range(2):
            self.failureResultOf(stepped.service.join(1), StoreBusy)
            stepped.reactor.advance(1.0)
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(self.files(), ["moves.live"])
        [line] = self.log.having("no player can join")[:1]
        self.assertIn("cannot be removed: Read-only file system; remove it", line)
        self.successResultOf(stepped.stop())

    def test_that_cannot_be_removed_at_start(self) -> None:
        """Where the store has all, and the old live file cannot be removed, nothing starts."""
        self.crash()

        def unlink(path: str) -> None:
            raise OSError(30, "Read-only file system")

        self.patch(os, "unlink", unlink)
        error = self.assertRaises(StoreUnusable, self.start)
        self.assertIn("cannot be removed", str(error))

    def test_removed_by_somebody(self) -> None:
        """Once the operator has removed the old live file, players can join."""
        self.crash(p1=1.0)
        stepped = self.start()
        os.remove(self.path + RECOVERING)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))

    def test_imported_without_a_date(self) -> None:
        """A row of the store whose date is 0 is a stored one, saved again into another store."""
        self.store.players[7] = Stored((3.0, 4.0), 0)
        stepped = self.start()
        joined = stepped.join(7)
        self.assertEqual((joined.restored, joined.state), (True, PlayerState(3.0, 4.0)))
        stepped.settle()
        self.assertEqual(self.store.players[7], Stored((3.0, 4.0), 0))  # nothing is to be saved
        del self.store.players[7]
        stepped.service.run._guard_and_dirty_all()
        self.successResultOf(stepped.stop())
        self.assertEqual(self.store.players[7].values, (3.0, 4.0))

    def test_memory(self) -> None:
        """Beside a store that forgets, the players who were online are there again."""
        stepped = self.start(MemoryStore(SCHEMA))
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 0.0))
        stepped.service.flush()
        stepped.settle()
        self.kill(stepped)
        stepped = self.start(MemoryStore(SCHEMA))
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(self.log.having("set aside"), [])

    def test_only_what_is_newer(self) -> None:
        """Rows that the store has, or has newer, are not written."""
        self.crash(p1=1.0, p2=2.0, p3=3.0)
        rows = {i: updated_at for i, (_, _, updated_at) in remaining(self.path).items()}
        self.store.players[1] = Stored((8.0, 8.0), rows[1])
        self.store.players[2] = Stored((9.0, 9.0), rows[2] + 1)
        stepped = self.start()
        stepped.settle()
        self.assertEqual(self.store.writes, [1])
        self.assertEqual(self.store.players[1].values, (8.0, 8.0))
        self.assertEqual(self.store.players[2].values, (9.0, 9.0))
        self.assertEqual(self.store.players[3].values, (3.0, 0.0))
        self.assertIn("of 3 players in its live file, 1 are newer", self.log.having("cleanly")[0])

    def test_nothing_newer(self) -> None:
        """Where the store has everything, the start is a plain one, and the log names no date."""
        self.crash(p1=1.0)
        row = remaining(self.path)[1]
        self.store.players[1] = Stored(row[:2], row[2])
        stepped = self.start()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(self.log.having("1970"), [])

    def test_synced_before_it_is_forgotten(self) -> None:
        """A store that cannot sync keeps the live file and the players waiting."""
        self.crash(p1=1.0)
        faults = [OSError(5, "Input/output error")] * 2

        def sync() -> None:
            self.assertIn("moves.live.recovering", self.files())
            if faults:
                raise faults.pop()

        self.store.sync = sync
        stepped = self.start()
        for _ in range(2):
            stepped.step()
            self.assertIn("moves.live.recovering", self.files())
            self.failureResultOf(stepped.service.join(1), StoreBusy)
        stepped.settle()
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
        self.flushLoggedErrors(OSError)

    def test_killed_while_recovering(self) -> None:
        """Killed at any step of the recovery, the next start does it again."""
        self.crash(p1=1.0, p2=2.0)
        recovering = self.path + RECOVERING
        # Renamed, and no more.
        os.rename(self.path, recovering)
        for steps in range(3):
            self.store.failures.append(StoreBusy("locked"))
            stepped = self.start()
            for _ in range(steps):
                self.store.failures.append(StoreBusy("locked"))
                stepped.step()
            self.assertEqual(self.files(), ["moves.live", "moves.live.recovering"])
            self.kill(stepped)
            self.store.failures.clear()
        # There is never more than the two: room for a third need not be there.
        live_file = LiveFile(self.path)
        self.assertIsNot(live_file.claim(self.store.identity), None)
        self.assertEqual(self.files(), ["moves.live.recovering"])
        live_file.close(clean=False)
        # Saved, and not yet forgotten.
        stepped = self.start()
        stepped.thread.persister.step()
        self.assertEqual(len(self.store.players), 2)
        self.assertEqual(self.files(), ["moves.live", "moves.live.recovering"])
        self.kill(stepped)
        before = dict(self.store.players)
        stepped = self.start()
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(stepped.join(2).state, PlayerState(2.0, 0.0))
        self.assertEqual(self.store.players, before)
        # Forgotten, and the next live file in use.
        stepped.service.update(2, PlayerState(4.0, 4.0))
        self.kill(stepped)
        stepped = self.start()
        stepped.settle()
        self.assertEqual(stepped.join(2).state, PlayerState(4.0, 4.0))

    def test_stopped_while_recovering(self) -> None:
        """A clean stop saves what was left first; one that cannot leaves it to the next start."""
        self.crash(p1=1.0)
        self.store.failures.extend([StoreBusy("locked")] * 3)
        stepped = self.start(stop_within=1.0)
        stepped.step()
        stopped = stepped.service.stopService()
        self.assertNoResult(stopped)
        stepped.reactor.advance(1.5)
        stepped.thread.run()
        stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertTrue(stepped.service.gave_up)
        self.assertIn("moves.live.recovering", self.files())
        self.store.failures.clear()
        stepped = self.start()
        self.successResultOf(stepped.stop())
        self.assertEqual(self.files(), ["moves.live"])
        self.assertEqual(self.store.players[1].values, (1.0, 0.0))

    def test_rows_that_are_refused(self) -> None:
        """A row that the store can never take does not keep players out for good."""
        self.crash(p1=1.0, p2=2.0, p3=3.0)
        write = self.store.write

        def picky(records: Any) -> Any:
            from playerstate.interfaces import RowRefused

            if 2 in records["session_id"].tolist():
                raise RowRefused("not this one")
            return write(records)

        self.store.write = picky
        stepped = self.start()
        for _ in range(8):
            stepped.step()
        self.flushLoggedErrors()
        self.assertEqual(sorted(self.store.players), [1, 3])
        self.assertEqual(stepped.join(3).state, PlayerState(3.0, 0.0))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
        self.assertEqual(len(self.log.having("player 2: not this one")), 1)
        self.flushLoggedErrors()

    def test_stop_waits_for_all_of_them(self) -> None:
        """A stop while a part of what was left is saved waits for the rest of it."""
        self.crash(p1=1.0, p2=2.0)
        write, calls = self.store.write, []

        def picky(records: Any) -> Any:
            from playerstate.interfaces import RowRefused

            calls.append(len(records))
            if len(records) == 2:
                raise RowRefused("not both")
            if 2 in records["session_id"].tolist() and len(calls) < 12:
                raise StoreBusy("locked")
            return write(records)

        self.store.write = picky
        stepped = self.start()
        stepped.step()
        self.assertEqual(list(self.store.players), [1])
        stopped = stepped.service.stopService()
        self.assertFalse(stepped.thread.persister._finishing)
        self.assertNoResult(stopped)
        while stepped.step() is not None:
            pass
        stepped.thread.run()
        stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertEqual(sorted(self.store.players), [1, 2])
        self.assertEqual(self.files(), ["moves.live"])

    def test_started_again_by_the_same_program(self) -> None:
        """A program that embeds the service may stop and start it."""
        stepped = self.start()
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertTrue(read_leftover(self.path).clean)
        stepped.service.startService()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())

    def test_reader_that_answers_later(self) -> None:
        """Where the reader is not at hand, the writer's guard compares."""
        self.crash(p1=1.0, p2=2.0)
        updated_at = remaining(self.path)[2][2]
        self.store.players[2] = Stored((9.0, 9.0), updated_at + 1)
        self.store.hold_loads()
        stepped = self.start()
        stepped.settle()
        self.store.held = None
        self.assertEqual(self.store.players[1].values, (1.0, 0.0))
        self.assertEqual(self.store.players[2].values, (9.0, 9.0))
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])


class SetAsideTests(RecoveryTestCase):
    """Live files that cannot be used are kept, and logged as critical; the start goes on."""

    def refuse_to_lose(self, content: bytes) -> None:
        """Start with this in the live file's place: it is set aside as it is."""
        stepped = self.start()
        self.assertEqual(stepped.join(1).restored, False)
        (aside,) = set(self.files()) - {"moves.live"}
        self.assertTrue(aside.startswith("moves.live."))
        with open(f"{self.directory}/{aside}", "rb") as file:
            self.assertEqual(file.read(), content)
        (line,) = self.log.having("was set aside as")
        self.assertIn(aside, line)
        self.successResultOf(stepped.stop())

    def content(self) -> bytes:
        """The live file's bytes."""
        with open(self.path, "rb") as file:
            return file.read()

    def replace(self, content: bytes) -> None:
        """Put something in the live file's place."""
        with open(self.path, "wb") as file:
            file.write(content)

    def levels_of_setting_aside(self) -> list[Any]:
        """Collects the levels of the log lines that report it, from now on."""
        levels: list[Any] = []

        def observe(event: Any) -> None:
            if "was set aside as" in event.get("log_format", ""):
                levels.append(event["log_level"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return levels

    def test_another_store(self) -> None:
        """One of another store."""
        self.crash(p1=1.0)
        content = bytearray(self.content())
        content[32:48] = b"of another store"
        self.replace(content)
        levels = self.levels_of_setting_aside()
        self.refuse_to_lose(bytes(content))
        self.assertEqual(levels, [LogLevel.critical])
        self.assertIn("holds 1 unsaved players of another store", self.log.having("set aside")[0])

    def test_nonsense(self) -> None:
        """A file that never was one is not ours to rename: the start is refused."""
        self.replace(b"a shopping list" * 1000)
        error = self.assertRaises(StoreUnusable, self.start)
        self.assertIn("exists and is not a live file; name another file", str(error))
        self.assertEqual(self.content(), b"a shopping list" * 1000)
        self.assertEqual(self.files(), ["moves.live"])

    def test_device(self) -> None:
        """Neither is a device, a pipe or a directory, which are not even opened."""
        os.mkfifo(self.path)
        error = self.assertRaises(StoreUnusable, self.start)
        self.assertIn("exists and is not a live file; name another file", str(error))
        os.unlink(self.path)
        os.mkdir(self.path)
        error = self.assertRaises(StoreUnusable, self.start)
        self.assertIn("exists and is not a live file; name another file", str(error))
        self.assertEqual(self.files(), ["moves.live"])

    def test_names_that_cannot_be(self) -> None:
        """A name that is no UTF-8, or leaves no room for those beside it, is refused."""
        for name, why in (("\udcff", "not UTF-8"), ("j" * 240, "too long")):
            error = self.assertRaises(
                ValueError, PlayerStateService, self.store, live_file=f"{self.directory}/{name}"
            )
            self.assertIn(why, str(error))

    def test_zeros(self) -> None:
        """One whose pages never came to disk."""
        self.replace(bytes(8192))
        self.refuse_to_lose(bytes(8192))

    def test_truncated(self) -> None:
        """One that was cut."""
        self.crash(p1=1.0)
        self.replace(self.content()[:5000])
        self.refuse_to_lose(self.content())

    def test_another_format(self) -> None:
        """One of a format to come."""
        self.crash(p1=1.0)
        content = bytearray(self.content())
        content[8] = 2
        self.replace(bytes(content))
        self.refuse_to_lose(bytes(content))
        self.assertIn("format 2", self.log.having("set aside")[0])

    def test_damaged_fields(self) -> None:
        """One whose list of fields makes no sense."""
        self.crash(p1=1.0)
        content = bytearray(self.content())
        # x:float,y:float
        content[52:67] = b"x:float,x:float"
        self.replace(bytes(content))
        self.refuse_to_lose(bytes(content))

    def test_empty(self) -> None:
        """An empty file."""
        self.replace(b"")
        self.refuse_to_lose(b"")

    def test_clean_one_of_another_store(self) -> None:
        """One that holds nothing unsaved is not deleted either; the log line is not critical."""
        stepped = self.start()
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())
        content = bytearray(self.content())
        self.assertEqual(content[28], 1)
        content[32:48] = b"of another store"
        self.replace(bytes(content))
        levels = self.levels_of_setting_aside()
        self.start()
        self.assertEqual(levels, [LogLevel.info])
        (line,) = self.log.having("was set aside as")
        self.assertIn("holds no unsaved players of another store", line)
        (aside,) = [name for name in self.files() if name != "moves.live"]
        with open(f"{self.directory}/{aside}", "rb") as file:
            self.assertEqual(file.read(), bytes(content))


class Cutting:
    """A transport that cuts a file as soon as something is sent.

    Attributes:
        cuts: whether it is, for now.
        sent: what was sent, and to which player.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.cuts = False
        self.sent: list[tuple[int, bytes]] = []

    def send(self, session_id: int, peer: object, nonce: int, message: bytes) -> None:
        """Cut it."""
        self.sent.append((session_id, message))
        if self.cuts:
            os.truncate(self._path, 0)

    def end(self, session_id: int, peer: object) -> None:
        """Drop it."""


class LostTests(RecoveryTestCase):
    """The file is removed, replaced or written over while it is in use."""

    def moved(self) -> SteppedService:
        """A run with two players, of whom nothing is saved."""
        stepped = self.start(save_within=60.0)
        for player in (1, 2):
            stepped.join(player)
            stepped.service.update(player, PlayerState(float(player), 0.0))
        return stepped

    def check_renewed(self, stepped: SteppedService, why: str) -> None:
        """It is noticed and made anew; a move after that is found by the next start as well."""
        stepped.service.run.salvage.check()
        (line,) = self.log.having("it was made anew with the 2 players")
        self.assertIn(f"was {why} while it was in use", line)
        self.assertEqual(stepped.service._memory.lost(), "")
        stepped.service.update(2, PlayerState(22.0, 0.0))
        self.assertEqual({k: v[0] for k, v in remaining(self.path).items()}, {1: 1.0, 2: 22.0})
        error = self.assertRaises(StoreUnusable, LiveFile(self.path).claim, IDENTITY)
        self.assertIn("is in use by another process", str(error))
        self.successResultOf(stepped.stop())
        self.assertTrue(read_leftover(self.path).clean)
        self.assertEqual(self.store.players[2].values[0], 22.0)

    def test_untouched(self) -> None:
        """Nothing is done where nothing happened."""
        stepped = self.moved()
        before = os.stat(self.path).st_ino
        stepped.service.run.salvage.check()
        self.assertEqual(os.stat(self.path).st_ino, before)

    def test_removed(self) -> None:
        """Removed."""
        stepped = self.moved()
        os.unlink(self.path)
        self.check_renewed(stepped, "removed or renamed")

    def test_renamed_over(self) -> None:
        """What was put in its place is kept under a name of its own."""
        stepped = self.moved()
        with open(f"{self.directory}/other", "wb") as file:
            file.write(b"precious")
        os.rename(f"{self.directory}/other", self.path)
        self.check_renewed(stepped, "replaced by another file")
        (aside,) = set(self.files()) - {"moves.live"}
        with open(f"{self.directory}/{aside}", "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_header_written_over(self) -> None:
        """A header that the next start could make no sense of."""
        stepped = self.moved()
        with open(self.path, "r+b") as file:
            file.write(b"nonsense")
        self.check_renewed(stepped, "written over")

    def test_cannot_be_made(self) -> None:
        """It is tried again for as long as it cannot be made, and logged once."""
        stepped = self.moved()
        os.rename(self.directory, self.directory + ".away")
        for _ in range(3):
            stepped.service.run.salvage.check()
        (line,) = self.log.having("cannot be made anew")
        self.assertIn("No such file or directory", line)
        os.mkdir(self.directory)
        self.check_renewed(stepped, "removed or renamed")

    def test_degraded_while_it_cannot_be_made(self) -> None:
        """That is a trouble for as long as it lasts, and no longer."""
        stepped = self.moved()
        os.rename(self.directory, self.directory + ".away")
        stepped.service.run.salvage.check()
        self.assertIn("No such file", stepped.service.ledger.snapshot().degraded)
        self.assertIn("they are lost", stepped.service._memory.unsaved_notice)
        os.mkdir(self.directory)
        self.check_renewed(stepped, "removed or renamed")
        self.assertEqual(stepped.service.ledger.snapshot().degraded, "")
        self.assertIn("saves them from the live file", stepped.service._memory.unsaved_notice)

    def saved_and_moved(self) -> SteppedService:
        """A run with two players saved at their number, of whom 2 has moved on since."""
        stepped = self.moved()
        stepped.service.flush()
        stepped.settle()
        stepped.service.update(2, PlayerState(9.0, 0.0))
        return stepped

    def check_read_again(self, stepped: SteppedService, why: str) -> None:
        """An overwritten player gets the stored state, and nothing else is saved."""
        stepped.reactor.advance(1.5)
        self.assertIn(f"was {why} while", self.log.having("it was made anew")[0])
        self.assertIn("player 1, 2", self.log.having("cut off or written over")[0])
        for player in (1, 2):
            state = PlayerState(float(player), 0.0)
            self.assertEqual(stepped.service.state(player), state)
        stepped.service.update(1, PlayerState(5.0, 0.0))
        self.assertEqual({k: v[0] for k, v in remaining(self.path).items()}, {1: 5.0, 2: 2.0})
        self.successResultOf(stepped.stop())
        found = {k: v.values[0] for k, v in self.store.players.items()}
        self.assertEqual(found, {1: 5.0, 2: 2.0})
        self.assertTrue(read_leftover(self.path).clean)

    def test_cut_with_edits(self) -> None:
        """An edit whose row was cut off fails, whether the player is online or not."""
        stepped = self.saved_and_moved()
        edits = [stepped.service.edit(2), stepped.service.edit(3, create=True)]
        os.truncate(self.path, 0)
        stepped.reactor.advance(1.5)
        for player, edited in zip((2, 3), edits, strict=True):
            error = self.failureResultOf(edited, NotSaved).value
            lost = f"lost with the live file before it was saved: player {player}"
            self.assertEqual(str(error), lost)
        self.assertEqual(sorted(stepped.service.table.slots), [1, 2])
        self.assertEqual(stepped.service.run.leaves.by_slot, {})
        self.successResultOf(stepped.stop())
        self.assertNotIn(3, self.store.players)

    def test_cut_after_a_return(self) -> None:
        """A leave that a return has ended fails if its row was cut off before it was saved."""
        stepped = self.saved_and_moved()
        left = stepped.service.leave(2)
        stepped.join(2)
        os.truncate(self.path, 0)
        stepped.reactor.advance(1.5)
        error = self.failureResultOf(left, NotSaved).value
        self.assertIn("lost with the live file before it was saved: player 2", str(error))
        self.assertEqual(stepped.service.state(2), PlayerState(2.0, 0.0))
        self.successResultOf(stepped.stop())

    def test_cut(self) -> None:
        """Rows that were cut off are not touched again: that would kill the process."""
        stepped = self.saved_and_moved()
        os.truncate(self.path, 0)
        self.check_read_again(stepped, "cut or grown")

    def test_cut_before_any_touch(self) -> None:
        """Whatever is asked of the service next does not touch what was cut off.

        Where it does the process of the tests dies by SIGBUS.
        """
        touches: list[Callable[[PlayerStateService], object]] = [
            lambda service: service.update(2, PlayerState(9.0, 0.0)),
            lambda service: service.state(2),
            lambda service: service.progress(2),
            lambda service: service.leave(2),
            lambda service: service.join(2),
            lambda service: service.join(3),
            lambda service: service.flush(),
            lambda service: service.run.reopening.begin(),
            lambda service: service._gauges(),
            lambda service: service.stopService(),
        ]
        for touch in touches:
            self.setUp()
            stepped = self.saved_and_moved()
            os.truncate(self.path, 0)
            touch(stepped.service)
            stepped.reactor.advance(0.0)
            stepped.settle()
            self.successResultOf(stepped.stop())

    def test_cut_while_a_commit_is_under_way(self) -> None:
        """The commit report arrives before anything else checks the file."""
        stepped = self.moved()
        left = stepped.service.leave(1)
        stepped.reactor.advance(0.1)
        os.truncate(self.path, 0)
        stepped.settle()
        stepped.reactor.advance(1.5)
        self.successResultOf(left)
        self.successResultOf(stepped.stop())

    def test_cut_amid_many_messages(self) -> None:
        """A long batch of messages that are taken in one by one is looked after as it goes on."""
        stepped = self.start(save_within=60.0)
        gateway, codec, transport = Gateway(stepped.service), Codec(SCHEMA), Cutting(self.path)
        gateway.start()
        players = range(1, 3 * LOOK_EVERY + 1)
        for player in players:
            gateway.received_many(transport, [player], [player], [codec.encode_join(7, 0)], 0)
        stepped.reactor.advance(1.0)
        messages = [encode_numbered(PING, 0) for _ in range(LOOK_EVERY)]
        messages += [codec.encode_move(1, (9.0, 9.0)) + b"x" for _ in range(LOOK_EVERY)]
        messages += [encode_numbered(PING, 0) for _ in range(LOOK_EVERY)]
        messages[: LOOK_EVERY - 1] = [b"?"] * (LOOK_EVERY - 1)
        transport.cuts = True
        gateway.received_many(transport, players, players, messages, 0)
        transport.cuts = False
        self.assertEqual(len(self.log.having("it was made anew")), 0)
        stepped.reactor.advance(0.0)
        self.assertEqual(len(self.log.having("it was made anew")), 1)
        self.successResultOf(stepped.stop())

    def test_cut_amid_many_receipts(self) -> None:
        """Receipts that are due together are sent without a touch of the rows in between."""
        stepped = self.start(save_within=60.0)
        gateway, codec, transport = Gateway(stepped.service), Codec(SCHEMA), Cutting(self.path)
        gateway.start()
        players = range(1, 3 * LOOK_EVERY + 1)
        for player in players:
            gateway.received_many(transport, [player], [player], [codec.encode_join(7, 0)], 0)
        stepped.reactor.advance(1.0)
        messages = [codec.encode_move(player, (float(player), 9.0)) for player in players]
        gateway.received_many(transport, players, players, messages, 0)
        transport.cuts, transport.sent = True, []
        stepped.reactor.advance(0.02)
        shown = [(player, codec.decode_server(message)) for player, message in transport.sent]
        # As many a tick as spread over the period of receipts.
        self.assertEqual(shown, [(player, Receipt(player, 0)) for player in range(1, 11)])
        transport.cuts = False
        self.successResultOf(stepped.stop())

    def test_cut_while_many_moves_are_judged(self) -> None:
        """Moves taken in together are held to their bounds before the file is looked at.

        Where they do the process of the tests dies by SIGBUS.
        """
        stepped = self.start(save_within=60.0)
        gateway, codec = Gateway(stepped.service), Codec(SCHEMA)
        gateway.start()
        self.addCleanup(gateway.close)
        transport, players = Mute(), range(1, BATCH_MIN + 1)
        joins = [codec.encode_join(7, 0)] * BATCH_MIN
        gateway.received_many(transport, players, players, joins, 0)
        accept_many = StateSchema.accept_many

        def cut_and_accept(schema: StateSchema, fields: Any) -> Any:
            os.truncate(self.path, 0)
            return accept_many(schema, fields)

        self.patch(StateSchema, "accept_many", cut_and_accept)
        moves = [codec.encode_move(1, (9.0, 9.0))] * BATCH_MIN
        gateway.received_many(transport, players, players, moves, 0)
        self.assertEqual(stepped.service.ledger.applied, BATCH_MIN)
        stepped.reactor.advance(0.0)
        self.assertEqual(len(self.log.having("it was made anew")), 1)
        self.successResultOf(stepped.stop())

    def test_cut_is_mended_at_once(self) -> None:
        """Once noticed, the file is made anew in the next turn, not at the next check."""
        stepped = self.saved_and_moved()
        os.truncate(self.path, 0)
        stepped.service.update(2, PlayerState(7.0, 0.0))
        stepped.reactor.advance(0.0)
        self.assertEqual({k: v[0] for k, v in remaining(self.path).items()}, {1: 1.0, 2: 7.0})
        self.successResultOf(stepped.stop())

    def test_copied_over(self) -> None:
        """Another run's file, with the same players in the same places and the same header."""
        for first_version in (0, 2**60):
            self.setUp()
            self.copy_over(first_version)

    def copy_over(self, first_version: int) -> None:
        """Copy a file over ours whose rows have these versions."""
        stepped = self.saved_and_moved()
        places = stepped.service.options.max_players
        other = LiveFile(f"{self.directory}/other")
        room = other.open(SCHEMA, places, read_leftover(self.path).identity)
        table = LiveTable(SCHEMA, places, lambda: 0.0, room, first_version=first_version)
        for player in (1, 2):
            slot = table.admit(player, (0.0, 0.0), 0)
            table.start_generation(slot, 0)
            table.apply(slot, 1, (66.0, 66.0), 2**60)
        other.close(False)
        shutil.copyfile(f"{self.directory}/other", self.path)
        os.unlink(f"{self.directory}/other")
        self.check_read_again(stepped, "written over")

    def test_copied_over_before_a_sweep(self) -> None:
        """A sweep checks first: rows that another process wrote are not saved as a player's."""
        stepped = self.saved_and_moved()
        stepped.service.update(1, PlayerState(8.0, 0.0))
        with open(self.path, "r+b") as file:
            file.write(bytes(PAGE + 128))
        self.check_first_lost(stepped)

    def check_first_lost(self, stepped: SteppedService) -> None:
        """The first player has what the store held, the second, whose row is whole, the newest."""
        stepped.service.flush()
        stepped.settle()
        self.assertEqual(self.store.players[1].values[0], 1.0)
        self.assertEqual(self.store.players[2].values[0], 9.0)
        self.assertEqual(sorted(self.store.players), [1, 2])
        self.successResultOf(stepped.stop())

    def test_half_that_does_not_count(self) -> None:
        """The next start does not find a foreign row beside one of ours."""
        stepped = self.saved_and_moved()
        stepped.service.update(1, PlayerState(8.0, 0.0))
        table = stepped.service.table
        behind = int(table._places[table.slots[2]]) ^ 1
        with open(self.path, "r+b") as file:
            file.write(bytes(PAGE + 128))
            # A half of the second that does not count, newer by its version.
            file.seek(PAGE + 64 * behind)
            row = (2**61, 2, table.slots[2], 1, 2**60, 99, 66.0, 66.0, 2**61)
            file.write(struct.pack("<QqIIqQddQ", *row))
        stepped.service.run.salvage.check()
        self.assertEqual(remaining(self.path)[2][0], 9.0)
        self.check_first_lost(stepped)

    def test_older_copy_of_itself(self) -> None:
        """A copy made before the last check is detected, though its header is the same."""
        stepped = self.moved()
        shutil.copyfile(self.path, f"{self.directory}/older")
        stepped.service.run.salvage.check()
        shutil.copyfile(f"{self.directory}/older", self.path)
        os.unlink(f"{self.directory}/older")
        self.check_renewed(stepped, "written over")

    def test_store_that_cannot_be_read(self) -> None:
        """It is asked again until it answers; a move meanwhile is not overwritten."""
        stepped = self.saved_and_moved()
        os.truncate(self.path, 0)
        load = stepped.service.run.reopening._reader.load

        def busy(session_id: int) -> Any:
            raise StoreBusy("locked")

        self.patch(stepped.service.run.reopening._reader, "load", busy)
        stepped.service.run.salvage.check()
        stepped.service.update(2, PlayerState(7.0, 0.0))
        self.patch(stepped.service.run.reopening._reader, "load", load)
        stepped.service.run.salvage.check()
        self.assertEqual(stepped.service.state(1), PlayerState(1.0, 0.0))
        self.assertEqual(stepped.service.state(2), PlayerState(7.0, 0.0))
        self.successResultOf(stepped.stop())

    def test_stop_that_gives_up(self) -> None:
        """A stop that gave up leaves a file that is not clean, made anew if it was lost."""
        stepped = self.moved()

        def busy(records: Any) -> Any:
            raise StoreBusy("locked")

        self.store.write = busy  # type: ignore[method-assign]
        os.unlink(self.path)
        stopped = stepped.stop()
        stepped.reactor.advance(31.0)
        stepped.settle()
        self.successResultOf(stopped)
        self.assertTrue(stepped.service.gave_up)
        leftover = read_leftover(self.path)
        self.assertFalse(leftover.clean)
        self.assertEqual(len(leftover.records), 2)

    def stopped_in_vain(self, stepped: SteppedService) -> None:
        """A stop gives up, and the next start finds what the store that is there now has not."""
        self.store.players.clear()
        self.successResultOf(stepped.stop())
        self.assertTrue(stepped.service.gave_up)
        self.assertIn("the next start saves them", self.log.having("newest state unsaved")[0])
        self.assertFalse(read_leftover(self.path).clean)
        again = self.start()
        again.settle()
        self.assertEqual(again.join(2).state, PlayerState(2.0, 0.0))
        self.successResultOf(again.stop())
        self.assertTrue(read_leftover(self.path).clean)

    def test_stop_whose_last_sync_finds_another_store(self) -> None:
        """All was saved, but into a store that is no more."""
        stepped = self.moved()
        stepped.service.flush()
        stepped.settle()
        sync = self.store.sync

        def replaced() -> None:
            self.store.sync = sync  # type: ignore[method-assign]
            raise StoreReplaced("removed or replaced")

        self.store.sync = replaced  # type: ignore[method-assign]
        self.stopped_in_vain(stepped)

    def test_stop_that_syncs_another_store(self) -> None:
        """A store switched to at the last moment syncs, but holds no players."""
        stepped = self.moved()
        stepped.service.flush()
        stepped.settle()
        persister = stepped.thread.persister
        live = persister._live

        def late() -> None:
            live()
            persister._note_replaced(StoreReplaced("removed or replaced"))
            stepped.reactor.deliver()

        self.patch(persister, "_live", late)
        self.stopped_in_vain(stepped)

    def test_timer(self) -> None:
        """It is looked at without being asked."""
        stepped = self.moved()
        os.unlink(self.path)
        stepped.reactor.advance(1.5)
        self.assertTrue(os.path.exists(self.path))


class SQLiteRecoveryTests(RecoveryTestCase):
    """The same with a database."""

    def sqlite(self, state: type = PlayerState, synchronous: str = "normal") -> SQLiteStore:
        """The database's store."""
        return SQLiteStore(f"{self.directory}/players.db", StateSchema.of(state), synchronous)

    def test_recovers(self) -> None:
        """Applied and unsaved updates are in the database before any player can join."""
        stepped = self.start(self.sqlite())
        for session_id in (1, 2):
            stepped.join(session_id)
            stepped.service.update(session_id, PlayerState(session_id / 3, 0.0))
        stepped.service.flush().addErrback(lambda _: None)
        stepped.settle()
        stepped.service.update(2, PlayerState(0.1, 0.2))
        self.kill(stepped)
        stepped = self.start(self.sqlite())
        self.failureResultOf(stepped.service.join(2), StoreBusy)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1 / 3, 0.0))
        self.assertEqual(stepped.join(2).state, PlayerState(0.1, 0.2))
        self.assertIn("of 2 players in its live file, 1 are newer", self.log.having("cleanly")[0])
        self.successResultOf(stepped.stop())

    def test_refused_migration(self) -> None:
        """A state class that does not fit the database leaves the live file for one that does."""
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 2.0))
        self.kill(stepped)
        with open(self.path, "rb") as file:
            content = file.read()
        wrong = attrs.make_class("Wrong", {"x": attrs.field(default=1, type=int)}, frozen=True)
        for _ in range(2):
            error = self.assertRaises(StoreUnusable, self.start, self.sqlite(wrong), state=wrong)
            self.assertIn("field x is int now", str(error))
        (left,) = {"moves.live", "moves.live.recovering"} & set(self.files())
        with open(f"{self.directory}/{left}", "rb") as file:
            self.assertEqual(file.read(), content)
        stepped = self.start(self.sqlite())
        stepped.settle()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 2.0))
        self.successResultOf(stepped.stop())

    def test_new_field(self) -> None:
        """The start that adds a column recovers the rows of the class before."""
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(1.0, 2.0))
        self.kill(stepped)
        grown = attrs.make_class(
            "Grown",
            {
                "hp": attrs.field(default=100, type=int),
                "y": attrs.field(default=0.0, type=float),
            },
            frozen=True,
        )
        stepped = self.start(self.sqlite(grown), state=grown)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, grown(100, 2.0))
        self.successResultOf(stepped.stop())

    def test_database_of_earlier_days(self) -> None:
        """A live file is not for a database restored from before the run that wrote it."""
        for x in (1.0, 2.0):
            stepped = self.start(self.sqlite())
            stepped.join(1)
            stepped.service.update(1, PlayerState(x, 0.0))
            if x == 1.0:
                self.successResultOf(stepped.stop())
                shutil.copy(f"{self.directory}/players.db", f"{self.directory}/backup")
        self.kill(stepped)
        os.replace(f"{self.directory}/backup", f"{self.directory}/players.db")
        for ending in ("-wal", "-shm"):
            if os.path.exists(f"{self.directory}/players.db{ending}"):
                os.unlink(f"{self.directory}/players.db{ending}")
        stepped = self.start(self.sqlite())
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(len(self.log.having("before it was restored")), 1)
        self.successResultOf(stepped.stop())

    def test_clean_stop_syncs_before_it_says_so(self) -> None:
        """The log is copied into the database and all of it synced; then the header says clean."""
        clean: list[bool] = []
        sync = SQLiteWriter.sync

        def watched(writer: SQLiteWriter) -> None:
            sync(writer)
            clean.append(read_leftover(self.path).clean)
            # The database alone has everything by now.
            connection = apsw.Connection(
                f"file:{self.directory}/players.db?immutable=1",
                flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            )
            clean.append(connection.execute("SELECT x FROM player_state").get == 6.0)
            connection.close()

        self.patch(SQLiteWriter, "sync", watched)
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(6.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertEqual(clean, [False, True])
        self.assertTrue(read_leftover(self.path).clean)

    def test_stop_that_cannot_sync(self) -> None:
        """After a failed sync the live file is not marked clean."""

        def fail(writer: SQLiteWriter) -> None:
            raise OSError(5, "Input/output error")

        self.patch(SQLiteWriter, "sync", fail)
        stepped = self.start(self.sqlite())
        stepped.join(1)
        stepped.service.update(1, PlayerState(6.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertFalse(read_leftover(self.path).clean)
        self.flushLoggedErrors(OSError)

    def test_sync_beside_a_reader(self) -> None:
        """While another connection reads an older snapshot, a sync reaches the log instead."""
        store = self.sqlite()
        stepped = self.start(store)
        stepped.join(1)
        stepped.service.update(1, PlayerState(6.0, 0.0))
        stepped.service.flush()
        stepped.settle()
        reader = apsw.Connection(f"{self.directory}/players.db")
        self.addCleanup(reader.close)
        reader.execute("BEGIN; SELECT count(*) FROM player_state").get  # noqa: B018
        stepped.service.update(1, PlayerState(7.0, 0.0))
        stepped.service.flush()
        stepped.settle()
        synced: list[str] = []
        fsync = os.fsync

        def watched(fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            fsync(fd)

        self.patch(os, "fsync", watched)
        stepped.thread.persister._writer.sync()
        self.assertEqual(synced, [f"{self.directory}/players.db-wal"])
        self.successResultOf(stepped.stop())

    def test_deadline_of_stopping(self) -> None:
        """What the store did not take in time stays in the live file for the next start."""
        live = LiveService(
            self.sqlite(synchronous="full"), save_within=0.2, stop_within=0.3, live_file=self.path
        )
        live.join(1, 2)
        live.service.update(1, PlayerState(1.0, 1.0))
        live.flush()
        holder = apsw.Connection(f"{self.directory}/players.db")
        self.addCleanup(holder.close)
        holder.execute("BEGIN IMMEDIATE")
        live.service.update(2, PlayerState(2.0, 2.0))
        live.stop()
        self.assertTrue(live.service.gave_up)
        self.assertFalse(read_leftover(self.path).clean)
        (line,) = self.log.having("unsaved of player 2;")
        self.assertIn(f"the next start saves them from the live file {self.path}", line)
        holder.execute("ROLLBACK")
        del live
        stepped = self.start(self.sqlite())
        stepped.settle()
        self.assertEqual(stepped.join(2).state, PlayerState(2.0, 2.0))
        self.successResultOf(stepped.stop())

    def unclean(self) -> str:
        """A database whose last run was killed with its live file beside it; its path."""
        database = f"{self.directory}/players.db"
        self.path = f"{database}.live"
        self.store = SQLiteStore(database, SCHEMA)
        self.crash(p1=1.0)
        return database

    def test_started_without_it(self) -> None:
        """A start that would pass over unsaved players is refused, with or without a live file."""
        database = self.unclean()
        for live_file in (None, f"{self.directory}/other"):
            store = SQLiteStore(database, SCHEMA)
            service = PlayerStateService(store, live_file=live_file)
            error = self.assertRaises(StoreUnusable, service.startService)
            self.assertIn(f"the live file {self.path} holds 1 players of this store", str(error))
        os.rename(self.path, self.path + RECOVERING)
        service = PlayerStateService(SQLiteStore(database, SCHEMA))
        self.assertRaises(StoreUnusable, service.startService)
        stepped = self.start(SQLiteStore(database, SCHEMA))
        stepped.step()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())
        stepped = SteppedService(store=SQLiteStore(database, SCHEMA))  # a clean one is no matter
        self.successResultOf(stepped.stop())

    def test_started_by_another_name(self) -> None:
        """A symbolic link to the database, or to its directory, is the database itself."""
        database = self.unclean()
        link = f"{self.directory}/link.db"
        os.symlink(database, link)
        store = open_store(f"sqlite:{link}", SCHEMA)
        self.assertEqual(store.path, os.path.realpath(database))
        stepped = SteppedService(store=store, live_file=f"{store.path}.live")
        stepped.step()
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.successResultOf(stepped.stop())

    def live(self, *arguments: str) -> Any:
        """What ``playerstate live`` makes of these arguments."""
        return CliRunner().invoke(main, ["live", *arguments], prog_name="playerstate")

    def test_applied_by_a_command(self) -> None:
        """What was left can be looked into, and saved where the store has nothing newer."""
        database = self.unclean()
        url = f"sqlite:{database}"
        os.rename(self.path, f"{self.path}.aside")
        stepped = SteppedService(store=SQLiteStore(database, SCHEMA))  # a new identity
        stepped.join(2)
        stepped.service.update(2, PlayerState(2.0, 0.0))
        aside = f"{self.path}.aside"
        shown = self.live("show", aside, "--json")
        (row,) = json.loads(shown.output)["rows"]
        self.assertEqual((row["session_id"], row["x"]), (1, 1.0))
        self.assertIn("session_id=1 x=1.0", self.live("show", aside).output)
        refused = self.live("apply", aside, url)
        self.assertEqual(refused.exit_code, 1)
        self.assertIn("is in use by process", refused.output)
        self.successResultOf(stepped.stop())
        self.assertFalse(read_leftover(aside).clean)
        applied = self.live("apply", aside, url)
        self.assertIn("1 of 1 players applied, 0 outdated", applied.output)
        self.assertTrue(read_leftover(aside).clean)
        again = self.live("apply", aside, url)
        self.assertIn("0 of 1 players applied, 1 outdated", again.output)
        stepped = SteppedService(store=SQLiteStore(database, SCHEMA))
        self.assertEqual(stepped.join(1).state, PlayerState(1.0, 0.0))
        self.assertEqual(stepped.join(2).state, PlayerState(2.0, 0.0))
        stepped.service.update(1, PlayerState(5.0, 0.0))
        self.successResultOf(stepped.stop())
        self.assertIn("0 of 1 players applied", self.live("apply", aside, url).output)

    def test_row_that_cannot_be_applied(self) -> None:
        """Where the store can never take a row, the command names the player and the reason."""
        database = self.unclean()
        os.rename(self.path, f"{self.path}.aside")
        with contextlib.closing(apsw.Connection(database)) as connection:
            connection.execute(
                "CREATE TRIGGER curse BEFORE INSERT ON player_state BEGIN"
                " SELECT RAISE(ABORT, 'cursed'); END"
            )
        refused = self.live("apply", f"{self.path}.aside", f"sqlite:{database}")
        self.assertEqual(refused.exit_code, 1)
        self.assertIn("cannot take player 1: cursed; see to that", refused.output)
        self.assertFalse(read_leftover(f"{self.path}.aside").clean)

    def test_command_refuses(self) -> None:
        """One in use, no live file, no file, no database: one line each, and nothing changes."""
        database = self.unclean()
        missing = f"sqlite:{self.directory}/missing.db"
        for arguments, why in (
            (("apply", self.path, missing), "is no database that exists"),
            (("apply", self.path, "memory:"), "is no database that exists"),
            (("show", database), "is not a live file"),
            (("show", f"{self.directory}/missing"), "cannot read"),
        ):
            result = self.live(*arguments)
            self.assertEqual(result.exit_code, 1, arguments)
            self.assertIn(why, result.output)
            self.assertEqual(result.output.count("\n"), 1)
        self.assertFalse(os.path.exists(f"{self.directory}/missing.db"))
        self.assertFalse(read_leftover(self.path).clean)
        stepped = self.start(SQLiteStore(database, SCHEMA))
        self.assertIn("is in use by another process", self.live("show", self.path).output)
        self.successResultOf(stepped.stop())

    def test_no_live_file(self) -> None:
        """Without one nothing is left, and the log says what that means."""
        service = SteppedService(store=self.store, stop_within=0.0).service
        self.assertIsInstance(service._memory, AnonymousMemory)
        self.assertEqual(self.files(), [])
        self.assertEqual(service._memory.unsaved_notice, "they are lost")


class StepsTests(RecoveryTestCase):
    """A live file with room for more players than use it."""

    def setUp(self) -> None:
        """Steps that are soon taken."""
        super().setUp()
        for module in (table_module, live_file_module):
            self.patch(module, "FIRST_PLACES", 64)

    def test_allocated_as_it_is_used(self) -> None:
        """Places take no disk before they are used, and all that are used are found again."""
        stepped = self.start(max_players=2**20)
        before = os.stat(self.path)
        self.assertEqual(before.st_size, PAGE + 128 * 2**20)
        self.assertLess(before.st_blocks * 512, 65_536)
        for player in range(1, 202):
            stepped.join(player)
            stepped.service.update(player, PlayerState(float(player), 0.0))
        self.assertGreaterEqual(os.stat(self.path).st_blocks * 512, PAGE + 256 * 128)
        self.assertEqual(stepped.service.table.room, 256)
        self.kill(stepped)
        reads: list[int] = []
        newest = leftover_module._newest_whole

        def counting(halves: Any) -> Any:
            reads.append(len(halves))
            return newest(halves)

        self.patch(leftover_module, "_newest_whole", counting)
        self.assertEqual(len(remaining(self.path)), 201)
        self.assertEqual(reads, [2 * 256])

    def test_no_room_for_a_step(self) -> None:
        """A player refused for lack of room may try again; no other player is affected."""
        stepped = self.start(max_players=1000)
        for player in range(1, 65):
            stepped.join(player)

        def full(*arguments: int) -> None:
            raise OSError(28, "No space left on device")

        patched = self.patch(os, "posix_fallocate", full)
        for _ in range(2):
            failure = self.failureResultOf(stepped.service.join(65), StoreBusy)
            self.assertIn("make room", failure.getErrorMessage())
        self.assertEqual(len(stepped.service.table), 64)
        patched.restore()
        stepped.join(65)
        self.successResultOf(stepped.stop())

    def test_file_of_an_earlier_version(self) -> None:
        """One that does not record how many slots were used is read whole."""
        self.crash(p1=1.0)
        with open(self.path, "r+b") as file:
            file.seek(PAGE - 16)
            file.write(bytes(16))
        self.assertEqual(len(remaining(self.path)), 1)


class RoomTests(SynchronousTestCase):
    """A live file for which there is no room is a refusal to start, with one line."""

    START = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from playerstate import PlayerState, StateSchema\n"
        "from playerstate.interfaces import StoreUnusable\n"
        "from playerstate.live.file import LiveFile\n"
        "try:\n"
        "    LiveFile(sys.argv[1]).open(StateSchema.of(PlayerState), 10_000, bytes(16))\n"
        "except StoreUnusable as error:\n"
        "    print(error)\n"
    )

    def test_limit_of_a_file(self) -> None:
        """A limit on the size of a file."""
        path = os.path.abspath(self.mktemp())
        done = subprocess.run(
            [sys.executable, "-c", self.START.format(limit=65_536), path],
            env=os.environ | UNMEASURED,
            capture_output=True,
            text=True,
            timeout=20,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"cannot make the live file {path} of 1284096 bytes", done.stdout)
        self.assertIn("File too large", done.stdout)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        self.assertFalse(os.path.exists(path))
        self.assertNotEqual(resource.getrlimit(resource.RLIMIT_FSIZE)[0], 65_536)

    def test_full_disk(self) -> None:
        """A file system with too little room: nothing is left there."""
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", directory], capture_output=True
        )
        if mounted.returncode:
            raise SkipTest("a file system can only be mounted by root")
        self.addCleanup(subprocess.run, ["umount", directory], check=True)
        live_file = f"{directory}/moves.live"
        error = self.assertRaises(
            StoreUnusable, LiveFile(live_file).open, SCHEMA, 10_000, bytes(16)
        )
        self.assertIn("No space left on device; make room", str(error))
        self.assertEqual(os.listdir(directory), [])
        store = FaultyStore(SCHEMA)
        closed: list[bool] = []
        store.close = lambda: closed.append(True)  # type: ignore[method-assign]
        self.assertRaises(StoreUnusable, SteppedService, store=store, live_file=live_file)
        # The reader's end and the store itself.
        self.assertEqual(closed, [True, True])
        smaller = LiveFile(live_file)
        self.assertEqual(len(smaller.open(SCHEMA, 100, bytes(16))), 100 * 128)
        smaller.close(False)

    def test_no_such_directory(self) -> None:
        """A directory that is missing."""
        path = os.path.abspath(self.mktemp()) + "/nowhere/moves.live"
        error = self.assertRaises(StoreUnusable, LiveFile(path).open, SCHEMA, 10, bytes(16))
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertIn("No such file or directory", str(error))
