"""Strangers' datagrams wait in queues of their networks and ports, which take turns."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports import strangers
from playerstate.transports.strangers import Strangers


class StrangersTests(SynchronousTestCase):
    """The queues."""

    def test_turns(self) -> None:
        """A long queue delays no other: each network has its turn, and in it each port."""
        self.patch(strangers, "NETWORKS", 2**40)  # so that none share a queue by chance
        waiting = Strangers(b"secret")
        waiting.put([("192.0.2.1", 1)] * 900, [b"flood"] * 900)
        others = [("192.0.2.2", 1), ("192.0.2.3", 1)]
        self.assertEqual(waiting.put(others, [b"other"] * 2), 0)
        taken = [waiting.take() for _ in range(6)]
        self.assertLess({(other, b"other") for other in others}, set(taken))

    def test_beside_many(self) -> None:
        """A datagram is never dropped for those of many ports of another network beside it."""
        for number in range(50):
            waiting = Strangers(bytes([number]))
            flood = [("192.0.2.1", port) for port in range(127)]
            flood.insert(number, ("192.0.2.2", 1))
            dropped = waiting.put(flood, [b"datagram"] * 128)
            taken = []
            while waiting:
                taken.append(waiting.take()[0])
            self.assertIn(("192.0.2.2", 1), taken)
            self.assertEqual(dropped, 128 - len(taken))
            self.assertLessEqual(len(taken), strangers.SOURCES_AT_ONCE)

    def test_by_chance(self) -> None:
        """Of too many networks some are drawn at random, whatever the order of arrival."""
        drawn = set()
        for number in range(50):
            waiting = Strangers(bytes([number]))
            waiting.put([(f"192.0.2.{host}", 1) for host in range(128)], [b"datagram"] * 128)
            while waiting:
                drawn.add(waiting.take()[0])
        self.assertGreater(len(drawn), 100)

    def test_bound(self) -> None:
        """The number of waiting datagrams is bounded, from one source and from all."""
        waiting = Strangers()
        dropped = waiting.put([("192.0.2.1", 1)] * 5_000, [b"datagram"] * 5_000)
        self.assertEqual(5_000 - dropped, strangers.ROOM)
        for number in range(50_000):
            source = (f"10.{number >> 8 & 255}.{number & 255}.1", number & 65_535)
            waiting.put([source] * 8, [b"datagram"] * 8)
        count = 0
        while waiting:
            waiting.take()
            count += 1
        self.assertLessEqual(count, 12 * strangers.ROOM)

    def test_secret(self) -> None:
        """Which sources share a queue depends on the secret."""

        def order(secret: bytes) -> list[str]:
            waiting = Strangers(secret)
            for number in range(64):
                waiting.put([(f"192.0.2.{number}", 1)], [b"datagram"])
            return [waiting.take()[0][0] for _ in range(40)]

        self.assertEqual(order(b"a"), order(b"a"))
        self.assertGreater(len({tuple(order(bytes([number]))) for number in range(8)}), 1)
