"""What a process that is killed leaves in its live file, and reading it."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Callable

import attrs
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate import StateSchema, text
from playerstate.live import leftover as leftover_module
from playerstate.live.leftover import PAGE, NotALiveFile, read_leftover
from playerstate.live.table import LiveTable, TableFull
from playerstate.state.layout import RowLayout
from tests.kit.livefiles import IDENTITY, Avatar, make_table, remaining
from tests.kit.players import SCHEMA

STORED_AT = 1_600_000_000_000_000


@attrs.frozen
class Wide:
    """A state whose half takes 512 bytes."""

    x: float = 0.0
    notes: str = attrs.field(default="", metadata=text(400))


class TornWriteTests(SynchronousTestCase):
    """A process killed between any two machine instructions of a write."""

    def torn(self, schema: StateSchema, step: Callable[[LiveTable, int], object]) -> None:
        """Every state of the file that a kill inside `step` may leave shows the old or new row."""
        path = self.mktemp()
        table = make_table(path, schema, 2)
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
        table = make_table(path, SCHEMA, 1)
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
        table = make_table(path, SCHEMA, 1)
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
        table = make_table(path, SCHEMA, 4)
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
                model[session_id] = (value, -value, max(stamp, last + 1 + (last + 1 ^ stamp) % 2))
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
            table = make_table(path, SCHEMA, 64)
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


def left(path: str) -> str:
    """A live file with one player in it; its path."""
    table = make_table(path, StateSchema.of(Avatar), 4)
    slot = table.admit(7, StateSchema.of(Avatar).spawn, 0)
    table.apply(slot, 1, (2.0, 3, 0, b"mill".ljust(16, b"\0")), 77)
    return path


class ReadTests(SynchronousTestCase):
    """Which rows of a live file are read."""

    def test_read_in_pieces(self) -> None:
        """Rows of every piece are found, in the first and the last slot of it as well."""
        self.patch(leftover_module, "SLOTS_AT_ONCE", 3)
        path = self.mktemp()
        table = make_table(path, SCHEMA, 20)
        for player in range(1, 12):
            slot = table.admit(player, (0.0, 0.0), 0)
            table.apply(slot, 1, (float(player), 2.0), 3)
        found = remaining(path)
        self.assertEqual({k: v[0] for k, v in found.items()}, {n: float(n) for n in range(1, 12)})

    def test_open_file(self) -> None:
        """An open live file is read, whatever file has its name now."""
        path = left(self.mktemp())
        fd = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        expected = read_leftover(path).records.tolist()
        os.unlink(path)
        for _ in range(2):
            self.assertEqual(read_leftover(fd).records.tolist(), expected)

    def test_file_of_an_earlier_version(self) -> None:
        """One that does not record how many slots were used is read whole."""
        path = left(self.mktemp())
        with open(path, "r+b") as file:
            file.seek(PAGE - 16)
            file.write(bytes(16))
        self.assertEqual(list(remaining(path)), [7])


class NonsenseTests(SynchronousTestCase):
    """Files that are no live files."""

    def test_header_is_checked(self) -> None:
        """Each part of the header by itself makes a file no live file."""
        path = self.mktemp()
        make_table(path, SCHEMA, 2)
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

    @settings(max_examples=300, deadline=None)
    @given(st.integers(0, 150), st.integers(1, 255))
    def test_damaged_header(self, at: int, mask: int) -> None:
        """A header with one byte wrong is read as something, or is no live file: nothing else."""
        path = left(self.mktemp())
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ mask]))
        with contextlib.suppress(NotALiveFile):
            read_leftover(path)

    def test_cut_while_it_is_read(self) -> None:
        """A file that is cut after the look at its size is no live file: no row is read twice."""
        path, look = left(self.mktemp()), os.fstat

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
        path = left(self.mktemp())
        size = os.path.getsize(path)
        for length in [*range(0, 120), 4095, 4096, 4097, 4096 + 128, size - 128, size - 1]:
            cut = self.mktemp()
            shutil.copy(path, cut)
            os.truncate(cut, length)
            self.assertRaises(NotALiveFile, read_leftover, cut)
