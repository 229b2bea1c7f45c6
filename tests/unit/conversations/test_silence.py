"""Players who fall silent."""

from __future__ import annotations

from playerstate import PlayerStateService
from playerstate.conversations.gateway import Gateway
from playerstate.interfaces import Stored
from playerstate.testing import EPOCH, FaultyStore
from tests.kit.players import (
    GONE,
    RECEIPT,
    SCHEMA,
    WELCOME,
    Client,
    GatewayTestCase,
)

KICKED, IDLE, ELSEWHERE, CLOSED = range(1, 5)
NOW = EPOCH * 10**6


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
        self.assertEqual(self.books.rejected, {"not_joined": 1})

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
        waiting = [len(each.waiters) for each in self.service.run.leaves.by_slot.values()]
        self.assertLessEqual(sum(waiting), 1)

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
