"""The order of a start: open the store, find what an earlier process left, make the run.

Reactor thread only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore, StoreUnusable, file_store
from playerstate.ledger import Ledger
from playerstate.live.memory import RowMemory
from playerstate.live.names import check_beside
from playerstate.live.recovery import find_unsaved, what_is_left
from playerstate.log import PrintableLogger
from playerstate.players.errors import NotRunning
from playerstate.players.listener import Listeners
from playerstate.players.options import Options
from playerstate.players.run import Opened, Run
from playerstate.runtime import Runtime

ANSWER_WITHIN = 30.0
"""Seconds within which a store across a network must answer each call of a start."""

T = TypeVar("T")

_log = PrintableLogger()


async def start(
    options: Options,
    memory: RowMemory,
    ledger: Ledger,
    runtime: Runtime,
    when_recovered: Callable[[], None],
    listeners: Listeners,
) -> Run:
    """A run whose persist thread is alive; awaits nothing if the store answers at once.

    When cancelled, it closes everything it opened.

    Args:
        options: the service's options.
        memory: where the live table is to lie.
        ledger: the service's counters, over all of its runs.
        runtime: the reactor, the clocks and the thread starter.
        when_recovered: called once the rows that an earlier process left are saved, if there are
            any.
        listeners: notified of players who leave or are changed.

    Raises:
        StoreUnusable: the store or the live file cannot be used as it is; all is closed again.
        RuntimeError: no persist thread can be started; likewise.
    """
    store = options.store
    files = file_store(store)
    clock = SteadyClock(runtime.reactor, runtime.monotonic)
    with ExitStack() as undo:
        identity = await _answer(store, store.prepare(), clock)
        undo.callback(store.close)
        check_beside(None if files is None else files.live_path, options.live_file, identity)
        leftover = memory.claim(identity)
        undo.callback(memory.close, clean=False)
        identity = os.urandom(16) if leftover is None else identity
        identity = await _answer(store, store.migrate(identity), clock)
        reader = await _answer(store, store.open_reader(), clock)
        undo.callback(reader.close)
        buffer = memory.open(store.schema, options.max_players, identity)
        recovered = find_unsaved(leftover, store.schema, reader)
        if leftover is not None and not len(recovered):
            memory.discard()
        left = what_is_left(leftover, store.schema)
        opened = Opened(identity, reader, memory, buffer, recovered, left)
        run = Run(options, opened, ledger, clock, runtime, when_recovered, listeners)
        run.begin()
        undo.pop_all()
    return run


async def _answer(store: IStateStore, answer: T | Deferred[T], clock: SteadyClock) -> T:
    """A store's answer, given at once or across a network.

    Raises:
        StoreUnusable: the store did not answer within `ANSWER_WITHIN` seconds.
    """
    if not isinstance(answer, Deferred):
        return answer
    try:
        return await answer.addTimeout(ANSWER_WITHIN, clock)
    except TimeoutError:
        raise StoreUnusable(
            f"{store.describe()} has not answered within {ANSWER_WITHIN:g} s; check that it runs"
            " and can be reached from here"
        ) from None


def why_not_started(failure: Failure) -> Failure:
    """What those who wait for a start get when it failed; logged, unless a stop cancelled it."""
    if failure.check(CancelledError):
        return Failure(stopped_before_ready())
    if failure.check(StoreUnusable):
        _log.critical("the service cannot be started: {error}", error=failure.value)
    else:
        _log.failure("the service cannot be started", failure)
    return failure


def stopped_before_ready() -> NotRunning:
    """The error for those who wait for a start that a stop has overtaken."""
    return NotRunning("the service was stopped before it was ready")


def check_loop(reactor: object) -> None:
    """Refuse a reactor that does not run while an asyncio event loop runs this code.

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
