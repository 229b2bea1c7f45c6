"""The store is removed or replaced while it is in use, and what is there now is gone over to."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel

from playerstate import (
    Joined,
    NotRunning,
    NotSaved,
    PlayerState,
    Progress,
    StoreBusy,
    StoreUnusable,
)
from playerstate.interfaces import (
    Stored,
    StoreReplaced,
)
from playerstate.players.reopening import LOADS_A_TURN
from playerstate.saving.health import Trouble
from playerstate.testing import EPOCH
from tests.kit.players import (
    FragileStore,
    ServiceTestCase,
    at,
    end_thread,
    go_over,
    look_after,
)

SPAWN = PlayerState(350.0, 200.0)
MICROSECONDS = 10**6


class ReplacedTests(ServiceTestCase):
    """The store is removed or replaced while it is in use."""

    def setUp(self) -> None:
        """Three players online, of whom two are saved and one never moved; one who has left."""
        super().setUp()
        self.store = FragileStore()
        self.stepped = self.start(store=self.store, queue_size=2)
        self.service = self.stepped.service
        for session_id in (1, 2, 3, 4):
            self.stepped.join(session_id)
            if session_id != 3:
                self.service.update(session_id, at(session_id))
        left = self.service.leave(4)
        self.save()
        self.successResultOf(left)
        self.store.lost = [4]

    def save(self) -> None:
        """Let everything through."""
        flushed = self.service.flush()
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()
        self.successResultOf(flushed)

    def replace(self, **players: tuple[float, float, int]) -> None:
        """Another store takes the place: ``p5=(x, y, updated_at)``."""
        self.store.successor = {
            int(name[1:]): Stored((x, y), updated_at)
            for name, (x, y, updated_at) in players.items()
        }

    def again(self) -> None:
        """A second passes, after which the going over is tried again."""
        self.stepped.reactor.advance(1.0)
        go_over(self.stepped)

    def test_all_saved_again(self) -> None:
        """Who is online and has ever changed is saved again; the log names who is lost."""
        self.replace()
        look_after(self.stepped)
        [(identity, online)] = self.store.reopened
        self.assertEqual((len(identity), online), (16, {1, 2, 3}))
        books = self.service.ledger.snapshot()
        self.assertEqual((books.recovered, books.pending), (2, 2))
        self.assertEqual(books.imbalance(), [])
        self.assertEqual(books.store_errors, {"StoreReplaced": 1})
        self.assertEqual(
            self.told("was removed or replaced", LogLevel.critical),
            [
                "the store memory was removed or replaced while it was in use; the 3 players in"
                " the game are saved again; lost: the newest state of 1 others: 4"
            ],
        )
        self.stepped.settle()
        self.assertEqual(self.stored(self.stepped), {1: (1.0, 0.0), 2: (2.0, 0.0)})
        self.assertEqual(self.service.ledger.snapshot().pending, 0)
        self.assertEqual(self.stepped.join(4).state, SPAWN)

    def test_nobody_lost(self) -> None:
        """Where nobody is lost, the log says so."""
        self.store.lost = []
        self.replace()
        look_after(self.stepped)
        [line] = self.told("was removed or replaced", LogLevel.critical)
        self.assertTrue(line.endswith("of 0 others: none"), line)

    def test_lost_cannot_be_named(self) -> None:
        """Where it cannot be told who is lost, the log says so."""
        self.store.lost = None
        self.replace()
        look_after(self.stepped)
        [line] = self.told("was removed or replaced", LogLevel.critical)
        self.assertIn("the 3 players in the game are saved again", line)
        self.assertTrue(line.endswith("and cannot be named"), line)

    def test_reader(self) -> None:
        """From then on players are loaded from what is there now; the old reader is closed."""
        self.replace(p7=(7.0, 7.0, 99))
        look_after(self.stepped)
        old, new = self.store.readers
        self.assertEqual((old.closed, new.closed), (True, False))
        self.assertEqual(self.stepped.join(7), Joined(at(7, 7), True, 99))
        self.assertEqual(self.store.writers_closed, 1)

    def test_nothing_is_written_before(self) -> None:
        """Nothing is written between the discovery and the going over."""
        self.replace()
        self.stepped.thread.persister._maintain()
        self.service.update(1, at(9))
        self.service.flush()
        writes = len(self.store.writes)
        for _ in range(3):
            self.assertEqual(self.stepped.thread.persister.step(), 1.0)
        self.assertEqual(len(self.store.writes), writes)
        self.stepped.reactor.deliver()
        self.assertEqual(self.stepped.thread.persister.step(), 0.0)  # goes over
        self.assertEqual(len(self.store.writes), writes)
        self.stepped.reactor.deliver()
        self.stepped.settle()
        self.assertEqual(self.stored(self.stepped), {1: (9.0, 0.0), 2: (2.0, 0.0)})

    def test_cannot_be_used_at_first(self) -> None:
        """As long as what is there cannot be used it is tried again each second, and told."""
        self.replace()
        self.store.reopen_failures.extend(StoreUnusable("a shopping list") for _ in range(3))
        look_after(self.stepped)
        self.assertEqual(
            self.told("cannot go on with", LogLevel.error),
            ["cannot go on with memory: a shopping list"],
        )
        self.assertFalse(self.store.readers[0].closed)
        for failures in (2, 1, 0):
            self.stepped.reactor.advance(0.9)
            go_over(self.stepped)
            self.assertEqual(len(self.store.reopen_failures), failures)
            self.stepped.reactor.advance(0.2)
            go_over(self.stepped)
        self.assertEqual(len(self.store.reopened), 1)
        self.assertEqual(len(self.told("cannot go on with")), 1)  # once, not each second
        self.stepped.settle()
        self.assertEqual(len(self.store.players), 2)
        self.stepped.reactor.advance(60.0)
        self.assertEqual(len(self.store.reopened), 1)

    def test_reader_cannot_be_opened_at_first(self) -> None:
        """A reader that cannot be opened is a failure like any other; the old one stays."""
        self.replace()
        open_reader, attempts = self.store.open_reader, []

        def reluctant() -> Any:
            attempts.append(None)
            if len(attempts) == 1:
                self.store.successor = {}
                raise OSError(24, "Too many open files")
            return open_reader()

        self.patch(self.store, "open_reader", reluctant)
        look_after(self.stepped)
        self.assertFalse(self.store.readers[0].closed)
        self.again()
        self.stepped.settle()
        self.assertEqual(len(attempts), 2)
        self.assertTrue(self.store.readers[0].closed)
        self.assertEqual(len(self.store.players), 2)

    def test_degraded(self) -> None:
        """While it cannot be gone over to, that is trouble; the first commit ends it."""
        self.replace()
        self.store.reopen_failures.extend(StoreUnusable("a shopping list") for _ in range(10))
        look_after(self.stepped)
        self.stepped.reactor.advance(5.0)
        self.assertIs(self.service.trouble, None)
        for _ in range(3):
            self.again()
        self.assertEqual(self.service.trouble, Trouble("players.db was removed or replaced", 8.0))
        self.store.reopen_failures.clear()
        self.again()
        self.stepped.settle()
        self.assertIs(self.service.trouble, None)

    def test_nobody_online(self) -> None:
        """With nobody to save again, there is no trouble once it was gone over to."""
        for session_id in (1, 2, 3):
            self.successResultOf(self.service.leave(session_id))
        self.replace()
        look_after(self.stepped)
        for _ in range(10):
            self.again()
            look_after(self.stepped)
            self.stepped.step()
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.told("degraded: "), [])

    def test_flushed_by_the_new_one(self) -> None:
        """A flush waits till what the old store had is in the new one, however late it is told."""
        self.service.update(1, at(9))
        flushed = self.service.flush()
        self.stepped.reactor.advance(0.5)
        self.stepped.thread.persister.step()  # is told after the other's end
        self.replace()
        commits = list(self.stepped.reactor._calls)
        self.stepped.reactor._calls.clear()
        self.stepped.thread.persister._maintain()
        self.stepped.reactor._calls.extend(commits)
        self.stepped.reactor.deliver()
        go_over(self.stepped)
        self.assertEqual(len(self.store.reopened), 1)
        self.waits(flushed)
        self.stepped.settle()
        self.successResultOf(flushed)
        self.assertEqual(self.stored(self.stepped), {1: (9.0, 0.0), 2: (2.0, 0.0)})

    def test_after_a_commit(self) -> None:
        """What was committed to the old store a moment before is saved again as well."""
        self.replace()
        self.service.update(1, at(9))
        flushed = self.service.flush()
        self.stepped.settle()
        self.successResultOf(flushed)
        self.stepped.settle()
        self.assertEqual(self.stored(self.stepped), {1: (9.0, 0.0), 2: (2.0, 0.0)})

    def test_leave_waits(self) -> None:
        """Who leaves then is gone only once the store that is there now has them."""
        self.replace()
        look_after(self.stepped)
        left = self.service.leave(1)
        self.stepped.reactor.advance(0.05)
        self.waits(left)
        self.stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped)[1], (1.0, 0.0))

    def test_leave_before(self) -> None:
        """Who leaves before it was gone over to, but after it was found, is not lost."""
        self.replace()
        self.store.reopen_failures.append(StoreUnusable("a shopping list"))
        look_after(self.stepped)
        left = self.service.leave(1)
        self.waits(left)
        self.again()
        self.stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped)[1], (1.0, 0.0))

    def test_joined_before(self) -> None:
        """Who joins by a load from the old store that comes late is saved again as well."""
        self.store.hold_reads()
        joined = self.service.join(4)
        self.replace()
        self.store.reopen_failures.append(StoreUnusable("a shopping list"))
        look_after(self.stepped)
        self.store.answer_reads()
        self.assertEqual(self.successResultOf(joined).state, at(4))
        self.again()
        self.assertEqual(self.store.reopened[0][1], {1, 2, 3, 4})
        self.stepped.settle()
        self.assertEqual(sorted(self.store.players), [1, 2, 4])

    def test_joins_wait(self) -> None:
        """Who joins while the reader is exchanged waits, and is loaded by the new one."""
        self.replace(p7=(7.0, 7.0, 99))
        self.stepped.thread.persister._maintain()
        self.stepped.reactor.deliver()
        joined, again, cancelled = (self.service.join(n) for n in (7, 7, 8))
        self.waits(joined, again)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(self.stepped.join(1).state, at(1))  # of the table, as ever
        go_over(self.stepped)
        for waiter in (joined, again):
            self.assertEqual(self.successResultOf(waiter), Joined(at(7, 7), True, 99))
        self.assertEqual(self.service.table.slots.keys(), {1, 2, 3, 7})

    def test_joins_wait_with_a_bound(self) -> None:
        """After some seconds they are told to ask again, and who comes then at once."""
        self.replace(p7=(7.0, 7.0, 99))
        self.store.reopen_failures.extend(StoreUnusable("a shopping list") for _ in range(6))
        look_after(self.stepped)
        joined = self.service.join(7)
        for _ in range(4):
            self.again()
        self.waits(joined)
        self.again()
        for refused in (joined, self.service.join(7)):
            error = self.failureResultOf(refused, StoreBusy).value
            self.assertEqual(str(error), "memory was removed or replaced: a shopping list")
        self.again()
        self.assertEqual(self.stepped.join(7).state, at(7, 7))

    def test_many_who_wait(self) -> None:
        """They are loaded a few at a time, so that no turn of the reactor takes long."""
        self.replace()
        self.stepped.thread.persister._maintain()
        self.stepped.reactor.deliver()
        joined = [self.service.join(n) for n in range(100, 100 + 2 * LOADS_A_TURN + 1)]
        go_over(self.stepped)
        self.assertEqual(sum(each.called for each in joined), LOADS_A_TURN)
        self.stepped.reactor.advance(0.0)
        for each in joined:
            self.successResultOf(each)

    def test_stop_while_joins_wait(self) -> None:
        """A stop tells them that nobody joins any more."""
        self.replace()
        self.stepped.thread.persister._maintain()
        self.stepped.reactor.deliver()
        joined = self.service.join(7)
        stopped = self.service.stopService()
        self.failureResultOf(joined, NotRunning)
        self.stepped.settle()
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertEqual(self.stored(self.stepped), {1: (1.0, 0.0), 2: (2.0, 0.0)})

    def test_the_reactor_does_not_go_over(self) -> None:
        """What may take long is done by the persist thread, and not on the reactor's turn."""
        self.replace()
        self.stepped.thread.persister._maintain()
        for _ in range(5):
            self.stepped.reactor.advance(1.0)
        self.assertEqual(self.store.reopened, [])
        go_over(self.stepped)
        self.assertEqual(len(self.store.reopened), 1)

    def test_thread_dies_going_over(self) -> None:
        """The next persist thread goes over in its place."""
        self.replace()
        self.store.reopen_failures.append(SystemExit("out"))  # type: ignore[arg-type]
        self.stepped.thread.persister._maintain()
        self.stepped.reactor.deliver()
        self.stepped.thread._run()
        self.stepped.reactor.deliver()
        self.stepped.reactor.advance(0.075)
        self.stepped.settle()
        self.assertEqual(self.stored(self.stepped), {1: (1.0, 0.0), 2: (2.0, 0.0)})
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_leave_under_way(self) -> None:
        """A leave whose row is on its way fires when the new store has it."""
        self.service.update(1, at(9))
        left = self.service.leave(1)
        self.stepped.reactor.advance(0.05)
        self.replace()
        look_after(self.stepped)
        self.waits(left)
        self.stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped), {1: (9.0, 0.0), 2: (2.0, 0.0)})
        self.assertEqual(sorted(self.service.table.slots), [2, 3])

    def test_rows_on_their_way(self) -> None:
        """Rows on their way are written once, and free no place too early."""
        for session_id in (1, 2):  # they fill the ring
            self.service.update(session_id, at(9))
        self.service.flush()
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 2)
        self.replace()
        look_after(self.stepped)
        left = self.service.leave(1)
        self.stepped.step()
        self.successResultOf(left)
        self.assertEqual(self.service.ledger.snapshot().imbalance(), [])
        self.store.players[5] = Stored((5.0, 5.0), 55)
        slots = self.service.table.slots
        self.assertNotIn(1, slots)
        self.stepped.join(5)
        self.assertEqual(slots[5], 0)  # where the other was
        self.stepped.reactor.advance(3.0)
        self.stepped.settle()
        self.assertEqual(self.successResultOf(self.service.leave(5)), Progress(0, 0))
        self.assertEqual(self.service.ledger.snapshot().imbalance(), [])

    def test_what_the_old_store_left_out(self) -> None:
        """Who was left out for the old store's newer state is saved into the one of now."""
        self.store.players[1] = Stored((7.0, 7.0), (EPOCH + 86_400) * MICROSECONDS)
        self.service.update(1, at(9))
        flushed = self.service.flush()
        self.stepped.settle()
        self.failureResultOf(flushed, NotSaved)
        self.replace()
        look_after(self.stepped)
        left = self.service.leave(1)
        self.assertEqual(self.service.ledger.snapshot().imbalance(), [])
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped)[1], (9.0, 0.0))

    def test_store_of_newer_times(self) -> None:
        """Where the store that is there now holds something newer, the guard holds."""
        self.replace(p1=(7.0, 7.0, (EPOCH + 86_400) * MICROSECONDS))
        look_after(self.stepped)
        left = self.service.leave(1)
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()
        self.failureResultOf(left, NotSaved)
        self.assertEqual(self.stored(self.stepped), {1: (7.0, 7.0), 2: (2.0, 0.0)})

    def test_more_than_the_ring_holds(self) -> None:
        """All are saved again, however small the ring."""
        for session_id in range(10, 40):
            self.stepped.join(session_id)
            self.service.update(session_id, at(session_id))
        self.save()
        self.replace()
        look_after(self.stepped)
        self.assertEqual(self.service.ledger.recovered, 32)
        self.stepped.settle()
        self.assertEqual(len(self.store.players), 32)

    def test_twice(self) -> None:
        """It may happen again and again."""
        for n in range(1, 4):
            self.replace()
            look_after(self.stepped)
            self.stepped.settle()
            self.assertEqual(len(self.store.players), 2)
            self.assertEqual(self.service.ledger.recovered, 2 * n)

    def test_while_stopping(self) -> None:
        """A stop saves everybody into the store that is there now."""
        self.service.update(1, at(9))
        stopped = self.service.stopService()
        self.replace()
        self.stepped.step()
        self.stepped.settle()
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertEqual(self.stored(self.stepped), {1: (9.0, 0.0), 2: (2.0, 0.0)})
        self.assertFalse(self.service.gave_up)

    def test_while_ending(self) -> None:
        """Found out after the last commit of a stop, it is gone over to before the stop ends."""
        for session_id in range(10, 20):
            self.stepped.join(session_id)
            self.service.update(session_id, at(session_id))
        self.save()
        self.service.update(1, at(9))
        stopped = self.service.stopService()
        self.replace()
        self.stepped.step()  # commits the last row, and finds out
        self.assertTrue(self.stepped.thread.persister.told_to_end)
        self.stepped.step()
        self.assertEqual(len(self.store.reopened), 1)
        self.stepped.settle()
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertEqual(len(self.store.players), 12)
        self.assertEqual(self.service.ledger.snapshot().pending, 0)

    def test_found_by_the_last_sync(self) -> None:
        """Found by the last thing that the thread does, the stop goes over to it itself."""
        self.replace()

        def sync() -> None:
            raise StoreReplaced("gone")

        self.patch(self.store, "sync", sync)
        self.patch(self.store, "maintain", lambda: None)
        for session_id in (1, 2, 3):
            self.service.leave(session_id)
        self.save()
        stopped = self.service.stopService()
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertEqual(len(self.store.reopened), 1)
        self.assertEqual(len(self.told("of 1 others: 4", LogLevel.critical)), 1)
        self.assertTrue(self.service.gave_up)
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])

    def test_nothing_to_go_over_to_while_ending(self) -> None:
        """Found out then, with nothing to go over to, it is told whose state went with it."""
        self.service.update(1, at(9))
        stopped = self.service.stopService()
        self.replace()
        self.store.reopen_failures.extend(StoreUnusable("a shopping list") for _ in range(100))
        self.stepped.step()  # commits the last row, and finds out
        go_over(self.stepped)
        for _ in range(31):
            if self.stepped.thread.persister.told_to_end:
                break
            self.again()
            self.stepped.step()
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertTrue(self.service.gave_up)
        self.assertEqual(len(self.told("unsaved of player 1, 2;", LogLevel.error)), 1)

    def test_deadline_of_stopping(self) -> None:
        """A stop that finds nothing it could go over to gives up at its deadline."""
        self.replace()
        self.store.reopen_failures.extend(StoreUnusable("a shopping list") for _ in range(100))
        look_after(self.stepped)
        self.service.update(1, at(9))
        stopped = self.service.stopService()
        for _ in range(30):
            self.again()
            self.stepped.step()
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertTrue(self.service.gave_up)
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])
        self.stepped.reactor.advance(60.0)
        self.assertEqual(self.store.reopened, [])

    def test_told_after_the_stop(self) -> None:
        """A word of it that comes after the stop changes nothing."""
        self.successResultOf(self.stepped.stop())
        self.replace()
        self.stepped.thread.persister._listener.replaced(StoreReplaced("gone"))
        self.stepped.reactor.deliver()
        self.assertEqual(self.store.reopened, [])
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])

    def test_thread_dies(self) -> None:
        """The next persist thread waits for the going over as the one before did."""
        self.replace()
        self.store.reopen_failures.append(StoreUnusable("a shopping list"))
        look_after(self.stepped)
        self.service.run.outbox._lanes[0].died(SystemExit("out"))
        self.stepped.reactor.advance(0.075)
        self.service.update(1, at(9))
        self.service.flush()
        self.assertEqual(self.stepped.step(), 1.0)
        self.again()
        self.stepped.settle()
        self.assertEqual(self.stored(self.stepped), {1: (9.0, 0.0), 2: (2.0, 0.0)})
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)
