"""RECEIPTs: when they come, and what they say."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

from playerstate import StoreBusy
from playerstate.conversations import pace
from tests.kit.players import (
    RECEIPT,
    FragileStore,
    GatewayTestCase,
    die,
    look_after,
)


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
        self.patch(pace, "SENDS_A_SECOND", 10)
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
