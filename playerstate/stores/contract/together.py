"""Many at once: starts, players, loads, writers; and connections that are cut."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SkipTest

from playerstate.interfaces import (
    StoreBusy,
    Stored,
    StoreUnusable,
)
from playerstate.stores.contract.base import StoreTestCase
from playerstate.stores.contract.states import (
    EVERYTHING,
    IDENTITY,
    PLAIN,
    any_values,
    spawned,
)


class TogetherTests(StoreTestCase):
    """What happens at the same time, and what is lost meanwhile."""

    def test_identity(self) -> None:
        """The identity that a store has after `migrate` is the one that the next start finds."""
        store = self.open(PLAIN)
        self.assertEqual(len(self.wait(store.prepare())), 16)
        with closing(store):
            identity = self.wait(store.migrate(IDENTITY))
        with closing(self.open(PLAIN)) as again:
            self.assertEqual(self.wait(again.prepare()), identity)

    def test_ten_starts(self) -> None:
        """Of ten starts at once some may be refused, in words; all others agree on the store."""
        stores = [self.open(EVERYTHING) for _ in range(10)]
        prepared = self._answers([store.prepare for store in stores])
        running = []
        for store, answer in zip(stores, prepared, strict=True):
            if isinstance(answer, Exception):
                self.assertIsInstance(answer, StoreUnusable)
            else:
                running.append(store)
        self.assertNotEqual(running, [])
        drawn = [bytes([place]) * 16 for place in range(1, 11)]
        migrations = [
            partial(store.migrate, mine) for store, mine in zip(running, drawn, strict=False)
        ]
        identities = self._answers(migrations)
        for store in running:
            store.close()
        self.assertEqual([each for each in identities if not isinstance(each, bytes)], [])
        self.assertEqual(len(set(identities)), 1)
        self.start(EVERYTHING)
        self.write((1, *any_values(random.Random(2)), 1))
        self.assertEqual(self.stored(1).updated_at, 1)

    def _answers(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Make all calls, then wait for all answers; an error is its answer."""
        asked, answers = [], []
        for call in calls:
            try:
                asked.append(call())
            except Exception as error:
                asked.append(error)
        for each in asked:
            try:
                answers.append(self.wait(each))
            except Exception as error:
                answers.append(error)
        return answers

    def test_many_players(self) -> None:
        """A great many players are stored, each under their own id, and guarded."""
        self.start()
        at_once = 65_536
        for start in range(0, self.many, at_once):
            ids = np.arange(start + 1, min(start + at_once, self.many) + 1)
            batch = spawned(PLAIN, ids, updated_at=2)
            batch["x"] = ids
            self.assertEqual(len(self.opened_writer().write(batch)), 0)
        edges = {1, 2, at_once, at_once + 1, self.many // 2, self.many - 1, self.many}
        for player in sorted(edges & set(range(self.many + 1))):
            self.assertEqual(self.load(player), Stored((float(player), 200.0), 2))
        self.assertIsNone(self.load(self.many + 1))
        some = np.unique(np.linspace(1, self.many, 5000).astype(int))
        left_out = self.opened_writer().write(spawned(PLAIN, some, updated_at=1))
        self.assertEqual(len(left_out.newer), len(some))

    def test_loads_at_once(self) -> None:
        """Loads of many players may be under way at a time, and each is answered."""
        self.start()
        self.opened_writer().write(spawned(PLAIN, range(1, 201), updated_at=3))
        loads = [self.reader.load(player) for player in range(1, 301)]
        found = [self.wait(load) for load in loads]
        self.assertEqual([each is not None for each in found], [True] * 200 + [False] * 100)

    def test_cancelled_load(self) -> None:
        """A load that is cancelled fails, and the next one is answered."""
        self.start()
        self.write((1, 1.0, 2.0, 3))
        for _ in range(3):
            load = self.reader.load(1)
            if not isinstance(load, Deferred):
                raise SkipTest("this store answers at once")
            load.cancel()
            self.assertRaises(CancelledError, self.wait, load)
        self.assertEqual(self.load(1), Stored((1.0, 2.0), 3))

    def test_whole_rows(self) -> None:
        """Beside a writer, a reader sees whole players as they were committed, and none go back."""
        self.start()
        self.close_writer()
        players, rounds = range(1, 101), 30
        failures: list[BaseException] = []

        def persist() -> None:
            try:
                with closing(self.store.open_writer()) as writer:
                    for number in range(1, rounds + 1):
                        batch = spawned(PLAIN, players, updated_at=number)
                        batch["x"] = batch["y"] = number
                        writer.write(batch)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=persist)
        thread.start()
        seen = dict.fromkeys(players, 0)
        for player in itertools.cycle(players):
            is_over = not thread.is_alive()
            found = self.load(player)
            if found is not None:
                self.assertEqual(found.values, (float(found.updated_at),) * 2)
                self.assertGreaterEqual(found.updated_at, seen[player])
                seen[player] = found.updated_at
            if is_over:
                break
        thread.join()
        self.assertEqual(failures, [])
        self.assertEqual({self.stored(player).updated_at for player in players}, {rounds})

    def test_writers(self) -> None:
        """Writers of several lanes work side by side; what one saved the others guard."""
        self.start()
        lanes = self.store.lanes
        if lanes == 1:
            raise SkipTest("this store has one writer")
        writers = [self.opened_writer()]
        for _ in range(lanes - 1):
            writers.append(self.store.open_writer())
            self.ends.callback(writers[-1].close)
        for lane, writer in enumerate(writers):
            writer.write(spawned(PLAIN, range(lane + 1, 400, lanes), updated_at=5))
        self.assertEqual({self.stored(player).updated_at for player in range(1, 400)}, {5})
        for lane, writer in enumerate(writers):
            older = spawned(PLAIN, range(lane + 1, 400, lanes), updated_at=4)
            self.assertEqual(len(writer.write(older).newer), len(older))

    def test_cut_connections(self) -> None:
        """After its connections were cut a new writer saves the rows, and the reader goes on."""
        self.start()
        self.write((1, 1.0, 1.0, 1), (2, 1.0, 1.0, 9))
        self.assertEqual(self.load(1), Stored((1.0, 1.0), 1))
        self.cut()
        batch = spawned(PLAIN, (1, 2, 3), updated_at=5)
        for left_out in self._tries(lambda: self.opened_writer().write(batch)):
            self.assertEqual(left_out.newer.tolist(), [1])
        for found in self._tries(lambda: self.load(3)):
            self.assertEqual(found, Stored(PLAIN.decode(PLAIN.spawn), 5))
        self.assertEqual([self.stored(player).updated_at for player in (1, 2)], [5, 9])

    def _tries(self, call: Callable[[], Any]) -> Iterator[Any]:
        """Make a call until it succeeds, on a new writer after each error; yields its result."""
        end = time.monotonic() + self.patience
        while True:
            try:
                result = call()
            except Exception as error:
                if time.monotonic() > end:
                    raise
                if not isinstance(error, StoreBusy):
                    self.close_writer()
                self.turn()
            else:
                yield result
                return
