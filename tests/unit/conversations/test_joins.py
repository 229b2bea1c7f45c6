"""JOINs, to the letter of the wire format: raw datagrams in, raw datagrams out."""

from __future__ import annotations

import struct
from unittest import mock

from twisted.internet.defer import CancelledError

from playerstate import StoreBusy
from playerstate.conversations.departures import LINGER
from playerstate.conversations.joins import REPLACED_FOR, REPLACED_KEPT
from playerstate.conversations.registry import ENDED_FOR
from playerstate.interfaces import Stored
from playerstate.testing import EPOCH
from tests.kit.players import (
    GONE,
    RECEIPT,
    REFUSED,
    SCHEMA,
    WELCOME,
    GatewayTestCase,
    at,
    leave_behind,
    run_of,
)

FULL, VERSION, FINGERPRINT, STOPPING, STORE = range(1, 6)
KICKED, IDLE, ELSEWHERE, CLOSED = range(1, 5)
NOW = EPOCH * 10**6
SPAWNED = (WELCOME, 0, 1, 0, 350.0, 200.0)
"""The answer to a first JOIN of nonce 1."""


class JoinTests(GatewayTestCase):
    """JOIN, and what it is answered with."""

    def test_welcome(self) -> None:
        """A new player is welcomed at the spawn, with the nonce of the JOIN."""
        self.open()
        client = self.client()
        client.join(7)
        self.assertEqual(client.heard(), [(WELCOME, 0, 7, 0, 350.0, 200.0)])
        self.assertEqual(self.service.state(42), at(350, 200))
        self.assertEqual(self.books.received, 0)

    def test_bytes(self) -> None:
        """The WELCOME, byte for byte."""
        self.open()
        self.stepped.store.players[42] = Stored((1.0, -2.0), 0x0102030405060708)
        self.client().join(0xA1B2C3D4)
        [(datagram, address)] = self.port.take()
        self.assertEqual(address, ("192.0.2.1", 1001))
        self.assertEqual(
            datagram.hex(" ", -4),
            "2a000000 00000000 d4c3b2a1 8101d4c3 b2a10807 06050403 02010100 00000000 00000000 "
            "00000000 f03f0000 00000000 00c0",
        )

    def test_restored(self) -> None:
        """A player of before stands where they left, and is told since when."""
        self.open()
        self.stepped.store.players[42] = Stored((1.0, 2.0), 98)
        client = self.client()
        client.join(7)
        self.assertEqual(client.heard(), [(WELCOME, 1, 7, 98, 1.0, 2.0)])

    def test_repeated(self) -> None:
        """A JOIN of the same nonce is answered with the state of now, and resets nothing."""
        self.open()
        client = self.joined()
        client.move(5, 1.0, 2.0)
        client.join(1, sequence=0)
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, NOW, 1.0, 2.0)])
        client.move(5, 9.0)
        self.assertEqual((self.books.stale, self.books.joins), (1, 1))
        self.assertEqual(self.service.progress(42).applied, 5)

    def test_repeat_keeps_awake(self) -> None:
        """A repeated JOIN is a word of the player."""
        self.open(idle_timeout=1.0)
        client = self.joined()
        for _ in range(5):
            self.advance(0.5)
            client.join(1)
        self.assertEqual(self.service.state(42), at(350, 200))

    def test_repeat_from_elsewhere_keeps_nobody_awake(self) -> None:
        """A repeated JOIN from another address is no word of the player who is there."""
        self.open(idle_timeout=1.0)
        client, other = self.joined(host=1), self.client(host=2)
        client.ping(0)
        for _ in range(5):
            self.advance(0.25)
            other.join(1)
        self.assertEqual(client.heard(), [(RECEIPT, 0, 0), (GONE, 1, 2)])

    def test_other_nonce(self) -> None:
        """Another nonce begins anew, numbered from its sequence; the same address hears no GONE."""
        self.open()
        client = self.joined()
        client.move(5, 1.0)
        client.join(2, sequence=0)
        self.assertEqual(client.heard(), [(WELCOME, 1, 2, NOW, 1.0, 0.0)])
        client.move(1, 3.0)
        self.assertEqual(self.service.state(42), at(3))
        self.assertEqual(self.books.joins, 2)

    def test_elsewhere(self) -> None:
        """The latest fresh JOIN wins: the old address is told, and its moves are refused."""
        self.open()
        old, new = self.joined(host=1), self.client(host=2)
        old.move(1, 1.0)
        new.join(2, sequence=1)
        self.assertEqual(old.heard(), [(GONE, 1, ELSEWHERE)])
        self.assertEqual(new.heard(), [(WELCOME, 1, 2, NOW, 1.0, 0.0)])
        old.move(2, 9.0)
        old.ping(1)
        old.leave(1)
        self.assertEqual(old.heard(), [])
        self.assertEqual(self.books.rejected, {"other_address": 3})
        new.move(2, 2.0)
        self.assertEqual(self.service.state(42), at(2))

    def test_repeat_from_elsewhere(self) -> None:
        """A JOIN of the same nonce from another address changes nothing once the player played."""
        for sign in ("move", "ping"):
            self.open()
            client, other = self.joined(host=1), self.client(host=2)
            client.move(1, 1.0) if sign == "move" else client.ping(0)
            for secret in (0, client.secret + 1, 2**64 - 1):
                other.join(1, secret=secret)
            self.assertEqual(other.heard(), [])
            other.move(2, 9.0)
            client.move(2, 2.0)
            self.assertEqual(self.service.state(42), at(2))
            self.assertEqual(self.books.rejected, {"other_address": 4})
            self.port.stopListening()

    def test_port_changes_before_the_welcome(self) -> None:
        """A repeat before anything else was heard moves the conversation to where it comes from."""
        self.open()
        client, moved = self.joined(host=1), self.client(host=2)
        moved.join(1)
        self.assertEqual(moved.heard(), [SPAWNED])
        moved.move(1, 9.0)
        client.move(2, 1.0)
        self.assertEqual(self.service.state(42), at(9))
        self.assertEqual(self.books.rejected, {"other_address": 1})

    def test_secret(self) -> None:
        """Who knows the conversation's secret moves it, and nothing of it is reset."""
        self.open()
        client, moved = self.joined(host=1), self.client(host=2)
        client.move(5, 5.0)
        moved.join(1, secret=client.secret)
        self.assertEqual(moved.heard(), [(WELCOME, 1, 1, NOW, 5.0, 0.0)])
        moved.move(5, 1.0)
        client.move(7, 7.0)
        moved.move(6, 6.0)
        self.assertEqual(self.service.state(42), at(6))
        self.assertEqual((self.books.joins, self.books.stale), (1, 1))
        self.assertEqual(self.books.rejected, {"other_address": 1})
        self.assertEqual(client.heard(), [])

    def test_secret_of_a_conversation_that_is_no_more(self) -> None:
        """It begins no other: its player may have moved on elsewhere."""
        self.open()
        client = self.joined()
        client.leave(0)
        self.advance(6.0)
        client.heard()
        client.join(1, secret=client.secret)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.rejected, {"not_joined": 1})

    def test_late_of_another_conversation(self) -> None:
        """What is late of a conversation does nothing to the next, whatever its number."""
        self.open()
        client = self.joined()
        client.join(2, sequence=0)
        client.heard()
        client.nonce = 1
        client.move(1000, 9.0)
        client.leave(1000)
        client.ping(1000)
        client.send(bytes.fromhex("05 e803 00") + bytes(16))
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.rejected, {"other_conversation": 4})
        client.nonce = 2
        client.move(1, 1.0)
        self.assertEqual(self.service.state(42), at(1))

    def test_late_join(self) -> None:
        """A replaced JOIN takes the player from no newer device, and is answered so."""
        self.open()
        old, new = self.joined(host=1), self.client(host=2)
        for nonce in range(2, 6):
            new.join(nonce)
        self.assertEqual(old.heard(), [(GONE, 1, 3)])
        new.heard()
        for nonce in range(1, 5):
            old.join(nonce)
        gone = [(GONE, nonce, ELSEWHERE) for nonce in range(1, 5)]
        self.assertEqual((old.heard(), new.heard()), (gone, []))
        self.assertEqual(self.books.stale, 4)
        new.leave(0)
        self.advance(0.1)
        new.heard()
        old.join(1)
        self.assertEqual(old.heard(), gone[:1])

    def test_late_join_of_one_who_left(self) -> None:
        """A late JOIN of a player who has left takes the player from no newer device."""
        self.open()
        old, new = self.joined(host=1), self.client(host=2)
        old.leave(0)
        self.advance(0.1)
        new.join(2)
        old.heard()
        new.heard()
        old.join(1)
        self.assertEqual((old.heard(), new.heard()), ([(GONE, 1, ELSEWHERE)], []))
        self.assertEqual(self.books.stale, 1)

    def test_late_join_long_after_the_leave(self) -> None:
        """When the LEAVE is no longer answered it begins nothing either, for a while."""
        self.open()
        client = self.joined()
        client.leave(0)
        self.advance(LINGER + 0.1)
        client.heard()
        client.join(1)
        self.assertEqual((client.heard(), self.books.stale), ([(GONE, 1, ELSEWHERE)], 1))
        self.stepped.reactor.advance(ENDED_FOR)
        client.join(1)
        self.assertEqual(client.heard(), [SPAWNED])

    def test_same_nonce_again(self) -> None:
        """A player who was sent away comes back with the same JOIN; old moves stay stale."""
        self.open(idle_timeout=1.0)
        client = self.joined()
        client.move(5, 5.0)
        self.advance(2.1)
        self.assertEqual(client.heard()[-1], (GONE, 1, IDLE))
        client.join(1)
        self.assertEqual([answer[0] for answer in client.heard()], [WELCOME])
        client.move(4, 4.0)
        self.assertEqual((self.books.stale, self.service.state(42)), (1, at(5)))
        client.move(6, 6.0)
        self.assertEqual(self.service.state(42), at(6))

    def test_replaced_by_one_that_ended(self) -> None:
        """A JOIN that was replaced is late also once the one that replaced it has ended."""
        self.open()
        client = self.joined()
        client.join(2)
        self.gateway.kick(42)
        self.advance(0.5)
        client.heard()
        client.join(1)
        self.assertEqual((client.heard(), self.books.stale), ([(GONE, 1, ELSEWHERE)], 1))

    def test_replaced_are_forgotten(self) -> None:
        """Few are remembered, and not for long."""
        self.open(idle_timeout=3600.0)
        client = self.joined()
        for nonce in range(2, 30):
            client.join(nonce)
        self.assertEqual(len(run_of(self.gateway).registry.current[42].replaced), REPLACED_KEPT)
        self.stepped.reactor.advance(REPLACED_FOR)
        client.join(30)
        self.assertEqual([n for n, _ in run_of(self.gateway).registry.current[42].replaced], [29])

    def test_highest_sequence(self) -> None:
        """A JOIN that leaves its moves no number is malformed; one below is let in."""
        self.open()
        client = self.client()
        client.join(1, sequence=2**32 - 1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.malformed, {"value": 1})
        client.join(1, sequence=2**32 - 2)
        client.move(2**32 - 1, 1.0)
        client.join(2, sequence=0)
        client.move(1, 2.0)
        self.assertEqual(self.service.state(42), at(2))

    def test_sequence_of_join(self) -> None:
        """Moves are numbered above the JOIN's sequence; both numbers of a receipt start there."""
        self.open()
        client = self.joined(sequence=10)
        client.move(10, 1.0)
        self.idle(0.11)
        client.ping(10)
        self.assertEqual(client.heard(), [(RECEIPT, 10, 10)])
        client.move(11, 1.0)
        self.assertEqual((self.books.stale, self.books.applied), (1, 1))

    def test_unsaved_before_a_reconnect(self) -> None:
        """Invariant 6: the number a JOIN carries on from is not called saved before it is."""
        self.open()
        client = self.joined()
        client.move(5, 1.0)
        client.join(2, sequence=5)
        client.heard()
        client.ping(5)
        self.advance(0.13)
        [(applied, saved)] = client.receipts()
        self.assertEqual(applied, 5)
        self.assertLess(saved, 5)
        self.advance(3.2)
        self.assertEqual(client.receipts()[-1], (5, 5))

    def test_lengths(self) -> None:
        """A JOIN has 22 to 1,200 bytes, and 78 more than its WELCOME to be welcomed."""
        self.open()
        client = self.client()
        for size, reason in ((21, "too_short"), (22, "too_short"), (115, "too_short")):
            client.send(struct.pack("<BBIIIQ", 1, 1, 0, 1, 0, 0).ljust(size, b"\0")[:size])
            self.assertEqual(client.heard(), [])
            self.assertIn(reason, self.books.malformed)
        self.assertEqual(self.books.malformed, {"too_short": 3})
        client.join(size=1201)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.malformed, {"too_short": 3, "too_long": 1})
        self.assertEqual(self.service.table.slots, {})
        for size in (248, 1200):
            client.join(size=size)
            self.assertEqual(client.heard(), [SPAWNED])
        self.assertEqual((self.books.received, self.books.joins), (4, 1))

    def test_short_repeat(self) -> None:
        """A repeat that is shorter than its WELCOME is malformed too."""
        self.open()
        client = self.joined()
        client.join(1, size=37)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.malformed, {"too_short": 1})

    def test_answers_are_not_longer(self) -> None:
        """No JOIN is answered by more bytes than it has."""
        self.open(max_players=1)
        for session_id, version, fingerprint in ((1, 2, 0), (1, 1, 99), (1, 1, 0), (2, 1, 0)):
            for size in range(22, 262):
                client = self.client(session_id)
                client.join(size, version=version, fingerprint=fingerprint, size=size)
                for datagram, _ in self.port.take():
                    self.assertLessEqual(len(datagram), 12 + size)
        self.assertGreater(self.books.joins, 1)

    def test_refused_full(self) -> None:
        """REFUSED 1, to a JOIN of 14 bytes already."""
        self.open(max_players=1)
        self.joined(1)
        client = self.client(2)
        client.join(5, size=22)
        self.assertEqual(client.heard(), [(REFUSED, 5, FULL)])
        self.assertEqual(self.books.joins_refused, {"full": 1})

    def test_full_after_all(self) -> None:
        """REFUSED 1, where the service finds no place that there seemed to be."""
        self.open(max_players=1)
        self.joined(1)
        client = self.client(2)
        self.patch(self.service, "has_room", lambda session_id: True)
        with mock.patch.object(self.stepped.service, "has_room", side_effect=[True, False]):
            client.join(5)
        self.assertEqual(client.heard(), [(REFUSED, 5, FULL)])

    def test_refused_version(self) -> None:
        """REFUSED 2."""
        self.open()
        client = self.client()
        client.join(5, version=2, size=22)
        self.assertEqual(client.heard(), [(REFUSED, 5, VERSION)])
        self.assertEqual(self.books.joins_refused, {"version": 1})

    def test_refused_fingerprint(self) -> None:
        """REFUSED 3; the schema's own and 0 are taken."""
        self.open()
        client = self.client()
        client.join(5, fingerprint=SCHEMA.fingerprint ^ 1, size=22)
        self.assertEqual(client.heard(), [(REFUSED, 5, FINGERPRINT)])
        self.assertEqual(self.books.joins_refused, {"fingerprint": 1})
        client.join(1, fingerprint=SCHEMA.fingerprint)
        self.assertEqual(client.heard(), [SPAWNED])

    def test_refused_stopping(self) -> None:
        """REFUSED 4, while the transport or the service stops; to a repeat as well."""
        self.open()
        client, other = self.joined(), self.client(43)
        client.move(1, 1.0)
        self.service.stopService()
        other.join(5)
        self.assertEqual(other.heard(), [(REFUSED, 5, STOPPING)])
        self.plain.stopService()
        other.join(6, size=22)
        client.join(1, size=22)
        self.assertEqual(other.heard(), [(REFUSED, 6, STOPPING)])
        self.assertEqual(client.heard(), [(REFUSED, 1, STOPPING)])
        self.assertEqual(self.books.joins_refused, {"shutting_down": 3})

    def test_refused_store(self) -> None:
        """REFUSED 5 where the store cannot load; it is logged, once a minute."""
        self.open()
        self.patch(self.stepped.store, "load", lambda session_id: 1 / 0)
        client = self.client()
        for nonce in range(1, 70):
            client.join(nonce)
            self.assertEqual(client.heard(), [(REFUSED, nonce, STORE)])
            self.stepped.reactor.advance(1.0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(len(self.told("player 42 cannot join")), 2)
        self.assertEqual(self.books.joins_refused, {"store": 69})

    def test_refused_while_recovering(self) -> None:
        """REFUSED 5, without a trace in the log, until what the last run left is saved."""
        memory = leave_behind(self, {42: Stored((1.0, 2.0), 98)})
        self.open()
        self.stepped.store.failures.extend(StoreBusy("locked") for _ in range(5))
        client, other = self.client(), self.client(43)
        for nonce in range(1, 6):
            client.join(nonce)
            other.join(nonce)
            self.assertEqual(client.heard(), [(REFUSED, nonce, STORE)])
            self.assertEqual(other.heard(), [(REFUSED, nonce, STORE)])
            self.stepped.step()
        client.move(1, 9.0)
        self.assertEqual(self.books.rejected, {"not_joined": 1})
        self.assertEqual(self.books.joins_refused, {"store": 10})
        self.assertEqual(self.told("cannot join"), [])
        self.assertEqual(memory.forgotten, 0)
        self.stepped.step()
        self.assertEqual(memory.forgotten, 1)
        client.join(6)
        other.join(6)
        self.assertEqual(client.heard(), [(WELCOME, 1, 6, 98, 1.0, 2.0)])
        self.assertEqual(other.heard(), [(WELCOME, 0, 6, 0, 350.0, 200.0)])

    def test_refused_busy(self) -> None:
        """REFUSED 5, without a trace in the log, where the store is busy just then."""

        def load(session_id: int) -> None:
            raise StoreBusy("locked")

        self.open()
        with mock.patch.object(self.stepped.store, "load", load):
            client = self.client()
            client.join(1)
            self.assertEqual(client.heard(), [(REFUSED, 1, STORE)])
        self.assertEqual(self.told("cannot join"), [])
        client.join(1)
        self.assertEqual(client.heard(), [SPAWNED])


class PendingJoinTests(GatewayTestCase):
    """JOINs while the store takes its time."""

    def setUp(self) -> None:
        """A store that holds its answers back."""
        super().setUp()
        self.open(max_players=2)
        self.stepped.store.players[42] = Stored((7.0, 8.0), 98)
        self.stepped.store.hold_loads()

    def release(self) -> None:
        """Answer the loads."""
        self.stepped.store.release_loads()

    def test_answered_later(self) -> None:
        """A JOIN is answered when the store has; its repeats share the load and the answer."""
        client = self.client()
        for _ in range(3):
            client.join(1)
        self.assertEqual(len(self.stepped.store.held), 1)
        client.move(1, 9.0)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.rejected, {"not_joined": 1})
        self.release()
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, 98, 7.0, 8.0)])
        self.assertEqual(self.books.joins, 1)

    def test_replaced(self) -> None:
        """A pending JOIN gives way to one with another nonce; that alone is answered."""
        old, new = self.client(host=1), self.client(host=2)
        old.join(1)
        new.join(2)
        self.release()
        self.assertEqual(old.heard(), [])
        self.assertEqual(new.heard(), [(WELCOME, 1, 2, 98, 7.0, 8.0)])
        self.assertEqual(self.books.joins, 1)
        old.join(1)
        self.assertEqual((old.heard(), new.heard()), ([(GONE, 1, ELSEWHERE)], []))
        old.join(3)
        self.release()
        self.assertEqual(new.heard(), [(GONE, 2, ELSEWHERE)])

    def test_fails(self) -> None:
        """A load that fails is answered with REFUSED 5; the next JOIN tries again."""
        client = self.client()
        client.join(1)
        _, answer = self.stepped.store.held.pop()
        answer.errback(StoreBusy("locked"))
        self.assertEqual(client.heard(), [(REFUSED, 1, STORE)])
        client.join(1)
        self.release()
        self.assertEqual(client.heard()[0][0], WELCOME)

    def test_cancelled_by_the_store(self) -> None:
        """A load that the store itself cancels is a failure like any other."""
        client = self.client()
        client.join(1)
        _, answer = self.stepped.store.held.pop()
        answer.errback(CancelledError())
        self.flushLoggedErrors(CancelledError)
        self.assertEqual(client.heard(), [(REFUSED, 1, STORE)])
        client.join(1)
        self.release()
        self.assertEqual(client.heard()[0][0], WELCOME)

    def test_full(self) -> None:
        """Players who are loading count; a repeat of theirs is not refused."""
        first, second, third = (self.client(n) for n in (1, 2, 3))
        first.join()
        second.join()
        third.join(size=22)
        self.assertEqual(third.heard(), [(REFUSED, 1, FULL)])
        first.join()
        self.release()
        self.assertEqual(first.heard(), [SPAWNED])

    def test_closed(self) -> None:
        """Closing cancels what is pending, and answers it no more."""
        client = self.client()
        client.join()
        self.successResultOf(self.plain.stopService())
        self.release()
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.service.table.slots, {})
