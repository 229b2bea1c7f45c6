"""Joins: from the table, from the store, and while the store has not answered."""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from playerstate import (
    InvalidState,
    Joined,
    NotRunning,
    PlayerState,
    Progress,
    ServerFull,
    StoreBusy,
)
from playerstate.interfaces import Stored
from playerstate.testing import EPOCH
from tests.kit.players import ServiceTestCase, at, move, outcome

SPAWN = PlayerState(350.0, 200.0)
MICROSECONDS = 10**6


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
        self.assertEqual(stepped.join(42), Joined(at(1, 2), True, EPOCH * MICROSECONDS + 1))
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
        """What is not a whole number is not a session id."""
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


class PendingTests(ServiceTestCase):
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
