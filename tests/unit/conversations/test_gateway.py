"""Conversations, to the letter of the wire format: raw datagrams in, raw datagrams out."""

from __future__ import annotations

import gc
import random
import struct
from itertools import pairwise
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, fail
from twisted.logger import LogLevel

from playerstate import NotOnline, PlayerStateService, StoreBusy
from playerstate.conversations import receipts as receipts_module
from playerstate.conversations.gateway import REPLACED_FOR, REPLACED_KEPT, Gateway
from playerstate.interfaces import RowRefused, Stored
from playerstate.testing import EPOCH, FaultyStore
from tests.kit.players import (
    GONE,
    RECEIPT,
    REFUSED,
    SCHEMA,
    WELCOME,
    Client,
    FragileStore,
    GatewayTestCase,
    at,
    die,
    leave_behind,
    look_after,
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
        self.stepped.store.players[42] = Stored((1.0, 2.0), 99)
        client = self.client()
        client.join(7)
        self.assertEqual(client.heard(), [(WELCOME, 1, 7, 99, 1.0, 2.0)])

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
        self.assertEqual(self.books.refused, {"other_address": 3})
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
            self.assertEqual(self.books.refused, {"other_address": 4})
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
        self.assertEqual(self.books.refused, {"other_address": 1})

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
        self.assertEqual(self.books.refused, {"other_address": 1})
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
        self.assertEqual(self.books.refused, {"not_joined": 1})

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
        self.assertEqual(self.books.refused, {"other_conversation": 4})
        client.nonce = 2
        client.move(1, 1.0)
        self.assertEqual(self.service.state(42), at(1))

    def test_late_join(self) -> None:
        """A late duplicate of a replaced JOIN takes the player from no newer device."""
        self.open()
        old, new = self.joined(host=1), self.client(host=2)
        for nonce in range(2, 6):
            new.join(nonce)
        self.assertEqual(old.heard(), [(GONE, 1, 3)])
        new.heard()
        for nonce in range(1, 5):
            old.join(nonce)
        self.assertEqual((old.heard(), new.heard()), ([], []))
        self.assertEqual(self.books.stale, 4)
        new.leave(0)
        self.advance(0.1)
        new.heard()
        old.join(1)
        self.assertEqual(old.heard(), [])

    def test_replaced_are_forgotten(self) -> None:
        """Few are remembered, and not for long."""
        self.open(idle_timeout=3600.0)
        client = self.joined()
        for nonce in range(2, 30):
            client.join(nonce)
        self.assertEqual(len(self.gateway._conversations[42].replaced), REPLACED_KEPT)
        self.stepped.reactor.advance(REPLACED_FOR)
        client.join(30)
        self.assertEqual([n for n, _ in self.gateway._conversations[42].replaced], [29])

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
        for size in (116, 1200):
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
            for size in range(22, 130):
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
        memory = leave_behind(self, {42: Stored((1.0, 2.0), 99)})
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
        self.assertEqual(self.books.refused, {"not_joined": 1})
        self.assertEqual(self.books.joins_refused, {"store": 10})
        self.assertEqual(self.told("cannot join"), [])
        self.assertEqual(memory.forgotten, 0)
        self.stepped.step()
        self.assertEqual(memory.forgotten, 1)
        client.join(6)
        other.join(6)
        self.assertEqual(client.heard(), [(WELCOME, 1, 6, 99, 1.0, 2.0)])
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
        self.stepped.store.players[42] = Stored((7.0, 8.0), 99)
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
        self.assertEqual(self.books.refused, {"not_joined": 1})
        self.release()
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, 99, 7.0, 8.0)])
        self.assertEqual(self.books.joins, 1)

    def test_replaced(self) -> None:
        """A pending JOIN gives way to one with another nonce; that alone is answered."""
        old, new = self.client(host=1), self.client(host=2)
        old.join(1)
        new.join(2)
        self.release()
        self.assertEqual(old.heard(), [])
        self.assertEqual(new.heard(), [(WELCOME, 1, 2, 99, 7.0, 8.0)])
        self.assertEqual(self.books.joins, 1)
        old.join(1)
        self.assertEqual((old.heard(), new.heard()), ([], []))
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


