"""The service: join, update, leave, flush, start, stop; clock and persist thread are told."""

from __future__ import annotations

import math
import os
from types import MappingProxyType
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from playerstate import (
    InvalidState,
    Joined,
    NotOnline,
    NotRunning,
    NotSaved,
    PlayerState,
    PlayerStateService,
    Progress,
    ServerFull,
    StoreBusy,
    StoreUnusable,
    within,
)
from playerstate.interfaces import (
    IStateReader,
    IStateStore,
    IStateWriter,
    RowRefused,
    Stored,
)
from playerstate.runtime import Runtime
from playerstate.saving.health import Trouble
from playerstate.saving.persister import Persister
from playerstate.testing import EPOCH, FaultyStore, MemoryReactor, SteppedService
from tests.kit.players import (
    SCHEMA,
    FragileReader,
    FragileStore,
    ServiceTestCase,
    at,
    die,
    end_thread,
    go_over,
    leave_behind,
    move,
    outcome,
)
from tests.kit.support import LAW

SPAWN = PlayerState(350.0, 200.0)
MICROSECONDS = 10**6


@attrs.frozen
class Avatar:
    """A state with a bound."""

    x: float = attrs.field(default=350.0, metadata=within(0, 4096))
    hp: int = 100


class JoinTests(ServiceTestCase):
    """Coming online."""

    def test_spawns(self) -> None:
        """A player never seen stands at the spawn, not restored, with an ``updated_at`` of 0."""
        stepped = self.start()
        self.assertEqual(stepped.join(42), Joined(SPAWN, False, 0))
        self.assertEqual(stepped.service.state(42), SPAWN)
        self.assertEqual(stepped.service.progress(42), Progress(0, 0))

    def test_stands_where_they_left(self) -> None:
        """A player who left and was saved comes back to where they stood."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1, 2))
        left = stepped.service.leave(42)
        stepped.reactor.advance(0.05)
        stepped.settle()
        self.successResultOf(left)
        self.assertEqual(stepped.service.ledger.snapshot().players_online, 0)
        self.assertEqual(stepped.join(42), Joined(at(1, 2), True, EPOCH * MICROSECONDS))
        self.assertEqual(stepped.service.ledger.restored, 1)

    def test_is_there_already(self) -> None:
        """Joining again while online hands out the newest applied state, saved or not."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(5))
        self.assertEqual(stepped.join(42).state, at(5))
        self.assertEqual(len(stepped.service.table), 1)

    def test_who_is_there_needs_no_store(self) -> None:
        """A join of who is in the table does not ask the store, which may be slow or broken."""
        stepped = self.start(max_players=1)
        stepped.join(42)
        stepped.service.update(42, at(5))
        stepped.store.hold_loads()
        self.assertEqual(stepped.join(42).state, at(5))
        self.assertEqual(stepped.store.held, [])
        self.patch(stepped.store, "load", lambda session_id: 1 / 0)
        self.assertEqual(stepped.join(42).state, at(5))

    def test_sequence(self) -> None:
        """The numbers of a player's moves begin above the one named by the join."""
        stepped = self.start()
        self.successResultOf(stepped.service.join(42, sequence=7))
        self.assertEqual(stepped.service.progress(42), Progress(7, 7))
        self.assertFalse(move(stepped.service, 42, 7, (1.0, 1.0)))
        self.assertTrue(move(stepped.service, 42, 8, (1.0, 1.0)))
        self.assertEqual(stepped.service.progress(42), Progress(8, 7))

    def test_sequence_range(self) -> None:
        """A sequence is what fits a message; another is the caller's mistake, and raises."""
        stepped = self.start()
        for sequence in (-1, 2**32):
            with self.assertRaisesRegex(ValueError, f"sequence {sequence} is not"):
                stepped.service.join(42, sequence=sequence)
        self.successResultOf(stepped.service.join(42, sequence=2**32 - 1))

    def test_numbers_go_on(self) -> None:
        """A join that names no sequence leaves the numbers of who is there as they were."""
        stepped = self.start()
        self.successResultOf(stepped.service.join(42, sequence=7))
        stepped.join(42)
        self.assertEqual(stepped.service.progress(42).applied, 7)

    def test_session_id(self) -> None:
        """A session id is from 1 to 2**63 - 1; another is the caller's mistake, and raises."""
        stepped = self.start()
        for session_id in (0, -1, 2**63, 2**64):
            with self.assertRaisesRegex(ValueError, f"session id {session_id} is not"):
                stepped.service.join(session_id)
        self.assertEqual(stepped.join(2**63 - 1).state, SPAWN)
        self.assertEqual(stepped.join(1).state, SPAWN)

    def test_store_fails(self) -> None:
        """What the store raises goes to the one who joins, and takes no place."""
        stepped = self.start(max_players=1)
        self.patch(stepped.store, "load", lambda session_id: 1 / 0)
        self.failureResultOf(stepped.service.join(1), ZeroDivisionError)
        self.patch(stepped.store, "load", lambda session_id: None)
        self.assertEqual(stepped.join(2).state, SPAWN)

    def test_store_holds_what_does_not_fit(self) -> None:
        """A stored row that the state class cannot hold fails the join, and takes no place."""
        stepped = self.start(max_players=1)
        stepped.store.players[1] = Stored(("left", "right"), 5)
        self.failureResultOf(stepped.service.join(1), InvalidState)
        self.assertEqual(stepped.join(2).state, SPAWN)

    def test_failed_join_keeps_no_place(self) -> None:
        """A join whose stored row cannot be taken in costs nothing, however often it is tried."""
        stepped = self.start(max_players=1)
        stepped.store.players[1] = Stored((1.0, 2.0), 2**70)
        for _ in range(3):
            self.failureResultOf(stepped.service.join(1), InvalidState)
        stepped.store.players[2] = Stored((math.inf, 2.0), 5)
        self.failureResultOf(stepped.service.join(2), InvalidState)
        self.assertEqual(self.successResultOf(stepped.service.join(3)).state, PlayerState())

    def test_session_id_of_another_type(self) -> None:
        """What is no whole number is no session id."""
        stepped = self.start()
        for session_id in (1.5, "1", None):
            with self.assertRaises(TypeError):
                stepped.service.join(session_id)

    def test_nobody_is_online_afterwards(self) -> None:
        """A service that has stopped has nobody online."""
        stepped = self.start()
        stepped.join(42)
        self.assertEqual(stepped.service.ledger.snapshot().players_online, 1)
        stepped.stop()
        self.assertEqual(stepped.service.ledger.snapshot().players_online, 0)

    def test_full(self) -> None:
        """Who finds no place is told how many there are; who is online joins all the same."""
        stepped = self.start(max_players=2)
        stepped.join(1)
        stepped.join(2)
        failure = self.failureResultOf(stepped.service.join(3), ServerFull)
        self.assertEqual(str(failure.value), "all 2 places are taken")
        self.assertTrue(stepped.service.has_room(2))
        self.assertFalse(stepped.service.has_room(3))
        stepped.join(2)

    def test_places_taken(self) -> None:
        """Players online, loading and leaving all count against `max_players`."""
        stepped = self.start(max_players=3)
        service = stepped.service
        stepped.join(1)
        stepped.join(2)
        service.update(2, at(1))
        left = service.leave(2)
        stepped.store.hold_loads()
        loading = service.join(3)
        self.failureResultOf(service.join(4), ServerFull)
        books = service.ledger.snapshot()
        self.assertEqual((books.players_online, books.players_leaving), (1, 1))
        stepped.reactor.advance(0.05)
        stepped.settle()
        self.successResultOf(left)
        fourth = service.join(4)
        self.waits(loading, fourth)
        stepped.store.release_loads()
        self.successResultOf(loading)
        self.successResultOf(fourth)

    def test_freed_slot(self) -> None:
        """A slot that was freed is used again, with nothing left of whose it was."""
        stepped = self.start(max_players=1)
        service = stepped.service
        for session_id in range(1, 5):
            self.assertEqual(stepped.join(session_id), Joined(SPAWN, False, 0))
            service.update(session_id, at(session_id))
            left = service.leave(session_id)
            stepped.reactor.advance(0.05)
            stepped.settle()
            self.successResultOf(left)
        self.assertEqual(self.stored(stepped), {n: (float(n), 0.0) for n in range(1, 5)})
        self.assertEqual(service.table.slots, {})


