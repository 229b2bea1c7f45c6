"""The persister's life on a real thread: how it ends, dies, sleeps and wakes."""

from __future__ import annotations

import queue
import threading
import time

from playerstate.interfaces import RowRefused, StoreBusy
from playerstate.saving import persister as persister_module
from tests.kit.persisting import (
    Killed,
    PersisterTestCase,
    drained,
    players_in,
    quarantined,
    raising,
)
from tests.kit.support import PATIENCE


class ThreadTestCase(PersisterTestCase):
    """Lives the thread's life on a real thread."""

    def start(self) -> None:
        """Start the thread, which is to have ended when the test is over."""
        self.thread = threading.Thread(target=self.persister.run, daemon=True)
        self.thread.start()
        self.addCleanup(self.thread.join, PATIENCE)
        self.addCleanup(self.persister.abandon)

    def end(self) -> None:
        """Wait for the end of the thread."""
        self.assertTrue(self.listener.ended.wait(PATIENCE))
        self.thread.join(PATIENCE)
        self.assertFalse(self.thread.is_alive())

    def run_to_end(self) -> None:
        """Start the thread, which is to end by itself."""
        self.start()
        self.end()

    def idle(self) -> None:
        """Wait until the thread has found the ring empty."""
        self.ring.found_empty.get(timeout=PATIENCE)


class EndTests(ThreadTestCase):
    """How the thread ends."""

    def test_finish(self) -> None:
        """Asked to finish, it commits what is in the ring, closes the writer, says so and ends."""
        self.push((1, 1))
        closed: list[bool] = []
        self.listener.on_end = lambda: closed.append(self.store.writers[0].closed)
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(closed, [True])
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.assertTrue(self.store.is_synced)
        self.assertIs(self.listener.synced, True)

    def test_finish_of_nothing(self) -> None:
        """Asked to finish with nothing to do, it syncs earlier commits, and writes nothing."""
        self.persister.finish()
        self.run_to_end()
        self.assertEqual([writer.closed for writer in self.store.writers], [True])
        self.assertEqual((self.store.syncs, self.store.attempts), (1, []))
        self.assertIs(self.listener.synced, True)

    def test_told_to_end(self) -> None:
        """It says whether `finish` or `abandon` was called."""
        self.assertFalse(self.persister.told_to_end)
        self.persister.finish()
        self.assertTrue(self.persister.told_to_end)
        abandoned = self.make()
        self.assertFalse(abandoned.told_to_end)
        abandoned.abandon()
        self.assertTrue(abandoned.told_to_end)

    def test_sync_fails(self) -> None:
        """Where the last sync fails, the thread ends all the same, and says that it did."""
        self.push((1, 1))
        self.store.on_sync = raising(OSError("disk"))
        self.persister.finish()
        self.run_to_end()
        self.assertIs(self.listener.synced, False)
        self.assertEqual(self.failures(), [("disk", 0)])
        self.assertTrue(self.store.writers[0].closed)

    def test_sync_without_a_writer(self) -> None:
        """What was committed over a writer that is closed is synced over another."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1), (2, 2))
        self.store.write_errors.extend([RowRefused("both"), None, OSError("disk")])
        self.store.older.add((2, 2))
        self.persister.finish()
        self.run_to_end()
        self.assertTrue(self.store.is_synced)
        self.assertIs(self.listener.synced, True)

    def test_store_that_does_not_open_for_the_sync(self) -> None:
        """A store that does not open at the end is not known to be synced."""
        self.store.open_errors.append(OSError("gone"))
        self.persister.finish()
        self.run_to_end()
        self.assertIs(self.listener.synced, False)
        self.assertEqual(self.failures(), [("gone", 0)])

    def test_finish_while_the_store_fails(self) -> None:
        """Invariant 3: asked to finish, it goes on trying until the batch is committed."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1))
        self.store.write_errors.extend([StoreBusy("locked"), OSError("disk"), StoreBusy("locked")])
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(self.store.written, [[(1, 1)]])
        self.assertEqual(self.listener.beats.qsize(), 3)

    def test_finish_just_after_the_look(self) -> None:
        """Rows pushed before `finish` are committed, though the ring was just found empty."""

        def push_and_finish() -> None:
            self.ring.on_empty = lambda: None
            self.push((1, 1))
            self.persister.wake()
            self.persister.finish()

        self.ring.on_empty = push_and_finish
        self.run_to_end()
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_abandoned_before_it_began(self) -> None:
        """Abandoned before its first step, it takes none."""
        self.push((1, 1))
        self.persister.abandon()
        self.run_to_end()
        self.assertEqual(self.store.attempts, [])
        self.assertEqual(self.ring.depth, 1)
        self.assertEqual(self.store.writers, [])
        self.assertIs(self.listener.synced, False)

    def test_abandoned_while_the_store_opens(self) -> None:
        """Abandoned while the writer is being opened, it begins no write with it."""
        self.push((1, 1))
        self.store.on_open = self.persister.abandon
        self.run_to_end()
        self.assertEqual(self.store.attempts, [])
        self.assertTrue(self.store.writers[0].closed)

    def test_writer_that_does_not_close_at_the_end(self) -> None:
        """A writer that fails to close does not keep the thread from saying that it ends."""
        self.push((1, 1))
        self.store.close_errors.append(OSError("close"))
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(self.listener.failures.qsize(), 1)

    def test_another_thread_goes_on(self) -> None:
        """Invariant 3: a batch that one thread left in hand is committed by the next."""
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        dead = threading.Thread(target=self.persister.step)
        dead.start()
        dead.join(PATIENCE)
        self.assertEqual((self.store.written, self.ring.depth), ([], 0))
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(self.store.written, [[(1, 1)]])

    def test_finish_with_a_bad_row(self) -> None:
        """Asked to finish, the thread does so, though one of its rows is bad."""
        self.patch(persister_module, "LAST_RETRY", 0.001)
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.finish()
        limit = iter(range(50))
        self.listener.on_beat = lambda: next(limit, None) is None and self.persister.abandon()
        self.persister.run()
        self.assertEqual(self.store.quarantined, [((2, 2), "hp")])
        self.assertTrue(self.listener.synced)


