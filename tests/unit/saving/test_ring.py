"""The ring between two threads: order, room, and rows that are whole (invariant 1)."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from playerstate.saving.ring import Ring
from tests.kit.support import LAW, PATIENCE

ROW = np.dtype([("number", "<u8"), ("body", "<u8", (7,))])
"""A row of 64 bytes, each of which follows from its number."""

SALT = np.arange(1, 8, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def rows(first: int, count: int) -> Any:
    """Rows numbered from `first`."""
    made = np.zeros(count, ROW)
    fill(made, first)
    return made


def fill(made: Any, first: int) -> None:
    """Number these rows from `first`."""
    numbers = np.arange(first, first + len(made), dtype=np.uint64)
    made["number"] = numbers
    made["body"] = numbers[:, np.newaxis] * SALT


def all_of(made: Any) -> Any:
    """Indices of all of them."""
    return np.arange(len(made))


def whole(taken: Any) -> bool:
    """Whether every byte of every row follows from its number."""
    return bool((taken["body"] == taken["number"][:, np.newaxis] * SALT).all())


class RingTests(SynchronousTestCase):
    """One ring in one thread."""

    def test_order(self) -> None:
        """Rows come out whole, in the order in which they went in."""
        ring = Ring(8, ROW)
        made = rows(10, 5)
        self.assertEqual(ring.push(made, np.array([3, 0, 4])), 3)
        self.assertEqual(ring.push(made, np.array([1])), 1)
        taken = ring.take()
        self.assertEqual(taken["number"].tolist(), [13, 10, 14, 11])
        self.assertTrue(whole(taken))

    def test_dtype(self) -> None:
        """What is taken has the ring's dtype."""
        ring = Ring(2, ROW)
        ring.push(rows(0, 1), np.array([0]))
        self.assertEqual(ring.take().dtype, ROW)
        self.assertEqual(ring.take().dtype, ROW)

    def test_empty(self) -> None:
        """An empty ring gives no rows and moves no cursor."""
        ring = Ring(4, ROW)
        self.assertEqual(len(ring.take()), 0)
        self.assertEqual((ring.read, ring.write, ring.depth), (0, 0, 0))

    def test_push_of_nothing(self) -> None:
        """A push of no rows pushes none, even from a table without rows."""
        ring = Ring(4, ROW)
        self.assertEqual(ring.push(rows(0, 0), np.array([], np.intp)), 0)
        self.assertEqual(ring.depth, 0)

    def test_full(self) -> None:
        """Invariant 2: a push that does not fit pushes the first rows that do."""
        ring = Ring(4, ROW)
        made = rows(0, 6)
        self.assertEqual(ring.push(made, all_of(made)), 4)
        self.assertEqual(ring.depth, 4)
        self.assertEqual(ring.push(made, np.array([5])), 0)
        self.assertEqual(ring.take()["number"].tolist(), [0, 1, 2, 3])

    def test_room_after_take(self) -> None:
        """Taking makes room for as many rows as were taken."""
        ring = Ring(4, ROW)
        made = rows(0, 6)
        ring.push(made, np.array([0, 1, 2]))
        ring.take()
        self.assertEqual(ring.push(made, np.array([3, 4, 5, 0, 1])), 4)
        self.assertEqual(ring.take()["number"].tolist(), [3, 4, 5, 0])

    def test_wraps(self) -> None:
        """A batch that goes over the end of the ring comes out in one piece."""
        ring = Ring(4, ROW)
        ring.push(rows(0, 3), np.array([0, 1, 2]))
        ring.take()
        made = rows(3, 4)
        self.assertEqual(ring.push(made, all_of(made)), 4)
        taken = ring.take()
        self.assertEqual(taken["number"].tolist(), [3, 4, 5, 6])
        self.assertTrue(whole(taken))

    def test_depth(self) -> None:
        """The depth is what was pushed and not yet taken."""
        ring = Ring(4, ROW)
        for expected in (1, 2, 3, 4, 4):
            ring.push(rows(0, 1), np.array([0]))
            self.assertEqual(ring.depth, expected)
        ring.take()
        self.assertEqual(ring.depth, 0)

    def test_depth_between_two_loads(self) -> None:
        """A depth taken while the other thread moves is never above the capacity."""
        ring = Ring(4, ROW)
        ring.read, ring.write = 0, 7
        self.assertEqual(ring.depth, 4)

    def test_cursors_only_grow(self) -> None:
        """The cursors count the rows ever pushed and ever taken."""
        ring = Ring(2, ROW)
        for turn in range(1, 6):
            ring.push(rows(0, 2), np.array([0, 1]))
            ring.take()
            self.assertEqual((ring.write, ring.read), (2 * turn, 2 * turn))

    def test_taken_rows_are_the_callers_own(self) -> None:
        """Rows that were taken do not change when their places are used again."""
        ring = Ring(2, ROW)
        ring.push(rows(0, 2), np.array([0, 1]))
        taken = ring.take()
        ring.push(rows(5, 2), np.array([0, 1]))
        self.assertEqual(taken["number"].tolist(), [0, 1])
        self.assertTrue(whole(taken))

    def test_pushed_rows_are_copied(self) -> None:
        """Rows in the ring do not change when the table does."""
        ring = Ring(2, ROW)
        made = rows(0, 2)
        ring.push(made, np.array([0, 1]))
        fill(made, 70)
        self.assertEqual(ring.take()["number"].tolist(), [0, 1])

    def test_capacity(self) -> None:
        """Only a power of two can be a capacity."""
        for capacity in (-1, 0, 3, 6, 100):
            error = self.assertRaises(ValueError, Ring, capacity, ROW)
            self.assertEqual(str(error), f"ring capacity {capacity} is not a power of two")
        for capacity in (1, 2, 1024):
            self.assertEqual(Ring(capacity, ROW).capacity, capacity)


