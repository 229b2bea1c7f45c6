"""Edits: of players online, offline, joining, leaving and unknown, and what may go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred

from playerstate import (
    InvalidState,
    Joined,
    NotOnline,
    NotRunning,
    NotSaved,
    Progress,
    ServerFull,
    StoreBusy,
    UnknownPlayer,
    within,
)
from playerstate.interfaces import RowRefused, Stored
from tests.kit.players import (
    FragileStore,
    GatewayTestCase,
    ServiceTestCase,
    at,
    end_thread,
    go_over,
    leave_behind,
    look_after,
    outcome,
)


@attrs.frozen
class Bounded:
    """A state with a bound."""

    x: float = attrs.field(default=350.0, metadata=within(0, 4096))
    y: float = 200.0


class EditTestCase(ServiceTestCase):
    """A service; the store knows player 42, at (1, 2)."""

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.left: list[int] = []
        self.changed: list[tuple[int, bool]] = []
        self.begin()

    def begin(self, **options: Any) -> None:
        """Start another."""
        self.stepped = self.start(**options)
        self.service = self.stepped.service
        self.store = self.stepped.store
        self.store.players[42] = Stored((1.0, 2.0), 5)
        self.service.add_listener(self)

    def on_leave(self, session_id: int) -> None:
        """See `PlayersListener`."""
        self.left.append(session_id)

    def on_change(self, session_id: int, is_override: bool) -> None:
        """See `PlayersListener`."""
        self.changed.append((session_id, is_override))

    def save(self) -> None:
        """Let the rows that are to be saved at once be saved."""
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()

    def refuse(self, session_id: int) -> Deferred[None]:
        """Edit a player whose row the store will never take."""
        self.store.refused[session_id] = "no such place"
        return self.service.edit(session_id, create=True, x=7.0)

    def insist(self) -> None:
        """Let the store take rows of another player, and refuse one until that is for good."""
        for turn in range(3):
            other = self.service.edit(99, create=True, x=float(turn))
            self.stepped.reactor.advance(3.0)
            self.stepped.step()
            self.successResultOf(other)
        self.flushLoggedErrors(RowRefused)

    def check_out(self, *session_ids: int) -> None:
        """These players alone are in the table, none of them waited for."""
        self.assertEqual(sorted(self.service.table.slots), sorted(session_ids))
        self.assertEqual(self.service.run.leaves.by_slot, {})

    def check_never_online(self, session_id: int) -> None:
        """No call finds this player online."""
        self.assertRaises(NotOnline, self.service.state, session_id)
        self.assertRaises(NotOnline, self.service.progress, session_id)
        self.assertRaises(NotOnline, self.service.update, session_id, at(9))
        self.assertRaises(NotOnline, self.service.change, session_id, x=9.0)
        self.failureResultOf(self.service.leave(session_id), NotOnline)
        self.assertEqual(self.service.ledger.snapshot().players_online, 0)


class OnlineTests(EditTestCase):
    """Edits of a player who is online."""

    def setUp(self) -> None:
        """The player is online."""
        super().setUp()
        self.stepped.join(42)

    def test_fires_when_committed(self) -> None:
        """It changes the player at once, is handed over within 50 ms, and fires once committed."""
        edited = self.service.edit(42, x=7.0)
        self.assertEqual(self.service.state(42), at(7, 2))
        self.stepped.reactor.advance(0.049)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 0)
        self.stepped.reactor.advance(0.001)
        self.assertEqual(self.service.ledger.snapshot().queue_depth, 1)
        self.stepped.thread.persister.step()
        self.waits(edited)
        self.stepped.reactor.deliver()
        self.assertIsNone(self.successResultOf(edited))
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 2.0)})
        self.check_out(42)
        self.assertEqual(self.left, [])
        self.assertEqual((self.service.ledger.received, self.service.ledger.applied), (1, 1))

    def test_waits_for_no_other(self) -> None:
        """Neither are others handed over, nor does their trouble delay it."""
        self.stepped.join(43)
        self.service.update(43, at(3))
        edited = self.service.edit(42, x=7.0)
        self.save()
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 2.0)})
        self.assertEqual(self.service.ledger.snapshot().pending, 1)

    def test_moves_meanwhile(self) -> None:
        """It fires once a newer state is saved as well, and once its own is, whatever follows."""
        edited = self.service.edit(42, x=7.0)
        self.service.update(42, at(8))
        self.stepped.reactor.advance(0.05)
        self.service.update(42, at(9))
        self.stepped.settle()
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (8.0, 0.0)})

    def test_no_field(self) -> None:
        """Without a field it waits for the newest state, and for nothing where that is saved."""
        self.assertIsNone(self.successResultOf(self.service.edit(42)))
        self.service.update(42, at(8))
        edited = self.service.edit(42)
        self.waits(edited)
        self.save()
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (8.0, 0.0)})
        self.assertEqual(self.service.ledger.received, 1)

    def test_on_its_way(self) -> None:
        """A row that was swept already is not sent twice."""
        self.service.update(42, at(8))
        self.stepped.reactor.advance(3.0)
        edited = self.service.edit(42)
        self.stepped.settle()
        self.successResultOf(edited)
        self.assertEqual(self.store.writes, [1])

    def test_leaves_afterwards(self) -> None:
        """A leave that follows is one leave, saved with the edit; both fire."""
        edited = self.service.edit(42, x=7.0)
        left = self.service.leave(42)
        self.save()
        self.successResultOf(edited)
        self.assertEqual(self.successResultOf(left), Progress(0, 0))
        self.assertEqual((self.left, self.service.ledger.leaves), ([42], 1))
        self.assertEqual(self.store.writes, [1])
        self.check_out()

    def test_joins_again(self) -> None:
        """A take-over does not end the waiting."""
        edited = self.service.edit(42, x=7.0)
        self.assertEqual(self.stepped.join(42).state, at(7, 2))
        self.save()
        self.successResultOf(edited)
        self.check_out(42)

    def test_refused_by_the_store(self) -> None:
        """It fails with what the store says of that row; the player stays online."""
        edited = self.refuse(42)
        self.insist()
        error = self.failureResultOf(edited, NotSaved).value
        self.assertIn("no such place", str(error))
        self.assertIn("42", str(error))
        again = self.failureResultOf(self.service.edit(42), NotSaved).value
        self.assertEqual(str(again), str(error))
        self.assertEqual(self.service.state(42), at(7, 2))

    def test_cancelled(self) -> None:
        """Cancelling stops the waiting of one caller alone, and nothing else."""
        first, second = self.service.edit(42, x=7.0), self.service.edit(42, y=8.0)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.save()
        self.successResultOf(second)
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 8.0)})
        self.check_out(42)


class OfflineTests(EditTestCase):
    """Edits of a player who is offline."""

    def test_never_online(self) -> None:
        """The player is changed and saved, and never seen online."""
        edited = self.service.edit(42, x=7.0)
        self.check_never_online(42)
        self.assertEqual(self.service.ledger.snapshot().players_leaving, 1)
        self.save()
        self.assertIsNone(self.successResultOf(edited))
        self.check_never_online(42)
        self.check_out()
        ledger = self.service.ledger
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 2.0)})
        self.assertEqual((self.left, ledger.joins, ledger.leaves, ledger.restored), ([], 0, 0, 0))
        self.assertEqual((ledger.applied, ledger.rejected), (1, {"not_online": 4}))
        self.assertEqual(ledger.snapshot().players_leaving, 0)

    def test_newer_than_stored(self) -> None:
        """The edited row is newer than the stored one, whatever the clock says."""
        self.store.players[42] = Stored((1.0, 2.0), 2**62)
        edited = self.service.edit(42, x=7.0)
        self.save()
        self.successResultOf(edited)
        self.assertEqual(self.store.players[42], Stored((7.0, 2.0), 2**62 + 1))

    def test_wider_bounds(self) -> None:
        """A stored value outside of today's bounds does not hinder the edit of another field."""
        self.begin(state=Bounded)
        self.store.players[42] = Stored((9999.0, 2.0), 5)
        edited = self.service.edit(42, y=3.0)
        self.save()
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (9999.0, 3.0)})
        self.failureResultOf(self.service.edit(42, x=9999.0), InvalidState)

    def test_no_field(self) -> None:
        """Without a field there is nothing to save."""
        self.assertIsNone(self.successResultOf(self.service.edit(42)))
        self.check_out()
        self.assertEqual(self.service.ledger.received, 0)

    def test_twice(self) -> None:
        """Edits of one player are made one upon the other, and saved together."""
        first, second = self.service.edit(42, x=7.0), self.service.edit(42, y=8.0)
        self.save()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 8.0)})
        self.assertEqual(self.store.writes, [1])
        self.check_out()

    def test_again(self) -> None:
        """An edit after another is saved begins with what that has saved."""
        for n in (1, 2):
            edited = self.service.edit(42, y=float(n))
            self.save()
            self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 2.0)})
        self.assertEqual(self.store.writes, [1, 1])

    def test_unknown(self) -> None:
        """A player whom the store does not know is not created by mistake."""
        for fields in ({"x": 7.0}, {}):
            error = self.failureResultOf(self.service.edit(43, **fields), UnknownPlayer).value
            self.assertEqual(str(error), "player 43 is not in the store")
            self.assertEqual(error.session_id, 43)
        self.check_out()
        self.assertEqual(self.service.ledger.rejected, {"not_online": 2})

    def test_create(self) -> None:
        """A player who is created begins at the spawn, and is saved, with fields or without."""
        edits = [
            self.service.edit(43, create=True, x=7.0),
            self.service.edit(44, create=True),
            self.service.edit(42, create=True, y=7.0),
        ]
        self.save()
        for edited in edits:
            self.successResultOf(edited)
        self.assertEqual(
            self.stored(self.stepped), {43: (7.0, 200.0), 44: (350.0, 200.0), 42: (1.0, 7.0)}
        )
        self.assertEqual(self.service.ledger.applied, 3)
        self.check_out()
        self.assertTrue(self.stepped.join(44).restored)

    def test_invalid(self) -> None:
        """A value that an update would refuse is refused before anything is loaded."""
        self.store.hold_loads()
        for fields in ({"x": float("nan")}, {"mana": 3}, {"x": 1.0, "y": "far"}):
            self.failureResultOf(self.service.edit(42, **fields), InvalidState)
        self.assertEqual(self.store.held, [])
        self.assertEqual(self.service.ledger.malformed, {"value": 3})

    def test_slot_used_again(self) -> None:
        """The slot of an edited player is the next one's, with nothing left of the edit."""
        self.service.edit(42, x=7.0)
        self.save()
        self.assertEqual(self.stepped.join(43), Joined(at(350, 200), False, 0))
        self.assertEqual(self.service.progress(43), Progress(0, 0))

    def test_progress_is_not_that_of_the_last_in_the_slot(self) -> None:
        """The progress of one who had the slot before is not that of an edited player.

        Nor is it shown for one who joins during the edit.
        """
        self.successResultOf(self.service.join(43, sequence=99))
        self.successResultOf(self.service.leave(43))
        self.service.edit(42, x=7.0)
        table = self.service.table
        self.assertEqual(Progress.of(table, table.slots[42]), Progress(0, 0))
        self.stepped.join(42)
        self.assertEqual(self.service.progress(42), Progress(0, 0))
        self.save()