class LoadTests(ServiceTestCase):
    """Joins that wait for a store which answers later."""

    def setUp(self) -> None:
        """A service whose store holds its answers back."""
        super().setUp()
        self.stepped = self.start(max_players=1)
        self.service = self.stepped.service
        self.stepped.store.players[42] = Stored((7.0, 8.0), 99)
        self.stepped.store.hold_loads()

    @property
    def held(self) -> list[Any]:
        """Loads under way."""
        return self.stepped.store.held

    def test_shared(self) -> None:
        """Joins of one player at the same time share one load; each gets the player."""
        joins = [self.service.join(42) for _ in range(3)]
        self.waits(*joins)
        self.assertEqual(len(self.held), 1)
        self.stepped.store.release_loads()
        for join in joins:
            self.assertEqual(self.successResultOf(join), Joined(at(7, 8), True, 99))
        self.assertEqual(len(self.service.table), 1)

    def test_later_waiter_sees_newer(self) -> None:
        """A waiter whose turn comes after another's callback changed the player sees the change."""
        first, second = self.service.join(42), self.service.join(42, sequence=9)
        first.addCallback(lambda joined: self.service.update(42, at(1)))
        self.stepped.store.release_loads()
        self.assertEqual(self.successResultOf(second).state, at(1))
        self.assertEqual(self.service.progress(42).applied, 9)

    def test_one_cancelled(self) -> None:
        """Cancelling one waiter touches no other."""
        joins = [self.service.join(42) for _ in range(3)]
        joins[0].cancel()
        self.failureResultOf(joins[0], CancelledError)
        self.waits(*joins[1:])
        self.stepped.store.release_loads()
        for join in joins[1:]:
            self.assertEqual(self.successResultOf(join).state, at(7, 8))

    def test_cancelled_by_another_waiter(self) -> None:
        """A waiter cancelled from the callback of another fails; those after it still join."""
        joins = [self.service.join(42) for _ in range(3)]
        results = [outcome(join) for join in joins[1:]]
        joins[0].addCallback(lambda joined: joins[1].cancel())
        self.stepped.store.release_loads()
        self.successResultOf(joins[0])
        self.assertIsInstance(results[0][0], CancelledError)
        self.assertEqual(results[1], [Joined(at(7, 8), True, 99)])
        self.assertEqual(self.service.ledger.joins, 2)

    def test_all_cancelled(self) -> None:
        """With its last waiter the load itself is cancelled, and the place is free again."""
        joins = [self.service.join(42) for _ in range(2)]
        [(_, answer)] = self.held
        cancelled = outcome(answer)
        for join in joins:
            join.cancel()
            self.failureResultOf(join, CancelledError)
        self.assertEqual(len(cancelled), 1)
        self.assertTrue(self.service.has_room(7))
        other = self.service.join(7)
        self.waits(other)
        self.stepped.store.release_loads()
        self.assertEqual(self.successResultOf(other).state, SPAWN)
        self.assertNotIn(42, self.service.table.slots)

    def test_answer_after_all_cancelled(self) -> None:
        """An answer that comes although its load was cancelled changes nothing for a new load."""
        stubborn: Deferred[Stored | None] = Deferred(lambda _: None)
        self.patch(self.stepped.store, "load", lambda session_id: stubborn)
        first = self.service.join(42)
        answers: list[Deferred[Stored | None]] = []
        self.patch(
            self.stepped.store, "load", lambda session_id: answers.append(Deferred()) or answers[0]
        )
        first.addErrback(lambda failure: None)
        first.cancel()
        second = self.service.join(42)
        self.waits(second)
        answers[0].callback(None)
        self.assertEqual(self.successResultOf(second).state, SPAWN)

    def test_load_fails(self) -> None:
        """A load that fails reaches all who wait, and frees the place."""
        joins = [self.service.join(42) for _ in range(2)]
        [(_, answer)] = self.held
        answer.errback(StoreBusy("locked"))
        for join in joins:
            self.failureResultOf(join, StoreBusy)
        self.assertTrue(self.service.has_room(7))

    def test_loaded_does_not_fit(self) -> None:
        """What the state class cannot hold fails every waiter, and frees the place."""
        joins = [self.service.join(42) for _ in range(2)]
        [(_, answer)] = self.held
        answer.callback(Stored((None, None), 5))
        for join in joins:
            self.failureResultOf(join, InvalidState)
        self.assertTrue(self.service.has_room(7))

    def test_answered_at_once(self) -> None:
        """A Deferred that has its answer already joins at once."""
        answer: Deferred[Stored | None] = Deferred()
        answer.callback(Stored((3.0, 4.0), 5))
        self.patch(self.stepped.store, "load", lambda session_id: answer)
        self.assertEqual(self.successResultOf(self.service.join(42)).state, at(3, 4))

    def test_stopped(self) -> None:
        """Stopping fails those who wait for a load, even where one cancels the other then."""
        joins = [self.service.join(42) for _ in range(3)]
        results = [outcome(join) for join in joins]
        joins[0].addCallback(lambda _: joins[2].cancel())
        joins[2].addCallback(lambda _: joins[0].cancel())
        self.service.stopService()
        self.assertEqual([len(result) for result in results], [1, 1, 1])
        self.assertIsInstance(results[1][0], NotRunning)


