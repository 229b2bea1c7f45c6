"""The persister, one step at a time: its writer, its waits, and the store that is replaced."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from playerstate.interfaces import IStateWriter, StoreBusy, StoreReplaced
from playerstate.saving import persister as persister_module
from playerstate.saving.persister import MAX_SLEEP
from tests.kit.persisting import Killed, PersisterTestCase, Writer, drained, raising
from tests.kit.support import LAW


class WriterTests(PersisterTestCase):
    """The writer that it has open."""

    def test_fake_writer(self) -> None:
        """The writer of these tests is a complete `IStateWriter`."""
        verifyObject(IStateWriter, Writer(self.store))

    def test_one_writer(self) -> None:
        """One writer serves every batch."""
        for sequence in range(3):
            self.push((1, sequence))
            self.persister.step()
        self.assertEqual(len(self.store.writers), 1)
        self.assertFalse(self.store.writers[0].closed)

    def test_maintenance_after_each_commit(self) -> None:
        """The writer is given time for its maintenance after each commit, and in no other step."""
        self.persister.step()
        self.assertEqual(self.store.maintained, 0)
        self.store.write_errors.append(StoreBusy("locked"))
        self.push((1, 1))
        self.persister.step()
        self.assertEqual(self.store.maintained, 0)
        self.persister.step()
        self.assertEqual(self.store.maintained, 1)
        self.persister.step()
        self.assertEqual(self.store.maintained, 1)

    def test_other_errors(self) -> None:
        """Invariant 3: any other error closes the writer; the same rows go to a new one."""
        for number, error in enumerate((OSError("disk"), KeyError(1), ZeroDivisionError())):
            self.push((1, number))
            self.store.write_errors.append(error)
            self.assertGreater(self.persister.step(), 0.0)
            self.assertEqual(self.failure(), (error, 1))
            self.assertEqual([writer.closed for writer in self.store.writers], [True])
            self.assertEqual(self.persister.step(), 0.0)
            self.assertEqual(self.store.written, [[(1, number)]])
            self.assertEqual([writer.closed for writer in self.store.writers], [True, False])
            del self.store.writers[0]
            self.store.written.clear()

    def test_writer_that_does_not_close(self) -> None:
        """A writer that fails to close is reported, and dropped all the same."""
        self.push((1, 1))
        write_error, close_error = OSError("disk"), OSError("close")
        self.store.write_errors.append(write_error)
        self.store.close_errors.append(close_error)
        self.persister.step()
        reported = drained(self.listener.failures)
        self.assertEqual(reported, [(write_error, 1), (close_error, 0)])
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(len(self.store.writers), 2)

    def test_store_that_does_not_open(self) -> None:
        """Invariant 3: a store that cannot be opened is tried again with the same rows."""
        self.push((1, 1))
        error = OSError("gone")
        self.store.open_errors.extend([error, StoreBusy("locked")])
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 1))
        self.assertGreater(self.persister.step(), 0.0)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_maintenance_fails(self) -> None:
        """Failed maintenance is reported as an error of no rows; commit and writer stay."""
        self.push((1, 1))
        error = OSError("checkpoint")
        self.store.maintenance_errors.append(error)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.failure(), (error, 0))
        self.assertEqual(self.commit().sequences.tolist(), [1])
        self.push((1, 2))
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.maintained, 2)
        self.assertEqual(len(self.store.writers), 1)

    def test_maintenance_that_fails_takes_time_too(self) -> None:
        """The time of failed maintenance is reported as any other."""
        self.store.maintenance_seconds = 2.0
        self.store.maintenance_errors.append(OSError("checkpoint"))
        self.push((1, 1))
        self.persister.step()
        self.commit()
        self.push((1, 2))
        self.persister.step()
        self.assertEqual(self.commit().maintenance_seconds, 2.0)

    def test_maintenance_while_a_row_waits(self) -> None:
        """A row that waits does not keep the writer from its maintenance."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.assertEqual(self.store.maintained, 1)


