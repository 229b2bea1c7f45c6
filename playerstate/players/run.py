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