class UpdateTests(ServiceTestCase):
    """Taking updates in."""

    def test_applied(self) -> None:
        """An update is what `state` returns from then on."""
        stepped = self.start()
        stepped.join(42)
        for n in range(3):
            stepped.service.update(42, at(n, -n))
            self.assertEqual(stepped.service.state(42), at(n, -n))
        books = stepped.service.ledger.snapshot()
        self.assertEqual((books.received, books.applied, books.superseded), (3, 3, 2))
        self.assertEqual(books.pending, 1)

    def test_never_moved(self) -> None:
        """A player who never moved is not written, neither by a sweep nor by leaving."""
        stepped = self.start()
        stepped.join(42)
        stepped.reactor.advance(5)
        stepped.settle()
        self.successResultOf(stepped.service.flush())
        self.successResultOf(stepped.service.leave(42))
        self.successResultOf(stepped.stop())
        self.assertEqual(stepped.store.players, {})
        self.assertEqual(stepped.store.writes, [])

    def test_invalid(self) -> None:
        """A value outside its field is refused with the field's name and bound; nothing changes."""
        stepped = self.start(state=Avatar)
        stepped.join(42)
        stepped.service.update(42, Avatar(10.0))
        with self.assertRaises(InvalidState) as caught:
            stepped.service.update(42, Avatar(4097.0))
        self.assertEqual(caught.exception.field, "x")
        self.assertIn("from 0.0 to 4096.0", str(caught.exception))
        for wrong in (Avatar(float("nan")), Avatar(1.0, 2**63), at(1)):
            self.assertRaises(InvalidState, stepped.service.update, 42, wrong)
        self.assertEqual(stepped.service.state(42), Avatar(10.0))
        books = stepped.service.ledger.snapshot()
        self.assertEqual((books.received, books.malformed), (5, {"value": 4}))

    def test_not_online(self) -> None:
        """Who never joined or has left is not online: for updates, for looking, for leaving."""
        stepped = self.start()
        service = stepped.service
        stepped.join(1)
        service.update(1, at(1))
        service.leave(1)
        for session_id in (1, 2):
            with self.assertRaises(NotOnline) as caught:
                service.update(session_id, at(2))
            self.assertEqual(caught.exception.session_id, session_id)
            self.assertRaises(NotOnline, service.state, session_id)
        self.assertRaises(NotOnline, service.progress, 2)
        self.assertEqual(service.progress(1), Progress(0, 0))
        failure = self.failureResultOf(service.leave(2), NotOnline)
        self.assertEqual(str(failure.value), "player 2 is not online")
        self.assertEqual(service.ledger.rejected, {"not_online": 2})

    def test_not_running(self) -> None:
        """Before the start and after the stop nothing is taken in, and nobody is online."""
        stepped = self.start()
        stepped.join(42)
        stepped.stop()
        for service in (stepped.service, PlayerStateService(FaultyStore(SCHEMA))):
            self.assertRaises(NotRunning, service.update, 42, at(1))
            self.assertRaises(NotRunning, service.state, 42)
            self.assertRaises(NotRunning, service.progress, 42)
            self.failureResultOf(service.join(42), NotRunning)
            self.failureResultOf(service.leave(42), NotRunning)
            self.failureResultOf(service.flush(), NotRunning)
            self.assertEqual(service.ledger.rejected, {"stopping": 1})
            self.assertEqual(service.ledger.snapshot().imbalance(), [])
            self.successResultOf(service.stopService())

    def test_grows_over_a_stepping_wall_clock(self) -> None:
        """Invariant 5: ``updated_at`` grows with each update, whatever the wall clock does."""
        stepped = self.start()
        stepped.join(42)
        seen = [0]
        for step in (0.0, -3600.0, -3600.0, 0.0, 365 * 86_400.0, 0.0, -3600.0):
            stepped.wall_step = step
            stepped.reactor.advance(0.01)
            stepped.service.update(42, at(step))
            seen.append(stepped.join(42).updated_at)
        self.assertEqual(seen, sorted(set(seen)))
        self.assertEqual(seen[2], seen[1] + 1)
        self.successResultOf(stepped.stop())
        self.assertEqual(self.stored(stepped), {42: (-3600.0, 0.0)})

    def test_saved_over_a_stepping_wall_clock(self) -> None:
        """Invariants 4 and 5: after a year's step back, saved rows are still replaced by newer."""
        stepped = self.start()
        stepped.join(42)
        for n, step in enumerate((365 * 86_400.0, 0.0, -3600.0)):
            stepped.wall_step = step
            stepped.service.update(42, at(n))
            left = stepped.service.leave(42)
            stepped.reactor.advance(0.05)
            stepped.settle()
            self.successResultOf(left)
            self.assertEqual(stepped.join(42).state, at(n))
        self.assertEqual(stepped.service.ledger.outdated, 0)


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


class GuardTests(ServiceTestCase):
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


