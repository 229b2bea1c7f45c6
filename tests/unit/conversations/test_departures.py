"""How conversations end: by LEAVE, by the program around the service."""

from __future__ import annotations

import gc

from twisted.internet.defer import fail

from playerstate import NotOnline
from playerstate.interfaces import RowRefused, Stored
from playerstate.testing import EPOCH
from tests.kit.players import (
    GONE,
    RECEIPT,
    WELCOME,
    Client,
    FragileStore,
    GatewayTestCase,
    at,
    run_of,
)

KICKED, IDLE, ELSEWHERE, CLOSED = range(1, 5)
NOW = EPOCH * 10**6


class DeparturesTestCase(GatewayTestCase):
    """Tests with a player who has moved."""

    def moved(self) -> Client:
        """Open a port; the client of a player who has made a move, not yet saved."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        return client

    def leaving(self) -> Client:
        """The same, of a player whose LEAVE came behind that move."""
        client = self.moved()
        client.leave(1)
        return client


class LeaveTests(DeparturesTestCase):
    """LEAVE."""

    def test_answered_twice(self) -> None:
        """It is answered at once, and again when the state is saved, which is soon."""
        client = self.leaving()
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0)])
        self.idle(0.05)
        self.assertEqual(client.heard(), [])
        self.stepped.settle()
        self.assertEqual(client.heard(), [(RECEIPT, 1, 1)])
        self.assertEqual(self.service.table.slots, {})
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 0.0)})

    def test_clean(self) -> None:
        """Who has nothing unsaved hears both answers at once."""
        self.open()
        client = self.joined(sequence=4)
        client.leave(4)
        self.assertEqual(client.heard(), [(RECEIPT, 4, 4), (RECEIPT, 4, 4)])

    def test_late_moves(self) -> None:
        """Until it is saved, MOVEs up to its number are applied, and none beyond."""
        client = self.moved()
        client.leave(3)
        client.move(2, 2.0)
        client.move(4, 4.0)
        self.idle(0.05)
        client.move(3, 3.0)
        client.move(2, 2.0)
        self.assertEqual(self.service.progress(42).applied, 3)
        self.assertEqual(self.books.rejected, {"leaving": 1})
        self.assertEqual(self.books.stale, 1)
        client.heard()
        self.advance(4.0)
        self.assertEqual(client.receipts()[-1], (3, 3))
        self.assertEqual(self.stored(self.stepped), {42: (3.0, 0.0)})
        client.move(3, 9.0)
        self.assertEqual(self.books.rejected, {"leaving": 1, "not_joined": 1})

    def test_below_what_was_applied(self) -> None:
        """A LEAVE of an older number than was applied lets nothing more in."""
        self.open()
        client = self.joined()
        client.move(5, 5.0)
        client.leave(3)
        client.move(4, 4.0)
        client.move(6, 6.0)
        self.assertEqual(self.service.progress(42).applied, 5)
        self.assertEqual(self.books.rejected, {"leaving": 2})

    def test_repeated_while_leaving(self) -> None:
        """A LEAVE repeated before the save is answered, as often as receipts are sent."""
        client = self.moved()
        for _ in range(10):
            client.leave(1)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0)])
        self.idle(0.13)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0)])
        client.ping(1)
        self.idle(0.1)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0)])
        self.stepped.settle()
        self.assertEqual(client.heard(), [(RECEIPT, 1, 1)])
        self.assertEqual(self.books.leaves, 1)

    def test_repeats_in_a_storm(self) -> None:
        """However often one who has left repeats it, an answer goes out every 100 ms at most."""
        client = self.leaving()
        self.advance(1.0)
        client.heard()
        for _ in range(100):
            client.leave(1)
            client.ping(1)
            self.idle(0.01)
        self.assertLessEqual(len(client.receipts()), 11)

    def test_repeated_after(self) -> None:
        """For 5 s after the save, LEAVE and PING are answered with the last receipt."""
        self.open()
        client, other = self.joined(sequence=1), self.client(host=2)
        client.move(2, 1.0)
        client.leave(2)
        self.advance(0.1)
        client.heard()
        for _ in range(4):
            client.leave(2)
            self.advance(0.2)
            client.ping(2)
            self.assertEqual(client.heard(), [(RECEIPT, 2, 2)] * 2)
            self.advance(1.0)
        other.leave(2)
        other.ping(2)
        self.assertEqual((other.heard(), self.books.rejected), ([], {"other_address": 2}))
        client.ping(0)
        self.assertEqual((client.heard(), self.books.stale), ([], 1))
        client.move(3, 1.0)
        self.assertEqual(self.books.rejected["not_joined"], 1)
        self.advance(0.2)
        client.leave(2)
        client.ping(2)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.rejected["not_joined"], 3)

    def test_receipts_are_counted(self) -> None:
        """Each that is sent is counted: at the LEAVE, when it is saved, and again when asked."""
        client = self.leaving()
        self.advance(0.2)
        client.leave(1)
        receipts = client.receipts()
        self.assertEqual(receipts[-2:], [(1, 1)] * 2)
        self.assertEqual(self.books.receipts, len(receipts))

    def test_old_join(self) -> None:
        """A duplicate of the JOIN of a conversation that is over is stale, and revives nothing."""
        client = self.leaving()
        self.advance(0.1)
        client.heard()
        client.join(1)
        self.assertEqual(client.heard(), [])
        self.assertEqual((self.books.stale, self.books.received), (1, 2))
        self.assertEqual(self.service.table.slots, {})
        client.leave(1)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 1)])

    def test_joins_again(self) -> None:
        """A JOIN with another nonce after the leave begins anew, and ends the lingering."""
        client = self.leaving()
        self.advance(0.1)
        client.heard()
        client.join(2, sequence=1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 2, NOW, 1.0, 0.0)])
        self.advance(6.0)
        client.move(2, 2.0)
        self.assertEqual(self.service.state(42), at(2))

    def test_joins_again_before_the_save(self) -> None:
        """Invariant 9: a JOIN between the LEAVE and its save finds the newest state and stays."""
        client = self.leaving()
        self.idle(0.05)
        client.heard()
        client.join(2, sequence=1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 2, NOW, 1.0, 0.0)])
        client.move(2, 2.0)
        self.stepped.settle()
        self.assertEqual(self.service.state(42), at(2))
        self.advance(0.13)
        self.assertEqual(client.receipts(), [(2, 0)])

    def test_repeated_join_while_leaving(self) -> None:
        """A repeat of the JOIN while the leave is pending is answered, and does not call it off."""
        client = self.leaving()
        client.heard()
        client.join(1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, NOW, 1.0, 0.0)])
        self.advance(0.1)
        self.assertEqual(self.service.table.slots, {})

    def test_guarded(self) -> None:
        """Invariant 4: where the store holds something newer, the leave is never called saved."""
        client = self.moved()
        self.stepped.store.players[42] = Stored((9.0, 9.0), NOW * 2)
        client.leave(1)
        self.advance(0.1)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0), (GONE, 1, KICKED)])
        self.assertEqual(self.service.table.slots, {})
        client.leave(1)
        self.assertEqual(self.books.rejected, {"not_joined": 1})

    def test_guarded_and_back(self) -> None:
        """Who came back before the row was left out is not told that the new conversation ended."""
        client = self.moved()
        self.stepped.store.players[42] = Stored((9.0, 9.0), NOW * 2)
        client.leave(1)
        client.join(2, sequence=1)
        client.heard()
        self.idle(0.05)
        self.stepped.settle()
        self.assertNotIn(GONE, [answer[0] for answer in client.heard()])
        self.assertEqual(self.service.state(42), at(1))

    def test_set_aside(self) -> None:
        """A row that the store can never take: the leave is never called saved, the place is free.

        Who else leaves then is answered as ever.
        """
        store = FragileStore()
        store.cursed = {42}
        self.open(store=store)
        client, other = self.joined(42, host=1), self.joined(43, host=2)
        client.move(1, 1.0)
        client.leave(1)
        for sequence in range(1, 5):
            other.move(sequence, 1.0)
            self.advance(3.0)
        self.assertEqual(store.aside, [(42, "not this one")])
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0), (GONE, 1, KICKED)])
        self.assertEqual(list(self.service.table.slots), [43])
        other.heard()
        other.leave(4)
        self.advance(0.2)
        self.assertEqual(other.receipts()[-1], (4, 4))
        self.assertEqual((self.books.quarantined, self.books.pending), (1, 0))
        self.assertEqual(len(self.flushLoggedErrors(RowRefused)), 1)

    def test_bounded(self) -> None:
        """Invariant 11: no more of those who left are remembered than there may be players."""
        self.open(max_players=3)
        for session_id in range(1, 8):
            client = self.joined(session_id)
            client.leave(0)
            client.heard()
        for session_id in range(1, 8):
            client = self.client(session_id)
            client.leave(0)
            self.assertEqual(len(client.heard()), int(session_id > 4))


class ProgramTests(DeparturesTestCase):
    """The program that embeds the service takes a hand."""

    def test_kick(self) -> None:
        """Who is kicked is told, taken offline, and saved."""
        client = self.moved()
        kicked = self.gateway.kick(42)
        self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
        self.waits(kicked)
        client.move(2, 2.0)
        self.advance(0.1)
        self.assertEqual(self.successResultOf(kicked).applied, 1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.rejected, {"not_joined": 1})
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 0.0)})

    def test_kick_who_had_left_before(self) -> None:
        """What a conversation before the last was told at its end is not said again."""
        self.open()
        client = self.joined()
        client.leave(0)
        client.join(2, sequence=5)
        self.gateway.kick(42)
        client.heard()
        client.ping(5)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.rejected, {"not_joined": 1})

    def test_kick_who_is_not_online(self) -> None:
        """Kicking needs a player who is online, with a conversation or without one."""
        self.open()
        self.failureResultOf(self.gateway.kick(42), NotOnline)
        self.stepped.join(42)
        self.successResultOf(self.gateway.kick(42))

    def test_taken_offline(self) -> None:
        """A player whom the program takes offline is told at once, and not heard any more."""
        for word in (Client.move, Client.ping, Client.leave):
            self.open()
            client = self.joined()
            self.successResultOf(self.service.leave(42))
            self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
            word(client, 1, *((1.0,) if word is Client.move else ()))
            self.assertEqual(client.heard(), [])
            self.assertEqual(self.books.rejected, {"not_joined": 1})
            self.port.stopListening()

    def test_taken_offline_while_moving(self) -> None:
        """Who was moving is told before the state is saved, and cannot put that off."""
        client = self.moved()
        left = self.service.leave(42)
        self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
        client.move(2, 2.0)
        self.waits(left)
        self.advance(0.3)
        self.assertEqual(self.successResultOf(left).applied, 1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 0.0)})

    def test_taken_offline_while_leaving(self) -> None:
        """Who has left already is still answered, but makes none of the moves that were left."""
        client = self.moved()
        client.leave(9)
        client.move(2, 2.0)
        client.heard()
        self.service.leave(42)
        client.move(3, 3.0)
        self.assertEqual(self.books.rejected, {"leaving": 1})
        self.advance(0.1)
        self.assertEqual(client.heard(), [(RECEIPT, 2, 2)])
        self.assertEqual(self.stored(self.stepped), {42: (2.0, 0.0)})

    def test_taken_offline_and_brought_back(self) -> None:
        """A conversation that is over stays so where the program lets the player in again."""
        self.open(idle_timeout=1.0)
        client = self.joined()
        self.successResultOf(self.service.leave(42))
        self.stepped.join(7)
        self.stepped.join(42)
        self.advance(2.5)
        self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
        self.assertEqual(self.service.state(42), at(350, 200))

    def test_taken_offline_with_a_transport_that_fails(self) -> None:
        """The leave goes on where the player cannot be told, and the log says why."""
        self.open()
        client = self.joined()
        self.patch(run_of(self.gateway).registry.current[42].transport, "send", None)
        self.successResultOf(self.service.leave(42))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(self.service.table.slots, {})
        self.assertEqual(client.heard(), [])

    def test_taken_offline_after_the_close(self) -> None:
        """A gateway that is closed hears nothing more of the service."""
        self.open()
        departures = run_of(self.gateway).departures
        self.successResultOf(self.gateway.close())
        self.assertRaises(ValueError, self.service.remove_listener, departures)

    def test_joins_again_after_that(self) -> None:
        """A JOIN of the same nonce, from a client that does not know, begins anew."""
        self.open()
        client = self.joined()
        client.move(3, 3.0)
        self.service.leave(42)
        self.advance(0.06)
        client.heard()
        client.join(1, sequence=3)
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, NOW, 3.0, 0.0)])
        client.move(4, 4.0)
        self.assertEqual(self.service.state(42), at(4))

    def test_slot_given_to_another(self) -> None:
        """Invariant 11: a conversation is over before its slot is given to another player."""
        self.open(max_players=2)
        client = self.joined(1, host=1)
        self.successResultOf(self.service.leave(1))
        self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
        other = self.joined(2, host=2)
        other.move(1, 1.0)
        self.idle(0.2)
        self.assertEqual(other.heard(), [(RECEIPT, 1, 0)])
        client.move(1, 1.0)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.service.state(2), at(1))

    def test_slot_given_to_another_without_conversation(self) -> None:
        """Moves of a player in the slot who has no conversation are shown in no receipt."""
        self.open(max_players=1)
        client = self.joined(1)
        client.move(4, 1.0)
        self.service.leave(1)
        self.advance(0.06)
        client.heard()
        self.successResultOf(self.service.join(2, sequence=9))
        self.advance(0.5)
        self.assertLessEqual(set(client.heard()), {(GONE, 1, KICKED)})
        self.service.update(2, at(1))
        self.advance(4.0)
        self.assertEqual(client.heard(), [])


class FailureTests(GatewayTestCase):
    """What must not be taken for an ordinary failure."""

    def test_other_failures_are_loud(self) -> None:
        """A leave that fails by anything but `NotSaved` and `NotOnline` is logged as an error."""
        self.open()
        client = self.joined()
        self.patch(self.service, "leave", lambda session_id: fail(ZeroDivisionError()))
        client.leave(0)
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