class BackOffTests(PersisterTestCase):
    """How long to wait before the next try."""

    def waits(self, times: int) -> list[float]:
        """What each of so many failed steps says to wait."""
        self.store.write_errors.extend([StoreBusy("locked")] * times)
        return [self.persister.step() or 0.0 for _ in range(times)]

    def test_grows(self) -> None:
        """Each wait is twice the one before, up to the last; jitter takes off up to half of it."""
        for jitter, waits in (
            (1.0, [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
            (0.0, [0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5]),
        ):
            with self.subTest(jitter=jitter):
                self.push((1, 1))
                self.jitter = jitter
                self.assertEqual(self.waits(7), waits)
                self.persister.step()

    def test_begins_anew(self) -> None:
        """After a commit, the waits begin with the first again."""
        self.push((1, 1))
        self.waits(4)
        self.persister.step()
        self.push((1, 2))
        self.assertEqual(self.waits(2), [0.05, 0.1])

    def test_store_away_for_long(self) -> None:
        """However often it failed, the wait is the last one, and a number."""
        self.push((1, 1))
        self.assertEqual(set(self.waits(2000)[5:]), {1.0})

    @settings(LAW, max_examples=50)
    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
    def test_bounds(self, jitters: list[float]) -> None:
        """Whatever the jitter, a wait is between half of its step and all of it."""
        self.push((1, 1))
        for attempt, jitter in enumerate(jitters):
            self.jitter = jitter
            (wait,) = self.waits(1)
            step = min(0.05 * 2**attempt, 1.0)
            self.assertTrue(step / 2 <= wait <= step, (attempt, jitter, wait))
        self.assertEqual(self.persister.step(), 0.0)

    def test_bad_row(self) -> None:
        """While a bad row waits, the steps back off as for any other failure."""
        self.push((1, 1))
        self.store.bad[1, 1] = "hp"
        self.assertEqual([self.persister.step() for _ in range(3)], [0.05, 0.1, 0.2])


class CallTests(PersisterTestCase):
    """Calls that the persist thread makes between two writes."""

    def test_before_the_next_write(self) -> None:
        """Calls come in their order, each once, before rows that wait, which are written then."""
        made: list[object] = []
        self.push((1, 1))
        for number in range(2):
            self.persister.between_writes(lambda n=number: made.append((n, self.store.written[:])))
        self.assertEqual([self.persister.step() for _ in range(4)], [0.0, 0.0, 0.0, None])
        self.assertEqual(made, [(0, []), (1, [])])
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_held(self) -> None:
        """While the persister is held a call waits."""
        made: list[int] = []
        self.persister.hold(1)
        self.persister.between_writes(lambda: made.append(1))
        self.persister.step()
        self.assertEqual(made, [])
        self.persister.resume()
        self.persister.step()
        self.assertEqual(made, [1])

    def test_fatal(self) -> None:
        """A call that kills the thread is made again by the next."""
        calls: list[int] = []
        die = raising(Killed())
        self.persister.between_writes(lambda: (calls.append(1), die()))
        self.assertRaises(Killed, self.persister.step)
        self.persister.step()
        self.assertEqual((calls, self.persister.step()), ([1, 1], None))


class HoldTests(PersisterTestCase):
    """A persister that is held."""

    def test_hold(self) -> None:
        """It closes its writer, says so once, and writes nothing until it may go on."""
        self.push((1, 1))
        self.persister.step()
        self.push((1, 2))
        self.persister.hold(1)
        for _ in range(3):
            self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.assertEqual(self.listener.holds, [1])
        self.assertTrue(self.store.writers[0].closed)
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.persister.resume()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.store.written, [[(1, 1)], [(1, 2)]])

    def test_before_any_writer(self) -> None:
        """One that has no writer says so as well, though no row waits."""
        self.persister.hold(7)
        self.persister.step()
        self.assertEqual((self.listener.holds, self.store.writers), ([7], []))

    def test_each_time(self) -> None:
        """Held again before it took a step in between, it reports that as well."""
        self.persister.hold(1)
        self.persister.step()
        self.persister.resume()
        self.persister.hold(2)
        self.persister.step()
        self.assertEqual(self.listener.holds, [1, 2])

    def test_batch_is_kept(self) -> None:
        """Invariant 3: a batch in hand is kept meanwhile."""
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.persister.step()
        self.persister.hold(1)
        self.persister.step()
        self.assertEqual(self.store.written, [])
        self.persister.resume()
        self.persister.step()
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_reopen(self) -> None:
        """It makes the call with the writer closed; a call that kills it, and no other, again."""
        self.push((1, 1))
        self.persister.step()
        self.persister.hold(1)
        closed: list[bool] = []
        fail = raising(Killed())
        self.persister.reopen(lambda: (closed.append(self.store.writers[0].closed), fail()))
        self.assertRaises(Killed, self.persister.step)
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.assertEqual(closed, [True, True])

    def test_finish_awaits_the_outcome(self) -> None:
        """Finished without rows, it ends once it knows what the call came to."""
        for then in ("put_off", "resume"):
            with self.subTest(then):
                self.persister = self.make()
                self.persister.hold(1)
                self.persister.reopen(lambda: None)
                self.persister.finish()
                self.assertEqual(self.persister.step(), 0.0)
                self.assertEqual(self.persister.step(), MAX_SLEEP)
                getattr(self.persister, then)()
                self.assertIsNone(self.persister.step())

    def test_finish(self) -> None:
        """Finished without rows it ends, and reports that nothing is known to be on disk."""
        self.persister.hold(1)
        self.persister.finish()
        self.persister.run()
        self.assertIs(self.listener.synced, False)
        self.assertEqual(self.store.syncs, 0)


class ReplacedTests(PersisterTestCase):
    """A store that is no longer the one that was opened."""

    def replace(self) -> None:
        """Commit a row, and find in the maintenance that the store was replaced."""
        self.error = StoreReplaced("gone")
        self.store.maintenance_errors.append(self.error)
        self.push((1, 1))
        self.assertEqual(self.persister.step(), 0.0)
        self.commits()

    def test_told(self) -> None:
        """It is reported, not as a failure, and the writer is closed."""
        self.replace()
        self.assertEqual(self.listener.replacements, [self.error])
        self.assertEqual(self.failures(), [])
        self.assertTrue(self.store.writers[0].closed)

    def test_waits(self) -> None:
        """Nothing is taken, opened or written before it may resume; then a new writer is."""
        self.replace()
        self.push((1, 2))
        for _ in range(3):
            self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.assertEqual((len(self.store.writers), len(self.store.attempts)), (1, 1))
        self.assertEqual(self.ring.depth, 1)
        self.persister.resume()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual([writer.closed for writer in self.store.writers], [True, False])
        self.assertEqual(self.commits(), [([(1, 2)], ())])

    def test_found_by_a_write(self) -> None:
        """A write that finds it is reported as such, and its rows go to the next writer."""
        error = StoreReplaced("gone")
        self.store.write_errors.append(error)
        self.push((1, 1))
        self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.assertEqual(self.listener.replacements, [error])
        self.assertEqual((self.failures(), self.commits()), ([], []))
        self.assertTrue(self.store.writers[0].closed)
        self.assertIsNone(self.persister.writing_since)
        self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.persister.resume()
        self.assertEqual(self.persister.step(), 0.0)
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_found_by_the_last_sync(self) -> None:
        """So is what the sync at the end finds; nothing is known to be on disk then."""
        error = StoreReplaced("gone")
        self.store.on_sync = raising(error)
        self.push((1, 1))
        self.persister.finish()
        self.persister.run()
        self.assertEqual(self.listener.replacements, [error])
        self.assertEqual(self.failures(), [])
        self.assertIs(self.listener.synced, False)
        self.assertTrue(self.store.writers[0].closed)

    def test_row_that_waits(self) -> None:
        """A row in hand goes to the store that took the place."""
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.push((3, 3))
        self.store.maintenance_errors.append(StoreReplaced("gone"))
        while not self.listener.replacements:
            self.persister.step()
        self.commits()
        self.store.bad.clear()
        self.store.quarantined.clear()
        self.push((2, 4))
        self.assertEqual(self.persister.step(), MAX_SLEEP)
        self.persister.resume()
        while self.persister.step() is not None:
            pass
        committed = [player for players, _ in self.commits() for player in players]
        self.assertIn((2, 4), committed)

    def wait_for_the_other(self, then: Callable[[], None]) -> None:
        """Run the thread with a row in the ring and the store replaced; after 5 beats, `then`."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.replace()
        self.push((1, 2))
        beats = iter(range(5))
        self.listener.on_beat = lambda: then() if next(beats, None) is None else None
        self.persister.run()

    def test_finish_waits(self) -> None:
        """Asked to finish, the thread waits for the store that takes the place."""
        self.persister.finish()
        self.wait_for_the_other(then=self.persister.resume)
        self.assertEqual(self.commits(), [([(1, 2)], ())])
        self.assertTrue(self.listener.synced)

    def test_abandoned(self) -> None:
        """Abandoned while it waits, the thread ends without opening or writing anything."""
        self.wait_for_the_other(then=self.persister.abandon)
        self.assertEqual(len(self.store.writers), 1)
        self.assertEqual(self.commits(), [])
        self.assertIs(self.listener.synced, False)

    def test_found_while_idle(self) -> None:
        """It is found, and waited for, though there is nothing to write."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.push((1, 1))

        def beat() -> None:
            count = self.listener.beats.qsize()
            if count == 1:
                self.store.maintenance_errors.append(StoreReplaced("gone"))
            elif count == 2:
                self.assertEqual(len(self.listener.replacements), 1)
                self.assertTrue(self.store.writers[0].closed)
                self.push((1, 2))
            elif count == 5:
                self.assertEqual(len(self.store.attempts), 1)
                self.persister.resume()
                self.persister.finish()

        self.listener.on_beat = beat
        self.persister.run()
        self.assertEqual(self.store.written, [[(1, 1)], [(1, 2)]])
        self.assertEqual(self.listener.deaths, [])