class WatchedRing(Ring):
    """A ring that says when a cursor moves, as the other thread would first see it."""

    def __init__(self, capacity: int) -> None:
        self.cursors = [0, 0]
        self.raised = lambda cursor: None
        super().__init__(capacity, ROW)

    @property
    def write(self) -> int:
        """The producer's cursor."""
        return self.cursors[0]

    @write.setter
    def write(self, value: int) -> None:
        self.cursors[0] = value
        self.raised("write")

    @property
    def read(self) -> int:
        """The consumer's cursor."""
        return self.cursors[1]

    @read.setter
    def read(self, value: int) -> None:
        self.cursors[1] = value
        self.raised("read")


class CursorTests(SynchronousTestCase):
    """Invariant 1, at the very moment at which a cursor is raised."""

    def test_rows_are_whole_when_write_is_raised(self) -> None:
        """Invariant 1: a consumer who takes as soon as it sees rows takes them whole."""
        ring = WatchedRing(4)
        taken: list[int] = []

        def take_at_once(cursor: str) -> None:
            if cursor == "write":
                batch = ring.take()
                self.assertTrue(whole(batch))
                taken.extend(batch["number"].tolist())

        ring.raised = take_at_once
        for first in range(1, 30, 3):
            ring.push(rows(first, 3), np.array([0, 1, 2]))
        self.assertEqual(taken, list(range(1, 31)))

    def test_rows_are_copied_when_read_is_raised(self) -> None:
        """Invariant 1: a producer who fills freed places at once overwrites nothing unread."""
        ring = WatchedRing(4)

        def fill_at_once(cursor: str) -> None:
            if cursor == "read":
                ring.push(rows(1000, 4), np.arange(4))

        for first in range(1, 30, 3):
            ring.raised = lambda cursor: None
            ring.take()
            ring.push(rows(first, 3), np.array([0, 1, 2]))
            ring.raised = fill_at_once
            taken = ring.take()
            self.assertEqual(taken["number"].tolist(), [first, first + 1, first + 2])
            self.assertTrue(whole(taken))

    def test_each_side_raises_its_own_cursor(self) -> None:
        """Invariant 1: a push writes no cursor but `write`, a take none but `read`."""
        ring = WatchedRing(4)
        moved: list[str] = []
        ring.raised = moved.append
        ring.push(rows(0, 2), np.array([0, 1]))
        self.assertEqual(moved, ["write"])
        ring.take()
        self.assertEqual(moved, ["write", "read"])


class RingLawTests(SynchronousTestCase):
    """The ring beside a deque."""

    @settings(LAW, max_examples=80)
    @given(
        st.sampled_from([1, 2, 256]),
        st.lists(st.none() | st.integers(0, 5) | st.integers(0, 300), max_size=40),
    )
    def test_ring_and_deque_agree(self, capacity: int, turns: list[int | None]) -> None:
        """Whatever is pushed (a number) and taken (None), the ring gives what a deque would."""
        ring, model = Ring(capacity, ROW), deque[int]()
        number = 0
        for turn in turns:
            if turn is None:
                taken = ring.take()
                self.assertEqual(taken["number"].tolist(), list(model))
                self.assertTrue(whole(taken))
                model.clear()
            else:
                pushed = ring.push(rows(number, turn), np.arange(turn))
                self.assertEqual(pushed, min(turn, capacity - len(model)))
                model.extend(range(number, number + pushed))
                number += turn
            self.assertEqual(ring.depth, len(model))


class TwoThreadsTests(SynchronousTestCase):
    """Two real threads that meet at one ring."""

    SECONDS = 0.5
    """After which each of these tests ends, however few rows it has seen."""

    def setUp(self) -> None:
        """Switch threads as often as can be."""
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)

    def hammer(self, capacity: int, rows_at_most: int) -> None:
        """Push numbered rows in random batches from one thread, and take them in another."""
        ring = Ring(capacity, ROW)
        deadline = time.monotonic() + self.SECONDS
        pushed = 0

        def produce() -> None:
            nonlocal pushed
            sizes = np.random.default_rng(1)
            # The table of a game: changed in place as soon as a sweep has pushed it.
            table = np.zeros(2 * capacity, ROW)
            while pushed < rows_at_most and time.monotonic() < deadline:
                fill(table, pushed)
                size = int(sizes.integers(1, 2 * capacity + 1))
                pushed += ring.push(table, np.arange(min(size, rows_at_most - pushed)))
                table["body"] = 0

        producer = threading.Thread(target=produce)
        producer.start()
        taken = 0
        broken = None
        while broken is None:
            ended = not producer.is_alive()
            batch = ring.take()
            expected = np.arange(taken, taken + len(batch), dtype=np.uint64)
            if not (whole(batch) and (batch["number"] == expected).all()):
                broken = batch.tolist()
            taken += len(batch)
            if ended:
                break
        deadline = 0.0
        producer.join(PATIENCE)
        self.assertIsNone(broken, f"not whole or out of order, up to row {taken}")
        self.assertEqual((taken, ring.depth), (pushed, 0))

    def test_one_place(self) -> None:
        """Invariant 1: with one place, every row is read before the next overwrites it."""
        self.hammer(1, 1000)

    def test_few_places(self) -> None:
        """Invariant 1: with few places, the ring is full or empty nearly always."""
        self.hammer(4, 5000)

    def test_many_places(self) -> None:
        """Invariant 1: with many places, large batches wrap around under the reader's eyes."""
        self.hammer(256, 400_000)
