"""What a test of a store needs, and what a subclass says of its store."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from playerstate.interfaces import (
    IStateReader,
    IStateStore,
    IStateWriter,
    Stored,
)
from playerstate.state.schema import StateSchema
from playerstate.stores.contract.states import (
    IDENTITY,
    PLAIN,
    records,
)


class StoreTestCase(SynchronousTestCase):
    """A test of a store that a subclass opens.

    Attributes:
        patience: seconds within which the store must answer what it answers by a Deferred.
        many: how many players the test of many players saves.
        migrates: whether the store keeps its players in columns, which follow the state class.
    """

    __test__ = False
    patience = 20.0
    many = 1_000_000
    migrates = True

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "__test__" not in vars(cls):
            cls.__test__ = cls.open is not StoreTestCase.open

    def open(self, schema: StateSchema) -> IStateStore:
        """The store, opened the first time or again on what it kept."""
        raise SkipTest("a subclass says how its store is opened")

    def turn(self) -> None:
        """Let pass a moment in which a store may answer; a reactor of the store's has its turn."""
        time.sleep(0.001)

    def refuse(self, session_id: int) -> None:
        """Have the store, which is started, refuse each further row of this player."""
        raise SkipTest("this store refuses no row")

    def cut(self) -> None:
        """Cut all connections of the store, which is started."""
        raise SkipTest("this store has no connection that could be cut")

    def wait(self, answer: Any) -> Any:
        """An answer of the store, given at once or by a Deferred."""
        if not isinstance(answer, Deferred):
            return answer
        outcomes: list[Any] = []
        answer.addBoth(outcomes.append)
        end = time.monotonic() + self.patience
        while not outcomes:
            if time.monotonic() > end:
                self.fail(f"the store has not answered within {self.patience} s")
            self.turn()
        if isinstance(outcomes[0], Failure):
            outcomes[0].raiseException()
        return outcomes[0]

    def start(self, schema: StateSchema = PLAIN) -> None:
        """Open the store and both its ends, to be closed after the test."""
        self.store = self.open(schema)
        self.wait(self.store.prepare())
        self.ends = ExitStack()
        self.addCleanup(self.ends.close)
        self.ends.callback(self.store.close)
        self.wait(self.store.migrate(IDENTITY))
        self.reader: IStateReader = self.wait(self.store.open_reader())
        self.ends.callback(self.reader.close)
        self.writer: IStateWriter | None = self.store.open_writer()
        self.ends.callback(self.close_writer)

    def close_writer(self) -> None:
        """Close the writer, if the test has not."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()

    def opened_writer(self) -> IStateWriter:
        """The writer; another one if the last was closed."""
        if self.writer is None:
            self.writer = self.store.open_writer()
        return self.writer

    def load(self, session_id: int) -> Stored | None:
        """A player, as the reader loads them."""
        found: Stored | None = self.wait(self.reader.load(session_id))
        return found

    def stored(self, session_id: int) -> Stored:
        """A player of whom the store must have a state."""
        found = self.load(session_id)
        if found is None:
            self.fail(f"player {session_id} is not stored")
        return found

    def write(self, *players: tuple[Any, ...]) -> list[int]:
        """Write players, given as (session id, plain values, updated_at), in one batch.

        Returns:
            The positions of those of whom the store has a newer state; others may not be left out.
        """
        left_out = self.opened_writer().write(records(self.store.schema, *players))
        self.assertEqual(len(left_out), len(left_out.newer))
        newer: list[int] = sorted(left_out.newer.tolist())
        return newer

    def fitted(self, state: type, *players: tuple[Any, ...]) -> None:
        """Start with this state class, save players, and close all again."""
        if not self.migrates:
            raise SkipTest("this store has no columns")
        self.start(StateSchema.of(state))
        if players:
            self.write(*players)
        self.ends.close()