class RecoveryTests(ServiceTestCase):
    """What a process before left is saved before anybody joins."""

    LEFT = MappingProxyType({n: Stored((float(n), float(n)), 100 * n) for n in (1, 2, 3, 4)})

    def setUp(self) -> None:
        """A store that has some of it, older, as old, and newer."""
        super().setUp()
        self.memory = leave_behind(self, dict(self.LEFT))
        self.store = FragileStore()
        self.store.players = {
            1: Stored((0.0, 0.0), 99),
            2: Stored((2.0, 2.0), 200),
            3: Stored((9.0, 9.0), 301),
        }

    def begin(self, **options: Any) -> SteppedService:
        """Start a service."""
        self.stepped = self.start(store=self.store, **options)
        self.service = self.stepped.service
        return self.stepped

    def test_counted(self) -> None:
        """What the store has already is neither counted nor written; the rest is pending first."""
        stepped = self.begin()
        books = self.service.ledger.snapshot()
        self.assertEqual((books.recovered, books.pending), (2, 2))
        self.assertEqual(books.imbalance(), [])
        stepped.settle()
        books = self.service.ledger.snapshot()
        self.assertEqual((books.recovered, books.committed, books.pending), (2, 2, 0))
        self.assertEqual(self.store.writes, [2])
        self.assertEqual(
            self.stored(stepped),
            {1: (1.0, 1.0), 2: (2.0, 2.0), 3: (9.0, 9.0), 4: (4.0, 4.0)},
        )
        self.assertEqual(self.memory.forgotten, 1)

    def test_store_has_all_of_it(self) -> None:
        """Where the store has everything there is nothing to wait for."""
        self.store.players = dict(self.LEFT)
        stepped = self.begin()
        self.assertEqual(stepped.join(1).state, at(1, 1))
        self.assertEqual((self.service.ledger.recovered, self.memory.forgotten), (0, 1))
        self.assertIs(self.service.trouble, None)

    def test_joins_wait(self) -> None:
        """Joins fail with `StoreBusy` until all is saved, and find it then."""
        stepped = self.begin()
        self.store.failures.extend(StoreBusy("locked") for _ in range(3))
        for _ in range(3):
            failure = self.failureResultOf(self.service.join(1), StoreBusy)
            self.assertEqual(str(failure.value), "what the last run left is not saved yet")
            stepped.step()
        self.assertEqual(self.memory.forgotten, 0)
        stepped.step()
        self.assertEqual(stepped.join(1), Joined(at(1, 1), True, 100))
        self.assertEqual(len(self.told("what the last run left is saved: players may join")), 1)

    def test_given_up_with_a_part_saved(self) -> None:
        """Of those who were left, a stop that gives up names who is not in the store."""
        stepped = self.begin(stop_within=2.0)
        self.store.cursed = {4}
        stepped.step()
        self.store.cursed = set()
        self.store.failures.extend(StoreBusy("locked") for _ in range(100))
        self.successResultOf(stepped.stop())
        [line] = self.told("stopped with the newest state unsaved of player")
        self.assertIn("of player 4;", line)
        self.assertEqual(self.stored(stepped)[1], (1.0, 1.0))
        self.flushLoggedErrors(RowRefused)

    def test_store_that_cannot_be_read(self) -> None:
        """What cannot be compared is written, where the store's guard compares."""
        load = FragileReader.load

        def fail(reader: FragileReader, session_id: int) -> Any:
            if session_id == 3:
                raise StoreBusy("locked")
            return load(reader, session_id)

        self.patch(FragileReader, "load", fail)
        stepped = self.begin()
        self.assertEqual(self.service.ledger.recovered, 3)
        stepped.settle()
        books = self.service.ledger.snapshot()
        self.assertEqual((books.committed, books.outdated, books.pending), (2, 1, 0))
        self.assertEqual(self.stored(stepped)[3], (9.0, 9.0))
        self.assertEqual(stepped.join(1).state, at(1, 1))

    def test_degraded(self) -> None:
        """A recovery that does not come to an end is trouble like any other."""
        stepped = self.begin()
        self.store.failures.extend(StoreBusy("locked") for _ in range(100))
        for _ in range(8):
            stepped.step()
            stepped.reactor.advance(1.0)
        self.assertEqual(self.service.trouble, Trouble("locked", 8.0))
        [line] = self.told("degraded: ", LogLevel.critical)
        self.assertTrue(line.endswith("2 updates wait"), line)
        self.assertGreater(self.service.ledger.snapshot().oldest_unsaved_seconds, 5.0)
        self.store.failures.clear()
        stepped.step()
        self.assertIs(self.service.trouble, None)
        self.assertEqual(self.service.ledger.snapshot().oldest_unsaved_seconds, 0.0)

    def test_flush_waits(self) -> None:
        """A flush waits for it as well."""
        stepped = self.begin()
        flushed = self.service.flush()
        self.waits(flushed)
        stepped.step()
        self.successResultOf(flushed)

    def test_flush_with_a_row_set_aside(self) -> None:
        """A flush fails where a row that was left can never be saved; players may join then."""
        stepped = self.begin()
        self.store.cursed = {4}
        flushed = self.service.flush()
        stepped.step()
        self.waits(flushed)
        self.failureResultOf(self.service.join(1), StoreBusy)
        stepped.step()
        stepped.step()
        self.failureResultOf(flushed, NotSaved)
        self.assertEqual(self.store.aside, [(4, "not this one")])
        self.assertEqual(stepped.join(1).state, at(1, 1))
        books = self.service.ledger.snapshot()
        self.assertEqual((books.committed, books.quarantined, books.pending), (1, 1, 0))
        self.assertEqual(len(self.flushLoggedErrors(RowRefused)), 1)

    def test_thread_dies(self) -> None:
        """The next persist thread goes on with it."""
        stepped = self.begin()
        die(stepped, SystemExit("out"))
        self.failureResultOf(self.service.join(1), StoreBusy)
        stepped.reactor.advance(0.075)
        stepped.settle()
        self.assertEqual(stepped.join(4).state, at(4, 4))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_stopped(self) -> None:
        """A stop waits until it is saved, and is clean; joins are refused as by any stop."""
        stepped = self.begin()
        self.store.failures.append(StoreBusy("locked"))
        stopped = self.service.stopService()
        self.failureResultOf(self.service.join(1), NotRunning)
        stepped.step()
        self.waits(stopped)
        self.assertEqual(self.memory.forgotten, 0)
        stepped.step()
        end_thread(stepped)
        self.successResultOf(stopped)
        self.assertEqual((self.memory.forgotten, self.memory.closes), (1, [True]))
        self.assertFalse(self.service.gave_up)

    def test_given_up(self) -> None:
        """A stop that cannot save it leaves it to the next start, which does."""
        stepped = self.begin(stop_within=2.0)
        self.store.failures.extend(StoreBusy("locked") for _ in range(100))
        self.successResultOf(stepped.stop())
        self.assertTrue(self.service.gave_up)
        self.assertEqual((self.memory.forgotten, self.memory.closes), (0, [False]))
        books = self.service.ledger.snapshot()
        self.assertEqual((books.pending, books.abandoned), (0, 2))
        [line] = self.told("stopped with the newest state unsaved of player")
        self.assertIn("of player 1, 4;", line)
        self.store.failures.clear()
        self.service.startService()
        self.assertFalse(self.service.gave_up)
        self.assertEqual(self.service.ledger.recovered, 4)
        self.failureResultOf(self.service.join(1), StoreBusy)
        stepped.settle()
        self.assertEqual(stepped.join(1).state, at(1, 1))
        books = self.service.ledger.snapshot()
        self.assertEqual((books.committed, books.imbalance()), (2, []))

    def test_identity(self) -> None:
        """The store keeps its identity while rows of it are left, and gets a new one otherwise."""
        identities: list[bytes] = []
        self.patch(self.store, "migrate", lambda drawn: identities.append(drawn) or drawn)
        stepped = self.begin()
        self.successResultOf(stepped.stop())
        for _ in range(2):
            self.service.startService()
            self.successResultOf(stepped.stop())
        self.assertEqual(identities[0], self.store.prepare())
        self.assertEqual([len(identity) for identity in identities], [16, 16, 16])
        self.assertEqual(len(set(identities)), 3)