class MeanwhileTests(EditTestCase):
    """Edits of a player who joins or leaves at the same time."""

    def check_online(self) -> None:
        """The player is online with the edited state, and leaves like any other."""
        self.assertEqual(self.service.state(42), at(7, 2))
        self.assertEqual(self.service.ledger.snapshot().players_online, 1)
        self.assertEqual(self.service.ledger.snapshot().players_leaving, 0)
        self.save()
        self.check_out(42)
        left = self.service.leave(42)
        self.successResultOf(left)
        self.assertEqual((self.left, self.service.ledger.leaves), ([42], 1))
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 2.0)})

    def test_joins_before_it_is_saved(self) -> None:
        """Who joins an edited player takes over the edited state; the edit fires all the same."""
        edited = self.service.edit(42, x=7.0)
        joined = self.stepped.join(42)
        self.assertEqual((joined.state, joined.restored), (at(7, 2), True))
        self.waits(edited)
        self.check_online()
        self.successResultOf(edited)

    def test_joins_during_the_load(self) -> None:
        """A join that follows the edit shares the load, and comes in with the edited state."""
        self.store.hold_loads()
        edited, joined = self.service.edit(42, x=7.0), self.service.join(42)
        self.waits(edited, joined)
        self.assertEqual(len(self.store.held), 1)
        self.store.release_loads()
        self.assertEqual(self.successResultOf(joined).state, at(7, 2))
        self.waits(edited)
        self.check_online()
        self.successResultOf(edited)

    def test_joined_before(self) -> None:
        """An edit that follows a join shares the load, and changes the player who is online."""
        self.store.hold_loads()
        joined, edited = self.service.join(42), self.service.edit(42, x=7.0)
        self.assertEqual(len(self.store.held), 1)
        self.store.release_loads()
        self.assertEqual(self.successResultOf(joined).state, at(1, 2))
        self.check_online()
        self.successResultOf(edited)

    def test_join_cancelled(self) -> None:
        """A join that gives up does not end the load of the edit, nor the other way round."""
        self.store.hold_loads()
        edited, joined = self.service.edit(42, x=7.0), self.service.join(42)
        joined.cancel()
        edited.cancel()
        for deferred in (edited, joined):
            self.failureResultOf(deferred, CancelledError)
        self.store.release_loads()
        self.check_never_online(42)
        self.save()
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 2.0)})
        self.check_out()

    def test_joins_and_leaves(self) -> None:
        """Who has joined an edit and leaves again before it is saved is saved once."""
        edited = self.service.edit(42, x=7.0)
        self.stepped.join(42)
        left = self.service.leave(42)
        self.save()
        self.successResultOf(edited)
        self.successResultOf(left)
        self.assertEqual((self.left, self.service.ledger.leaves), ([42], 1))
        self.assertEqual(self.store.writes, [1])
        self.check_out()

    def test_leaving(self) -> None:
        """The row of a player who leaves is changed, the leave goes on, and both fire."""
        self.stepped.join(42)
        self.service.update(42, at(3, 4))
        left, edited = self.service.leave(42), self.service.edit(42, x=7.0)
        self.assertRaises(NotOnline, self.service.state, 42)
        self.save()
        self.successResultOf(left)
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 4.0)})
        self.assertEqual((self.left, self.service.ledger.leaves), ([42], 1))
        self.check_out()

    def test_leaving_with_the_row_on_its_way(self) -> None:
        """A leave whose row was swept before the edit fires with the edited row."""
        self.stepped.join(42)
        self.service.update(42, at(3, 4))
        left = self.service.leave(42)
        self.stepped.reactor.advance(0.05)
        edited = self.service.edit(42, x=7.0)
        self.stepped.settle()
        self.waits(left, edited)
        self.save()
        self.successResultOf(left)
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 4.0)})

    def test_leaving_without_a_field(self) -> None:
        """An edit of nothing waits for the leave's row."""
        self.stepped.join(42)
        self.service.update(42, at(3, 4))
        left, edited = self.service.leave(42), self.service.edit(42)
        self.save()
        self.successResultOf(left)
        self.successResultOf(edited)
        self.assertEqual(self.store.writes, [1])

    def test_joins_from_the_callback(self) -> None:
        """A callback may join, edit and leave at once."""
        states: list[Any] = []

        def join(_: None) -> None:
            states.append(self.stepped.join(42).state)
            states.append(outcome(self.service.edit(42, y=8.0)))
            states.append(outcome(self.service.leave(42)))

        self.service.edit(42, x=7.0).addCallback(join)
        self.save()
        self.save()
        self.assertEqual(states, [at(7, 2), [None], [Progress(0, 0)]])
        self.check_out()


