"""The heartbeat of the persist threads, which runs the timers of the reactor thread.

A reactor's own timers stall when the wall clock is set back, so each persist thread has them caught
up once a second.  A reactor that takes no beat is not running, and nothing is being saved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.log import PrintableLogger
from playerstate.runtime import Runtime

REACTOR_SILENT = 10.0
"""Seconds without taking a beat after which a reactor is logged as not running."""

_log = PrintableLogger()


class Heartbeat:
    """The heartbeat that all persist threads of a service share.

    Args:
        store: named in log lines.
        clock: caught up at each beat.
        runtime: the reactor, and a clock that never steps.
    """

    def __init__(self, store: IStateStore, clock: SteadyClock, runtime: Runtime) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = runtime.monotonic
        self._call_from_thread: Callable[..., object] = runtime.reactor.callFromThread
        self._beats = threading.Lock()  # held by a persist thread, against the others
        # When the beat was sent that the reactor has not taken yet; one beat at a time, since more
        # would pile up in a reactor that does not run.
        self._beat_at: float | None = None
        self._silence_logged = False

    def beat(self) -> None:
        """Have the reactor thread catch up with its timers.  Any persist thread."""
        with self._beats:
            now, beat_at = self._monotonic(), self._beat_at
            if beat_at is None:
                self._beat_at = now
                self._call_from_thread(self._take)
            elif now - beat_at >= REACTOR_SILENT and not self._silence_logged:
                self._silence_logged = True
                _log.critical(
                    "the reactor has not run for {seconds:.0f} s, and nothing is being saved to"
                    " {store}; where asyncio runs the program, call"
                    " twisted.internet.asyncioreactor.install(loop) before anything imports"
                    " twisted.internet.reactor",
                    seconds=now - beat_at,
                    store=self._store.describe(),
                )

    def _take(self) -> None:
        self._beat_at = None
        self._silence_logged = False
        self._clock.catch_up()
