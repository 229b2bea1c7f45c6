"""The gateway: what reaches it, and its close."""

from __future__ import annotations

import random
import struct
from typing import Any
from unittest.mock import Mock

from twisted.logger import LogLevel

from playerstate import NotRunning, PlayerStateService
from playerstate.conversations.gateway import Gateway
from playerstate.testing import EPOCH, FaultyStore
from tests.kit.players import (
    GONE,
    OVERRIDDEN,
    RECEIPT,
    RESTORED,
    SCHEMA,
    STATE,
    WELCOME,
    GatewayTestCase,
    at,
)

KICKED, IDLE, ELSEWHERE, CLOSED = range(1, 5)
NOW = EPOCH * 10**6


class NotRunningTests(GatewayTestCase):
    """Before the start, and after the close."""

    def test_messages_are_refused(self) -> None:
        """They are counted and not answered, whatever they are; the books balance."""
        self.open()
        self.successResultOf(self.gateway.close())
        gateway = Gateway(self.service)
        for each in (self.gateway, gateway):
            each.received_many(Mock(), [42, 42], ["here"] * 2, [b"\x02", b"?"], 0)
            each.malformed("too_short")
            each.lost(42, "here")
        self.assertEqual(self.books.rejected, {"stopping": 4})
        self.assertEqual(self.books.malformed, {"too_short": 2})
        self.assertEqual(self.books.imbalance(), [])

    def test_start_of_a_service_that_is_not(self) -> None:
        """The error says that the service was never started."""
        gateway = Gateway(PlayerStateService(FaultyStore(SCHEMA)))
        self.assertRaises(NotRunning, gateway.start)
        self.failureResultOf(gateway.kick(42), NotRunning)
        self.successResultOf(gateway.close())


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

    def test_amid_the_leaves_of_a_commit(self) -> None:
        """Who left, and is saved by then, is told that first by a close that another leave set off.

        Both leaves are settled by one commit; the first that is told closes the gateway.
        """
        self.open()
        clients = [self.joined(session_id, host=session_id) for session_id in (1, 2)]
        for client in clients:
            client.move(1, 1.0)
        closed: list[Any] = []
        self.service.leave(1).addCallback(lambda _: closed.append(self.plain.stopService()))
        clients[1].leave(1)
        clients[1].heard()
        self.advance(0.2)
        self.assertEqual(clients[1].heard(), [(RECEIPT, 1, 1), (GONE, 1, CLOSED)])
        self.successResultOf(closed[0])

    def test_brought_back_by_the_program(self) -> None:
        """Who left, and whom the program brought back, is the program's: the close leaves them."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(1)
        self.stepped.join(42)
        client.heard()
        closed = self.plain.stopService()
        self.advance(0.2)
        self.assertEqual(client.heard(), [(RECEIPT, 1, 1), (GONE, 1, CLOSED)])
        self.successResultOf(closed)
        self.assertEqual(self.service.state(42), at(1))

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
        self.assertGreater(self.books.rejected["leaving"], 0)
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
            struct.pack("<QIBBIIIQ", 1, 1, 1, 1, 0, 1, 0, 0).ljust(248, b"\0"),
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


class ChangeTests(GatewayTestCase):
    """Changes by the program, beside what else is under way."""

    def test_what_a_state_spends_is_spent(self) -> None:
        """A STATE and a RECEIPT are due in one tick, and one of them is paid for: the STATE."""
        self.open()
        client = self.joined()
        self.service.update(42, at(1.0))
        self.idle(2.0)
        self.assertEqual(len(client.states()), 3)
        self.stepped.reactor.advance(0.005)
        client.ping(0)
        self.assertEqual(client.receipts(), [(0, 0)])
        # The next RECEIPT is due in 2 ms, and the next tick in 17 ms.
        self.stepped.reactor.advance(0.098)
        client.ping(0)
        self.idle(1.0)
        self.assertEqual([answer[0] for answer in client.heard()], [STATE])

    def test_edit_of_one_who_leaves(self) -> None:
        """A move that was on its way does not undo it; the next WELCOME tells the player."""
        self.open()
        client = self.joined()
        client.move(1, 1.0)
        client.leave(2)
        edited = self.service.edit(42, x=50.0)
        client.move(2, 2.0)
        self.assertEqual(self.books.rejected, {"not_seen": 1})
        self.advance(0.1)
        self.successResultOf(edited)
        self.assertEqual(self.stored(self.stepped), {42: (50.0, 0.0)})
        client.join(2, 2)
        *_, welcome = client.heard()
        self.assertEqual((welcome[:2], welcome[4]), ((WELCOME, RESTORED | OVERRIDDEN), 50.0))
