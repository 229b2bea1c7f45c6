"""Leaves: until the state is saved, where it is not, and of the last date there is."""

from __future__ import annotations

import numpy as np
from twisted.internet.defer import CancelledError
from twisted.logger import LogLevel

from playerstate import NotOnline, NotSaved, PlayerStateService, Progress, StoreBusy
from playerstate.interfaces import RowRefused, Stored
from playerstate.ledger import Outcome
from playerstate.testing import EPOCH
from tests.kit.players import SCHEMA, FragileStore, ServiceTestCase, at, end_thread, move

MICROSECONDS = 10**6
LATEST = 2**63 - 1


class LeaveTests(ServiceTestCase):
    """Going offline."""

    def setUp(self) -> None:
        """A service with one player who has moved."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.stepped.join(42)
        self.service.update(42, at(1))

    def save(self) -> None:
        """Let the rows that are to be saved at once be saved."""
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()

    def test_fires_when_committed(self) -> None:
        """A leave is handed over within 50 ms, and fires when it is committed, not before."""
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.049)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 0)
        self.stepped.reactor.advance(0.001)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)
        self.waits(left)
        self.stepped.thread.persister.step()
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 0.0)})
        self.waits(left)
        self.stepped.reactor.deliver()
        self.assertEqual(self.successResultOf(left), Progress(0, 0))
        self.assertEqual(self.service.ledger.leaves, 1)

    def test_share_a_commit(self) -> None:
        """Those who leave within 50 ms are saved by one commit."""
        for session_id in (43, 44):
            self.stepped.join(session_id)
            self.service.update(session_id, at(session_id))
        leaves = []
        for session_id in (42, 43, 44):
            leaves.append(self.service.leave(session_id))
            self.stepped.reactor.advance(0.02)
        self.stepped.settle()
        for left in leaves:
            self.successResultOf(left)
        self.assertEqual(self.stepped.store.writes, [3])

    def test_others_stay(self) -> None:
        """A leave hands over nobody but those who leave."""
        self.stepped.join(43)
        self.service.update(43, at(1))
        self.service.leave(42)
        self.save()
        self.assertEqual(list(self.stepped.store.players), [42])

    def test_clean(self) -> None:
        """Who has nothing unsaved is gone at once."""
        self.service.flush()
        self.stepped.settle()
        self.assertEqual(self.successResultOf(self.service.leave(42)), Progress(0, 0))
        self.failureResultOf(self.service.leave(42), NotOnline)
        self.assertEqual(self.stepped.store.writes, [1])

    def test_swept_already(self) -> None:
        """Who leaves with the row on its way waits for that commit, and is not sent twice."""
        self.stepped.reactor.advance(3.0)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)
        self.waits(left)
        self.stepped.settle()
        self.successResultOf(left)

    def test_swept_within_the_delay(self) -> None:
        """A sweep that comes within the 50 ms takes the leaver along, and only once."""
        left = self.service.leave(42)
        flushed = self.service.flush()
        self.stepped.settle()
        self.successResultOf(left)
        self.successResultOf(flushed)
        self.save()
        self.assertEqual(self.stepped.store.writes, [1])

    def test_twice(self) -> None:
        """Leaving twice waits twice for one save."""
        first, second = self.service.leave(42), self.service.leave(42)
        self.save()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.stepped.store.writes, [1])
        self.assertEqual(self.service.ledger.leaves, 1)

    def test_cancelled(self) -> None:
        """Cancelling stops the waiting of one, and neither the leave nor another's waiting."""
        first, second = self.service.leave(42), self.service.leave(42)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.save()
        self.successResultOf(second)
        self.assertEqual(self.service.table.slots, {})

    def test_rejoined_and_left_again_within_the_delay(self) -> None:
        """Leave, join and leave within 50 ms hand the row over once (invariant 7)."""
        first = self.service.leave(42)
        self.assertEqual(self.stepped.join(42).state, at(1))
        second = self.service.leave(42)
        self.save()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.service.ledger.swept, 1)
        self.assertEqual(self.service.ledger.snapshot().imbalance(), [])

    def test_rejoined(self) -> None:
        """Who comes back before the save keeps the place; the leave still fires at the commit."""
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        self.stepped.join(42)
        self.service.update(42, at(2))
        self.waits(left)
        self.stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.service.state(42), at(2))
        self.assertEqual(self.service.ledger.leaves, 0)

    def test_rejoined_before_an_older_commit(self) -> None:
        """The commit of an older row does not fire the leave of who has come back since."""
        self.stepped.reactor.advance(3.0)  # the row of now is in the ring
        self.service.update(42, at(2))
        left = self.service.leave(42)
        self.stepped.join(42)
        self.stepped.step()
        self.waits(left)
        self.save()
        self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped), {42: (2.0, 0.0)})

    def test_older_generation_frees_nothing(self) -> None:
        """The commit of a row from before a rejoin frees no slot, nor fires the later leave."""
        first = self.service.leave(42)
        self.stepped.reactor.advance(0.05)  # the row of the first leave is in the ring
        self.stepped.join(42)
        self.service.update(42, at(2))
        second = self.service.leave(42)
        self.stepped.step()  # commits the first row, while the second waits in the table
        self.successResultOf(first)
        self.waits(second)
        self.assertEqual(self.service.table.slots, {42: 0})
        self.assertEqual(self.stepped.join(42).state, at(2))
        third = self.service.leave(42)
        self.save()
        for left in (second, third):
            self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped), {42: (2.0, 0.0)})

    def test_move_while_leaving(self) -> None:
        """A move that is still let in while a leave is pending is saved before that fires."""
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        self.assertTrue(move(self.service, 42, 1, (9.0, 9.0)))
        self.stepped.settle()
        self.waits(left)
        self.stepped.reactor.advance(3.0)
        self.stepped.settle()
        self.assertEqual(self.successResultOf(left), Progress(1, 1))
        self.assertEqual(self.stored(self.stepped), {42: (9.0, 9.0)})

    def test_newest_while_leaving(self) -> None:
        """Invariant 9: who joins again gets the newest state, wherever its row is just then."""
        store = self.stepped.store

        def in_the_ring() -> None:
            self.stepped.reactor.advance(0.05)
            self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)

        def in_hand() -> None:
            in_the_ring()
            store.failures.append(StoreBusy("locked"))
            self.stepped.step()
            self.assertEqual(self.service.ledger.snapshot().queue_depth, 0)
            self.assertEqual(self.service.ledger.snapshot().pending, 1)

        def after_another_failure() -> None:
            in_hand()
            store.failures.append(OSError("no space"))
            self.stepped.step()
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

        def saved() -> None:
            in_the_ring()
            self.stepped.settle()
            self.assertEqual(self.service.table.slots, {})

        phases = (lambda: None, in_the_ring, in_hand, after_another_failure, saved)
        for n, phase in enumerate(phases, 2):
            self.service.update(42, at(n))
            left = self.service.leave(42)
            phase()
            self.assertEqual(self.stepped.join(42).state, at(n))
            self.assertTrue(left.called or phase is not saved)
            self.service.flush()
            self.stepped.settle()
            self.successResultOf(left)
            self.assertEqual(self.stored(self.stepped), {42: (float(n), 0.0)})


