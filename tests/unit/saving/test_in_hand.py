"""The rows in hand: taken, written and settled, in the steps of a persister."""

from __future__ import annotations

from playerstate.interfaces import Reason, RowRefused, StoreBusy
from playerstate.saving import batch, in_hand
from playerstate.saving.in_hand import InHand
from playerstate.saving.refusals import REFUSALS
from tests.kit.persisting import (
    LAYOUT,
    Killed,
    PersisterTestCase,
    outdated,
    players_in,
    quarantined,
    raising,
)


class CommitTests(PersisterTestCase):
    """Rows that are committed, or left out for good."""

    def test_nothing_to_do(self) -> None:
        """With an empty ring a step does nothing, and opens no writer."""
        self.assertIsNone(self.persister.step())
        self.assertEqual(self.store.writers, [])
        self.assertTrue(self.listener.commits.empty())

    def test_commit(self) -> None:
        """A step writes what is in the ring, and says that there may be more at once."""
        self.push((1, 10), (2, 20))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 10), (2, 20)]])
        self.assertIsNone(self.persister.step())

    def test_records(self) -> None:
        """The writer sees records, under the schema's names."""
        self.push((1, 10))
        self.persister.step()
        self.assertEqual(self.store.dtypes, {LAYOUT.record})

    def test_sorted(self) -> None:
        """A batch is sorted by session id, whatever the order of its rows."""
        self.push((3, 1), (1, 2), (2, 3))
        self.persister.step()
        self.assertEqual(self.store.written, [[(1, 2), (2, 3), (3, 1)]])

    def test_newest_row_of_each_player(self) -> None:
        """Of several rows of one player, the one pushed last is written."""
        self.push((2, 1), (1, 1), (2, 2), (1, 2), (2, 3))
        self.persister.step()
        self.assertEqual(self.store.written, [[(1, 2), (2, 3)]])
        self.assertEqual(self.commit().superseded, 3)

    def test_report(self) -> None:
        """A commit reports slot, generation, sequence and age of each row, and the cursor."""
        self.push((1, 10), (2, 20))
        self.ring.take()
        self.push((4, 40), (3, 30), (4, 41))
        self.persister.step()
        commit = self.commit()
        self.assertEqual(commit.slots.tolist(), [103, 104])
        self.assertEqual(commit.generations.tolist(), [203, 204])
        self.assertEqual(commit.sequences.tolist(), [30, 41])
        self.assertEqual(commit.updated_at.tolist(), [1030, 1041])
        self.assertEqual(commit.dropped, ())
        self.assertEqual(commit.superseded, 1)
        self.assertEqual(commit.read, 5)

    def test_left_out(self) -> None:
        """Invariant 4: rows that the writer left out, be it all of them, are reported as outdated
        with the reason, not as committed."""
        players = [(1, 10), (2, 20), (3, 30), (4, 40)]
        for newer, fenced in (([3, 1], []), ([], [1]), ([0], [2]), ([0, 1, 2, 3], [])):
            with self.subTest(newer=newer, fenced=fenced):
                self.push(*players)
                self.store.left_out, self.store.fenced = newer, fenced
                self.assertEqual(self.persister.step(), 0.0)
                commit = self.commit()
                left = [player for at, player in enumerate(players) if at not in newer + fenced]
                self.assertEqual(players_in(commit), left)
                dropped = [outdated(*players[at]) for at in newer]
                dropped += [outdated(*players[at], Reason.FENCED) for at in fenced]
                self.assertCountEqual(commit.dropped, dropped)
                self.assertTrue(all(row.outdated for row in commit.dropped))
                self.assertEqual(commit.superseded, 0)

    def test_report_outlives_the_ring(self) -> None:
        """What a commit reports does not change when the ring's places are used again."""
        self.push((1, 10))
        self.persister.step()
        commit = self.commit()
        for number in range(20):
            self.push((9, number))
            self.ring.take()
        self.assertEqual(commit.sequences.tolist(), [10])

    def test_seconds(self) -> None:
        """A commit says how long its write took, and the maintenance before it."""
        self.store.write_seconds, self.store.maintenance_seconds = 0.25, 4.0
        self.push((1, 1))
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.seconds, commit.maintenance_seconds), (0.25, 0.0))
        self.push((1, 2))
        self.persister.step()
        commit = self.commit()
        self.assertEqual((commit.seconds, commit.maintenance_seconds), (0.25, 4.0))

    def test_writing_since(self) -> None:
        """While a writer is opened and writes, and at no other time, it says since when."""
        seen: list[float | None] = []
        self.store.on_open = lambda: seen.append(self.persister.writing_since)
        self.store.on_write = lambda: seen.append(self.persister.writing_since)
        self.store.on_maintain = lambda: seen.append(self.persister.writing_since)
        self.store.time, self.store.write_seconds = 5.0, 3.0
        self.assertIsNone(self.persister.writing_since)
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(seen, [5.0, 5.0, None])
        self.assertIsNone(self.persister.writing_since)

    def test_writing_since_after_a_failure(self) -> None:
        """A write that failed is over, whatever ended it."""
        self.push((1, 1))
        for error in (StoreBusy("locked"), OSError("disk")):
            self.store.write_errors.append(error)
            self.persister.step()
            self.assertIsNone(self.persister.writing_since)
        self.store.open_errors.append(OSError("gone"))
        self.persister.step()
        self.assertIsNone(self.persister.writing_since)
        self.store.write_errors.append(Killed())
        self.assertRaises(Killed, self.persister.step)
        self.assertIsNone(self.persister.writing_since)

    def test_no_sync(self) -> None:
        """A commit is not synced beyond what the writer itself does."""
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(self.store.syncs, 0)