class MoveTests(GatewayTestCase):
    """MOVE, and why one may not be applied."""

    def test_applied(self) -> None:
        """A MOVE is applied, whatever numbers it skips, up to the highest there is."""
        self.open()
        client = self.joined()
        for sequence in (1, 2, 1000, 2**31, 2**32 - 1):
            client.move(sequence, float(sequence), 0.5)
            self.assertEqual(self.service.state(42), at(sequence, 0.5))
        self.assertEqual((self.books.received, self.books.applied), (5, 5))

    def test_stale(self) -> None:
        """A MOVE not above the highest applied is stale."""
        self.open()
        client = self.joined()
        client.move(7, 7.0)
        for sequence in (0, 1, 6, 7):
            client.move(sequence, 1.0)
        self.assertEqual(self.service.state(42), at(7))
        self.assertEqual((self.books.received, self.books.applied, self.books.stale), (5, 1, 4))

    def test_not_joined(self) -> None:
        """Without a JOIN there is nothing but silence, for a MOVE, a LEAVE and a PING."""
        self.open()
        client = self.client()
        client.move(1, 1.0)
        client.leave(1)
        client.ping(1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.refused, {"not_joined": 3})

    def test_joined_by_the_program(self) -> None:
        """A player whom the program brought online has no conversation, and may begin one."""
        self.open()
        self.stepped.join(42)
        self.service.update(42, at(3))
        client = self.client()
        client.move(1, 1.0)
        self.assertEqual(self.books.refused, {"not_joined": 1})
        client.join(1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, NOW, 3.0, 0.0)])
        self.advance(4.0)

    def test_other_address(self) -> None:
        """A host or a port other than the JOIN's is another address."""
        self.open()
        self.joined()
        for address in (("192.0.2.2", 1001), ("192.0.2.1", 1002)):
            other = Client(self.port, 42, address)
            other.move(1, 1.0)
            other.leave(1)
            other.ping(1)
            self.assertEqual(other.heard(), [])
        self.assertEqual(self.service.state(42), at(350, 200))
        self.assertEqual(self.books.refused, {"other_address": 6})

    def test_malformed(self) -> None:
        """What cannot be read is counted by reason, never answered, never applied."""
        self.open()
        client = self.joined()
        move = struct.pack("<BIdd", 2, 1, 1.0, 1.0)
        for message, reason in (
            (move[:-1], "too_short"),
            (move + b"\0", "too_long"),
            (struct.pack("<BIdd", 2, 1, float("nan"), 1.0), "value"),
            (struct.pack("<BIdd", 2, 1, 1.0, float("-inf")), "value"),
            (struct.pack("<BI31x", 3, 1)[:-1], "too_short"),
            (struct.pack("<BI5x", 4, 1), "too_long"),
            (b"\x00", "unknown_type"),
            (b"\x81" + move, "unknown_type"),
            (b"\xff" * 40, "unknown_type"),
        ):
            before = self.books.malformed.get(reason, 0)
            client.send(message)
            self.assertEqual(self.books.malformed[reason], before + 1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.service.state(42), at(350, 200))
        self.assertEqual(self.books.received, 9)

    def test_negative_zero(self) -> None:
        """-0.0 is taken in as 0.0."""
        self.open()
        self.joined().move(1, -0.0)
        self.assertEqual(str(self.service.state(42).x), "0.0")

    def test_delta(self) -> None:
        """A DELTA is counted as one of an unknown base, and not applied."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.send(struct.pack("<BHBdd", 5, 2, 1, 9.0, 9.0))
        self.assertEqual(self.service.state(42), at(1))
        self.assertEqual(self.books.refused, {"unknown_base": 1})

    def test_while_stopping(self) -> None:
        """Invariant 10: with the service stopping, moves are refused."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        self.service.stopService()
        client.move(2, 2.0)
        self.assertEqual(self.books.refused, {"stopping": 1})
        self.assertEqual(self.service.table.values(0), (1.0, 0.0))

    def test_slot_used_again(self) -> None:
        """A player in a slot that another had before gets receipts of their own alone."""
        self.open(max_players=1)
        first = self.joined(1, host=1)
        first.move(90, 1.0)
        first.leave(90)
        self.advance(0.1)
        second = self.joined(2, host=2)
        self.assertEqual(first.receipts(), [(90, 0), (90, 90)])
        self.advance(0.5)
        second.move(3, 1.0)
        self.advance(3.5)
        self.assertEqual(second.receipts(), [(3, 0), (3, 3)])
        self.assertEqual(first.heard(), [])


