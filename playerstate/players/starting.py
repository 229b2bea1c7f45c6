"""The order of a start: take hold of the store, find what a process before left, make the run.

Reactor thread only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack

from playerstate.clock import SteadyClock
from playerstate.ledger import Ledger
from playerstate.live.journal import Memory, check_beside
from playerstate.live.recovery import find_unsaved
from playerstate.players.errors import NotRunning
from playerstate.players.run import Opened, Options, Run
from playerstate.saving.outbox import Surroundings


def start(
    options: Options,
    memory: Memory,
    ledger: Ledger,
    around: Surroundings,
    when_ready: Callable[[], None],
) -> Run:
    """A run that has begun.

    Args:
        options: what the service was made with.
        memory: where the live table is to lie.
        ledger: the service's, for all of its runs.
        around: the reactor, the clocks and the thread.
        when_ready: called once, when players may join.

    Raises:
        StoreUnusable: the store or the journal cannot be used as it is; all was given back.
        RuntimeError: no persist thread can be started; likewise.
    """
    store = options.store
    with ExitStack() as undo:
        identity = store.prepare()
        undo.callback(store.close)
        check_beside(store.path, options.journal, identity)
        remains = memory.take_remains(identity)
        undo.callback(memory.close, clean=False)
        identity = store.migrate(os.urandom(16) if remains is None else identity)
        reader = store.open_reader()
        undo.callback(reader.close)
        buffer = memory.open(store.schema, options.max_players, identity)
        recovered = find_unsaved(remains, store.schema, reader)
        if remains is not None and not len(recovered):
            memory.forget_remains()
        opened = Opened(identity, reader, memory, buffer, recovered)
        clock = SteadyClock(around.reactor, around.monotonic)
        run = Run(options, opened, ledger, clock, around, when_ready)
        run.begin()
        undo.pop_all()
    return run


def check_loop(reactor: object) -> None:
    """Refuse a reactor that stands still while an asyncio event loop of its own runs us.

    Raises:
        NotRunning: nothing would be saved.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    if getattr(reactor, "running", True) or getattr(reactor, "_asyncioEventloop", None) is loop:
        return
    raise NotRunning(
        f"an asyncio event loop runs, and {type(reactor).__name__} does not: nothing would be"
        " saved; call twisted.internet.asyncioreactor.install(loop) with this loop before"
        " anything imports twisted.internet.reactor"
    )