class DeathTests(ThreadTestCase):
    """A thread that ends by an error."""

    def live_and_die(self, error: BaseException) -> None:
        """Have a thread of its own run the persister, and die."""
        self.start()
        self.thread.join(PATIENCE)
        self.assertFalse(self.thread.is_alive())
        self.assertEqual(self.listener.deaths, [error])
        self.assertFalse(self.listener.ended.is_set())
        self.assertTrue(all(writer.closed for writer in self.store.writers))

    def go_on(self) -> None:
        """Have another thread run it to its end."""
        self.persister.finish()
        self.run_to_end()
        self.assertEqual(len(self.listener.deaths), 1)
        self.assertIs(self.listener.synced, True)

    def test_killed_while_it_writes(self) -> None:
        """Invariant 3: the death is reported, the writer closed; the next thread commits."""
        self.push((2, 1), (1, 1), (2, 2))
        error = Killed()
        self.store.write_errors.append(error)
        self.live_and_die(error)
        self.assertEqual(self.commits(), [])
        self.go_on()
        commit = self.commit()
        self.assertEqual(players_in(commit), [(1, 1), (2, 2)])
        self.assertEqual((commit.superseded, commit.read), (1, 3))
        self.assertEqual(len(self.store.writers), 2)

    def test_killed_while_it_splits(self) -> None:
        """Invariant 3: commits before the death are reported once, by the dying thread."""
        self.push((1, 1), (2, 2))
        error = Killed()
        self.store.write_errors.extend([RowRefused("both"), None, error])
        self.live_and_die(error)
        self.assertEqual(self.commits(), [([(1, 1)], ())])
        self.go_on()
        self.assertEqual(self.commits(), [([(2, 2)], ())])

    def test_killed_in_the_maintenance(self) -> None:
        """A death after the commit takes nothing back."""
        self.push((1, 1))
        error = Killed()
        self.store.on_maintain = raising(error)
        self.live_and_die(error)
        self.go_on()
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_killed_in_its_sleep(self) -> None:
        """An error from the listener's beat kills the thread, and is reported."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        error = ZeroDivisionError()
        self.listener.on_beat = raising(error)
        self.live_and_die(error)
        self.push((1, 1))
        self.go_on()
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_killed_in_the_last_sync(self) -> None:
        """A thread that dies at its very end is followed by one that syncs."""
        self.push((1, 1))
        error = Killed()
        self.store.on_sync = raising(error)
        self.persister.finish()
        self.live_and_die(error)
        self.go_on()
        self.assertTrue(self.store.is_synced)
        self.assertEqual(self.commits(), [([(1, 1)], ())])

    def test_writer_that_does_not_close(self) -> None:
        """A writer that fails to close does not keep the death from being reported."""
        self.push((1, 1))
        error = Killed()
        self.store.write_errors.append(error)
        self.store.close_errors.append(OSError("close"))
        self.live_and_die(error)
        self.assertEqual(self.failures(), [("close", 0)])
        self.go_on()

    def test_refusals_outlive_it(self) -> None:
        """A bad row is counted over the death of the thread."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1), (2, 2))
        self.store.bad[2, 2] = "hp"
        self.persister.step()
        self.persister.step()
        error = Killed()
        self.store.write_errors.append(error)
        self.live_and_die(error)
        self.commits()
        self.push((3, 3))
        self.go_on()
        (told,) = self.commits()
        self.assertEqual(told, ([(3, 3)], (quarantined(2, 2, "hp"),)))


