"""The real service, its real persist thread and real time, driven by the test's own thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from playerstate.interfaces import IStateStore
from playerstate.players.service import PlayerStateService
from playerstate.runtime import Runtime
from playerstate.testing import MemoryReactor

PATIENCE = 20.0
"""Seconds after which a test gives up on what should have come long before."""


class LogLines:
    """What is logged between `start` and `stop`, one text an event."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self) -> None:
        """Listen."""
        globalLogPublisher.addObserver(self._note)

    def stop(self) -> None:
        """Listen no more."""
        globalLogPublisher.removeObserver(self._note)

    def _note(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        reason = "" if failure is None else f": {failure.getErrorMessage()}"
        self.lines.append(f"{formatEvent(event)}{reason}")

    def having(self, part: str) -> list[str]:
        """The lines that have this in them."""
        return [line for line in self.lines if part in line]


class LiveService:
    """A service that is started, whose reactor turns while the test waits for something.

    Args:
        store: the players' store.
        options: for `PlayerStateService`.

    Attributes:
        service: the service.
    """

    def __init__(self, store: IStateStore, **options: Any) -> None:
        self._reactor = MemoryReactor()
        self._before = time.monotonic()
        self.service = PlayerStateService(store, runtime=Runtime(self._reactor), **options)
        self.service.startService()

    def turn(self, seconds: float = 0.002) -> None:
        """Let a little time pass, and run what is due."""
        time.sleep(seconds)
        now = time.monotonic()
        self._reactor.advance(now - self._before)
        self._before = now

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def until(self, condition: Callable[[], object], within: float = PATIENCE) -> float:
        """Turn until something holds; return for how many seconds that took."""
        begin = time.monotonic()
        while not condition():
            if time.monotonic() - begin > within:
                raise AssertionError(f"did not come within {within} s: {self.snapshot()}")
            self.turn()
        return time.monotonic() - begin

    def result(self, waited: Deferred[Any], within: float = PATIENCE) -> Any:
        """What a Deferred fires with; a failure's exception is raised."""
        results: list[Any] = []
        waited.addBoth(results.append)
        self.until(lambda: results, within)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def failure(self, waited: Deferred[Any], within: float = PATIENCE) -> BaseException:
        """The exception a Deferred fails with."""
        try:
            result = self.result(waited, within)
        except Exception as error:
            return error
        raise AssertionError(f"did not fail: {result!r}")

    def join(self, *session_ids: int) -> None:
        """Bring players online."""
        for session_id in session_ids:
            self.result(self.service.join(session_id))

    def flush(self) -> None:
        """Save everything."""
        self.result(self.service.flush())

    def stop(self) -> None:
        """Stop the service, if it runs."""
        self.result(self.service.stopService())

    def snapshot(self) -> Any:
        """The ledger's numbers."""
        return self.service.ledger.snapshot()