class ReceiptTests(GatewayTestCase):
    """RECEIPT: what it says, and when it is sent."""

    def test_applied_then_saved(self) -> None:
        """Invariant 6: `applied` is what the table holds, `saved` what the store holds."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.move(2, 2.0)
        self.idle(0.2)
        self.assertEqual(client.receipts(), [(2, 0)])
        self.idle(3.0)
        self.assertEqual(client.heard(), [])
        self.stepped.thread.persister.step()
        self.idle(0.2)
        self.assertEqual(client.receipts(), [(2, 2)])
        self.idle(1.0)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.receipts, 2)

    def test_never_ahead(self) -> None:
        """Invariant 6, over a random history with a store that fails now and then."""
        self.open(save_within=1.0)
        choice = random.Random(6)
        client = self.joined()
        sequence = 0
        for _ in range(3000):
            if choice.random() < 0.3:
                sequence += choice.choice((1, 1, 1, 7))
                client.move(sequence, float(sequence))
            if choice.random() < 0.05:
                self.stepped.store.failures.append(StoreBusy("locked"))
            if choice.random() < 0.2:
                self.stepped.step()
            self.stepped.reactor.advance(0.01)
            for applied, saved in client.receipts():
                self.assertEqual(self.service.state(42).x, applied or 350.0)
                self.assertLessEqual(saved, self.stored(self.stepped).get(42, (0, 0))[0])
        self.assertGreater(self.books.receipts, 150)

    def test_while_degraded(self) -> None:
        """While nothing is saved, moves are applied and joins welcomed as ever; saved stands still.

        The receipts catch up with the first commit.
        """
        self.open()
        client = self.joined()
        self.stepped.store.failures.extend(StoreBusy("locked") for _ in range(10_000))
        for sequence in range(1, 101):
            client.move(sequence, float(sequence))
            self.advance(0.2)
        self.assertIsNotNone(self.service.trouble)
        receipts = client.receipts()
        self.assertEqual({saved for _, saved in receipts}, {0})
        self.assertGreaterEqual(receipts[-1][0], 99)
        self.joined(43, host=2)
        self.stepped.store.failures.clear()
        self.advance(4.0)
        self.assertEqual(client.receipts()[-1], (100, 100))
        self.assertIs(self.service.trouble, None)

    def test_after_the_thread_died(self) -> None:
        """A persist thread that dies is nothing a player hears of but a later receipt."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        self.idle(3.1)
        client.heard()
        die(self.stepped, SystemExit("out"))
        client.move(2, 2.0)
        self.idle(0.2)
        self.assertEqual(client.heard(), [(RECEIPT, 2, 0)])
        self.advance(3.2)
        self.assertEqual(client.heard(), [(RECEIPT, 2, 2)])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_after_the_store_was_replaced(self) -> None:
        """Players play on; who leaves hears that the store of now has it."""
        store = FragileStore()
        self.open(store=store)
        client = self.joined()
        client.move(1, 1.0)
        self.advance(3.1)
        store.successor = {}
        look_after(self.stepped)
        client.heard()
        client.leave(1)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0)])
        self.idle(0.1)
        self.assertEqual(list(self.service.table.slots), [42])
        self.advance(0.1)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 1)])
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 0.0)})

    def test_at_most_every_100_ms(self) -> None:
        """However fast a player moves or asks, there are at least 100 ms between two receipts."""
        self.open()
        client = self.joined()
        times = []
        for sequence in range(1, 500):
            client.move(sequence, 1.0)
            client.ping(sequence)
            self.advance(0.01)
            times += [self.stepped.reactor.seconds()] * len(client.receipts())
        gaps = [after - before for before, after in pairwise(times)]
        self.assertGreaterEqual(min(gaps), 0.1 - 1e-9)
        self.assertLess(max(gaps), 0.13)

    def test_players_per_second(self) -> None:
        """With more players the period grows: each has a receipt every players/10,000 s at most."""
        self.patch(receipts_module, "RECEIPTS_A_SECOND", 10)
        self.open()
        clients = [self.joined(n, host=n) for n in range(1, 6)]  # 5 players: every 0.5 s
        times: dict[int, list[float]] = {client.session_id: [] for client in clients}
        for sequence in range(1, 300):
            for client in clients:
                client.move(sequence, 1.0)
                client.ping(sequence)
            self.advance(0.01)
            for client in clients:
                for _ in client.receipts():
                    times[client.session_id].append(self.stepped.reactor.seconds())
        for seen in times.values():
            gaps = [after - before for before, after in pairwise(seen)]
            self.assertGreaterEqual(min(gaps), 0.5 - 1e-9)
            self.assertGreater(len(seen), 3)

    def test_spread_over_time(self) -> None:
        """With 1,000 players moving at once no tick sends more than its share, and none waits long.

        A tick of 20 ms has a fifth of the period of 100 ms, and so at most 200 receipts.
        """
        self.open()
        clients = [self.joined(n) for n in range(1, 1001)]
        self.idle(0.2)
        self.port.take()
        for client in clients:
            client.move(1, 1.0)
        seen: set[bytes] = set()
        for _ in range(10):
            self.stepped.reactor.advance(0.02)
            sent = [datagram[:8] for datagram, _ in self.port.take()]
            self.assertLessEqual(len(sent), 200)
            self.assertEqual(len(set(sent) - seen), len(sent))
            seen.update(sent)
        self.assertEqual(len(seen), 1000)

    def test_everybody_in_turn(self) -> None:
        """With all of them moving all the time, each gets a receipt within two periods."""
        self.open()
        clients = [self.joined(n) for n in range(1, 301)]
        last = {client.session_id: 0.0 for client in clients}
        for turn in range(1, 31):
            for client in clients:
                client.move(turn, 1.0)
            self.stepped.reactor.advance(0.02)
            now = self.stepped.reactor.seconds()
            for datagram, _ in self.port.take():
                last[struct.unpack_from("<Q", datagram)[0]] = now
            for seen in last.values():
                self.assertLessEqual(now - seen, 0.2 + 1e-9)

    def test_late_ticks(self) -> None:
        """Where a busy reactor's ticks come late, so do receipts, but nobody's more than most."""
        self.open()
        clients = [self.joined(n) for n in range(1, 101)]
        counts = dict.fromkeys(range(1, 101), 0)
        self.idle(0.2)
        self.port.take()
        for turn in range(1, 101):
            for client in clients:
                client.move(turn, 1.0)
            self.stepped.reactor.advance(0.05)
            for datagram, _ in self.port.take():
                counts[struct.unpack_from("<Q", datagram)[0]] += 1
        self.assertLessEqual(max(counts.values()) - min(counts.values()), 1)
        self.assertGreaterEqual(min(counts.values()), 19)

    def test_after_most_have_left(self) -> None:
        """Those who stay get their receipts in time while all others leave at once."""
        self.open()
        clients = [self.joined(n) for n in range(1, 301)]
        for client in clients:
            client.move(1, 1.0)
        self.idle(0.2)
        for client in clients[:-1]:
            client.leave(1)
        self.advance(0.1)
        self.port.take()
        clients[-1].move(2, 2.0)
        self.advance(0.2)
        self.assertEqual(clients[-1].receipts(), [(2, 0)])

    def test_jitter(self) -> None:
        """The first receipt's time within the period is spread by chance."""
        for jitter, after in ((0.0, 0.1), (1.0, 0.02)):
            self.open(jitter=jitter)
            client = self.joined()
            client.move(1, 1.0)
            while not client.heard():
                self.idle(0.01)
            self.assertApproximates(self.stepped.reactor.seconds(), after, 0.021)
            self.port.stopListening()

    def test_ping(self) -> None:
        """A PING is answered with the numbers of now, also where nothing has changed."""
        self.open()
        client = self.joined(sequence=3)
        self.idle(0.5)
        self.assertEqual(client.heard(), [])
        client.ping(3)
        self.assertEqual(client.heard(), [(RECEIPT, 3, 3)])
        client.move(4, 1.0)
        self.idle(0.3)
        self.assertEqual(client.heard(), [(RECEIPT, 4, 3)])
        client.ping(4)
        self.idle(0.1)
        self.assertEqual(client.heard(), [(RECEIPT, 4, 3)])
        self.assertEqual(self.books.received, 1)

    def test_many_pings(self) -> None:
        """PINGs within 100 ms of a receipt are answered by one, when its time has come."""
        self.open()
        client = self.joined()
        self.idle(0.5)
        for _ in range(20):
            client.ping(0)
        self.assertEqual(client.heard(), [(RECEIPT, 0, 0)])
        self.idle(0.13)
        self.assertEqual(client.heard(), [(RECEIPT, 0, 0)])
        self.idle(1.0)
        self.assertEqual(client.heard(), [])

    def test_old_ping(self) -> None:
        """A PING or LEAVE below the conversation's first number is stale."""
        self.open()
        client = self.joined(sequence=10)
        client.ping(9)
        client.leave(9)
        self.idle(0.2)
        self.assertEqual(client.heard(), [])
        self.assertEqual((self.books.received, self.books.stale), (2, 2))
        self.assertEqual(self.books.players_leaving, 0)
        self.assertEqual(self.books.players_online, 1)


