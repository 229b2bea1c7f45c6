"""What a service gets from its process: the reactor, the clocks and the threads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import attrs


class PersistThread(Protocol):
    """The part of a thread's interface that is used; `threading.Thread` provides it."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end, `timeout` seconds at most."""


StartThread = Callable[[Callable[[], None], str], PersistThread]
"""Starts a thread that runs this function, under this name."""


def start_persist_thread(run: Callable[[], None], name: str) -> PersistThread:
    """Start a thread for one persister.

    It is a daemon thread, so that one stuck in a write cannot keep the process from exiting; its
    owner joins it nevertheless.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


@attrs.frozen
class Runtime:
    """The reactor, the clocks and the thread starter of a service; tests replace them.

    Attributes:
        reactor: provides ``IReactorTime`` and ``IReactorFromThreads``.
        monotonic: seconds that never step; times everything but ``updated_at``.
        wall_clock: nanoseconds since the Unix epoch; dates ``updated_at``.
        start_thread: starts a persist thread.
        jitter: a number from 0 to 1, to spread retries.
    """

    reactor: Any
    monotonic: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], int] = time.time_ns
    start_thread: StartThread = start_persist_thread
    jitter: Callable[[], float] = random.random
