"""The beats of the persist threads: by them the reactor knows that time passes.

A reactor's own timers stand still while the wall clock is set back; so each persist thread kicks
them once a second.  Where the reactor takes no beat, it does not run, and nothing is being saved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from playerstate.clock import SteadyClock
from playerstate.interfaces import IStateStore
from playerstate.log import PrintableLogger
from playerstate.runtime import Runtime

REACTOR_SILENT = 10.0
"""Seconds after which a reactor that takes no call from a persist thread is said not to run."""

_log = PrintableLogger()


class Heartbeat:
    """One for all persist threads of a service.

    Args:
        store: named in the log.
        clock: is told to catch up.
        runtime: the reactor, and the clock that does not step.
    """

    def __init__(self, store: IStateStore, clock: SteadyClock, runtime: Runtime) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = runtime.monotonic
        self._call_from_thread: Callable[..., object] = runtime.reactor.callFromThread
        self._beats = threading.Lock()  # of the persist threads among each other
        # When the reactor was given a beat that it has not taken.
        self._beat_at: float | None = None
        self._silence_told = False

    def beat(self) -> None:
        """Time has passed, whatever the reactor's own clock says.  Any persist thread."""
        with self._beats:
            now, beat_at = self._monotonic(), self._beat_at
            if beat_at is None:
                self._beat_at = now
                self._call_from_thread(self._take)
            elif now - beat_at >= REACTOR_SILENT and not self._silence_told:
                # One beat at a time: they would pile up in a reactor that does not run.
                self._silence_told = True
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
        self._silence_told = False
        self._clock.catch_up()