class NewerTests(ServiceTestCase):
    """Another program wrote a newer state of a player into the store (invariant 4)."""

    FUTURE = (EPOCH + 86_400) * MICROSECONDS

    def setUp(self) -> None:
        """A player online whom the store holds with a later time."""
        super().setUp()
        self.stepped = self.start()
        self.service = self.stepped.service
        self.stepped.join(42)
        self.service.update(42, at(1))
        self.stepped.store.players[42] = Stored((9.0, 9.0), self.FUTURE)

    def save(self) -> None:
        """Let a leave's row go through."""
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()

    def test_leave(self) -> None:
        """Such a leave fails with `NotSaved`, is counted and logged, and lets the player go."""
        left, again = self.service.leave(42), self.service.leave(42)
        self.save()
        failure = self.failureResultOf(left, NotSaved)
        self.failureResultOf(again, NotSaved)
        self.assertEqual(
            str(failure.value), "the store holds a newer state: not saved for player 42"
        )
        books = self.service.ledger.snapshot()
        self.assertEqual((books.outdated, books.committed), (1, 0))
        self.assertEqual(
            self.told("not saved to", LogLevel.error),
            ["not saved to memory: player 42: the store holds a newer state"],
        )
        self.assertEqual(self.service.table.slots, {})
        self.assertEqual(self.stepped.join(42).state, at(9, 9))

    def test_saved_stands_still(self) -> None:
        """A row that was left out is never called saved."""
        self.assertTrue(move(self.service, 42, 5, (2.0, 2.0)))
        self.service.flush().addErrback(lambda failure: failure.trap(NotSaved))
        self.stepped.settle()
        self.assertEqual(self.service.progress(42), Progress(5, 0))

    def test_leave_later(self) -> None:
        """Who was left out before leaving is told so by the leave, without another try."""
        flushed = self.service.flush()
        self.stepped.settle()
        self.failureResultOf(flushed, NotSaved)
        self.failureResultOf(self.service.leave(42), NotSaved)
        self.failureResultOf(self.service.leave(42), NotOnline)
        self.assertEqual(self.service.ledger.outdated, 1)

    def test_rejoined(self) -> None:
        """Who came back before the row was left out stays; their next update is tried again."""
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        self.stepped.join(42)
        self.stepped.settle()
        self.failureResultOf(left, NotSaved)
        self.assertEqual(self.service.state(42), at(1))
        self.stepped.wall_step = 2 * 86_400.0
        self.service.update(42, at(3))
        left = self.service.leave(42)
        self.save()
        self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped), {42: (3.0, 0.0)})

    def test_others_are_saved(self) -> None:
        """The rest of the batch is committed, and whose leave it was fires."""
        self.stepped.join(43)
        self.service.update(43, at(43))
        guarded, saved = self.service.leave(42), self.service.leave(43)
        self.save()
        self.failureResultOf(guarded, NotSaved)
        self.successResultOf(saved)

    def test_flush(self) -> None:
        """A flush fails and names them, up to twenty."""
        for session_id in range(43, 70):
            self.stepped.join(session_id)
            self.service.update(session_id, at(1))
            self.stepped.store.players[session_id] = Stored((9.0, 9.0), self.FUTURE)
        flushed = self.service.flush()
        self.stepped.settle()
        names = ", ".join(map(str, range(42, 62)))
        self.assertIn(f"player {names} and 8 more: ", self.told("not saved to")[0])
        self.assertEqual(
            str(self.failureResultOf(flushed, NotSaved).value),
            f"the store holds a newer state: not saved for player {names} and 8 more",
        )

    def test_stop(self) -> None:
        """Stopping says whose state was left out, and ends in good order."""
        self.successResultOf(self.stepped.stop())
        [line] = self.told("stopping: the store holds", LogLevel.error)
        self.assertIn("player 42", line)
        self.assertTrue(self.stepped.thread.joined)


