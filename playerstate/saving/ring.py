"""A bounded lock-free ring of rows between one producer thread and one consumer thread.

Theory of operation.  `write` and `read` count the rows ever pushed and ever taken; they only grow.
Row number ``n`` lies in place ``n % capacity``.  Two rules make the ring safe without a lock:

- Each cursor has one writer: `write` belongs to the producer, `read` to the consumer.  The other
  thread only reads it, and may see an older value, which errs on the safe side: a producer sees
  less room than there is, a consumer fewer rows.
- The data moves before the cursor that publishes it.  The producer writes rows at or above `write`
  and below ``read + capacity``, then raises `write`; the consumer copies rows at or above `read`
  and below `write`, then raises `read`.  So a place is never read before it is fully written, and
  never overwritten before it was copied.

The second rule needs the stores of the data to be visible before the store of the cursor.  With
a GIL, a thread holds it while it stores or loads a cursor, and acquiring it orders all that the
previous holder did before; in the free-threaded build, CPython stores an attribute with release and
loads it with acquire semantics.  The docs give the whole argument.

=========== ================ ==================================== =========================
call        thread           full                                 empty
=========== ================ ==================================== =========================
`push`      producer         pushes what fits, returns how many   pushes
`take`      consumer         takes                                returns no rows
`depth`     any              `capacity`                           0
=========== ================ ==================================== =========================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
Indices = npt.NDArray[np.intp]


class Ring:
    """A ring of `capacity` rows of one dtype.

    Args:
        capacity: rows it can hold; a power of two.
        dtype: the row's type.

    Raises:
        ValueError: the capacity is not a power of two.
    """

    __slots__ = ("_places", "capacity", "dtype", "read", "write")

    def __init__(self, capacity: int, dtype: np.dtype[Any]) -> None:
        if capacity < 1 or capacity & (capacity - 1):
            raise ValueError(f"ring capacity {capacity} is not a power of two")
        self.capacity = capacity
        self.dtype = dtype
        self._places = np.empty(capacity, np.dtype(f"V{dtype.itemsize}"))
        # Written once, so that the system allocates every page before the first row is pushed.
        self._places.view(np.uint8).fill(0)
        self.write = 0
        self.read = 0

    @property
    def depth(self) -> int:
        """Rows pushed and not yet taken.

        The other thread may move a cursor between the two loads: `read` is loaded first, so that
        the result is never below 0, and it is limited to `capacity`.
        """
        read = self.read
        return min(self.write - read, self.capacity)

    def push(self, rows: Rows, indices: Indices) -> int:
        """Push as many of ``rows[indices]`` as fit, in that order; return how many that was.

        One vectorised gather (two where it wraps) straight into the ring.  Producer only.
        """
        write = self.write
        count = min(len(indices), self.capacity - (write - self.read))
        start = write % self.capacity
        first = min(count, self.capacity - start)
        source = rows.view(self._places.dtype)
        # With mode="clip" numpy writes into `out` directly; the default mode buffers the result.
        source.take(indices[:first], out=self._places[start : start + first], mode="clip")
        if first < count:
            source.take(indices[first:count], out=self._places[: count - first], mode="clip")
        self.write = write + count
        return count

    def take(self) -> Rows:
        """Take all rows, oldest first, as an array that the caller owns.

        Consumer only.
        """
        read = self.read
        count = self.write - read
        start = read % self.capacity
        # Copying slices would hold the GIL for as long as the system takes to allocate the memory.
        taken = np.take(self._places, np.arange(start, start + count), mode="wrap")
        self.read = read + count
        return taken.view(self.dtype)