class FaultTests(EditTestCase):
    """What may go wrong."""

    def test_refused_by_the_store(self) -> None:
        """The edit fails with what the store says, and the player is out of the table again."""
        for session_id in (42, 43):
            edited = self.refuse(session_id)
            self.stepped.reactor.advance(0.05)
            self.stepped.step()
            self.waits(edited)
            self.insist()
            error = self.failureResultOf(edited, NotSaved).value
            self.assertEqual(str(error), f"no such place: not saved for player {session_id}")
            self.check_out()
        self.assertEqual(self.stored(self.stepped)[42], (1.0, 2.0))
        self.assertNotIn(43, self.store.players)
        self.assertEqual((self.service.ledger.quarantined, self.service.ledger.leaves), (2, 0))

    def test_refused_and_joined(self) -> None:
        """One who has joined the refused edit stays online with it; only the edit fails."""
        edited = self.refuse(42)
        self.stepped.join(42)
        self.insist()
        self.failureResultOf(edited, NotSaved)
        self.assertEqual(self.service.state(42), at(7, 2))
        self.check_out(42)

    def test_newer_in_the_store(self) -> None:
        """An edit that another server has overtaken fails, and says so."""
        edited = self.service.edit(42, x=7.0)
        newer = self.store.players[42] = Stored((9.0, 9.0), 2**62)
        self.save()
        self.failureResultOf(edited, NotSaved)
        self.assertEqual(self.store.players[42], newer)
        self.assertEqual(self.service.ledger.outdated, 1)
        self.check_out()

    def test_store_fails_for_a_while(self) -> None:
        """A store that is busy when it writes only delays it."""
        self.store.failures.extend([StoreBusy("locked")] * 2)
        edited = self.service.edit(42, x=7.0)
        self.stepped.reactor.advance(0.05)
        self.stepped.step()
        self.waits(edited)
        self.check_never_online(42)
        self.stepped.reactor.advance(10.0)
        self.stepped.step()
        self.stepped.reactor.advance(10.0)
        self.stepped.step()
        self.successResultOf(edited)

    def test_load_fails(self) -> None:
        """The store's error is the caller's, at once or later; nothing is counted or kept."""

        def fail_at_once() -> Deferred[None]:
            self.patch(self.store, "load", lambda session_id: raising(StoreBusy("locked")))
            return self.service.edit(42, x=7.0)

        def fail_late() -> Deferred[None]:
            answer: Deferred[Stored | None] = Deferred()
            self.patch(self.store, "load", lambda session_id: answer)
            edited = self.service.edit(42, x=7.0)
            self.waits(edited)
            answer.errback(StoreBusy("locked"))
            return edited

        calls: tuple[Callable[[], Deferred[None]], ...] = (fail_at_once, fail_late)
        for call in calls:
            self.failureResultOf(call(), StoreBusy)
            self.check_out()
        self.assertEqual(self.service.ledger.received, 0)

    def test_bad_stored_row(self) -> None:
        """A stored row that cannot be read fails it as it fails a join."""
        self.store.players[42] = Stored(("far", 2.0), 5)
        error = self.failureResultOf(self.service.edit(42, y=7.0), InvalidState).value
        self.assertIn("player 42 is stored with it", str(error))
        self.check_out()
        self.assertEqual(self.service.ledger.received, 0)

    def test_full(self) -> None:
        """An offline player needs a place, and gives it back; one in the table does not."""
        self.begin(max_players=1)
        self.stepped.join(43)
        self.failureResultOf(self.service.edit(42, x=7.0), ServerFull)
        edited = self.service.edit(43, x=7.0)
        self.save()
        self.successResultOf(edited)
        self.successResultOf(self.service.leave(43))
        edited = self.service.edit(42, x=7.0)
        self.assertFalse(self.service.has_room(43))
        self.assertTrue(self.service.has_room(42))
        self.save()
        self.successResultOf(edited)
        self.assertTrue(self.service.has_room(43))

    def test_full_after_the_load(self) -> None:
        """A load that is under way takes a place as well."""
        self.begin(max_players=1)
        self.store.hold_loads()
        edited = self.service.edit(42, x=7.0)
        self.failureResultOf(self.service.join(43), ServerFull)
        self.store.release_loads()
        self.save()
        self.successResultOf(edited)

    def test_not_running(self) -> None:
        """Before a start and after a stop it fails, and counts as an update does."""
        self.successResultOf(self.stepped.stop())
        self.failureResultOf(self.service.edit(42, x=7.0), NotRunning)
        self.assertEqual(self.service.ledger.rejected, {"stopping": 1})

    def test_recovering(self) -> None:
        """While what an earlier process left is being saved, it fails as a join does."""
        leave_behind(self, {1: Stored((1.0, 1.0), 9)})
        self.begin()
        self.failureResultOf(self.service.edit(42, x=7.0), StoreBusy)
        self.stepped.settle()
        edited = self.service.edit(42, x=7.0)
        self.save()
        self.successResultOf(edited)

    def test_stop_during_the_load(self) -> None:
        """A stop ends the load of an edit, and what is edited after is refused."""
        self.store.hold_loads()
        edited = self.service.edit(42, x=7.0)
        stopped = self.stepped.stop()
        self.failureResultOf(edited, NotRunning)
        self.failureResultOf(self.service.edit(42, x=7.0), NotRunning)
        self.successResultOf(stopped)
        self.assertEqual(self.service.ledger.rejected, {"stopping": 2})
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 2.0)})

    def test_stopped_by_one_who_waits_too(self) -> None:
        """A waiter of the same load may stop the service: the edit is not made."""
        self.store.hold_loads()
        self.service.join(42).addCallback(lambda _: self.service.stopService())
        edited = self.service.edit(42, x=7.0)
        self.store.release_loads()
        self.failureResultOf(edited, NotRunning)
        self.successResultOf(self.stepped.stop())
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 2.0)})

    def test_stop_saves_it(self) -> None:
        """A stop saves the edits under way, which fire."""
        edited = self.service.edit(42, x=7.0)
        self.successResultOf(self.stepped.stop())
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 2.0)})
        self.assertEqual((self.left, self.service.ledger.leaves), ([], 0))

    def test_stop_that_gives_up(self) -> None:
        """A stop that gives up fails the edits under way, and names the players."""
        self.begin(stop_within=1.0)
        self.store.failures.extend([StoreBusy("locked")] * 99)
        edited = self.service.edit(42, x=7.0)
        stopped = self.service.stopService()
        self.stepped.step()
        self.stepped.reactor.advance(1.0)
        self.failureResultOf(edited, NotSaved)
        self.failureResultOf(self.service.edit(42), NotRunning)
        end_thread(self.stepped)
        self.successResultOf(stopped)
        self.assertEqual(len(self.told("unsaved of player 42;")), 1)

    def test_store_replaced(self) -> None:
        """An edit under way while the store is replaced is saved into the replacement."""
        self.begin(store=FragileStore())
        self.service.edit(43, create=True)
        self.save()
        edited = self.service.edit(42, x=7.0)
        self.store.successor = {}
        look_after(self.stepped)
        self.waits(edited)
        go_over(self.stepped)
        self.save()
        self.successResultOf(edited)
        self.assertEqual(self.store.reopened[0][1], {42})
        self.assertEqual(self.stored(self.stepped), {42: (7.0, 2.0)})
        self.check_out()


class ConversationTests(GatewayTestCase):
    """Edits of players who play over the wire."""

    def test_move_before_seen(self) -> None:
        """A MOVE that was sent before the client saw the edit does not undo it."""
        self.open()
        client = self.client()
        client.join()
        client.move(1, 3.0, 4.0)
        edited = self.stepped.service.edit(42, x=7.0)
        client.move(2, 5.0, 6.0)
        self.assertEqual(self.stepped.service.state(42), at(7, 4))
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()
        self.successResultOf(edited)

    def test_join_of_an_edited_player(self) -> None:
        """A JOIN during an edit is welcomed with the edited state."""
        self.open()
        self.stepped.store.players[42] = Stored((1.0, 2.0), 5)
        edited = self.stepped.service.edit(42, x=7.0)
        client = self.client()
        client.join()
        (welcome,) = client.heard()
        self.assertEqual(welcome[-2:], (7.0, 2.0))
        self.stepped.reactor.advance(0.05)
        self.stepped.settle()
        self.successResultOf(edited)
        self.assertEqual(self.stepped.service.state(42), at(7, 2))


def raising(error: Exception) -> Any:
    """Raise this error, where only an expression may stand."""
    raise error