class KeptTests(PersisterTestCase):
    """Rows that could not be written or settled."""

    def test_busy(self) -> None:
        """Invariant 3: while the store is busy, the batch and the writer are kept."""
        self.push((2, 1), (1, 1), (2, 2))
        error = StoreBusy("locked")
        self.store.write_errors.extend([error, error])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 2))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 2))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1), (2, 2)]])
        self.assertEqual(len(set(self.store.attempts)), 1)
        self.assertEqual(len(self.store.writers), 1)
        self.assertEqual(self.commit().superseded, 1)

    def test_rows_pushed_meanwhile(self) -> None:
        """Invariant 11: while a batch is in hand, nothing more is taken from the ring."""
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.persister.step()
        self.push((1, 2), (2, 2))
        self.assertEqual(self.ring.depth, 2)
        self.persister.step()
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.assertEqual(self.commit().read, 1)
        self.persister.step()
        self.assertEqual(self.store.written[1:], [[(1, 2), (2, 2)]])

    def test_batch_survives_the_writer(self) -> None:
        """Invariant 3: a batch in hand is kept though the writer was closed, twice."""
        self.push((1, 1))
        self.store.write_errors.extend([OSError("disk"), OSError("disk")])
        self.persister.step()
        self.persister.step()
        self.assertEqual([writer.closed for writer in self.store.writers], [True, True])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_bug_before_the_write(self) -> None:
        """Invariant 3: rows taken from the ring outlive an error in looking for the newest."""
        self.push((2, 1), (1, 1), (2, 2))
        real, fail = in_hand.newest_of_each, raising(ZeroDivisionError(), ZeroDivisionError())
        self.patch(in_hand, "newest_of_each", lambda rows: fail() or real(rows))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("", 3), ("", 3)])
        self.push((3, 1))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1), (2, 2)], [(3, 1)]])
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ()), ([(3, 1)], ())])

    def test_bug_after_the_write(self) -> None:
        """Invariant 3: where the rest cannot be sorted out, all of it is written again."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        real, fail = batch.newest_of_each, raising(ZeroDivisionError())
        self.patch(batch, "newest_of_each", lambda rows: fail() or real(rows))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_bug_in_the_writer(self) -> None:
        """Invariant 3: rows are kept where the writer says it left out what it was not given, or
        a row twice."""
        self.push((1, 1), (2, 2))
        for left_out, fenced in (([7], []), ([-1], []), ([0, 0], []), ([1], [1])):
            self.store.left_out, self.store.fenced = left_out, fenced
            self.assertGreater(self.persister.step(), 0.0)
            ((why, kept),) = self.failures()
            self.assertEqual(kept, 2)
            self.assertIn("it must report existing positions, each once", why)
            self.assertEqual(self.commits(), [])
        self.store.left_out, self.store.fenced = [], []
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1), (2, 2)], ())])

    def test_bug_in_the_listener(self) -> None:
        """Invariant 3: rows whose commit could not be reported are kept until it can."""
        self.push((1, 1), (2, 1), (2, 2))
        self.listener.on_commit = raising(ZeroDivisionError())
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failures(), [("", 2)])
        self.assertEqual(self.persister.step(), 0.0)
        commit = self.commit()
        self.assertEqual(players_in(commit), [(1, 1), (2, 2)])
        self.assertEqual((commit.superseded, commit.read), (1, 3))

    def test_listener_that_cannot_be_told_of_a_failure(self) -> None:
        """Invariant 3: the rows are kept even if the failure itself cannot be reported."""
        self.push((1, 1))
        self.store.write_errors.append(OSError("disk"))
        self.listener.on_failure = raising(ZeroDivisionError())
        self.assertRaises(ZeroDivisionError, self.persister.step)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])


class SaveTests(PersisterTestCase):
    """`InHand.save` by itself, without a persister."""

    def setUp(self) -> None:
        """Make one with a writer that is open already."""
        super().setUp()
        self.is_abandoned = False
        writer = self.store.open_writer()
        self.in_hand = InHand(
            self.ring,
            LAYOUT.record,
            lambda: writer,
            lambda: self.is_abandoned,
            self.listener,
            lambda: self.store.time,
            None,
        )

    def test_raises(self) -> None:
        """What ended a write is raised after the report of what it committed; the rest is kept."""
        self.push((1, 1), (2, 2))
        error = OSError("disk")
        self.store.write_errors.extend([RowRefused("both"), None, error])
        self.assertIs(self.assertRaises(OSError, self.in_hand.save, 0.0), error)
        self.assertEqual((self.commits(), self.failures()), ([([(1, 1)], ())], []))
        self.assertEqual(len(self.in_hand), 1)
        self.assertIs(self.in_hand.save(0.0), True)
        self.assertEqual((self.commits(), len(self.in_hand)), ([([(2, 2)], ())], 0))
        self.assertIs(self.in_hand.save(0.0), False)

    def test_abandoned(self) -> None:
        """Once abandoned it begins no write, and keeps the rows."""
        self.push((1, 1))
        self.is_abandoned = True
        self.assertRaises(StoreBusy, self.in_hand.save, 0.0)
        self.assertEqual((self.store.attempts, len(self.in_hand)), ([], 1))


class RecoveredTests(PersisterTestCase):
    """What a process before this one left."""

    def test_first(self) -> None:
        """They are saved before any row of the ring, and reported separately."""
        self.persister = self.make((1, 10), (3, 30))
        self.push((2, 5), (3, 31))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 10), (3, 30)]])
        commit = self.recovery()
        self.assertEqual(players_in(commit), [(1, 10), (3, 30)])
        self.assertEqual((commit.read, commit.superseded, commit.dropped), (0, 0, ()))
        self.assertTrue(self.listener.commits.empty())
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(2, 5), (3, 31)], ())])
        self.assertTrue(self.listener.recoveries.empty())

    def test_synced_before_it_is_told(self) -> None:
        """They are reported as saved once they are on disk, and later commits need no sync."""
        self.persister = self.make((1, 10))
        synced: list[bool] = []
        self.listener.on_commit = lambda commit: synced.append(self.store.is_synced)
        self.persister.step()
        self.recovery()
        self.push((2, 2))
        self.persister.step()
        self.assertEqual(synced, [True, False])
        self.assertEqual(self.store.syncs, 1)

    def test_sync_fails(self) -> None:
        """Until they are known to be on disk they are kept, written again, and not reported."""
        self.persister = self.make((1, 10), (2, 20))
        self.store.older.add((2, 20))
        self.store.on_sync = raising(OSError("disk"), StoreBusy("locked"))
        for why in ("disk", "locked"):
            self.assertGreater(self.persister.step(), 0.0)
            self.assertEqual(self.failures(), [(why, 2)])
            self.assertEqual(self.recoveries(), [])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.recoveries(), [([(1, 10)], (outdated(2, 20),))])
        self.assertIsNone(self.persister.step())

    def test_busy(self) -> None:
        """While the store is busy they are kept, and the ring is left alone."""
        self.persister = self.make((1, 10))
        self.push((1, 11))
        self.store.write_errors.append(StoreBusy("locked"))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual((self.failures(), self.ring.depth), ([("locked", 1)], 1))
        self.persister.step()
        self.assertEqual(players_in(self.recovery()), [(1, 10)])

    def test_busy_while_splitting(self) -> None:
        """What was written before the store became busy is not reported before it was synced."""
        self.persister = self.make((1, 1), (2, 2))
        synced: list[bool] = []
        self.listener.on_commit = lambda commit: synced.append(self.store.is_synced)
        self.store.write_errors.extend([RowRefused("both"), None, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.recoveries(), [([(1, 1), (2, 2)], ())])
        self.assertNotIn(False, synced)

    def test_bad_and_alone(self) -> None:
        """A row that is refused is quarantined, though it is the only one: joins wait for it."""
        self.persister = self.make((1, 10))
        self.store.bad[1, 10] = "hp"
        for _ in range(REFUSALS - 1):
            self.assertGreater(self.persister.step(), 0.0)
            self.assertEqual(self.failures(), [("hp", 1)])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.quarantined, [((1, 10), "hp")])
        self.assertEqual(self.recoveries(), [([], (quarantined(1, 10, "hp"),))])
        self.push((1, 11))
        self.persister.step()
        self.assertEqual(self.commits(), [([(1, 11)], ())])

    def test_bad_among_others(self) -> None:
        """The others are reported first, and the recovery lasts until the last one is settled."""
        self.persister = self.make((1, 10), (2, 20))
        self.store.bad[2, 20] = "hp"
        for _ in range(REFUSALS):
            self.persister.step()
        last = ([], (quarantined(2, 20, "hp"),))
        self.assertEqual(self.recoveries(), [([(1, 10)], ()), last])
        self.assertTrue(self.listener.commits.empty())

    def test_after_the_recovery(self) -> None:
        """Once it is over, a row that stands alone is quarantined no more."""
        self.persister = self.make((1, 10))
        self.persister.step()
        self.recovery()
        self.push((2, 2))
        self.store.bad[2, 2] = "hp"
        for _ in range(2 * REFUSALS):
            self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.store.quarantined, [])

    def test_killed(self) -> None:
        """They are kept where the thread dies, and the next thread saves them first."""
        self.persister = self.make((1, 10))
        self.store.write_errors.append(Killed())
        self.persister.run()
        self.assertEqual(len(self.listener.deaths), 1)
        self.push((1, 11))
        self.persister.finish()
        self.persister.run()
        self.assertEqual(self.store.written, [[(1, 10)], [(1, 11)]])
        self.assertEqual(players_in(self.recovery()), [(1, 10)])
