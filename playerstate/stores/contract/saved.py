"""Batches, the guard, and what else a writer, a reader and their store do."""

from __future__ import annotations

import numpy as np
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
)
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import (
    EVERYTHING,
    PLAIN,
    records,
    spawned,
)


class SavedTests(StoreTestCase):
    """A writer saves, a reader loads."""

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
        self.assertIsNone(self.load(7))
        self.assertEqual(self.load(8), Stored((3.0, 4.0), 6))
        self.assertEqual(self.write((7, 5.0, 6.0, 1)), [])

    def test_schema(self) -> None:
        """A store knows the schema of its players."""
        self.assertIs(self.open(PLAIN).schema, PLAIN)

    def test_describe(self) -> None:
        """A store describes itself in a line."""
        described = self.open(PLAIN).describe()
        self.assertEqual(len(described.splitlines()), 1)

    def test_newer(self) -> None:
        """A newer record takes the place of the stored one, in every field."""
        self.start(EVERYTHING)
        self.write((42, 1.0, 1, True, "a", 2.0, 10))
        self.assertEqual(self.write((42, -1.0, -1, False, "b", -2.0, 11)), [])
        self.assertEqual(self.load(42), Stored((-1.0, -1, False, "b", -2.0), 11))

    def test_same_age(self) -> None:
        """A record of the same age is written again."""
        self.start()
        self.write((42, 1.0, 1.0, 10))
        self.assertEqual(self.write((42, 2.0, 2.0, 10)), [])
        self.assertEqual(self.load(42), Stored((2.0, 2.0), 10))

    def test_older(self) -> None:
        """An older record is left out, and its position told."""
        self.start()
        self.write((42, 1.0, 1.0, 10))
        self.assertEqual(self.write((42, 2.0, 2.0, 9)), [0])
        self.assertEqual(self.load(42), Stored((1.0, 1.0), 10))

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
            [self.stored(player).updated_at for player in (1, 2, 3, 4, 5)],
            [1, 10, 1, 10, 10],
        )
        self.assertEqual(
            [self.stored(player).values[0] for player in (1, 2, 3, 4, 5)],
            [1.0, 0.0, 1.0, 1.0, 0.0],
        )

    def test_positions_index_the_batch(self) -> None:
        """What `write` returns names rows by their positions, by reason, also if there are none."""
        self.start()
        batch = records(PLAIN, (1, 0.0, 0.0, 5), (2, 0.0, 0.0, 5))
        answer = self.opened_writer().write(batch)
        self.assertIsInstance(answer, LeftOut)
        for positions in (answer.newer, answer.fenced):
            self.assertEqual(positions.dtype, np.intp)
            self.assertEqual(batch[positions].tolist(), [])
        self.assertEqual((len(answer), dict(answer.refused)), (0, {}))
        batch["updated_at"] = (6, 4)
        answer = self.opened_writer().write(batch)
        self.assertEqual((len(answer), dict(answer.refused)), (1, {}))
        left_out = answer.newer
        self.assertEqual(np.delete(batch, left_out)["session_id"].tolist(), [1])
        self.assertEqual(batch[left_out]["session_id"].tolist(), [2])

    def test_older_in_a_large_batch(self) -> None:
        """Positions count from the beginning of the batch, however large it is."""
        self.start()
        newer = [0, 1, 511, 512, 513, 1023, 1024, 2000, 2499]
        self.opened_writer().write(spawned(PLAIN, np.array(newer) + 1, updated_at=10))
        left_out = (
            self.opened_writer().write(spawned(PLAIN, np.arange(1, 2501), updated_at=9)).newer
        )
        self.assertEqual(sorted(left_out.tolist()), newer)
        self.assertEqual(self.stored(1).updated_at, 10)
        self.assertEqual(self.stored(3).updated_at, 9)
        self.assertEqual(self.stored(2500).updated_at, 10)

    def test_all_older(self) -> None:
        """A batch may be left out as a whole."""
        self.start()
        batch = spawned(PLAIN, np.arange(1, 601), updated_at=2)
        self.opened_writer().write(batch)
        batch["updated_at"] = 1
        self.assertEqual(sorted(self.opened_writer().write(batch).newer.tolist()), [*range(600)])

    def test_large_batch(self) -> None:
        """Every player of a batch as large as a whole queue is written."""
        self.start()
        batch = spawned(PLAIN, np.arange(1, 8193) * 1_000_003)
        batch["x"] = np.arange(8192)
        batch["updated_at"] = np.arange(8192) + 5
        self.assertEqual(len(self.opened_writer().write(batch)), 0)
        for index in (0, 1, 511, 512, 4095, 8190, 8191):
            self.assertEqual(
                self.load((index + 1) * 1_000_003), Stored((float(index), 200.0), index + 5)
            )

    def test_no_record(self) -> None:
        """A batch of nothing leaves nothing out."""
        self.start()
        self.assertEqual(self.write(), [])

    def test_batch_is_not_kept(self) -> None:
        """Once written, a batch's memory may be used for others; `write` itself changes nothing."""
        self.start()
        batch = records(PLAIN, (1, 1.0, 2.0, 3))
        before = batch.tobytes()
        self.opened_writer().write(batch)
        self.assertEqual(batch.tobytes(), before)
        batch["x"] = 99.0
        self.assertEqual(self.load(1), Stored((1.0, 2.0), 3))

    def test_reader_follows(self) -> None:
        """A reader sees each commit, those after its own first look too."""
        self.start()
        for updated_at in (1, 2, 3):
            self.write((42, 0.0, 0.0, updated_at))
            self.assertEqual(self.stored(42).updated_at, updated_at)

    def test_next_writer(self) -> None:
        """After a writer was closed another goes on, and the reader stays."""
        self.start()
        self.write((1, 1.0, 1.0, 1))
        self.close_writer()
        self.writer = self.store.open_writer()
        self.assertEqual(self.write((1, 2.0, 2.0, 2), (2, 2.0, 2.0, 2)), [])
        self.assertEqual(self.load(1), Stored((2.0, 2.0), 2))

    def test_persistence(self) -> None:
        """What was saved is there at the next start, and so is its guard."""
        self.start(EVERYTHING)
        self.write((1, 1.0, -1, False, "one", 0.5, 10), (2, 2.0, -2, True, "two", 1.5, 20))
        self.ends.close()
        self.start(EVERYTHING)
        self.assertEqual(self.load(1), Stored((1.0, -1, False, "one", 0.5), 10))
        self.assertEqual(self.load(2), Stored((2.0, -2, True, "two", 1.5), 20))
        self.assertEqual(self.write((2, 0.0, 0, False, "", 0.0, 19)), [0])

    def test_maintain(self) -> None:
        """Maintenance may be asked for at any time between two batches."""
        self.start()
        self.opened_writer().maintain()
        self.write((1, 1.0, 1.0, 1))
        self.opened_writer().maintain()
        self.opened_writer().maintain()
        self.write((2, 1.0, 1.0, 1))
        self.assertEqual(self.load(2), Stored((1.0, 1.0), 1))

    def test_sync(self) -> None:
        """What is committed may be brought to disk at any time, and writing goes on after it."""
        self.start()
        self.opened_writer().sync()
        self.write((1, 1.0, 1.0, 1))
        self.opened_writer().sync()
        self.opened_writer().sync()
        self.write((2, 1.0, 1.0, 1))
        self.assertEqual(self.load(2), Stored((1.0, 1.0), 1))

    def test_interrupt_when_nothing_runs(self) -> None:
        """An interrupt between two batches does nothing to either."""
        self.start()
        self.opened_writer().interrupt()
        self.write((1, 1.0, 1.0, 1))
        self.opened_writer().interrupt()
        self.write((2, 1.0, 1.0, 1))
        self.assertIsNotNone(self.load(1))
        self.assertIsNotNone(self.load(2))

    def test_interrupt_when_closed(self) -> None:
        """An interrupt that comes after the writer was closed does nothing."""
        self.start()
        writer = self.opened_writer()
        self.close_writer()
        writer.interrupt()
