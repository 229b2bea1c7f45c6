"""Token buckets: rates, bursts, and their bounded memory."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from playerstate.transports.netcode.limits import Buckets, Rate, SourceBuckets


class BucketTests(SynchronousTestCase):
    """Token buckets."""

    def test_rate(self) -> None:
        """A burst at once, then the sustained rate, and after a pause the burst again."""
        buckets = Buckets(Rate(10.0, 5))
        taken = [buckets.take(0.0) for _ in range(7)]
        self.assertEqual(taken, [True] * 5 + [False] * 2)
        # 100 a second ask for 10 seconds.
        passed = sum(buckets.take(0.01 * n) for n in range(1, 1001))
        self.assertIn(passed, (99, 100, 101))
        self.assertEqual([buckets.take(60.0) for _ in range(6)], [True] * 5 + [False])

    def test_one_apart(self) -> None:
        """With a burst of one each must keep its distance; a refused one costs nothing."""
        buckets = Buckets(Rate(4.0, 1))
        taken = [buckets.take(now) for now in (0.0, 0.125, 0.25, 0.375, 0.5)]
        self.assertEqual(taken, [True, False, True, False, True])

    def test_sources(self) -> None:
        """One network does not use up another's bucket, and no number of them needs more memory."""
        buckets = SourceBuckets(Rate(1.0, 2), 64, b"secret")
        self.assertEqual([buckets.take(0.0, b"AAAA") for _ in range(3)], [True, True, False])
        others = [struct.pack("<I", n) for n in range(200)]
        self.assertGreater(sum(buckets.take(0.0, other) for other in others), 60)
        self.assertEqual(len(buckets._buckets._full_at), 64)

    def test_secret(self) -> None:
        """Which networks share a bucket depends on the secret."""

        def shared(secret: bytes) -> list[bool]:
            buckets = SourceBuckets(Rate(1.0, 1), 8, secret)
            return [buckets.take(0.0, struct.pack("<I", n)) for n in range(64)]

        self.assertEqual(shared(b"one"), shared(b"one"))
        self.assertNotEqual(shared(b"one"), shared(b"two"))