class SetAsideTests(ServiceTestCase):
    """A row that the store can never take."""

    def setUp(self) -> None:
        """Two players who have moved; the store refuses one of them."""
        super().setUp()
        self.store = FragileStore()
        self.stepped = self.start(store=self.store)
        self.service = self.stepped.service
        for session_id in (42, 43):
            self.stepped.join(session_id)
            self.service.update(session_id, at(1))
        self.store.cursed = {42}
        self.addCleanup(self.flushLoggedErrors, RowRefused)

    def save(self) -> None:
        """Let time pass until the row was refused for good; the other player is saved again."""
        for turn in range(3):
            self.service.update(43, at(turn))
            self.stepped.reactor.advance(3.0)
            self.stepped.step()
        self.assertEqual(self.store.aside, [(42, "not this one")])

    def test_leave(self) -> None:
        """The leave fails with the store's reason, and the place is free."""
        left, again = self.service.leave(42), self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        self.stepped.step()
        self.waits(left, again)
        self.save()
        for waiter in (left, again):
            failure = self.failureResultOf(waiter, NotSaved)
            self.assertEqual(str(failure.value), "not this one: not saved for player 42")
        self.assertEqual(list(self.service.table.slots), [43])
        self.failureResultOf(self.service.leave(42), NotOnline)
        books = self.service.ledger.snapshot()
        self.assertEqual((books.quarantined, books.outdated, books.leaves), (1, 0, 1))
        self.assertEqual(books.pending, 0)
        self.assertEqual(
            self.told("not saved to", LogLevel.error),
            ["not saved to memory: player 42: not this one"],
        )

    def test_leave_later(self) -> None:
        """Who was set aside before leaving is told so by the leave, without another try."""
        self.save()
        failure = self.failureResultOf(self.service.leave(42), NotSaved)
        self.assertEqual(str(failure.value), "not this one: not saved for player 42")
        self.failureResultOf(self.service.leave(42), NotOnline)
        self.assertEqual(self.store.aside, [(42, "not this one")])

    def test_slot_used_again(self) -> None:
        """Who gets the place of one who was set aside has nothing of it."""
        self.save()
        self.failureResultOf(self.service.leave(42), NotSaved)
        self.stepped.join(44)
        self.assertEqual(self.successResultOf(self.service.leave(44)), Progress(0, 0))
        self.stepped.join(45)
        self.service.update(45, at(1))
        left = self.service.leave(45)
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()
        self.successResultOf(left)

    def test_next_update(self) -> None:
        """A newer state of the same player is tried again, and saved once the store takes it."""
        self.save()
        self.store.cursed = set()
        self.service.update(42, at(5))
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.stored(self.stepped)[42], (5.0, 0.0))

    def test_rejoined(self) -> None:
        """Who came back before it was set aside stays; the leave fails all the same."""
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        self.stepped.join(42)
        self.save()
        self.failureResultOf(left, NotSaved)
        self.assertEqual(self.service.state(42), at(1))

    def test_flush(self) -> None:
        """A flush waits until it is set aside, and fails; one for what came after does not."""
        flushed = self.service.flush()
        self.stepped.step()
        self.waits(flushed)
        self.save()
        failure = self.failureResultOf(flushed, NotSaved)
        self.assertEqual(str(failure.value), "not this one: not saved for player 42")
        self.service.update(43, at(9))
        flushed = self.service.flush()
        self.stepped.settle()
        self.successResultOf(flushed)

    def test_flush_with_two_reasons(self) -> None:
        """A flush that fails for different reasons says of whom each is."""
        self.stepped.join(44)
        self.service.update(44, at(1))
        self.store.players[44] = Stored((9.0, 9.0), (EPOCH + 86_400) * MICROSECONDS)
        for _ in range(2):
            self.service.update(43, at(1))
            self.store.failures.append(StoreBusy("locked"))
            self.service.flush().addErrback(lambda failure: failure.trap(NotSaved))
            self.stepped.step()
        flushed = self.service.flush()
        self.save()
        why = str(self.failureResultOf(flushed, NotSaved).value)
        self.assertIn("the store holds a newer state: not saved for player 44", why)
        self.assertIn("not this one: not saved for player 42", why)

    def test_move_is_not_called_saved(self) -> None:
        """A row that was set aside is never called saved."""
        self.assertTrue(move(self.service, 42, 5, (2.0, 2.0)))
        self.save()
        self.assertEqual(self.service.progress(42), Progress(5, 0))

    def test_stop(self) -> None:
        """A stop that comes while a row is refused waits until that is for good, or gives up."""
        stopped = self.service.stopService()
        self.stepped.step()
        self.stepped.step()
        self.waits(stopped)
        self.stepped.reactor.advance(self.service.options.stop_within)
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertTrue(self.service.gave_up)
        self.assertEqual(len(self.told("unsaved of player 42;")), 1)

    def test_stop_with_a_row_set_aside(self) -> None:
        """Stopping with a row set aside ends in good order: it is kept where it can be found."""
        self.save()
        self.successResultOf(self.stepped.stop())
        self.assertFalse(self.service.gave_up)