class ThreadTests(ThreadTestCase):
    """How the thread sleeps and wakes."""

    def test_wakes_once_for_each_push(self) -> None:
        """A push wakes it at once, and once: it looks, commits, looks again and sleeps."""
        self.patch(persister_module, "MAX_SLEEP", 10 * PATIENCE)
        self.start()
        for number in range(3):
            self.idle()
            self.push((1, number))
            self.persister.wake()
            commit = self.listener.commits.get(timeout=PATIENCE)
            self.assertEqual(commit.sequences.tolist(), [number])
        self.idle()
        self.persister.finish()
        self.end()
        self.assertEqual(len(self.store.written), 3)
        self.assertEqual(self.listener.beats.qsize(), 4)  # one a push, one to finish
        self.assertEqual(self.ring.found_empty.qsize(), 1)

    def test_wake_just_after_the_look(self) -> None:
        """No wake-up is lost: a row pushed just when the ring was found empty is saved at once."""
        self.patch(persister_module, "MAX_SLEEP", 10 * PATIENCE)

        def push_and_wake() -> None:
            self.ring.on_empty = lambda: None
            self.push((1, 1))
            self.persister.wake()

        self.ring.on_empty = push_and_wake
        self.start()
        self.listener.commits.get(timeout=PATIENCE)
        self.persister.finish()
        self.end()

    def test_beats(self) -> None:
        """With nothing to do it beats by itself, on its own thread, and sleeps in between."""
        self.patch(persister_module, "MAX_SLEEP", 0.02)
        began = time.monotonic()
        self.start()
        for _ in range(3):
            self.assertEqual(self.listener.beats.get(timeout=PATIENCE), self.thread.ident)
        self.assertGreater(time.monotonic() - began, 0.05)
        self.assertEqual(self.store.writers, [])
        self.persister.finish()
        self.end()

    def test_maintenance_while_idle(self) -> None:
        """With nothing to write, the writer is given time for maintenance each time it wakes."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.push((1, 1))
        maintenances: list[int] = []

        def beat() -> None:
            maintenances.append(self.store.maintained)
            if len(maintenances) == 4:
                self.persister.finish()

        self.listener.on_beat = beat
        self.persister.run()
        self.assertEqual(maintenances, [1, 2, 3, 4])

    def test_maintenance_while_idle_fails(self) -> None:
        """Maintenance that fails without rows to write is reported, and the thread lives."""
        self.patch(persister_module, "MAX_SLEEP", 0.001)
        self.push((1, 1))

        def beat() -> None:
            self.store.maintenance_errors.append(OSError("checkpoint"))
            self.persister.finish()

        self.listener.on_beat = beat
        self.persister.run()
        self.assertEqual(self.failures(), [("checkpoint", 0)])
        self.assertEqual((self.listener.deaths, self.listener.synced), ([], True))

    def test_wakes_to_end(self) -> None:
        """Asked to finish, or abandoned, it does not sleep to the end."""
        self.patch(persister_module, "MAX_SLEEP", 10 * PATIENCE)
        for name in ("finish", "abandon"):
            with self.subTest(name):
                self.listener.ended.clear()
                drained(self.ring.found_empty)
                self.persister = self.make()
                self.start()
                self.idle()
                getattr(self.persister, name)()
                self.end()

    def test_beats_while_the_store_is_away(self) -> None:
        """Between two tries it beats as well, so that time passes for the reactor."""
        self.patch(persister_module, "FIRST_RETRY", 0.001)
        self.push((1, 1))
        self.store.write_errors.extend([StoreBusy("locked")] * 3)
        self.start()
        for _ in range(3):
            self.listener.beats.get(timeout=PATIENCE)
        self.listener.commits.get(timeout=PATIENCE)
        self.persister.finish()
        self.end()

    def back_off(self) -> None:
        """Run until a write has failed and the thread waits, for long, to try again."""
        self.patch(persister_module, "FIRST_RETRY", 10 * PATIENCE)
        self.patch(persister_module, "LAST_RETRY", 10 * PATIENCE)
        self.push((1, 1))
        self.store.write_errors.append(StoreBusy("locked"))
        self.start()
        self.listener.failures.get(timeout=PATIENCE)

    def test_push_does_not_hurry_a_busy_store(self) -> None:
        """While it waits to try again, pushes do not make it try sooner."""
        self.back_off()
        self.persister.wake()
        with self.assertRaises(queue.Empty):
            self.listener.commits.get(timeout=0.05)

    def test_abandoned_while_it_backs_off(self) -> None:
        """Abandoned between two tries, it ends at once, with nothing called committed."""
        self.back_off()
        self.persister.abandon()
        self.end()
        self.assertTrue(self.store.writers[0].closed)
        self.assertEqual(len(self.store.attempts), 1)
        self.assertTrue(self.listener.commits.empty())

    def test_abandoned_while_it_writes(self) -> None:
        """Abandoned during a write, it interrupts that and ends, with nothing called committed."""
        writing = threading.Event()

        def stall() -> None:
            writing.set()
            if not self.store.interrupted.wait(PATIENCE):
                raise AssertionError("not interrupted")
            raise OSError("interrupted")

        self.store.on_write = stall
        self.push((1, 1))
        self.start()
        self.assertTrue(writing.wait(PATIENCE))
        self.persister.abandon()
        self.end()
        error, rows = self.failure()
        self.assertEqual((str(error), rows), ("interrupted", 1))
        self.assertTrue(self.store.writers[0].closed)
        self.assertEqual(len(self.store.attempts), 1)
        self.assertTrue(self.listener.commits.empty())