class FlushTests(ServiceTestCase):
    """Saving everything now."""

    def joined(self, players: int, **options: Any) -> SteppedService:
        """A service with so many players who have moved."""
        stepped = self.start(**options)
        for session_id in range(1, players + 1):
            stepped.join(session_id)
            stepped.service.update(session_id, at(session_id))
        return stepped

    def test_fires_when_committed(self) -> None:
        """A flush fires when all that was applied before is committed, not before."""
        stepped = self.joined(3)
        flushed = stepped.service.flush()
        self.waits(flushed)
        stepped.thread.persister.step()
        self.waits(flushed)
        stepped.reactor.deliver()
        self.successResultOf(flushed)
        self.assertEqual(len(stepped.store.players), 3)

    def test_nothing_to_save(self) -> None:
        """With everything saved a flush fires at once."""
        stepped = self.start()
        self.successResultOf(stepped.service.flush())
        stepped.join(1)
        self.successResultOf(stepped.service.flush())

    def test_not_for_what_comes_after(self) -> None:
        """A flush does not wait for updates applied after it, however many they are."""
        stepped = self.joined(1)
        flushed = stepped.service.flush()
        stepped.reactor.advance(0.01)
        stepped.service.update(1, at(2))
        stepped.step()
        self.successResultOf(flushed)
        self.assertEqual(stepped.service.ledger.snapshot().pending, 1)

    def test_for_what_is_under_way(self) -> None:
        """A flush waits for rows that were handed over before it."""
        stepped = self.joined(1)
        stepped.store.failures.append(StoreBusy("locked"))
        stepped.reactor.advance(3.0)
        stepped.step()
        flushed = stepped.service.flush()
        self.waits(flushed)
        stepped.step()
        self.successResultOf(flushed)

    def test_ring_smaller_than_what_is_dirty(self) -> None:
        """A flush through a small ring fires when the last of the rows is committed."""
        stepped = self.joined(9, queue_size=2)
        flushed = stepped.service.flush()
        for _ in range(4):
            stepped.step()
            self.waits(flushed)
        stepped.step()
        self.successResultOf(flushed)
        self.assertEqual(stepped.store.writes, [2, 2, 2, 2, 1])

    def test_two(self) -> None:
        """Each of two flushes fires with what was applied before it."""
        stepped = self.joined(1)
        first = stepped.service.flush()
        stepped.thread.persister.step()  # committed, and not yet told
        stepped.reactor.rightNow += 1.0
        stepped.service.update(1, at(2))
        second = stepped.service.flush()
        stepped.reactor.deliver()
        self.successResultOf(first)
        self.waits(second)
        stepped.step()
        self.successResultOf(second)

    def test_cancelled(self) -> None:
        """A flush may be cancelled; another one still fires."""
        stepped = self.joined(1)
        first, second = stepped.service.flush(), stepped.service.flush()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        stepped.settle()
        self.successResultOf(second)

    def test_cancelled_by_another(self) -> None:
        """A flush cancelled from the callback of another fails, and nothing else does."""
        stepped = self.joined(1)
        first, second, third = (stepped.service.flush() for _ in range(3))
        cancelled = outcome(second)
        first.addCallback(lambda _: second.cancel())
        stepped.settle()
        self.successResultOf(first)
        self.assertIsInstance(cancelled[0], CancelledError)
        self.successResultOf(third)


@implementer(IStateReader, IStateWriter)
class End:
    """A reader or a writer that notes what is done with it."""

    def __init__(self, name: str, store: WatchedStore) -> None:
        self.name = name
        self.store = store

    def load(self, session_id: int) -> Any:
        """See `IStateReader.load`."""
        return self.store.inner.load(session_id)

    def write(self, records: Any) -> Any:
        """See `IStateWriter.write`."""
        self.store.calls.append("write")
        return self.store.inner.write(records)

    def maintain(self) -> None:
        """See `IStateWriter.maintain`."""

    def sync(self) -> None:
        """See `IStateWriter.sync`."""
        self.store.calls.append("sync")
        self.store.fail("sync")

    def quarantine(self, records: Any, reasons: Any) -> None:
        """See `IStateWriter.quarantine`."""

    def interrupt(self) -> None:
        """See `IStateWriter.interrupt`."""
        self.store.calls.append("interrupt")

    def close(self) -> None:
        """See `IStateWriter.close`."""
        self.store.calls.append(f"close {self.name}")
        self.store.fail(f"close {self.name}")


@implementer(IStateStore)
class WatchedStore:
    """A store in memory that notes what is done with it, and fails where told.

    Attributes:
        calls: what was called.
        failing: which calls raise `StoreUnusable`.
        identities: what `migrate` was given.
    """

    schema = SCHEMA
    lanes = 1

    def __init__(self) -> None:
        self.inner = FaultyStore(SCHEMA)
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.identities: list[bytes] = []

    def fail(self, call: str) -> None:
        """Raise if it is to fail."""
        if call in self.failing:
            raise StoreUnusable(call)

    def prepare(self) -> bytes:
        """See `IStateStore.prepare`."""
        self.calls.append("prepare")
        self.fail("prepare")
        return self.identities[-1] if self.identities else bytes(16)

    def migrate(self, identity: bytes) -> bytes:
        """See `IStateStore.migrate`."""
        self.calls.append("migrate")
        self.identities.append(identity)
        self.fail("migrate")
        return identity

    def open_reader(self) -> End:
        """See `IStateStore.open_reader`."""
        self.calls.append("open_reader")
        self.fail("open_reader")
        return End("reader", self)

    def open_writer(self) -> End:
        """See `IStateStore.open_writer`."""
        return End("writer", self)

    def describe(self) -> str:
        """See `IStateStore.describe`."""
        return "watched"

    def close(self) -> None:
        """See `IStateStore.close`."""
        self.calls.append("close store")
        self.fail("close store")