class LeaveTests(GatewayTestCase):
    """LEAVE."""

    def test_answered_twice(self) -> None:
        """It is answered at once, and again when the state is saved, which is soon."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
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
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(3)
        client.move(2, 2.0)
        client.move(4, 4.0)
        self.idle(0.05)
        client.move(3, 3.0)
        client.move(2, 2.0)
        self.assertEqual(self.service.progress(42).applied, 3)
        self.assertEqual(self.books.refused, {"leaving": 1})
        self.assertEqual(self.books.stale, 1)
        client.heard()
        self.advance(4.0)
        self.assertEqual(client.receipts()[-1], (3, 3))
        self.assertEqual(self.stored(self.stepped), {42: (3.0, 0.0)})
        client.move(3, 9.0)
        self.assertEqual(self.books.refused, {"leaving": 1, "not_joined": 1})

    def test_below_what_was_applied(self) -> None:
        """A LEAVE of an older number than was applied lets nothing more in."""
        self.open()
        client = self.joined()
        client.move(5, 5.0)
        client.leave(3)
        client.move(4, 4.0)
        client.move(6, 6.0)
        self.assertEqual(self.service.progress(42).applied, 5)
        self.assertEqual(self.books.refused, {"leaving": 2})

    def test_repeated_while_leaving(self) -> None:
        """A LEAVE repeated before the save is answered, as often as receipts are sent."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
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
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
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
        self.assertEqual((other.heard(), self.books.refused), ([], {"other_address": 2}))
        client.ping(0)
        self.assertEqual((client.heard(), self.books.stale), ([], 1))
        client.move(3, 1.0)
        self.assertEqual(self.books.refused["not_joined"], 1)
        self.advance(0.2)
        client.leave(2)
        client.ping(2)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.refused["not_joined"], 3)

    def test_receipts_are_counted(self) -> None:
        """Each that is sent is counted: at the LEAVE, when it is saved, and again when asked."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
        self.advance(0.2)
        client.leave(1)
        receipts = client.receipts()
        self.assertEqual(receipts[-2:], [(1, 1)] * 2)
        self.assertEqual(self.books.receipts, len(receipts))

    def test_old_join(self) -> None:
        """A duplicate of the JOIN of a conversation that is over is stale, and revives nothing."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
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
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
        self.advance(0.1)
        client.heard()
        client.join(2, sequence=1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 2, NOW, 1.0, 0.0)])
        self.advance(6.0)
        client.move(2, 2.0)
        self.assertEqual(self.service.state(42), at(2))

    def test_joins_again_before_the_save(self) -> None:
        """Invariant 9: a JOIN between the LEAVE and its save finds the newest state and stays."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
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
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
        client.heard()
        client.join(1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, NOW, 1.0, 0.0)])
        self.advance(0.1)
        self.assertEqual(self.service.table.slots, {})

    def test_guarded(self) -> None:
        """Invariant 4: where the store holds something newer, the leave is never called saved."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        self.stepped.store.players[42] = Stored((9.0, 9.0), NOW * 2)
        client.leave(1)
        self.advance(0.1)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 0), (GONE, 1, KICKED)])
        self.assertEqual(self.service.table.slots, {})
        client.leave(1)
        self.assertEqual(self.books.refused, {"not_joined": 1})

    def test_guarded_and_back(self) -> None:
        """Who came back before the row was left out is not told that the new conversation ended."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
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
        self.assertEqual((self.books.set_aside, self.books.pending), (1, 0))
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


class IdleTests(GatewayTestCase):
    """Players who fall silent."""

    def test_evicted(self) -> None:
        """Who says nothing for `idle_timeout` is told, taken offline, and saved."""
        self.open(idle_timeout=2.0)
        client = self.joined()
        client.move(1, 1.0)
        self.advance(1.9)
        self.assertNotIn(GONE, [answer[0] for answer in client.heard()])
        self.advance(1.2)
        self.assertIn((GONE, 1, IDLE), client.heard())
        self.advance(0.1)
        self.assertEqual(self.service.table.slots, {})
        self.assertEqual(self.stored(self.stepped), {42: (1.0, 0.0)})
        client.move(2, 1.0)
        self.assertEqual(self.books.refused, {"not_joined": 1})

    def test_stay_awake(self) -> None:
        """Moves, stale ones too, and pings are words of the player; refused ones are not."""
        self.open(idle_timeout=1.0)
        mover, repeater, pinger = (self.joined(n, host=n) for n in (1, 2, 3))
        impostor = Client(self.port, 4, ("192.0.2.9", 9))
        self.joined(4, host=4)
        for sequence in range(1, 7):
            mover.move(sequence, 1.0)
            repeater.move(0, 1.0)
            pinger.ping(0)
            impostor.move(sequence, 1.0)
            self.advance(0.5)
        self.assertEqual(sorted(self.service.table.slots), [1, 2, 3])

    def test_joins_again(self) -> None:
        """Who was evicted may join again, with the same nonce too, and stands where they stood."""
        self.open(idle_timeout=0.5)
        client = self.joined()
        client.move(1, 1.0)
        self.advance(1.0)
        client.heard()
        client.join(1, sequence=1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, NOW, 1.0, 0.0)])

    def test_stood_still(self) -> None:
        """A process that was stopped reads what waits before it judges silence, and then does."""
        self.open(idle_timeout=2.0)
        client, silent = self.joined(), self.joined(43, host=9)
        for _ in range(3):
            self.advance(1.9)
            self.stepped.reactor.advance(60.0)
            self.assertEqual(sorted(self.service.table.slots), [42, 43])
            client.ping(0)
            silent.ping(0)
        self.advance(1.0)
        client.ping(0)
        self.advance(1.5)
        self.assertEqual(list(self.service.table.slots), [42])

    def test_silence_while_stood_still(self) -> None:
        """The time for which a process stood still is nobody's silence; that before it is."""
        self.open(idle_timeout=2.0)
        self.joined()
        self.advance(1.0)
        self.stepped.reactor.advance(60.0)
        self.advance(0.7)
        self.assertEqual(list(self.service.table.slots), [42])
        self.advance(1.5)
        self.assertEqual(list(self.service.table.slots), [])

    def test_storm(self) -> None:
        """A player who joins, moves and leaves again and again is waited for once."""
        self.open()
        client = self.joined()
        for turn in range(1, 50):
            client.move(turn, 1.0)
            client.leave(turn)
            client.join(turn + 1, sequence=turn)
        waiting = [len(each.waiters) for each in self.service._leaves.by_slot.values()]
        self.assertLessEqual(sum(waiting), 1)
        self.assertLessEqual(len(self.gateway._leaving), 1)

    def test_not_while_leaving(self) -> None:
        """Who has left and waits for the save is not idle."""
        self.open(idle_timeout=0.5)
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
        self.idle(3.0)
        self.assertNotIn(GONE, [answer[0] for answer in client.heard()])
        self.stepped.settle()
        self.assertEqual(client.heard(), [(RECEIPT, 1, 1)])

    def test_not_saved(self) -> None:
        """An eviction whose row the store leaves out is told of in the log alone."""
        self.open(idle_timeout=0.5)
        client = self.joined()
        client.move(1, 1.0)
        self.stepped.store.players[42] = Stored((9.0, 9.0), NOW * 2)
        self.advance(3.0)
        self.assertEqual([a for a in client.heard() if a[0] == GONE], [(GONE, 1, IDLE)])
        self.assertEqual(self.service.table.slots, {})

    def test_timeout_range(self) -> None:
        """The timeout is from 0.1 s to a day."""
        service = PlayerStateService(FaultyStore(SCHEMA))
        for idle_timeout in (0.09, 86_401.0, float("nan")):
            with self.assertRaisesRegex(ValueError, "idle_timeout"):
                Gateway(service, idle_timeout=idle_timeout)


