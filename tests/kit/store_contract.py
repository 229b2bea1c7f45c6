"""What every store must do, whatever it keeps the players in."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from playerstate.interfaces import (
    Erased,
    IErasableStore,
    IStateReader,
    IStateStore,
    IStateWriter,
    LeftOut,
    Stored,
    erasable_store,
    file_store,
)
from playerstate.state.layout import RowLayout
from playerstate.state.schema import StateSchema
from playerstate.stores.memory import MemoryStore
from tests.kit.databases import EVERYTHING, IDENTITY, PLAIN, records, spawned, state_class, take
from tests.kit.support import LAW


class StoreContract:
    """The tests; a subclass says how its store is opened."""

    def open(self, schema: StateSchema) -> IStateStore:
        """The store, opened the first time or again on what it kept."""
        raise NotImplementedError

    def start(self, schema: StateSchema = PLAIN) -> None:
        """Open the store and both its ends, to be closed after the test."""
        self.store = self.open(schema)
        take(self.store)
        self.reader = self.store.open_reader()
        self.writer: IStateWriter | None = self.store.open_writer()
        self.ends = ExitStack()
        self.ends.callback(self.store.close)
        self.ends.callback(self.reader.close)
        self.ends.callback(self.close_writer)
        self.addCleanup(self.ends.close)

    def close_writer(self) -> None:
        """Close the writer, if the test has not."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()

    def write(self, *players: tuple[Any, ...]) -> list[int]:
        """Write players, given as (session id, plain values, updated_at), in one batch."""
        left_out = self.writer.write(records(self.store.schema, *players))
        self.assertEqual(len(left_out), len(left_out.newer))
        return sorted(left_out.newer.tolist())

    def assert_kept(self, schema: StateSchema, *plain: Any) -> None:
        """These values come back as they are, and of the same types."""
        self.start(schema)
        self.write((7, *plain, 1))
        values = self.reader.load(7).values
        self.assertEqual(values, plain)
        self.assertEqual([type(value) for value in values], [type(value) for value in plain])

    def test_interfaces(self) -> None:
        """The store and both its ends provide what they say."""
        self.start()
        self.assertTrue(verifyObject(IStateStore, self.store))
        self.assertTrue(verifyObject(IStateReader, self.reader))
        self.assertTrue(verifyObject(IStateWriter, self.writer))

    def test_erase(self) -> None:
        """An erased player is as one who never was, the others stay; a second time finds none."""
        self.start()
        self.write((7, 1.0, 2.0, 5), (8, 3.0, 4.0, 6))
        store = erasable_store(self.store)
        if store is None:
            self.skipTest("this store cannot erase")
        self.assertTrue(verifyObject(IErasableStore, store))
        self.assertEqual(store.erase(7), Erased(stored=1, quarantined=0))
        self.assertEqual(store.erase(7), Erased(stored=0, quarantined=0))
        self.assertIsNone(self.reader.load(7))
        self.assertEqual(self.reader.load(8), Stored((3.0, 4.0), 6))
        self.assertEqual(self.write((7, 5.0, 6.0, 1)), [])

    def test_schema(self) -> None:
        """A store knows the schema of its players."""
        self.assertIs(self.open(PLAIN).schema, PLAIN)

    def test_describe(self) -> None:
        """A store describes itself in a line."""
        described = self.open(PLAIN).describe()
        self.assertEqual(len(described.splitlines()), 1)

    def test_unknown_player(self) -> None:
        """A player who was never saved is None."""
        self.start()
        self.assertIsNone(self.reader.load(42))

    def test_load(self) -> None:
        """A player comes back as saved, with the time of the update."""
        self.start()
        self.write((42, 1.5, -2.5, 1_700_000_000_000_000))
        self.assertEqual(self.reader.load(42), Stored((1.5, -2.5), 1_700_000_000_000_000))

    def test_each_player(self) -> None:
        """Each player of a batch comes back under their own id."""
        self.start()
        self.assertEqual(self.write((1, 1.0, 1.5, 11), (2, 2.0, 2.5, 12), (3, 3.0, 3.5, 13)), [])
        self.assertEqual(self.reader.load(1), Stored((1.0, 1.5), 11))
        self.assertEqual(self.reader.load(2), Stored((2.0, 2.5), 12))
        self.assertEqual(self.reader.load(3), Stored((3.0, 3.5), 13))
        self.assertIsNone(self.reader.load(4))

    def test_newer(self) -> None:
        """A newer record takes the place of the stored one, in every field."""
        self.start(EVERYTHING)
        self.write((42, 1.0, 1, True, "a", 2.0, 10))
        self.assertEqual(self.write((42, -1.0, -1, False, "b", -2.0, 11)), [])
        self.assertEqual(self.reader.load(42), Stored((-1.0, -1, False, "b", -2.0), 11))

    def test_same_age(self) -> None:
        """A record of the same age is written again."""
        self.start()
        self.write((42, 1.0, 1.0, 10))
        self.assertEqual(self.write((42, 2.0, 2.0, 10)), [])
        self.assertEqual(self.reader.load(42), Stored((2.0, 2.0), 10))

    def test_older(self) -> None:
        """An older record is left out, and its position told."""
        self.start()
        self.write((42, 1.0, 1.0, 10))
        self.assertEqual(self.write((42, 2.0, 2.0, 9)), [0])
        self.assertEqual(self.reader.load(42), Stored((1.0, 1.0), 10))

    def test_older_among_others(self) -> None:
        """What is left out of a batch is told by position, and the others are written."""
        self.start()
        self.write((2, 0.0, 0.0, 10), (4, 0.0, 0.0, 10), (5, 0.0, 0.0, 10))
        left_out = self.write(
            (1, 1.0, 1.0, 1),
            (2, 1.0, 1.0, 9),
            (3, 1.0, 1.0, 1),
            (4, 1.0, 1.0, 10),
            (5, 1.0, 1.0, 9),
        )
        self.assertEqual(left_out, [1, 4])
        self.assertEqual(
            [self.reader.load(player).updated_at for player in (1, 2, 3, 4, 5)],
            [1, 10, 1, 10, 10],
        )
        self.assertEqual(
            [self.reader.load(player).values[0] for player in (1, 2, 3, 4, 5)],
            [1.0, 0.0, 1.0, 1.0, 0.0],
        )

    def test_positions_index_the_batch(self) -> None:
        """What `write` returns says which, by reason, and takes rows out of an array; also when
        there is nothing.
        """
        self.start()
        batch = records(PLAIN, (1, 0.0, 0.0, 5), (2, 0.0, 0.0, 5))
        answer = self.writer.write(batch)
        self.assertIsInstance(answer, LeftOut)
        for positions in (answer.newer, answer.fenced):
            self.assertEqual(positions.dtype, np.intp)
            self.assertEqual(batch[positions].tolist(), [])
        self.assertEqual((len(answer), dict(answer.refused)), (0, {}))
        batch["updated_at"] = (6, 4)
        answer = self.writer.write(batch)
        self.assertEqual((len(answer), dict(answer.refused)), (1, {}))
        left_out = answer.newer
        self.assertEqual(np.delete(batch, left_out)["session_id"].tolist(), [1])
        self.assertEqual(batch[left_out]["session_id"].tolist(), [2])

    def test_older_in_a_large_batch(self) -> None:
        """Positions count from the beginning of the batch, however large it is."""
        self.start()
        newer = [0, 1, 511, 512, 513, 1023, 1024, 2000, 2499]
        self.writer.write(spawned(PLAIN, np.array(newer) + 1, updated_at=10))
        left_out = self.writer.write(spawned(PLAIN, np.arange(1, 2501), updated_at=9)).newer
        self.assertEqual(sorted(left_out.tolist()), newer)
        self.assertEqual(self.reader.load(1).updated_at, 10)
        self.assertEqual(self.reader.load(3).updated_at, 9)
        self.assertEqual(self.reader.load(2500).updated_at, 10)

    def test_all_older(self) -> None:
        """A batch may be left out as a whole."""
        self.start()
        batch = spawned(PLAIN, np.arange(1, 601), updated_at=2)
        self.writer.write(batch)
        batch["updated_at"] = 1
        self.assertEqual(sorted(self.writer.write(batch).newer.tolist()), [*range(600)])

    def test_large_batch(self) -> None:
        """Every player of a batch as large as a whole queue is written."""
        self.start()
        batch = spawned(PLAIN, np.arange(1, 8193) * 1_000_003)
        batch["x"] = np.arange(8192)
        batch["updated_at"] = np.arange(8192) + 5
        self.assertEqual(len(self.writer.write(batch)), 0)
        for index in (0, 1, 511, 512, 4095, 8190, 8191):
            self.assertEqual(
                self.reader.load((index + 1) * 1_000_003), Stored((float(index), 200.0), index + 5)
            )

    def test_no_record(self) -> None:
        """A batch of nothing leaves nothing out."""
        self.start()
        self.assertEqual(self.write(), [])

    def test_rows_of_the_service(self) -> None:
        """Rows of the live table are written as they lie, header and padding between."""
        self.start(EVERYTHING)
        layout = RowLayout(EVERYTHING.fields)
        rows = np.zeros(2, layout.dtype)
        rows["session_id"] = (5, 6)
        rows["slot"] = rows["generation"] = 0xFFFFFFFF
        rows["sequence"] = 2**64 - 1
        rows["updated_at"] = (50, 60)
        packed = EVERYTHING.struct.pack(*EVERYTHING.spawn)
        rows["fields"] = np.frombuffer(packed * 2, f"V{EVERYTHING.size}")
        self.writer.write(rows.view(layout.record))
        spawn = (1.5, 100, True, "spawn", -0.25)
        self.assertEqual(self.reader.load(5), Stored(spawn, 50))
        self.assertEqual(self.reader.load(6), Stored(spawn, 60))

    def test_batch_is_not_kept(self) -> None:
        """Once written, a batch's memory may be used for others; `write` itself changes nothing."""
        self.start()
        batch = records(PLAIN, (1, 1.0, 2.0, 3))
        before = batch.tobytes()
        self.writer.write(batch)
        self.assertEqual(batch.tobytes(), before)
        batch["x"] = 99.0
        self.assertEqual(self.reader.load(1), Stored((1.0, 2.0), 3))

    def test_order_of_fields(self) -> None:
        """Values come in the order of the state class."""
        self.start(EVERYTHING)
        self.write((1, 9.0, 8, False, "seven", 6.0, 5))
        self.assertEqual(self.reader.load(1).values, (9.0, 8, False, "seven", 6.0))

    def test_one_field(self) -> None:
        """A state of one field is kept as a tuple of one value."""
        self.assert_kept(StateSchema.of(state_class(score=0)), 5)

    def test_kinds(self) -> None:
        """Each kind of field comes back as its own type."""
        self.assert_kept(EVERYTHING, 1.25, -7, False, "cave", 0.5)

    def test_whole_floats(self) -> None:
        """A float without a fraction stays a float."""
        self.assert_kept(PLAIN, 3.0, -1e15)

    def test_zeros(self) -> None:
        """Zeros, False and the empty text are values as any other."""
        self.assert_kept(EVERYTHING, 0.0, 0, False, "", 0.0)

    def test_extreme_floats(self) -> None:
        """Floats keep every bit: the greatest, the least, the smallest, and those in between."""
        floats = (
            sys.float_info.max,
            -sys.float_info.max,
            sys.float_info.min,
            5e-324,
            -5e-324,
            0.1 + 0.2,
            math.nextafter(1.0, 2.0),
            float(2**63),
            1e300,
        )
        schema = StateSchema.of(state_class(**{f"f{i}": 0.0 for i in range(len(floats))}))
        self.assert_kept(schema, *floats)

    def test_extreme_ints(self) -> None:
        """Ints keep all of their 64 bits, either way, beyond what a float could hold."""
        ints = (2**63 - 1, -(2**63), -1, 2**53 + 1, -(2**53) - 1)
        schema = StateSchema.of(state_class(**{f"i{i}": 0 for i in range(len(ints))}))
        self.assert_kept(schema, *ints)

    def test_bools(self) -> None:
        """Bools come back as bools, both of them."""
        self.assert_kept(StateSchema.of(state_class(a=True, b=False)), False, True)

    def test_texts(self) -> None:
        """Texts come back to the letter, whatever they look like and up to their last byte."""
        texts = (
            "",
            " a ",
            "007",
            "1e3",
            "NULL",
            'it\'s "quoted"; -- %s ? :x',
            "line\nbreak\ttab",
            "Größe",
            "\u0065\u0301",  # two code points for what one could say
            "\U0001f409" * 8,
            "a" * 32,
            "\x01\x7f",
        )
        schema = StateSchema.of(state_class(**{f"t{i}": "" for i in range(len(texts))}))
        self.assert_kept(schema, *texts)

    def test_any_values(self) -> None:
        """Whatever a state class accepts comes back the same."""
        self.start(EVERYTHING)
        finite = st.floats(allow_nan=False, allow_infinity=False)
        characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
        texts = st.text(characters, max_size=16).filter(lambda made: len(made.encode()) <= 16)
        int64 = st.integers(-(2**63), 2**63 - 1)

        @LAW
        @given(st.integers(1, 2**63 - 1), st.tuples(finite, int64, st.booleans(), texts, finite))
        def law(session_id: int, plain: tuple[Any, ...]) -> None:
            self.write((session_id, *plain, 1))
            self.assertEqual(self.reader.load(session_id), Stored(plain, 1))

        law()

    def test_extreme_ids(self) -> None:
        """The least and the greatest session id are players as any other."""
        self.start()
        self.write((1, 1.0, 1.0, 1), (2**63 - 1, 2.0, 2.0, 2))
        self.assertEqual(self.reader.load(1), Stored((1.0, 1.0), 1))
        self.assertEqual(self.reader.load(2**63 - 1), Stored((2.0, 2.0), 2))

    def test_extreme_times(self) -> None:
        """Times are compared as numbers over all 64 bits, those before 1970 too."""
        self.start()
        self.write((1, 0.0, 0.0, -(2**63)), (2, 0.0, 0.0, 2**63 - 1))
        self.assertEqual(self.reader.load(1).updated_at, -(2**63))
        self.assertEqual(self.reader.load(2).updated_at, 2**63 - 1)
        self.assertEqual(self.write((1, 1.0, 1.0, -5), (2, 1.0, 1.0, 2**63 - 2)), [1])
        self.assertEqual(self.write((1, 2.0, 2.0, -6)), [0])
        self.assertEqual(self.reader.load(1), Stored((1.0, 1.0), -5))

    def test_reader_follows(self) -> None:
        """A reader sees each commit, those after its own first look too."""
        self.start()
        for updated_at in (1, 2, 3):
            self.write((42, 0.0, 0.0, updated_at))
            self.assertEqual(self.reader.load(42).updated_at, updated_at)

    def test_next_writer(self) -> None:
        """After a writer was closed another goes on, and the reader stays."""
        self.start()
        self.write((1, 1.0, 1.0, 1))
        self.close_writer()
        self.writer = self.store.open_writer()
        self.assertEqual(self.write((1, 2.0, 2.0, 2), (2, 2.0, 2.0, 2)), [])
        self.assertEqual(self.reader.load(1), Stored((2.0, 2.0), 2))

    def test_persistence(self) -> None:
        """What was saved is there at the next start, and so is its guard."""
        self.start(EVERYTHING)
        self.write((1, 1.0, -1, False, "one", 0.5, 10), (2, 2.0, -2, True, "two", 1.5, 20))
        self.ends.close()
        self.start(EVERYTHING)
        self.assertEqual(self.reader.load(1), Stored((1.0, -1, False, "one", 0.5), 10))
        self.assertEqual(self.reader.load(2), Stored((2.0, -2, True, "two", 1.5), 20))
        self.assertEqual(self.write((2, 0.0, 0, False, "", 0.0, 19)), [0])

    def test_maintain(self) -> None:
        """Maintenance may be asked for at any time between two batches."""
        self.start()
        self.writer.maintain()
        self.write((1, 1.0, 1.0, 1))
        self.writer.maintain()
        self.writer.maintain()
        self.write((2, 1.0, 1.0, 1))
        self.assertEqual(self.reader.load(2), Stored((1.0, 1.0), 1))

    def test_sync(self) -> None:
        """What is committed may be brought to disk at any time, and writing goes on after it."""
        self.start()
        self.writer.sync()
        self.write((1, 1.0, 1.0, 1))
        self.writer.sync()
        self.writer.sync()
        self.write((2, 1.0, 1.0, 1))
        self.assertEqual(self.reader.load(2), Stored((1.0, 1.0), 1))

    def test_set_aside(self) -> None:
        """A record that is set aside changes nothing that is stored, and writing goes on."""
        self.start()
        self.write((1, 1.0, 1.0, 1))
        self.writer.quarantine(records(PLAIN, (1, 9.0, 9.0, 9)), ["too far"])
        self.assertEqual(self.reader.load(1), Stored((1.0, 1.0), 1))
        self.assertEqual(self.write((1, 2.0, 2.0, 2)), [])
        self.assertEqual(self.reader.load(1), Stored((2.0, 2.0), 2))

    def test_interrupt_when_nothing_runs(self) -> None:
        """An interrupt between two batches does nothing to either."""
        self.start()
        self.writer.interrupt()
        self.write((1, 1.0, 1.0, 1))
        self.writer.interrupt()
        self.write((2, 1.0, 1.0, 1))
        self.assertIsNotNone(self.reader.load(1))
        self.assertIsNotNone(self.reader.load(2))

    def test_interrupt_when_closed(self) -> None:
        """An interrupt that comes after the writer was closed does nothing."""
        self.start()
        writer = self.writer
        self.close_writer()
        writer.interrupt()


class MemoryStoreContract(StoreContract):
    """The store that forgets, and keeps as long as it lives."""

    factory: Callable[[StateSchema], MemoryStore] = MemoryStore

    def setUp(self) -> None:
        """Nothing is open yet."""
        self.opened: MemoryStore | None = None

    def open(self, schema: StateSchema) -> IStateStore:
        """One store, which is all there is to open again."""
        if self.opened is None:
            self.opened = self.factory(schema)
        return self.opened

    def test_no_file(self) -> None:
        """There is no file, whose companions could lie beside it."""
        self.assertIsNone(file_store(self.open(PLAIN)))

    def test_identity(self) -> None:
        """One memory is like another: a live file that one left is for the next."""
        self.start()
        self.assertEqual(self.store.migrate(IDENTITY), self.store.prepare())
        self.assertEqual(self.factory(PLAIN).prepare(), self.store.prepare())

    def test_all_or_nothing(self) -> None:
        """A batch with a record that cannot be read leaves nothing of the others."""
        self.start(EVERYTHING)
        batch = spawned(EVERYTHING, [1, 2, 3])
        batch["zone"][1] = b"\xff"
        self.assertRaises(UnicodeDecodeError, self.writer.write, batch)
        self.assertIsNone(self.reader.load(1))