class StopTests(ServiceTestCase):
    """The order of stopping (invariant 10)."""

    def setUp(self) -> None:
        """A service with one player saved and moved again, so that there is a writer."""
        super().setUp()
        self.store = WatchedStore()
        self.stepped = self.start(store=self.store, stop_within=5.0)
        self.service = self.stepped.service
        self.stepped.join(42)
        self.service.update(42, at(1))
        self.service.flush()
        self.stepped.settle()
        self.service.update(42, at(2))
        self.store.calls.clear()

    def end_thread(self) -> None:
        """Let the persist thread, which was told to end, end."""
        end_thread(self.stepped)

    def test_store_is_one(self) -> None:
        """The store of these tests is one."""
        verifyObject(IStateStore, self.store)
        verifyObject(IStateReader, self.store.open_reader())
        verifyObject(IStateWriter, self.store.open_writer())

    def test_order(self) -> None:
        """Save, sync and close the writer on its thread, join it, close the reader, the store."""
        stopped = self.service.stopService()
        self.waits(stopped)
        self.stepped.settle()
        self.waits(stopped)
        self.assertEqual(self.store.calls, ["write"])
        self.end_thread()
        self.successResultOf(stopped)
        calls = ["write", "sync", "close writer", "close reader", "close store"]
        self.assertEqual(self.store.calls, calls)
        self.assertTrue(self.stepped.thread.joined)
        self.assertEqual(self.store.inner.players[42].values, (2.0, 0.0))
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])
        self.assertEqual(len(self.told("stopped: ", LogLevel.info)), 1)

    def test_refuses_first(self) -> None:
        """From the first moment of stopping, joins and updates are refused; leaving is not."""
        stopped = self.service.stopService()
        self.failureResultOf(self.service.join(7), NotRunning)
        self.assertRaises(NotRunning, self.service.update, 42, at(3))
        left, flushed = self.service.leave(42), self.service.flush()
        self.stepped.settle()
        self.successResultOf(left)
        self.successResultOf(flushed)
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(self.store.inner.players[42].values, (2.0, 0.0))

    def test_sweeps_last(self) -> None:
        """What was applied in the moment before is swept by the stop itself."""
        self.service.stopService()
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)

    def test_small_ring(self) -> None:
        """Stopping saves more players than the ring has room for."""
        stepped = self.start(queue_size=2)
        for session_id in range(1, 20):
            stepped.join(session_id)
            stepped.service.update(session_id, at(session_id))
        self.successResultOf(stepped.stop())
        self.assertEqual(len(stepped.store.players), 19)

    def test_twice(self) -> None:
        """Who stops a second time waits for the same end; one of them may cancel."""
        first, second, third = (self.service.stopService() for _ in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.stepped.settle()
        self.waits(second, third)
        self.end_thread()
        self.successResultOf(second)
        self.successResultOf(third)
        self.assertEqual(self.store.calls.count("close store"), 1)
        self.successResultOf(self.service.stopService())

    def test_progress_is_told(self) -> None:
        """Each second it is told how much waits, and how long that may take."""
        self.service.stopService()
        for _ in range(3):
            self.stepped.reactor.advance(1.0)
        lines = self.told("giving up in", LogLevel.info)
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[0], "stopping: 1 updates still wait for watched; giving up in 4 s")

    def test_deadline(self) -> None:
        """At the deadline the writer is interrupted, and who waits gets `NotSaved`."""
        for session_id in range(100, 130):
            self.stepped.join(session_id)
            self.service.update(session_id, at(1))
        left, flushed = self.service.leave(42), self.service.flush()
        stopped = self.service.stopService()
        self.stepped.reactor.advance(4.9)
        self.waits(left, flushed, stopped)
        self.stepped.reactor.advance(0.1)
        why = "the store did not take everything within 5.0 s"
        for waiter in (left, flushed):
            self.assertEqual(str(self.failureResultOf(waiter, NotSaved).value), why)
        self.waits(stopped)
        self.assertEqual(self.store.calls, ["interrupt"])
        names = ", ".join(map(str, [42, *range(100, 119)]))
        [line] = self.told("unsaved", LogLevel.error)
        self.assertEqual(
            line,
            f"stopped with the newest state unsaved of player {names} and 11 more; {why};"
            " they are lost",
        )
        self.end_thread()
        self.successResultOf(stopped)
        calls = ["interrupt", "close writer", "close reader", "close store"]
        self.assertEqual(self.store.calls, calls)

    def test_deadline_without_waiters(self) -> None:
        """A deadline that passes over players who are online ends the stop all the same."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(len(self.told("unsaved of player 42;")), 1)

    def test_deadline_while_failing(self) -> None:
        """The deadline holds for a store that is busy all the time."""
        self.store.inner.failures.extend(StoreBusy("locked") for _ in range(100))
        stopped = self.service.stopService()
        for _ in range(51):
            self.stepped.step()
            self.stepped.reactor.advance(0.1)
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(len(self.told("unsaved of player 42;")), 1)

    def test_waits_after_the_deadline(self) -> None:
        """Who asks when the service has given up is told so at once."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.failureResultOf(self.service.leave(42), NotRunning)
        self.failureResultOf(self.service.flush(), NotRunning)
        self.end_thread()
        self.successResultOf(stopped)

    def test_stuck_thread(self) -> None:
        """A thread that does not end holds nobody up; the store stays locked, as it may write."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.stepped.reactor.advance(0.9)
        self.waits(stopped)
        self.stepped.reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.store.calls, ["interrupt"])
        self.assertFalse(self.stepped.thread.joined)
        self.assertEqual(len(self.told("the persist thread is stuck", LogLevel.critical)), 1)
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])

    def test_stuck_while_closing(self) -> None:
        """A writer that is slow to close has 5 s for it, whatever is left of the deadline."""
        stopped = self.service.stopService()
        self.stepped.reactor.advance(4.0)
        self.stepped.settle()
        self.stepped.reactor.advance(4.9)
        self.waits(stopped)
        self.stepped.reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertNotIn("close store", self.store.calls)

    def test_slow_to_close_within_the_deadline(self) -> None:
        """What is left of the deadline is the writer's, where that is more than 5 s."""
        stepped = self.start(stop_within=30.0)
        stopped = stepped.service.stopService()
        stepped.reactor.advance(25.0)
        self.waits(stopped)
        end_thread(stepped)
        self.successResultOf(stopped)
        self.assertEqual(self.told("is stuck"), [])

    def test_ends_after_all(self) -> None:
        """A thread that was given up and still commits starts nothing anew."""
        stepped = self.start(queue_size=2, stop_within=1.0)
        for session_id in range(1, 11):
            stepped.join(session_id)
            stepped.service.update(session_id, at(session_id))
        stopped = stepped.service.stopService()
        for _ in range(3):
            stepped.reactor.advance(1.0)
        self.successResultOf(stopped)
        stepped.step()
        end_thread(stepped)
        self.assertEqual(stepped.reactor.getDelayedCalls(), [])

    def test_sync_fails(self) -> None:
        """A last sync that fails is told of; the stop ends, and the memory is not called clean."""
        closes: list[bool] = []
        self.patch(self.service._memory, "close", lambda clean: closes.append(clean))
        self.store.failing = {"sync"}
        stopped = self.service.stopService()
        self.stepped.settle()
        self.end_thread()
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(StoreUnusable)), 1)
        self.assertEqual(self.store.calls[-3:], ["close writer", "close reader", "close store"])
        self.assertEqual(closes, [False])

    def test_gave_up(self) -> None:
        """Whether the last stop gave up is known; the next start forgets it."""
        self.assertFalse(self.service.gave_up)
        self.service.stopService()
        self.stepped.reactor.advance(5.0)
        self.assertTrue(self.service.gave_up)
        self.end_thread()
        self.assertTrue(self.service.gave_up)
        self.service.startService()
        self.assertFalse(self.service.gave_up)
        self.successResultOf(self.stepped.stop())
        self.assertFalse(self.service.gave_up)

    def test_closing_fails(self) -> None:
        """A store that cannot be closed is told of; the stop still ends, with all else closed."""
        self.store.failing = {"close reader", "close store", "close writer"}
        stopped = self.service.stopService()
        self.stepped.settle()
        self.end_thread()
        self.assertEqual(len(self.flushLoggedErrors(StoreUnusable)), 3)
        self.successResultOf(stopped)
        self.assertEqual(self.store.calls[-2:], ["close reader", "close store"])


