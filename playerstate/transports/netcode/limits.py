"""How much of something is let through: token buckets of a fixed size in memory."""

from __future__ import annotations

from array import array

import attrs


@attrs.frozen
class Rate:
    """So many a second in the long run, and so many at once.

    Attributes:
        per_second: above 0.
        burst: how many may come at once after a rest; at least 1.
    """

    per_second: float
    burst: int

    @property
    def interval(self) -> float:
        """Seconds that each one costs."""
        return 1.0 / self.per_second

    @property
    def patience(self) -> float:
        """Seconds by which one may come before its turn, and a microsecond for sums that round."""
        return (self.burst - 1) / self.per_second + 1e-6


class Buckets:
    """A number of token buckets, side by side, each a single number.

    A bucket is kept as the time at which it will be full again (the generic cell rate algorithm of
    ITU-T I.371): what comes puts that off by its cost, and is refused while it lies too far ahead.

    Args:
        rate: of each of them.
        size: how many there are.
    """

    def __init__(self, rate: Rate, size: int = 1) -> None:
        self._interval = rate.interval
        self._patience = rate.patience
        self._full_at = array("d", [float("-inf")]) * size

    def has(self, now: float, index: int = 0) -> bool:
        """Whether `take` would find one."""
        return self._full_at[index] - now <= self._patience

    def take(self, now: float, index: int = 0) -> bool:
        """Take one from a bucket, or nothing; whether there was one."""
        full_at = max(self._full_at[index], now)
        if full_at - now > self._patience:
            return False
        self._full_at[index] = full_at + self._interval
        return True


class SourceBuckets:
    """A bucket for each network that datagrams come from, in memory that does not grow.

    Networks are spread over a fixed number of buckets, by a hash that nobody outside can compute.
    Two that fall on one bucket share it: that is the price for taking spoofed sources by the
    million without remembering any.

    Args:
        rate: of each of them.
        size: how many there are.
        secret: random bytes.
    """

    def __init__(self, rate: Rate, size: int, secret: bytes) -> None:
        self._buckets = Buckets(rate, size)
        self._size = size
        self._secret = secret

    def take(self, now: float, network: bytes) -> bool:
        """Take one from a network's bucket, or nothing; whether there was one."""
        return self._buckets.take(now, hash(self._secret + network) % self._size)