class ProgramTests(GatewayTestCase):
    """The program that embeds the service takes a hand."""

    def test_kick(self) -> None:
        """Who is kicked is told, taken offline, and saved."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        kicked = self.gateway.kick(42)
        self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
        self.waits(kicked)
        client.move(2, 2.0)
        self.advance(0.1)
        self.assertEqual(self.successResultOf(kicked).applied, 1)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.books.refused, {"not_joined": 1})
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
        self.assertEqual(self.books.refused, {"not_joined": 1})

    def test_kick_nobody(self) -> None:
        """Kicking needs somebody online, with a conversation or without one."""
        self.open()
        self.failureResultOf(self.gateway.kick(42), NotOnline)
        self.stepped.join(42)
        self.successResultOf(self.gateway.kick(42))

    def test_taken_offline(self) -> None:
        """A player whom the program takes offline is told at the next word, whichever it is."""
        for word in (Client.move, Client.ping, Client.leave):
            self.open()
            client = self.joined()
            self.successResultOf(self.service.leave(42))
            word(client, 1, *((1.0,) if word is Client.move else ()))
            self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
            self.assertEqual(self.books.refused, {"not_joined": 1})
            client.ping(1)
            self.assertEqual(client.heard(), [])
            self.port.stopListening()

    def test_taken_offline_while_moving(self) -> None:
        """Who was moving is told when the state is saved."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        left = self.service.leave(42)
        self.advance(0.3)
        self.successResultOf(left)
        self.assertEqual(client.heard()[-1], (GONE, 1, KICKED))

    def test_taken_offline_and_idle(self) -> None:
        """Who says nothing more is forgotten as idle."""
        self.open(idle_timeout=1.0)
        client = self.joined()
        self.successResultOf(self.service.leave(42))
        self.advance(2.5)
        self.assertEqual(client.heard(), [(GONE, 1, IDLE)])

    def test_taken_offline_brought_back_and_idle(self) -> None:
        """The idle end of a conversation leaves a player alone whom the program brought back."""
        self.open(idle_timeout=1.0)
        client = self.joined()
        self.successResultOf(self.service.leave(42))
        self.stepped.join(7)
        self.stepped.join(42)
        self.advance(2.5)
        self.assertEqual(client.heard(), [(GONE, 1, IDLE)])
        self.assertEqual(self.service.state(42), at(350, 200))

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
        """Invariant 11: a conversation whose slot was given to another player is over, and told."""
        self.open(max_players=2)
        client = self.joined(1, host=1)
        self.successResultOf(self.service.leave(1))
        other = self.joined(2, host=2)
        self.assertEqual(client.heard(), [(GONE, 1, KICKED)])
        other.move(1, 1.0)
        self.idle(0.2)
        self.assertEqual(other.heard(), [(RECEIPT, 1, 0)])
        client.move(1, 1.0)
        self.assertEqual(client.heard(), [])
        self.assertEqual(self.service.state(2), at(1))

    def test_slot_given_to_another_without_conversation(self) -> None:
        """Moves of a player in the slot who has no conversation go to nobody's receipts."""
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