class StartTests(ServiceTestCase):
    """Starting."""

    def make(self, store: Any, **given: Any) -> PlayerStateService:
        """A service that is not started, over a reactor of its own."""
        self.reactor = MemoryReactor()
        return PlayerStateService(store, runtime=Runtime(self.reactor, **given))

    def test_store_unusable(self) -> None:
        """Where the store cannot be prepared, nothing is started."""
        store = WatchedStore()
        store.failing = {"prepare"}
        started: list[Any] = []
        service = self.make(store, start_thread=lambda run, name: started.append(run))
        self.assertRaises(StoreUnusable, service.startService)
        self.assertEqual((started, self.reactor.getDelayedCalls()), ([], []))
        self.assertFalse(service.running)
        self.failureResultOf(service.join(42), NotRunning)
        self.successResultOf(service.stopService())

    def test_migration_fails(self) -> None:
        """Where the store cannot be fitted to the schema, it is let go of."""
        store = WatchedStore()
        store.failing = {"migrate"}
        service = self.make(store)
        self.assertRaises(StoreUnusable, service.startService)
        self.assertEqual(store.calls, ["prepare", "migrate", "close store"])
        self.assertFalse(service.running)

    def test_no_memory(self) -> None:
        """Where there is no room for the live file, store and reader are let go of."""
        store = WatchedStore()
        service = self.make(store)
        closes: list[bool] = []

        def no_room(*args: Any) -> Any:
            raise StoreUnusable("cannot make the live file")

        self.patch(service._memory, "open", no_room)
        self.patch(service._memory, "close", lambda clean: closes.append(clean))
        self.assertRaises(StoreUnusable, service.startService)
        calls = ["prepare", "migrate", "open_reader", "close reader", "close store"]
        self.assertEqual(store.calls, calls)
        self.assertEqual(closes, [False])

    def test_no_reader(self) -> None:
        """Where the reader cannot be opened, the store is let go of."""
        store = WatchedStore()
        store.failing = {"open_reader"}
        service = self.make(store)
        self.assertRaises(StoreUnusable, service.startService)
        self.assertEqual(store.calls, ["prepare", "migrate", "open_reader", "close store"])
        self.assertFalse(service.running)

    def test_no_thread(self) -> None:
        """Where no thread can be started, the store is let go of and nothing runs."""
        store = WatchedStore()

        def start_thread(run: Any, name: str) -> Any:
            raise RuntimeError("can't start new thread")

        service = self.make(store, start_thread=start_thread)
        self.assertRaises(RuntimeError, service.startService)
        calls = ["prepare", "migrate", "open_reader", "close reader", "close store"]
        self.assertEqual(store.calls, calls)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(service.running)
        self.failureResultOf(service.join(42), NotRunning)

    def test_twice(self) -> None:
        """Starting what is started changes nothing."""
        stepped = self.start()
        stepped.join(42)
        thread = stepped.thread
        stepped.service.startService()
        self.assertIs(stepped.thread, thread)
        self.assertEqual(stepped.service.state(42), SPAWN)

    def test_again(self) -> None:
        """What was stopped may be started again, on the same store and with the same books."""
        stepped = self.start()
        for n in range(1, 4):
            stepped.join(42)
            stepped.service.update(42, at(n))
            self.successResultOf(stepped.stop())
            self.assertEqual(stepped.service.ledger.committed, n)
            stepped.service.startService()
            self.assertEqual(stepped.service.ledger.committed, n)
            self.assertEqual(stepped.service.ledger.snapshot().imbalance(), [])
            self.assertEqual(stepped.service.table.slots, {})
            self.assertEqual(stepped.join(42).state, at(n))

    def test_summary(self) -> None:
        """A summary is logged each minute."""
        stepped = self.start()
        stepped.join(42)
        stepped.service.update(42, at(1))
        for _ in range(2):
            stepped.reactor.advance(60.0)
            stepped.settle()
        self.assertEqual(len(self.told("1 players online;", LogLevel.info)), 2)

    def test_arguments(self) -> None:
        """What is out of its range is refused when the service is made, by name."""
        for name, values in {
            "save_within": (0.05, 86_401, float("nan")),
            "queue_size": (0, 1, 3, 2**25),
            "max_players": (0, 2**32),
            "stop_within": (-1,),
        }.items():
            for value in values:
                with self.assertRaisesRegex(ValueError, name):
                    PlayerStateService(FaultyStore(SCHEMA), **{name: value})

    def test_live_file_in_the_place_of_the_database(self) -> None:
        """The store's own file is not to become the live file, by whatever name."""
        store = FragileStore()
        path = f"{os.path.abspath(self.mktemp())}/players.db"
        store.files = (path, f"{path}-log")
        for live_file in (*store.files, os.path.relpath(path)):
            with self.assertRaisesRegex(ValueError, "is the store's own file"):
                PlayerStateService(store, live_file=live_file)
        live_file = path
        for end in (".making", ".recovering"):
            store.files = (f"{live_file}{end}",)
            with self.assertRaisesRegex(ValueError, "is the store's own file"):
                PlayerStateService(store, live_file=live_file)


