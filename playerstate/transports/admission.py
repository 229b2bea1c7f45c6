"""How many datagrams of strangers are admitted, and when: depends on the load.

While a turn of the reactor can empty the socket, each turn admits some.  While more datagrams wait
in the socket, perhaps of players online, a fixed number is admitted each `LOADED_EVERY`: the time
that strangers cost is bounded, and the rest goes into reading.  Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from playerstate.transports.strangers import Source, Strangers

LOADED_EVERY = 0.01
"""Seconds between two admissions under load."""


class Admission:
    """Queues the datagrams of strangers, and admits them in turns.

    Args:
        clock: the service's.
        let_in: receives a stranger's datagram.
        a_turn: the most datagrams admitted in one turn of the reactor.
        a_loaded_turn: the most admitted each `LOADED_EVERY` under load.
        has_room: whether one more may be admitted now.
    """

    def __init__(
        self,
        clock: Any,
        let_in: Callable[[Source, bytes], object],
        a_turn: int,
        a_loaded_turn: int,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._clock = clock
        self._let_in = let_in
        self._a_turn = a_turn
        self._a_loaded_turn = a_loaded_turn
        self._has_room = has_room
        self._strangers = Strangers()
        self._is_loaded = False
        self._later: IDelayedCall | None = None

    def __bool__(self) -> bool:
        """Whether a datagram waits."""
        return bool(self._strangers)

    def came(self, sources: Sequence[Source], datagrams: Sequence[bytes]) -> int:
        """Queue datagrams of strangers; the caller calls `turn` next.  See `Strangers.put`."""
        return self._strangers.put(sources, datagrams)

    def turn(self, is_loaded: bool) -> None:
        """Admit some strangers, once the socket was read and the players' datagrams processed.

        Args:
            is_loaded: whether more may wait in the socket.
        """
        self._is_loaded = is_loaded
        is_stuck = not is_loaded and not self._let_some_in(self._a_turn)
        if self._strangers and (self._later is None or not self._later.active()):
            self._go_on(is_loaded or is_stuck)

    def close(self) -> None:
        """Discard what waits: the clients send again, or ask another server."""
        self._strangers = Strangers()
        if self._later is not None and self._later.active():
            self._later.cancel()

    def _go_on(self, is_slow: bool) -> None:
        self._later = self._clock.callLater(LOADED_EVERY if is_slow else 0.0, self._turn_alone)

    def _turn_alone(self) -> None:
        """A turn by the timer; under load the only kind, otherwise for when no datagram arrives."""
        # Unless the socket is read before the next turn, the load is over.
        is_loaded, self._is_loaded = self._is_loaded, False
        is_stuck = not self._let_some_in(self._a_loaded_turn if is_loaded else self._a_turn)
        if self._strangers:
            self._go_on(is_loaded or is_stuck)

    def _let_some_in(self, most: int) -> bool:
        """Admit so many; return whether there was room for them."""
        for _ in range(most):
            if not self._strangers:
                break
            if not self._has_room():
                return False
            self._let_in(*self._strangers.take())
        return True