class CloseTests(GatewayTestCase):
    """The transport stops, with the service or before it."""

    def stop(self) -> Any:
        """Stop both, in the order of a `MultiService`: the last started first."""
        closed = self.plain.stopService()
        return closed, self.service.stopService()

    def test_last_receipts(self) -> None:
        """Everybody is saved, gets a last receipt and word that the server stops."""
        self.open()
        mover, still = self.joined(1, host=1), self.joined(2, host=2, sequence=5)
        mover.move(1, 1.0)
        closed, stopped = self.stop()
        self.waits(closed, stopped)
        self.assertEqual(still.heard(), [(RECEIPT, 5, 5), (GONE, 1, CLOSED)])
        self.assertEqual(mover.heard(), [])
        self.assertIn(7777, self.stepped.reactor.ports)
        self.stepped.settle()
        self.assertEqual(mover.heard(), [(RECEIPT, 1, 1), (GONE, 1, CLOSED)])
        self.successResultOf(closed)
        self.assertEqual(self.stepped.reactor.ports, {})
        self.stepped.thread.run()
        self.stepped.reactor.deliver()
        self.successResultOf(stopped)
        self.assertEqual(self.stepped.reactor.getDelayedCalls(), [])

    def test_leaving_already(self) -> None:
        """The port stays open for the last receipt of who was leaving when the stop began."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
        client.heard()
        closed, _ = self.stop()
        self.waits(closed)
        self.assertIn(7777, self.stepped.reactor.ports)
        self.stepped.settle()
        self.assertEqual(client.heard(), [(RECEIPT, 1, 1), (GONE, 1, CLOSED)])
        self.successResultOf(closed)

    def test_not_saved(self) -> None:
        """Who could not be saved gets no receipt, only word that the server stops."""
        self.open(stop_within=1.0)
        client = self.joined()
        client.move(1, 1.0)
        closed, _ = self.stop()
        self.stepped.reactor.advance(1.0)
        self.assertEqual(client.heard()[-1], (GONE, 1, CLOSED))
        self.assertNotIn((RECEIPT, 1, 1), client.heard())
        self.successResultOf(closed)

    def test_service_stopped_before(self) -> None:
        """A transport that stops after the service tells everybody all the same."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        self.successResultOf(self.stepped.stop())
        client.heard()
        self.successResultOf(self.plain.stopService())
        self.assertEqual(client.heard(), [(GONE, 1, CLOSED)])

    def test_moves_go_on(self) -> None:
        """With the transport alone stopping, players who go on moving do not hold it up."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        closed = self.plain.stopService()
        for sequence in range(2, 100):
            self.stepped.reactor.advance(0.03)
            if not closed.called:
                client.move(sequence, float(sequence))
            self.stepped.step()
        self.successResultOf(closed)
        self.assertEqual(client.heard()[-2:], [(RECEIPT, 1, 1), (GONE, 1, CLOSED)])
        self.assertGreater(self.books.refused["leaving"], 0)
        self.successResultOf(self.stepped.stop())

    def test_again(self) -> None:
        """Stopped and started again, a server knows its players and no conversation."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        closed = self.plain.stopService()
        self.successResultOf(self.stepped.stop())
        self.successResultOf(closed)
        self.service.startService()
        self.plain.startService()
        client.port = self.port = self.stepped.reactor.ports[7777]
        self.addCleanup(self.port.stopListening)
        client.move(2, 2.0)
        client.join(1, sequence=1)
        self.assertEqual(client.heard(), [(WELCOME, 1, 1, NOW, 1.0, 0.0)])


