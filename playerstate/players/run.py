"""One run of the service, from a start to the stop that ends it: who is online, and where they are.

A `Run` is complete when it is made; another start makes another.  Reactor thread only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateReader, IStateStore, JournalUnusable, StoreBusy, Stored
from playerstate.ledger import Gauges, Ledger, count
from playerstate.live.journal import Memory
from playerstate.live.table import LiveTable
from playerstate.log import PrintableLogger
from playerstate.players.errors import NotOnline, NotRunning, ServerFull
from playerstate.players.leaves import Leaves, Progress
from playerstate.players.loads import Loads
from playerstate.players.salvage import Salvage
from playerstate.runtime import Runtime
from playerstate.saving.commit import Dropped
from playerstate.saving.health import Trouble
from playerstate.saving.outbox import Outbox
from playerstate.saving.ring import Rows
from playerstate.state.layout import RowLayout
from playerstate.state.schema import InvalidState

FORGET_EVERY = 1.0
SUMMARY_EVERY = 60.0
CHECK_EVERY = 1.0
"""Seconds between two looks at the file in which the live table lies."""

_log = PrintableLogger()


@attrs.frozen
class Options:
    """What a service was made with; see `playerstate.players.service.PlayerStateService`."""

    store: IStateStore
    save_within: float
    queue_size: int
    max_players: int
    stop_within: float
    lanes: int


@attrs.frozen(eq=False)
class Opened:
    """What a start took hold of, and a stop gives back.

    Attributes:
        identity: of the store.
        reader: of the store.
        memory: where the live table lies.
        buffer: the first places of it.
        recovered: rows that a process before left, and that the store does not have.
        leftover: whether a process before left anything.
    """

    identity: bytes
    reader: IStateReader
    memory: Memory
    buffer: memoryview
    recovered: Rows
    leftover: bool


@attrs.frozen
class Joined:
    """A player who has joined.

    Attributes:
        state: where the player stands now, an instance of the state class.
        restored: whether that was ever saved or changed; False for one who spawns.
        updated_at: when it was last changed, microseconds since the Unix epoch; 0 for never.
    """

    state: Any
    restored: bool
    updated_at: int


class Run:
    """Everything of one run: the table, the way to the store, who loads, and who leaves.

    Args:
        options: what the service was made with.
        opened: what the start took hold of.
        ledger: the service's, for life.
        runtime: the reactor, the clocks and the threads.
        when_idle: called when a stop's last work is done; see `playerstate.players.stopping`.

    Attributes:
        clock: timers that stand a wall clock that steps.
        table: the live table.
        outbox: the way to the store.
        leaves: players who leave.
        loads: players who join, and wait for the store.
        accepts: whether joins and updates are taken in; not from the beginning of a stop on.
        gave_up: whether the stop gave up on saving.
    """

    def __init__(
        self, options: Options, opened: Opened, ledger: Ledger, runtime: Runtime
    ) -> None:
        store = options.store
        self.options = options
        self.schema = store.schema
        self.ledger = ledger
        self.clock = SteadyClock(runtime.reactor, runtime.monotonic)
        self.wall_clock = runtime.wall_clock
        self.memory = opened.memory
        self.reader = opened.reader
        self.identity = opened.identity
        self.table = LiveTable(
            self.schema,
            options.max_players,
            self.clock.seconds,
            opened.buffer,
            opened.memory.reserve,
            # A row that another process wrote is told from ours by its version.
            first_version=int.from_bytes(os.urandom(7), "little"),
        )
        self.accepts = True
        self.gave_up = False
        self.loads = Loads(self._enter)
        self.recovering = len(opened.recovered) > 0
        ledger.recovered += len(opened.recovered)
        self.outbox = Outbox(
            self,
            self.table,
            RowLayout(self.schema.fields),
            store,
            ledger,
            self.clock,
            runtime,
            opened.recovered,
            queue_size=options.queue_size,
            save_within=options.save_within,
            lanes=options.lanes,
        )
        self.leaves = Leaves(self.table, ledger, self.outbox.save_soon)
        self.salvage = Salvage(
            self.schema,
            self.table,
            self.memory,
            self.clock,
            lambda session_id: self.reader.load(session_id),
            lambda: self.outbox.in_flight,
            lambda: self.leaves.settled(()),
        )
