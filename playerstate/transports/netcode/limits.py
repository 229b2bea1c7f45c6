"""Rate limits: token buckets, in a fixed amount of memory."""

from __future__ import annotations

from array import array

import attrs


@attrs.frozen
class Rate:
    """A sustained rate and a burst.

    Attributes:
        per_second: the sustained rate, above 0.
        burst: how many may come at once after a pause; at least 1.
    """

    per_second: float
    burst: int

    @property
    def interval(self) -> float:
        """Seconds from one to the next at the sustained rate."""
        return 1.0 / self.per_second

    @property
    def patience(self) -> float:
        """Seconds by which one may come early, plus a microsecond for rounding errors."""
        return (self.burst - 1) / self.per_second + 1e-6


class Buckets:
    """An array of token buckets, each stored as a single number.

    A bucket is stored as the time at which it will be full again (the generic cell rate algorithm
    of ITU-T I.371): each take moves that time on by its cost, and a take is refused while that time
    lies too far ahead.

    Args:
        rate: of each bucket.
        size: the number of buckets.
    """

    def __init__(self, rate: Rate, size: int = 1) -> None:
        self._interval = rate.interval
        self._patience = rate.patience
        self._full_at = array("d", [float("-inf")]) * size

    def has(self, now: float, index: int = 0) -> bool:
        """Whether `take` would succeed."""
        return self._full_at[index] - now <= self._patience

    def take(self, now: float, index: int = 0) -> bool:
        """Take one from a bucket; return whether there was one."""
        full_at = max(self._full_at[index], now)
        if full_at - now > self._patience:
            return False
        self._full_at[index] = full_at + self._interval
        return True


class SourceBuckets:
    """A bucket for each network that datagrams come from, in memory that does not grow.

    Networks are spread over a fixed number of buckets by a keyed hash, which a sender cannot
    compute.  Two networks with the same bucket share it: this is the price for handling millions of
    spoofed sources without storing any.

    Args:
        rate: of each bucket.
        size: the number of buckets.
        secret: random bytes.
    """

    def __init__(self, rate: Rate, size: int, secret: bytes) -> None:
        self._buckets = Buckets(rate, size)
        self._size = size
        self._secret = secret

    def take(self, now: float, network: bytes) -> bool:
        """Take one from a network's bucket; return whether there was one."""
        return self._buckets.take(now, hash(self._secret + network) % self._size)