def move_in_a_batch(service: PlayerStateService, session_id: int) -> None:
    """The first move of a player, applied and counted as one of many that came together."""
    slots = np.array([service.table.slots[session_id]], np.intp)
    fields, now = np.zeros(1, SCHEMA.dtype), service.run.wall_clock() // 1000
    service.ledger.superseded += service.table.apply_many(
        slots, np.array([1], np.uint32), fields, now
    )
    service.ledger.take_in(Outcome.APPLIED)


class RepeatedTests(ServiceTestCase):
    """Leaves again and again, and of the last date there is."""

    def test_storm_tells_the_old(self) -> None:
        """Each leave of old is told once its own row is saved, while the player goes on."""
        stepped = self.start()
        for turn in range(1, 6):
            stepped.join(42)
            stepped.service.update(42, at(turn))
            left = stepped.service.leave(42)
            stepped.reactor.advance(0.05)
            stepped.join(42)
            stepped.service.update(42, at(turn + 0.5))
            stepped.step()
            self.successResultOf(left)
        self.assertEqual(len(stepped.service.run.leaves.by_slot), 0)

    def test_latest_date(self) -> None:
        """A leave at the last date there is waits until the store has taken the row."""
        stepped = self.start()
        stepped.store.players[42] = Stored((1.0, 1.0), LATEST)
        stepped.join(42)
        stepped.service.update(42, at(5))
        left = stepped.service.leave(42)
        self.waits(left)
        stepped.reactor.advance(0.1)
        self.waits(left)
        stepped.settle()
        self.successResultOf(left)
        self.assertEqual(self.stored(stepped), {42: (5.0, 0.0)})

    def test_latest_date_on_its_way(self) -> None:
        """A leave at that date waits for a row that was swept already, however it was made."""
        for session_id in (42, 43):
            stepped = self.start()
            service = stepped.service
            stepped.store.players[session_id] = Stored((1.0, 1.0), LATEST)
            stepped.join(session_id)
            if session_id == 42:
                service.update(session_id, at(5))
            else:
                move_in_a_batch(service, session_id)
            stepped.reactor.advance(3.0)
            left = service.leave(session_id)
            self.waits(left)
            stepped.settle()
            self.successResultOf(left)

    def test_latest_date_of_many(self) -> None:
        """The same where moves came together."""
        stepped = self.start()
        stepped.store.players[42] = Stored((1.0, 1.0), LATEST)
        stepped.join(42)
        move_in_a_batch(stepped.service, 42)
        left = stepped.service.leave(42)
        stepped.reactor.advance(0.1)
        self.waits(left)
        stepped.settle()
        self.successResultOf(left)