class RandomDatagramTests(GatewayTestCase):
    """Anything at all, from anywhere."""

    def datagram(self, choice: random.Random, valid: list[bytes]) -> bytes:
        """A random datagram: noise, or a message that is changed a little."""
        if choice.random() < 0.4:
            return choice.randbytes(choice.choice((0, 1, 7, 8, 9, 13, 17, 29, 38, 60, 1300)))
        datagram = bytearray(choice.choice(valid))
        for _ in range(choice.randint(1, 3)):
            datagram[choice.randrange(len(datagram))] = choice.randrange(256)
        return bytes(datagram[: choice.choice((len(datagram), choice.randrange(1, 40)))])

    def test_nobody_is_moved(self) -> None:
        """100,000 datagrams from other addresses change no player, and fill no log."""
        self.open(max_players=8)
        clients = [self.joined(n, host=n) for n in range(1, 6)]
        for client in clients:
            client.move(1, float(client.session_id))
        choice = random.Random(1)
        valid = [struct.pack("<QBIdd", n, 2, 7, 9.0, 9.0) for n in range(1, 6)] + [
            struct.pack("<QBI", n, kind, 1) for n in range(1, 6) for kind in (3, 4)
        ]
        lines = len(self.told())
        for _ in range(100_000):
            address = (f"198.51.100.{choice.randrange(256)}", choice.randrange(1, 65536))
            self.port.receive(self.datagram(choice, valid), address)
        self.assertLessEqual(len(self.told()) - lines, 1)
        for client in clients:
            self.assertEqual(self.service.state(client.session_id), at(client.session_id))
            self.assertEqual(self.service.progress(client.session_id).applied, 1)
        answers = [answer[12] for answer, _ in self.port.take()]
        self.assertEqual(set(answers), {0x83})  # to JOINs of other versions of the protocol
        self.assertEqual(self.books.received, 5 + 100_000 - len(answers))
        self.assertEqual(self.books.joins, 5)

    def test_from_a_player(self) -> None:
        """Noise from a player's own address never makes more than their own state of it."""
        self.open(max_players=8)
        client, other = self.joined(1, host=1), self.joined(2, host=2)
        other.move(1, 2.0)
        choice = random.Random(2)
        valid = [
            struct.pack("<QIBBIIIQ", 1, 1, 1, 1, 0, 1, 0, 0).ljust(116, b"\0"),
            struct.pack("<QBIdd", 1, 2, 7, 9.0, 9.0),
            struct.pack("<QBI", 1, 3, 1),
            struct.pack("<QBI", 1, 4, 1),
        ]
        for turn in range(5_000):
            self.port.receive(self.datagram(choice, valid), client.address)
            if turn % 50 == 0:
                self.stepped.reactor.advance(0.1)
                self.stepped.settle()
                other.move(turn + 2, 2.0)
                self.assertEqual(self.books.imbalance(), [])
        self.assertEqual(self.service.state(2), at(2))
        self.assertEqual(self.told(level=LogLevel.critical), [])
        self.successResultOf(self.stepped.stop())


class FailureTests(GatewayTestCase):
    """What must not be taken for an ordinary failure."""

    def test_other_failures_are_loud(self) -> None:
        """A leave that fails by anything but `NotSaved` and `NotOnline` is logged as an error."""
        self.open()
        client = self.joined()
        self.patch(self.service, "leave", lambda session_id, last: fail(ZeroDivisionError()))
        client.leave(0)
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