class PlayersMachine(RuleBasedStateMachine):
    """Random histories of a few players against a dict of where each stands.

    What a join returns is always the model's, the books balance after each step, and after a stop
    the store is the model.  The store may be replaced by a copy of earlier times: then the model
    of who is not in the game is that copy.
    """

    PLAYERS = st.integers(1, 6)
    NUMBERS = st.integers(0, 3)
    LANES = 1

    def __init__(self) -> None:
        super().__init__()
        self.store = FragileStore(self.LANES)
        self.stepped = SteppedService(
            store=self.store, queue_size=2, max_players=4, save_within=1.0
        )
        self.service = self.stepped.service
        self.backup: dict[int, Stored] = {}
        self.dead: Any = None
        self.reopen, self.store.reopen = self.store.reopen, self.gone_over  # type: ignore[method-assign]
        self.model: dict[int, PlayerState] = {}
        self.online: set[int] = set()
        self.applied = 0
        self.waiting: list[tuple[int | None, dict[int, PlayerState], list[Any]]] = []

    @rule(session_id=PLAYERS)
    def join(self, session_id: int) -> None:
        """The player stands where the model says, or there is no place."""
        taken = len(self.service.table)
        [result] = outcome(self.service.join(session_id))
        if isinstance(result, ServerFull):
            assert taken == 4
            return
        assert result.state == self.model.get(session_id, SPAWN)
        assert result.restored == (session_id in self.model)
        self.online.add(session_id)

    @rule(session_id=PLAYERS, x=st.integers(0, 9))
    def update(self, session_id: int, x: int) -> None:
        """The model follows, where the player is online."""
        try:
            self.service.update(session_id, at(x, self.applied))
        except NotOnline:
            assert session_id not in self.online
            return
        assert session_id in self.online
        self.model[session_id] = at(x, self.applied)
        self.applied += 1

    @rule(session_id=PLAYERS)
    def leave(self, session_id: int) -> None:
        """What fires later must find the state of now, or a newer one, in the store."""
        left = outcome(self.service.leave(session_id))
        self.online.discard(session_id)
        if session_id in self.model:
            self.waiting.append((session_id, {session_id: self.model[session_id]}, left))

    @rule()
    def flush(self) -> None:
        """Likewise, of everybody."""
        self.waiting.append((None, dict(self.model), outcome(self.service.flush())))

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.5, 5.0]))
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.stepped.reactor.advance(seconds)

    @property
    def alive(self) -> bool:
        """Whether there is every persist thread just now."""
        return self.dead not in self.stepped.threads

    @precondition(lambda self: self.alive)
    @rule()
    def step(self) -> None:
        """The persist thread goes on a step, and the reactor hears of it."""
        self.stepped.step()

    @precondition(lambda self: self.alive)
    @rule(number=NUMBERS)
    def step_unheard(self, number: int) -> None:
        """A persist thread goes on a step, and the reactor does not hear of it yet."""
        self.stepped.threads[number % self.LANES].persister.step()

    @precondition(lambda self: self.alive)
    @rule(number=NUMBERS)
    def die(self, number: int) -> None:
        """A persist thread dies, whatever it holds."""
        self.stepped.reactor.deliver()
        self.dead = self.stepped.threads[number % self.LANES]
        self.service.run.outbox._lanes[number % self.LANES].died(SystemExit("out"))
        self.stepped.reactor.deliver()

    @rule()
    def back_up(self) -> None:
        """Somebody takes a copy of the store."""
        self.backup = dict(self.store.players)

    @property
    def writing(self) -> list[Persister]:
        """Who has a writer, which alone can find out that the store was replaced."""
        persisters = [thread.persister for thread in self.stepped.threads]
        return [one for one in persisters if self.alive and one._writer is not None]

    @precondition(lambda self: self.writing)
    @rule(failures=st.integers(0, 2), number=NUMBERS)
    def replace(self, failures: int, number: int) -> None:
        """The copy takes the store's place, and is found out; it may not be usable at once."""
        self.stepped.reactor.deliver()
        self.check_waiting()  # in the store that it was, not in the next
        self.store.successor, self.backup = dict(self.backup), {}
        self.store.reopen_failures.extend(StoreUnusable("not yet") for _ in range(failures))
        self.writing[number % len(self.writing)]._maintain()
        self.stepped.reactor.deliver()

    def gone_over(self, identity: bytes, online: Any) -> list[int]:
        """Who is not in the game stands where the copy has them; nobody waits for more."""
        lost = self.reopen(identity, online)
        for session_id in set(self.model) - online:
            stored = self.store.players.get(session_id)
            if stored is None:
                del self.model[session_id]
            else:
                self.model[session_id] = PlayerState(*stored.values)
            for _, expected, _ in self.waiting:
                expected.pop(session_id, None)
        return lost

    @rule(error=st.sampled_from([StoreBusy("locked"), StoreBusy("still locked")]))
    def fail_store(self, error: Exception) -> None:
        """The store fails the next write."""
        self.stepped.store.failures.append(error)

    @rule(seconds=st.sampled_from([-3600.0, 0.0, 86_400.0]))
    def step_wall_clock(self, seconds: float) -> None:
        """The wall clock is set."""
        self.stepped.wall_step = seconds

    @precondition(lambda self: self.model)
    @rule()
    def restart(self) -> None:
        """After a stop the store is the model, and everybody who waited was told."""
        self.store.failures.clear()
        while not self.alive or self.store.successor is not None:
            if self.alive:
                self.stepped.step()
            self.stepped.reactor.advance(1.0)
            if self.alive:
                go_over(self.stepped)
        stopped = self.stepped.stop()
        assert stopped.called
        stored = {key: PlayerState(*row.values) for key, row in self.stepped.store.players.items()}
        assert stored == self.model
        self.check_waiting()
        assert not self.waiting
        self.service.startService()
        self.online.clear()

    @invariant()
    def check_waiting(self) -> None:
        """Whoever was told that it is saved finds it, or something newer, in the store."""
        for entry in list(self.waiting):
            _, expected, results = entry
            if not results:
                continue
            self.waiting.remove(entry)
            assert not isinstance(results[0], NotSaved)
            if isinstance(results[0], Exception):
                continue
            for session_id, state in expected.items():
                assert self.store.players[session_id].values[1] >= state.y

    @invariant()
    def check_books(self) -> None:
        """Invariant 7, and that the players counted are the players there are."""
        books = self.service.ledger.snapshot()
        assert books.imbalance() == []
        assert books.players_online == len(self.online)
        assert books.players_online + books.players_leaving == len(self.service.table)
        assert books.oldest_unsaved_seconds == 0.0 or books.pending


class LanesMachine(PlayersMachine):
    """The same over three lanes."""

    LANES = 3


class PlayersTests(SynchronousTestCase):
    """Random histories of a few players."""

    def test_histories(self) -> None:
        """Invariants 4, 7, 9 and 10 hold in each of them."""
        run_state_machine_as_test(
            PlayersMachine, settings=settings(LAW, max_examples=120, stateful_step_count=50)
        )
        self.flushLoggedErrors(SystemExit)

    def test_histories_over_lanes(self) -> None:
        """So they do over several lanes."""
        run_state_machine_as_test(
            LanesMachine, settings=settings(LAW, max_examples=120, stateful_step_count=50)
        )
        self.flushLoggedErrors(SystemExit)
